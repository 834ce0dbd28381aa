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
from test_commands import environment, write_tree

from dvsn import launcher
from dvsn.errors import ConfigError

CALL = [sys.executable, "-m", "tiny_command", "root=x"]


def sweep(root: Path, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    call, env = [*CALL, "-m", *argv], environment(root, **variables)
    return subprocess.run(call, env=env, cwd=root, capture_output=True, text=True, check=False)


def test_a_sweep_with_failures(tmp_path: Path) -> None:
    """Good, wrong, crashed and killed jobs: all are run, each is reported, and results reach the table."""
    root = write_tree(tmp_path)
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
    root = write_tree(tmp_path)
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


def test_a_mistake_in_every_job_is_answered_once(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    done = sweep(root, "seed=1,2,3", "optim.lr=fast")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: optim.lr: expected a number, found 'fast' (text)\n"
    done = sweep(root, "network=unet,unet_smal")
    assert done.returncode == 2 and "network=unet_smal: no such option" in done.stderr


def test_a_swept_mistake_fails_its_job_only(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    (root / "mine" / "network").mkdir(parents=True)
    (root / "mine" / "network" / "wide.yaml").write_text("_target_: dvsn.networks.unet.UNet\nwidth: 99\n")
    done = sweep(
        root, "optim.lr=fast,0.1", "network=wide", f"--config-dir={root / 'mine'}", "hydra.sweep.dir=out put"
    )
    assert done.returncode == 1 and "[sweep] 1 of 2 jobs finished" in done.stdout
    assert "error: optim.lr: expected a number" in done.stdout and "job 0 99 None" in done.stdout
    assert (root / "out put" / "1" / "result.json").is_file()


def test_ctrl_c_stops_the_job_and_the_sweep(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
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
    root = write_tree(tmp_path)
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
    assert launcher.read_result(file) is None
    for text, value in (('{"objective": 2, "score": 3}', 2.0), ('{"objective": null, "score": 3}', 3.0),
                        ("[1]", None),
                        ('{"score": true}', None), ("{", None)):  # fmt: skip
        file.write_text(text)
        assert launcher.read_result(file) == value


def test_a_searching_sweeper_hears_of_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra's own sweeper only enumerates and goes on; one that searches gets the failure."""
    from hydra.core.utils import JobStatus

    codes = {"a=1": 0, "a=2": 1}

    def run(self: object, number: int, overrides: list[str], folder: Path, shared: list[str]) -> launcher.Job:
        return launcher.Job(number, overrides, folder, codes[overrides[0]], 0.0, 0.5, "")

    monkeypatch.setattr(launcher.ProcessLauncher, "_run", run)
    monkeypatch.setattr(launcher.ProcessLauncher, "_refuse_if_all_are_wrong", lambda *_: None)
    monkeypatch.setattr(launcher, "_shared_arguments", lambda _: [])
    for target, status in (("x.OptunaSweeper", JobStatus.FAILED), ("x.BasicSweeper", JobStatus.COMPLETED)):
        one = launcher.ProcessLauncher()
        one.config = OmegaConf.create(
            {"hydra": {"sweep": {"dir": str(tmp_path)}, "sweeper": {"_target_": target}}}
        )
        good, bad = one.launch([["a=1"], ["a=2"]], 5)
        assert good.return_value == 0.5 and bad.status is status
        assert [job.number for job in one.finished] == [5, 6]
    assert "LOCAL_RANK" in launcher.DDP_VARIABLES and "PATH" in os.environ
