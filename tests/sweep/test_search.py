"""Searches: ranges, trials as processes, pruning, and going on after a kill. Trials are a few lines of Python."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import pytest

from dvsn.config import compose, menu
from dvsn.errors import ConfigError, DataError, UserError
from dvsn.report import command as report
from dvsn.report import search_study, search_table
from dvsn.sweep import pool, search, search_loop, search_space
from dvsn.sweep.search_space import Range
from tests.support.tiny_command import environment, write_tree

optuna = pytest.importorskip("optuna")

TRIAL = """
import csv, json, os, sys, time
from pathlib import Path
given = dict(word.split("=", 1) for word in sys.argv[1:] if not word.startswith("-"))
folder, x = Path(given["hydra.run.dir"].strip('"')), float(given["x"])
with (folder / "starts").open("a") as file: file.write(given.get("resume", "new") + "\\n")
if given.get("kind") == "broken": sys.exit("error: data.root: there is no folder")
if given.get("kind") == "crash" and x > 0.5: sys.exit(f"error: too much, {x}")
(folder / "checkpoints").mkdir(exist_ok=True)
(folder / "checkpoints" / "last.ckpt").touch()
for epoch in range(int(given.get("epochs", 1))):
    rows = [[i, x, ""] for i in range(epoch + 1)] + [[epoch + 1, "", 0.5]]
    (folder / "new.csv").write_text("step,val/score,train/loss\\n" + "".join(",".join(map(str, r)) + "\\n" for r in rows))
    (folder / "new.csv").replace(folder / "metrics.csv")
    if given.get("kind") == "slow" and x < 0.5: time.sleep(60)
time.sleep(float(given.get("sleep", 0)))
if given.get("kind") == "halt" and folder.name == "1" and "resume" not in given: time.sleep(60)
(folder / "result.json").write_text(json.dumps({"objective": x, "best": x}))
"""
X = Range("x", low=0.0, high=1.0)
OPTIONS: dict[str, Any] = {
    "trials": 3, "jobs": 1, "hours": None, "sampler": "random", "seed": 0, "pruner": "none", "startup_trials": 1,
    "warmup": 0, "storage": None, "study": "s", "heartbeat": 60,
}  # fmt: skip


def planned(folder: Path, *shared: str, ranges: tuple[Range, ...] = (X,), **options: Any) -> search.Plan:
    command = [sys.executable, "-S", "-c", TRIAL]
    given = {**OPTIONS, "dir": str(folder), **options}
    return search.Plan(list(shared), list(ranges), given, "val/score", "max", command)


def run(plan: search.Plan) -> Any:
    with search.alone_in(plan.folder) as lock:
        study = search.open_study(plan)
        search.Search(plan, study).run(lock)
    return study


def states(study: Any) -> list[str]:
    return [trial.state.name for trial in study.trials]


# Ranges -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = write_tree(tmp_path_factory.mktemp("ranges"), built=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(menu, "conf_dir", lambda: str(root / "conf"))
        opened = compose.opened("tiny", [])
        session = opened.__enter__()
    yield session.loader
    opened.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=interval(0.1,10)", Range("a", low=0.1, high=10.0)),
        ("a=interval(1,10)", Range("a", low=1.0, high=10.0)),
        ("+a=tag(log,interval(1e-3,1e-1))", Range("+a", low=1e-3, high=0.1, log=True)),
        ("a=int(interval(1,8))", Range("a", low=1, high=8, step=1, whole=True)),
        ("a=tag(log,int(interval(1,8)))", Range("a", low=1, high=8, step=1, whole=True, log=True)),
        ("a=range(1,9,3)", Range("a", low=1, high=7, step=3, whole=True)),
        ("a=range(9,1,-3)", Range("a", low=3, high=9, step=3, whole=True)),
        ("a=range(0.9,1.0,0.02)", Range("a", low=0.9, high=0.98, step=0.02)),
        ("a=choice(1,2,[3,null],'b c')", Range("a", choices=("1", "2", "[3,null]", r"b\ c"))),
        ("a=1", None), ("a=1,2,1", Range("a", choices=("1", "2"))), ("a=choice(7)", Range("a", choices=("7",))),
        ("network=glob(unet_*)", Range("network", choices=("unet_small",))),
    ],
)  # fmt: skip
def test_ranges_in_hydras_own_words(loader: Any, text: str, expected: Range | None) -> None:
    shared, ranges = search_space.parse(["b=1", text], loader)
    assert ranges == ([] if expected is None else [expected])
    assert shared == (["b=1", text] if expected is None else ["b=1"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a=interval(2,1)"], "the range is empty"), (["a=interval(1,1)"], "the range is empty"),
        (["a=range(3,3)"], "the range is empty"), (["a=interval(0,inf)"], "the range is empty"),
        (["a=tag(log,interval(0,1))"], "above 0"), (["a=tag(log,range(1,9,2))"], "has no step"),
        (["a=tag(fast,interval(0,1))"], "the tag fast"), (["a=tag(log,choice(1,2))"], "log with choices"),
        (["a=interval(x,y)"], r"a=interval\(x,y\): not understood, expected interval"),
        (["a=1", "a=interval(0,1)"], "a: is given twice"), (["search.trials=1,2"], "same for all trials"),
        (["a=[1"], "not understood. Write key=value"), (["network=glob(x*)"], "no choice"),
    ],
)  # fmt: skip
def test_ranges_that_are_none(loader: Any, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search_space.parse(words, loader)


def test_values_are_written_exactly(loader: Any) -> None:
    third = 0.1 + 0.2
    assert X.override(third) == "x=0.30000000000000004" and float(X.override(third)[2:]) == third
    grid = Range("x", low=0.0, high=1.0, step=0.1)
    assert grid.override(third) == "x=0.3"
    assert Range("+x", low=1, high=4, step=1, whole=True).override(3) == "+x=3"
    assert Range("x", choices=("'b c'",)).override("'b c'") == "x='b c'"
    both = [X, Range("y", choices=("a", "b", "c"))]
    assert search_space.corners(both) == [["x=0.0", "y=a"], ["x=1.0", "y=b"], ["x=0.0", "y=c"]]
    assert grid.distribution() == optuna.distributions.FloatDistribution(0.0, 1.0, step=0.1)
    whole = Range("x", low=1, high=8, step=1, whole=True, log=True).distribution()
    assert whole == optuna.distributions.IntDistribution(1, 8, log=True)


# The loop -----------------------------------------------------------------------------------------------


def test_a_search_and_its_report(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Trials above 0.5 crash: they end nothing; the table has the best first and the line that runs it again."""
    plan = planned(tmp_path / "s", "task=t", "kind=crash", ranges=(Range("+x", low=0.0, high=1.0),), trials=8)
    plan.command[-1] = TRIAL.replace('given["x"]', 'given["+x"]')
    study = run(plan)
    values = [trial.params["x"] for trial in study.trials]
    assert states(study) == ["FAIL" if x > 0.5 else "COMPLETE" for x in values] and len({*states(study)}) == 2
    best = max(x for x in values if x <= 0.5)
    text = report.report(tmp_path / "s")
    table = search_table.rows(study)
    assert study.best_value == best and table[0].score == best and table[0].number == values.index(best)
    finished = [row.score for row in table if row.state == "finished"]
    assert finished == sorted(finished, reverse=True) and table[-1].state == "failed"
    assert f"best again: python -m dvsn.train task=t kind=crash +x={best}" in text
    assert "val/score, more is better; of 8 trials" in text and "error: too much" in text
    rows = list(csv.DictReader((tmp_path / "s" / "search.csv").open()))
    assert [row["rank"] for row in rows[:2]] == ["1", "2"] and rows[0]["x"] == f"{best:.6g}"
    assert {row["rank"] for row in rows if row["state"] == "failed"} == {"-"}
    assert "| finished |" in (tmp_path / "s" / "search.md").read_text()
    picture = cv2.imread(str(tmp_path / "s" / "search.png"))
    green = (picture[:, :, 1] > 110) & (picture[:, :, 0] < 80) & (picture[:, :, 2] < 30)
    assert green.sum() > 50  # the best, over both axes
    job = json.loads((tmp_path / "s" / str(values.index(best)) / "job.json").read_text())
    assert job["overrides"] == sorted(["task=t", "kind=crash", f"+x={best!r}"])
    assert "[search] trial 0: task=t" in capfd.readouterr().out


def test_bad_trials_are_pruned(tmp_path: Path) -> None:
    """The first finishes; of the others those that are worse would run a minute, and are ended at their first score."""
    plan = planned(tmp_path / "s", "epochs=2", "kind=slow", trials=5, pruner="median", seed=3)
    begin = time.monotonic()
    study = run(plan)
    values = [trial.params["x"] for trial in study.trials]
    assert values[0] > 0.5, "the seed should begin with a good one"
    assert states(study)[0] == "COMPLETE" and time.monotonic() - begin < 30
    for trial in study.trials:
        wanted = "PRUNED" if trial.params["x"] < 0.5 else "COMPLETE"
        assert trial.state.name == wanted and trial.intermediate_values[1] == trial.params["x"]
    assert "PRUNED" in states(study)
    table = search_table.rows(study)
    assert [row.state for row in table] == sorted([row.state for row in table])  # finished, then pruned
    assert "pruned" in search_table.report(study).text


def test_startup_and_warmup_hold_pruning_back() -> None:
    """By hand: two trials have finished with 0.9 at every validation; a third has 0.1."""
    for options, pruned_at in (
        ({"startup_trials": 2, "warmup": 1}, 2), ({"startup_trials": 3, "warmup": 0}, None),
        ({"startup_trials": 1, "warmup": 0}, 1), ({"startup_trials": 1, "warmup": 0, "pruner": "none"}, None),
    ):  # fmt: skip
        given = {**OPTIONS, "pruner": "median", **options}
        study = optuna.create_study(direction="maximize", pruner=search_study.pruner(given))
        for _ in range(2):
            good = study.ask()
            for step in (1, 2, 3):
                good.report(0.9, step)
            study.tell(good, 0.9)
        bad, found = study.ask(), None
        for step in (1, 2, 3):
            bad.report(0.1, step)
            found = step if found is None and bad.should_prune() else found
        assert found == pruned_at, options


def test_a_continued_search_draws_as_an_unbroken_one(tmp_path: Path) -> None:
    for sampler in ("random", "tpe"):
        whole = run(planned(tmp_path / sampler / "a", trials=4, sampler=sampler))
        run(planned(tmp_path / sampler / "b", trials=2, sampler=sampler))
        parts = run(planned(tmp_path / sampler / "b", trials=4, sampler=sampler))
        assert [t.params for t in whole.trials] == [t.params for t in parts.trials]
        assert len({t.params["x"] for t in whole.trials}) == 4
        folder = tmp_path / sampler / "b"
        assert [(folder / str(i) / "starts").read_text() for i in range(4)] == ["new\n"] * 4
        assert run(planned(folder, trials=4, sampler=sampler)).trials[3].number == 3  # nothing is left to do


def test_a_killed_search_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL in the second trial: the repeated line goes on with it from its checkpoint; the first is not run again."""
    script = tmp_path / "call.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom tests.sweep.test_search import planned, run\n"
        "run(planned(Path(sys.argv[1]), 'kind=halt', trials=3))\n"
    )
    folder = tmp_path / "s"
    call, env = [sys.executable, str(script), str(folder)], environment(Path(__file__).parents[2])
    first = subprocess.Popen(call, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: (folder / "1" / "metrics.csv").is_file())
    first.kill()
    first.communicate(timeout=30)
    with (
        pytest.raises(ConfigError, match=r"a search runs, or a trial of one that was killed"),
        search.alone_in(folder),
    ):
        pass  # its trial lives on, asleep
    pid = trial_of(folder / "1")
    os.killpg(pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    with (folder / search_study.FILE).open("a") as file:
        file.write('{"op_code":')  # a line that a full disk cut off
    assert len(search_study.load(folder).trials) == 2  # a report reads, and leaves the file as it is
    assert (folder / search_study.FILE).read_text().endswith('{"op_code":')
    second = subprocess.run(call, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == 0, second.stderr
    study = search_study.load(folder)
    assert states(study) == ["COMPLETE"] * 3
    starts = [(folder / str(i) / "starts").read_text().split() for i in range(3)]
    assert starts == [["new"], ["new", "auto"], ["new"]]
    assert "resume" not in (folder / "1" / "job.json").read_text()


def trial_of(folder: Path) -> int:
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f'hydra.run.dir="{folder}"'.encode() in entry.read_bytes().split(b"\0"):
                return int(entry.parent.name)
        except OSError:
            continue
    raise AssertionError("the trial does not run")


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_was_finished_or_half_drawn_when_the_search_was_killed(tmp_path: Path) -> None:
    plan = planned(tmp_path / "s", trials=3)
    plan.folder.mkdir()
    study = search.open_study(plan)
    done = study.ask({"x": X.distribution()})
    (plan.folder / "0").mkdir()
    (plan.folder / "0" / "result.json").write_text('{"objective": 0.25}')
    study.ask()  # killed before a value was drawn
    del study, done
    study = run(plan)
    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"] and study.trials[0].value == 0.25
    assert not (plan.folder / "0" / "starts").exists() and not (plan.folder / "1").exists()


def test_several_trials_at_a_time(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study = run(planned(tmp_path / "s", trials=4, jobs=2, sampler="tpe"))
    assert states(study) == ["COMPLETE"] * 4
    begins = sorted(trial.datetime_start for trial in study.trials)
    assert begins[1] < min(trial.datetime_complete for trial in study.trials)
    assert "[search] trial 3" in capfd.readouterr().out


def test_trials_that_fail_alike_end_the_search(tmp_path: Path) -> None:
    plan = planned(tmp_path / "s", "kind=broken", trials=20)
    with pytest.raises(
        UserError, match=r"trials fail alike, and none has finished: data.root: there is no folder"
    ):
        run(plan)
    study = search_study.load(plan.folder)
    assert states(study) == ["FAIL", "FAIL"]
    assert study.trials[0].user_attrs["error"] == "error: data.root: there is no folder"


def test_another_search_is_not_mixed_in(tmp_path: Path) -> None:
    run(planned(tmp_path / "s", "a=1", trials=1))
    for plan in (
        planned(tmp_path / "s", "a=2"), planned(tmp_path / "s", "a=1", ranges=(Range("x", low=0.0, high=2.0),)),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"holds a search (with|over) .* Give it a folder"):
            search.open_study(plan)
    search.open_study(planned(tmp_path / "s", "a=1", trials=9, sampler="tpe"))


def test_the_line_has_the_values_that_ran(tmp_path: Path) -> None:
    """0.1 + 2 * 0.1 of a grid is 0.3 in both."""
    grid = Range("x", low=0.1, high=0.3, step=0.1)
    study = search.open_study(planned(make(tmp_path / "s"), "a=1", ranges=(grid,)))
    study.enqueue_trial({"x": 0.1 + 0.2})
    study.tell(study.ask({"x": grid.distribution()}), 1.0)
    line = search_table.best_line(study, search_table.rows(study))
    assert line == f"python -m dvsn.train a=1 {grid.override(0.1 + 0.2)}" and line.endswith("x=0.3")


def test_the_line_has_the_flags_of_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds the options of --config-dir, and builds what --allow has allowed; the line is composed as it stands."""
    (tmp_path / "my conf" / "network").mkdir(parents=True)
    (tmp_path / "my conf" / "network" / "own.yaml").write_text(
        "_target_: dvsn.networks.unet.UNet\nwidth: 8\ninput_channels: 3\noutput_channels: 3\n"
    )
    monkeypatch.setenv("DVSN_ALLOW", "my_package")
    argv = ["network=own", "optim.lr=interval(1e-4,1e-2)", f"--config-dir={tmp_path / 'my conf'}"]
    argv += [
        "network.input_channels=3",
        "network.output_channels=3",
        "name=own",
        f"search.dir={tmp_path / 's'}",
    ]
    monkeypatch.chdir(tmp_path)
    with compose.opened("search", argv) as session:
        chosen = search.plan(session, name="search", trial="train", module="dvsn.train")
    make(tmp_path / "s")
    study = search.open_study(chosen)
    study.tell(study.ask({"optim.lr": chosen.ranges[0].distribution()}), 1.0)
    line = shlex.split(search_table.best_line(study, search_table.rows(study)))
    assert line[:3] == ["python", "-m", "dvsn.train"] and "--allow=my_package" in line
    with compose.opened("train", line[3:]) as session:
        assert compose.compose(session.loader, session.name, session.overrides).cfg.network.width == 8


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_no_time_is_left(tmp_path: Path) -> None:
    assert run(planned(tmp_path / "s", hours=1e-9)).trials == []


def test_a_report_needs_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / search_study.FILE).write_text("{}\n")
    with pytest.raises(DataError, match="is not the file of a search"):
        report.report(tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(DataError, match=r"pip install 'dvsn\[hpo\]'"):
        report.report(tmp_path)


# The command ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no range is given"),
        (["optim.lx=interval(0,1)"], "optim.lx: unknown key. Did you mean 'optim.lr'"),
        (["network=unet,unet_smal"], "network=unet_smal: no such option"),
        (["optim.lr=choice(0.1,fast)"], "optim.lr: expected a number or null like the default"),
        (["optim.lr=interval(0,1)", "search.trails=3"], "search.trails: unknown key. Did you mean 'search.trials'"),
        (["optim.lr=interval(0,1)", "search.pruner=median"], "search.pruner: median reads metrics.csv"),
        (["optim.lr=interval(0,1)", "-m"], "-m: has no meaning for a search"),
        (["optim.lr=interval(0,1)", "monitor.name=null"], "monitor.name: there is no score"),
        (["monitor.mode=min,max"], "monitor: monitor.mode=max has another score"),
    ],
)  # fmt: skip
def test_mistakes_are_answered_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    root = search_tree(tmp_path)
    monkeypatch.setattr(menu, "conf_dir", lambda: str(root / "conf"))
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", ["search", "root=x", *words])
    with pytest.raises(ConfigError, match=message):
        search.search(trial="tiny", module="tiny_command")
    assert not (root / "runs").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trials", 0),
        ("jobs", 0),
        ("hours", 0),
        ("sampler", "grid"),
        ("seed", -1),
        ("pruner", "hyperband"),
        ("warmup", 0.5),
    ],
)
def test_options_of_a_search_that_mean_nothing(key: str, value: Any) -> None:
    search.check_search(OPTIONS)
    with pytest.raises(ConfigError, match=f"search.{key}: found {value!r}, expected "):
        search.check_search({**OPTIONS, key: value})


def search_tree(tmp_path: Path) -> Path:
    root = write_tree(tmp_path, built=False)
    with (root / "conf" / "tiny.yaml").open("a") as file:
        file.write("monitor: {name: val/score, mode: max}\n")
    text = Path(menu.conf_dir(), "search.yaml").read_text().replace("- train", "- tiny")
    (root / "conf" / "search.yaml").write_text(text.replace("pruner: median", "pruner: none"))
    return root


def test_the_whole_command(tmp_path: Path) -> None:
    """Over Hydra's composition, in a process of its own, with trials that are processes again."""
    root = search_tree(tmp_path)
    (root / "tiny_search.py").write_text(
        "import tiny_command\nfrom dvsn import command_line\nfrom dvsn.sweep import search\n"
        "command_line.run(lambda: search.search(trial='tiny', module='tiny_command'))\n"
    )
    call = [
        sys.executable,
        "-m",
        "tiny_search",
        "root=x",
        "seed=choice(1,2)",
        "search.trials=2",
        "search.seed=0",
    ]
    done = subprocess.run(call, env=environment(root), cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = root / "runs" / "run" / "search"
    assert "val/score, more is better; of 2 trials 2 finished" in done.stdout
    assert (
        "best again: python -m dvsn.train root=x seed=" in done.stdout and f"results: {folder}" in done.stdout
    )
    assert json.loads((folder / "0" / "result.json").read_text())["objective"] in (2.0, 4.0)
    assert (folder / "search.png").is_file() and "job " in (folder / "0" / "output.log").read_text()


def test_without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setattr(sys, "argv", ["search", "optim.lr=interval(0,1)"])
    with pytest.raises(ConfigError, match=r"Optuna is not installed. pip install 'dvsn\[hpo\]'"):
        search.search()


def test_a_training_does_not_know_the_options_of_a_search() -> None:
    with pytest.raises(ConfigError, match=r"search\.trials: unknown|search: unknown"):
        compose.hydra_main("train", lambda _: None, argv=["search.trials=3", "--cfg", "job"])


def test_scores_are_on_the_disk_after_each_validation(tmp_path: Path) -> None:
    from dvsn.engine.loggers import CsvLogger

    logger = CsvLogger(folder=str(tmp_path), flush_every=50)
    logger.log_metrics({"train/loss": 1.0}, step=0)
    assert not (tmp_path / "metrics.csv").exists()
    for step, score in ((1, 0.5), (2, 0.25)):
        logger.log_metrics({"val/score": score}, step=step)
        logger.log_metrics({"train/loss": 1.0}, step=step)
        assert search_loop.validations(tmp_path / "metrics.csv", "val/score") == [0.5, 0.25][:step]
    assert search_loop.validations(tmp_path / "none.csv", "val/score") == []
    assert pool.cores() >= 1
