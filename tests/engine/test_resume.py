"""A run that dies at any step and is resumed ends with the same bits as the unbroken run."""

from __future__ import annotations

import copy
import csv
import random
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from dvsn.data.module import EvalBatches, TrainBatches
from dvsn.engine.saving import Checkpoints
from dvsn.weights import read_checkpoint
from tests.support.resuming import Died, Dies, equal, run
from tests.support.tiny import TINY, TINY_CLASSIFICATION, composed, write_blobs, write_pairs

EPOCHS, BATCHES = 3, 5


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"))


class DiesInValidation(pl.Callback):
    """Dies when the validation begins that follows the batch `step`."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking and trainer.global_step == self.step:
            raise Died


VARIANTS: dict[str, list[str]] = {
    "plain": [],
    "ema, dropout, schedule": ["ema=0.9", "schedule=linear_decay", "schedule.constant_epochs=1"],
    "validation inside the epoch": ["trainer.val_check_interval=2", "checkpoint.every_n_steps=1"],
    "every second epoch": ["checkpoint.every_n_epochs=2", "checkpoint.every_n_steps=3"],
    "all callbacks and a table": [
        "callbacks=default",
        "callbacks.rates.every_n_steps=1",
        "logger=csv",
        "trainer.log_every_n_steps=1",
    ],
    "accumulation": ["trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.5"],
}


def config_of(variant: str, pairs: Path, folder: Path) -> dict[str, Any]:
    return composed(
        [
            *TINY, f"data.root={pairs}", "data.batch_size=2", f"trainer.max_epochs={EPOCHS}",
            "network.norm=batch", "checkpoint.every_n_steps=2", *VARIANTS[variant],
        ],
        folder,
    )  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_twice_ends_bit_equal(variant: str, pairs: Path, tmp_path: Path) -> None:
    unbroken = run(config_of(variant, pairs, tmp_path / "unbroken"))
    assert unbroken is not None
    points = random.Random(variant).sample(range(1, EPOCHS * BATCHES), 2)
    broken = config_of(variant, pairs, tmp_path / "broken")
    for point in points:
        run(broken, dies_after=point)
    resumed = run(broken)
    assert resumed is not None
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "DataModule"):
        assert equal(unbroken.get(part), resumed.get(part)), part
    assert equal(unbroken.get("averaging_state"), resumed.get("averaging_state"))


def rows(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without the columns that hold what the machine did: speeds, times and memory."""
    clocked = ("system/images", "system/memory", "time/")
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith(clocked)} for row in csv.DictReader(file)]


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("step", [2, 4, 7, 12])
def test_killed_between_a_batch_and_its_validation(
    step: int, every: int, pairs: Path, tmp_path: Path
) -> None:
    """The validation that follows a saved batch is not lost: best.ckpt and metrics.csv are those of the unbroken run."""
    words = [
        "logger=csv",
        "callbacks=default",
        f"checkpoint.every_n_steps={every}",
        "trainer.val_check_interval=2",
        "trainer.log_every_n_steps=1",
    ]
    VARIANTS["between"] = words
    unbroken, broken = (config_of("between", pairs, tmp_path / name) for name in ("unbroken", "broken"))
    run(unbroken)
    assert run(broken, dies=DiesInValidation(step)) is None
    run(broken)
    for name in ("last.ckpt", "best.ckpt"):
        one, two = (read_checkpoint(Path(c["run_dir"]) / "checkpoints" / name) for c in (unbroken, broken))
        for part in ("state_dict", "optimizer_states", "global_step", "callbacks", "DataModule"):
            assert equal(one[part], two[part]), (name, part)
    assert rows(Path(unbroken["run_dir"])) == rows(Path(broken["run_dir"]))


@pytest.mark.parametrize("point", [3, 4, 8])
def test_the_row_of_the_saved_batch_is_in_the_table(point: int, pairs: Path, tmp_path: Path) -> None:
    """Killed right after the checkpoint of a batch was written: its row is in metrics.csv."""
    VARIANTS["rows"] = ["logger=csv", "checkpoint.every_n_steps=1", "trainer.log_every_n_steps=1"]
    unbroken, broken = (config_of("rows", pairs, tmp_path / name) for name in ("unbroken", "broken"))
    run(unbroken)

    with pytest.MonkeyPatch.context() as patch:
        original = Checkpoints._save

        def save(self: Any, trainer: Any, name: str) -> None:
            original(self, trainer, name)
            if trainer.global_step == point:
                raise Died

        patch.setattr(Checkpoints, "_save", save)
        assert run(broken) is None
    run(broken)
    assert rows(Path(unbroken["run_dir"])) == rows(Path(broken["run_dir"]))


@pytest.mark.parametrize("steps", [7, 10])
def test_a_run_ended_by_max_steps_continues_exactly(steps: int, pairs: Path, tmp_path: Path) -> None:
    unbroken = run(config_of("plain", pairs, tmp_path / "unbroken"))
    config = config_of("plain", pairs, tmp_path / "two parts")
    first = run({**config, "trainer": {**config["trainer"], "max_steps": steps}})
    second = run(config)
    assert unbroken is not None and first is not None and second is not None
    assert (first["global_step"], second["global_step"]) == (steps, EPOCHS * BATCHES)
    assert equal(unbroken["state_dict"], second["state_dict"])
    assert equal(unbroken["optimizer_states"], second["optimizer_states"])


class Stops(pl.Callback):
    """Wishes the run to end after batch `step`, as `trainer.max_time` does."""

    def __init__(self, step: int) -> None:
        self.step, self.seen = step, 0

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.seen += 1
        trainer.should_stop = trainer.should_stop or self.seen == self.step


@pytest.fixture(scope="module")
def accumulating(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Epochs of five and of six batches, two an accumulation, and validations that are due after an odd one."""
    blobs = write_blobs(tmp_path_factory.mktemp("blobs"))
    words = ["trainer.accumulate_grad_batches=2", "trainer.max_epochs=2", "checkpoint.every_n_steps=2",
             "trainer.val_check_interval=3", "logger=csv", "trainer.log_every_n_steps=1"]  # fmt: skip
    return {
        "pix2pix": [*TINY, f"data.root={pairs}", "data.batch_size=2", "network.norm=batch", *words],
        "classification": [*TINY_CLASSIFICATION, "data=imagefolder", f"data.root={blobs}", *words],
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["pix2pix", "classification"])
@pytest.mark.parametrize("dies", [Dies(3), Dies(4), Stops(3)])
def test_nothing_falls_within_an_accumulation(
    kind: str, dies: Any, accumulating: dict[str, list[str]], tmp_path: Path
) -> None:
    """A validation due after batch 3 waits for batch 4, so that no best.ckpt is newer than last.ckpt and without the
    gradient of batch 3; and a run that is to end after batch 3 ends after batch 4."""
    unbroken, broken = (composed(accumulating[kind], tmp_path / name) for name in ("unbroken", "broken"))
    whole = run(unbroken)
    first = run(broken, dies=copy.deepcopy(dies))
    assert whole is not None and (first is not None) == isinstance(dies, Stops)
    if first is not None:
        assert (first["global_step"], first["DataModule"]["batch"]) == (2, 4)
    resumed = run(broken)
    assert resumed is not None
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "callbacks"):
        assert equal(without_clocks(whole[part]), without_clocks(resumed[part])), part
    assert rows(Path(unbroken["run_dir"])) == rows(Path(broken["run_dir"]))
    scored = [row["step"] for row in rows(Path(unbroken["run_dir"])) if row[unbroken["monitor"]["name"]]]
    assert len(scored) == {"pix2pix": 2, "classification": 4}[kind]  # after batch 4, and 6


def without_clocks(state: Any) -> Any:
    return {k: v for k, v in state.items() if not k.startswith("Timer")} if isinstance(state, dict) else state


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_point(variant: str, pairs: Path, tmp_path: Path) -> None:
    unbroken = run(config_of(variant, pairs, tmp_path / "unbroken"))
    assert unbroken is not None
    for point in range(EPOCHS * BATCHES):
        broken = config_of(variant, pairs, tmp_path / f"broken{point}")
        run(broken, dies_after=point)
        resumed = run(broken)
        assert resumed is not None
        assert equal(unbroken["state_dict"], resumed["state_dict"]), point
        assert equal(unbroken["optimizer_states"], resumed["optimizer_states"]), point


def test_a_batch_is_a_pure_function_of_its_place() -> None:
    whole = list(make(start=0))
    assert list(make(start=2)) == whole[2:]
    sampler = make(start=2)
    list(sampler)
    sampler.set_epoch(4)
    assert len(list(sampler)) == len(whole)  # only the epoch that was interrupted starts late


def make(*, start: int) -> TrainBatches:
    sampler = TrainBatches(size=11, batch_size=4, seed=3)
    sampler.epoch, sampler.start = 3, start
    return sampler


def test_ranks_share_the_batches_of_one_process() -> None:
    whole = list(TrainBatches(size=12, batch_size=4, seed=1))
    ranks = [list(TrainBatches(size=12, batch_size=4, seed=1, rank=rank, world=2)) for rank in range(2)]
    for batch, first, second in zip(whole, *ranks, strict=True):
        assert sorted(batch) == sorted(first + second)
    odd = [list(TrainBatches(size=11, batch_size=4, seed=1, rank=rank, world=2)) for rank in range(2)]
    assert [len(batch) for batch in odd[0]] == [len(batch) for batch in odd[1]] == [2, 2, 2]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_every_sample_once(world: int) -> None:
    seen = [
        i for r in range(world) for b in EvalBatches(size=7, batch_size=2, rank=r, world=world) for _, i in b
    ]
    assert sorted(seen) == list(range(7))
