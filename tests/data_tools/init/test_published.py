"""Published layouts are told by the files that lie there, and answered by the line that trains on them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from dvsn.config.menu import choices
from dvsn.data_tools.commands import INIT
from dvsn.data_tools.init.command import init
from dvsn.data_tools.init.listing import Listing
from dvsn.data_tools.init.published import ARCHIVES, LAYOUTS, published
from dvsn.errors import DataError

CITY = "leftImg8bit/train/ulm/ulm_1_leftImg8bit.png gtFine/train/ulm/ulm_1_gtFine_labelIds.png"
FILES = {
    "street": f"street.json annotations/person_keypoints_train.json {CITY}",
    "cityscapes": CITY,
    "coco": "annotations/instances_train2017.json annotations/person_keypoints_train2017.json train2017/1.jpg",
    "cocostuff": "imageLists/train.txt annotations/1.mat images/1.jpg",
    "pascal_context": "SegmentationClassContext/1.png JPEGImages/1.jpg ImageSets/SegmentationContext/train.txt",
    "lip": "TrainVal_images/train_images/1.jpg TrainVal_parsing_annotations/train_segmentations/1.png",
    "camvid": "train/0001TP_006690.png trainannot/0001TP_006690.png train.txt",
    "mpii": "annot/train.json annot/valid.json images/1.jpg",
    "crowdpose": "json/crowdpose_train.json images/1.jpg",
    "wflw": "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_train.txt WFLW_images/a/1.jpg",
    "300w": "afw/1.pts afw/1.jpg lfpw/trainset/1.pts helen/trainset/1.pts",
    "aflw": "face_landmarks_aflw_train.csv images/1.jpg",
    "cofw": "COFW_train_color.mat COFW_test_color.mat",
    "cifar10": "cifar-10-batches-py/data_batch_1 cifar-10-batches-py/batches.meta",
    "cifar100": "cifar-100-python/train cifar-100-python/test",
}


def test_every_layout_is_here_and_is_a_choice() -> None:
    assert {each.data for each in LAYOUTS} == FILES.keys()
    for each in (*LAYOUTS, ARCHIVES):
        assert each.data in choices()["data"]
        assert set(each.tasks) <= set(choices()["task"])


@pytest.mark.parametrize("name", FILES)
def test_a_published_layout_is_told(name: str, tmp_path: Path) -> None:
    for file in FILES[name].split():
        (tmp_path / "set" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / file).touch()
    with pytest.raises(DataError, match=f"task=[a-z0-9]+ data={name} data.root={tmp_path}/set$"):
        init(INIT.parse([str(tmp_path / "set"), f"into={tmp_path}/conf"]))
    assert not (tmp_path / "conf").exists()
    (tmp_path / "set" / FILES[name].split()[0]).unlink()
    found = published(Listing.of(tmp_path / "set"))
    assert found is None or found.data != name or name == "coco"


def test_a_task_is_chosen_among_several(tmp_path: Path) -> None:
    for file in FILES["street"].split():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(DataError, match=r"Also task=segmentation, .*\n .* task=pose data=street "):
        init(INIT.parse([str(tmp_path), f"into={tmp_path}/conf", "task=pose"]))


@pytest.mark.parametrize(
    "inside, name", [("train/ship/1.jpg", "cifar10"), ("train/1.jpg", None), ("train/owl/1.jpg", None)]
)
def test_archives_of_classes(inside: str, name: str | None, tmp_path: Path) -> None:
    for split in ("train", "test"):
        with tarfile.open(tmp_path / f"{split}.tar.gz", "w:gz") as archive:
            archive.addfile(tarfile.TarInfo(inside), io.BytesIO())
    found = published(Listing.of(tmp_path))
    assert (found and found.data) == name
    if name is None:
        with pytest.raises(DataError, match=r"nothing recognised.*Unpack test.tar.gz, train.tar.gz first"):
            init(INIT.parse([str(tmp_path), f"into={tmp_path}/conf"]))
