"""Detection from files to scores: the detectors, the score against COCO's own, a run, resume, evaluation, prediction."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.models.detection.image_list import ImageList

import dvsn
from dvsn.analysis.record import read as read_analysis
from dvsn.data.cityscapes import Cityscapes
from dvsn.data.cityscapes_objects import CityscapesObjects
from dvsn.data.objects import CocoObjects
from dvsn.data.street import ensure_street
from dvsn.engine import trainer as runtime
from dvsn.engine.checkpoint import AtomicCheckpointIO
from dvsn.errors import ConfigError, DataError
from dvsn.evaluate import evaluate
from dvsn.metrics.detection import FIGURES, DetectionScore, coco_results
from dvsn.networks.detectors import Detector, ResNetPyramid
from dvsn.networks.hrnetv2 import HRNetClassifier
from dvsn.networks.hrnetv2p import HRNetV2p
from dvsn.predict import command as predict
from dvsn.predict.options import COMMAND
from dvsn.tasks.detection import Detection, encode_masks
from tests.support.coco import HEIGHT, SAMPLE, WIDTH, write_coco
from tests.support.distill_stubs import fit
from tests.support.resuming import equal
from tests.support.resuming import run as train_until
from tests.support.tiny import TINY_DETECTION, composed

SLIM: dict[str, Any] = {
    "width": 4,
    "bottlenecks": 1,
    "bottleneck_width": 4,
    "modules": [1, 1, 1],
    "blocks": 1,
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Path:
    """The checkpoint of a run of three steps."""
    folder = tmp_path_factory.mktemp("run")
    assert train_until(options_of(tree, folder)) is not None
    return folder / "checkpoints" / "last.ckpt"


def options_of(tree: Path, folder: Path, *more: str) -> dict[str, Any]:
    return composed([*TINY_DETECTION, f"data.root={tree}", *more], folder)


# The detectors ---------------------------------------------------------------------------------------

PARAMETERS = {  # with 91 classes; the fact sheet has them in millions, to two digits
    (18, "faster_rcnn"): 27_538_026, (32, "faster_rcnn"): 47_335_062, (48, "faster_rcnn"): 83_416_086,
    (18, "mask_rcnn"): 30_184_133, (32, "mask_rcnn"): 49_981_169, (48, "mask_rcnn"): 86_062_193,
    (18, "fcos"): 17_528_052, (32, "fcos"): 37_325_088, (48, "fcos"): 73_406_112,
}  # fmt: skip
HEAD = (256 * 49 + 1) * 1024 + 1025 * 1024
"""Of the two layers over the pooled squares of a box."""
MASK = 4 * (9 * 256 + 1) * 256 + (4 * 256 + 1) * 256 + 257 * 91
PARAMETERS |= {
    (18, "cascade_rcnn"): PARAMETERS[18, "faster_rcnn"] + 2 * HEAD + 1025 * (3 * (91 + 4) - 91 * 5),
    (18, "cascade_mask_rcnn"): PARAMETERS[18, "mask_rcnn"] + 2 * (HEAD + MASK) + 1025 * (3 * (91 + 4) - 91 * 5),
    (18, "htc"): PARAMETERS[18, "mask_rcnn"] + 2 * (HEAD + MASK + 257 * 256) + 1025 * (3 * (91 + 4) - 91 * 5),
    (18, "centernet"): PARAMETERS[18, "faster_rcnn"] - HEAD - 1025 * 91 * 5 - (9 * 256 + 1) * 256 - 257 * 15
    + 3 * (9 * 256 + 1) * 64 + 65 * (90 + 2 + 2),
}  # fmt: skip


@pytest.mark.parametrize(("width", "detector"), PARAMETERS)
def test_sizes_are_the_published_ones(width: int, detector: Any) -> None:
    with torch.device("meta"):
        backbone = HRNetV2p(width=width, first_stride=8 if detector == "fcos" else 4)
        network = Detector(backbone=backbone, classes=91, detector=detector)
    assert sum(each.numel() for each in network.parameters()) == PARAMETERS[width, detector]


def anchors_of(network: Detector, height: int, width: int) -> list[torch.Tensor]:
    """The anchors of each level for one picture of this size, (h * w * ratios, 4)."""
    images, _ = network.eval().model.transform([torch.rand(3, height, width)])
    levels = list(network.model.backbone(images.tensors).values())
    rpn = getattr(network.model, "rpn", network.model)
    with torch.no_grad():
        (anchors,) = rpn.anchor_generator(ImageList(images.tensors, images.image_sizes), levels)
    counts = [level.shape[-2] * level.shape[-1] * len(anchors) // total(levels) for level in levels]
    return list(anchors.split(counts))


def total(levels: list[torch.Tensor]) -> int:
    return sum(level.shape[-2] * level.shape[-1] for level in levels)


def slim(detector: Any, **options: Any) -> Detector:
    torch.manual_seed(0)
    backbone = HRNetV2p(**SLIM, first_stride=8 if detector == "fcos" else 4)
    return Detector(
        backbone=backbone, classes=3, detector=detector, **{"min_size": 96, "max_size": 160, **options}
    )


@pytest.mark.parametrize("detector", ["faster_rcnn", "mask_rcnn"])
def test_an_answer_does_not_depend_on_the_picture_before(detector: Any) -> None:
    """Where the first one is 33 pixels high and padded to 64, torchvision takes a stride of 32 for one of 16."""
    torch.manual_seed(0)
    network = slim(detector, min_size=33, score_threshold=0.0, detections=5).eval()
    long, square = torch.rand(3, 33, 150), torch.rand(3, 90, 90)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other([long])
        first, second = network([square])[0], other([square])[0]
    assert len(first["boxes"]) and first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert network.model.roi_heads.box_roi_pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def test_anchors_stand_where_the_levels_are() -> None:
    levels = anchors_of(slim("faster_rcnn"), 96, 150)  # sides that only padding makes divisible
    for level, (anchors, size) in enumerate(zip(levels, (32, 64, 128, 256, 512), strict=True)):
        sides = anchors[:3, 2:] - anchors[:3, :2]
        np.testing.assert_allclose((sides[:, 1] / sides[:, 0]).tolist(), [0.5, 1, 2], rtol=0.1)
        np.testing.assert_allclose(sides.prod(dim=1).sqrt().tolist(), [size] * 3, rtol=0.03)
        assert float(anchors[3, 0] - anchors[0, 0]) == 4 * 2**level  # the next place to the right
    for level, anchors in enumerate(anchors_of(slim("fcos"), 96, 150)):
        assert float(anchors[0, 2] - anchors[0, 0]) == 8 * 2**level
        assert len(anchors) < 2 or float(anchors[1, 0] - anchors[0, 0]) == 8 * 2**level


def test_pictures_are_normalised_once_and_resized() -> None:
    network, seen = slim("faster_rcnn").eval(), []
    network.model.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    with torch.no_grad():
        network([mean.expand(3, 48, 64), (mean + 0.229).expand(3, 48, 64)])
    assert tuple(seen[0].shape) == (2, 3, 128, 128)  # 96 x 128, padded to multiples of 64
    assert float(seen[0][0].abs().max()) < 1e-5
    assert abs(float(seen[0][1, 0, 50, 60]) - 1) < 1e-4


def flat(given: Any) -> list[torch.Tensor]:
    """The levels among the arguments of a head."""
    if isinstance(given, torch.Tensor):
        return [given]
    inner = given.values() if isinstance(given, dict) else given if isinstance(given, list | tuple) else ()
    return [level for each in inner for level in flat(each)]


@pytest.mark.parametrize(
    "detector",
    [
        "faster_rcnn",
        "mask_rcnn",
        "fcos",
        pytest.param("cascade_mask_rcnn", marks=pytest.mark.slow),
        "centernet",
    ],
)
def test_boxes_are_reckoned_in_float32_under_mixed_precision(detector: Any) -> None:
    network, dtypes = slim(detector, score_threshold=0.0, detections=5).eval(), []
    first = network.model.head if detector in ("fcos", "centernet") else network.model.rpn
    if detector == "centernet":
        torch.nn.init.constant_(network.model.head.size[2].bias, 4.3)
        torch.nn.init.normal_(network.model.head.heatmap[2].weight)
    first.register_forward_pre_hook(lambda _, given: dtypes.extend(each.dtype for each in flat(given)))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (found,) = network([torch.rand(3, 96, 150)])
    assert dtypes and set(dtypes) == {torch.float32}
    assert len(found["scores"]) and {found[key].dtype for key in ("boxes", "scores")} == {torch.float32}
    remainders = found["boxes"] * 2 % 1  # in bf16 boxes above 128 would be whole pixels
    assert bool(((remainders > 1e-3) & (remainders < 1 - 1e-3)).any())


def test_statistics_can_be_kept() -> None:
    network = slim("faster_rcnn", fixed_statistics=True).train()
    norm = next(m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    before = norm.running_mean.clone()
    target = {"boxes": torch.tensor([[8.0, 8.0, 60.0, 60.0]]), "labels": torch.tensor([1])}
    sum(network([torch.rand(3, 96, 96)], [target]).values()).backward()
    assert torch.equal(norm.running_mean, before) and norm.weight.grad is not None


def test_a_backbone_that_does_not_fit_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"first_stride: found 4, but fcos .* Set network.backbone.first_stride=8"
    ):
        Detector(backbone=HRNetV2p(**SLIM), classes=3, detector="fcos")
    with pytest.raises(ConfigError, match=r"first_stride: found 8, but faster_rcnn"):
        Detector(backbone=ResNetPyramid(channels=8, first_stride=8), classes=3)
    with pytest.raises(ConfigError, match=r"network.anchors: found 2 sizes, expected 5"):
        Detector(backbone=HRNetV2p(**SLIM), classes=3, anchors=[8, 16])
    with pytest.raises(ConfigError, match=r"network.classes: found 1"):
        Detector(backbone=HRNetV2p(**SLIM), classes=1)


def test_a_classifiers_trunk_becomes_the_backbone(tmp_path: Path) -> None:
    network, classifier = slim("faster_rcnn"), HRNetClassifier(classes=5, **SLIM)
    adopted = network.adopt(classifier.state_dict())
    own = network.state_dict()
    fitting = {key for key in adopted if key in own and adopted[key].shape == own[key].shape}
    trunk = {
        f"model.backbone.{key}"
        for key in HRNetV2p(**SLIM).state_dict()
        if not key.startswith(("fpn", "reduction"))
    }
    assert fitting == trunk


# The score -------------------------------------------------------------------------------------------


class Truth:
    """A data set as the score sees it: two pictures of 100 x 100."""

    image_ids = (5, 8)
    categories: ClassVar = {1: "red", 3: "blue"}
    annotations: ClassVar = [
        [
            {"id": 0, "bbox": [10.0, 10.0, 20.0, 20.0], "category_id": 1, "area": 400.0, "iscrowd": 0},
            {"id": 1, "bbox": [60.0, 60.0, 20.0, 20.0], "category_id": 1, "area": 400.0, "iscrowd": 0},
            {"id": 2, "bbox": [0.0, 50.0, 40.0, 40.0], "category_id": 1, "area": 1600.0, "iscrowd": 1},
        ],
        [],
    ]

    def truth(self, index: int) -> list[dict[str, Any]]:
        return self.annotations[index]

    def size(self, index: int) -> tuple[int, int]:
        return (100, 100)


def answer(*rows: tuple[float, float, float, float, float, int]) -> dict[str, torch.Tensor]:
    table = torch.tensor([row[:5] for row in rows]).reshape(-1, 5)
    return {
        "boxes": table[:, :4],
        "scores": table[:, 4],
        "labels": torch.tensor([row[5] for row in rows]).long(),
    }


def test_average_precision_by_hand() -> None:
    score = DetectionScore()
    score.attach(Truth())
    exact, in_crowd = (10, 10, 30, 30, 0.9, 1), (5, 55, 25, 75, 0.95, 1)
    score.update([0], [answer(exact, in_crowd)])
    found = {name: float(value) for name, value in score.compute().items()}
    # One of two objects, and no error: the crowd's is not counted. Precision 1 up to recall 0.5, which is 51 of 101 places.
    assert found["map"] == found["map50"] == found["map_small"] == pytest.approx(51 / 101)
    assert found["mar100"] == 0.5 and found["map_large"] == -1.0
    assert [row["objects"] for row in score.rows] == [2, 0]
    assert abs(score.rows[0]["ap50"] - 51 / 101) < 1e-9 and score.rows[1]["ap"] is None
    score.update([1], [answer((0, 0, 9, 9, 0.99, 1))])  # where nothing is: half as precise
    assert float(score.compute()["map50"]) == pytest.approx(51 / 101 / 2)
    assert score.coverage() == (2, 2)
    score.update(torch.tensor([]), [])
    assert [each["image_id"] for each in score.results] == [5, 5, 8]


def test_pictures_that_were_not_looked_at_do_not_count() -> None:
    """Both objects of the one picture that was handed over, twice, as a sampler may: 1.0 of 1 of 2 pictures."""
    score = DetectionScore()
    score.attach(Truth())
    right = answer((10, 10, 30, 30, 0.9, 1), (60, 60, 80, 80, 0.9, 1))
    score.update([0], [right])
    score.update([0], [right])
    found = score.compute()
    assert float(found["map"]) == pytest.approx(1.0) and float(found["mar100"]) == 1.0
    assert score.coverage() == (1, 2) and len(score.results) == 2
    assert [row["objects"] for row in score.rows] == [2, 0]


def noisy(data: CocoObjects, seed: int) -> list[dict[str, Any]]:
    """For each picture its objects, moved a little, some lost, some of another class, some invented; with masks."""
    random, answers = np.random.default_rng(seed), []
    for index in range(len(data)):
        rows = []
        for each in data.truth(index):
            x, y, w, h = each["bbox"]
            shift = random.normal(0, 1.5, 2)
            label = int(random.choice([each["category_id"], 1, 3], p=[0.8, 0.1, 0.1]))
            if random.random() < 0.9:
                rows.append(
                    (x + shift[0], y + shift[1], x + w + shift[0], y + h + shift[1], random.random(), label)
                )
        rows.append((3.0, 3.0, 15.5, 20.25, random.random(), 3))
        found: dict[str, Any] = answer(*rows)
        planes = torch.zeros(len(rows), 1, *data.size(index))
        for plane, (left, top, right, bottom) in zip(
            planes, found["boxes"].round().int().tolist(), strict=True
        ):
            plane[0, max(top, 0) : bottom, max(left, 0) : right] = 0.9
        answers.append({**found, "masks": encode_masks(planes)})
    return answers


def by_coco_itself(folder: Path, data: CocoObjects, answers: list[dict[str, Any]], kind: str) -> list[float]:
    """As a user of pycocotools measures a file of results against a file of annotations."""
    results = [
        row for index, found in enumerate(answers) for row in coco_results(found, data.image_ids[index])
    ]
    for row in results if kind == "bbox" else ():  # with masks in the file COCO would take the areas of these
        del row["segmentation"]
    file = folder / "results.json"
    file.write_text(json.dumps(results))
    truth = COCO(str(data.file))
    evaluator = COCOeval(truth, truth.loadRes(str(file)), kind)
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return [float(value) for value in evaluator.stats]


def check_against_coco(data: CocoObjects, folder: Path) -> None:
    answers, score = noisy(data, 1), DetectionScore(masks=True)
    score.attach(data)
    for index in reversed(range(len(data))):  # the order does not matter
        score.update([index], [answers[index]])
    found = {name: float(value) for name, value in score.compute().items()}
    for prefix, kind in (("", "bbox"), ("mask_", "segm")):
        expected = by_coco_itself(folder, data, answers, kind)
        assert 0.02 < expected[0] < 0.95
        np.testing.assert_allclose([found[f"{prefix}{name}"] for name in FIGURES], expected, atol=1e-7)
        curves = score.curves[prefix]
        assert curves[curves > -1].mean() == pytest.approx(expected[0])


def test_the_score_is_that_of_coco_on_its_files(tree: Path, tmp_path: Path) -> None:
    check_against_coco(CocoObjects(root=str(tree), split="train", classes=4), tmp_path)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="needs $DVSN_DATA/coco_sample")
def test_the_score_is_that_of_coco_on_the_sample(tmp_path: Path) -> None:
    file = {"annotations": "test_coco.json", "images": "."}
    check_against_coco(CocoObjects(root=str(SAMPLE), split="val", classes=91, **file), tmp_path)


def test_several_processes_give_the_figures_of_one(tree: Path) -> None:
    data = CocoObjects(root=str(tree), split="train", classes=4)
    answers = noisy(data, 2)
    parts = [DetectionScore(masks=True) for _ in range(3)]
    whole = DetectionScore(masks=True)
    for score in (whole, *parts):
        score.attach(data)
    for index, found in enumerate(answers):
        whole.update([index], [found])
        parts[index % 2].update([index], [found])  # the third has no picture
    merged = DetectionScore(masks=True)
    merged.attach(data)
    merged.update([], [])
    for name in merged._defaults:  # what gathering makes of the states
        setattr(merged, name, torch.cat([torch.cat(getattr(part, name)) for part in parts]))
    expected = whole.compute()
    assert equal(merged.compute(), expected) and float(expected["map"]) > 0
    assert merged.results == whole.results


def measure_a_share(rank: int, tree: Path, folder: Path) -> None:
    """One of three processes; the last has no picture."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3
    )
    data, score = CocoObjects(root=str(tree), split="train", classes=4), DetectionScore(masks=True)
    score.attach(data)
    for index, found in enumerate(noisy(data, 2)):
        if index % 2 == rank:
            score.update([index], [found])
    values = {name: float(value) for name, value in score.compute().items()}
    (folder / f"{rank}.json").write_text(json.dumps([values, score.results]))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_three_processes_gather_what_one_has(tree: Path, tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(measure_a_share, (tree, tmp_path), nprocs=3, start_method="fork")
    data, whole = CocoObjects(root=str(tree), split="train", classes=4), DetectionScore(masks=True)
    whole.attach(data)
    for index, found in enumerate(noisy(data, 2)):
        whole.update([index], [found])
    expected = {name: float(value) for name, value in whole.compute().items()}
    for rank in range(3):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [expected, whole.results]


# A step ----------------------------------------------------------------------------------------------


def make(tree: Path, folder: Path, *more: str) -> tuple[Detection, dict[str, Any]]:
    """A task and a batch of its two first training pictures."""
    config = options_of(tree, folder, *more)
    data, task = runtime.build_data(config), runtime.make_task(config)
    assert isinstance(task, Detection)
    task.ask_data(data)
    items = data.open("train", augment=True)
    return task, items.collate([items[0], items[5]])  # type: ignore[attr-defined]


MASKS = ["network.detector=mask_rcnn"]


@pytest.mark.parametrize("more", [[], MASKS], ids=["boxes", "masks"])
def test_a_step_has_the_terms_of_torchvision(tree: Path, tmp_path: Path, more: list[str]) -> None:
    task, batch = make(tree, tmp_path, *more)
    assert len(batch["target"][1]["boxes"]) == 0  # nothing is in the second picture
    terms = task.train().objective(batch)
    names = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert set(terms) == names | ({"loss_mask"} if more else set())
    torch.stack(list(terms.values())).sum().backward()
    lacking = [name for name, each in task.named_parameters() if each.grad is None]
    assert not lacking and all(bool(torch.isfinite(each.grad).all()) for each in task.parameters())


CASCADE = {f"{name}_{stage}" for name in ("loss_classifier", "loss_box_reg") for stage in (1, 2, 3)}
PROPOSALS = {"loss_objectness", "loss_rpn_box_reg"}
MASKED = {f"loss_mask_{stage}" for stage in (1, 2, 3)}


@pytest.mark.parametrize(
    ("detector", "expected"),
    [
        ("cascade_rcnn", CASCADE | PROPOSALS),
        ("cascade_mask_rcnn", CASCADE | PROPOSALS | MASKED),
        ("htc", CASCADE | PROPOSALS | MASKED),
        ("centernet", {"loss_heatmap", "loss_size", "loss_offset"}),
        ("centernet_triplets", {"loss_corners", "loss_centres", "loss_pull", "loss_push", "loss_offset"}),
        ("gfl", {"loss_quality", "loss_box", "loss_distribution"}),
    ],
)
def test_a_step_of_the_other_detectors(tree: Path, tmp_path: Path, detector: str, expected: set[str]) -> None:
    more = ["network.backbone.first_stride=8"] if detector == "gfl" else []
    task, batch = make(tree, tmp_path, f"network.detector={detector}", "network.detections=3", *more)
    terms = task.train().objective(batch)
    assert set(terms) == expected and all(bool(torch.isfinite(each)) for each in terms.values())
    task.eval()
    with torch.no_grad():
        found = task(batch["image"])
    assert len(found) == 2 and all(
        ("masks" in each) == detector.endswith(("mask_rcnn", "htc")) for each in found
    )


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["centernet", "cascade_rcnn"])
def test_levels_are_taught_to_the_other_detectors(
    tree: Path, trained: Path, tmp_path: Path, detector: str
) -> None:
    """By Faster R-CNN, at each of the five levels."""
    config = options_of(tree, tmp_path, "distill=pkd", f"teacher={trained}", f"network.detector={detector}")
    _, trainer, _ = fit(config)
    found = [float(value) for name, value in trainer.callback_metrics.items() if "pkd" in name]
    assert trainer.global_step == 3 and len(found) == 1 and 0 < found[0] < 100
    with torch.device("meta"):
        assert len(slim(detector).taps) == 5


# Labels of stuff -------------------------------------------------------------------------------------

STUFF = [
    "network.detector=htc",
    "network.semantic_classes=5",
    "data.objects.stuff='stuffthingmaps/{split}2017'",
]


@pytest.fixture(scope="module")
def with_stuff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree with maps of two classes, left and right, for all pictures but one."""
    root = write_coco(tmp_path_factory.mktemp("stuff"))
    for photo in sorted(root.glob("images/*/*.png")):
        plane = np.full((HEIGHT, WIDTH), 4, np.uint8)
        plane[:, : WIDTH // 4], plane[0] = 1, 255
        file = root / "stuffthingmaps" / photo.parent.name / photo.name
        file.parent.mkdir(parents=True, exist_ok=True)
        if photo.stem != "000000000015":
            cv2.imwrite(str(file), plane)
    return root


def test_stuff_goes_from_files_to_the_loss(with_stuff: Path, tmp_path: Path) -> None:
    task, batch = make(with_stuff, tmp_path, *STUFF, "transform.train.flip=1")
    first, second = batch["target"]
    assert "stuff" not in second and second["boxes"].shape == (0, 4)
    assert first["stuff"][5].tolist() == [4] * (3 * WIDTH // 4) + [1] * (
        WIDTH // 4
    )  # mirrored with the picture
    assert first["crowd"].tolist() == [0, 0, 1]
    task.train()
    terms = task.objective(batch)
    assert float(terms["loss_semantic"].detach()) > 0
    del first["stuff"]
    assert float(task.objective(batch)["loss_semantic"].detach()) == 0


def test_stuff_that_does_not_fit_is_refused(with_stuff: Path, tree: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.objects.stuff"):
        make(tree, tmp_path, *STUFF)
    task, batch = make(with_stuff, tmp_path, *STUFF, "network.semantic_classes=4")
    with pytest.raises(DataError, match=r"000000000010.*class 4, expected 0 to 3.*semantic_classes=5"):
        task.check_stuff(batch)
    data = CocoObjects(root=str(with_stuff), split="train", classes=4, stuff="stuffthingmaps/{split}2017")
    data._stuff = {path.stem: path for path in (with_stuff / "images/train2017").glob("*.png")}
    with pytest.raises(DataError, match="000000000010"):
        data.read(0)
    with pytest.raises(ConfigError, match=r"reads no labels of stuff. Set data.objects.stuff"):
        train_until(options_of(with_stuff, tmp_path / "run", *STUFF[:2]))


def test_cityscapes_has_stuff_too(tmp_path: Path) -> None:
    ensure_street(str(tmp_path), seed=0, height=64, width=128, train=1, val=1, test=1)
    data = CityscapesObjects(root=str(tmp_path), split="train", stuff=True)
    labels = data.read(0)["stuff"]
    expected = Cityscapes(root=str(tmp_path), split="train", labels="classes").read(0)["label"]
    assert data.reads_stuff and np.array_equal(labels, expected) and len(np.unique(labels)) > 4
    assert "stuff" not in CityscapesObjects(root=str(tmp_path), split="train").read(0)


def test_crowds_are_not_trained_on(tree: Path, tmp_path: Path) -> None:
    task, batch = make(tree, tmp_path)
    assert batch["target"][0]["crowd"].tolist() == [0, 0, 1]
    torch.manual_seed(0)
    terms = task.objective(batch)
    batch["target"][0] = {key: value[:2] for key, value in batch["target"][0].items()}
    torch.manual_seed(0)
    assert equal(task.objective(batch), terms)


def test_panels_of_different_sizes_stand_on_white(tree: Path, tmp_path: Path) -> None:
    task, batch = make(tree, tmp_path)
    batch["image"][1] = torch.zeros(3, 20, 90, dtype=torch.uint8)
    found = [answer((4, 4, 30, 30, 0.9, 1), (8, 8, 30, 40, 0.2, 3)), answer()]
    panels = task.panels(batch, found)
    assert set(panels) == {"photo", "prediction", "label"}
    assert all(
        tuple(each.shape) == (2, 3, HEIGHT, 90) and each.dtype == torch.uint8 for each in panels.values()
    )
    assert bool((panels["photo"][0, :, :, WIDTH:] == 255).all()) and torch.equal(
        panels["photo"][0, :, :, :WIDTH], batch["image"][0]
    )
    drawn = panels["prediction"][0] != panels["photo"][0]
    assert bool(drawn[:, 4:31, 4].any()) and not bool(drawn[:, 36:42].any())  # 0.2 is below `shown`


# A run -----------------------------------------------------------------------------------------------


def test_a_killed_run_ends_bit_equal(tree: Path, tmp_path: Path) -> None:
    more = ["checkpoint.every_n_steps=1", "network.min_size=[40,48]"]  # sizes are drawn, too
    whole = train_until(options_of(tree, tmp_path / "whole", *more))
    broken = options_of(tree, tmp_path / "broken", *more)
    assert train_until(broken, dies_after=2) is None
    resumed = train_until(broken)
    assert whole is not None and resumed is not None
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert equal(whole[part], resumed[part]), part


def evaluated(checkpoint: Path, output: Path, worst: int | None = None) -> dict[str, float]:
    config = composed(["task=detection", "trainer=cpu", "trainer.enable_progress_bar=false"], output)
    extra = {"checkpoint": str(checkpoint), "split": "val", "output": str(output), "data": None, "metrics": {},
             "save_all": False, "pictures": 2, "root": None, "batch_size": 2, "workers": 0, "worst": worst}  # fmt: skip
    return evaluate({key: node for key, node in config.items() if key != "task"} | extra)


def test_evaluation_writes_a_table_and_what_coco_reads(trained: Path, tree: Path, tmp_path: Path) -> None:
    values = evaluated(trained, tmp_path, worst=1)
    assert set(values) == set(FIGURES)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert [row["class"] for row in written["details"]["classes"]] == ["red", "blue"]
    assert written["samples"] == 3 and (tmp_path / "grid.png").is_file()
    truth = COCO(str(tree / "annotations" / "instances_val2017.json"))
    file = tmp_path / "detections.json"
    evaluator = COCOeval(truth, truth.loadRes(str(file)), "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    np.testing.assert_allclose([values[name] for name in FIGURES], evaluator.stats, atol=1e-6)
    found = read_analysis(tmp_path / "analysis.json")
    assert (found.score, found.classes, len(found.pictures)) == ("f1", ("red", "blue"), 3)
    assert len(list((tmp_path / "worst").iterdir())) == len(list((tmp_path / "best").iterdir())) == 1
    assert [row["class"] for row in found.tables["classes"]] == ["red", "blue"]
    objects = sum(not each["iscrowd"] for each in truth.dataset["annotations"])
    assert sum(sum(row) for row in found.matrices[0].counts[:2]) == objects


def test_the_checkpoint_knows_the_names(trained: Path, tree: Path) -> None:
    task = dvsn.load(trained)
    assert isinstance(task, Detection) and task.vocabulary.names == ("class 0", "red", "class 2", "blue")
    picture = torch.from_numpy(cv2.imread(str(next((tree / "images" / "val2017").glob("*.png"))))).permute(
        2, 0, 1
    )
    with torch.no_grad():
        (found,) = task([picture])
        (shipped,) = task.deployable()(picture[None])
    assert equal(dict(found), dict(shipped)) and set(found) == {"boxes", "labels", "scores"}
    adapted = task.adapt_data({"objects": {"names": None}, "transform": {"train": [], "eval": []}})
    assert adapted["transform"]["eval"]["_target_"].endswith(".DetectionTransform")
    assert adapted["objects"]["names"] == {1: "red", 3: "blue"}


def test_prediction_draws_and_writes_results_that_coco_reads(
    trained: Path, tree: Path, tmp_path: Path
) -> None:
    shown = COMMAND.parse(
        [str(trained), str(tree / "images" / "val2017"), f"output={tmp_path}", "score=0.02", "batch_size=2"]
    )
    files = predict.predict(shown)
    assert sorted(file.name for file in files) == ["000000000010.png", "000000000011.png", "000000000012.png",
                                                   "detections.json"]  # fmt: skip
    assert cv2.imread(str(files[0])).shape == (HEIGHT, WIDTH, 3)
    results = json.loads(files[-1].read_text())
    assert results and all(each["score"] >= 0.02 for each in results)
    truth = COCO(str(tree / "annotations" / "instances_val2017.json"))
    assert len(truth.loadRes(str(files[-1])).anns) == len(results)


def test_prediction_refuses_options_of_other_tasks(trained: Path, tree: Path, tmp_path: Path) -> None:
    given = COMMAND.parse([str(trained), str(tree / "images"), f"output={tmp_path}", "nms=0.5"])
    with pytest.raises(ConfigError, match=r"nms: the task 'detection' has no such option"):
        predict.predict(given)


def test_masks_are_drawn_measured_and_written(tree: Path, tmp_path: Path) -> None:
    task, batch = make(tree, tmp_path, *MASKS, "network.score_threshold=0.0", "network.detections=4")
    task.eval()
    task.data_recipe = {**task.data_recipe}
    with torch.no_grad():
        found = task(batch["image"])
    assert [len(each["masks"]) for each in found] == [4, 4]
    assert rle.decode(found[0]["masks"][0]).shape == (HEIGHT, WIDTH)
    score = task.score
    score.attach(CocoObjects(root=str(tree), split="train", classes=4))
    score.update(torch.tensor([0, 5]), found)
    values = score.compute()
    assert {"map", "mask_map", "mask_mar100"} <= set(values) and len(score.results) == 8
    assert json.loads(json.dumps(score.results)) == score.results
    assert rle.area(score.results[0]["segmentation"]) >= 0
    task.panels(batch, found)


def test_the_score_needs_no_room_in_the_checkpoint(trained: Path) -> None:
    state = AtomicCheckpointIO().load_checkpoint(trained)["state_dict"]
    assert all(key.startswith("network.model.") for key in state)
