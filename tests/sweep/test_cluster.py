"""Sweeps on clusters: submitit's local processes, SLURM's commands as a play, Ray on loopback; and a job by itself."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from dvsn.config import compose, hydra_node, launchers, menu
from dvsn.errors import ConfigError
from dvsn.sweep import cluster, launcher, remote
from tests.support.tiny_command import environment, write_tree

CALL = [sys.executable, "-m", "tiny_command", "root=x", "-m"]


def tree(tmp_path: Path) -> Path:
    root = write_tree(tmp_path, built=False)
    with (root / "conf" / "tiny.yaml").open("a") as file:
        file.write("sweep: {jobs: 1, skip_finished: false}\n")
    return root


def sweep(root: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = environment(root, **variables)
    return subprocess.run(
        [*CALL, *words], env=env, cwd=root, capture_output=True, text=True, check=False, timeout=300
    )


# One job ------------------------------------------------------------------------------------------------------

TRIAL = """
import json, os, sys, time
from pathlib import Path
given = dict(word.split("=", 1) for word in sys.argv[1:])
folder = Path(given["hydra.run.dir"].strip('"'))
with (folder / "starts").open("a") as file: file.write(given.get("resume", "new") + "\\n")
(folder / "checkpoints").mkdir(exist_ok=True)
(folder / "checkpoints" / "last.ckpt").touch()
print("group", os.environ["WANDB_RUN_GROUP"], os.getcwd(), flush=True)
if given.get("hang") and "resume" not in given: time.sleep(60)
(folder / "result.json").write_text(json.dumps({"score": float(given["a"])}))
"""


def job(folder: Path, *overrides: str, token: str = "t") -> remote.RemoteJob:
    words = ["-S", "-c", TRIAL]
    return remote.RemoteJob(3, list(overrides), str(folder), words, "group", str(folder.parent), token)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [each for each in os.environ if each.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_a_job_that_is_called_again_goes_on_in_its_folder(tmp_path: Path) -> None:
    """By the same submission, as after a lost machine; another one of the same folder starts anew."""
    first = job(tmp_path / "3", "a=2")
    assert first() | {"seconds": 0} == {"code": 0, "seconds": 0, "error": ""}
    assert remote.call(remote.plain(first))["code"] == 0
    assert job(tmp_path / "3", "a=2", token="later")()["code"] == 0
    assert (tmp_path / "3" / "starts").read_text().split() == ["new", "auto", "new"]
    assert json.loads((tmp_path / "3" / "job.json").read_text()) == {"overrides": ["a=2"]}
    assert (tmp_path / "3" / "output.log").read_text().startswith(f"group group {tmp_path}")


def test_what_is_sent_is_plain(tmp_path: Path) -> None:
    """A pickle of words and of one class of dvsn, which any Python reads without Hydra."""
    import pickletools

    sent = pickle.dumps(job(tmp_path / "3", "a=2"), protocol=2)
    names = [arg for op, arg, _ in pickletools.genops(sent) if op.name in ("GLOBAL", "STACK_GLOBAL")]
    assert names == [
        "copyreg _reconstructor",
        "dvsn.sweep.remote RemoteJob",
        "__builtin__ object",
    ] or names == ["dvsn.sweep.remote RemoteJob"], names
    json.dumps(remote.plain(pickle.loads(sent)))


def test_a_further_process_joins_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_JOB_NAME", "dvsn")
    (tmp_path / "3").mkdir()
    assert job(tmp_path / "3", "a=2")()["code"] == 0
    assert not (tmp_path / "3" / "job.json").exists() and (tmp_path / "3" / "starts").read_text() == "new\n"


# Options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", launchers.OPTIONS)
def test_usual_options_are_right(name: str) -> None:
    launchers.check_launcher(launchers.node(name))
    assert (
        launchers.node(name)["_target_"]
        == f"hydra_plugins.dvsn.{ {c.name: c.__name__ for c in launcher.CLUSTERS}[name] }"
    )


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("submitit_slurm", "partition", "gpu,big"), ("submitit_slurm", "gres", "gpu:a100:2"),
        ("submitit_slurm", "mem_gb", 1.5),
        ("submitit_slurm", "constraint", "a100|h100"), ("submitit_slurm", "nodelist", "node[01-04]"),
        ("submitit_slurm", "gpus_per_node", 0), ("submitit_slurm", "partition", None), ("ray", "address", "auto"),
        ("ray", "address", "ray://head.cluster:10001"), ("ray", "num_gpus", 0.5),
    ],
)  # fmt: skip
def test_options_that_people_need(name: str, key: str, value: Any) -> None:
    launchers.check_launcher({**launchers.node(name), key: value})


HOSTILE: list[tuple[str, str, Any]] = [
    *((name, key, ["touch /tmp/canary"]) for name in launchers.OPTIONS for key in launchers.COMMANDS),
    ("submitit_local", "stderr_to_stdout", True), ("submitit_local", "visible_gpus", [0]), ("ray", "_temp_dir", "/etc"),
    ("ray", "init", {"runtime_env": {"py_executable": "sh"}}), ("submitit_slurm", "use_srun", False),
    ("submitit_slurm", "mail_user", "a@b"), ("submitit_slurm", "dependency", "x"), ("submitit_slurm", "comment", "$(id)"),
    *(
        ("submitit_slurm", key, value)
        for key in ("partition", "name", "gres", "account", "reservation", "nodelist")
        for value in ("a\ntouch /tmp/canary", "a --wrap=id", "--wrap=id", "$(id)", "`id`", "a;id", "a'b", 'a"b', "a\\b", "",
                      3, ["a"], {"_target_": "os.system"}, "a" * 300, "a\n")
    ),
    *(
        ("submitit_slurm", key, value)
        for key in ("timeout_min", "nodes", "gpus_per_node", "signal_delay_s", "array_parallelism", "mem_gb")
        for value in ("1\n#SBATCH --wrap=id", "1", -1, True, [1], float("nan"))
    ),
    *(("ray", "address", value) for value in ("local; id", "http://h:1/x", "unix:/tmp/x y", "-x", 3)),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_options(number: int) -> None:
    """Whatever could run a command, or leave its line in the head of a script."""
    name, key, value = HOSTILE[number]
    with pytest.raises(ConfigError, match=rf"^hydra\.launcher\.{key}: "):
        launchers.check_launcher({**launchers.node(name), key: value})


PICKLING = (
    "hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "hydra_ray_launcher.ray_launcher.RayLauncher",
)


@pytest.mark.parametrize("target", PICKLING)
def test_plugins_that_pickle_configs_are_refused(target: str) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.launcher\._target_: .*dvsn's own"):
        launchers.check_launcher({"_target_": f"hydra_plugins.{target}", "setup": ["id"]})


OTHERS = [pytest.param(each, marks=pytest.mark.slow) for each in ("submitit_local", "ray")]


@pytest.mark.parametrize("name", ["submitit_slurm", *OTHERS])
def test_by_the_command_line_and_by_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file can neither choose one nor set an option; the line can set what is listed."""
    root = tree(tmp_path)
    monkeypatch.setattr(menu, "conf_dir", lambda: str(root / "conf"))
    launcher.register()
    attack = root / "mine" / "experiment" / "attack.yaml"
    attack.parent.mkdir(parents=True)

    def settled(*words: str) -> Any:
        with compose.opened("tiny", [f"--config-dir={root / 'mine'}", "root=x", "-m", *words]) as session:
            composed = compose.compose(session.loader, "tiny", session.overrides, sweep=True)
            with launcher.made_folder(session, composed):
                return composed.cfg.hydra.launcher

    known = next(iter(launchers.OPTIONS[name]))
    value = "auto" if known == "address" else 7
    assert settled(f"hydra/launcher={name}", f"hydra.launcher.{known}={value}")[known] == value
    for word in (
        "+hydra.launcher.setup=[id]",
        "+hydra.launcher.python=sh",
        "+hydra.launcher.additional_parameters={wrap:id}",
    ):
        with pytest.raises(ConfigError, match=r"hydra\.launcher\.\w+: is no option of"):
            settled(f"hydra/launcher={name}", word)
    for text in (
        f"defaults: [{{override /hydra/launcher: {name}}}]\n",
        yaml.safe_dump({"hydra": {"launcher": {known: "b" if known == "address" else 8}}}),
        yaml.safe_dump({"hydra": {"launcher": {"setup": ["id"]}}}),
        yaml.safe_dump({"hydra": {"launcher": "${evil}"}, "evil": {"_target_": launchers.TARGETS[name]}}),
    ):
        attack.write_text(f"# @package _global_\n{text}")
        for words in ([], [f"hydra/launcher={name}"]):
            if words and text.startswith("defaults"):
                continue  # the file says what the line says
            refused = r"hydra\.launcher\S*: not allowed in a config|BasicLauncherConf"
            with pytest.raises(ConfigError, match=refused):
                settled(*words, "experiment=attack")
    assert "hydra.launcher" not in hydra_node.FILES


@pytest.mark.parametrize(
    ("name", "module", "extra"), [("submitit_local", "submitit", "slurm"), ("ray", "ray", "ray")]
)
def test_what_is_not_installed(
    name: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ConfigError, match=rf"^hydra/launcher={name}: .* is not installed. pip install 'dvsn\[{extra}\]'$"
    ):
        cluster.backend(name, launchers.node(name), tmp_path)


# The table of a sweep, with each of them -------------------------------------------------------------------------


def check_sweep(root: Path, *words: str, **variables: str) -> None:
    """Two good jobs and a wrong one; then the same line again with one job more, which alone is run."""
    done = sweep(root, "seed=1,12,3", "hydra.sweep.dir=out", *words, **variables)
    assert done.returncode == 1 and "[sweep] 2 of 3 jobs finished" in done.stdout, done.stdout + done.stderr
    table = done.stdout[done.stdout.index("[sweep] 2 of 3 jobs finished") :].splitlines()
    assert [line.split()[1] for line in table[1:4]] == ["finished", "FAILED", "finished"]
    assert "seed=12" in table[2] and "error: scene.png: truncated" in table[2] and " 6 " in table[3]
    assert "job 3 64 None False" in (root / "out" / "2" / "output.log").read_text()
    before = (root / "out" / "0" / "result.json").stat().st_mtime_ns
    again = sweep(root, "seed=3,1,5", "hydra.sweep.dir=out", "sweep.skip_finished=true", *words, **variables)
    assert again.returncode == 0 and "[sweep] 3 of 3 jobs finished" in again.stdout, (
        again.stdout + again.stderr
    )
    assert "job 2: finished before" in again.stdout and "job 3: root=x seed=5" in again.stdout
    assert (root / "out" / "0" / "result.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_sweep_by_submitits_local_processes(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="needs dvsn[slurm]")
    check_sweep(tree(tmp_path), "hydra/launcher=submitit_local", "sweep.jobs=2")


@pytest.mark.slow
def test_a_sweep_by_ray(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs dvsn[ray]")
    check_sweep(tree(tmp_path), "hydra/launcher=ray", RAY_raylet_start_wait_time_s="240")  # of a busy machine


SBATCH = """#!{python}
import os, re, subprocess, sys
text = open(sys.argv[1]).read()
count = int(re.search(r"--array=0-(\\d+)", text)[1]) + 1 if "--array" in text else 0
open("{root}/script", "a").write(text)
for n in range(max(1, count)):
    env = dict(os.environ, SLURM_JOB_ID=str(100 + n), SLURM_NTASKS="1", SLURM_PROCID="0", SLURM_LOCALID="0",
               SLURM_JOB_NAME="dvsn", SLURM_JOB_NUM_NODES="1", SLURM_NODEID="0", SLURM_JOB_NODELIST="here")
    if count: env.update(SLURM_ARRAY_JOB_ID="99", SLURM_ARRAY_TASK_ID=str(n))
    subprocess.Popen(["bash", sys.argv[1]], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("Submitted batch job", 99 if count else 100)
"""
SRUN = """#!/bin/bash
while [[ "$1" == -* ]]; do [[ "$1" == --unbuffered ]] && shift || shift 2; done
exec "$@"
"""
SACCT = """#!/bin/bash
echo 'JobID|State|NodeList'
for n in 99_0 99_1 99_2 100; do echo "$n|RUNNING|here"; done
"""


def play_slurm(root: Path) -> str:
    """Commands with SLURM's names that run a script at once; gives the PATH with them."""
    (root / "bin").mkdir()
    for name, text in {
        "sbatch": SBATCH.format(python=sys.executable, root=root),
        "srun": SRUN,
        "sacct": SACCT,
    }.items():
        (root / "bin" / name).write_text(text)
        (root / "bin" / name).chmod(0o755)
    return f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.slow
def test_a_sweep_by_the_commands_of_slurm(tmp_path: Path) -> None:
    """Not SLURM: what submitit writes for it, and that the script does the work in the environment that SLURM makes."""
    pytest.importorskip("submitit", reason="needs dvsn[slurm]")
    root = tree(tmp_path)
    words = ["hydra.launcher.partition=gpu", "hydra.launcher.gpus_per_node=2", "hydra.launcher.timeout_min=90",
             "hydra.launcher.reservation=ours", "hydra.launcher.array_parallelism=2"]  # fmt: skip
    check_sweep(root, "hydra/launcher=submitit_slurm", *words, PATH=play_slurm(root))
    script = (root / "script").read_text()
    for line in (
        "--partition=gpu",
        "--gpus-per-node=2",
        "--time=90",
        "--reservation=ours",
        "--array=0-2%2",
        "--signal=USR2@120",
    ):
        assert f"#SBATCH {line}\n" in script
    assert "# setup" not in script


@pytest.mark.slow
def test_a_job_that_is_preempted_goes_on_in_its_folder(tmp_path: Path) -> None:
    """submitit's signal before the time is over: the run is stopped politely, queued again, and resumed."""
    submitit = pytest.importorskip("submitit", reason="needs dvsn[slurm]")
    options = launchers.node("submitit_local") | {"max_num_timeout": 2}
    options.pop("_target_")
    (handle,) = cluster.backend("submitit_local", options, tmp_path).submit(
        [job(tmp_path / "3", "a=2", "hang=1")]
    )
    end = time.monotonic() + 60
    while not (tmp_path / "3" / "starts").is_file():
        assert time.monotonic() < end
        time.sleep(0.1)
    parents = {file.parent.name: file.read_text() for file in Path("/proc").glob("[0-9]*/stat")}
    (task,) = [
        pid for pid, stat in parents.items() if stat.rpartition(")")[2].split()[1] == handle.given.job_id
    ]  # type: ignore[attr-defined]
    os.kill(int(task), signal.SIGUSR2)
    while not handle.done():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert handle.outcome()["code"] == 0, handle.outcome()
    assert (tmp_path / "3" / "starts").read_text().split() == ["new", "auto"] and submitit


def test_without_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="needs dvsn[slurm]")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no sbatch here"):
        cluster.backend("submitit_slurm", launchers.node("submitit_slurm"), tmp_path)
