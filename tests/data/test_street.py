"""The embedded street scenes: repeatable, aligned, in the published layout, and written once."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from dvsn.data.cityscapes_labels import (
    CLASS_NAMES,
    ID_OF,
    LABELS,
    PALETTE,
    TRAIN_ID_OF,
    TRAIN_PALETTE,
)
from dvsn.data.street import Person, Scene, canvas, draw_scene, ensure_street, files, lens, write_cityscapes
from dvsn.data.street_parts import PART_ID_OF, PART_LABEL_ID_OF, PARTS, PIECES
from dvsn.errors import DataError

SMALL = {"height": 64, "width": 128}
TINY_SET = {"train": 3, "val": 1, "test": 1, **SMALL}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(seed=5, index=i) for i in range(8)]


@pytest.fixture(scope="module")
def people(scenes: list[Scene]) -> list[tuple[Scene, Person]]:
    return [(scene, person) for scene in scenes for person in scene.people if person.area > 90]


def as_bytes(scene: Scene) -> tuple[bytes, bytes, bytes]:
    return scene.photo.tobytes(), scene.label_ids.tobytes(), scene.instance_ids.tobytes()


def test_label_table() -> None:
    assert len(LABELS) == 35
    assert [label.id for label in LABELS] == [*range(34), -1]
    assert CLASS_NAMES[0] == "road" and CLASS_NAMES[10] == "sky" and CLASS_NAMES[-1] == "bicycle"
    assert len(CLASS_NAMES) == 19
    assert TRAIN_ID_OF[[7, 8, 11, 23, 26, 33]].tolist() == [0, 1, 2, 10, 13, 18]
    assert (TRAIN_ID_OF[34:] == 255).all() and (TRAIN_ID_OF != 255).sum() == 19
    assert PALETTE[26].tolist() == [0, 0, 142] and TRAIN_PALETTE[13].tolist() == [0, 0, 142]
    assert [label.name for label in LABELS if label.has_instances] == [
        "person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="read-only"):
        PALETTE[0] = 1


def test_scene_depends_on_seed_index_and_size_only() -> None:
    first = {i: as_bytes(draw_scene(seed=1, index=i, **SMALL)) for i in (0, 1, 2)}
    again = {i: as_bytes(draw_scene(seed=1, index=i, **SMALL)) for i in (2, 0, 1)}
    assert first == again
    assert len({*first.values(), as_bytes(draw_scene(seed=2, index=0, **SMALL))}) == 4
    with pytest.raises(DataError, match="too small"):
        draw_scene(seed=0, index=0, height=16, width=512)


def test_scene_is_a_street(scenes: list[Scene]) -> None:
    share = dict.fromkeys(("road", "sidewalk", "building", "vegetation", "sky", "car", "person"), 0.0)
    for scene in scenes:
        assert scene.photo.shape == (256, 512, 3) and scene.photo.dtype == np.uint8
        assert scene.label_ids.dtype == np.uint8 and scene.instance_ids.dtype == np.int32
        assert scene.photo.std() > 20
        for name in share:
            share[name] += float((scene.label_ids == ID_OF[name]).mean()) / len(scenes)
        rows = np.arange(256)[:, None] * np.ones(512)
        assert rows[scene.label_ids == ID_OF["road"]].min() > rows[scene.label_ids == ID_OF["sky"]].mean()
    assert all(value > 0.005 for value in share.values()), share
    assert share["road"] > 0.2


@pytest.mark.parametrize(("height", "width"), [(256, 256), (129, 75), (32, 400)])
def test_other_sizes(height: int, width: int) -> None:
    scene = draw_scene(seed=0, index=3, height=height, width=width)
    assert scene.photo.shape == (height, width, 3)
    assert scene.label_ids.shape == scene.instance_ids.shape == (height, width)


def test_instances_follow_the_convention(scenes: list[Scene]) -> None:
    for scene in scenes:
        things = scene.instance_ids >= 1000
        assert (scene.instance_ids[things] // 1000 == scene.label_ids[things]).all()
        assert (scene.instance_ids[~things] == scene.label_ids[~things]).all()
        assert (
            things.sum()
            == np.isin(scene.label_ids, [label.id for label in LABELS if label.has_instances]).sum()
        )
        listed = [*scene.people, *scene.vehicles]
        assert sorted(t.instance_id for t in listed) == np.unique(scene.instance_ids[things]).tolist()
        for thing in listed:
            rows, columns = np.nonzero(scene.instance_ids == thing.instance_id)
            assert thing.area == len(rows) and thing.label_id == thing.instance_id // 1000
            assert thing.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert all(car.label_id == 26 for scene in scenes for car in scene.cars)


def test_every_part_belongs_to_its_label(scenes: list[Scene]) -> None:
    found = set()
    for scene in scenes:
        assert scene.part_ids.shape == scene.label_ids.shape and scene.part_ids.dtype == np.uint8
        np.testing.assert_array_equal(PART_LABEL_ID_OF[scene.part_ids], scene.label_ids)
        found |= set(np.unique(scene.part_ids).tolist())
    names = {PARTS[number].name for number in found}
    assert names >= {
        "road: marking", "sidewalk: curb", "building: window", "building: door", "building: trim", "building: display",
        "vegetation: trunk", "person: skin", "person: hair", "person: trousers", "car: glass", "car: wheel",
        "car: tail lamp", "car: plate", "pole: lamp", "traffic sign: symbol",
    }  # fmt: skip
    assert PARTS[PART_ID_OF[ID_OF["bus"], PIECES.index("plate")]].name == "bus"  # it has no row of its own
    marking = np.concatenate([s.photo[s.part_ids == 1] for s in scenes]).mean()
    assert PARTS[1].name == "road: marking"
    assert marking > 1.2 * np.concatenate([s.photo[s.part_ids == 0] for s in scenes]).mean()


def test_pieces_change_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same scenes drawn without any piece: photo, labels, instances, and what is seen of people."""
    size = {"height": 384, "width": 768}
    whole = [draw_scene(seed=5, index=i, **size) for i in range(3)]
    monkeypatch.setattr(canvas, "PIECE_INDEX", dict.fromkeys(canvas.PIECE_INDEX, 0))
    for index, scene in enumerate(whole):
        plain = draw_scene(seed=5, index=index, **size)
        assert len(np.unique(plain.part_ids)) < len(np.unique(scene.part_ids))
        assert as_bytes(plain) == as_bytes(scene)
        assert [(each.box, each.area) for each in plain.vehicles] == [
            (each.box, each.area) for each in scene.vehicles
        ]
        for one, other in zip(plain.people, scene.people, strict=True):
            np.testing.assert_array_equal(one.keypoints, other.keypoints)
            assert (one.face is None) == (other.face is None)
            if one.face is not None and other.face is not None:
                np.testing.assert_array_equal(one.face.seen, other.face.seen)


def test_pieces_do_not_vote_for_the_part() -> None:
    """Of each 2 x 2 the part is settled by parts alone, and the piece is one of that part."""
    a, b, window, trim = 3, 4, 1 << canvas.PIECE_BITS, 2 << canvas.PIECE_BITS
    painted = np.array([[b, a + window, a + trim, a], [a, a, a + trim, b]], np.uint16)
    part, piece = lens.settle(painted)
    assert part.tolist() == [[a, a]] and piece.tolist() == [[0, 2]]
    painted = np.array([[b, a + window], [a + trim, b + trim]], np.uint16)  # b, a, a, b: a comes twice
    assert [each.tolist() for each in lens.settle(painted)] == [[[a]], [[1]]]


def test_visible_joints_lie_on_the_person(people: list[tuple[Scene, Person]]) -> None:
    assert len(people) >= 8
    seen = 0
    for scene, person in people:
        points = person.keypoints
        assert points.shape == (17, 3) and points.dtype == np.float32
        assert set(points[:, 2].tolist()) <= {0, 1, 2}
        assert (points[points[:, 2] == 0] == 0).all()
        for x, y, v in points.tolist():
            if v:
                row, column = round(y), round(x)
                assert 0 <= row < 256 and 0 <= column < 512
                hit = scene.instance_ids[row, column] == person.instance_id
                assert hit or v == 1
            seen += v == 2
    assert seen > 8 * len(people)


def test_body_is_in_order(people: list[tuple[Scene, Person]]) -> None:
    """Nose above shoulders above hips above knees; the person's left is image right when he faces us."""
    for _, person in people:
        points = person.keypoints
        if (points[:, 2] > 0).all():
            nose, shoulder, hip, knee = (points[k, 1].mean() for k in ([0], [5, 6], [11, 12], [13, 14]))
            assert nose < shoulder < hip < knee
            if abs(person.turned) > 0.9:
                assert (points[5, 0] > points[6, 0]) == (person.turned > 0)


def test_landmarks_lie_on_the_face() -> None:
    faces = []
    for index in range(7):
        scene = draw_scene(seed=5, index=index, height=384, width=768)
        faces += [(scene, person) for person in scene.people if person.face is not None]
    assert faces
    for scene, person in faces:
        face = person.face
        assert face is not None and face.landmarks.shape == (98, 2)
        x0, y0, x1, y1 = face.box
        assert (face.landmarks > (x0, y0)).all() and (face.landmarks < (x1, y1)).all()
        column, row = np.rint(face.landmarks[face.seen]).astype(int).T
        assert (scene.instance_ids[row, column] == person.instance_id).all()
        left_corner, right_corner, chin, nose = face.landmarks[[60, 72, 16, 54]]
        assert left_corner[0] < nose[0] + 2 and nose[0] - 2 < right_corner[0] and chin[1] > nose[1]
        for pupil, joint in ((96, 2), (97, 1)):  # image left is the person's right
            if person.keypoints[joint, 2]:
                np.testing.assert_allclose(person.keypoints[joint, :2], face.landmarks[pupil], atol=1e-3)
        assert person.turned > 0.6 and abs(face.angles[1]) < 1.1
        yaw, middle = face.angles[1], (face.landmarks[0, 0] + face.landmarks[32, 0]) / 2
        if abs(yaw) > 0.15:  # positive turns the nose to the image left
            assert (nose[0] < middle) == (yaw > 0)


def test_written_tree(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, seed=4, train=5, val=2, test=1, **SMALL)
    photos = sorted(tmp_path.glob("leftImg8bit/*/*/*.png"))
    assert len(photos) == 8 and len(list(tmp_path.rglob("*.png"))) == 48
    assert (tmp_path / "leftImg8bit/train/alderbrook/alderbrook_000000_000019_leftImg8bit.png") in photos
    for photo in photos:
        city, sequence, frame, _ = photo.stem.split("_")
        assert photo.parent.name == city and len(sequence) == len(frame) == 6
        stem = (
            tmp_path
            / "gtFine"
            / photo.parent.relative_to(tmp_path / "leftImg8bit")
            / f"{city}_{sequence}_{frame}_gtFine"
        )
        pictures = {
            kind: Image.open(f"{stem}_{kind}.png")
            for kind in ("labelIds", "labelTrainIds", "color", "instanceIds", "partIds")
        }
        modes = {kind: file.mode for kind, file in pictures.items()}
        assert modes.pop("instanceIds").startswith("I")
        assert modes == {"labelIds": "L", "labelTrainIds": "L", "color": "RGBA", "partIds": "L"}
        assert all(file.size == (128, 64) for file in pictures.values())
        ids = np.asarray(pictures["labelIds"])
        assert ids.max() <= 33
        np.testing.assert_array_equal(np.asarray(pictures["labelTrainIds"]), TRAIN_ID_OF[ids])
        np.testing.assert_array_equal(np.asarray(pictures["color"])[..., :3], PALETTE[ids])
        assert (np.asarray(pictures["color"])[..., 3] == 255).all()
        instances = np.asarray(pictures["instanceIds"]).astype(int)
        np.testing.assert_array_equal(np.where(instances >= 1000, instances // 1000, instances), ids)
        np.testing.assert_array_equal(PART_LABEL_ID_OF[np.asarray(pictures["partIds"])], ids)
    scene = draw_scene(seed=4, index=files.SPLIT_STRIDE + 1, **SMALL)
    written = Image.open(tmp_path / "leftImg8bit/val/elmstead/elmstead_000001_000019_leftImg8bit.png")
    assert written.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(written), scene.photo)


def test_people_in_coco_format(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, seed=0, train=2, val=6, test=1, height=256, width=512)
    for split in ("train", "val", "test"):
        coco = COCO(str(tmp_path / "annotations" / f"person_keypoints_{split}.json"))
        for image in coco.dataset["images"]:
            assert (tmp_path / "leftImg8bit" / image["file_name"]).is_file()
            assert (image["width"], image["height"]) == (512, 256)
    coco = COCO(str(tmp_path / "annotations" / "person_keypoints_val.json"))
    labelled, flags = 0, set()
    for place, image in enumerate(coco.dataset["images"]):
        scene = draw_scene(seed=0, index=files.SPLIT_STRIDE + place)
        found = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert len(found) == len(scene.people)
        for each, person in zip(found, scene.people, strict=True):
            x, y, width, height = (int(value) for value in each["bbox"])
            mask = scene.instance_ids == person.instance_id
            assert each["area"] == mask.sum() == mask[y : y + height, x : x + width].sum()
            assert mask[y].any() and mask[y + height - 1].any() and mask[:, x].any()
            joints = np.reshape(each["keypoints"], (17, 3))
            assert each["num_keypoints"] == (joints[:, 2] > 0).sum() and each["iscrowd"] == 0
            if each["num_keypoints"]:
                np.testing.assert_allclose(joints, person.keypoints, atol=0.006)
                assert each["area"] >= 100 and (joints[:, 2] == 2).sum() >= 5
                labelled += 1
            else:
                assert not joints.any()
                assert person.area < 100 or (person.keypoints[:, 2] == 2).sum() < 5
            flags |= set(joints[:, 2].tolist())
    assert labelled >= 4 and flags == {0, 1, 2}
    assert min(coco.anns) == 1 and coco.dataset["categories"][0]["keypoints"][16] == "right_ankle"


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*.png"))}


def test_ensure_writes_once_and_repairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data" / "street"
    assert ensure_street(root, **TINY_SET) == root
    whole = contents(root)
    assert len(whole) == 30 and not list(root.glob(".partial*"))
    assert json.loads((root / files.STAMP).read_text())["finished"] is True

    real, calls = files.write_cityscapes, []
    monkeypatch.setattr(files, "write_cityscapes", lambda *a, **k: (calls.append(1), real(*a, **k)))
    ensure_street(root, **TINY_SET)
    assert not calls  # nothing to do

    next(root.glob("gtFine/train/*/*_partIds.png")).unlink()  # a file was lost
    ensure_street(root, **TINY_SET)
    assert len(calls) == 1 and contents(root) == whole

    (root / "annotations" / "person_keypoints_val.json").unlink()
    ensure_street(root, **TINY_SET)
    assert len(calls) == 2 and (root / "annotations" / "person_keypoints_val.json").is_file()

    ensure_street(root, **{**TINY_SET, "seed": 9})  # another set in the same place
    assert len(calls) == 3 and contents(root).keys() == whole.keys() and contents(root) != whole

    def killed(*_: object, **__: object) -> None:
        (root / ".partial" / "leftImg8bit").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_cityscapes", killed)
    with pytest.raises(KeyboardInterrupt):
        ensure_street(root, **TINY_SET)
    assert json.loads((root / files.STAMP).read_text())["finished"] is False
    monkeypatch.setattr(files, "write_cityscapes", real)
    ensure_street(root, **TINY_SET)
    assert contents(root) == whole and not list(root.glob(".partial*"))


def test_a_set_of_an_earlier_version_serves_who_wants_no_parts(tmp_path: Path) -> None:
    root = ensure_street(tmp_path / "street", **TINY_SET)
    for file in root.glob("gtFine/*/*/*_partIds.png"):
        file.unlink()
    stamp = json.loads((root / "street.json").read_text())
    (root / "street.json").write_text(json.dumps({**stamp, "version": 2}))
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*.png")}
    ensure_street(root, **TINY_SET, parts=False)
    assert before == {file: file.stat().st_mtime_ns for file in root.rglob("*.png")}
    ensure_street(root, **TINY_SET)  # with parts: drawn anew
    assert len(list(root.glob("gtFine/*/*/*_partIds.png"))) == len(before) // 5
    (root / "street.json").write_text(json.dumps({**stamp, "version": 1}))
    ensure_street(root, **TINY_SET, parts=False)
    assert json.loads((root / "street.json").read_text()) == stamp


def test_ensure_leaves_foreign_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "leftImg8bit").mkdir()
    with pytest.raises(DataError, match="not a street set"):
        ensure_street(tmp_path, **TINY_SET)
    assert [each.name for each in tmp_path.iterdir()] == ["leftImg8bit"]
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(DataError, match="is a file"):
        ensure_street(file, **TINY_SET)


def ask(root: str, queue: multiprocessing.Queue[int]) -> None:
    drawn = []
    real = files.write_cityscapes
    files.write_cityscapes = lambda *a, **k: (drawn.append(1), real(*a, **k))  # type: ignore[assignment, func-returns-value]
    ensure_street(root, **TINY_SET)
    queue.put(len(drawn))


def test_two_processes_write_one_set(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[int] = context.Queue()
    workers = [context.Process(target=ask, args=(str(tmp_path / "street"), queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    counts = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    assert sorted(counts) == [0, 1]
    assert len(contents(tmp_path / "street")) == 30


def test_lock_file_goes_stale(tmp_path: Path) -> None:
    path = tmp_path / "held"
    path.write_text("")
    with files.locked_by_file(path, stale_after=-1.0):
        assert path.exists()
    assert not path.exists()
