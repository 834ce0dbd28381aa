"""Sweeps: one process per job, failures that end nothing, and one way to stop it all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dvsn.errors import ConfigError
from dvsn.sweep import job, launcher, pool
from tests.support.tiny_command import environment, write_tree

CALL = [sys.executable, "-m", "tiny_command", "root=x"]


def sweep(root: Path, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    call, env = [*CALL, "-m", *argv], environment(root, **variables)
    return subprocess.run(call, env=env, cwd=root, capture_output=True, text=True, check=False)


def test_a_sweep_with_failures(tmp_path: Path) -> None:
    """Good, wrong, crashed and killed jobs: all are run, each is reported, and results reach the table."""
    root = write_tree(tmp_path, built=False)
    done = sweep(root, "seed=1,11,13,2", LOCAL_RANK="0", MASTER_PORT="1", PL_GLOBAL_SEED="3")
    assert done.returncode == 1
    for line in (
        "job 1 64 None False",
        "job 11 64 None False",
        "job 13 64 None False",
        "job 2 64 None False",
    ):
        assert line in done.stdout  # the DDP variables are gone, and torch was never imported
    assert "[sweep] 2 of 4 jobs finished" in done.stdout
    table = done.stdout[done.stdout.index("[sweep] 2 of 4") :].splitlines()
    assert "finished" in table[1] and " 2 " in table[1] and "seed=1" in table[1]
    assert "FAILED (1)" in table[2] and "bad luck" in table[2]
    assert "FAILED (-9)" in table[3] and "SIGKILL" in table[3]
    assert "finished" in table[4] and " 4 " in table[4]
    assert "job 1 failed with exit code 1: internal error: RuntimeError: bad luck" in done.stderr
    assert "Error executing job" not in done.stderr and "Traceback" not in done.stderr
    folder = root / "sweeps" / "run"
    assert json.loads((folder / "3" / "result.json").read_text()) == {"objective": 4.0}
    assert "bad luck" in (folder / "1" / "output.log").read_text()


def test_a_repeated_sweep_runs_only_what_is_missing(tmp_path: Path) -> None:
    root = write_tree(tmp_path, built=False)
    with (root / "conf" / "tiny.yaml").open("a") as file:
        file.write("sweep: {skip_finished: false}\n")
    sweep(root, "seed=1,11")
    folder = root / "sweeps" / "run"
    before = (folder / "0" / "result.json").stat().st_mtime_ns
    done = sweep(root, "seed=2,1,11", "sweep.skip_finished=true")
    assert done.returncode == 1 and "[sweep] 2 of 3 jobs finished" in done.stdout
    assert "[sweep] job 0: finished before" in done.stdout and "[sweep] job 1: root=x seed=11" in done.stdout
    assert (folder / "0" / "result.json").stat().st_mtime_ns == before
    assert json.loads((folder / "2" / "result.json").read_text()) == {
        "objective": 4.0
    }  # seed=2, the next free number
    assert not (folder / "3").exists()


def test_a_job_is_found_again_by_its_overrides_in_any_order(tmp_path: Path) -> None:
    """Those of Hydra and of the sweep are not the job's."""
    place = tmp_path / "7"
    place.mkdir()
    own = job.own_overrides(["seed=1", "optim=adam", "sweep.jobs=2", "hydra.verbose=true"])
    assert own == ["optim=adam", "seed=1"]
    (place / "job.json").write_text(json.dumps({"overrides": own}))
    assert job.find_place(tmp_path, 0, ["+sweep.jobs=3", "optim=adam", "seed=1"]) == place
    assert job.find_place(tmp_path, 0, ["seed=1", "optim=adam"]) == place
    assert job.find_place(tmp_path, 7, ["seed=2", "optim=adam"]) == tmp_path / "8"


def test_a_mistake_in_every_job_is_answered_once(tmp_path: Path) -> None:
    root = write_tree(tmp_path, built=False)
    done = sweep(root, "seed=1,2,3", "optim.lr=fast")
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr
        == "error: optim.lr: expected a number or null like the default 0.0002, found 'fast' (text)\n"
    )
    done = sweep(root, "network=unet,unet_smal")
    assert done.returncode == 2 and "network=unet_smal: no such option" in done.stderr
    assert not [*root.rglob("multirun.yaml")], "and leaves no folder"


def test_a_swept_mistake_fails_its_job_only(tmp_path: Path) -> None:
    root = write_tree(tmp_path, built=False)
    (root / "mine" / "network").mkdir(parents=True)
    (root / "mine" / "network" / "wide.yaml").write_text("_target_: dvsn.networks.unet.UNet\nwidth: 99\n")
    done = sweep(
        root, "optim.lr=fast,0.1", "network=wide", f"--config-dir={root / 'mine'}", "hydra.sweep.dir=out put"
    )
    assert done.returncode == 1 and "[sweep] 1 of 2 jobs finished" in done.stdout
    assert "error: optim.lr: expected a number" in done.stdout and "job 0 99 None" in done.stdout
    assert (root / "out put" / "1" / "result.json").is_file()


def test_ctrl_c_stops_the_job_and_the_sweep(tmp_path: Path) -> None:
    root = write_tree(tmp_path, built=False)
    process = subprocess.Popen(
        [*CALL, "-m", "seed=14,1"], env=environment(root), cwd=root, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # a shell starts what runs in its background deaf to Ctrl-C, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    log = root / "sweeps" / "run" / "0" / "output.log"
    end = time.monotonic() + 60
    while (
        process.poll() is None
        and time.monotonic() < end
        and not (log.is_file() and "job 14" in log.read_text())
    ):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "interrupted: job 0 was stopped, and the sweep with it\n"
    assert (log.parent / "saved").exists(), "the job was not given time to save"
    assert "job 1 " not in out.replace("[sweep]", "")


def test_several_devices_need_a_process_per_job(tmp_path: Path) -> None:
    root = write_tree(tmp_path, built=False)
    done = sweep(root, "seed=1,2", "hydra/launcher=basic", "trainer.devices=2")
    assert done.returncode == 2
    assert "hydra/launcher=process" in done.stderr and "trainer.strategy=ddp_spawn" in done.stderr
    done = sweep(root, "seed=1,2", WORLD_SIZE="2")
    assert done.returncode == 2 and "without torchrun" in done.stderr


@pytest.mark.parametrize(
    ("trainer", "refused"),
    [
        ({"devices": 1}, False), ({"devices": 2}, True), ({"devices": "2"}, True), ({"devices": "0,1"}, True),
        ({"devices": [0]}, False), ({"devices": [0, 1]}, True), ({"devices": -1}, True),
        ({"devices": "auto"}, False),
        ({"strategy": "ddp"}, True), ({"strategy": "ddp_find_unused_parameters_true"}, True), ({}, False),
        ({"devices": 2, "strategy": "ddp_spawn"}, False), ({"devices": 2, "strategy": "ddp_fork"}, False),
    ],
)  # fmt: skip
def test_which_jobs_cannot_share_a_process(trainer: dict[str, object], refused: bool) -> None:
    cfg = OmegaConf.create({"trainer": trainer})
    if refused:
        with pytest.raises(ConfigError, match="hydra/launcher=process"):
            launcher.refuse_devices(cfg)
    else:
        launcher.refuse_devices(cfg)


def test_results(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    assert job.read_result(file) is None
    for text, value in (('{"objective": 2, "score": 3}', 2.0), ('{"objective": null, "score": 3}', 3.0),
                        ("[1]", None),
                        ('{"score": true}', None), ("{", None)):  # fmt: skip
        file.write_text(text)
        assert job.read_result(file) == value


def test_a_searching_sweeper_hears_of_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra's own sweeper only enumerates and goes on; one that searches gets the failure."""
    from hydra.core.utils import JobStatus

    fake = (
        "import pathlib, sys; folder = sys.argv[2].partition('=')[2].strip('\"');"
        "pathlib.Path(folder, 'result.json').write_text('{\"score\": 0.5}'); sys.exit(sys.argv[1] == 'a=2')"
    )
    monkeypatch.setattr(launcher, "_command", lambda: [sys.executable, "-c", fake])
    monkeypatch.setattr(launcher.ProcessLauncher, "_refuse_if_all_are_wrong", lambda *_: None)
    monkeypatch.setattr(launcher, "shared_arguments", lambda _: [])
    for target, status in (("x.OptunaSweeper", JobStatus.FAILED), ("x.BasicSweeper", JobStatus.COMPLETED)):
        one = launcher.ProcessLauncher()
        one.config = OmegaConf.create(
            {"hydra": {"sweep": {"dir": str(tmp_path)}, "sweeper": {"_target_": target}}}
        )
        good, bad = one.launch([["a=1"], ["a=2"]], 5)
        assert good.return_value == 0.5 and bad.status is status
        assert [each.number for each in one.finished] == [5, 6]
    assert "LOCAL_RANK" in pool.DDP_VARIABLES and "PATH" in os.environ


# Several at a time ------------------------------------------------------------------------------------------

FAKE = """
import json, os, sys, time
from pathlib import Path
given = dict(word.split("=", 1) for word in sys.argv[1:])
folder, begin = Path(given["hydra.run.dir"].strip('"')), time.monotonic()
with (folder / "starts").open("a") as file: file.write("x")
print("threads", os.environ.get("OMP_NUM_THREADS"), flush=True)
print("\\rbar 1\\rbar 2", end="", flush=True)
if given.get("hang"):
    (folder / "hangs").touch()
    try: time.sleep(60)
    finally: (folder / "saved").touch()
time.sleep(float(given.get("sleep", 0)))
print(" \u00e9nd", flush=True)
times = [begin, time.monotonic()]
group = os.environ.get("WANDB_RUN_GROUP")
(folder / "result.json").write_text(json.dumps({"score": float(given["a"]), "time": times, "group": group}))
"""


def launched(
    folder: Path,
    jobs: int,
    overrides: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    again: bool = False,
) -> launcher.ProcessLauncher:
    monkeypatch.setattr(launcher, "_command", lambda: [sys.executable, "-S", "-c", FAKE])
    monkeypatch.setattr(launcher.ProcessLauncher, "_refuse_if_all_are_wrong", lambda *_: None)
    monkeypatch.setattr(launcher, "shared_arguments", lambda _: [])
    one = launcher.ProcessLauncher()
    sweeper = {"_target_": "x.BasicSweeper"}
    one.config = OmegaConf.create(
        {
            "hydra": {"sweep": {"dir": str(folder)}, "sweeper": sweeper},
            "sweep": {"jobs": jobs, "skip_finished": again},
        }
    )
    one.returns = one.launch(overrides, 0)  # type: ignore[attr-defined]
    return one


def most_at_once(folder: Path) -> int:
    times = [json.loads(file.read_text())["time"] for file in folder.glob("*/result.json")]
    return max(sum(begin <= moment < end for begin, end in times) for moment, _ in times)


def test_two_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Never more; results in the order of the jobs, though the first ends last; lines of the console say whose they are."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(pool, "cores", lambda: 7)
    overrides = [["a=0", "sleep=1.0"], ["a=1", "sleep=0.3"], ["a=2", "sleep=0.3"], ["a=3", "sleep=0.3"]]
    one = launched(tmp_path, 2, overrides, monkeypatch)
    assert most_at_once(tmp_path) == 2
    assert [each.return_value for each in one.returns] == [0.0, 1.0, 2.0, 3.0]  # type: ignore[attr-defined]
    assert [each.number for each in one.finished] == [0, 1, 2, 3] and one.finished[0].seconds > 0.9
    shown = [line for line in capfd.readouterr().out.splitlines() if not line.startswith("[sweep]")]
    assert sorted(set(shown)) == sorted(
        f"[{n}] {text}" for n in range(4) for text in ("threads 3", "bar 2 \u00e9nd")
    )
    for number in range(4):
        log = (tmp_path / str(number) / "output.log").read_bytes().decode()
        assert log == "threads 3\n\rbar 1\rbar 2 \u00e9nd\n"


def test_one_after_another_has_the_console_and_the_cores_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("WANDB_RUN_GROUP", raising=False)
    launched(tmp_path, 1, [["a=0"], ["a=1"]], monkeypatch)
    assert most_at_once(tmp_path) == 1
    assert "threads None\n\rbar 1\rbar 2 \u00e9nd\n[sweep] job 1" in capfd.readouterr().out
    results = [json.loads(file.read_text()) for file in tmp_path.glob("*/result.json")]
    assert [each["group"] for each in results] == [tmp_path.name] * 2, (
        "the runs of a sweep are one group of W&B"
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # the user's own
    launched(tmp_path / "own", 2, [["a=0"]], monkeypatch)
    assert "threads 5" in (tmp_path / "own" / "0" / "output.log").read_text()


def test_what_is_finished_is_skipped_by_several_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is asked for twice is run once, also when it still runs as it is asked for again."""
    launched(tmp_path, 2, [["a=0"], ["a=1"]], monkeypatch)
    before = (tmp_path / "1" / "result.json").stat().st_mtime_ns
    again = launched(
        tmp_path, 2, [["a=2", "sleep=0.3"], ["a=2", "sleep=0.3"], ["a=1"]], monkeypatch, again=True
    )
    assert [each.number for each in again.finished] == [2, 2, 1]
    assert (tmp_path / "2" / "starts").read_text() == "x"
    assert [each.return_value for each in again.returns] == [2.0, 2.0, 1.0]  # type: ignore[attr-defined]
    assert (tmp_path / "1" / "result.json").stat().st_mtime_ns == before and not (tmp_path / "3").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_all_jobs(tmp_path: Path, number: int, code: int) -> None:
    """Each is told, by the same signal, and may save."""
    script = tmp_path / "call.py"
    script.write_text(
        "import signal, sys\nfrom pathlib import Path\nfrom dvsn import command_line\n"
        "from dvsn.sweep.pool import Pool\n"
        "from tests.sweep.test_launcher import FAKE\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def main():\n"
        "    with Pool(2) as pool:\n"
        "        for n in range(2):\n"
        "            fake = FAKE.replace('import json', 'import json, signal; "
        "signal.signal(15, lambda *_: sys.exit(1)); signal.signal(2, signal.default_int_handler); import json', 1)\n"
        "            pool.start(n, ['a=1', 'hang=1'], Path(sys.argv[1], str(n)), [sys.executable, '-S', '-c', fake])\n"
        "        while True: pool.wait()\n"
        "command_line.run(main)\n"
    )
    call = [sys.executable, str(script), str(tmp_path)]
    process = subprocess.Popen(
        call,
        env=environment(Path(__file__).parents[2]),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + 60
    while time.monotonic() < end and not all((tmp_path / str(n) / "hangs").exists() for n in range(2)):
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    first = "interrupted" if number == signal.SIGINT else "stopped by SIGTERM"
    assert err.splitlines()[0] == f"{first}: jobs 0, 1 were stopped, and the sweep with them"
    assert all((tmp_path / str(n) / "saved").exists() for n in range(2))


def test_a_job_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "GRACE", 0.2)
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    with pool.Pool(1) as one:
        process = one.start(0, [], tmp_path / "0", [sys.executable, "-S", "-c", deaf])
        while b"deaf" not in process.tail:
            time.sleep(0.02)
        process.stop()
        assert one.wait() == [process] and process.job().code == -9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep.jobs=0"], "error: sweep.jobs: found 0, expected a whole number, 1 or more."),
        (
            ["sweep.jobs=2", "hydra/launcher=basic"],
            "error: sweep.jobs: found 2 with hydra._internal.core_plugins.basic",
        ),
    ],
)
def test_numbers_of_jobs_that_mean_nothing(tmp_path: Path, words: list[str], message: str) -> None:
    root = write_tree(tmp_path, built=False)
    with (root / "conf" / "tiny.yaml").open("a") as file:
        file.write("sweep: {jobs: 1, skip_finished: false}\n")
    done = sweep(root, "seed=1,2", *words)
    assert done.returncode == 2 and done.stderr.startswith(message) and done.stdout == ""


@pytest.mark.slow  # tests/test_readme.py has the same rule for every documented sweep, and one that trains
def test_a_sweep_of_the_real_command_has_a_folder_named_after_its_choices(tmp_path: Path) -> None:
    """`name` in conf/train.yaml reads `${hydra:...}`, which must resolve before any job is composed."""
    words = [
        "-m",
        "task=pix2pix",
        "network=unet_128,resnet_6blocks",
        "weights=none.ckpt",
    ]  # ends every job early
    done = subprocess.run(
        [sys.executable, "-m", "dvsn.train", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert "0 of 2 jobs finished" in done.stdout, done.stderr
    assert "none.ckpt: " in done.stdout
    assert len(list(tmp_path.glob("runs/pix2pix_unet_128+resnet_6blocks_street/sweep_*/1/output.log"))) == 1
