"""Every place where a point changes its frame, followed by a dot: picture, crop, mirror, maps, teacher, picture again.

A dot of light is painted into a picture at a known place between pixels. A network that sees perfectly finds it in the
crop by its centre of mass, which is independent of how crops and codecs count. What comes back in pixels of the picture
must be the place that was painted. Single dots are rounded by some codecs, so means over many of them are compared, in
pixels of the crop.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from dvsn.codecs.heatmaps import HeatmapCodec, resample
from dvsn.config.build import build
from dvsn.config.menu import choices
from dvsn.convert.faces import AUTHORS_CODEC
from dvsn.distill.shapes import on_grid
from dvsn.distill.teacher import Teacher, answer
from dvsn.engine import trainer as runtime
from dvsn.portable.crop import move_points
from dvsn.predict.faces import OPTIONS as FACE_OPTIONS
from dvsn.predict.faces import FacePredictor
from dvsn.predict.files import read_frame
from dvsn.predict.people import PeoplePredictor
from dvsn.tasks.keypoints import to_picture
from dvsn.types import LandmarkOutput
from tests.support.tiny import composed

HEIGHT, WIDTH = 200, 240
BOX = (60.0, 30.0, 110.0, 120.0)
CODECS = choices()["codec"]
BIAS = {"msra": 0.25, "dark": 0.5, "dark_unbiased": 0.0, "udp": 0.0}
"""Crop pixels that a mirrored and averaged answer lies right of the dot: published recipes move maps of crop / 4 by 4
pixels where 3 are right, which moves their mean by 0.5; without any shift it is -1.5. Of rounded maps (msra) one in four
pairs differs by a pixel and is then read a quarter pixel to the right: 4 x 0.25 x 0.25."""
FORMS = {
    "pose": ["task=pose", "network=hrnet_small", "network.width=4", "data=lspet", "data.facts.padding=1.2"],
    "heatmaps": ["task=landmarks_heatmaps", "network=hrnet_small", "network.width=4", "data=aflw"],
    "points": ["task=landmarks", "network=pfld_025", "loss=wing", "data=aflw"],
}


def painted(place: np.ndarray) -> np.ndarray:
    """A black picture with a soft dot of light at (x, y)."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    spot = np.exp(-((columns - place[0]) ** 2 + (rows - place[1]) ** 2) / (2 * 2.5**2))
    return np.repeat((255 * spot).round().astype(np.uint8)[..., None], 3, axis=2)


def dots(count: int) -> np.ndarray:
    """(N, 2) places that take all fractions of a pixel equally often."""
    steps = np.outer(np.arange(count), [0.6180339887, 0.7548776662]) % 1
    return np.array([95.0, 70.0]) + 36 * steps


def seen(image: Tensor) -> Tensor:
    """Where the light of crops (N, 3, H, W) is, in pixels (N, 2), centres at integers."""
    light = image.float().mean(dim=1)
    light = light * (light > 4)
    across, down = (torch.arange(light.shape[axis]).float() for axis in (2, 1))
    total = light.sum((1, 2))
    return torch.stack([light.sum(1) @ across, light.sum(2) @ down], dim=-1) / total.unsqueeze(-1)


class Maps(nn.Module):
    """Sees the dot and answers with the maps of a codec."""

    def __init__(self, codec: HeatmapCodec, joints: int) -> None:
        super().__init__()
        self.codec, self.joints, self.weight = codec, joints, nn.Parameter(torch.zeros(()))

    def forward(self, image: Tensor) -> Tensor:
        points = seen(image).unsqueeze(1).expand(-1, self.joints, 2)
        return self.codec.encode(points, torch.ones(len(image), self.joints))[0]


class Points(nn.Module):
    """Sees the dot and answers as labels count: `offset` (N,) crop pixels further."""

    def __init__(self, joints: int) -> None:
        super().__init__()
        self.joints, self.offset = joints, torch.zeros(())

    def forward(self, image: Tensor, heads: bool = False) -> LandmarkOutput:
        places = (seen(image) + self.offset.view(-1, 1)) / torch.tensor([image.shape[-1], image.shape[-2]])
        return LandmarkOutput(places.unsqueeze(1).expand(-1, self.joints, 2))


class Plain(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image.float()


@functools.cache
def config_of(form: str, *options: str) -> dict[str, Any]:
    return composed([*FORMS[form], *options], Path("runs/test"))


def perfect(form: str, *options: str) -> Any:
    """The task of a form of conf, with a network that sees the dot."""
    task: Any = runtime.make_task(config_of(form, *options)).eval()
    task.normalise = Plain()
    joints = len(task.keypoints)
    task.network = Points(joints) if form == "points" else Maps(task.codec, joints)
    return task


def samples(form: str, places: np.ndarray, *options: str, **changes: Any) -> dict[str, Any]:
    """A batch of crops by conf's transform; `changes` are options of the crop. All keypoints are the dot."""
    config = config_of(form, *options)
    crop = build({**config["transform"]["eval"], **changes}, path="data.transform.eval")
    crop.keypoints = build(config["data"]["keypoints"], path="data.keypoints")
    joints = len(crop.keypoints)
    return default_collate(
        [
            crop(
                {
                    "photo": painted(place), "box": np.array(BOX, np.float32), "index": number, "name": "dot",
                    "keypoints": np.repeat(place[None], joints, axis=0).astype(np.float32),
                    "labelled": np.ones(joints, np.uint8),
                },
                number,
            )
            for number, place in enumerate(places)
        ]
    )  # fmt: skip


def zoom(batch: dict[str, Any]) -> float:
    """Crop pixels a picture pixel, of an unturned crop."""
    return 1 / float(batch["inverse"][0, 0, 0].abs())


def error(answer: Tensor, batch: dict[str, Any], places: np.ndarray) -> Tensor:
    """(N, 2) crop pixels from the dots to the answers (N, K, 2), by way of the picture."""
    found = to_picture(answer, batch["inverse"])[:, 0]
    return (found - torch.from_numpy(places).float()) * zoom(batch)


CROPS: list[tuple[str, tuple[str, ...]]] = [
    *(("pose", (f"codec={codec}",)) for codec in CODECS),
    *(("heatmaps", (f"codec={codec}",)) for codec in CODECS),
    ("points", ()),
    ("points", ("transform.centred=true",)),
]


@pytest.mark.parametrize(("form", "options"), CROPS)
@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("moved", [False, True])
def test_keypoints_lie_on_their_dots(form: str, options: tuple[str, ...], flip: float, moved: bool) -> None:
    """Plain, mirrored, turned and zoomed; labels that count from a corner do so by the sample's `offset`, everywhere alike;
    and the sample's own map brings them back to the picture."""
    changes = {"flip": flip, **({"zoom": 0.2, "rotation": 80.0} if moved else {})}
    places = dots(8)
    batch = samples(form, places, *options, **changes)
    offset = batch.get("offset", torch.zeros(len(places)))
    lit = seen(batch["image"])
    torch.testing.assert_close(batch["keypoints"][:, 0] - offset.unsqueeze(-1), lit, atol=0.1, rtol=0)
    back = move_points(batch["keypoints"][0].numpy(), batch["inverse"][0].numpy())
    np.testing.assert_allclose(back, np.repeat(places[:1], len(back), axis=0), atol=1e-3)
    corner = form == "points" and not options
    expected = (1 - 112 / batch["extent"][:, 0]) / 2 if corner else torch.zeros(len(places))
    torch.testing.assert_close(offset, expected)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("form", ["pose", "heatmaps"])
def test_heatmaps_are_read_where_the_dots_are(form: str, codec: str) -> None:
    """Without the mirror without a bias, in both axes; with it, with the bias of the published shift."""
    rounded = codec == "msra"
    places = dots(48 if rounded else 12)
    task, batch = perfect(form, f"codec={codec}"), samples(form, places, f"codec={codec}")
    with torch.no_grad():
        for mirror, bias in ((False, 0.0), (True, BIAS[codec])):
            task.flip_test = mirror
            misses = error(task(batch["image"])[..., :2], batch, places)
            expected = torch.tensor([bias, 0.0])
            torch.testing.assert_close(misses.mean(dim=0), expected, atol=0.15 if rounded else 0.06, rtol=0)
            assert float((misses - expected).abs().max()) < (2.2 if rounded else 0.25)
        task.flip_test = False
        torch.testing.assert_close(task.deployable()(batch["image"]), task(batch["image"]))


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("known", [0.0, 1.0])
def test_points_are_read_where_the_dots_are(centred: bool, mirror: bool, known: float) -> None:
    """A network cannot know the size of picture pixels (`known` 0), and is then off by the offset; its mirrored answer is
    off by as much to the other side, so that their mean is exact."""
    places, option = dots(12), f"transform.centred={str(centred).lower()}"
    task, batch = perfect("points", option), samples("points", places, option)
    task.network.offset, task.flip_test = known * batch["offset"], mirror
    with torch.no_grad():
        misses = error(task(batch["image"], batch["offset"])[..., :2], batch, places)
    expected = torch.zeros_like(misses) + (known - 1) * batch["offset"].unsqueeze(-1)
    if mirror:
        expected[:, 0] = 0
    torch.testing.assert_close(misses, expected, atol=0.1, rtol=0)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("centred", [False, True])
def test_heatmaps_teach_points_what_their_labels_say(codec: str, centred: bool) -> None:
    """The teacher looks at the student's crops at its own size, and its points are the student's labels."""
    places, option = dots(24), f"transform.centred={str(centred).lower()}"
    student, batch = perfect("points", option), samples("points", places, option)
    teacher = perfect("heatmaps", f"codec={codec}")
    asked = Teacher(teacher, teacher.network, teacher.teach_points, name="x",
                    translate=student.translate_from(teacher))  # fmt: skip
    taught, _ = answer([asked], batch["image"], batch, kind="points", average="probabilities")
    misses = (taught - student.labelled(batch)["points"])[:, 0] * 112
    assert float(misses.mean(dim=0).abs().max()) < (0.15 if codec == "msra" else 0.05)
    assert student.translate_from(student) is None
    assert "offset" in batch and float(batch["offset"].abs().max()) > (0.05 if not centred else -1)


def test_points_of_a_photograph_at_another_size_are_taught_alike() -> None:
    """`distillation.size` of a heatmap teacher: its maps become larger, the points stay."""
    teacher = perfect("heatmaps", "codec=udp")
    batch = samples("points", dots(6))
    expected = teacher.teach_points(batch["image"])
    teacher.teaching_size = (384, 384)
    teacher.network.codec = HeatmapCodec(size=[384, 384], centre="exact", unbiased=True)
    torch.testing.assert_close(teacher.teach_points(batch["image"]), expected, atol=0.002, rtol=0)


@pytest.mark.parametrize("theirs", [*CODECS, "authors"])
@pytest.mark.parametrize("mine", CODECS)
@pytest.mark.parametrize("size", [(96, 96), (192, 192)])
def test_heatmaps_teach_heatmaps_of_another_frame(theirs: str, mine: str, size: tuple[int, int]) -> None:
    """A teacher's maps, moved and resized as the methods do, are read by the student's codec where the points are."""

    def codec(name: str, size: tuple[int, int]) -> HeatmapCodec:
        if name == "authors":
            return HeatmapCodec(size=size, centre="exact", **AUTHORS_CODEC)
        node = {
            key: value
            for key, value in config_of("pose", f"codec={name}")["codec"].items()
            if key != "_target_"
        }
        return HeatmapCodec(**{**node, "size": size, "centre": "exact"})

    teacher, student = codec(theirs, size), codec(mine, (96, 96))
    points = torch.from_numpy(np.random.default_rng(0).uniform(32, 64, (40, 1, 2))).float()
    shown = (points + 0.5) * size[0] / 96 - 0.5
    maps = teacher.encode(shown, torch.ones(40, 1))[0]
    if not (size == (96, 96) and teacher.same_frame(student)):
        maps = resample(maps, teacher, student)
    found = student.decode(on_grid(maps, torch.zeros(1, 1, 24, 24)))[0]
    misses = (found - points)[:, 0].mean(dim=0)
    assert float(misses.abs().max()) < (0.3 if mine == "msra" else 0.12)


def test_a_teacher_of_the_same_frame_is_not_touched() -> None:
    one, other = perfect("heatmaps", "codec=udp"), perfect("heatmaps", "codec=dark")
    assert one.translate_from(perfect("heatmaps", "codec=udp")) is None
    assert one.translate_from(other) is not None
    other.codec, other.teaching_size = one.codec, (128, 128)
    assert one.translate_from(other) is not None


def test_the_authors_face_weights_are_read_where_they_learned() -> None:
    """By their own formulas: pixel i of a map is learned for points at floor((x - corner) / (4 s)), while their crop begins
    one crop pixel before the corner, so that x is drawn 1 + (x - corner) / s crop pixels from its edge."""
    codec = HeatmapCodec(size=[256, 256], **AUTHORS_CODEC)
    from_corner = torch.from_numpy(np.random.default_rng(0).uniform(80, 160, (400, 2))).float()  # crop pixels
    learned = (from_corner / 4).floor()
    drawn = from_corner + 1 - 0.5  # pixel centres at integers
    grid = torch.arange(64.0)
    maps = torch.exp(
        -((grid - learned[:, :1]) ** 2).unsqueeze(1) / 4.5 - ((grid - learned[:, 1:]) ** 2).unsqueeze(2) / 4.5
    )
    found = codec.decode(maps.unsqueeze(1))[0][:, 0]
    torch.testing.assert_close(found, 4 * learned + 2.5)
    assert float((found - drawn).mean(dim=0).abs().max()) < 0.2
    plain = HeatmapCodec(size=[256, 256], sigma=1.5).decode(maps.unsqueeze(1))[0][:, 0]
    torch.testing.assert_close((plain - drawn).mean(dim=0), torch.tensor([-2.5, -2.5]), atol=0.2, rtol=0)
    encoded = codec.encode(drawn.unsqueeze(1), torch.ones(400, 1))[0]  # trained on, it learns the same pixels
    assert torch.equal(encoded.flatten(1).argmax(1), (64 * learned[:, 1] + learned[:, 0]).long())


def test_the_authors_face_weights_mirrored() -> None:
    codec = HeatmapCodec(size=[256, 256], centre="exact", refine="udp", blur=7, **AUTHORS_CODEC)
    drawn = torch.from_numpy(np.random.default_rng(0).uniform(80, 160, (60, 1, 2))).float()
    turned = torch.stack([255 - drawn[..., 0], drawn[..., 1]], dim=-1)
    maps, mirrored = (codec.encode(each, torch.ones(60, 1))[0] for each in (drawn, turned))
    found = codec.decode(codec.join_mirrored(maps, mirrored, torch.tensor([0])))[0]
    torch.testing.assert_close(found, drawn, atol=0.1, rtol=0)


@pytest.mark.parametrize(("form", "options"), CROPS)
def test_prediction_finds_the_dot(form: str, options: tuple[str, ...], tmp_path: Path) -> None:
    """From the picture to the JSON entry, mirrored where the task is."""
    import cv2

    places, codec = dots(4), next((word[6:] for word in options if word.startswith("codec=")), "")
    task = perfect(form, *options)
    task.flip_test = task.flip_test or form == "points"
    bias = BIAS[codec] if codec and task.flip_test else 0.0
    sources = [tmp_path / f"{number}.png" for number in range(len(places))]
    for source, place in zip(sources, places, strict=True):
        cv2.imwrite(str(source), painted(place))
    given: dict[str, Any] = dict.fromkeys(FACE_OPTIONS) | {
        "boxes": "image", "batch_size": 3, "output": str(tmp_path / "out"), "side_by_side": False, "nms": 0.9,
        "joint_score": 0.0, "padding": None, "smooth": False, "fps": 30.0, "min_cutoff": 1.0, "beta": 20.0,
        "points": True, "outline": False, "axes": False, "score": 0.0,
    }  # fmt: skip
    kind = PeoplePredictor if form == "pose" else FacePredictor
    work = kind(task, given, "cpu", sources)
    if form == "points":  # boxes=image: the whole picture is the crop
        side = work.crop.frame({"box": (0, 0, WIDTH, HEIGHT)})[1]
        task.network.offset = torch.tensor(0.0 if work.crop.centred else (1 - 112 / side) / 2)
    frames = [read_frame(source, work.reads, index) for index, source in enumerate(sources)]
    results = [entry for result in work(frames) for entry in result.to_coco()]
    near = 3.5 if codec == "msra" else 0.6 if codec else 0.3
    for entry, place in zip(results, places, strict=True):
        found = np.reshape(entry["keypoints"], (-1, 3))[0, :2]
        scale = WIDTH / task.codec.size[1] if codec else 1.0
        np.testing.assert_allclose(found, place + np.array([bias * scale, 0]), atol=near)
