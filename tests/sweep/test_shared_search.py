"""Searches of several workers on one storage: every trial is told once, also when a worker dies. Trials are a few lines."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dvsn.errors import ConfigError, UserError, without_passwords
from dvsn.report import command as report
from dvsn.report import search_study, search_table
from dvsn.sweep import search_loop, storage, workers
from dvsn.sweep.pool import Pool
from dvsn.sweep.search_loop import Search
from dvsn.sweep.storage import Address
from dvsn.sweep.workers import Team
from tests.support import postgres
from tests.support.tiny_command import environment
from tests.sweep.test_search import make, planned, search_tree, states, trial_of, wait_for

optuna = pytest.importorskip("optuna")
Optuna = Any


def shared(folder: Path, url: str, *words: str, study: str = "s", **options: Any) -> search_loop.Plan:
    plan = planned(folder, *words, storage=url, study=study, **{"heartbeat": 1, **options})
    plan.address = Address(url)
    return plan


@functools.cache
def tables() -> bytes:
    """An SQLite file with Optuna's tables, which take a second to make."""
    with tempfile.TemporaryDirectory() as folder:
        storage.opened(Address(f"sqlite:///{folder}/studies.db"))
        return Path(folder, "studies.db").read_bytes()


def sqlite(tmp_path: Path) -> str:
    file = tmp_path / "studies.db"
    if not file.exists():
        file.write_bytes(tables())
    return f"sqlite:///{file}"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def member(plan: search_loop.Plan, clock: Clock) -> tuple[Search, Team]:
    study = search_loop.open_study(plan)
    team = Team(study, plan.folder, heartbeat=1, keys=["x"], clock=clock)
    return Search(plan, study, team), team


# Signs of life ------------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Any]:
    """Two workers of one study with folders of their own, each with a clock that shows another time."""
    clocks = Clock(), Clock()
    clocks[1].now = 1e6
    found = [
        member(shared(make(tmp_path / name), sqlite(tmp_path)), clock)
        for name, clock in zip("ab", clocks, strict=True)
    ]
    yield (*found[0], clocks[0], *found[1], clocks[1])
    for _, team in found:
        for number in list(team.locks):
            team.release(number)


def test_a_silent_worker_loses_its_trial_once(two: Any) -> None:
    """It beats for ten seconds, then no more: after three seconds more, and not before, the other gives its values back."""
    a, team_a, _, b, team_b, clock = two
    trial = a.ask()
    for _ in range(10):
        clock.now += 1
        assert team_b.watch() == []
        assert team_a.beat([trial]) == []
    silent = []
    while not silent:
        clock.now += 1
        silent = team_b.watch()
    assert (
        clock.now - 1e6 == 10 + 1 + 4
    )  # seen once with the last sign, and three full seconds without another
    team_b.give_back(silent[0])
    team_b.give_back(silent[0])  # as two others who have seen it at the same time
    assert states(b.study) == ["FAIL", "WAITING"] and b.count() == 1
    assert team_a.beat([trial]) == [trial], "its worker must hear of it"
    again = b.ask()
    assert again.number == 1 and again.params == trial.params and again.user_attrs["begun_as"] == 0
    running = search_loop.Running(a_trial(a, trial), reported=0)
    assert not a.finish(running, optuna.trial.TrialState.COMPLETE, 0.5)
    assert b.finish(
        search_loop.Running(again, reported=0), optuna.trial.TrialState.COMPLETE, again.params["x"]
    )
    rows = search_table.rows(b.study)
    assert [(row.number, row.state) for row in rows] == [(1, "finished")]


def a_trial(search: Search, trial: Any) -> Any:
    return optuna.trial.Trial(search.study, trial._trial_id)


def test_an_outage_is_nobodys_death(two: Any) -> None:
    """Neither could look nor beat for an hour; the first look afterwards only begins to count."""
    a, _, _, _, team_b, clock = two
    a.ask()
    team_b.watch()
    clock.now += 3600
    assert team_b.watch() == []
    for _ in range(3):
        clock.now += 1
        assert team_b.watch() == []
    clock.now += 1
    assert len(team_b.watch()) == 1


def test_values_that_kill_every_worker_fail(two: Any) -> None:
    _, _, _, b, team_b, _ = two
    for _ in range(workers.TRIES + 1):
        trial = b.ask()
        team_b.give_back(b.study._storage.get_trial(trial._trial_id))
        team_b.release(trial.number)
    assert states(b.study) == ["FAIL"] * 4 and b.count() == 1
    (row,) = search_table.rows(b.study)
    assert row.state == "failed" and row.error == "its worker was lost 4 times"


def test_what_was_half_drawn_is_drawn_anew(two: Any) -> None:
    a, _, _, b, team_b, _ = two
    trial = a.study.ask()
    team_b.give_back(b.study._storage.get_trial(trial._trial_id))
    assert states(b.study) == ["FAIL"] and search_table.rows(b.study) == [] and b.count() == 0


def test_no_more_trials_than_asked_for(two: Any) -> None:
    """Three are wanted; four workers ask before any of them has looked. Those with the lowest numbers stay."""
    a, team_a, _, b, team_b, _ = two
    drawn = [search.study.ask() for search in (a, b, a, b)]
    kept = [team.keep_within(trial, 3) for team, trial in zip((team_a, team_b) * 2, drawn, strict=True)]
    assert kept == [True, True, True, False]
    assert b.ask() is None and len(search_table.rows(b.study)) == 3


def test_two_workers_draw_different_values(two: Any) -> None:
    """A value depends on the number of its trial: at the same time they draw as one after another."""
    a, _, _, b, _, _ = two
    values = [search.ask().params["x"] for search in (a, b, a)]
    alone = [search_study.sampler(a.plan.options, number=n)._rng.rng.uniform(0, 1) for n in range(3)]
    assert len({*values}) == 3 and values == pytest.approx(alone, abs=1e-9)


def test_on_one_machine_the_lock_of_a_folder_says_whose_it_is(tmp_path: Path) -> None:
    """A second worker in the same folder takes what the first has let go of, at once, in the same run folder."""
    plan = shared(make(tmp_path / "s"), sqlite(tmp_path))
    first, team = member(plan, Clock())
    _, other = member(plan, Clock())
    trial = first.ask()
    assert other.left_here() == []  # its worker lives
    team.release(trial.number)  # as the system does for one that is killed
    assert [each.number for each in other.left_here()] == [0] and team.left_here() == []
    other.release(0)
    elsewhere = Team(other.study, other.folder, heartbeat=1, keys=["x"])
    elsewhere.me["kernel"] = "another machine, which may not see locks"
    assert elsewhere.left_here() == []


def test_what_was_reached_is_brought_along(two: Any, tmp_path: Path) -> None:
    """To a new folder, on a disk that both see; the old one stays as it is, also when the new checkpoint is replaced."""
    a, team_a, _, _, _, _ = two
    trial = a.ask()
    old = tmp_path / "a" / "0"
    (old / "checkpoints").mkdir()
    (old / "checkpoints" / "last.ckpt").write_text("epoch 3")
    (old / "metrics.csv").write_text("step,val/score\n1,0.5\n")
    team_a.give_back(a.study._storage.get_trial(trial._trial_id))
    again = a.ask()
    assert team_a.bring_along(again)
    new = tmp_path / "a" / "1"
    assert (new / "checkpoints" / "last.ckpt").read_text() == "epoch 3" and (new / "metrics.csv").is_file()
    (new / "x").write_text("epoch 4")
    (new / "x").replace(new / "checkpoints" / "last.ckpt")
    assert (old / "checkpoints" / "last.ckpt").read_text() == "epoch 3"


# Whole workers ------------------------------------------------------------------------------------------------

WORKER = """
import sys
from pathlib import Path
from tests.sweep.test_shared_search import shared
from dvsn.sweep import search_loop, workers
from dvsn.report import search
folder, url, kind, trials = sys.argv[1:]
plan = shared(Path(folder), url, *kind.split(), trials=int(trials), sampler="tpe")
study = search_loop.open_study(plan)
search_loop.Search(plan, study, workers.Team(study, plan.folder, heartbeat=1, keys=["x"])).run()
"""


def start(tmp_path: Path, url: str, folder: str, *, kind: str, trials: int) -> subprocess.Popen[str]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    env = environment(Path(__file__).parents[2], PGPASSWORD=postgres.PASSWORD)
    call = [sys.executable, str(script), str(tmp_path / folder), url, kind, str(trials)]
    return subprocess.Popen(call, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def told(outputs: list[str]) -> list[int]:
    """The numbers of the trials that a worker says it has finished, over all workers."""
    found = re.findall(r"^\[search\] trial (\d+): val/score", "\n".join(outputs), re.MULTILINE)
    return sorted(map(int, found))


def four_workers(tmp_path: Path, url: str, *, trials: int = 12) -> None:
    """Two in one folder, two in folders of their own; the one that has trial 1 is killed in it, with its trial."""
    folders = ["one", "one", "two", "three"]
    every = [start(tmp_path, url, folder, kind="kind=halt sleep=0.3", trials=trials) for folder in folders]
    try:
        wait_for(lambda: bool(list(tmp_path.glob("*/1/metrics.csv"))))
        (place,) = {file.parents[1] for file in tmp_path.glob("*/1/metrics.csv")}
        trial = trial_of(place / "1")
        status = Path(f"/proc/{trial}/status").read_text()
        parent = int(re.search(r"PPid:\s+(\d+)", status)[1])  # type: ignore[index]
        killed = next(each for each in every if each.pid == parent)
        killed.kill()
        os.killpg(trial, signal.SIGKILL)
        outputs = [each.communicate(timeout=180)[0] for each in every]
    finally:
        for each in every:
            each.kill()
    assert [each.returncode for each in every if each is not killed] == [0, 0, 0], outputs
    copies = [
        search_study.load(tmp_path / name) for name in {*folders} if tmp_path / name != place or name == "one"
    ]
    every_row = search_table.rows(storage_study(url))
    assert len(every_row) == trials and {row.state for row in every_row} == {"finished"}
    assert told(outputs) == sorted(row.number for row in every_row), "each is told once"
    values = [row.values["x"] for row in every_row]
    assert len({*values}) == trials, "none is made twice"
    for copy in copies:
        assert copy.user_attrs["id"] == storage_study(url).user_attrs["id"]
    for text in (
        *outputs,
        *(file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.is_file()),
    ):
        assert postgres.PASSWORD not in text


def storage_study(url: str) -> Any:
    return optuna.load_study(study_name="s", storage=storage.opened(Address(url)))


@pytest.mark.slow
def test_four_workers_on_postgresql_one_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pg8000", reason="needs dvsn[hpo-shared]")
    if postgres.why_not():
        pytest.skip(postgres.why_not())
    monkeypatch.setenv("PGPASSWORD", postgres.PASSWORD)
    with postgres.server() as server:
        four_workers(tmp_path, server.url)
        wrong_addresses(server, monkeypatch)


PROXY = """
import sys
from optuna.storages import get_storage, run_grpc_proxy_server
run_grpc_proxy_server(get_storage(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
"""


@pytest.mark.slow
def test_four_workers_through_the_grpc_proxy_one_killed(tmp_path: Path) -> None:
    """The proxy has no heartbeats of Optuna's; it stands before SQLite, which it has for itself."""
    pytest.importorskip("grpc", reason="needs dvsn[hpo-shared]")
    port = postgres.free_port()
    proxy = subprocess.Popen(
        [sys.executable, "-c", PROXY, sqlite(tmp_path), str(port)], stderr=subprocess.PIPE
    )
    try:
        four_workers(tmp_path, f"grpc://127.0.0.1:{port}")
    finally:
        proxy.kill()
        proxy.communicate()


@pytest.mark.slow
def test_four_workers_on_sqlite_one_killed(tmp_path: Path) -> None:
    """They also make the tables, all at once."""
    four_workers(tmp_path, f"sqlite:///{tmp_path}/studies.db")


def wrong_addresses(server: postgres.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server refuses, and where there is none: one sentence, without the password."""
    at = f"127.0.0.1:{server.port}"
    monkeypatch.setenv("PGPASSWORD", "wrong-secret")
    for url, message in (
        (server.url, "the server refuses the user tester. Set PGPASSWORD to the right password"),
        (f"postgresql://tester:other-secret@{at}/studies", "refuses the user tester"),
        (f"postgresql://127.0.0.1:{postgres.free_port()}/studies", "no server answers at 127.0.0.1:"),
        (
            f"postgresql+psycopg9://tester@{at}/studies",
            r"driver postgresql\+psycopg9 is not installed. pip install",
        ),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            storage.opened(Address(url))
        assert "secret" not in str(caught.value)
    monkeypatch.setenv("PGPASSWORD", postgres.PASSWORD)
    with pytest.raises(ConfigError, match="there is no such database"):
        storage.opened(Address(f"postgresql://tester@{at}/nothing"))


@pytest.mark.slow
def test_a_worker_that_is_stopped_hands_its_trial_over(tmp_path: Path) -> None:
    """By SIGTERM, as by a scheduler: the other goes on at once, with the checkpoint, long before three signs are missed."""
    url = sqlite(tmp_path)
    first = start(tmp_path, url, "one", kind="kind=halt", trials=3)
    wait_for(lambda: (tmp_path / "one" / "1" / "metrics.csv").is_file())
    first.send_signal(signal.SIGTERM)
    assert "stopped by SIGTERM" in first.communicate(timeout=60)[0]
    assert [trial.state.name for trial in storage_study(url).trials] == ["COMPLETE", "FAIL", "WAITING"]
    assert start(tmp_path, url, "one", kind="kind=halt", trials=3).wait(timeout=60) == 0
    rows = search_table.rows(storage_study(url))
    assert sorted((row.number, row.state) for row in rows) == [
        (0, "finished"),
        (2, "finished"),
        (3, "finished"),
    ]
    assert (tmp_path / "one" / "2" / "starts").read_text() == "auto\n"
    assert not (tmp_path / "one" / "1" / "result.json").exists()


@pytest.mark.slow
def test_the_whole_command_on_a_shared_storage(tmp_path: Path) -> None:
    """The address in a variable; the report in the folder has all trials and is drawn again without the storage."""
    root = search_tree(tmp_path)
    (root / "tiny_search.py").write_text(
        "import tiny_command\nfrom dvsn import command_line\nfrom dvsn.sweep import search\n"
        "command_line.run(lambda: search.search(trial='tiny', module='tiny_command'))\n"
    )
    words = [
        "root=x",
        "seed=choice(1,2)",
        "search.trials=2",
        "search.seed=0",
        "search.storage=${oc.env:STORAGE}",
    ]
    env = environment(root, STORAGE=sqlite(tmp_path))
    for _ in range(2):
        call = [sys.executable, "-m", "tiny_search", *words]
        done = subprocess.run(call, env=env, cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "val/score, more is better; of 2 trials 2 finished" in done.stdout
    (tmp_path / "studies.db").unlink()
    assert "of 2 trials 2 finished" in report.report(root / "runs" / "run" / "search")


def test_a_storage_that_is_gone_for_a_while(two: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The worker goes on when it answers again, and gives up after a time, with a message of one line."""
    from optuna.exceptions import StorageInternalError

    a, *_ = two
    pool = Pool(1)
    monkeypatch.setattr(search_loop, "LOOK", 0)
    for _ in range(2):
        with a.patient(pool):
            raise StorageInternalError(f"lost postgresql://me:{SECRET}@host/db\nat line 3")
    assert (
        capsys.readouterr().err.count("does not answer, trying again: lost postgresql://me:***@host/db\n")
        == 1
    )
    with a.patient(pool):
        pass
    assert a.gone is None
    monkeypatch.setattr(search_loop, "PATIENCE", -1)
    with (
        pytest.raises(UserError, match=r"search.storage: no answer for .*The same line goes on"),
        a.patient(pool),
    ):
        raise StorageInternalError("lost")


def test_a_stop_while_the_storage_is_gone(two: Any) -> None:
    """SIGTERM ends the wait for a storage, as it ends the wait for a trial."""
    from optuna.exceptions import StorageInternalError

    a, *_ = two
    with pytest.raises(SystemExit) as stop, Pool(1) as pool:
        os.kill(os.getpid(), signal.SIGTERM)
        with a.patient(pool):
            raise StorageInternalError("lost")
    assert stop.value.code == 143


def test_a_trial_that_the_storage_failed_before_its_start(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is drawn, but did not start: the same worker finds it again and runs it, rather than waiting for itself."""
    from optuna.exceptions import StorageInternalError

    a, team, *_ = two
    monkeypatch.setattr(search_loop, "LOOK", 0)
    with a.patient(Pool(1)):
        drawn = a.ask()
        raise StorageInternalError("lost")
    assert [trial.number for trial in team.left_here()] == [drawn.number]


# What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgres", "expected null, or postgresql://USER@HOST/DATABASE"),
        ("postgres://me@host/db", "found postgres://.*Did you mean 'postgresql'"),
        ("redis://host", "found redis://"),
        (3, "expected null, or"),
        ("postgresql://me@host", "names no database"),
        ("grpc://host", "expected grpc://HOST:PORT"),
        ("grpc://me:pw@host:1", r"grpc://me:\*\*\*@host:1: expected grpc://HOST:PORT"),
        ("sqlite:////nowhere/at/all.db", "the file cannot be opened"),
    ],
)
def test_addresses_that_are_none(url: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"search.storage: .*{message}"):
        storage.opened(storage.read_address(url, line=url))  # type: ignore[arg-type]


def test_a_file_cannot_name_a_storage() -> None:
    """To which the password of the environment would be sent."""
    assert storage.read_address(None, line=None) is None
    with pytest.raises(ConfigError, match=r"not allowed in a config. Give it on the command line"):
        storage.read_address("postgresql://evil/db", line=None)


def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grpc")
    monkeypatch.setattr(storage, "WAIT", 0.2)
    with pytest.raises(ConfigError, match=r"grpc://127.0.0.1:\d+: no server answers at 127.0.0.1"):
        storage.opened(Address(f"grpc://127.0.0.1:{postgres.free_port()}"))


@pytest.mark.parametrize(("module", "url"), [("pg8000", "postgresql://a@b/c"), ("pymysql", "mysql://a@b/c")])
def test_a_driver_that_is_not_there(module: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"is not installed. pip install 'dvsn\[hpo-shared\]'"):
        storage.opened(Address(url))


def test_another_study_is_not_mixed_in(tmp_path: Path) -> None:
    url = sqlite(tmp_path)
    search_loop.open_study(shared(make(tmp_path / "a"), url, "a=1"))
    search_loop.open_study(shared(make(tmp_path / "b"), url, "a=1", trials=9, sampler="tpe"))
    other = shared(make(tmp_path / "c"), url, "a=2")
    with pytest.raises(
        ConfigError, match=r"search.study: s at sqlite.* holds a search with a=1. Found another one, with a=2"
    ):
        search_loop.open_study(other)
    less = shared(tmp_path / "c", url, "a=1")
    less.mode = "min"
    with pytest.raises(
        ConfigError, match=r"wants another direction than minimize. Give it a name of its own, search.study="
    ):
        search_loop.open_study(less)
    foreign = optuna.create_study(study_name="foreign", storage=url, direction="maximize")
    foreign.ask()
    with pytest.raises(ConfigError, match=r"foreign at .* was not made by dvsn.search"):
        search_loop.open_study(shared(tmp_path / "c", url, study="foreign"))
    with pytest.raises(ConfigError, match=r"search.dir: .*/a holds trials of another study"):
        search_loop.open_study(shared(tmp_path / "a", url, "a=1", study="new"))
    with pytest.raises(
        ConfigError,
        match=r"search.dir: .*/a holds trials of the study s at sqlite.* Give search.storage again",
    ):
        search_loop.open_study(planned(tmp_path / "a", "a=1"))


# Passwords ----------------------------------------------------------------------------------------------------

SECRET = "hunter2-secret"


@pytest.mark.parametrize(
    "word",
    [
        f"search.storage=postgresql://me:{SECRET}@host/db", f"++search.storage='postgresql://me:{SECRET}@host/db'",
        f"search.storage=postgresql://me:{SECRET}=x@host/db", f"search.storag=mysql://me:{SECRET}@host/db",
        f"search.storage=postgresql://host/db?password={SECRET}", f"search={{storage:'grpc://a:{SECRET}@b:1'}}",
        f"storage=postgresql+psycopg://me:{SECRET}@host/db",
    ],
)  # fmt: skip
def test_a_password_on_the_command_line_is_refused_unseen(word: str) -> None:
    with pytest.raises(ConfigError, match="holds a password") as caught:
        storage.refuse_written_password(["optim.lr=1", word])
    assert SECRET not in str(caught.value)
    storage.refuse_written_password(
        ["search.storage=${oc.env:X}", "search.storage=postgresql://me:${oc.env:X}@host/db"]
    )


@pytest.mark.parametrize("word", ["search.storage", pytest.param("--storage", marks=pytest.mark.slow)])
def test_nothing_of_it_reaches_the_console_or_the_disk(word: str, tmp_path: Path) -> None:
    call = [
        sys.executable,
        "-m",
        "dvsn.search",
        "optim.lr=interval(0.1,1)",
        f"{word}=postgresql://me:{SECRET}=x@host/db",
    ]
    env = environment(tmp_path, DVSN_DEBUG="1")
    done = subprocess.run(call, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "\nerror: " in done.stderr and not [*tmp_path.iterdir()]
    assert SECRET not in done.stdout + done.stderr


def test_trials_do_not_know_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its variable, nor one with the whole URL; a variable that only resembles it stays."""
    url = f"postgresql://me:{SECRET}@host/db"
    monkeypatch.setenv("STORAGE", url)
    monkeypatch.setenv("PGPASSWORD", SECRET)
    monkeypatch.setenv("OTHER", f"{SECRET}-2")
    kept = Pool(1, without=storage.secrets(Address(url)))._environment(tmp_path)
    assert "STORAGE" not in kept and "PGPASSWORD" not in kept and kept["OTHER"] and "PATH" in kept
    assert SECRET not in repr(Address(url)) + Address(url).shown


def test_messages_hide_passwords() -> None:
    for text, shown in (
        ("x postgresql://u:p@ss/w:rd@h:1/db y", "x postgresql://u:***@h:1/db y"),
        ("mysql://h/d?user=a&password=s&x=1", "mysql://h/d?user=a&password=***&x=1"),
        ("grpc://h:1, s3://b/x:y@z, https://a.b:80/x", "grpc://h:1, s3://b/x:y@z, https://a.b:80/x"),
    ):  # fmt: skip
        assert without_passwords(text) == shown
