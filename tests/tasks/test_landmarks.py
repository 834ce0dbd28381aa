"""The landmark task on a batch of its own, and head angles: the published face, mirrors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dvsn
from dvsn.config.compose import hydra_main
from dvsn.data.street import write_wflw
from dvsn.engine import teaching
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError
from dvsn.geometry.head_angles import head_angles
from dvsn.losses.landmarks import L1
from dvsn.metrics.angles import AngleError
from dvsn.tasks.keypoints import to_picture
from dvsn.tasks.landmarks import HeatmapLandmarks, LandmarkEstimator, Landmarks
from tests.support.resuming import equal
from tests.support.resuming import run as train_until
from tests.support.tiny import composed

HEAD_98 = (33, 38, 50, 46, 60, 64, 68, 72, 55, 59, 76, 82, 85, 16)
SAMPLE = Path(os.environ.get("DVSN_DATA", "data"), "wflw_sample", "list_98pt_sample.txt")


@pytest.fixture(scope="module")
def task() -> Any:
    torch.set_num_threads(1)
    config = composed(["task=landmarks", "data=faces68", "network=pfld_025", "loss=wing"], Path("runs/test"))
    made = runtime.make_task(config)
    assert isinstance(made, Landmarks)
    return made.eval()


def test_the_objective_is_the_loss_on_fractions_of_the_crop(task: Any) -> None:
    output = task.network(torch.rand(2, 3, 112, 112))
    batch = {"keypoints": 112 * torch.rand(2, 68, 2), "weight": torch.ones(2, 68)}
    task.loss, kept = L1(size=112.0), task.loss
    expected = (112 * output.points - batch["keypoints"]).abs().sum((1, 2)).mean()
    torch.testing.assert_close(task.objective(output, batch)["points"], expected)
    task.loss = kept


def test_the_mirrored_face_is_averaged_and_what_is_shipped_is_not(task: Any) -> None:
    image = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8)
    with torch.no_grad():
        plain = task(image)[..., :2]
        task.flip_test = True
        both = task(image)[..., :2]
        mirrored = task(image.flip(-1))[..., :2][:, task.keypoints.mirror]
        task.flip_test = False
    torch.testing.assert_close(both[..., 0], 111 - mirrored[..., 0], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(both[..., 1], mirrored[..., 1], atol=1e-3, rtol=1e-4)
    shipped = task.deployable()
    assert isinstance(shipped, LandmarkEstimator)
    torch.testing.assert_close(shipped(image), plain)


@pytest.mark.skipif(not SAMPLE.is_file(), reason="DVSN_DATA has no wflw_sample")
def test_angles_of_the_published_face_and_of_its_mirror(task: Any) -> None:
    """The sheet's worked example, in degrees, and the mirror's signs."""
    found = []
    for line in SAMPLE.read_text().splitlines():
        points = np.array([float(v) for v in line.split()[:196]]).reshape(98, 2)
        low, high = np.floor(points.min(axis=0)), np.floor(points.max(axis=0))
        sides = high - low + 1
        side = int(1.2 * sides.max())
        corner = np.trunc(low + sides / 2) - side // 2
        fractions = (points - corner) / side
        angles = head_angles(fractions, head=HEAD_98)
        assert angles is not None
        found.append(np.rad2deg(angles))
    assert min(np.abs(each - (3.05, 3.86, -2.17)).max() for each in found) < 0.05


def test_a_face_without_one_of_the_points_has_no_angles() -> None:
    points = np.random.default_rng(0).random((68, 2))
    labelled = np.ones(68)
    labelled[8] = 0
    assert head_angles(points, labelled, head=range(14)) is None


# The error of angles ------------------------------------------------------------------------------------------


def test_angle_errors_by_hand() -> None:
    """10 and 20 degrees of pitch are 15; around the circle 350 degrees are 10; a face that is not known does not count."""
    metric = AngleError()
    truth = torch.deg2rad(torch.tensor([[0.0, 5.0, 175.0], [10.0, 5.0, 0.0], [torch.nan] * 3]))
    found = torch.deg2rad(torch.tensor([[10.0, 5.0, -175.0], [-10.0, 8.0, 0.0], [90.0, 90.0, 90.0]]))
    metric.update(found[:1], truth[:1])
    metric.update(found[1:], truth[1:])
    expected = {"pitch": 15.0, "yaw": 1.5, "roll": 5.0, "angle": (15 + 1.5 + 5) / 3}
    values = metric.compute()
    assert {name: values[f"{name}_error_degrees"].item() for name in expected} == pytest.approx(
        expected, abs=1e-4
    )


@pytest.mark.parametrize("flip", [False, True])
def test_evaluation_measures_the_angles_of_the_auxiliary_net(task: Any, flip: bool) -> None:
    """Of the crop, or of it and its mirror: there yaw and roll have the other sign."""
    task.use_metrics()
    task.flip_test = flip
    image = torch.randint(0, 256, (3, 3, 112, 112), dtype=torch.uint8)
    truth = torch.rand(3, 3)
    batch = {
        "image": image, "angles": truth, "index": torch.arange(3), "extent": torch.ones(3, 2),
        "inverse": torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(3, 2, 3),
    }  # fmt: skip
    with torch.no_grad():
        answer = task.validation_step(batch, 0)
        found = task.network(task.normalise(image), heads=True).angles
        if flip:
            other = task.network(task.normalise(image.flip(-1)), heads=True).angles
            found = (
                torch.stack(
                    [found[:, 0] + other[:, 0], found[:, 1] - other[:, 1], found[:, 2] - other[:, 2]], 1
                )
                / 2
            )
        torch.testing.assert_close(answer, task(image))
    errors = torch.rad2deg((found - truth).abs().mean(dim=0))
    values = task.metrics["angles"].compute()
    torch.testing.assert_close(values["yaw_error_degrees"], errors[1], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(values["angle_error_degrees"], errors.mean(), atol=1e-3, rtol=1e-3)
    task.flip_test = False


def test_mixed_precision_does_not_touch_the_points(task: Any) -> None:
    """A product in bfloat16 would move a point at 1,000 by up to 4 pixels."""
    points, inverse = (
        112 * torch.rand(2, 68, 2),
        torch.tensor([[9.3, 0.4, 803.7], [-0.4, 9.3, 611.2]]).expand(2, 2, 3),
    )
    expected = points @ inverse[0, :, :2].T + inverse[0, :, 2]
    with torch.autocast("cpu", torch.bfloat16):
        found = to_picture(points, inverse)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_without_the_auxiliary_net_or_known_angles_only_points_are_measured() -> None:
    for options in (["data=faces68", "network.auxiliary=false"], ["data=aflw"]):
        config = composed(["task=landmarks", "network=pfld_025", *options], Path("runs/test"))
        assert list(runtime.make_task(config).metrics) == ["score"]


# Heatmaps ---------------------------------------------------------------------------------------------------------


def test_the_heatmap_form_reads_points_where_the_crop_has_them(tmp_path: Path) -> None:
    """A network that answers with the targets themselves gives back the points of the crop, to a quarter of a map pixel."""
    options = [
        "task=landmarks_heatmaps",
        "data=faces68",
        "network=hrnet_small",
        "network.width=4",
        "codec=udp",
    ]
    config = composed([*options, "transform.size=[64,64]"], tmp_path)
    task = runtime.make_task(config).eval()
    assert isinstance(task, HeatmapLandmarks) and task.kind == "landmarks"
    points, weight = 12 + 40 * torch.rand(2, 68, 2), torch.ones(2, 68)
    maps, _ = task.codec.encode(points, weight)
    task.network.forward = lambda _: maps
    with torch.no_grad():
        answer = task(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    torch.testing.assert_close(answer[..., :2], points, atol=1.0, rtol=0)
    crop = task.crop()
    assert (crop.box, crop.centred, crop.padding, crop.size) == ("rectangle", True, 1.25, (64, 64))
    eval_crop = task.adapt_data(config["data"])["transform"]["eval"]
    assert (eval_crop["centred"], eval_crop["box"], eval_crop["size"]) == (True, "points", [64, 64])
    asked = config["data"] | {"transform": {"eval": {"box": "rectangle"}}}
    assert task.adapt_data(asked)["transform"]["eval"]["box"] == "rectangle"


def test_faces_are_cut_by_what_their_data_set_is_published_with() -> None:
    """AFLW by the square of its file, the others by their points; a transform says otherwise, in training and later. A data
    set that is only evaluated on is cut as it is published."""

    def evaluated(trained: str, other: str, *options: str) -> str:
        config = composed(["task=landmarks", "network=pfld_025", f"data={trained}"], Path("runs/test"))
        task = runtime.make_task(config)
        node = composed(["task=landmarks", f"data={other}", *options], Path("runs/test"))["data"]
        if not options:  # as dvsn.evaluate does without transform=...
            node["transform"] = config["data"]["transform"]
        return str(task.adapt_data(node)["transform"]["eval"]["box"])

    for name in ("wflw", "300w", "cofw", "faces68", "aflw"):
        for task in ("landmarks", "landmarks_heatmaps"):
            config = composed([f"task={task}", f"data={name}"], Path("runs/test"))
            expected = "rectangle" if name == "aflw" else "points"
            assert {config["data"]["transform"][split]["box"] for split in ("train", "eval")} == {expected}
    config = composed(["task=landmarks", "data=aflw", "transform.box=points"], Path("runs/test"))
    assert config["data"]["transform"]["eval"]["box"] == "points"
    assert evaluated("wflw", "wflw") == "points" and evaluated("aflw", "aflw") == "rectangle"
    assert evaluated("wflw", "aflw") == "rectangle" and evaluated("aflw", "wflw") == "points"
    assert evaluated("aflw", "aflw", "transform.box=points") == "points"
    assert evaluated("wflw", "wflw", "transform.box=rectangle") == "rectangle"


def test_heatmaps_teach_points(faces: Path, tmp_path: Path) -> None:
    """HRNet's maps are read as fractions of the crop, which PFLD is drawn to; a checkpoint of it trains PFLD."""
    options = small_run(faces, "trainer.max_epochs=1")
    form = ["task=landmarks_heatmaps", "network=hrnet_small", "network.width=4", "transform.size=[64,64]"]
    teacher = [*form, *(word for word in options[3:])]
    assert train_until(composed(teacher, tmp_path / "teacher")) is not None
    path = tmp_path / "teacher" / "checkpoints" / "last.ckpt"
    taught: Any = dvsn.load(str(path))
    points = 0.2 + 0.6 * torch.rand(2, 98, 2)
    maps, _ = taught.codec.encode(64 * points - 0.5, torch.ones(2, 98))
    taught.network.forward = lambda _: maps
    found = taught.teach_points(torch.zeros(2, 3, 112, 112, dtype=torch.uint8))
    torch.testing.assert_close(found, points, atol=0.75 * 4 / 64, rtol=0)

    config = composed([*options, f"teacher={path}", "distill=bounded_regression"], tmp_path / "student")
    task, data = runtime.make_task(config), runtime.build_data(config)
    task.ask_data(data)
    teaching.distil(task, config, data)
    trainer = runtime.build_trainer(config, task)
    trainer.fit(task, datamodule=data)
    assert trainer.callback_metrics["train/bounded_regression"] > 0


def test_a_heatmap_network_by_one_override(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`task=landmarks network=hrnetv2_w18_face` is the other form of the task; its own network stays what it was."""
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []
    for network in ("hrnetv2_w18_face", "pfld"):
        hydra_main(
            "train",
            seen.append,
            argv=["task=landmarks", f"network={network}", "data=faces68", "data.batch_size=7"],
        )
    heat, points = seen
    assert heat["task"]["_target_"].endswith(".HeatmapLandmarks") and heat["network"]["joints"] == 68
    assert (heat["transform"]["size"], heat["codec"]["sigma"], heat["data"]["batch_size"]) == (
        [256, 256],
        1.5,
        7,
    )
    assert points["task"]["_target_"].endswith(".Landmarks") and "codec" not in points


def test_a_heatmap_network_in_the_form_of_points_is_refused() -> None:
    config = composed(["task=landmarks", "network=hrnetv2_w18_face", "data=faces68"], Path("runs/test"))
    with pytest.raises(ConfigError, match=r"does not answer with points.*task=landmarks_heatmaps"):
        runtime.make_task(config)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The street's faces as a WFLW tree."""
    root = tmp_path_factory.mktemp("faces")
    write_wflw(root, seed=3, train=8, test=1, height=256, width=512)
    return root


def small_run(faces: Path, *options: str) -> list[str]:
    return [
        "task=landmarks", "network=pfld_025", "network.width=0.0625", "data=wflw", f"data.root={faces}", "logger=none",
        "data.splits={train: train, val: train, test: train}", "data.workers=0", "data.drop_last=false", "trainer=cpu",
        "data.batch_size=2", "trainer.enable_progress_bar=false", *options,
    ]  # fmt: skip


@pytest.mark.parametrize("variant", ["points", pytest.param("heatmaps", marks=pytest.mark.slow)])
def test_killed_twice_ends_bit_equal(faces: Path, tmp_path: Path, variant: str) -> None:
    more = ["loss.shares=data", "ema=0.9"]
    if variant == "heatmaps":
        more = ["network=hrnet_small", "network.width=4", "transform.size=[64,64]"]
    options = small_run(faces, "trainer.max_epochs=6", "checkpoint.every_n_steps=1", *more)
    if variant == "heatmaps":
        options = [word for word in options if word not in ("network=pfld_025", "network.width=0.0625")]
        options[0] = "task=landmarks_heatmaps"
    whole = train_until(composed(options, tmp_path / "whole"))
    killed = composed(options, tmp_path / "killed")
    assert train_until(killed, dies_after=1) is None
    assert train_until(killed, dies_after=2) is None
    resumed = train_until(killed)
    assert whole is not None and resumed is not None and whole["global_step"] > 3
    assert equal(whole["state_dict"], resumed["state_dict"])
    assert equal(whole["optimizer_states"], resumed["optimizer_states"])


def test_a_run_counts_the_attributes_of_its_training_split(faces: Path, tmp_path: Path) -> None:
    """On the street's faces, whose flags are pose and occlusion; a set without attributes is refused."""
    config = composed(small_run(faces, "loss.shares=data", "trainer.max_epochs=1"), tmp_path / "run")
    task, data = runtime.make_task(config), runtime.build_data(config)
    task.ask_data(data)
    trainer = runtime.build_trainer(config, task)
    trainer.fit(task, datamodule=data)
    flags = np.array([record.attributes for record in data.datasets["train"].records])
    expected = [*flags.mean(axis=0), (flags.max(axis=1) == 0).mean()]
    np.testing.assert_allclose(task.loss.shares.numpy(), expected, atol=1e-6)
    assert {"val/nme", "val/pitch_error_degrees"} <= set(trainer.callback_metrics)

    task.loss.shares = None
    for record_set in (data.datasets["train"].records,):
        record_set[:] = [record._replace(attributes=None) for record in record_set]
    with pytest.raises(ConfigError, match=r"loss\.shares=data: the training faces have no attributes"):
        task.on_fit_start()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["task=landmarks", "network=pfld_025", "loss=heatmaps"],
            r"loss: JointMSE compares heatmaps.*loss=wing",
        ),
        (
            ["task=landmarks_heatmaps", "network=hrnet_small", "loss=wing"],
            r"loss: Wing compares points.*loss=heatmaps",
        ),
    ],
)
def test_a_loss_of_the_other_kind_of_answer_is_refused(options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        runtime.make_task(composed([*options, "data=faces68"], Path("runs/test")))
