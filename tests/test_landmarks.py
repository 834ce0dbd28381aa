"""The landmark task on a batch of its own, and head angles: the published face, mirrors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import composed

from dvsn import runtime
from dvsn.data.head_angles import head_angles
from dvsn.losses.landmarks import L1
from dvsn.tasks.landmarks import LandmarkEstimator, Landmarks

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
    torch.testing.assert_close(both[..., 0], 112 - mirrored[..., 0], atol=1e-3, rtol=1e-4)
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
