"""Runs that torchrun and srun start: as they are, with a fault in one process, started again. Minutes long."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dvsn.weights import read_checkpoint
from tests.support.agents import Agents
from tests.support.ranks import environment, free_port
from tests.support.tiny import TINY, write_pairs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc"),
]
TIMEOUT = 30
WORDS = [
    *TINY, "data.batch_size=4", "network.dropout=0.5", f"trainer.process_timeout={TIMEOUT}", "checkpoint.every_n_steps=2",
    "channels_last=false", "name=test",
]  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), train=10, val=5)


def words(pairs: Path, folder: Path, *more: str) -> list[str]:
    return [*WORDS, f"data.root={pairs}", f"hydra.run.dir={folder}", *more]


def last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def test_two_machines_of_two_processes_make_one_run(pairs: Path, tmp_path: Path) -> None:
    """With the folder's name made up: it is one. The weights of ranks are those of two processes on one machine of four."""
    options = [
        each
        for each in words(pairs, tmp_path, "trainer.max_epochs=2")
        if not each.startswith("hydra.run.dir")
    ]
    results = {}
    for nodes, processes in ((2, 2), (1, 4)):
        place = tmp_path / f"{nodes}x{processes}"
        place.mkdir()
        before = Path.cwd()
        os.chdir(place)
        try:
            with Agents(options, nodes=nodes, processes=processes) as run:
                ended = run.end()
        finally:
            os.chdir(before)
        assert [code for code, _ in ended] == [0] * nodes, ended
        (folder,) = (place / "runs" / "test").iterdir()
        results[nodes] = read_checkpoint(last(folder))["state_dict"]
        assert (folder / "result.json").is_file() and len(
            (folder / "command.txt").read_text().splitlines()
        ) == 1
    for key, value in results[1].items():
        torch.testing.assert_close(results[2][key], value, rtol=0, atol=0)


def test_ranks_with_other_options_are_refused(pairs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Agents(words(pairs, folder), nodes=2, processes=1, second=["optim.lr=0.5"]) as run:
        (first, said), (second, more) = run.end()
    assert first and second
    assert "error: process 1 of 2" in said and "optim.lr: 0.5 there, 0.0002 in process 0" in said
    assert "Traceback" not in said.split("torch/distributed/elastic")[0] and "optim.lr" not in more
    assert not folder.exists()


def test_a_batch_that_does_not_divide_is_refused_once(pairs: Path, tmp_path: Path) -> None:
    with Agents(words(pairs, tmp_path / "run", "data.batch_size=3")) as run:
        ((code, said),) = run.end()
    own = said.split("torch/distributed/elastic")[0]
    assert code and own.count("data.batch_size: 3 is the total over devices and does not divide by 2") == 1


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_lost_ends_the_run(rank: int, number: int, pairs: Path, tmp_path: Path) -> None:
    """Killed or stopped: the other machine's process says which within the time-out, and nobody hangs."""
    folder = tmp_path / "run"
    with Agents(words(pairs, folder, "trainer.max_epochs=100000"), nodes=2, processes=1) as run:
        run.wait_for(last(folder))
        # which agent has rank 0 is decided by who comes first
        ranks = {
            int(re.search(rb"\0RANK=(\d+)", Path(f"/proc/{each}/environ").read_bytes()).group(1)): (
                node,
                each,
            )  # type: ignore[union-attr]
            for node in range(2)
            for each in run.workers(node)
        }
        (node, victim), start = ranks[rank], time.monotonic()
        os.kill(victim, number)
        said = run.agents[1 - node].communicate(timeout=120)[1]
        seconds = time.monotonic() - start
        if number == signal.SIGSTOP:
            os.kill(victim, signal.SIGKILL)
    assert seconds < TIMEOUT + 30, said
    own = said.split("torch/distributed/elastic")[0]
    assert re.search(rf"process {rank} of 2|the store of the run", own), said[-3000:]


def test_a_bad_picture_of_one_process_is_what_the_other_says(pairs: Path, tmp_path: Path) -> None:
    """The picture is whole for one machine and damaged for the other, each with a disk of its own."""
    other = write_pairs(tmp_path / "other", train=10)
    for file in sorted((other / "train" / "a").iterdir())[1:]:
        file.write_bytes(b"\x89PNG damaged")
    with Agents(
        words(pairs, tmp_path / "run", "trainer.max_epochs=3"),
        nodes=2,
        processes=1,
        second=[f"data.root={other}"],
    ) as run:
        ended = run.end(120)
    assert all(code for code, _ in ended)
    for _, said in ended:
        assert re.search(r"error: .*\.png", said), said[-2000:]
    assert any(re.search(r"process \d of 2 \(.*\): .*\.png", said) for _, said in ended)


def test_other_data_are_named(pairs: Path, tmp_path: Path) -> None:
    other = write_pairs(tmp_path / "other", train=8)
    with Agents(words(pairs, tmp_path / "run"), nodes=2, processes=1, second=[f"data.root={other}"]) as run:
        said = "".join(text for _, text in run.end(120))
    assert re.search(r"samples of train: (8 there, 10|10 there, 8) in process 0", said), said[-2000:]


def test_torchrun_starts_again_from_the_own_checkpoint(pairs: Path, tmp_path: Path) -> None:
    """A process is killed, all are started again, and end with the bits of the unbroken run."""
    with Agents(words(pairs, tmp_path / "whole", "trainer.max_epochs=40")) as run:
        assert run.end()[0][0] == 0
    folder = tmp_path / "broken"
    with Agents(words(pairs, folder, "trainer.max_epochs=40"), restarts=1) as run:
        run.wait_for(last(folder))
        os.kill(run.workers()[1], signal.SIGKILL)
        ((code, said),) = run.end()
    assert code == 0 and "continuing from" in said, said[-3000:]
    whole, broken = (read_checkpoint(last(tmp_path / name)) for name in ("whole", "broken"))
    assert whole["global_step"] == broken["global_step"]
    for key, value in whole["state_dict"].items():
        torch.testing.assert_close(broken["state_dict"][key], value, rtol=0, atol=0)


def test_another_number_of_processes_goes_on_and_says_so(pairs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Agents(words(pairs, folder, "trainer.max_epochs=1")) as run:
        assert run.end()[0][0] == 0
    step = read_checkpoint(last(folder))["global_step"]
    with Agents(
        words(pairs, folder, "trainer.max_epochs=2", "resume=auto", "resume.force=[trainer.max_epochs]"),
        processes=4,
    ) as run:
        ((code, said),) = run.end()
    assert code == 0, said[-3000:]
    assert "resume: 4 processes instead of 2" in said and "does not end bit for bit" in said
    assert read_checkpoint(last(folder))["global_step"] == 2 * step


def test_srun_is_enough(pairs: Path, tmp_path: Path) -> None:
    """Two processes with the variables of SLURM, and no others."""
    port, folder = free_port(), tmp_path / "run"
    shared = {
        "SLURM_JOB_ID": "4711", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2",
        "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "localhost", "SLURM_LOCALID": "0", "MASTER_PORT": str(port),
    }  # fmt: skip
    arguments = words(pairs, folder, "trainer.max_epochs=1")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "dvsn.train", *arguments],
            env=environment(**shared, SLURM_PROCID=str(rank), SLURM_NODEID=str(rank)), stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [each.communicate(timeout=200)[1] for each in ranks]
    assert [each.returncode for each in ranks] == [0, 0], said
    assert "x 2" in said[0] and read_checkpoint(last(folder))["dvsn"]["config"]["trainer"]["num_nodes"] == 2
