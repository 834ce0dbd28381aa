"""What readers of lists, tables and folders make of files as people write them: separators, sizes, endings, ranges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dvsn.data.camvid import CamVid
from dvsn.data.cityscapes import Cityscapes
from dvsn.data.dataset import split_names
from dvsn.data.face_table import FaceTable
from dvsn.data.folders import Folders
from dvsn.data.image_folder import ImageFolder
from dvsn.data.keypoint_table import KeypointTable
from dvsn.data.mpii import Mpii
from dvsn.data.segmentation_folders import SegmentationFolders
from dvsn.data.wflw import Wflw
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError, DataError, UserError
from dvsn.geometry.keypoints import KeypointSet
from tests.support.keypoint_files import module as people_module
from tests.support.keypoint_files import person, write_set
from tests.support.tiny import composed

RNG = np.random.default_rng(0)
KEYPOINTS = KeypointSet(names=["nose", "tail"])


def save(path: Path, array: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path, **options)
    return path


def photo(path: Path, height: int = 8, width: int = 12) -> Path:
    return save(path, RNG.integers(0, 256, (height, width, 3)))


def segmentation(root: Path, **options: Any) -> SegmentationFolders:
    return SegmentationFolders(root=str(root), split="train", **{"names": ["a", "b"], **options})


# Lists -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["p/{} l/{}", "p/{},l/{}", "p/{}\tl/{}", '"p/{}" "l/{}"', "p/{}, l/{}"])
def test_a_list_of_pairs_in_any_form(tmp_path: Path, line: str) -> None:
    names = (
        ["x.png"]
        if " " in line.partition("{}")[2].replace(", ", ",") and '"' not in line
        else ["x.png", "my y.png"]
    )
    for name in names:
        photo(tmp_path / "p" / name)
        save(tmp_path / "l" / name, np.zeros((8, 12)))
    (tmp_path / "train.txt").write_text("\n".join(line.format(name, name) for name in names))
    pairs = segmentation(tmp_path, list_file="{split}.txt").pairs
    assert pairs == [(tmp_path / "p" / name, tmp_path / "l" / name) for name in names]


def test_the_published_lists_of_cityscapes_with_commas(tmp_path: Path) -> None:
    """As CoinCheung's BiSeNet writes them: leftImg8bit/...png,gtFine/...labelIds.png."""
    stem = "ulm_000000_000019"
    photo(tmp_path / f"leftImg8bit/train/ulm/{stem}_leftImg8bit.png")
    save(tmp_path / f"gtFine/train/ulm/{stem}_gtFine_labelIds.png", np.full((8, 12), 7))
    (tmp_path / "train.txt").write_text(
        f"leftImg8bit/train/ulm/{stem}_leftImg8bit.png,gtFine/train/ulm/{stem}_gtFine_labelIds.png\n"
    )
    data = Cityscapes(root=str(tmp_path), split="train", labels="classes", list_file="{split}.txt")
    assert len(data) == 1 and data[0]["label"].tolist() == [[0] * 12] * 8  # road


def test_a_list_whose_lines_differ_is_named_with_its_line(tmp_path: Path) -> None:
    photo(tmp_path / "p" / "x.png")
    (tmp_path / "train.txt").write_text("p/x.png p/x.png\n\np/x.png,p/x.png\n")
    with pytest.raises(
        DataError, match=r"train.txt: line 3 has 1 names, expected 'photo label', separated by blanks"
    ):
        segmentation(tmp_path, list_file="{split}.txt")
    (tmp_path / "trainannot").mkdir()
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"train.txt: line 3 has 1 names"):
        CamVid(root=str(tmp_path), split="train")


def test_faces_with_commas_and_other_encodings(tmp_path: Path) -> None:
    photo(tmp_path / "WFLW_images" / "my face.png")
    file = tmp_path / "train.txt"
    options = {"root": str(tmp_path), "split": "train", "keypoints": KEYPOINTS, "annotations": "{split}.txt"}
    file.write_text("1.5,2,3,4,my face.png\n")
    assert Wflw(**options).records[0].keypoints.tolist() == [[1.5, 2], [3, 4]]
    file.write_bytes("1.5 2 3 4 größe.png\n".encode("latin1"))
    with pytest.raises(DataError, match=r"train.txt: not a text file in UTF-8; line 1: found the byte 0xf6"):
        Wflw(**options)


# Tables ----------------------------------------------------------------------------------------------

HEAD = "image,width,height,nose_x,nose_y,nose_v,tail_x,tail_y,tail_v"


def table(root: Path, *rows: str, **options: Any) -> KeypointTable:
    photo(root / "images" / "x.png")
    (root / "train.csv").write_text("\n".join([HEAD, *rows]) + "\n")
    return KeypointTable(root=str(root), split="train", keypoints=KEYPOINTS, **options)


def test_a_table_that_contradicts_its_pictures_is_found_at_opening(tmp_path: Path) -> None:
    row = "x.png,{},{},1,2,1,3,4,1"
    assert table(tmp_path, row.format(12, 8)).records[0].box == (0, 0, 12, 8)
    with pytest.raises(
        DataError, match=r"x.png: the picture has 8x12 .*train.csv says 12x8: height and width are ex"
    ):
        table(tmp_path, row.format(8, 12))
    with pytest.raises(
        DataError, match=r"says 16x24: the picture was resized by a factor of 0.5 .*people.sizes=picture"
    ):
        table(tmp_path, row.format(24, 16))
    assert table(tmp_path, row.format(24, 16), sizes="picture").records[0].box == (0, 0, 12, 8)
    (tmp_path / "train.csv").write_text(
        "image,nose_x,nose_y,nose_v,tail_x,tail_y,tail_v\nx.png,1,2,1,3,4,1\n"
    )
    plain = KeypointTable(root=str(tmp_path), split="train", keypoints=KEYPOINTS, sizes="picture")
    assert plain.records[0].box == (0, 0, 12, 8)
    with pytest.raises(ConfigError, match=r"data.people.sizes: found 'none'"):
        table(tmp_path, row.format(12, 8), sizes="none")


def test_a_table_may_count_pixels_from_one(tmp_path: Path) -> None:
    row = "x.png,12,8,1,2,1,3,4,1"
    for first, points in ((0, [[1, 2], [3, 4]]), (1, [[0, 1], [2, 3]]), (0.5, [[0.5, 1.5], [2.5, 3.5]])):
        record = table(tmp_path, row, first_pixel=first).records[0]
        assert record.keypoints.tolist() == points and record.box == (0, 0, 12, 8)
    missing = table(tmp_path, "x.png,12,8,0,0,0,3,4,1", first_pixel=1).records[0]
    assert missing.keypoints.tolist() == [[0, 0], [2, 3]] and missing.labelled.tolist() == [0, 1]
    with pytest.raises(ConfigError, match=r"data.people.first_pixel: found '2'"):
        table(tmp_path, row, first_pixel=2)


WRONG_ROWS: dict[str, tuple[str, str]] = {
    "too few": ("x.png,12,8,1,2,1,3,4", "line 2: found 8 columns, expected 9 as in line 1"),
    "too many": ("x.png,12,8,1,2,1,3,4,1,5", "line 2: found 10 columns, expected 9"),
    "no name": (",12,8,1,2,1,3,4,1", "line 2: image: found ''"),
    "a word": ("x.png,12,8,1,two,1,3,4,1", "line 2: expected a number in every column"),
    "no size": ("x.png,nan,8,1,2,1,3,4,1", "line 2: width and height are nan and 8"),
    "endless": ("x.png,12,inf,1,2,1,3,4,1", "line 2: width and height are 12 and inf"),
    "too long": ("x" * 140_000 + ",12,8,1,2,1,3,4,1", "line 2: field larger than field limit"),
}


@pytest.mark.parametrize("case", WRONG_ROWS)
def test_wrong_rows_are_named(tmp_path: Path, case: str) -> None:
    row, message = WRONG_ROWS[case]
    with pytest.raises(DataError, match=rf"train.csv: {message}"):
        table(tmp_path, row)


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "x.png")
    (tmp_path / "train.csv").write_text(HEAD + ",nose_x\nx.png,12,8,1,2,1,3,4,1,9\n")
    with pytest.raises(DataError, match=r"train.csv: line 1: the column 'nose_x' is there twice"):
        KeypointTable(root=str(tmp_path), split="train", keypoints=KEYPOINTS)


def faces_json(root: Path, **changes: Any) -> FaceTable:
    photo(root / "images" / "x.png")
    face = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "keypoints": [1, 2, 1, 3, 4, 1],
        "center": [4, 4],
        "scale": 0.1,
    }
    image = {"id": 1, "file_name": "x.png", "width": 12, "height": 8}
    image |= {key: changes.pop(key) for key in ("width", "height") if key in changes}
    content = {"images": [image], "annotations": [face | changes], "categories": [{"id": 1, "name": "face"}]}
    (root / "train.json").write_text(json.dumps(content))
    return FaceTable(root=str(root), split="train", keypoints=KEYPOINTS, annotations="{split}.json")


def test_faces_of_json_have_their_types_and_sizes(tmp_path: Path) -> None:
    assert faces_json(tmp_path).records[0].length == 20
    assert faces_json(tmp_path, scale="0.1").records[0].length == 20
    assert faces_json(tmp_path, box_size="7").records[0].length == 7
    for changes, message in (
        ({"scale": None}, "annotation 1: scale: found null"),
        ({"box_size": [1]}, r"annotation 1: box_size: found \[1\]"),
        ({"keypoints": 5}, "annotation 1: keypoints: found 5"),
        ({"center": "4,4"}, "annotation 1: center: found '4,4'"),
        ({"width": 8, "height": 12}, "the picture has 8x12 .*says 12x8"),
    ):
        with pytest.raises(UserError, match=message) as error:
            faces_json(tmp_path, **changes)  # type: ignore[arg-type]
        assert "train.json" in str(error.value)


def test_people_of_mpii_have_their_types(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "x.png")
    (tmp_path / "annot").mkdir()
    entry = {"image": "x.png", "center": [5, 5], "scale": 1.0, "joints": [[1, 2], [3, 4]], "joints_vis": [1, 1],
             "head_box": [[1, 1], [3, 3]]}  # fmt: skip
    for changes, message in (
        ({"image": 5}, "annotation 0: image: found 5, expected the name"),
        ({"image": None}, "annotation 0: image: found null"),
        ({"center": None}, "annotation 0: center None"),
        ({"scale": True}, "annotation 0: center .*, scale True"),
        ({"joints": [[1, 2], [3, "x"]]}, "annotation 0: joints: expected 2 times"),
        ({"joints_vis": "11"}, "annotation 0: joints_vis: found 11"),
        ({"head_box": [[1, 1], None]}, "annotation 0: head_box: found"),
    ):
        (tmp_path / "annot" / "train.json").write_text(json.dumps([entry | changes]))
        with pytest.raises(DataError, match=rf"train.json: {message}"):
            Mpii(root=str(tmp_path), split="train", keypoints=KEYPOINTS)


# Masks -----------------------------------------------------------------------------------------------


def test_soft_masks_are_parted_by_a_threshold(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 256, 2), (4, 1))  # 128 wide
    photo(tmp_path / "train" / "images" / "x.png", 4, 128)
    for suffix in ("png", "jpg", "gif", "bmp"):
        for old in (tmp_path / "train").glob("labels/*"):
            old.unlink()
        save(tmp_path / "train" / "labels" / f"x.{suffix}", ramp)
        classes = segmentation(tmp_path, threshold=128)[0]["label"]
        expected = (ramp >= 128).astype(int)
        assert (classes != expected).sum() <= (8 if suffix == "jpg" else 0) and set(np.unique(classes)) == {
            0,
            1,
        }
    save(tmp_path / "train" / "labels" / "x.bmp", np.stack([ramp] * 3, axis=-1))  # grey as RGB
    np.testing.assert_array_equal(segmentation(tmp_path, threshold=128)[0]["label"], ramp >= 128)
    for wrong in ({"threshold": 0}, {"threshold": 0.5}, {"threshold": 128, "names": ["a", "b", "c"]},
                  {"threshold": 128, "nearest": True}, {"threshold": 128, "id_map": {0: 0, 255: 1}}):  # fmt: skip
        with pytest.raises(ConfigError, match=r"data.dataset.threshold"):
            segmentation(tmp_path, **wrong)


def test_a_soft_mask_is_told_in_one_line(tmp_path: Path) -> None:
    photo(tmp_path / "train" / "images" / "x.png", 4, 128)
    save(tmp_path / "train" / "labels" / "x.png", np.tile(np.arange(0, 256, 2), (4, 1)))
    with pytest.raises(
        DataError, match=r"x.png: \d+ pixels hold 127 different ids outside 0..1, 2 to 254: a soft"
    ) as error:
        segmentation(tmp_path)[0]
    message = str(error.value)
    assert len(message.splitlines()) == 1 and "data.dataset.threshold=128" in message


def test_masks_of_jpeg_by_the_nearest_colour_or_id(tmp_path: Path) -> None:
    halves = np.zeros((16, 32, 3), np.uint8)
    halves[:, :16], halves[:, 16:] = (200, 30, 40), (20, 60, 220)
    photo(tmp_path / "train" / "images" / "x.png", 16, 32)
    save(tmp_path / "train" / "labels" / "x.jpg", halves, quality=60)
    options = {"colors": True, "palette": [[200, 30, 40], [20, 60, 220]]}
    with pytest.raises(DataError, match=r"x.jpg: .*no JPEG.*data.dataset.nearest=true"):
        segmentation(tmp_path, **options)[0]
    classes = segmentation(tmp_path, nearest=True, **options)[0]["label"]
    assert classes[:, :15].max() == 0 and classes[:, 17:].min() == 1
    (tmp_path / "train" / "labels" / "x.jpg").unlink()
    save(tmp_path / "train" / "labels" / "x.jpg", np.where(halves[..., 0] > 100, 0, 200), quality=60)
    with pytest.raises(
        DataError, match=r"x.jpg: label ids in a JPEG file are damaged.*data.dataset.nearest=true"
    ):
        segmentation(tmp_path)[0]
    classes = segmentation(tmp_path, nearest=True, id_map={0: 0, 200: 1}, ignore_ids=[])[0]["label"]
    assert classes[:, :15].max() == 0 and classes[:, 17:].min() == 1


def test_the_nearest_colour_by_brute_force() -> None:
    from dvsn.data.class_ids import ColorIds

    palette = [tuple(map(int, color)) for color in RNG.integers(0, 256, (5, 3))]
    colors = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)
    ids = ColorIds(
        {color: n for n, color in enumerate(palette)}, default=255, stray=0.0, known="", nearest=True
    )
    away = ((colors[:, :, None].astype(int) - np.array(palette)) ** 2).sum(axis=-1)  # (H, W, 5)
    found = ids(colors, Path("x"))
    np.testing.assert_array_equal(
        np.take_along_axis(away, found[..., None].astype(int), -1)[..., 0], away.min(axis=-1)
    )


# Folders ---------------------------------------------------------------------------------------------


def test_photos_and_masks_in_one_folder_by_their_endings(tmp_path: Path) -> None:
    for number in range(3):
        photo(tmp_path / "train" / "all" / f"{number}_sat.jpg")
        save(tmp_path / "train" / "all" / f"{number}_mask.png", np.zeros((8, 12)))
    data = segmentation(tmp_path, photos="all", masks="all", photo_ending="_sat", label_ending="_mask")
    assert [(a.name, b.name) for a, b in data.pairs] == [(f"{n}_sat.jpg", f"{n}_mask.png") for n in range(3)]


def test_folders_below_the_two_folders_belong_together(tmp_path: Path) -> None:
    for place in ("a/1", "b/1", "2"):
        photo(tmp_path / "train" / "images" / f"{place}.jpg")
        save(tmp_path / "train" / "labels" / f"{place}.gif", np.zeros((8, 12)))
    (tmp_path / "train" / "labels" / ".ipynb_checkpoints").mkdir()
    photo(tmp_path / "train" / "labels" / ".ipynb_checkpoints" / "2.png")
    data = segmentation(tmp_path)
    assert [photo.relative_to(tmp_path / "train" / "images").as_posix() for photo, _ in data.pairs] == [
        "2.jpg", "a/1.jpg", "b/1.jpg",
    ]  # fmt: skip
    assert len(set(data.names)) == 3 and data[1]["label"].shape == (8, 12)
    (tmp_path / "train" / "labels" / "b" / "1.gif").unlink()
    with pytest.raises(DataError, match=r"1 only in .*images: b/1"):
        segmentation(tmp_path)


def test_the_tree_that_is_proposed_has_masks_of_png(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder|found no folder") as error:
        Folders(root=str(tmp_path), split="train")
    assert ".jpg" not in str(error.value)


# Splits ----------------------------------------------------------------------------------------------


def classes(root: Path) -> Path:
    for split, count in (("train", 10), ("val", 5)):
        for name in ("cat", "dog"):
            for number in range(count):
                photo(root / split / name / f"{number}.png")
    photo(root / "val" / "eel" / "0.png")
    return root


def test_ranges_and_sums_of_a_folder_of_classes(tmp_path: Path) -> None:
    assert split_names("train[:90%]+val+train[90%:]") == ["train", "val"]
    classes(tmp_path)
    assert ImageFolder(root=str(tmp_path), split="train", classes_from="train[:90%]").class_names == (
        "cat",
        "dog",
    )
    options = ["task=classification", "data=imagefolder", "data.workers=0", f"data.root={tmp_path}"]

    def opened(role: str, *more: str) -> Any:
        config = composed([*options, *more], tmp_path)
        return runtime.build_data(config).read(config["data"]["splits"][role])

    ranges = ('data.splits.train="train[:90%]"', 'data.splits.val="train[90%:]"', "data.classes=2")
    assert (len(opened("train", *ranges)), len(opened("val", *ranges))) == (18, 2)
    assert opened("val", *ranges).class_names == ("cat", "dog")
    both = opened("train", "data.splits.train=train+val", "data.classes=3")
    assert (
        len(both) == 31
        and both.class_names == ("cat", "dog", "eel")
        and np.bincount(both.targets).tolist() == [15, 15, 1]
    )


def test_detections_are_not_trained_on_in_a_range_either(tmp_path: Path) -> None:
    write_set(tmp_path, *[person(number, [5, 10, 30, 40]) for number in range(1, 5)], split="train")
    boxes = [{"image_id": 7, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.9}]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    options = ('data.splits.train="train[:50%]"', "data.people.boxes=boxes.json")
    made = people_module(tmp_path, *options)
    assert len(made.read(made.splits["train"])) == 2  # of four true people, not of one detection


# predict ---------------------------------------------------------------------------------------------


def test_predict_walks_folders_as_readers_do(tmp_path: Path) -> None:
    from dvsn.predict.sources import Pictures, Skipped, open_sources

    for name in ("b.gif", "sub/c.png", ".hidden/d.png", "__MACOSX/e.png", "._f.png", "out/g.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "circle").symlink_to(tmp_path)
    (found,) = open_sources([str(tmp_path)], tmp_path / "out", Skipped())
    assert isinstance(found, Pictures)
    assert [source.relative_to(tmp_path).as_posix() for source, _ in found.items] == ["b.gif", "sub/c.png"]
