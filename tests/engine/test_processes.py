"""Runs of several processes, and what signals do to a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dvsn.engine import faults
from dvsn.engine import trainer as runtime
from dvsn.errors import UserError
from dvsn.tasks.recipe import load
from dvsn.weights import read_checkpoint
from tests.support.ranks import environment, free_port, two_ranks
from tests.support.tiny import TINY, TINY_SEGMENTATION, composed, write_pairs, write_scenes

TWO = ["trainer.devices=2", "network.norm=none", "network.dropout=0", "discriminator.norm=none"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), train=10)


def assert_same(a: dict[str, Any], b: dict[str, Any], **tolerance: float) -> None:
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], msg=lambda text, key=key: f"{key}: {text}", **tolerance)


STEP = [*TINY, *TWO, "data.batch_size=4", "trainer.max_steps=1", "trainer.limit_val_batches=0"]


@pytest.fixture(scope="module")
def trained(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of two runs by one pair of processes: a step of pix2pix, a segmentation with five pictures to score."""
    root = tmp_path_factory.mktemp("two")
    scenes = write_scenes(root / "scenes", train=4, val=5)
    folders = {"pix2pix": root / "pix2pix", "segmentation": root / "segmentation"}
    options = [*TINY_SEGMENTATION, f"data.root={scenes}", "data.batch_size=4", "trainer.max_epochs=1"]
    two_ranks(
        composed([*STEP, f"data.root={pairs}"], folders["pix2pix"]),
        composed([*options, "trainer.devices=2"], folders["segmentation"]),
    )
    return folders


def test_two_processes_agree_and_equal_one_with_the_whole_batch(
    trained: dict[str, Path], pairs: Path, tmp_path: Path
) -> None:
    ranks = [torch.load(trained["pix2pix"] / f"rank_{rank}.pt", weights_only=True) for rank in range(2)]
    assert_same(ranks[0], ranks[1], rtol=0, atol=0)

    torch.set_num_threads(1)
    config = composed([*STEP, f"data.root={pairs}", "trainer.devices=1"], tmp_path)
    task = runtime.make_task(config)
    before = {key: value.clone() for key, value in task.state_dict().items()}
    runtime.build_trainer(config, task).fit(task, runtime.build_data(config))
    assert_same(ranks[0], dict(task.state_dict()), rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(before[key], value) for key, value in task.state_dict().items())


def test_two_processes_score_each_picture_once(trained: dict[str, Path]) -> None:
    """Five pictures on two ranks: the scores are those of one process, none counted twice; outlines travel too."""
    folder = trained["segmentation"]
    config = json.loads((folder / "config.json").read_text())
    ranks = [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(2)]
    torch.set_num_threads(1)
    task: Any = load(folder / "checkpoints" / "last.ckpt")
    data = runtime.build_data(config).open("val")
    for sample in (data[index] for index in range(5)):
        task.metrics.update(task(sample["image"][None]), sample["target"])
    expected = {f"val/{name}": float(value) for name, value in task.metrics.compute().items()}
    assert task.score.confusion.sum() == 5 * 64 * 64
    for rank in ranks:
        assert {name: rank[name] for name in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_two_processes_killed_and_resumed_end_bit_equal(pairs: Path, tmp_path: Path) -> None:
    """Batch norm, dropout, EMA, unequal validation counts (3 samples on 2 ranks)."""
    options = [*TINY, "trainer.devices=2", f"data.root={pairs}", "data.batch_size=4", "trainer.max_epochs=3",
               "checkpoint.every_n_steps=1", "ema=0.9", "callbacks=default", "logger=csv"]  # fmt: skip
    two_ranks(composed(options, tmp_path / "whole"))
    for point in (2, 3):
        two_ranks(composed(options, tmp_path / "broken"), dies_after=point)
    two_ranks(composed(options, tmp_path / "broken"))
    whole, broken = (
        read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "broken")
    )
    assert whole["global_step"] == broken["global_step"] == 9
    for part in ("state_dict", "current_model_state"):
        assert_same(whole[part], broken[part], rtol=0, atol=0)


def command(pairs: Path, folder: Path, *options: str) -> list[str]:
    shared = [*TINY, f"data.root={pairs}", f"hydra.run.dir={folder}", "name=test", *options]
    return [sys.executable, "-m", "dvsn.train", *shared]


def start_and_signal(arguments: list[str], number: int, folder: Path, **more: str) -> tuple[int, str]:
    """Run a command, send it a signal once it has saved its own first checkpoint, and wait for the end."""
    last = folder / "checkpoints" / "last.ckpt"
    earlier = last.stat().st_mtime_ns if last.exists() else 0
    process = subprocess.Popen(
        arguments, env=environment(**more), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while (not last.exists() or last.stat().st_mtime_ns == earlier) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


LONG = ["trainer.max_epochs=100000", "checkpoint.every_n_steps=5", "trainer.limit_val_batches=0"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.slow
def test_signals_save_and_leave_quietly(number: int, code: int, pairs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    found, errors = start_and_signal(command(pairs, folder, *LONG), number, folder)
    assert found == code, errors[-2000:]
    assert "Traceback" not in errors
    assert "resume=auto" in errors
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"] > 0


@pytest.mark.slow
def test_slurm_saves_and_requeues(pairs: Path, tmp_path: Path) -> None:
    """With a `scontrol` that only writes down what it was asked."""
    programs = tmp_path / "bin"
    programs.mkdir()
    asked = tmp_path / "asked"
    script = programs / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    script.chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "4711", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_NODELIST": "localhost", "SLURM_NTASKS_PER_NODE": "1",
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    folder = tmp_path / "run"
    code, errors = start_and_signal(command(pairs, folder, *LONG), signal.SIGUSR1, folder, **slurm)
    assert code == 0, errors[-2000:]
    assert asked.read_text().split() == ["requeue", "4711"]
    saved = next(folder.glob("hpc_ckpt_*.ckpt"))
    step = read_checkpoint(saved)["global_step"]
    again = command(pairs, folder, *LONG)
    code, errors = start_and_signal(again, signal.SIGTERM, folder, SLURM_RESTART_COUNT="1", **slurm)
    assert code == 128 + signal.SIGTERM, errors[-2000:]
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"] > step


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="the system cannot stop a process")
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_stopped_process_is_named_after_the_timeout(stopped: int, pairs: Path, tmp_path: Path) -> None:
    """The other one waits as long as `trainer.process_timeout` says, then ends with code 2 and says for which."""
    folder = tmp_path / "run"
    options = ["trainer.devices=2", "data.batch_size=4", "trainer.process_timeout=5", *LONG]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "NODE_RANK": "0",
    }
    ranks = [
        subprocess.Popen(
            command(pairs, folder, *options), env=environment(**shared, LOCAL_RANK=str(rank), RANK=str(rank)),
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (folder / "checkpoints" / "last.ckpt").exists():
            assert time.monotonic() < deadline and ranks[0].poll() is None
            time.sleep(0.05)
        ranks[stopped].send_signal(signal.SIGSTOP)
        start = time.monotonic()
        errors = ranks[1 - stopped].communicate(timeout=120)[1]
        assert 4 < time.monotonic() - start < 60
        assert ranks[1 - stopped].returncode == 2, errors[-2000:]
        expected = (
            f"process {1 - stopped} has waited 5 s (trainer.process_timeout) for process {stopped} of 2"
        )
        assert expected in errors and "Traceback" not in errors, errors[-2000:]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


class Store:
    """A store in which some ranks have said that they waited; or one that does not answer."""

    def __init__(self, waited: set[int], *, answers: bool = True) -> None:
        self.keys, self.answers = {f"dvsn_waited_{rank}" for rank in waited}, answers

    def set(self, key: str, value: str) -> None:
        if not self.answers:
            time.sleep(5)
        self.keys.add(key)

    def check(self, keys: list[str]) -> bool:
        return self.keys >= {*keys}


def test_of_several_the_silent_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "OTHERS", 0.1)
    distributed = torch.distributed.distributed_c10d
    monkeypatch.setattr(distributed, "_get_default_store", lambda: Store({1, 3}))
    assert faults.silent_processes(0, 4) == [2]
    monkeypatch.setattr(distributed, "_get_default_store", lambda: Store({1}))
    assert faults.silent_processes(0, 4) == [2, 3]
    monkeypatch.setattr(faults, "GRACE", 0.1)
    monkeypatch.setattr(distributed, "_get_default_store", lambda: Store(set(), answers=False))
    assert faults.silent_processes(1, 4) == [0], "it keeps the store"
    assert faults.silent_processes(1, 2) == [0]


def test_what_a_timeout_becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text is gloo's."""
    monkeypatch.setattr(faults, "silent_processes", lambda own, world: [2])
    trainer: Any = SimpleNamespace(world_size=4, global_rank=1, callbacks=[], loggers=[])
    gloo = "[../gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 300000ms for recv operation to complete"
    with (
        pytest.raises(
            UserError, match=r"process 1 has waited 300 s .* process 2 of 4.* trainer\.process_timeout=600$"
        ),
        faults.told(trainer, {"trainer": {}}),
    ):
        raise RuntimeError(gloo)
    with pytest.raises(RuntimeError, match="something else"), faults.told(trainer, {"trainer": {}}):
        raise RuntimeError("something else")
