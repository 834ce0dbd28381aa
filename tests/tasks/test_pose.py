"""The pose task from table to scores: objective, mirror, learning, resume, evaluation, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dvsn
from dvsn.analysis.record import read as read_analysis
from dvsn.codecs.heatmaps import HeatmapCodec
from dvsn.data.people import JoinedPeople
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError, DataError
from dvsn.evaluate import evaluate
from dvsn.losses.heatmaps import JointMSE
from dvsn.metrics.keypoint_ap import KeypointAP
from dvsn.tasks.keypoints import KeypointTask, to_picture
from dvsn.tasks.normalise import Normalise
from dvsn.tasks.pose import Pose, PoseEstimator
from tests.support.resuming import equal
from tests.support.resuming import run as train_until
from tests.support.tiny import TINY_POSE, composed, write_people


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, people: Path) -> Path:
    """The checkpoint of a run that has seen each kite thirty times."""
    folder = tmp_path_factory.mktemp("run")
    options = [f"data.root={people}", "trainer.max_epochs=30", "optim.lr=0.01", "transform.train.rotation=0"]
    assert train_until(composed([*TINY_POSE, *options], folder)) is not None
    return folder / "checkpoints" / "last.ckpt"


def test_scores_by_keypoint_unless_they_cost_a_second_evaluation() -> None:
    rows = [{"keypoint": "nose", "labelled": 2, "pck": 0.5}]
    task: Any = SimpleNamespace(score=SimpleNamespace(table=lambda: rows))
    assert KeypointTask.by_class(task) == rows
    task.score = KeypointAP.__new__(KeypointAP)
    assert KeypointTask.by_class(task) == []


class Painter(nn.Module):
    """Answers every crop with the heatmaps it was given; mirrored crops get others."""

    taps, multiple, stride = (), 4, 4

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = nn.Parameter(maps)
        self.calls: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        self.calls.append(image.detach().clone())
        return self.maps.expand(len(image), -1, -1, -1)


def painter(maps: Tensor, **options: Any) -> Pose:
    codec = HeatmapCodec(size=[64, 64], refine="none")
    task = Pose(network=Painter(maps), codec=codec, loss=JointMSE(), optim=torch.optim.SGD, **options)
    node = composed(TINY_POSE, Path("runs/test"))["data"]
    task.data_recipe = node
    return task


# Losses --------------------------------------------------------------------------------------------------


def test_the_loss_by_hand() -> None:
    """The weight stands inside the square; joints that weigh nothing count in the mean."""
    maps, target = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    maps[0, 0, 0, 0], maps[0, 1, 1, 1] = 2.0, 3.0
    terms = JointMSE()(maps, target, torch.tensor([[0.5, 0.0]]))
    assert list(terms) == ["heatmaps"] and float(terms["heatmaps"]) == 0.5 * (0.5 * 2) ** 2 / 8
    terms = JointMSE(joint_weights=[1.0, 2.0])(maps, target, torch.ones(1, 2))
    assert float(terms["heatmaps"]) == pytest.approx(0.5 * (4 + 36) / 8)


def test_only_the_hardest_keypoints_count() -> None:
    maps = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]])[..., None, None].expand(2, 3, 4, 4)
    terms = JointMSE(hardest=2)(maps, torch.zeros(2, 3, 4, 4), torch.ones(2, 3))
    assert float(terms["heatmaps"]) == pytest.approx(0.5 * (9 + 4 + 25 + 1) / 4)


def test_a_network_of_other_keypoints_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"network\.joints"):
        JointMSE()(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, 4), torch.ones(1, 4))


# The task ------------------------------------------------------------------------------------------------


def test_the_objective_is_the_loss_of_encoded_keypoints() -> None:
    task = painter(torch.randn(1, 4, 16, 16))
    batch = {"keypoints": torch.rand(2, 4, 2) * 60, "weight": torch.tensor([[1.0, 1, 0, 1], [0, 0, 0, 0]])}
    output = task.network(torch.zeros(2, 3, 64, 64))
    target, weight = task.codec.encode(batch["keypoints"], batch["weight"])
    expected = (0.5 * (weight[..., None, None] * (output - target)) ** 2).mean()
    terms = task.objective(output, batch)
    torch.testing.assert_close(terms["heatmaps"], expected)
    terms["heatmaps"].backward()
    assert bool(torch.isfinite(task.network.maps.grad).all())  # type: ignore[union-attr]


def test_bgr_turns_the_channels_and_not_the_means() -> None:
    image = torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1)
    found = Normalise(mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0), channels="bgr")(image)
    np.testing.assert_allclose(found.flatten(), [30 / 255 - 0.1, 20 / 255 - 0.2, 10 / 255 - 0.3], rtol=1e-5)
    with pytest.raises(ConfigError, match="rgb or bgr"):
        Normalise(channels="rbg")  # type: ignore[arg-type]


def test_the_mirror_is_asked_and_joined() -> None:
    maps = torch.zeros(1, 4, 16, 16)
    maps[0, 0, 5, 7] = maps[0, 3, 9, 7] = maps[0, 1, 7, 3] = maps[0, 2, 7, 12] = 1.0
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    task = painter(maps)
    points, confidence = task.estimate(image)
    assert len(task.network.calls) == 2
    torch.testing.assert_close(task.network.calls[1], task.network.calls[0].flip(-1))
    # left hand at column 3: the mirrored right hand (12) goes back to 15 - 12 = 3, then right by one
    assert points[0, 1].tolist() == [12.0, 28.0] and confidence[0, 1] == 0.5
    assert points[0, 0].tolist() == [28.0, 20.0]
    alone = painter(maps, flip_test=False)
    assert alone.estimate(image)[1].tolist() == [[1.0] * 4] and len(alone.network.calls) == 1


def test_points_return_to_the_picture() -> None:
    inverse = torch.tensor([[[2.0, 0, 5], [0, 3, 7]]])
    assert to_picture(torch.tensor([[[1.0, 1.0]]]), inverse).tolist() == [[[7.0, 10.0]]]


def test_what_is_shipped_equals_the_task_without_its_mirror(trained: Path) -> None:
    task: Any = dvsn.load(trained)
    task.flip_test = False
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    shipped = task.deployable()
    assert isinstance(shipped, PoseEstimator) and not shipped.training
    torch.testing.assert_close(shipped(image), task.eval()(image))
    shipped.answer = "heatmaps"
    assert shipped(image).shape == (2, 4, 16, 16)


def test_it_learns(trained: Path, people: Path, tmp_path: Path) -> None:
    values = evaluate(evaluation(trained, tmp_path, "worst=2", f"teacher={trained}"))
    assert values["pck"] > 0.8, values
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "scored" not in metrics["details"]  # all of it
    assert [row["keypoint"] for row in metrics["details"]["keypoints"]] == [
        "nose",
        "left_hand",
        "right_hand",
        "tail",
    ]
    assert [row["labelled"] for row in metrics["details"]["keypoints"]] == [4, 4, 4, 3]
    found = read_analysis(tmp_path / "analysis.json")
    rows = found.tables["error by keypoint"]
    assert sum(float(row["measured"]) * float(row["right"]) for row in rows) == pytest.approx(
        15 * values["pck"]
    )
    assert found.score == "error" and len(found.pictures) == 4
    assert all(each.values["teacher"] == pytest.approx(each.score) for each in found.pictures)  # itself
    assert found.tables["student and teacher"][-1]["apart"] == pytest.approx(0, abs=1e-6)
    assert len(list((tmp_path / "worst").glob("*.jpg"))) == 2


def test_a_limited_test_says_of_how_many_it_speaks(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Three of the four people, each as well met as in the whole test: the fourth does not count as missed."""
    caplog.set_level("WARNING", logger="dvsn")
    values = evaluate(evaluation(trained, tmp_path, "trainer.limit_test_batches=1", "batch_size=3"))
    assert values["pck"] > 0.8
    details = json.loads((tmp_path / "metrics.json").read_text())["details"]
    assert details["scored"] == [{"scored": "3 of 4 people"}]
    assert max(row["labelled"] for row in details["keypoints"]) == 3
    assert "test: scored on 3 of 4 people" in caplog.text and "limit_test_batches" in caplog.text


def evaluation(checkpoint: Path, output: Path, *overrides: str) -> dict[str, Any]:
    from hydra import compose
    from omegaconf import OmegaConf

    from dvsn.config.compose import initialized
    from dvsn.config.menu import conf_dir

    with initialized(conf_dir()):
        options = [
            f"checkpoint={checkpoint}",
            f"output={output}",
            "trainer=cpu",
            "trainer.enable_progress_bar=false",
        ]
        config = compose("evaluate", overrides=[*options, *overrides])
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return plain


def test_another_data_set_is_cut_as_the_network_wants(trained: Path, people: Path, tmp_path: Path) -> None:
    """`data=` of the command line, here the same people by their own boxes, gets the checkpoint's crops."""
    kept = [each for each in TINY_POSE if each.startswith("data")]
    usual = evaluate(evaluation(trained, tmp_path / "a"))
    again = evaluate(evaluation(trained, tmp_path / "b", *kept, f"data.root={people}"))
    assert again == usual
    boxes = evaluate(
        evaluation(
            trained,
            tmp_path / "c",
            *kept,
            f"data.root={people}",
            "data.people.box=keypoints",
            "data.facts.padding=1.6",
        )
    )
    assert boxes["pck"] > 0.2


def test_a_checkpoint_without_names_says_so() -> None:
    task = painter(torch.zeros(1, 4, 16, 16))
    task.data_recipe = {}
    with pytest.raises(ConfigError, match="such as data=coco"):
        task.estimate(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


@pytest.mark.parametrize("variant", ["plain", "dark"])
def test_killed_twice_ends_bit_equal(people: Path, tmp_path: Path, variant: str) -> None:
    options = [*TINY_POSE, f"data.root={people}", "trainer.max_epochs=3", "checkpoint.every_n_steps=1"]
    options += ["codec=dark", "ema=0.9"] if variant == "dark" else []
    whole = train_until(composed(options, tmp_path / "whole"))
    killed = composed(options, tmp_path / "killed")
    assert train_until(killed, dies_after=2) is None
    assert train_until(killed, dies_after=4) is None
    resumed = train_until(killed)
    assert whole is not None and resumed is not None
    assert equal(whole["state_dict"], resumed["state_dict"])
    assert equal(whole["optimizer_states"], resumed["optimizer_states"])
    assert whole["global_step"] == resumed["global_step"] == 9


def test_joined_splits(people: Path, tmp_path: Path) -> None:
    node = composed([*TINY_POSE, f"data.root={people}", "data.splits.train=train+val"], tmp_path)
    data = runtime.build_data(node)
    data.use("people")
    joined = data.open("train", augment=True)
    assert isinstance(joined, JoinedPeople) and len(joined) == len(joined.records) == 16
    assert joined[13]["name"].startswith("val1")


# Refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (["data.joints=5"], "data.joints"),
        (["transform.size=[60,64]"], "divide by 32"),
        (["network.joints=5"], r"network\.joints"),
    ],
)
def test_configs_that_do_not_fit(people: Path, tmp_path: Path, overrides: list[str], word: str) -> None:
    config = composed([*TINY_POSE, f"data.root={people}", *overrides, "trainer.max_steps=1"], tmp_path)
    with pytest.raises(ConfigError, match=word):
        train_until(config)


def test_a_transform_of_pictures_is_refused(people: Path, tmp_path: Path) -> None:
    options = [each for each in TINY_POSE if not each.startswith("transform.")]
    options += [f"data.root={people}", "transform=resize_256", "codec.size=[64,64]"]
    data = runtime.build_data(composed(options, tmp_path))
    data.use("people")
    with pytest.raises(ConfigError, match=r"transform=\.\.\., such as pose"):
        data.open("train")


def test_other_tasks_data_is_refused(people: Path, tmp_path: Path) -> None:
    data = runtime.build_data(composed(["task=pix2pix", "data=folders"], tmp_path))
    with pytest.raises(ConfigError, match="has no keypoints"):
        data.use("people")
    data = runtime.build_data(composed([*TINY_POSE], tmp_path))
    with pytest.raises(ConfigError, match="has no boxes"):
        data.use("objects")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (("nose_x", "nase_x"), "no column 'nose_x'"),
        ((",1,", ",3,"), r"line 2.*_v is 3"),
        (("train0.png", "train99.png"), r"train99\.png: no such picture"),
        (("80,80", "0,80"), "width and height"),
    ],
)
def test_tables_with_faults(tmp_path: Path, change: tuple[str, str], word: str) -> None:
    root = write_people(tmp_path, train=3, val=1)
    table = root / "train.csv"
    table.write_text(table.read_text().replace(*change, 1), encoding="utf-8")
    data = runtime.build_data(composed([*TINY_POSE, f"data.root={root}"], tmp_path))
    data.use("people")
    with pytest.raises(DataError, match=word):
        data.open("train")


def test_further_columns_are_a_mistake_unless_said(people: Path, tmp_path: Path) -> None:
    names = [
        "data.keypoints.names=[nose,left_hand,right_hand]",
        "data.keypoints.skeleton=[]",
        "data.joints=3",
    ]
    options = [*TINY_POSE, *names, f"data.root={people}"]
    data = runtime.build_data(composed(options, tmp_path))
    data.use("people")
    with pytest.raises(DataError, match="extra_columns"):
        data.open("val")
    data = runtime.build_data(composed([*options, "data.people.extra_columns=true"], tmp_path))
    data.use("people")
    assert len(data.open("val")) == 4
