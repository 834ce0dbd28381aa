"""Processes of a run that a launcher has started: their places, what they tell each other, and how they come to one run."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dvsn.config import board, launched, meeting
from dvsn.config.board import Board, Failed
from dvsn.config.launched import Place
from dvsn.errors import ConfigError, DataError
from tests.support.boards import Shared, boards, run_on_boards
from tests.support.ranks import environment, free_port

ELASTIC = {
    "TORCHELASTIC_RUN_ID": "none", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "TORCHELASTIC_RESTART_COUNT": "1",
}  # fmt: skip
SLURM = {
    "SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "train",
}  # fmt: skip


@pytest.fixture
def on_board(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Board], Callable[[int], Any]], list[Any]]:
    return partial(run_on_boards, monkeypatch)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (ELASTIC, Place(3, 4, 1, 2, "torchrun", 1)),
        (SLURM, Place(2, 4, 0, 2, "srun", 0)),
        ({**SLURM, "SLURM_JOB_NAME": "bash"}, None),
        ({"RANK": "1", "WORLD_SIZE": "2"}, None),
    ],
)
def test_the_place_is_that_of_the_launcher(
    variables: dict[str, str], expected: Place | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launched.place() == expected
    assert expected is None or expected.nodes == 2
    assert launched.restarted() == (variables is ELASTIC)


def test_devices_are_those_of_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched.of_launcher({"devices": 3}) == {"devices": 3}, "without a launcher they stay"
    for name, value in ELASTIC.items():
        monkeypatch.setenv(name, value)
    for devices in (1, "auto", 2):
        nodes = {"num_nodes": 2} if devices == 2 else {}
        assert launched.of_launcher({"devices": devices, **nodes}) == {"devices": 2, "num_nodes": 2}
    with pytest.raises(
        ConfigError, match=r"found 4 and 1, but torchrun has started 2 processes on each of 2"
    ):
        launched.of_launcher({"devices": 4})
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="3 of 4 processes"):
        launched.place()
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ConfigError, match="RANK: found 'first'"):
        launched.place()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "")
    assert not launched.restarted()


def test_who_differs_is_named_with_its_values(on_board: Any) -> None:
    def compare(rank: int) -> None:
        board.agree("config", {"seed": 0, "optim.lr": 0.1 if rank != 2 else 0.2}, advice="Do this.")

    found = on_board(boards(3, timeout=5), compare)
    assert len({str(each) for each in found}) == 1 and isinstance(found[0], ConfigError)
    assert "process 2 of 3" in str(found[0]) and "optim.lr: 0.2 there, 0.1 in process 0. Do this." in str(
        found[0]
    )
    same = on_board(boards(3, timeout=5), lambda rank: board.agree("a", {"seed": 0}, advice=""))
    assert same == [None] * 3


def test_the_first_decides_from_what_all_say(on_board: Any) -> None:
    def ask(rank: int) -> tuple[Any, Any]:
        return board.decided("a", rank + 1, sum), board.decided("b", "", lambda told: told)

    assert on_board(boards(3, timeout=5), ask) == [(6, [""] * 3)] * 3
    over = boards(3, timeout=5)
    for each in over:
        each._stop.set()
    assert on_board(over, ask) == [(1, [""]), (2, [""]), (3, [""])], "each alone"


def test_a_fault_ends_those_who_wait(on_board: Any) -> None:
    def work(rank: int) -> None:
        ours = board.current()
        assert ours is not None
        if rank == 1:
            board.tell(DataError("cat.png: cannot be read"))
        else:
            ours.wait("folder", of=1)

    first, _, third = on_board(boards(3, timeout=5), work)
    for each in (first, third):
        assert (
            isinstance(each, Failed)
            and "process 1 of 3" in str(each)
            and "cat.png: cannot be read" in str(each)
        )


def test_one_that_does_not_come_is_named() -> None:
    ours = boards(2, timeout=0.3)[0]
    with pytest.raises(Failed, match=r"has waited 0\.3 s \(trainer\.process_timeout\) for process 1 of 2"):
        ours.wait("config", of=1)


def test_signs_of_life() -> None:
    """One gives none any more, one has ended, one has never come; a store that is gone is said to be."""
    store = Shared()
    ours = boards(4, store=store)
    ours[1].write("alive/1", 7)
    ours[2].write("alive/2", board.ENDED)
    assert ours[0].silent(0.05) == []
    time.sleep(0.1)
    assert ours[0].silent(0.05) == [1]
    assert "process 1 of 4 gives no sign of life" in ours[0].reason(5)
    ours[1].write("alive/1", 8)
    assert ours[0].silent(0.05) == []
    store.gone = True
    assert "the store of the run, which the agent of torchrun keeps" in ours[0].reason(1)
    ours[0].fail("nobody hears it")


def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own thread, after the others have failed, or process 0 has given no sign of life."""
    said: list[tuple[str, int]] = []
    monkeypatch.setattr(board, "end", lambda message, rank: said.append((message, rank)))
    monkeypatch.setattr(board, "GRACE", 0.05)
    first, second = boards(2, timeout=0.5)
    first.watch()
    second.fail("out of memory")
    deadline = time.monotonic() + 5
    while not said and time.monotonic() < deadline:
        time.sleep(0.05)
    first.close()
    assert "process 1 of 2" in said[0][0] and "out of memory" in said[0][0] and said[0][1] == 0
    first, second = boards(2, timeout=0.5)
    first.write("alive/0", 1)
    second.watch()
    while len(said) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    second.close()
    assert "process 0 of 2 has given no sign of life for 0.5 s (trainer.process_timeout)" in said[1][0]


def test_the_first_makes_the_folder_and_a_restart_finds_it(on_board: Any, tmp_path: Path) -> None:
    store = Shared()

    def enter(rank: int) -> Path:
        with meeting.entered(tmp_path / f"stamp_of_{rank}", given=False, resume=False) as folder:
            (folder / f"rank_{rank}").touch()
            time.sleep(0.2)
            return folder

    found = on_board(boards(2, timeout=5, store=store), enter)
    assert found == [tmp_path / "stamp_of_0"] * 2 and sorted(p.name for p in tmp_path.iterdir()) == [
        "stamp_of_0"
    ]
    (tmp_path / "stamp_of_0" / "result.json").touch()  # a run has left something in it
    again = on_board(boards(2, timeout=5, store=store, attempt=1), enter)
    assert again == found


def test_options_of_machines_may_differ_and_others_not(on_board: Any) -> None:
    def compare(own: dict[int, dict[str, Any]]) -> list[Any]:
        return on_board(boards(2, timeout=5), lambda rank: meeting.compare(own[rank]))  # type: ignore[no-any-return]

    base = {"run_dir": "/a", "data": {"root": "/disk", "workers": 2}, "logger": {"folder": "/a/logs"}}
    other = {"run_dir": "/b", "data": {"root": "/ssd", "workers": 4}, "logger": {"folder": "/b/logs"}}
    assert compare({0: base, 1: other}) == [None, None]
    assert "seed: 1 there, nothing in process 0" in str(compare({0: base, 1: {**other, "seed": 1}})[0])


def test_a_training_knows_nothing_of_the_faults_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several trainings of one launched process share its store: each has notes of its own, and so do those who wait."""
    store, first, second = Shared(), Place(0, 2, 0, 2, "torchrun"), Place(1, 2, 1, 2, "torchrun")
    monkeypatch.setattr(board, "_current", [])
    monkeypatch.setattr(board, "connect", lambda place, timeout: Board(store, place, timeout=timeout))
    for number in range(2):
        board.begin(first, timeout=20.0)
        ours, theirs = board.current(), Board(store, second, timeout=20.0, number=number)
        assert ours is not None and ours.number == number and ours.fault() is None
        assert ours.read(f"alive/{second.rank}") is None, "no sign of the training before"
        theirs.fail(f"fault {number}")
        assert str(ours.fault()).endswith(f"fault {number}")
        theirs.close()
        ours.close()


def test_torchrun_gets_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    board.tell_launcher("error: cat.png")
    assert json.loads((tmp_path / "error.json").read_text())["message"]["message"] == "error: cat.png"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer [127.0.0.1]:1"), True),
        (RuntimeError("NCCL communicator was aborted"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (DataError("connection closed"), False),
    ],
)
def test_what_a_missing_partner_looks_like(error: Exception, expected: bool) -> None:
    assert board.of_collective(error) is expected


@pytest.mark.slow  # tests/engine/test_launched.py does so by torchrun; what is compared is tried above
def test_two_processes_with_other_options_end_before_anything_is_built(tmp_path: Path) -> None:
    """Real ones, over the store of the first; each names the difference or leaves it to the first."""
    folder = tmp_path / "run"
    shared = {
        "TORCHELASTIC_RUN_ID": "test", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    words = ["experiment=demo", f"hydra.run.dir={folder}", "data.batch_size=2", "trainer.process_timeout=60"]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "dvsn.train", *words, *(["optim.lr=0.5"] if rank else [])],
            env=environment(**shared, RANK=str(rank)), stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    first, second = (each.communicate(timeout=120)[1] for each in ranks)
    assert [each.returncode for each in ranks] == [2, 2], first + second
    assert first.count("error: process 1 of 2") == 1 and "optim.lr: 0.5 there, 0.002 in process 0" in first
    assert "Traceback" not in first + second and "error" not in second
    assert not folder.exists()


def test_a_store_that_never_answers_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped launcher keeps its connections open: a question to it waits for good."""
    silent, said = threading.Event(), []

    class Stopped(Shared):
        def check(self, keys: list[str]) -> bool:
            return silent.wait(30)

    monkeypatch.setattr(board, "end", lambda message, rank: (said.append((message, rank)), silent.set()))
    (own,) = boards(1, timeout=0.5, store=Stopped())
    own.watch()
    assert silent.wait(10)
    own.close()
    message, rank = said[0]
    assert (
        rank == 0 and "the store of the run has not answered for 0.5 s (trainer.process_timeout)" in message
    )


class Counting(Shared):
    """Also counts, as torch's store does."""

    def add(self, key: str, more: int) -> int:
        self.values[key] = str(int(self.values.get(key, 0)) + more)
        return int(self.values[key])


def test_an_attempt_is_the_same_for_all_whatever_their_agents_have_counted() -> None:
    """The store keeps what the processes of earlier times wrote, such as the one that was killed."""
    store = Counting()
    for counts, expected in (([0, 0, 0], 0), ([0, 0, 1], 1), ([1, 0, 1], 2)):
        found: list[Any] = [None] * 3

        def ask(rank: int, counts: list[int] = counts, found: list[Any] = found) -> None:
            time.sleep(0.1 * (2 - rank))  # the first comes last: the others see the number of before
            place = Place(rank, 3, rank, 3, "torchrun", counts[rank])
            found[rank] = board.agreed_attempt(store, place, timeout=10)

        threads = [threading.Thread(target=ask, args=(rank,)) for rank in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert found == [expected] * 3
    fresh = Counting()  # a store of a new time, as without torchrun's own
    with pytest.raises(
        Failed, match=r"process 0 has waited .* for process 1 of 2, which has not come so far"
    ):
        board.agreed_attempt(fresh, Place(0, 2, 0, 2, "torchrun"), timeout=0.1)
