"""Folders of runs and sweeps: where they may lie, and that each belongs to one run."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dvsn.config import folders
from dvsn.errors import ConfigError, DataError
from tests.support.tiny_command import environment


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "SLURM_PROCID", "RANK", "LOCAL_RANK",
                 folders.JOB_FOLDER):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


def claim(folder: Path, *, given: bool = False, resume: bool = False, record: bool = True) -> str:
    """A run from its beginning to its end; the name of its folder."""
    with folders.claimed(folder, given=given, resume=resume) as place:
        if record:
            (place / "config.yaml").touch()
            (place / "command.txt").write_text(f"python -m dvsn.train {shlex.join(sys.argv[1:])}\n")
        return place.name


# Each run its own -------------------------------------------------------------------------------------------


def test_two_starts_within_a_second_have_two_folders(tmp_path: Path) -> None:
    """One after the other, and at the same time."""
    stamp = tmp_path / "runs" / "2026-01-01_00-00-00"
    own = {"given": False, "resume": False}
    with folders.claimed(stamp, **own) as first, folders.claimed(stamp, **own) as second:
        assert (first.name, second.name) == (stamp.name, f"{stamp.name}_2")
        assert claim(stamp, record=False) == f"{stamp.name}_3"
    assert claim(stamp) == f"{stamp.name}_4", "the folder of a run that left nothing is its own too"


def test_processes_that_start_at_once_share_no_folder(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from dvsn.config import folders\n"
        "with folders.claimed(Path('runs/stamp'), given=False, resume=False) as place:\n"
        "    print(place.name, flush=True); sys.stdin.read()\n"
    )
    call = [sys.executable, "-c", code]
    env = environment(tmp_path)
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(call, cwd=tmp_path, env=env, stdin=pipe, stdout=pipe, text=True) for _ in range(4)
    ]
    names = [process.stdout.readline().strip() for process in started]  # type: ignore[union-attr]
    for process in started:
        process.communicate("")
    assert sorted(names) == ["stamp", "stamp_2", "stamp_3", "stamp_4"]


def test_a_given_folder_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "mine"
    assert claim(place, given=True) == "mine"
    with pytest.raises(ConfigError, match=r"^hydra\.run\.dir: .*/mine holds a run\. .* resume=auto"):
        claim(place, given=True)
    assert claim(place, given=True, resume=True) == "mine"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    assert claim(tmp_path / "empty", given=True) == "empty"


def test_a_folder_in_which_a_run_goes_on_is_refused(tmp_path: Path) -> None:
    """Also to one that continues it, and before the first has left anything."""
    place = tmp_path / "mine"
    with folders.claimed(place, given=True, resume=False):
        for given, resume in ((True, False), (True, True), (False, True)):
            with pytest.raises(ConfigError, match=r"mine is the one of a run that goes on"):
                claim(place, given=given, resume=resume)
    assert claim(place, given=True, record=False) == "mine"


def test_a_killed_run_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from dvsn.config import folders\n"
        "with folders.claimed(Path('mine'), given=True, resume=False): os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(tmp_path), check=False)
    assert (tmp_path / "mine").is_dir() and claim(tmp_path / "mine", given=True) == "mine"


def test_a_process_that_outlives_a_killed_run_does_not_hold_its_folder(tmp_path: Path) -> None:
    """As a process that loads data does, for some seconds."""
    code = (
        "import os, time; from pathlib import Path; from dvsn.config import folders\n"
        "with folders.claimed(Path('mine'), given=True, resume=False):\n"
        "    if os.fork() == 0:\n"
        "        print(os.getpid(), flush=True)\n"  # it runs, so it has let go
        "        time.sleep(60)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    call = [sys.executable, "-c", code]
    with subprocess.Popen(
        call, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.wait()
        try:
            assert claim(tmp_path / "mine", given=True) == "mine"
        finally:
            os.kill(child, signal.SIGKILL)


def test_further_processes_enter_the_folder_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "mine"
    for variable in ("LOCAL_RANK", "RANK", "SLURM_PROCID"):
        with folders.claimed(place, given=False, resume=True) as first, pytest.MonkeyPatch.context() as patch:
            (first / "config.yaml").touch()
            patch.setenv(variable, "1")
            assert claim(place, record=False) == "mine" and claim(place, given=True, record=False) == "mine"


def test_a_job_of_a_sweep_has_the_folder_that_was_made_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the second time, when it failed the first; a run that is started in it has not."""
    place = tmp_path / "sweep" / "0"
    monkeypatch.setenv(folders.JOB_FOLDER, str(place))
    assert [claim(place, given=True) for _ in range(2)] == ["0", "0"]
    with pytest.raises(ConfigError, match="holds a run"):
        claim(tmp_path / "sweep" / "1", given=True)
        claim(tmp_path / "sweep" / "1", given=True)


# SLURM ------------------------------------------------------------------------------------------------------


def test_a_requeued_job_finds_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trainings of one job, of the same name: after the requeue each finds its folder by its command line."""
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    place = tmp_path / "runs" / folders.run_stamp("name", None)
    assert place.name == "slurm_77"
    lines = (["train", "seed=0"], ["train", "seed=1"])
    found = []
    for restarts in ("0", "1", "2"):
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        for line in lines:
            monkeypatch.setattr(sys, "argv", line)
            found.append(claim(place))
    assert found == ["slurm_77", "slurm_77_2"] * 3
    monkeypatch.setattr(sys, "argv", ["train", "seed=2"])
    assert claim(place) == "slurm_77_3"


def test_steps_of_a_slurm_job_have_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    found = []
    for step in ("0", "1", "12", "4294967291", "batch"):
        monkeypatch.setenv("SLURM_STEP_ID", step)
        found.append(folders.run_stamp("name", None))
    assert found == ["slurm_77", "slurm_77_step1", "slurm_77_step12", "slurm_77", "slurm_77"]


# Sweeps -----------------------------------------------------------------------------------------------------


def test_sweeps_have_folders_of_their_own(tmp_path: Path) -> None:
    stamp = tmp_path / "runs" / "sweep_2026"
    assert [folders.new_sweep(stamp, given=False, again=False).name for _ in range(3)] == [
        "sweep_2026", "sweep_2026_2", "sweep_2026_3",
    ]  # fmt: skip
    mine = tmp_path / "mine"
    assert folders.new_sweep(mine, given=True, again=False) == mine
    (mine / "0").mkdir()
    (mine / "0" / "job.json").touch()
    assert folders.new_sweep(mine, given=True, again=True) == mine
    with pytest.raises(
        ConfigError, match=r"^hydra\.sweep\.dir: .*mine holds the jobs of a sweep.*skip_finished=true"
    ):
        folders.new_sweep(mine, given=True, again=False)


# Where ------------------------------------------------------------------------------------------------------


def test_where_a_folder_may_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, other = tmp_path / "work", tmp_path / "other"
    for folder in (work, other, tmp_path / "work2"):
        folder.mkdir()
    monkeypatch.chdir(work)
    (work / "runs").symlink_to(other)  # the user's own
    (work / "link").symlink_to(other)
    cases = {
        ("x/y", None): True, (f"{work}/x", None): True, (".", None): True, ("runs/x", None): True,
        ("../work2/x", None): False, (f"{tmp_path}/work2/x", None): False, ("link/x", None): True,
        ("runs/../../other2", None): False, ("/", None): False,
        (f"{tmp_path}/work2/x", f"{tmp_path}/work2/x"): True, ("../work2", "../work2"): True,
        (f"{tmp_path}/work2/a", f"{tmp_path}/work2/${{name}}"): True,
        (f"{tmp_path}/work2/../a", f"{tmp_path}/work2/${{name}}"): False,
        (f"{tmp_path}/work2a", f"{tmp_path}/work2${{name}}"): True,
        (f"{tmp_path}/work2/a", "${name}"): False, ("/etc/a", "/${name}"): True,
    }  # fmt: skip
    for (folder, spelt), good in cases.items():
        if good:
            assert folders.check_place("hydra.run.dir", folder, spelt=spelt).is_absolute()
        else:
            with pytest.raises(ConfigError, match=r"outside of the working directory.* hydra\.run\.dir=/"):
                folders.check_place("hydra.run.dir", folder, spelt=spelt)
    (work / "runs").unlink()
    with pytest.raises(ConfigError, match="outside"):
        folders.check_place("hydra.run.dir", "link/x")
    for wrong in (None, 3, ["x"], "", "a\0b"):
        with pytest.raises(ConfigError, match=r"^hydra\.run\.dir: found"):
            folders.check_place("hydra.run.dir", wrong)


def test_the_whole_way(tmp_path: Path) -> None:
    """Two trainings at the same moment, through the command; and one into a folder that holds one."""
    from tests.support.tiny_command import write_tree

    root = write_tree(tmp_path, built=False)
    tree = root / "conf" / "tiny.yaml"
    tree.write_text(tree.read_text().replace('"runs/${name}"', '"runs/${run_stamp:${name},null}"'))
    call = [sys.executable, "-m", "tiny_command", "root=x"]
    while time.time() % 1 > 0.5:  # within one second
        time.sleep(0.01)
    started = [
        subprocess.Popen(call, cwd=root, env=environment(root), stdout=subprocess.DEVNULL) for _ in range(2)
    ]
    assert [process.wait() for process in started] == [0, 0]
    made = list((root / "runs").iterdir())
    assert len(made) == 2 and all((folder / "result.json").is_file() for folder in made)
    again = [*call, f"hydra.run.dir={made[0]}"]
    done = subprocess.run(again, cwd=root, env=environment(root), capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(f"error: hydra.run.dir: {made[0]} holds a run")


def test_a_refused_run_leaves_no_folder(tmp_path: Path) -> None:
    """Nor those above that were made for it; one that was there stays, and so does what has begun."""
    place = tmp_path / "runs" / "mine" / "1"
    with pytest.raises(DataError), folders.claimed(place, given=False, resume=False):
        for name in ("config.yaml", "train.log"):
            (place / name).touch()
        (place / "checkpoints").mkdir()
        raise DataError("there is no such data set")
    assert list(tmp_path.iterdir()) == []

    place.parent.mkdir(parents=True)
    with pytest.raises(DataError), folders.claimed(place, given=True, resume=False):
        (place / "metrics.csv").touch()
        raise DataError("a picture is broken")
    assert sorted(file.name for file in place.iterdir()) == [".lock", "metrics.csv"]

    with pytest.raises(RuntimeError), folders.claimed(place.with_name("2"), given=True, resume=False):
        raise RuntimeError("a fault of the program keeps its messages")
    assert place.with_name("2").is_dir()


def test_a_finished_run_leaves_no_empty_folder(tmp_path: Path) -> None:
    with folders.claimed(tmp_path / "run", given=True, resume=False) as place:
        (place / "pictures").mkdir()
        (place / "checkpoints").mkdir()
        (place / "checkpoints" / "last.ckpt").touch()
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == [".lock", "checkpoints"]


def test_a_home_of_nobody_is_refused_in_words() -> None:
    assert folders.at_home("~/x", option="data.root") == Path.home() / "x"
    with pytest.raises(
        ConfigError, match=r"^data\.root: ~nobody-of-this-name/x names a user who is not there"
    ):
        folders.at_home("~nobody-of-this-name/x", option="data.root")


BLOCKED = {
    "file": "file is a file, expected a folder",
    "file/below": "file is a file, expected a folder",
    "gone": "gone is a link to what is not there, expected a folder",
    "gone/below": "gone is a link to what is not there, expected a folder",
    "x" * 300: "File name too long",
    "a\0b": "null",
    "/proc/mine": "No such file or directory",
}


@pytest.mark.parametrize("name", BLOCKED)
def test_a_folder_that_cannot_be_is_refused_in_words(name: str, tmp_path: Path) -> None:
    """Before any work; of a run, of a sweep, and of what commands write."""
    (tmp_path / "file").touch()
    (tmp_path / "gone").symlink_to("nowhere")
    before = sorted(tmp_path.iterdir())
    said = rf"^output: \S+ cannot be written: .*{BLOCKED[name]}.*\. Give another folder\.$"
    with pytest.raises(ConfigError, match=said):
        folders.require_writable(name, option="output")
    for given in (True, False):
        with (
            pytest.raises(ConfigError, match=BLOCKED[name]),
            folders.claimed(Path(name), given=given, resume=False),
        ):
            raise AssertionError
        with pytest.raises(ConfigError, match=BLOCKED[name]):
            folders.new_sweep(Path(name), given=given, again=False)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_can_be_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "there").mkdir()
    for name in ("new", "new/below", "there", "there/below"):
        assert folders.require_writable(f"~/{name}", option="output") == tmp_path / name
    assert [each.name for each in tmp_path.rglob("*")] == ["there"]


@pytest.mark.parametrize("word", ["run_dir=~/here", "hydra.run.dir='~/here'", "hydra.run.dir=~/here"])
def test_a_run_may_lie_at_home(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the shell has not replaced `~`."""
    from dvsn.config.compose import hydra_main

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    found = []
    hydra_main(
        "train", lambda tree: found.append(tree["run_dir"]), argv=["task=classification", word], keeps=True
    )
    assert found == [str(tmp_path / "home" / "here")] and not (tmp_path / "~").exists()
