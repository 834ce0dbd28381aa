"""Readers of faces: published layouts, mirror tables, real samples, and what every wrong file is told."""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dvsn.data.module import DataModule
from dvsn.data.wflw import Wflw
from dvsn.data_tools.check_people import OUTSIDE_JOINTS, remarks_on
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError, DataError
from dvsn.metrics.keypoints import make_score
from tests.support.tiny import composed

DATA = Path(os.environ.get("DVSN_DATA", "data"))
SETS = {"wflw": 98, "300w": 68, "faces68": 68, "aflw": 19, "cofw": 29}

MIRRORS = {  # as published: new point i takes old point table[i]
    98: """32 31 30 29 28 27 26 25 24 23 22 21 20 19 18 17 16 15 14 13 12 11 10 9 8 7 6 5 4 3 2 1 0
        46 45 44 43 42 50 49 48 47 37 36 35 34 33 41 40 39 38 51 52 53 54 59 58 57 56 55
        72 71 70 69 68 75 74 73 64 63 62 61 60 67 66 65 82 81 80 79 78 77 76 87 86 85 84 83
        92 91 90 89 88 95 94 93 97 96""",
    68: """16 15 14 13 12 11 10 9 8 7 6 5 4 3 2 1 0 26 25 24 23 22 21 20 19 18 17 27 28 29 30 35 34 33 32 31
        45 44 43 42 47 46 39 38 37 36 41 40 54 53 52 51 50 49 48 59 58 57 56 55 64 63 62 61 60 67 66 65""",
    19: "5 4 3 2 1 0 11 10 9 8 7 6 14 13 12 17 16 15 18",
    29: "1 0 3 2 6 7 4 5 9 8 11 10 14 15 12 13 17 16 19 18 20 21 23 22 24 25 26 27 28",
}


@functools.cache
def composed_once(data: str, *options: str) -> dict[str, Any]:
    return composed(["task=pose", f"data={data}", "data.workers=0", *options], Path("runs/test"))


def module(data: str, root: Path | None = None, *options: str) -> DataModule:
    config = copy.deepcopy(composed_once(data, *options))
    if root is not None:
        config["data"]["root"] = str(root)
    made = runtime.build_data(config)
    made.use("people")
    return made


def read(data: str, root: Path, split: str, *options: str) -> Any:
    made = module(data, root, *options)
    return made.reader(root=str(root), split=split, transform=None, seed=0, keypoints=made.keypoints)


def sample_of(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is absent: set DVSN_DATA to the folder of the sample data")
    return DATA / name


def picture(path: Path, height: int = 40, width: int = 60) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


# Keypoints -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_mirror_tables_are_the_published_ones(name: str) -> None:
    keypoints = module(name).keypoints
    assert keypoints is not None
    table = np.array(MIRRORS[SETS[name]].split(), int)
    assert len(keypoints) == SETS[name] and keypoints.mirror.tolist() == table.tolist()
    assert (keypoints.mirror[keypoints.mirror] == np.arange(len(keypoints))).all()


@pytest.mark.parametrize("name", SETS)
def test_lines_lie_within_parts_of_the_face_and_mirror_into_lines(name: str) -> None:
    """A mirrored outline is an outline; a line across parts would show as one that has no mirror image."""
    keypoints = module(name).keypoints
    assert keypoints is not None
    lines = {frozenset(line) for line in keypoints.skeleton}
    assert lines == {frozenset(int(keypoints.mirror[end]) for end in line) for line in lines}
    if SETS[name] in (68, 98):
        drawn = {end for line in lines for end in line}
        assert drawn == set(range(68 if SETS[name] == 68 else 96))  # all but the pupils


@pytest.mark.parametrize("name", SETS)
def test_lengths_are_those_of_the_benchmarks(name: str) -> None:
    made = module(name)
    assert made.facts.score == "nme" and made.keypoints is not None
    score: Any = make_score(made.facts.score, keypoints=made.keypoints, normalise=made.facts.normalise)
    main = {"wflw": ([60], [72]), "300w": ([36], [45]), "cofw": ([8], [9]), "aflw": "length"}
    main["faces68"] = main["300w"]
    assert score.lengths[score.main] == main[name]
    pupils = {"wflw": ([96], [97]), "300w": (list(range(36, 42)), list(range(42, 48))), "cofw": ([16], [17])}
    assert name not in pupils or score.lengths["inter_pupil"] == pupils[name]


# WFLW ----------------------------------------------------------------------------------------------------

POINTS = np.round(np.random.default_rng(0).uniform(5, 35, (98, 2)), 6)


def line(points: np.ndarray = POINTS, box: Any = (4, 5, 50, 36), flags: Any = (0, 1, 0, 0, 1, 0)) -> str:
    numbers = [f"{value:.6f}" for value in points.ravel()]
    return " ".join([*numbers, *map(str, (*box, *flags)), "0--Parade/face.png"])


def write_wflw(root: Path, *lines: str, split: str = "train") -> Path:
    picture(root / "WFLW_images/0--Parade/face.png")
    path = root / "WFLW_annotations/list_98pt_rect_attr_train_test" / f"list_98pt_rect_attr_{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    return path


def test_wflw_by_hand(tmp_path: Path) -> None:
    write_wflw(tmp_path, line(), line(POINTS + 30, flags=(1, 0, 0, 0, 0, 1)))
    faces = read("wflw", tmp_path, "train")
    assert faces.attribute_names == ("pose", "expression", "illumination", "makeup", "occlusion", "blur")
    first, second = faces.records
    np.testing.assert_allclose(first.keypoints, POINTS, atol=1e-5)
    assert first.keypoints.dtype == np.float32 and first.labelled.all() and len(first.labelled) == 98
    assert first.box == (4, 5, 46, 31) and (first.number, second.number) == (1, 2)
    assert first.attributes.tolist() == [0, 1, 0, 0, 1, 0] and first.attributes.dtype == np.uint8
    assert second.attributes.tolist() == [1, 0, 0, 0, 0, 1] and first.group == ""
    assert first.picture == tmp_path / "WFLW_images/0--Parade/face.png"
    assert faces[0]["attributes"].tolist() == [0, 1, 0, 0, 1, 0] and "annotation 2" in faces.describe(1)


def test_points_outside_the_picture_are_read_and_counted(tmp_path: Path) -> None:
    write_wflw(tmp_path, line(POINTS - (20, 0)))
    record = read("wflw", tmp_path, "train").records[0]
    outside = int((record.keypoints[:, 0] < -0.5).sum())
    assert outside > 0
    found = dict(remarks_on(record, 60, 40))
    assert f"{outside} of 98" in found[OUTSIDE_JOINTS]


def test_the_list_of_an_attribute(tmp_path: Path) -> None:
    """196 numbers and a name; the faces are the same, without flags."""
    write_wflw(tmp_path, line(), split="test")
    folder = tmp_path / "WFLW_annotations/list_98pt_test"
    folder.mkdir()
    fields = line().split()
    (folder / "list_98pt_test_blur.txt").write_text(" ".join([*fields[:196], fields[-1]]))
    full, blur = (read("wflw", tmp_path, split).records[0] for split in ("test", "blur"))
    np.testing.assert_array_equal(full.keypoints, blur.keypoints)
    assert blur.group == "blur" and blur.attributes is None
    low, sides = POINTS.min(axis=0), np.ptp(POINTS, axis=0)
    np.testing.assert_allclose(blur.box, [*low, *sides])


def test_joined_splits_keep_flags_and_crops(tmp_path: Path) -> None:
    write_wflw(tmp_path, line())
    write_wflw(tmp_path, line(), split="test")
    made = module("wflw", tmp_path, "transform=face", "codec.size=[112,112]", "data.splits.train=train+test")
    joined: Any = made.open("train", augment=True)
    assert joined.attribute_names[5] == "blur" and len(joined) == 2
    assert joined[0]["attributes"].tolist() == [0, 1, 0, 0, 1, 0] and joined[1]["image"].shape == (
        3,
        112,
        112,
    )


def test_a_list_of_your_own_points(tmp_path: Path) -> None:
    from dvsn.geometry.keypoints import KeypointSet

    picture(tmp_path / "photos/a.png")
    (tmp_path / "val.txt").write_text("1 2 3 4 0 0 9 9 1 a.png\n\n5 6 7 8 1 1 9 9 0 a.png\n")
    keypoints = KeypointSet(names=["left", "right"])
    faces = Wflw(
        root=str(tmp_path), split="val", keypoints=keypoints, annotations="{split}.txt", images="photos",
        attributes=["glasses"],
    )  # fmt: skip
    assert [each.keypoints.tolist() for each in faces.records] == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert [each.attributes.tolist() for each in faces.records if each.attributes is not None] == [[1], [0]]


WRONG_LINES = {
    "too few": (line().split(" ", 1)[1], r"line 2: found 206 columns.*expected 207 \(196 numbers.*or 197"),
    "too many": ("1 " + line(), "line 2: found 208 columns"),
    "no name": (line().rpartition(" ")[0] + " 7", "line 2: found 207 columns, the last '7'"),
    "flag": (line(flags=(0, 1, 0, 2, 1, 0)), r"line 2: the flag 'makeup' is 2, expected 0 or 1"),
    "box": (line(box=(4, 5, 4, 36)), r"line 2: the rectangle is 4 5 4 36, expected x_min"),
    "word": (line().replace(" 50 36 ", " 50 x ", 1), r"line 2: column 200 is 'x', expected a finite number"),
    "nan": (line().replace(" 50 36 ", " nan 36 ", 1), r"line 2: column 199 is 'nan'"),
    "picture": (line().replace("face.png", "other.png"), r"other.png: no such picture.*list_98pt"),
    "mixed": (" ".join([*line().split()[:196], "0--Parade/face.png"]), "line 2: without rectangle and flags"),
}


@pytest.mark.parametrize("name", WRONG_LINES)
def test_wrong_lines_of_wflw(name: str, tmp_path: Path) -> None:
    wrong, message = WRONG_LINES[name]
    path = write_wflw(tmp_path, line(), wrong)
    with pytest.raises(DataError, match=message) as caught:
        read("wflw", tmp_path, "train")
    assert str(path) in str(caught.value)


def test_wflw_absent_or_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"list_98pt_rect_attr_train\.txt"):
        read("wflw", tmp_path, "train")
    write_wflw(tmp_path, "")
    with pytest.raises(DataError, match="no face in it"):
        read("wflw", tmp_path, "train")


# 300-W ---------------------------------------------------------------------------------------------------


def write_pts(path: Path, points: np.ndarray, suffix: str = ".png") -> None:
    picture(path.with_suffix(suffix))
    body = "\n".join(f"{x:.3f} {y:.3f}" for x, y in points)
    path.write_text(f"version: 1\nn_points:  {len(points)}\n{{\n{body}\n}}\n")


FOLDERS = ["afw", "lfpw/trainset", "helen/trainset", "lfpw/testset", "helen/testset", "ibug",
           "300W/01_Indoor", "300W/02_Outdoor"]  # fmt: skip


@pytest.fixture
def w300(tmp_path: Path) -> Path:
    """A face a folder, whose first coordinate tells the folder; blanks in names, and both suffixes."""
    points = np.random.default_rng(1).uniform(5, 35, (68, 2)).round(3)
    for number, folder in enumerate(FOLDERS):
        points[0] = number + 1
        write_pts(tmp_path / folder / f"image {number} _1.pts", points, ".jpg" if number % 2 else ".png")
    picture(tmp_path / "afw/unlabelled.png")
    return tmp_path


@pytest.mark.parametrize(
    ("split", "folders", "groups"),
    [
        ("train", [0, 1, 2], ["train"] * 3),
        ("common", [3, 4], ["common"] * 2),
        ("challenge", [5], ["challenge"]),
        ("full", [3, 4, 5], ["common", "common", "challenge"]),
        ("private", [6, 7], ["indoor", "outdoor"]),
    ],
)
def test_splits_of_300w(w300: Path, split: str, folders: list[int], groups: list[str]) -> None:
    faces = read("300w", w300, split)
    assert [each.keypoints[0].tolist() for each in faces.records] == [[n, n] for n in folders]  # 1 subtracted
    assert [each.group for each in faces.records] == groups
    assert [each.picture.parent for each in faces.records] == [w300 / FOLDERS[n] for n in folders]
    assert faces[0]["photo"].shape == (40, 60, 3) and str(faces.records[0].picture) == faces.describe(0)


def test_pixels_counted_from_zero(w300: Path) -> None:
    assert read("300w", w300, "train", "data.people.first_pixel=0").records[0].keypoints[0].tolist() == [1, 1]


WRONG_PTS = {
    "version": (("version: 1", "version: 2"), r"line 1: found 'version: 2', expected 'version: 1'"),
    "count": (("n_points:  68", "n_points:  66"), r"line 2: found 'n_points:  66', expected 'n_points: 68'"),
    "brace": (("{", "("), r"line 3: found '\(', expected '\{'"),
    "end": (("}", ""), r"found no closing '}'; expected 68 lines"),
    "fewer": (("1.000 1.000\n", ""), r"found 67 lines of points, then '}' and 0 more; expected 68"),
    "after": (("}", "}\n4 5"), r"found 68 lines of points, then '}' and 1 more"),
    "three": (("1.000 1.000\n", "1.000 1.000 1\n"), r"line 4: found '1.000 1.000 1', expected two numbers"),
    "word": (("1.000 1.000\n", "1.000 one\n"), r"line 4: column 2 is 'one'"),
}


@pytest.mark.parametrize("name", WRONG_PTS)
def test_wrong_pts_files(name: str, w300: Path) -> None:
    path = w300 / "afw/image 0 _1.pts"
    (old, new), message = WRONG_PTS[name]
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=f"{re.escape(str(path))}: {message}"):
        read("300w", w300, "train")


def test_what_is_missing_of_300w(w300: Path) -> None:
    with pytest.raises(ConfigError, match=r"'chalenge' is no part.*challenge"):
        read("300w", w300, "chalenge")
    (w300 / "ibug/image 5 _1.jpg").unlink()
    with pytest.raises(DataError, match=r"image 5 _1.pts: no picture"):
        read("300w", w300, "challenge")
    shutil.rmtree(w300 / "ibug")
    with pytest.raises(DataError, match=r"(?s)ibug.*data.people.parts"):
        read("300w", w300, "full")


# Tables --------------------------------------------------------------------------------------------------


def write_aflw(root: Path, *rows: str, columns: int = 43) -> Path:
    picture(root / "images/0/face.jpg")
    path = root / "face_landmarks_aflw_train.csv"
    path.write_text("\n".join([",".join(f"c{n}" for n in range(columns)), *rows]) + "\n")
    return path


def row(*, scale: float = 0.5, size: float | None = 80, numbers: int = 38) -> str:
    sizes = [] if size is None else [size]
    return ",".join(map(str, ["0/face.jpg", scale, *sizes, 30, 25, *range(1, numbers + 1)]))


def test_aflw_by_hand(tmp_path: Path) -> None:
    write_aflw(tmp_path, row(), row(size=64))
    first, second = read("aflw", tmp_path, "train").records
    assert first.keypoints[:2].tolist() == [[1, 2], [3, 4]] and first.keypoints[18].tolist() == [37, 38]
    assert first.box == (-10, -15, 80, 80) and first.length == 80 and second.length == 64
    assert (first.number, second.number) == (2, 3)


def test_a_table_without_box_sizes(tmp_path: Path) -> None:
    write_aflw(tmp_path, row(size=None), columns=42)
    record = read("aflw", tmp_path, "train").records[0]
    assert record.box == (-20, -25, 100, 100) and record.length == 100
    assert record.keypoints[0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([row()], 44, r"line 1: found 44 columns, expected 42 .*or 43"),
        ([row(), row(numbers=37)], 43, r"line 3: found 42 columns, expected 43"),
        ([row(size=0)], 43, r"line 2: the face's box has a side of 0 pixels"),
        ([row().replace("38", "inf")], 43, r"line 2: column 42 is 'inf'"),
        ([row().replace("face", "none")], 43, r"none.jpg: no such picture"),
        ([], 43, "no face in it"),
    ],
)
def test_wrong_tables(rows: list[str], columns: int, message: str, tmp_path: Path) -> None:
    path = write_aflw(tmp_path, *rows, columns=columns)
    with pytest.raises(DataError, match=message) as caught:
        read("aflw", tmp_path, "train")
    assert path.name in str(caught.value)


def test_a_csv_table_without_visibility(tmp_path: Path) -> None:
    picture(tmp_path / "train/a.jpg")
    names = [f"p{n}_{part}" for n in range(68) for part in "xy"]
    values = ",".join(str(n / 4) for n in range(136))
    (tmp_path / "train.csv").write_text(f"image,width,height,{','.join(names)}\na.jpg,60,40,{values}\n")
    record = read("faces68", tmp_path, "train").records[0]
    assert (
        record.keypoints[67].tolist() == [33.5, 33.75]
        and record.labelled.all()
        and record.box == (0, 0, 60, 40)
    )
    with pytest.raises(DataError, match="has no column 'p0_v'"):
        read("faces68", tmp_path, "train", "data.people.visibility=true")


def test_mirrored_twice_is_the_crop_again(tmp_path: Path) -> None:
    write_wflw(tmp_path, line())
    made = module("wflw", tmp_path, "transform=face", "codec.size=[112,112]", "transform.train.flip=1.0",
                  "transform.train.zoom=0.0", "transform.train.shift=0.0", "transform.train.rotation=0.0",
                  "transform.train.occlusion=0.0", "transform.train.steps=[]")  # fmt: skip
    once, plain = made.open("train", augment=True)[0], made.open("train")[0]
    mirror = made.keypoints.mirror  # type: ignore[union-attr]
    width = 112 - 112 / once["extent"][0].item()  # a picture pixel less: dvsn.data.face_crop
    back = once["keypoints"].numpy()[mirror] * [-1, 1] + [width, 0]
    np.testing.assert_allclose(back, plain["keypoints"].numpy(), atol=1e-4)
    assert np.array_equal(once["image"].numpy()[..., ::-1], plain["image"].numpy())


# COFW ----------------------------------------------------------------------------------------------------


def write_cofw(root: Path, **changes: Any) -> np.ndarray:
    """Two faces, one of them grey, as h5py sees what MATLAB writes: every array transposed, pictures by reference."""
    h5py = pytest.importorskip("h5py", reason="COFW needs h5py")
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, shape, dtype=np.uint8) for shape in ((30, 20, 3), (25, 35))]
    rows = np.concatenate([random.uniform(1, 20, (2, 58)), random.integers(0, 2, (2, 29))], axis=1)
    arrays = {"phisTr": rows.T, "bboxesTr": np.array([[3.0, 4, 10, 12], [1, 1, 9, 9]]).T} | changes
    with h5py.File(root / "COFW_train_color.mat", "w") as file:
        cells = file.create_dataset("IsTr", (1, 2), dtype=h5py.ref_dtype)
        for number, each in enumerate(pictures):
            cells[0, number] = file.create_dataset(f"#refs#/{number}", data=each.T).ref
        for name, array in arrays.items():
            if array is not None:
                file[name] = array
    return rows


def test_cofw_by_hand(tmp_path: Path) -> None:
    rows = write_cofw(tmp_path)
    faces = read("cofw", tmp_path, "train")
    first, second = faces.records
    np.testing.assert_allclose(first.keypoints[:, 0], rows[0, :29] - 1, atol=1e-5)
    np.testing.assert_allclose(first.keypoints[:, 1], rows[0, 29:58] - 1, atol=1e-5)
    assert first.box == (2, 3, 10, 12) and second.labelled.all()
    assert faces[0]["photo"].shape == (30, 20, 3)
    grey = faces[1]["photo"]
    assert grey.shape == (25, 35, 3) and (grey == grey[..., :1]).all()
    assert faces.name(1) == "COFW_train_color_1" and "face 1" in faces.describe(1)
    (tmp_path / "bare").mkdir()
    write_cofw(tmp_path / "bare", bboxesTr=None)
    box = read("cofw", tmp_path / "bare", "train").records[0].box
    assert box[:2] == pytest.approx((rows[0, :29].min() - 1, rows[0, 29:58].min() - 1))


def test_wrong_cofw_files(tmp_path: Path) -> None:
    rows = write_cofw(tmp_path, phisTr=None)
    with pytest.raises(DataError, match=r"has no phisTr"):
        read("cofw", tmp_path, "train")
    write_cofw(tmp_path, phisTr=rows[:1].T)
    with pytest.raises(DataError, match="2 pictures, 1 rows"):
        read("cofw", tmp_path, "train")
    (tmp_path / "COFW_train_color.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(DataError, match=r"not a MATLAB file of version 7\.3"):
        read("cofw", tmp_path, "train")
    with pytest.raises(ConfigError, match="train and test, found 'val'"):
        read("cofw", tmp_path, "val")


def test_what_unpacks_to_too_much_is_refused_unread(tmp_path: Path) -> None:
    """Arrays of zeros and pictures of many layers, of which the file itself holds nothing."""
    h5py = pytest.importorskip("h5py", reason="COFW needs h5py")
    write_cofw(tmp_path)
    with h5py.File(tmp_path / "COFW_train_color.mat", "a") as file:
        many = file.create_dataset("many", (100_000, 25, 35), np.uint8, chunks=(1, 25, 35))
        file["IsTr"][0, 1] = many.ref
    with pytest.raises(DataError, match=r"face 1: 100,000 layers, expected 1 or 3"):
        read("cofw", tmp_path, "train")[1]
    for name, found in (("phisTr", "870,000,000"), ("bboxesTr", "870,000,000")):
        with h5py.File(tmp_path / "COFW_train_color.mat", "a") as file:
            del file[name]
            file.create_dataset(name, (87, 10_000_000), np.float64, chunks=(87, 1))
        with pytest.raises(DataError, match=f"{name}: {found} numbers, expected 10,000,000 at most"):
            read("cofw", tmp_path, "train")
        write_cofw(tmp_path)


def test_cofw_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "COFW_train_color.mat").write_bytes(b"")
    with pytest.raises(DataError, match=r"needs h5py.*pip install"):
        read("cofw", tmp_path, "train")


# The street's faces --------------------------------------------------------------------------------------


def test_faces_of_the_street_are_a_wflw_tree(tmp_path: Path) -> None:
    from dvsn.data.street import draw_scene, write_wflw

    size = {"height": 256, "width": 512}
    counts = write_wflw(tmp_path, seed=3, train=5, test=0, **size)
    faces = read("wflw", tmp_path, "train").records
    assert counts == {"train": len(faces), "test": 0} and faces
    drawn = []
    for index in range(5):
        scene = draw_scene(seed=3, index=index, **size)
        drawn += [(index, scene.photo, each.face) for each in scene.people if each.face is not None]
    for record, (index, photo, face) in zip(faces, drawn, strict=True):
        np.testing.assert_allclose(record.keypoints, face.landmarks, atol=1e-4)
        np.testing.assert_array_equal(np.asarray(Image.open(record.picture)), photo)
        assert record.picture.stem.endswith(f"{index}") and abs(record.box[0] - face.box[0]) <= 0.5
        flags = [max(map(abs, face.angles[:2])) > 0.5, 0, 0, 0, face.seen.mean() < 0.95, 0]
        assert record.attributes is not None and record.attributes.tolist() == flags
    assert {tuple(each.attributes[[0, 4]]) for each in faces} == {(0, 1), (1, 0)}


def test_the_command_writes_the_same_tree(tmp_path: Path) -> None:
    from dvsn.data_tools.commands import FACES
    from dvsn.data_tools.faces import job

    options = [f"root={tmp_path}/faces", "train=5", "test=1", "height=256", "width=512", "seed=3"]
    counts = job(FACES.parse(options))
    assert counts["train"] == len(read("wflw", tmp_path / "faces", "train").records) > 0
    with pytest.raises(ConfigError, match="train: found 0"):
        job(FACES.parse([options[0], "train=0"]))


# Real samples --------------------------------------------------------------------------------------------


def json_points(path: Path, count: int) -> dict[int, np.ndarray]:
    found = json.loads(path.read_text())["annotations"]
    return {each["id"]: np.reshape(each["keypoints"], (count, 3))[:, :2] for each in found}


def test_the_sample_of_wflw() -> None:
    """The list in the published layout and mmpose's JSON hold the same faces."""
    root = sample_of("wflw_sample")
    options = ("data.people.annotations='list_98pt_{split}.txt'", "data.people.images=.")
    faces = read("wflw", root, "sample", *options)
    truth = list(json_points(root / "test_wflw.json", 98).values())
    assert len(faces) == 4 and faces[0]["photo"].shape == (661, 1024, 3)
    for record, points in zip(faces.records, truth, strict=True):
        np.testing.assert_allclose(record.keypoints, points, atol=1e-3)
    made = module("wflw", root, *options, "transform=face", "codec.size=[112,112]", "data.splits.test=sample")
    item = made.open("test")[0]
    low, high = np.floor(truth[0].min(axis=0)), np.floor(truth[0].max(axis=0))
    side = int(1.2 * (high - low + 1).max())
    corner = np.floor(low + (high - low + 1) / 2) - side // 2
    np.testing.assert_allclose(item["keypoints"].numpy() / 112, (truth[0] - corner) / side, atol=1e-5)


def test_the_sample_of_300w(tmp_path: Path) -> None:
    root = sample_of("300w_sample")
    parts = "data.people.parts.indoor=[.]"
    faces = read("300w", root, "indoor", parts, "data.people.first_pixel=0")
    truth = json_points(root / "test_300w.json", 68)
    assert [record.picture.name for record in faces.records] == ["indoor_020.png", "indoor_029.png"]
    for record, number in zip(faces.records, (565, 197), strict=True):
        np.testing.assert_allclose(record.keypoints, truth[number], atol=1e-3)
    assert faces[0]["photo"].shape == (768, 726, 3)
    # inter-pupil errors are about 1.4 times as large, as the two lengths are
    score: Any = make_score("nme", keypoints=faces.keypoints, normalise=module("300w").facts.normalise)
    score.attach(faces)
    ratio = score._length["inter_ocular"] / score._length["inter_pupil"]
    assert ratio.mean() == pytest.approx(1.44, abs=0.03)


def test_the_sample_of_aflw() -> None:
    root = sample_of("aflw_sample")
    faces = read("aflw", root, "sample", "data.people.annotations=test_aflw.json", "data.people.images=.")
    truth = json_points(root / "test_aflw.json", 19)
    assert [(each.number, each.length) for each in faces.records] == [(3, 362), (68, 128)]
    assert faces.records[1].box == (102, 121, 128, 128)
    for record in faces.records:
        np.testing.assert_allclose(record.keypoints, truth[record.number], atol=1e-3)
    assert faces[0]["photo"].shape == (1280, 853, 3)


def test_faces68() -> None:
    root = sample_of("faces68")
    faces = read("faces68", root, "test")
    assert len(faces) == 385 and faces.records[0].picture.parent == root / "test"
    inside = np.array([each.keypoints.max(axis=0) <= np.array(each.box[2:]) for each in faces.records])
    assert inside.mean() > 0.99
    made = module("faces68", root, "transform=face", "codec.size=[112,112]")
    item = made.open("test", augment=True)[3, 7]
    assert item["image"].shape == (3, 112, 112) and item["keypoints"].shape == (68, 2)
