"""Every segmentation reader on small trees in the published layouts: what a file's ids and colours become."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dvsn.data.camvid import ALPHABETICAL_OF, COLORS, CamVid
from dvsn.data.cityscapes import Cityscapes
from dvsn.data.class_ids import ClassIds, ColorIds, distinct_palette
from dvsn.data.cocostuff import CocoStuff
from dvsn.data.cocostuff_names import ABSENT, CLASS_NAMES, PUBLISHED_IDS, STUFF, THINGS
from dvsn.data.dataset import ImageDataset
from dvsn.data.files import Rule, read_by
from dvsn.data.labelled import read_matlab
from dvsn.data.lip import LIP
from dvsn.data.pascal_context import LISTED_NAMES, SORTED_NAMES, PascalContext
from dvsn.data.pascal_context import PUBLISHED_IDS as CONTEXT_IDS
from dvsn.data.segmentation_folders import SegmentationFolders
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError, DataError
from tests.support.tiny import composed

REAL = Path(os.environ.get("DVSN_DATA", "data")) / "camvid"


def photo(height: int = 4, width: int = 6) -> np.ndarray:
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


def save(path: Path, array: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path, **options)
    return path


def label(*values: int, height: int = 4, width: int = 6, kind: Any = np.uint8) -> np.ndarray:
    """(H, W) ids that begin with these values; the last one fills the rest."""
    ids = np.full(height * width, values[-1], kind)
    ids[: len(values)] = values
    return ids.reshape(height, width)


def first(data: ImageDataset, count: int) -> list[int]:
    """The first so many class ids of the first item."""
    ids = data[0]["label"]
    assert ids.dtype == np.uint8 and ids.shape == data[0]["photo"].shape[:2]
    return ids.ravel()[:count].tolist()


# --- Cityscapes -----------------------------------------------------------------------------------


def cityscapes(root: Path, **files: np.ndarray) -> str:
    """One photo, with label files by their kind."""
    save(root / "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png", photo())
    for kind, array in files.items():
        save(root / f"gtFine/train/ulm/ulm_000000_000019_gtFine_{kind}.png", array)
    return str(root)


def test_cityscapes_label_ids_become_the_19_classes(tmp_path: Path) -> None:
    root = cityscapes(
        tmp_path, labelIds=label(*range(24)), labelTrainIds=label(3)
    )  # the label ids are preferred
    data = Cityscapes(root=root, split="train", labels="classes")
    assert first(data, 24) == [255] * 7 + [0, 1, 255, 255, 2, 3, 4] + [255] * 3 + [5, 255, 6, 7, 8, 9, 10]
    cityscapes(tmp_path, labelIds=label(*range(24, 34)))
    assert first(data, 10) == [11, 12, 13, 14, 15, 255, 255, 16, 17, 18]
    names, palette, swaps, file_ids = Cityscapes.vocabulary(labels="classes", instances=False)
    assert len(names) == len(palette) == len(file_ids) == 19 and not swaps
    assert file_ids[:3] == (7, 8, 11) and file_ids[16:] == (31, 32, 33)
    assert (names[0], names[10], names[18]) == ("road", "sky", "bicycle")
    assert (palette[0], palette[10], palette[18]) == ((128, 64, 128), (70, 130, 180), (119, 11, 32))


def test_cityscapes_train_ids_where_only_these_exist(tmp_path: Path) -> None:
    root = cityscapes(tmp_path, labelTrainIds=label(0, 18, 255, 5))
    data = Cityscapes(root=root, split="train", labels="classes")
    assert "labelTrainIds" in data.describe(0)
    assert first(data, 4) == [0, 18, 255, 5]
    cityscapes(tmp_path, labelTrainIds=label(0, 26, 33, 33, 5))
    with pytest.raises(
        DataError, match=r"TrainIds\.png: 3 pixels hold ids outside train ids.*26 on 1, 33 on 2.*18 bicycle"
    ):
        data[0]


def test_cityscapes_refuses_other_ids_unless_they_are_to_be_ignored(tmp_path: Path) -> None:
    root = cityscapes(tmp_path, labelIds=label(7, 34, 255, 255, 8))
    with pytest.raises(
        DataError,
        match=r"_labelIds\.png: 3 pixels hold ids outside label ids \(0\.\.33\): 34 on 1, 255 on 2\. Expected 7 road, "
        r"8 sidewalk.*ignored: 0, 1.*data\.dataset\.ignore_ids=\[34,255\].*_labelTrainIds",
    ):
        Cityscapes(root=root, split="train", labels="classes")[0]
    data = Cityscapes(root=root, split="train", labels="classes", ignore_ids=[34, 255])
    assert first(data, 5) == [0, 255, 255, 255, 1]


def test_cityscapes_refuses_colours_and_names_without_a_meaning(tmp_path: Path) -> None:
    root = cityscapes(tmp_path, labelIds=photo())
    with pytest.raises(
        DataError, match=r"_labelIds\.png: found a picture of mode 'RGB'.*_labelTrainIds\.png"
    ):
        Cityscapes(root=root, split="train", labels="classes")[0]
    save(tmp_path / "x/a.png", label(7))
    (tmp_path / "train.lst").write_text("leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png\tx/a.png\n")
    with pytest.raises(DataError, match=r"a\.png: its name does not say.*data=segmentation"):
        Cityscapes(root=root, split="train", labels="classes", list_file="{split}.lst")


def test_cityscapes_lists_with_a_tab(tmp_path: Path) -> None:
    root = cityscapes(tmp_path, labelIds=label(26))
    stem = "train/ulm/ulm_000000_000019"
    (tmp_path / "train.lst").write_text(
        f"leftImg8bit/{stem}_leftImg8bit.png\tgtFine/{stem}_gtFine_labelIds.png"
    )
    assert first(Cityscapes(root=root, split="train", labels="classes", list_file="{split}.lst"), 1) == [13]


def test_the_street_scenes_serve_segmentation(tmp_path: Path) -> None:
    options = ["data.scenes.train=1", "data.scenes.val=0", "data.scenes.test=0"]
    options += [f"data.root={tmp_path}", "data.height=64", "data.width=128", "data.dataset.labels=classes"]
    module = runtime.build_data(composed(["task=pix2pix", "data=street", *options], tmp_path))
    module.prepare_data()
    data = module.reader(root=str(tmp_path), split="train")
    ids = np.unique(data[0]["label"]).tolist()
    assert {0, 2, 10} <= set(ids) <= {*range(19), 255}  # road, building, sky


# --- CamVid ---------------------------------------------------------------------------------------


def segnet(root: Path, ids: np.ndarray) -> str:
    save(root / "train/0001TP_1.png", photo(*ids.shape[:2]))
    save(root / "trainannot/0001TP_1.png", ids)
    return str(root)


def test_camvid_index_files(tmp_path: Path) -> None:
    root = segnet(tmp_path, label(*range(12)))
    assert first(CamVid(root=root, split="train", labels="classes"), 12) == [*range(11), 255]
    assert first(CamVid(root=root, split="train", labels="ids"), 12) == [*range(12)]
    data = CamVid(root=root, split="train", labels="classes", classes="alphabetical")
    assert first(data, 12) == [9, 1, 3, 6, 7, 10, 8, 4, 2, 5, 0, 255]  # the sheet's order map
    segnet(tmp_path, label(0, 12, 255, 1))
    with pytest.raises(
        DataError,
        match=r"1\.png: 2 pixels hold ids outside 0\.\.11: 12 on 1, 255 on 1.*ignored: 11\..*ignore_ids",
    ):
        CamVid(root=root, split="train", labels="classes")[0]
    data = CamVid(root=root, split="train", labels="classes", ignore_ids=[12, 255])
    assert first(data, 4) == [0, 255, 255, 1]


@pytest.mark.parametrize("classes, expected", [
    # Road, LaneMkgsDriv, Truck_Bus, Void, Bicyclist, Wall, a stray colour
    ("grouped", [3, 3, 8, 255, 10, 1, 255]),
    ("alphabetical", [6, 6, 2, 255, 0, 1, 255]),
    ("exact", [6, 255, 255, 255, 0, 255, 255]),
])  # fmt: skip
def test_camvid_colours(tmp_path: Path, classes: Any, expected: list[int]) -> None:
    colors = [
        (128, 64, 128),
        (128, 0, 192),
        (192, 128, 192),
        (0, 0, 0),
        (0, 128, 192),
        (64, 192, 0),
        (127, 64, 128),
    ]
    picture = np.zeros((20, 20, 3), np.uint8)
    picture[0, :7] = colors
    save(tmp_path / "images/0001TP_006690.png", photo(20, 20))
    save(
        tmp_path / "labels/0001TP_006690_L.png", np.dstack([picture, np.full((20, 20), 255, np.uint8)])
    )  # RGBA
    data = CamVid(root=str(tmp_path), split="train", labels="classes", classes=classes)
    assert first(data, 7) == expected
    with pytest.raises(DataError, match=r"_L\.png: 0\.2% .*\(1\).*\(127, 64, 128\).*data\.dataset\.stray"):
        CamVid(root=str(tmp_path), split="train", labels="classes", classes=classes, stray=0.001)[0]


def test_the_conventions_of_camvid_agree_by_colour() -> None:
    """An exact class is a grouped class's own colour; only the display colour of the pavement was changed."""
    exact, grouped = CamVid.vocabulary(classes="exact"), CamVid.vocabulary(labels="classes")
    assert exact.names[0] == "Bicyclist" and list(exact.names) == sorted(exact.names)
    assert grouped.names[4] == "pavement" and grouped.palette[4] == (60, 40, 222)
    for ours, theirs in ALPHABETICAL_OF.items():
        if ours < 11 and ours != 4:
            assert grouped.palette[ours] == exact.palette[theirs]
    assert ALPHABETICAL_OF[4] == exact.names.index("Sidewalk") and ALPHABETICAL_OF[11] == 255
    for each in COLORS:
        assert each.exact == 255 or ALPHABETICAL_OF[each.grouped] == each.exact
    order = CamVid.vocabulary(classes="alphabetical")
    assert order.palette[:3] == exact.palette[:3] and order.names[:3] == ("bicyclist", "building", "car")


@pytest.mark.skipif(
    not REAL.is_dir(), reason="needs the real CamVid: set DVSN_DATA to the folder that holds camvid/"
)
def test_pixel_frequencies_of_the_real_camvid() -> None:
    published = {
        "train": [16.85, 23.26, 0.98, 31.66, 4.49, 9.72, 1.17, 1.13, 5.87, 0.64, 0.29, 3.95],
        "val": [9.18, 25.96, 0.56, 28.95, 8.72, 16.34, 0.89, 3.08, 1.75, 0.65, 2.22, 1.70],
        "test": [17.07, 24.61, 1.18, 25.81, 9.27, 11.25, 1.01, 1.18, 3.97, 0.63, 0.19, 3.83],
    }
    for split, shares in published.items():
        data = CamVid(root=str(REAL), split=split, labels="classes")
        counts = np.zeros(256, np.int64)
        for _, path in data.pairs:
            counts += np.bincount(data.read_classes(path).ravel(), minlength=256)
        assert counts[11:255].sum() == 0
        np.testing.assert_allclose(100 * counts[[*range(11), 255]] / counts.sum(), shares, atol=0.0051)


# --- COCO-Stuff -----------------------------------------------------------------------------------


def cocostuff(root: Path, *labels: np.ndarray, ending: str = ".png") -> str:
    """The published tree, with PNG files beside the lists."""
    for number, ids in enumerate(labels):
        save(root / "images" / f"{number}.jpg", photo(*ids.shape))
        save(root / "annotations" / f"{number}{ending}", ids)
    (root / "imageLists").mkdir(exist_ok=True)
    (root / "imageLists/train.txt").write_text("\n".join(map(str, range(len(labels)))))
    return str(root)


def test_the_names_of_cocostuff() -> None:
    assert (len(THINGS), len(STUFF), len(set(CLASS_NAMES))) == (80, 91, 171)
    assert (CLASS_NAMES[0], CLASS_NAMES[79], CLASS_NAMES[80], CLASS_NAMES[-1]) == (
        "person", "toothbrush", "banner", "wood",
    )  # fmt: skip
    assert sorted(ABSENT) == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91]
    assert (PUBLISHED_IDS[10], PUBLISHED_IDS[11], PUBLISHED_IDS[80]) == (
        11,
        13,
        92,
    )  # "street sign" never occurs
    assert CLASS_NAMES[11] == "stop sign" and list(STUFF) == sorted(STUFF)
    vocabulary = CocoStuff.vocabulary(ids="zero_based")
    assert vocabulary.names == CLASS_NAMES and len(set(vocabulary.palette)) == 171


@pytest.mark.parametrize("ids, values, expected", [
    ("one_based", [0, 1, 2, 12, 171], [255, 0, 1, 11, 170]),
    ("zero_based", [255, 0, 1, 11, 170], [255, 0, 1, 11, 170]),
    ("original182", [0, 1, 13, 92, 182], [255, 0, 11, 80, 170]),
])  # fmt: skip
def test_cocostuff_numberings(tmp_path: Path, ids: Any, values: list[int], expected: list[int]) -> None:
    root = cocostuff(tmp_path, label(*values))
    assert first(CocoStuff(root=root, split="train", ids=ids), 5) == expected
    assert first(CocoStuff(root=root, split="train"), 5) == expected  # auto: these values leave one numbering


def test_cocostuff_auto_reads_on_until_it_knows(tmp_path: Path) -> None:
    root = cocostuff(tmp_path, label(0, 1, 7), label(12, 3), label(171, 170))
    assert first(CocoStuff(root=root, split="train"), 3) == [255, 0, 6]
    root = cocostuff(tmp_path, label(0, 1, 7), label(12, 3), label(170))
    with pytest.raises(
        DataError,
        match=r"2\.png: data\.dataset\.ids=auto cannot decide: 3 label files.*ids 0 to 170, which one_based and "
        r"zero_based allow\. Set data\.dataset\.ids \(one_based: 1\.\.171 and 0; zero_based",
    ):
        CocoStuff(root=root, split="train")
    root = cocostuff(tmp_path, label(0, 7), label(181, 255))
    with pytest.raises(
        DataError, match=r"1\.png: data\.dataset\.ids=auto found no numbering.*0 to 255.*ignore_ids"
    ):
        CocoStuff(root=root, split="train")
    assert first(CocoStuff(root=root, split="train", ignore_ids=[181]), 2) == [0, 7]  # 255: zero_based


def test_cocostuff_refuses_the_other_numbering(tmp_path: Path) -> None:
    root = cocostuff(tmp_path, label(255, 0, 170))
    with pytest.raises(
        DataError, match=r"0\.png: 1 pixels hold ids outside 1\.\.171 and 0: 255 on 1.*1 person.*zero_based"
    ):
        CocoStuff(root=root, split="train", ids="one_based")[0]
    root = cocostuff(tmp_path, label(12, 171))
    with pytest.raises(DataError, match=r"1 pixels hold ids outside the published 1\.\.182 and 0: 12 on 1"):
        CocoStuff(root=root, split="train", ids="original182")[0]
    with pytest.raises(ConfigError, match=r"data\.dataset\.ids: found 'one'.*one_based"):
        CocoStuff(root=root, split="train", ids="one")  # type: ignore[arg-type]


def test_cocostuff_converted_tree_and_grey_photos(tmp_path: Path) -> None:
    save(tmp_path / "images/test2014/a.jpg", photo()[..., 0])
    save(tmp_path / "annotations/test2014/a_labelTrainIds.png", label(171, 0))
    data = CocoStuff(root=str(tmp_path), split="test", ids="one_based")
    assert data[0]["photo"].shape == (4, 6, 3) and first(data, 2) == [170, 255]
    painted = CocoStuff(root=str(tmp_path), split="test", ids="one_based", labels="color")[0]["label"]
    assert painted[0, :2].tolist() == [list(data.vocabulary().palette[170]), [0, 0, 0]]
    with pytest.raises(DataError, match=r"train\.txt: no such file, and no folder.*train(.|\n)*imageLists"):
        CocoStuff(root=str(tmp_path), split="train")
    (tmp_path / "annotations/test2014/a_labelTrainIds.png").unlink()
    with pytest.raises(DataError, match=r"a\.png: no such file; it belongs to.*a\.jpg"):
        CocoStuff(root=str(tmp_path), split="test")
    (tmp_path / "images/test2014/a.jpg").unlink()
    with pytest.raises(DataError, match="this split is empty"):
        CocoStuff(root=str(tmp_path), split="test")


def matlab(root: Path, name: str, variable: str, ids: np.ndarray) -> None:
    root.mkdir(parents=True, exist_ok=True)
    pytest.importorskip("scipy.io").savemat(str(root / name), {variable: ids, "other": "text"})


def test_cocostuff_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = cocostuff(tmp_path, label(0))
    (tmp_path / "annotations/0.png").unlink()
    matlab(tmp_path / "annotations", "0.mat", "S", label(0, 1, 13, 182, kind=np.uint16))
    data = CocoStuff(root=root, split="train")
    assert first(data, 4) == [255, 0, 11, 170]
    matlab(tmp_path / "annotations", "0.mat", "S", label(12, 300, kind=np.uint16))
    with pytest.raises(
        DataError, match=r"0\.mat: 24 pixels hold ids outside the published.*12 on 1, 300 on 23"
    ):
        data[0]
    with (
        read_by(Rule(max_pixels=23)),
        pytest.raises(DataError, match=r"0\.mat: a picture of 4x6 .*expected 23"),
    ):
        read_matlab(tmp_path / "annotations/0.mat", variable="S")  # of its size, before it is unpacked
    (tmp_path / "annotations/0.mat").write_bytes(b"no matlab")
    with pytest.raises(DataError, match=r"0\.mat: not a MATLAB file with a matrix 'S'"):
        data[0]
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(DataError, match=r"0\.mat: reading MATLAB files needs scipy.*convert"):
        data[0]


# --- PASCAL-Context -------------------------------------------------------------------------------


def context(root: Path, ids: np.ndarray, folder: str = "SegmentationContext") -> str:
    save(root / "JPEGImages/2008_000002.jpg", photo(*ids.shape))
    save(root / "SegmentationClassContext/2008_000002.png", ids)
    (root / "ImageSets" / folder).mkdir(parents=True, exist_ok=True)
    (root / "ImageSets" / folder / "val.txt").write_text("2008_000002\n")
    return str(root)


def test_the_names_of_pascal_context() -> None:
    assert len(LISTED_NAMES) == len(set(LISTED_NAMES)) == len(CONTEXT_IDS) == len(set(CONTEXT_IDS)) == 60
    assert list(CONTEXT_IDS) == sorted(CONTEXT_IDS)
    of_id = dict(zip(CONTEXT_IDS, SORTED_NAMES, strict=True))
    for number, name in {
        0: "background", 2: "aeroplane", 9: "bag", 18: "bed", 19: "bedclothes", 22: "bench", 23: "bicycle", 25: "bird",
        31: "boat", 33: "book", 34: "bottle", 44: "building", 45: "bus", 458: "wood",
    }.items():  # fmt: skip
        assert of_id[number] == name
    assert LISTED_NAMES[1:5] == ("aeroplane", "bicycle", "bird", "boat") and LISTED_NAMES[59] == "wood"
    sixty, fewer = PascalContext.vocabulary(classes=60, ids="listed"), PascalContext.vocabulary(classes=59)
    assert sixty.names[0] == "background" and sixty.palette[0] == (0, 0, 0) and len(sixty.palette) == 60
    assert sixty.names[:4] == ("background", "aeroplane", "bicycle", "bird") and sixty.names[-1] == "wood"
    assert fewer.names[:2] == ("aeroplane", "bag") and len(fewer.names) == len(fewer.palette) == 59


@pytest.mark.parametrize("folder", ["SegmentationContext", "Main"])
def test_pascal_context_with_and_without_background(tmp_path: Path, folder: str) -> None:
    root = context(tmp_path, label(0, 1, 59), folder)
    assert first(PascalContext(root=root, split="val"), 3) == [255, 0, 58]
    assert first(PascalContext(root=root, split="val", classes=60), 3) == [0, 1, 59]
    with pytest.raises(DataError, match=r"train\.txt: no such file, nor .*Main(.|\n)*JPEGImages"):
        PascalContext(root=root, split="train")
    context(tmp_path, label(0, 255, 58))
    with pytest.raises(
        DataError, match=r"2\.png: 1 pixels hold ids outside 0\.\.59: 255 on 1.*background taken away"
    ):
        PascalContext(root=root, split="val")[0]


def test_pascal_context_published_ids(tmp_path: Path) -> None:
    root = context(tmp_path, label(0, 2, 3, 9, 458, 459, kind=np.uint16))  # 3 and 459 are none of the 59
    assert first(PascalContext(root=root, split="val", ids="original459"), 6) == [255, 0, 255, 1, 58, 255]
    data = PascalContext(root=root, split="val", ids="original459", classes=60)
    assert first(data, 6) == [0, 1, 0, 2, 59, 0]
    with pytest.raises(
        DataError, match=r"21 pixels hold ids outside 0\.\.59: 458 on 1, 459 on 19 .*16-bit|20 pixels"
    ):
        PascalContext(root=root, split="val")[0]
    (tmp_path / "SegmentationClassContext/2008_000002.png").unlink()
    matlab(
        tmp_path / "SegmentationClassContext", "2008_000002.mat", "LabelMap", label(0, 2, 458, kind=np.uint16)
    )
    assert first(PascalContext(root=root, split="val"), 3) == [255, 0, 58]
    with pytest.raises(DataError, match=r"MATLAB files, whose classes come in the sorted order.*original459"):
        PascalContext(root=root, split="val", ids="listed")


# --- LIP ------------------------------------------------------------------------------------------


def lip(root: Path, ids: np.ndarray, picture: np.ndarray, split: str = "train") -> str:
    save(root / f"TrainVal_images/{split}_images/7_1.jpg", picture)
    save(root / f"TrainVal_parsing_annotations/{split}_segmentations/7_1.png", ids)
    return str(root)


def test_lip(tmp_path: Path) -> None:
    root = lip(tmp_path, label(*range(20)), photo()[..., 0])
    data = LIP(root=root, split="train")
    assert data[0]["photo"].shape == (4, 6, 3) and first(data, 20) == [*range(20)]
    names, palette, swaps, _ = LIP.vocabulary()
    assert len(names) == len(set(palette)) == 20
    assert [(names[a], names[b]) for a, b in swaps] == [
        ("left arm", "right arm"), ("left leg", "right leg"), ("left shoe", "right shoe"),
    ]  # fmt: skip
    lip(tmp_path, label(20, 255), photo())
    with pytest.raises(
        DataError, match=r"7_1\.png: 24 pixels hold ids outside 0\.\.19: 20 on 1, 255 on 23.*15 right arm"
    ):
        data[0]


def test_lip_lists_of_three_and_two_columns(tmp_path: Path) -> None:
    root = lip(tmp_path, label(14), photo())
    line = "TrainVal_images/train_images/7_1.jpg TrainVal_parsing_annotations/train_segmentations/7_1.png"
    (tmp_path / "train.lst").write_text(
        f"{line} TrainVal_parsing_annotations/train_segmentations_reversed/7_1.png\n"
    )
    (tmp_path / "val.lst").write_text(f"{line}\n")
    for split in ("train", "val"):
        assert first(LIP(root=root, split=split, list_file="{split}.lst"), 1) == [14]
    (tmp_path / "val.lst").write_text(f"{line} a b\n")
    with pytest.raises(DataError, match=r"val\.lst: line 1 has 4 names.*mirrored label"):
        LIP(root=root, split="val", list_file="{split}.lst")


def test_lip_fits_a_photo_to_a_label_that_is_a_pixel_off(tmp_path: Path) -> None:
    for height, width in ((5, 6), (3, 7)):
        data = LIP(root=lip(tmp_path, label(1, 2, 3), photo(height, width)), split="train")
        assert data[0]["photo"].shape == (4, 6, 3) and first(data, 4) == [1, 2, 3, 3]  # the label as it was
    data = LIP(root=lip(tmp_path, label(1), photo(4, 8)), split="train")
    with pytest.raises(DataError, match=r"7_1\.jpg.*photo 4x8, label 4x6.*2 pixels, expected 1.*tolerance"):
        data[0]
    (tmp_path / "TrainVal_images/train_images/7_1.jpg").rename(
        tmp_path / "TrainVal_images/train_images/8.jpg"
    )
    with pytest.raises(
        DataError, match=r"1 only in .*train_images: 8\n.*1 only in .*train_segmentations: 7_1"
    ):
        LIP(root=str(tmp_path), split="train")


# --- one's own data -------------------------------------------------------------------------------


def own(root: Path, ids: Any, ending: str = "") -> dict[str, Any]:
    array = np.asarray(ids)
    save(root / "train/images/1.jpg", photo(*array.shape[:2]))
    save(root / f"train/labels/1{ending}.png", array)
    return {"root": str(root), "split": "train", "names": ["ground", "tree", "car"]}


def test_own_ids_are_places_in_the_names(tmp_path: Path) -> None:
    options = own(tmp_path, label(0, 1, 2, 255))
    assert first(SegmentationFolders(**options), 4) == [0, 1, 2, 255]
    own(tmp_path, label(0, 3, 77))
    with pytest.raises(
        DataError,
        match=r"1\.png: 23 pixels hold ids outside 0\.\.2: 3 on 1, 77 on 22\. Expected 0 ground, 1 tree, 2 car; ignored: "
        r"255\. .*ignore_ids=\[3,77\].*id_map=\{FILE_ID: CLASS_ID",
    ):
        SegmentationFolders(**options)[0]
    assert first(SegmentationFolders(**options, ignore_ids=[3, 77]), 3) == [0, 255, 255]
    own(tmp_path, label(0, 2, 1))
    assert first(SegmentationFolders(**options, ignore_ids=[2]), 3) == [
        0,
        255,
        1,
    ]  # a class may be ignored too


def test_own_ids_by_a_map(tmp_path: Path) -> None:
    options = own(tmp_path, label(10, 20, 30, 40, 50, 255))
    options["id_map"] = {10: 2, 20: 0, 30: 1, 40: None, 50: 255}
    assert first(SegmentationFolders(**options), 6) == [2, 0, 1, 255, 255, 255]
    own(tmp_path, label(10, 11))
    with pytest.raises(
        DataError, match=r"23 pixels hold ids outside data\.dataset\.id_map: 11 on 23.*20 ground"
    ):
        SegmentationFolders(**options)[0]
    for bad, message in (
        ({10: 3}, "found 10: 3"),
        ({-1: 0}, "found -1: 0"),
        ({1: 0, 2: 1}, "no file id becomes car"),
    ):
        with pytest.raises(ConfigError, match=rf"data\.dataset\.id_map: {message}"):
            SegmentationFolders(**options | {"id_map": bad})


def test_binary_masks_of_0_and_255(tmp_path: Path) -> None:
    options = own(tmp_path, label(0, 255)) | {"names": ["background", "object"]}
    assert first(SegmentationFolders(**options, id_map={0: 0, 255: 1}), 2) == [0, 1]
    assert first(SegmentationFolders(**options), 2) == [
        0,
        255,
    ]  # without the map 255 is ignored, as documented
    with pytest.raises(DataError, match=r"255 on 23.*id_map=\{0: 0, 255: 1\}"):
        SegmentationFolders(**options, ignore_ids=[])[0]
    Image.fromarray(label(0, 255)).convert("1").save(tmp_path / "train/labels/1.png")  # a mask of one bit
    assert first(SegmentationFolders(**options), 2) == [0, 1]


def test_own_colours(tmp_path: Path) -> None:
    palette = [[0, 0, 0], [0, 255, 0], [0, 0, 255]]
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[0, :4] = [0, 0, 255], [0, 255, 0], [255, 255, 255], [0, 0, 0]
    options = own(tmp_path, picture) | {"palette": palette, "colors": True}
    data = SegmentationFolders(**options, ignore_colors=[[255, 255, 255]])
    assert first(data, 4) == [2, 1, 255, 0]
    with pytest.raises(
        DataError,
        match=r"1\.png: 4\.2% of the pixels \(1\) .*tree \(0, 255, 0\).*\(255, 255, 255\)\. Expected",
    ):
        SegmentationFolders(**options)[0]
    assert first(SegmentationFolders(**options, stray=0.05), 4) == [2, 1, 255, 0]
    own(tmp_path, label(0))
    with pytest.raises(DataError, match=r"1\.png: found a picture of mode 'L'"):
        SegmentationFolders(**options)[0]
    for change in (
        {"palette": None},
        {"id_map": {0: 0, 1: 1, 2: 2}},
        {"ignore_colors": [[0, 255, 0]]},
        {"stray": 1.0},
    ):
        with pytest.raises(ConfigError, match=r"data\.dataset\.(colors|palette|stray)"):
            SegmentationFolders(**options | change)


def test_own_lists_and_endings(tmp_path: Path) -> None:
    options = own(tmp_path, label(1), ending="_mask")
    save(tmp_path / "train/labels/1_preview.png", photo())
    assert first(SegmentationFolders(**options, label_ending="_mask"), 1) == [1]
    with pytest.raises(DataError, match=r"1 only in .*images: 1\n  2 only in .*labels: 1_mask, 1_preview"):
        SegmentationFolders(**options)
    with pytest.raises(
        DataError, match=r"found train/\. Expected(.|\n)*data\.dataset\.photos, data\.dataset\.masks"
    ):
        SegmentationFolders(**options, photos="photos")
    (tmp_path / "train.txt").write_text("train/images/1.jpg train/labels/1_mask.png\n")
    assert first(SegmentationFolders(**options, list_file="{split}.txt"), 1) == [1]
    (tmp_path / "train.txt").write_text("train/images/1.jpg x.png\ny.jpg train/labels/1_mask.png\n")
    with pytest.raises(
        DataError, match=r"x\.png: no such file; it belongs to .*1\.jpg; 1 more files are missing"
    ):
        SegmentationFolders(**options, list_file="{split}.txt")
    (tmp_path / "train.txt").write_text("\n")
    with pytest.raises(DataError, match=r"train\.txt: the list is empty"):
        SegmentationFolders(**options, list_file="{split}.txt")
    (tmp_path / "train.txt").write_text("a photo.jpg label.png\n")
    with pytest.raises(DataError, match=r"line 1 has 3 names.*blanks"):
        SegmentationFolders(**options, list_file="{split}.txt")
    with pytest.raises(ConfigError, match=r"\{split\}"):
        SegmentationFolders(**options, list_file="train.txt")


def test_own_vocabulary() -> None:
    names, palette, swaps, _ = SegmentationFolders.vocabulary(
        names=["hand", "left", "right"], swaps=[["left", "right"]], root="x", ids="none"
    )
    assert names == ("hand", "left", "right") and palette == distinct_palette(3) and swaps == ((1, 2),)
    assert SegmentationFolders.vocabulary(names=["a"], palette=[[1, 2, 3]]).palette == ((1, 2, 3),)
    faults: list[dict[str, Any]] = [
        {"names": []}, {"names": ["a", "a"]}, {"palette": [[1, 2, 3]]}, {"palette": [[1, 2, 3], [1, 2, 300]]},
        {"swaps": [["a", "c"]]}, {"swaps": [["a"]]},
    ]  # fmt: skip
    for bad in faults:
        with pytest.raises(ConfigError, match=r"data\.dataset\.(names|palette|swaps)"):
            SegmentationFolders.vocabulary(**{"names": ["a", "b"]} | bad)


# --- bad label files, the same for all ------------------------------------------------------------


@pytest.mark.parametrize("channels, mode", [(3, "RGB"), (4, "RGBA"), (2, "LA")])
def test_colours_given_as_ids(tmp_path: Path, channels: int, mode: str) -> None:
    options = own(tmp_path, np.zeros((4, 6, channels), np.uint8))
    with pytest.raises(
        DataError, match=rf"1\.png: found a picture of mode '{mode}'.*data\.dataset\.colors=true"
    ):
        SegmentationFolders(**options)[0]


def test_sixteen_bits_keep_their_values_or_are_refused(tmp_path: Path) -> None:
    options = own(tmp_path, label(0, 2, 1, kind=np.uint16))
    assert first(SegmentationFolders(**options), 3) == [0, 2, 1]
    own(tmp_path, label(0, 257, 26001, kind=np.uint16))  # 257 is 1 in its lower 8 bits
    with pytest.raises(
        DataError, match=r"1\.png: 23 pixels .*257 on 1, 26001 on 22 \(a 16-bit file: instance ids"
    ):
        SegmentationFolders(**options)[0]
    assert first(SegmentationFolders(**options, ignore_ids=[257, 26001]), 3) == [0, 255, 255]
    with pytest.raises(ConfigError, match=r"ignore_ids: found -1"):
        SegmentationFolders(**options, ignore_ids=[-1])


def test_palette_pictures_keep_their_indices_and_sizes_must_agree(tmp_path: Path) -> None:
    options = own(tmp_path, label(0))
    picture = Image.fromarray(label(2, 0, 1), "P")
    picture.putpalette([255, 255, 255, 128, 0, 0, 7, 7, 7])
    picture.save(tmp_path / "train/labels/1.png")
    assert first(SegmentationFolders(**options), 3) == [2, 0, 1]
    save(tmp_path / "train/labels/1.png", label(0, height=2, width=3))
    with pytest.raises(DataError, match=r"1\.jpg \+ .*1\.png: .*photo is 4x6, label is 2x3"):
        SegmentationFolders(**options)[0]
    save(tmp_path / "train/labels/1.png", label(0, height=6, width=4))
    with pytest.raises(DataError, match=r"EXIF"):
        SegmentationFolders(**options)[0]
    (tmp_path / "train/labels/1.png").unlink()
    save(tmp_path / "train/labels/1.jpg", label(0))
    with pytest.raises(DataError, match=r"labels/1\.jpg: label ids in a JPEG file are damaged"):
        SegmentationFolders(**options)[0]


def test_class_ids_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    table = {int(each): int(rng.integers(0, 5)) for each in rng.choice(256, 50, replace=False)}
    ids = rng.choice([*table], (9, 11)).astype(np.uint8)
    to_classes = ClassIds(table, kind="some", names="abcde")
    expected = [[table[int(value)] for value in row] for row in ids]
    for kind in (np.uint8, np.int32, np.uint16):
        np.testing.assert_array_equal(to_classes(ids.astype(kind), Path("x")), expected)
    wrong = np.array([[-1, 70000, next(each for each in range(256) if each not in table)]], np.int32)
    with pytest.raises(DataError, match=r"^x: 3 pixels hold ids outside some: -1 on 1, .*70000 on 1"):
        to_classes(wrong, Path("x"))


def test_color_ids_and_the_usual_colours() -> None:
    assert distinct_palette(4, first=0) == (
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
    )  # VOC's first four
    assert distinct_palette(1, first=15) == ((192, 128, 128),)  # VOC's person
    assert len(set(distinct_palette(255))) == 255
    ids = ColorIds({color: i for i, color in enumerate(distinct_palette(200))}, default=7, stray=0, known="x")
    which = np.random.default_rng(0).integers(0, 200, (8, 9))
    np.testing.assert_array_equal(ids(np.array(distinct_palette(200), np.uint8)[which], Path("x")), which)


# --- the YAML files -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [
    "cityscapes", "cocostuff", "pascal_context", "lip", "segmentation",
    "camvid data.dataset.classes=exact", "pascal_context data.dataset.classes=60 data.dataset.ids=listed",
])  # fmt: skip
def test_the_yaml_counts_the_classes_of_the_reader(name: str, tmp_path: Path) -> None:
    node = composed(["task=pix2pix", *f"data={name}".split()], tmp_path)["data"]
    module, _, reader = node["dataset"]["_target_"].rpartition(".")
    vocabulary = getattr(sys.modules[module], reader).vocabulary(**node["dataset"])
    assert node["classes"] == len(vocabulary.names) == len(vocabulary.palette)


def test_a_map_from_the_command_line(tmp_path: Path) -> None:
    own(tmp_path, label(0, 255, 9))
    options = ["data=segmentation", f"data.root={tmp_path}", "data.dataset.id_map={0: 0, 255: 1, 9: null}"]
    tree = composed(["task=pix2pix", "data.dataset.labels=classes", *options], tmp_path)
    assert first(runtime.build_data(tree).reader(root=str(tmp_path), split="train"), 3) == [0, 1, 255]
