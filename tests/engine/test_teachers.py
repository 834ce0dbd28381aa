"""A teacher teaches what it is measured by: value range, statistics, dropout, size and views; and whom it may teach."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.distill.taps import first_tensor
from dvsn.engine import teachers
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError
from dvsn.losses.translation import TranslationLoss
from dvsn.tasks.pix2pix import Pix2Pix
from tests.support.distill_stubs import Hint, Soft, distilled, node, prepare, save_teacher
from tests.support.tiny import (
    TINY,
    TINY_DETECTION,
    TINY_POSE,
    TINY_SEGMENTATION,
    composed,
    write_blobs,
    write_pairs,
    write_people,
    write_scenes,
)

pytestmark = pytest.mark.usefixtures("stubs")


def translator(network: nn.Module, **options: Any) -> Pix2Pix:
    optim = functools.partial(torch.optim.SGD, lr=0.1)
    return Pix2Pix(network=network, discriminator=None, loss=TranslationLoss(), optim=optim, **options).eval()


# Value range ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "mine", "expected"),
    [
        ("unit", "signed", [-1.0, -1.0, 0.0, 1.0]),  # what lies below 0 is measured as 0
        ("signed", "unit", [0.35, 0.5, 0.75, 1.0]),
        ("unit", "unit", [0.0, 0.0, 0.5, 1.0]),
        ("signed", "signed", [-0.3, 0.0, 0.5, 1.0]),
    ],
)
def test_a_picture_comes_into_the_students_range(theirs: Any, mine: Any, expected: list[float]) -> None:
    """The teacher's raw answers -0.3, 0, 0.5 and 1, by hand."""
    student, teacher = (
        translator(nn.Identity(), value_range=mine),
        translator(nn.Identity(), value_range=theirs),
    )
    answer = torch.tensor([-0.3, 0.0, 0.5, 1.0]).view(1, 1, 2, 2)
    translate = student.translate_from(teacher)
    taught = answer if translate is None else translate(answer, {})
    torch.testing.assert_close(taught.flatten(), torch.tensor(expected))


def test_black_is_taught_as_black(tmp_path: Path) -> None:
    """A run whose teacher answers in [0, 1] and whose student in [-1, 1]: the range of what the method is handed."""
    root = write_pairs(tmp_path / "pairs")
    config = composed([*TINY, f"data.root={root}", "task.value_range=unit"], tmp_path)
    teacher = save_teacher(config, tmp_path / "unit.ckpt")
    student = composed([*TINY, f"data.root={root}"], tmp_path)
    task, data = prepare(student | {"teacher": str(teacher), "distill": {"soft": node(Soft)}})
    task.distiller.begin("cpu")
    image = torch.stack([data.datasets["train"][number]["image"] for number in range(2)])
    taught, _ = task.distiller.ask(image, {"image": image})
    (each,) = task.distiller.teachers
    torch.testing.assert_close(taught, each.holder(image) * 2 - 1)
    assert taught.min() < -0.5


# Statistics and dropout -------------------------------------------------------------------------------------------


def test_it_teaches_by_the_statistics_that_it_is_tested_with() -> None:
    network = nn.BatchNorm2d(3)
    network.running_mean.fill_(9.0)  # type: ignore[union-attr]
    image = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    x = image.double() / 127.5 - 1
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
    batch, running = translator(network, test_norm="batch"), translator(network, test_norm="running")
    torch.testing.assert_close(batch.teach(image).double(), (x - mean) / (variance + 1e-5).sqrt())
    torch.testing.assert_close(running.teach(image).double(), (x - 9) / (1 + 1e-5) ** 0.5)
    assert network.running_mean.tolist() == [9.0] * 3 and not network.training  # type: ignore[union-attr]
    assert torch.equal(batch(image), ((batch.teach(image) + 1) / 2).clamp(0, 1))


def test_it_teaches_with_the_dropout_that_it_is_tested_with() -> None:
    image = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    for dropout, expected in ((True, {0.0, 2.0}), (False, {1.0})):
        task = translator(nn.Sequential(nn.Dropout(0.5)), test_dropout=dropout)
        assert set(task.teach(image).unique().tolist()) == expected
        assert task.answers_alone is not dropout


def test_what_of_a_teacher_depends_on_its_batch() -> None:
    norm = nn.BatchNorm2d(3)
    assert translator(norm).answers_alone and not translator(norm, test_norm="batch").answers_alone
    assert translator(nn.InstanceNorm2d(3), test_norm="batch").answers_alone
    assert translator(nn.Dropout(0.0), test_dropout=True).answers_alone


def test_it_teaches_points_maps_and_pictures_in_float32() -> None:
    """Where a student trains in bfloat16: what is taught is what is measured, bit for bit."""
    torch.manual_seed(0)
    image = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    painter = translator(nn.Conv2d(3, 3, 1))
    taught = painter.teach(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(painter.teach(image), taught) and not torch.equal(
            painter.network(taught).float(), taught
        )
        assert torch.equal(painter(image), ((taught + 1) / 2).clamp(0, 1))


@torch.no_grad()
def test_it_teaches_keypoints_in_float32(tmp_path: Path) -> None:
    for options, sides in (
        (TINY_POSE, (64, 48)),
        (["task=landmarks", "network=pfld_025", "data=faces68"], (112, 112)),
    ):
        task = made(options, tmp_path)
        image = torch.randint(0, 256, (1, 3, *sides), dtype=torch.uint8)
        plain = first_tensor(task.teach(image))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(first_tensor(task.teach(image)), plain)


def test_batches_of_another_size_are_told(caplog: pytest.LogCaptureFixture) -> None:
    norm = translator(nn.BatchNorm2d(3), test_norm="batch")
    for batches, told in (((4, 1), True), ((4, 4), False)):
        caplog.clear()
        teachers._warn_of_batches(norm, SimpleNamespace(batch_size=batches[0], eval_batch_size=batches[1]))  # type: ignore[arg-type]
        assert ("Set data.eval_batch_size=4" in caplog.text) is told
    teachers._warn_of_batches(translator(nn.BatchNorm2d(3)), SimpleNamespace(batch_size=4, eval_batch_size=1))  # type: ignore[arg-type]


# The score is that of what is taught ------------------------------------------------------------------------------


def made(overrides: list[str], folder: Path, *more: str) -> Any:
    torch.manual_seed(3)
    return runtime.make_task(composed([*overrides, *more], folder)).eval()


@torch.no_grad()
def test_a_classifier_is_measured_at_the_size_that_it_teaches(tmp_path: Path) -> None:
    task = made(["task=classification", "network=resnet8", "data.classes=3"], tmp_path)
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    plain, task.teaching_size = task(image), (16, 16)
    assert torch.equal(task(image), plain)
    task.evaluate_as_taught(task)
    seen = F.interpolate(task.normalise(image), size=(16, 16), mode="bilinear", antialias=True)
    assert torch.equal(task(image), task.network(seen)) and not torch.equal(task(image), plain)


@torch.no_grad()
def test_a_segmenter_is_measured_at_its_size_and_by_one_view(tmp_path: Path) -> None:
    views = ["task.inference.flip=true", "task.inference.scales=[0.5,1.0]"]
    task = made(TINY_SEGMENTATION, tmp_path, *views)
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    task.teaching_size = (32, 32)
    task.evaluate_as_taught(task)
    logits = task.teach(image).logits
    assert logits.shape[-1] == 4
    wide = F.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=task.align_corners)
    assert torch.equal(task(image), wide.argmax(1).to(torch.uint8))


@torch.no_grad()
def test_a_pose_network_is_measured_without_its_mirrored_view(tmp_path: Path) -> None:
    task = made(TINY_POSE, tmp_path)
    image = torch.randint(0, 256, (2, 3, *task.codec.size), dtype=torch.uint8)
    assert task.flip_test
    task.evaluate_as_taught(task)
    points, _ = task.codec.decode(task.teach(image).float())
    assert torch.equal(task(image)[..., :2], points)


@torch.no_grad()
def test_a_translator_is_measured_at_its_size() -> None:
    task = translator(nn.Identity())
    image = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    task.teaching_size = (4, 4)
    torch.testing.assert_close(task(image), image / 255)
    task.evaluate_as_taught(task)
    small = F.interpolate(image / 255, size=(4, 4), mode="bilinear", antialias=True)
    torch.testing.assert_close(
        task(image), F.interpolate(small, size=(8, 8), mode="bilinear", antialias=True)
    )


def test_a_detector_is_measured_at_the_sizes_of_its_student(tmp_path: Path) -> None:
    teacher = made(TINY_DETECTION, tmp_path, "network.min_size=96", "network.max_size=128")
    student = made(TINY_DETECTION, tmp_path, "network.min_size=64", "network.max_size=80")
    teacher.evaluate_as_taught(student)
    transform = teacher.network.model.transform
    assert (tuple(transform.min_size), transform.max_size) == ((64,), 80)


@torch.no_grad()
def test_a_run_measures_what_is_taught(tmp_path: Path) -> None:
    """The score by hand: the classes of the answers that the student is given, against the labels."""
    root = write_blobs(tmp_path / "blobs", train=4, val=8)
    teacher = save_teacher(distilled(root, tmp_path, None, {}, "network=resnet14"), tmp_path / "teacher.ckpt")
    config = distilled(root, tmp_path, str(teacher), {"soft": node(Soft)}, "distillation.size=[12,12]")
    task, data = prepare(config)
    items = [data.datasets["val"][number] for number in range(len(data.datasets["val"]))]
    images, labels = (
        torch.stack([item["image"] for item in items]),
        torch.tensor([item["target"] for item in items]),
    )
    (each,) = task.distiller.teachers
    each.network.fc.bias -= each.ask(images).mean(0)  # so that it guesses each class at this size
    taught, whole = ((ask(images).argmax(1) == labels).double().mean() for ask in (each.ask, each.holder))
    assert len(set(each.ask(images).argmax(1).tolist())) > 1 and taught != whole
    assert config["monitor"]["name"] == "val/top1"
    assert teachers.measure(task, config) == pytest.approx(float(taught))


# Whom it may teach ------------------------------------------------------------------------------------------------


def test_methods_of_features_take_a_teacher_of_other_classes(tmp_path: Path) -> None:
    root = write_blobs(tmp_path / "blobs", train=4)
    four = save_teacher(distilled(root, tmp_path, None, {}, "data.classes=4"), tmp_path / "four.ckpt")
    hint = {"hint": node(Hint, taps="stages")}
    config = distilled(root, tmp_path, str(four), hint)
    task, _ = prepare(config)
    assert teachers.measure(task, config) is None  # its classes are not those of the data
    with pytest.raises(ConfigError, match=r"answers with 4, the student with 3; .*such as distill=at"):
        prepare(distilled(root, tmp_path, str(four), {**hint, "soft": node(Soft)}))


@pytest.mark.parametrize("method", ["ifvd", "cirkd", "at"])
def test_segmenters_learn_features_from_other_classes(method: str, tmp_path: Path) -> None:
    import yaml

    from dvsn.config.menu import conf_dir

    root = write_scenes(tmp_path / "scenes")
    other = ["data.classes=2", "data.dataset.names=[thing,rest]", "data.dataset.id_map={0:0,1:0,2:1}"]
    usual = [*TINY_SEGMENTATION, f"data.root={root}"]
    teacher = save_teacher(composed([*usual, *other], tmp_path), tmp_path / "two.ckpt")
    methods = yaml.safe_load(Path(conf_dir(), "distill", f"{method}.yaml").read_text(encoding="utf-8"))
    methods[method]["method"] |= {"memory": 8} if method == "cirkd" else {}
    task, data = prepare(composed(usual, tmp_path) | {"teacher": str(teacher), "distill": methods})
    task.distiller.begin("cpu")
    loader = torch.utils.data.DataLoader(data.datasets["train"], batch_size=2)
    terms = task.train().learn(next(iter(loader)))
    assert any(name.startswith(method) for name in terms)
    assert all(bool(torch.isfinite(term)) for term in terms.values())


def test_srrl_reads_the_teachers_classes_alone(tmp_path: Path) -> None:
    """The teacher's classifier on both features: a student of other classes learns from it."""
    from dvsn.distill.method import Side, View
    from dvsn.distill.srrl import SoftmaxRegression

    head = nn.Linear(6, 4)
    student, teacher = Side("classes", (3,), ((5,),)), Side("classes", (4,), ((6,),), head=head)
    method = SoftmaxRegression(student=student, teacher=teacher).eval()
    mine, theirs = torch.randn(2, 5), torch.randn(2, 6)
    terms = method(View(torch.randn(2, 3), (mine,)), View(torch.randn(2, 4), (theirs,)), {})
    projected: Tensor = method.connector(mine[:, :, None, None])[:, :, 0, 0]
    torch.testing.assert_close(terms["srrl_answers"], F.mse_loss(head(projected), head(theirs)))


def test_keypoints_of_a_teacher_may_be_others_for_methods_of_features(tmp_path: Path) -> None:
    """A teacher of other keypoints: compared maps are refused, features are not."""
    root = write_people(tmp_path / "people")
    other = ["data.joints=3", "data.keypoints.names=[nose,left_hand,right_hand]", "data.keypoints.skeleton=[]",
             "data.people.extra_columns=true"]  # fmt: skip
    teacher = save_teacher(
        composed([*TINY_POSE, *other, f"data.root={root}"], tmp_path), tmp_path / "three.ckpt"
    )
    config = composed([*TINY_POSE, f"data.root={root}"], tmp_path) | {"teacher": str(teacher)}
    task, _ = prepare(config | {"distill": {"hint": node(Hint, taps="last")}})
    assert teachers.measure(task, config) is None
    with pytest.raises(ConfigError, match="expected as many keypoints"):
        prepare(config | {"distill": {"soft": node(Soft)}})


@pytest.mark.parametrize(
    ("option", "kept"), [("task.test_norm=batch", False), ("task.test_norm=running", True)]
)
def test_answers_of_a_batch_are_not_kept(option: str, kept: bool, tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "pairs")
    usual = [*TINY, "network.norm=batch", f"data.root={root}"]
    teacher = save_teacher(composed([*usual, option], tmp_path), tmp_path / "teacher.ckpt")
    config = composed([*usual, f"distillation.cache={tmp_path / 'answers'}"], tmp_path)
    config |= {"teacher": str(teacher), "distill": {"soft": node(Soft)}}
    if kept:
        assert prepare(config)[0].distiller.cache is not None
    else:
        with pytest.raises(ConfigError, match=r"distillation\.cache: .* statistics of a batch"):
            prepare(config)
