"""Runs of torchrun on two machines of two processes, one of which is lost, stopped, told to stop, or full. Minutes long."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from dvsn.parts import in_parts
from dvsn.weights import read_checkpoint
from tests.support.agents import Agents, alive
from tests.support.distill_stubs import SMALL
from tests.support.ranks import environment
from tests.support.tiny import TINY, write_blobs, write_pairs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc"),
]
TIMEOUT = 30
SHARED = [
    "data.batch_size=4", f"trainer.process_timeout={TIMEOUT}", "checkpoint.every_n_steps=2", "channels_last=false",
    "name=test",
]  # fmt: skip
LONG = "trainer.max_epochs=100000"
SLOW = "trainer.process_timeout=150"
"""Of runs that are started again, which takes a crowded machine longer than it may be silent."""

ENDED_BY_TORCHRUN = re.compile(r"RendezvousConnectionError[\s\S]*Sending process \d+ closing signal SIGTERM|"
                               r"Sending process \d+ closing signal SIGTERM[\s\S]*RendezvousConnectionError")  # fmt: skip
"""What an agent says that has lost its store."""


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), train=10, val=5)


def words(pairs: Path, folder: Path, *more: str) -> list[str]:
    return [*TINY, *SHARED, f"data.root={pairs}", f"hydra.run.dir={folder}", *more]


def last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def ended(processes: list[int], within: float) -> float:
    """Seconds until processes are gone, which must be fewer."""
    start = time.monotonic()
    while any(map(alive, processes)):
        assert time.monotonic() - start < within, [each for each in processes if alive(each)]
        time.sleep(0.2)
    return time.monotonic() - start


def own_words(said: str) -> str:
    """What dvsn has said, without torchrun's lines."""
    return said.split("torch/distributed/elastic")[0]


@contextmanager
def started(arguments: list[str], folder: Path, **options: int) -> Iterator[tuple[Agents, list[int]]]:
    """Two agents with two processes each, once they have saved; and all processes, which are gone at the end."""
    with Agents(arguments, nodes=2, processes=2, **options) as run:
        run.wait_for(last(folder))
        workers = [process for _, process in run.ranks().values()]
        assert len(workers) == 4
        try:
            yield run, workers
        finally:
            for each in workers:
                if alive(each):
                    os.kill(each, signal.SIGKILL)


def test_a_lost_process_is_named_by_all_others(pairs: Path, tmp_path: Path) -> None:
    with started(words(pairs, tmp_path, LONG), tmp_path) as (run, workers):
        node, victim = run.ranks()[3]
        os.kill(victim, signal.SIGKILL)
        assert ended(workers, TIMEOUT + 10) < TIMEOUT
        said = run.agents[1 - node].communicate(timeout=60)[1]
    assert re.search("process 3 of 4 gives no sign of life any more", own_words(said)), said[-3000:]


def test_the_rest_goes_on_by_restarts(pairs: Path, tmp_path: Path) -> None:
    """A process of the second machine is killed; with --max-restarts all go on and end."""
    arguments = words(pairs, tmp_path, "trainer.max_epochs=60", SLOW)
    with started(arguments, tmp_path, restarts=2) as (run, _):
        os.kill(run.ranks()[2][1], signal.SIGKILL)
        results = run.end()
    assert [code for code, _ in results] == [0, 0], results
    assert any("continuing from" in said for _, said in results)
    assert (tmp_path / "result.json").is_file()


@pytest.mark.parametrize("which", ["the one with the store", "the other one"])
def test_a_machine_that_is_lost_ends_the_run(which: str, pairs: Path, tmp_path: Path) -> None:
    """Its agent and its processes at once. The processes of the other one end within the time-out, and say why; torchrun,
    which misses its store too, may be faster and end them with its own words."""
    with started(words(pairs, tmp_path, LONG), tmp_path) as (run, workers):
        node = run.host() if which == "the one with the store" else 1 - run.host()
        for each in [run.agents[node].pid, *run.workers(node)]:
            os.kill(each, signal.SIGKILL)
        assert ended(workers, TIMEOUT + 10) < TIMEOUT
        said = run.agents[1 - node].communicate(timeout=100)[1]
    if which == "the one with the store":
        assert ENDED_BY_TORCHRUN.search(said) or "the store of the run" in own_words(said), said[-3000:]
    else:
        assert re.search(r"process [\d and]+ of 4 gives no sign of life", own_words(said)), said[-3000:]


def test_a_killed_agent_with_the_store_ends_its_processes_too(pairs: Path, tmp_path: Path) -> None:
    with started(words(pairs, tmp_path, LONG), tmp_path) as (run, workers):
        node = run.host()
        os.kill(run.agents[node].pid, signal.SIGKILL)
        assert ended(workers, TIMEOUT + 10) < TIMEOUT
        said = "".join(agent.communicate(timeout=100)[1] for agent in run.agents)
    if ENDED_BY_TORCHRUN.search(
        said
    ):  # it misses its store, and ends the processes of its machine as by a preemption
        assert "Stopped by SIGTERM. Continue with resume=auto" in said or "the store of the run" in said, (
            said[-3000:]
        )
    else:
        assert re.search("error: .*the store of the run", said), said[-3000:]
    assert read_checkpoint(last(tmp_path))["global_step"] > 0


def test_a_stopped_agent_with_the_store_ends_the_run(pairs: Path, tmp_path: Path) -> None:
    with started(words(pairs, tmp_path, LONG), tmp_path) as (run, workers):
        node = run.host()
        run.agents[node].send_signal(signal.SIGSTOP)
        assert ended(workers, 2 * TIMEOUT + 20) > TIMEOUT / 2
        for agent in run.agents:  # torchrun itself waits for its store, too
            agent.kill()
        said = "".join(agent.communicate(timeout=100)[1] for agent in run.agents)
    assert f"the store of the run has not answered for {TIMEOUT} s (trainer.process_timeout)" in said, said[
        -3000:
    ]


def test_a_stopped_agent_without_the_store_does_not_matter(pairs: Path, tmp_path: Path) -> None:
    """Its processes go on; the run ends when it does."""
    with started(words(pairs, tmp_path, "trainer.max_epochs=80"), tmp_path) as (run, workers):
        other = run.agents[1 - run.host()]
        other.send_signal(signal.SIGSTOP)
        ended(workers, 120)
        other.send_signal(signal.SIGCONT)
        results = run.end(120)
    assert (tmp_path / "result.json").is_file(), results


def test_sigterm_of_one_agent_saves_and_ends_all(pairs: Path, tmp_path: Path) -> None:
    """As SLURM preempts one machine: all processes save the same batch, and the run goes on from it."""
    with started(words(pairs, tmp_path, LONG), tmp_path) as (run, workers):
        run.agents[0].send_signal(signal.SIGTERM)
        ended(workers, TIMEOUT)
        results = run.end(100)
    assert all(code for code, _ in results)
    assert any("Stopped by SIGTERM. Continue with resume=auto" in said for _, said in results), results
    step = read_checkpoint(last(tmp_path))["global_step"]
    more = words(pairs, tmp_path, f"trainer.max_steps={step + 4}", "resume=auto", SLOW)
    with Agents(more, nodes=2, processes=2) as run:
        results = run.end()
    assert [code for code, _ in results] == [0, 0], results
    assert read_checkpoint(last(tmp_path))["global_step"] == step + 4


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is made by root alone")
@pytest.mark.parametrize("form", ["whole", "sharded"])
def test_a_full_disk_ends_the_run_and_keeps_the_checkpoint(form: str, tmp_path: Path) -> None:
    disk, blobs = tmp_path / "disk", write_blobs(tmp_path / "blobs", train=4)
    disk.mkdir()
    folder = disk / "run"
    small = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(disk)]
    if subprocess.run(small, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    options = [
        *SMALL, *SHARED, f"data.root={blobs}", f"hydra.run.dir={folder}", LONG, "trainer.strategy=fsdp",
        f"trainer.fsdp_checkpoint={form}",
    ]  # fmt: skip
    try:
        with Agents(options, processes=2) as run:
            run.wait_for(last(folder))
            room = os.statvfs(disk)
            filler = disk / "filler"
            with filler.open("wb") as file:
                try:
                    for _ in range(room.f_bavail):
                        file.write(bytes(room.f_frsize))
                        file.flush()
                except OSError:
                    pass
            ((code, said),) = run.end(100)
        assert code and "could not be written: the disk is full. " in said
        assert in_parts(last(folder)) == (form == "sharded")
        assert read_checkpoint(last(folder))["global_step"] > 0
        assert not [each for each in last(folder).parent.iterdir() if each.name.startswith(".")]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_two_jobs_by_one_rendezvous_are_told_apart(pairs: Path, tmp_path: Path) -> None:
    """One agent of each of two jobs meet by mistake: the options that differ are named, and both end."""
    first = Agents(words(pairs, tmp_path / "a", "seed=1"), nodes=2, only=[0])
    with (
        first as one,
        Agents(words(pairs, tmp_path / "b", "seed=2"), nodes=2, only=[1], port=first.port) as two,
    ):
        results = [*one.end(120), *two.end(120)]
    assert all(code for code, _ in results)
    assert any(re.search(r"process \d of 4 .* differs from process 0 .*seed: \d there, \d in process 0", said)
               for _, said in results), results  # fmt: skip
    assert not last(tmp_path / "a").exists() and not last(tmp_path / "b").exists()


def test_a_job_more_than_a_rendezvous_takes_leaves_the_first_alone(pairs: Path, tmp_path: Path) -> None:
    """A third agent at a rendezvous of two waits, starts nothing, and ends with the run."""
    first, second = tmp_path / "a", tmp_path / "b"
    with (
        started(words(pairs, first, "trainer.max_epochs=60"), first) as (run, _),
        Agents(words(pairs, second), nodes=2, only=[1], port=run.port) as more,
    ):
        results = run.end(200)
        assert not more.workers(0) and not second.exists()
    assert [code for code, _ in results] == [0, 0], results


def test_parts_of_four_processes_go_on_after_a_kill_and_as_two(tmp_path: Path) -> None:
    """trainer=fsdp in parts: a process is killed, torchrun starts all again from the folder; two go on; it is evaluated."""
    folder, blobs = tmp_path / "run", write_blobs(tmp_path / "blobs", train=8)
    options = [
        *SMALL, *SHARED, f"data.root={blobs}", f"hydra.run.dir={folder}", "trainer.strategy=fsdp",
        "trainer.fsdp_checkpoint=sharded", "data.batch_size=8", SLOW,
    ]  # fmt: skip
    with started([*options, "trainer.max_epochs=30"], folder, restarts=1) as (run, _):
        os.kill(run.ranks()[3][1], signal.SIGKILL)
        results = run.end()
    assert [code for code, _ in results] == [0, 0], results
    assert any("continuing from" in said for _, said in results)
    assert len(list(last(folder).glob("*/*.safetensors"))) == 4
    before = read_checkpoint(last(folder))
    with Agents(
        [*options, "trainer.max_epochs=31", "resume=auto", "resume.force=[trainer.max_epochs]"], processes=2
    ) as run:
        ((code, said),) = run.end()
    assert code == 0 and "resume: 2 processes instead of 4" in said, said[-3000:]
    after = read_checkpoint(last(folder))
    assert (
        after["global_step"] > before["global_step"] and len(list(last(folder).glob("*/*.safetensors"))) == 2
    )
    assert any(
        not torch.equal(value, after["state_dict"][key]) for key, value in before["state_dict"].items()
    )
    line = [sys.executable, "-m", "dvsn.evaluate", f"checkpoint={last(folder)}", f"root={blobs}"]
    done = subprocess.run(line, env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "top1" in done.stdout + done.stderr, done.stderr[-2000:]
