"""`data init` over folders of boxes, keypoints and faces: what is written opens, and holds what lies there."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from dvsn.config import compose as composing
from dvsn.data.module import DataModule
from dvsn.data_tools.commands import INIT
from dvsn.data_tools.init import command, voc_look
from dvsn.data_tools.init.listing import Listing
from dvsn.data_tools.init.tables import split_columns
from dvsn.data_tools.init.yolo_look import statement
from dvsn.engine import trainer as runtime
from dvsn.errors import DataError
from tests.support.own_sets import coco, picture, text, voc, voc_object, yolo

BOXES = [{"image_id": n, "category_id": 90 if n % 2 else 7, "bbox": [5, 5, 20, 10 + n]} for n in range(4)]
KINDS = [{"id": 7, "name": "nut"}, {"id": 90, "name": "bolt"}]


def written(
    folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[dict[str, Any], DataModule]:
    """The config that the written files compose to, and its data module."""
    monkeypatch.chdir(folder)
    command.init(INIT.parse([f"folder={root}", *(f"{key}={value}" for key, value in options.items())]))
    with composing.opened("train", ["--config-dir=my_conf", "experiment=mine"]) as session:
        found = composing.compose(session.loader, session.name, session.overrides)
        config: Any = OmegaConf.to_container(found.cfg, resolve=False)
        config.pop("hydra")
        config["name"], config["run_dir"] = "mine", str(folder)
        config = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    module: Any = runtime.build_data(config)
    module.use({"detection": "objects"}.get(str(found.cfg.hydra.runtime.choices["task"]), "people"))
    return config, module


def test_coco_boxes_with_ids_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "set"
    for split in ("train", "val"):
        coco(
            root / "annotations" / f"instances_{split}.json",
            root / split,
            BOXES,
            categories=KINDS,
            start=split,
        )
    config, module = written(tmp_path, root, monkeypatch)
    assert config["data"]["object_classes"] == 3 and config["data"]["splits"] == {
        "train": "train",
        "val": "val",
        "test": "val",
    }
    data: Any = module.open("val")
    assert data.file_ids == {1: 7, 2: 90} and data.categories == {1: "nut", 2: "bolt"}
    assert [each["category_id"] for n in range(4) for each in data.truth(n)] == [1, 2, 1, 2]


def test_roboflows_names_and_one_file_without_a_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "valid"):
        coco(
            tmp_path / "rf" / split / "_annotations.coco.json",
            tmp_path / "rf" / split,
            BOXES,
            categories=KINDS,
        )
    config, module = written(tmp_path, tmp_path / "rf", monkeypatch)
    assert config["data"]["splits"]["val"] == "valid" and len(module.open("train")) == 4
    coco(tmp_path / "one" / "labels.json", tmp_path / "one" / "pics", BOXES, categories=KINDS)
    config, module = written(tmp_path, tmp_path / "one", monkeypatch, ratio="50/50", overwrite="true")
    assert len(module.open("train")) == len(module.open("val")) == 2
    assert {
        each["category_id"]
        for part in ("train", "val")
        for n in range(2)
        for each in module.open(part).truth(n)
    } == {1, 2}  # type: ignore[attr-defined]


def test_yolo_and_voc_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {f"{split}/{n}": f"{n % 2} 0.5 0.5 0.25 0.5" for split in ("train", "val") for n in range(4)}
    config, module = written(tmp_path, yolo(tmp_path / "yolo", lines), monkeypatch)
    assert config["data"]["objects"]["names"] == {1: "bolt", 2: "nut"} and len(module.open("train")) == 4
    boxes = {str(n): voc_object("cat" if n % 2 else "dog", [1, 1, 20, 30]) for n in range(6)}
    config, module = written(
        tmp_path, voc(tmp_path / "voc", boxes), monkeypatch, ratio="50/50", overwrite="true"
    )
    assert config["data"]["objects"]["names"] == {1: "cat", 2: "dog"} and len(module.open("val")) == 3


def test_lists_of_voc_are_those_of_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = voc(tmp_path / "voc", {str(n): voc_object("cat", [1, 1, 20, 30]) for n in range(6)})
    for folder, train in (("Main", "0 1 2 3"), ("Segmentation", "0")):
        text(root / "ImageSets" / folder / "train.txt", train.replace(" ", "\n"))
        text(root / "ImageSets" / folder / "val.txt", "4\n5\n")
    config, module = written(tmp_path, root, monkeypatch)
    assert config["data"]["objects"]["lists"] == "ImageSets/Main/{split}.txt"
    assert len(module.open("train")) == 4


def test_outlines_of_voc_are_seen_and_are_no_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = voc(tmp_path / "voc", {str(n): voc_object("cat", [1, 1, 20, 30]) for n in range(6)})
    for folder in ("SegmentationObject", "SegmentationClass"):
        for n in range(4):
            picture(root / folder / f"{n}.png")
    with caplog.at_level("INFO"):
        config, module = written(tmp_path, root, monkeypatch, ratio="50/50")
    assert config["data"]["objects"]["pictures"] == "JPEGImages" and len(module.open("train")) == 3
    assert "outlines of 4 of 6 pictures are there: masks are trained on where every picture" in caplog.text
    assert "that no annotation names" not in caplog.text


def test_outlines_of_some_pictures_of_voc_are_trained_on_by_their_lists(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc", {str(n): voc_object("cat", [1, 1, 20, 30]) for n in range(2)})
    picture(root / "SegmentationObject" / "0.png")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    text(root / "ImageSets" / "Segmentation" / "train.txt", "0\n")
    found = voc_look.objects(Listing.of(root))
    assert found is not None
    (said,) = [each for each in found.says if "outlines" in each]
    words = shlex.split(said.partition("train on masks with ")[2])
    overrides = [OverridesParser.create().parse_override(each) for each in words]
    assert {each.key_or_group: each.value() for each in overrides} == {
        "network.detector": "mask_rcnn",
        "data.objects.outlines": "SegmentationObject",
        "data.objects.lists": "ImageSets/Segmentation/{split}.txt",
    }


@pytest.mark.parametrize("shape", ["", "kpt_shape: [2, 2]\n"])
@pytest.mark.parametrize("start", ["", "./", "../"])
def test_lists_of_yolo(start: str, shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of both splits lie in one folder: train.txt and val.txt part them."""
    root = yolo(
        tmp_path / "set",
        {str(n): "1 .5 .5 .25 .5" + " .25 .5 .75 .5" * bool(shape) for n in range(6)},
        names="",
    )
    (root / "classes.txt").unlink()
    folder = "lists/" if start == "../" else ""
    text(root / "data.yaml", f"train: {folder}train.txt\nval: {folder}val.txt\nnames: [bolt, nut]\n{shape}")
    for split, chosen in {"train": [0, 3, 4, 5], "val": [1, 2]}.items():
        text(root / folder / f"{split}.txt", "".join(f"{start}images/{n}.png\n" for n in chosen))
    config, module = written(tmp_path, root, monkeypatch)
    node = config["data"]["people" if shape else "objects"]
    assert (node["pictures"], node["labels"]) == (f"{folder}{{split}}.txt", None)
    assert (len(module.open("train")), len(module.open("val"))) == (4, 2)
    assert str(root / "images" / "2.png") in module.open("val").describe(1)
    text(root / folder / "val.txt", "/content/1.png\n")
    with pytest.raises(
        DataError, match=r"val.txt: 1 of its 1 pictures are not there, such as /content/1.png"
    ):
        look(root)


PEOPLE = [
    {
        "image_id": n,
        "category_id": 3,
        "bbox": [5, 5, 40, 40],
        "keypoints": [10, 10, 2, 20 + n, 10, 2, 15, 20, 1],
    }
    for n in range(4)
]
HAND = {
    "id": 3,
    "name": "hand",
    "keypoints": ["left_tip", "right_tip", "wrist"],
    "skeleton": [[1, 3], [2, 3]],
}


def test_coco_keypoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "set"
    for split in ("train", "val"):
        coco(root / f"{split}.json", root / split, PEOPLE, categories=[HAND])
    config, module = written(tmp_path, root, monkeypatch)
    assert (
        config["data"]["joints"] == config["network"]["joints"] == 3
        and config["data"]["facts"]["score"] == "pck"
    )
    assert config["data"]["keypoints"]["skeleton"] == [["left_tip", "wrist"], ["right_tip", "wrist"]]
    assert module.keypoints is not None and module.keypoints.mirror.tolist() == [1, 0, 2]
    people: Any = module.open("val")
    np.testing.assert_allclose(people.records[2].keypoints[1], [22, 10])


def test_yolo_keypoints_of_a_data_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = yolo(
        tmp_path / "set",
        {f"{split}/{n}": "0 .5 .5 .5 .5 .25 .5 .75 .5" for split in ("train", "val") for n in range(2)},
    )
    text(root / "data.yaml", "train: images/train\nnames: {0: fish}\nkpt_shape: [2, 2]\nflip_idx: [1, 0]\n")
    config, module = written(tmp_path, root, monkeypatch)
    assert config["data"]["keypoints"]["names"] == ["p0", "p1"] and config["data"]["keypoints"]["pairs"] == [
        ["p0", "p1"]
    ]
    people: Any = module.open("train")
    np.testing.assert_allclose(people.records[0].keypoints, [[20, 30], [60, 30]])


FACE = np.array([[20.0, 20], [60, 20], [40, 30], [30, 45], [50, 45]])
"""Eyes, nose and corners of a mouth in a picture of 80 x 60."""


def faces(count: int) -> np.ndarray:
    return FACE + np.random.default_rng(0).normal(0, 0.5, (count, 5, 2))


@pytest.mark.parametrize("heading", ["x{n},y{n}", "p{n}_x,p{n}_y", "x_{n},y_{n}"])
def test_a_table_of_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heading: str) -> None:
    rows = ["file," + ",".join(heading.format(n=n) for n in range(5))]
    for number, face in enumerate(faces(12)):
        picture(tmp_path / "set" / "pics" / f"{number}.png")
        rows.append(f"{number}.png," + ",".join(f"{value:.3f}" for value in face.ravel()))
    text(tmp_path / "set" / "points.csv", "\n".join(rows))
    config, module = written(tmp_path, tmp_path / "set", monkeypatch, ratio="50/50")
    assert config["data"]["facts"]["score"] == "nme" and config["network"]["landmarks"] == 5
    assert module.keypoints is not None and module.keypoints.mirror.tolist() == [1, 0, 2, 4, 3]
    people: Any = module.open("train")
    number = int(people.records[0].picture.stem)
    np.testing.assert_allclose(people.records[0].keypoints, faces(12)[number], atol=1e-3)
    assert len(people) == 6


@pytest.mark.parametrize("mark", [";", "\t"])
def test_cells_that_are_empty_are_points_that_are_not_labelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    root = tmp_path / "gym"
    rows = [["filename", "nose x", "nose y", "hip x", "hip y"]]
    for number in range(6):
        picture(root / "frames" / f"f {number}.png")
        hidden = {1: ["", ""], 2: ["NaN", "nan"]}.get(number, ["7.5", "8"])
        rows.append([f"f {number}.png", *hidden, "20", str(20 + number)])
    text(root / "points.csv", "\n".join(mark.join(row) for row in rows))
    _, module = written(tmp_path, root, monkeypatch, task="pose", ratio="50/50")
    people = {each.picture.name: each for split in ("train", "val") for each in module.open(split).records}  # type: ignore[attr-defined]
    assert [people[f"f {number}.png"].labelled.tolist() for number in range(4)] == [
        [1, 1],
        [0, 1],
        [0, 1],
        [1, 1],
    ]
    assert people["f 2.png"].keypoints.tolist() == [[0, 0], [20, 22]]
    text(root / "points.csv", "\n".join(mark.join(row) for row in [*rows, ["f 0.png", "5", "", "1", "2"]]))
    with pytest.raises(DataError, match="nose is labelled and at"):
        written(tmp_path, root, monkeypatch, task="pose", overwrite="true")


def test_pts_files_and_lines_of_wflw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, face in enumerate(faces(12)):
        folder = tmp_path / "pts" / ("train" if number % 2 else "test")
        picture(folder / f"{number}.png")
        body = "\n".join(f"{x + 1:.3f} {y + 1:.3f}" for x, y in face)
        text(folder / f"{number}.pts", f"version: 1\nn_points: 5\n{{\n{body}\n}}\n")
    config, module = written(tmp_path, tmp_path / "pts", monkeypatch, ratio="50/50")
    people: Any = module.open("test")
    np.testing.assert_allclose(people.records[0].keypoints, faces(12)[0], atol=2e-3)
    lines = []
    for number, face in enumerate(faces(12)):
        picture(tmp_path / "lines" / "imgs" / f"{number}.png")
        numbers = [*face.ravel().round(2), 15, 15, 65, 50, number % 2, 0]
        lines.append(" ".join(map(str, numbers)) + f" {number}.png")
    text(tmp_path / "lines" / "list_train.txt", "\n".join(lines[:8]))
    text(tmp_path / "lines" / "list_val.txt", "\n".join(lines[8:]))
    config, module = written(tmp_path, tmp_path / "lines", monkeypatch, overwrite="true")
    people = module.open("val")
    assert people.records[0].box == (15, 15, 50, 35) and people.records[1].attributes.tolist() == [1, 0]
    assert len(config["data"]["keypoints"]["names"]) == 5


def test_columns_of_points_alone_are_no_rectangle() -> None:
    assert split_columns(faces(20).reshape(20, -1), "x") == (5, None)
    with pytest.raises(DataError, match="found 9 numbers a line"):
        split_columns(faces(20).reshape(20, -1)[:, :9], "x")


# Bad input -------------------------------------------------------------------------------------------


def test_a_class_of_val_alone(tmp_path: Path) -> None:
    coco(
        tmp_path / "train.json",
        tmp_path / "train",
        [each for each in BOXES if each["category_id"] == 7],
        categories=KINDS,
    )
    coco(tmp_path / "val.json", tmp_path / "val", BOXES, categories=KINDS)
    with pytest.raises(DataError, match=r"val has objects of classes that train has none of: bolt \(2\)"):
        look(tmp_path)


def look(root: Path) -> Any:
    from dvsn.data_tools.init import choose

    return choose.choose(Listing.of(root), None)


def test_annotations_of_pictures_that_are_not_there(tmp_path: Path) -> None:
    coco(tmp_path / "train.json", tmp_path / "pics", BOXES, categories=KINDS)
    (tmp_path / "pics" / "1.png").unlink()
    with pytest.raises(
        DataError, match=r"train.json: 1 of the 4 pictures that it describes are not in .*pics: 1.png"
    ):
        look(tmp_path)
    yolo(tmp_path / "y", {"a": "9 0.5 0.5 0.1 0.1"})
    with pytest.raises(DataError, match=r"a.txt: class 9, but only 2 classes have names: bolt, nut"):
        look(tmp_path / "y")


def test_two_kinds_at_once(tmp_path: Path) -> None:
    coco(tmp_path / "boxes.json", tmp_path / "scenes", BOXES, categories=KINDS)
    for number, face in enumerate(faces(12)):
        picture(tmp_path / "heads" / f"{number}.png")
        body = "\n".join(f"{x:.3f} {y:.3f}" for x, y in face)
        text(tmp_path / "heads" / f"{number}.pts", f"version: 1\nn_points: 5\n{{\n{body}\n}}\n")
    with pytest.raises(
        DataError, match=r"two kinds of data at once: .*detection.*landmarks|two kinds.*landmarks.*detection"
    ):
        look(tmp_path)


def test_a_broken_json(tmp_path: Path) -> None:
    coco(tmp_path / "train.json", tmp_path / "pics", BOXES, categories=KINDS)
    (tmp_path / "train.json").write_text((tmp_path / "train.json").read_text()[:-40])
    with pytest.raises(DataError, match=r"train.json: not a JSON file"):
        look(tmp_path)


@pytest.mark.parametrize("kind", ["aliases", "a list in the list", "a tag"])
def test_names_of_a_data_yaml_that_are_no_names(kind: str, tmp_path: Path) -> None:
    """A few aliases of aliases stand for a billion words: they are not written out, and the classes are numbered."""
    levels = "".join(
        f"{two}: &{two} [{','.join([f'*{one}'] * 10)}]\n"
        for one, two in zip("abcdefghi", "bcdefghij", strict=True)
    )
    text = {
        "aliases": f"a: &a [x, x, x, x, x, x, x, x, x, x]\n{levels}names: *j\n",
        "a list in the list": "names: [a, [b], c]\n",
        "a tag": "names: !!python/object/apply:os.mkdir [made]\n",
    }[kind]
    (tmp_path / "data.yaml").write_text(text)
    assert statement(Listing.of(tmp_path)) == {} and not Path("made").exists()
