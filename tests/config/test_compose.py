"""Help, options, composing and the error boundary, over a small tree of configs."""

from __future__ import annotations

import errno
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dvsn import __main__ as dvsn_main
from dvsn import command_line
from dvsn.command_line import REQUIRED, Command, Option
from dvsn.config import compose as composing
from dvsn.config import flags, menu, sources
from dvsn.errors import ConfigError, DataError, UserError
from tests.support.tiny_command import environment, write_tree


@pytest.fixture
def compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the command in this process; answers the resolved config that its job got."""
    root = write_tree(tmp_path)
    monkeypatch.setattr(menu, "conf_dir", lambda: str(root / "conf"))
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVSN_ALLOW", "")

    def call(*argv: str, root: str | None = "data") -> Any:
        got: list[Any] = []
        given = [*argv, *([] if root is None else [f"root={root}"])]
        composing.hydra_main("tiny", got.append, argv=given, keeps=True)
        return got[0] if got else None

    return call


# ---- composing -------------------------------------------------------------------------------------------


def test_a_run_gets_its_config(compose: Callable[..., Any], tmp_path: Path) -> None:
    tree = compose("network=unet_small", "seed=3", "optim.lr=0.1")
    assert tree["network"]["width"] == 8 and tree["copy"] == 8
    assert tree["seed"] == 3 and tree["optim"]["lr"] == 0.1 and "hydra" not in tree
    assert tree["out"] == str(tmp_path / "runs" / "run") and Path(tree["out"]).is_dir()
    assert compose("experiment=small")["seed"] == 7


def test_the_job_returns_its_value(compose: Callable[..., Any]) -> None:
    assert composing.hydra_main("tiny", lambda config: config["seed"] * 2, argv=["root=x", "seed=4"]) == 8


def test_hydras_flags_of_lightnings_ranks(compose: Callable[..., Any], tmp_path: Path) -> None:
    """Lightning starts rank 1 with these three overrides; both ranks share the folder."""
    place = f'hydra.run.dir="{tmp_path}/a b"'
    tree = compose(place, "hydra.job.name=train_ddp_process_1", "hydra.output_subdir=null")
    assert tree["out"] == f"{tmp_path}/a b"


def test_the_folder_of_a_run_has_a_short_name(compose: Callable[..., Any], tmp_path: Path) -> None:
    assert compose("run_dir=mine")["out"] == str(tmp_path / "mine")


def test_debug_true_is_the_name_of_an_option(compose: Callable[..., Any]) -> None:
    assert compose("debug=true")["name"] == "debugged"
    assert compose("debug=1")["name"] == "debugged"
    assert compose("debug=false")["name"] == "run"


def test_config_dir_adds_options_and_cannot_shadow(compose: Callable[..., Any], tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "network").mkdir(parents=True)
    (mine / "network" / "wide.yaml").write_text("_target_: dvsn.networks.unet.UNet\nwidth: 99\nnorm: none\n")
    (mine / "network" / "unet.yaml").write_text("_target_: os.system\ncommand: touch x\n")
    assert compose(f"--config-dir={mine}", "network=wide")["network"]["width"] == 99
    assert compose("--config-dir", str(mine), "network=unet")["network"]["width"] == 64


def test_cfg_shows_the_config(compose: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert compose("--cfg", "job", "seed=5", root=None) is None
    assert "seed: 5" in capsys.readouterr().out


WRONG = {
    "option": (
        "network=unet_25",
        r"^network=unet_25: no such option of the group 'network'\. Did you mean 'unet'\?",
    ),
    "key": (
        "trainer.max_epoch=3",
        r"^trainer\.max_epoch: unknown key\. Did you mean 'trainer\.max_epochs'\?",
    ),
    "group": ("netwrok=unet", r"^netwrok: unknown group or key\. Did you mean 'network'\?"),
    "key of a group": ("width=4", r"^width: unknown group or key\. Did you mean 'network\.width'\?$"),
    "epochs": ("epochs=4", r"^epochs: unknown group or key\. Did you mean 'trainer\.max_epochs'\?$"),
    "added key": ("+network.widht=3", r"^network\.widht: unknown option of UNet .*Did you mean 'width'\?"),
    "added top-level key": ("+sed=3", r"^sed: unknown key\. Did you mean 'seed'\?"),
    "key of a value": (
        "network.width.x=3",
        r"^network\.width\.x: unknown key\. Did you mean 'network\.width'\?",
    ),
    "deletion": ("~optim.lrr", r"^optim\.lrr: unknown key\. Did you mean 'optim\.lr'\?"),
    "optimiser's key": ("optim.weight_decay=3", r"^optim\.weight_decay: .*write \+optim\.weight_decay="),
    "hydra's key": ("hydra.rn.dir=3", r"^hydra\.rn\.dir: not allowed .*Did you mean 'hydra\.run\.dir'\?"),
    "syntax": ("a b=3", r"^a b=3: not understood"),
    "type": (
        "trainer.max_epochs=many",
        r"^trainer\.max_epochs: expected a whole number or null, found 'many'",
    ),
    "type of our class": ("network.width=abc", r"^network\.width: expected a whole number, found 'abc'"),
    "type of torch's": ("optim.lr=fast", r"^optim\.lr: expected a number, found 'fast'"),
    "type beside the default": ("seed=x", r"^seed: expected a number or null like the default 0, found 'x'"),
    "choice": (
        "network.norm=bach",
        r"^network\.norm: expected one of 'batch', 'instance', 'none', found 'bach'",
    ),
    "several values": ("seed=1,2", r"^seed: found several values, 1,2\..*add -m"),
    "interpolation": ("name=${nope}", r"^name: refers to .*nope.* Valid: copy, debug, name, "),
    "named by a file": (
        "experiment=broken",
        r"^optim=adamm: no such option .*asked for by experiment/broken\.yaml",
    ),
    "hostile": ("network._target_=os.system", r"^network\._target_: 'os\.system' is not allowed here"),
    "hydra's callbacks": (
        "+hydra.callbacks.a._target_=os.system",
        r"^hydra\.callbacks\.a\._target_: not allowed",
    ),
    "hydra's plugins": (
        "+hydra.launcher.a._target_=os.system",
        r"^hydra\.launcher\.a\._target_: not allowed",
    ),
    "hydra's logs": (
        "experiment=logs",
        r"^hydra\.job_logging\.handlers\.a\.\(\): not allowed in a config\..*hydra\.verbose=true",
    ),
    "imports of logs": (
        "hydra.job_logging.handlers.console.stream=ext://os.system",
        r"stream: not allowed on the command line",
    ),
    "the environment": (
        "experiment=variables",
        r"^hydra\.job\.env_set.*: not allowed in a config\. Set variables in your shell",
    ),
    "unknown flag": ("--multirn", r"^--multirn: unknown flag\..*Did you mean '--multirun'\?"),
    "Hydra's pickle": ("--experimental-rerun=x.pickle", r"^--experimental-rerun=x\.pickle: unknown flag"),
    "config name": ("--config-name=nope", r"no config named 'nope'"),
    "config dir": ("--config-dir=/nope", r"^--config-dir: there is no folder /nope"),
    "name of a package": ("--allow=a;b", r"^DVSN_ALLOW: found 'a;b'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_become_one_message(case: str, compose: Callable[..., Any]) -> None:
    argument, message = WRONG[case]
    with pytest.raises(ConfigError, match=message) as caught:
        compose(argument)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["a b:c=d", "x{y", "a,b]", "it's", "~/x (1)"])
def test_the_quotes_that_are_advised_work_when_pasted(compose: Callable[..., Any], value: str) -> None:
    with pytest.raises(ConfigError, match="not understood") as caught:
        compose(f"root={value}", root=None)
    (pasted,) = shlex.split(str(caught.value).partition("not take away: ")[2])
    assert compose(pasted, root=None)["root"] == value


def test_null_leaves_a_group_out(compose: Callable[..., Any]) -> None:
    assert compose("experiment=null")["seed"] == 0
    with pytest.raises(ConfigError, match=r"^optim: found null, .* Choices of optim=\.\.\.: adam\."):
        compose("optim=null")  # which every run needs


@pytest.mark.parametrize("value", ["7", "1.5", "0", "1"])
def test_a_number_is_no_choice_of_a_group(value: str, compose: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^optim={re.escape(value)}: no such option of the group 'optim'"):
        compose(f"optim={value}")


HOSTILE_YAML = {
    "latin1": (
        "width: caf\xe9\n".encode("latin1"),
        r"evil\.yaml: not a text file in UTF-8; line 1: found the byte 0xe9",
    ),
    "a number": (b"3\n", r"evil\.yaml: expected a mapping of options, found a single value"),
    "zero byte": (b"width: \0\n", r"evil\.yaml: line 1: not a text file"),
    "defaults": (b"defaults: 3\n", r"Invalid defaults list in 'network/evil'"),
}


@pytest.mark.parametrize("name", HOSTILE_YAML)
def test_a_yaml_that_is_none(name: str, compose: Callable[..., Any], tmp_path: Path) -> None:
    content, message = HOSTILE_YAML[name]
    (tmp_path / "mine" / "network").mkdir(parents=True)
    (tmp_path / "mine" / "network" / "evil.yaml").write_bytes(content)
    with pytest.raises(UserError, match=message):
        compose(f"--config-dir={tmp_path / 'mine'}", "network=evil")


def test_missing_values_are_listed(compose: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"^root: no value is given\. Set root=\.\.\.$"):
        compose(root=None)
    with pytest.raises(ConfigError, match=r"^seed: no value is given.*Also missing: root"):
        compose("seed='???'", root=None)


def test_nothing_runs_before_the_config_is_right(compose: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        compose("network.width=abc")
    assert not (tmp_path / "runs").exists()


def test_allow_goes_to_the_environment(compose: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVSN_ALLOW", "first")
    assert flags.take_allowed(["a=1", "--allow", "second", "--allow=third", "-m"]) == ["a=1", "-m"]
    assert os.environ["DVSN_ALLOW"] == "first,second,third"
    with pytest.raises(ConfigError, match="--allow"):
        flags.take_allowed(["--allow"])


def test_files_from_outside_are_bounded(compose: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "network"
    folder.mkdir(parents=True)
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    (folder / "bomb.yaml").write_text(bomb)
    (folder / "huge.yaml").write_text("a: 1 #" + "x" * sources.MAX_FILE)
    (folder / "broken.yaml").write_text("a: [1\nb: {")
    (folder / "star.yaml").write_text("_target_: dvsn.networks.unet.UNet\nwidth: 5  # 5 * 1\n")
    begin = time.monotonic()
    for name, message in (
        ("bomb", r"line 2: aliases \(\*a\)"),
        ("huge", "expected at most"),
        ("broken", "YAML"),
    ):
        with pytest.raises(ConfigError, match=message):
            compose(f"--config-dir={tmp_path / 'mine'}", f"network={name}")
    assert time.monotonic() - begin < 8
    assert compose(f"--config-dir={tmp_path / 'mine'}", "network=star")["network"]["width"] == 5


# ---- help and options ------------------------------------------------------------------------------------

COMMAND = Command(
    name="predict",
    summary="turn pictures into pictures",
    options=[
        Option("checkpoint", REQUIRED, "a dvsn checkpoint"),
        Option("input", REQUIRED, "a file, a folder or a glob"),
        Option("batch_size", 4, "pictures at a time"),
        Option("device", "auto", "where to run"),
        Option("half", False, "half precision"),
        Option("size", None, "height and width"),
    ],
    groups=True,
    examples=[
        "python -m dvsn.predict a.ckpt pictures",
        "python -m dvsn.predict checkpoint=a.ckpt input=b.png",
    ],
)


def test_help_names_groups_options_and_examples(compose: Callable[..., Any]) -> None:
    text, menu = COMMAND.help_text(), replace(COMMAND, menu=True).help_text()
    assert text.index("options:") < text.index("examples:") < text.index("network (2)"), "groups last, folded"
    assert "any task  unet, unet_small" in menu and "_base" not in menu
    for option in COMMAND.options:
        assert option.name in text and option.help in text
    for example in COMMAND.examples:
        assert example in text
    assert max(map(len, text.splitlines())) <= 110


def test_help_names_sweeps_where_there_are_any() -> None:
    from dvsn import evaluate, train
    from dvsn.benchmark import __main__ as benchmark
    from dvsn.data_tools import commands
    from dvsn.sweep import search

    for command, sweeps in (
        (train.COMMAND, True),
        (evaluate.COMMAND, True),
        (benchmark.COMMAND, True),
        (search.COMMAND, False),
        (commands.CHECK, False),
    ):
        assert ("-m, --multirun" in command.help_text()) == sweeps, command.name


def test_help_is_answered_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--help", "-h"):
        monkeypatch.setattr(sys, "argv", ["x", "broken=", flag])
        assert command_line.run(lambda: 1 / 0, command=COMMAND) is None
        assert "examples:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        ["checkpoint=a.ckpt", "input=b.png", "batch_size=8", "half=true"],
        ["a.ckpt", "b.png", "batch_size=8", "half=true"],
        ["--checkpoint", "a.ckpt", "--input=b.png", "--batch-size", "8", "--half", "true"],
        ["batch_size=8", "input=b.png", "a.ckpt", "half=True", "debug=true"],
    ],
)
def test_options_in_every_spelling(argv: list[str]) -> None:
    assert COMMAND.parse(argv) == {
        "checkpoint": "a.ckpt", "input": "b.png", "batch_size": 8, "device": "auto", "half": True,
        "size": None,
    }  # fmt: skip


def test_values_of_options() -> None:
    values = COMMAND.parse(["runs/epoch=3.ckpt", "input='12'", "size=[256, 512]", "device=7"])
    assert values["checkpoint"] == "runs/epoch=3.ckpt" and values["input"] == "12"
    assert values["size"] == [256, 512] and values["device"] == "7"
    for text, value in (
        ("null", None),
        ("1e-3", 1e-3),
        ("-2", -2),
        ("a.b", "a.b"),
        ("[]", []),
        ("'null'", "null"),
    ):
        assert command_line.scalar(text) == value


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a", "b", "batchsize=3"], r"^batchsize: unknown option .*Did you mean 'batch_size'\?"),
        (["a", "b", "--batch_siz", "3"], r"^batch_siz: unknown option"),
        (["a", "b", "batch_size=many"], r"^batch_size: expected a whole number, found 'many'"),
        (["a", "b", "half=3"], r"^half: expected true or false"),
        (["a"], r"^input: required and not given"),
        ([], r"^checkpoint: required and not given"),
        (["a", "b", "c"], r"^c: not understood"),
        (["a", "b", "half=true", "half=true"], r"^half: given twice"),
        (["a", "--input"], r"^--input: no value follows"),
    ],
)
def test_wrong_options(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        COMMAND.parse(argv)


# ---- the error boundary ----------------------------------------------------------------------------------


class SIGTERMException(SystemError):
    """Named as Lightning's."""


def worker_error() -> DataError:
    """As torch raises it again in the main process."""
    trace = (
        "Caught DataError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "a.py", line 1, in f\nOSError: x\n\nThe above exception was the direct cause of the '
        'following exception:\n\nTraceback (most recent call last):\n  File "b.py", line 2, in g\n'
        "dvsn.errors.DataError: scene.png: truncated\nexpected a PNG\n"
    )
    return DataError(trace)


def worker_ended(signal: str) -> RuntimeError:
    """What torch raises when a worker of a DataLoader dies of a signal, which it names as the C library does."""
    return RuntimeError(f"DataLoader worker (pid 7) is killed by signal: {signal}. ")


def worker_ended_at_once(signal: str) -> RuntimeError:
    """What torch raises where it has waited for the first batch of a worker that is gone."""
    error = RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")
    error.__cause__ = worker_ended(signal)
    return error


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("a.b: wrong\n  tree"), 2, "error: a.b: wrong\n  tree\n"),
        (worker_error(), 2, "error: scene.png: truncated\nexpected a PNG\n"),
        (RuntimeError("boom\nmore"), 1, "internal error: RuntimeError: boom - run again with debug=true"),
        (worker_ended("Killed"), 1, "when memory runs out: lower data.workers or data.batch_size.\n"),
        (worker_ended("Bus error"), 1, "/dev/shm is full: lower data.workers"),
        (
            worker_ended("Terminated"),
            1,
            "has asked it to stop, such as a scheduler. Continue with resume=auto\n",
        ),
        (
            worker_ended_at_once("Terminated"),
            1,
            "by signal: Terminated. Somebody or the system has asked it to stop",
        ),
        (
            worker_ended_at_once("Killed"),
            1,
            "by signal: Killed. The system ends processes like that when memory runs",
        ),
        (worker_ended("Segmentation fault"), 1, "has crashed. Set data.workers=0 to see at which file.\n"),
        (
            RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),
            1,
            "Set data.workers=0 to see why.\n",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "error: the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "error: /x: Permission denied\n"),
        (MemoryError(), 1, "error: out of memory"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (KeyboardInterrupt("job 3"), 130, "interrupted: job 3\n"),
        (SIGTERMException(), 143, "stopped by SIGTERM\n"),
        (SystemExit(5), 5, ""),
    ],
)
def test_errors_become_a_message_and_a_code(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        command_line.run(main, debug=False)
    shown = capsys.readouterr().err
    assert stop.value.code == code and text in shown and "Traceback" not in shown
    assert bool(shown) == bool(text)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (worker_ended_at_once("Killed"), "memory runs out: lower workers or batch_size.\n"),
        (worker_ended("Terminated"), "such as a scheduler. Start it again.\n"),
        (worker_ended("Segmentation fault"), "has crashed. Set workers=0 to see at which file.\n"),
        (MemoryError(), "Lower batch_size or"),
    ],
)
def test_advice_is_in_the_commands_own_options(
    error: BaseException, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from dvsn.evaluate import COMMAND

    def main() -> None:
        raise error

    with pytest.raises(SystemExit):
        command_line.run(main, debug=False, command=COMMAND)
    assert text in capsys.readouterr().err


def test_lightnings_exit_after_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    with pytest.raises(SystemExit) as stop:
        command_line.run(main, debug=False)
    assert stop.value.code == 130 and capsys.readouterr().err == "interrupted\n"


def test_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "debug=true"])
    with pytest.raises(SystemExit) as stop:
        command_line.run(lambda: 1 / 0)
    assert stop.value.code == 1 and "Traceback" in capsys.readouterr().err


def test_what_counts_as_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVSN_DEBUG", raising=False)
    for given, expected in (("true", True), ("1", True), ("overfit", True), ("none", False), ("false", False),
                            ("0", False), ("null", False)):  # fmt: skip
        assert command_line.wants_debug([f"debug={given}"]) is expected
    assert not command_line.wants_debug([]) and not command_line.wants_debug(["data.debug=1"])
    monkeypatch.setenv("DVSN_DEBUG", "1")
    assert command_line.wants_debug([])


def test_run_returns_the_result() -> None:
    assert command_line.run(lambda: 3, debug=False) == 3


# ---- from a shell ----------------------------------------------------------------------------------------


def test_a_mistake_costs_no_torch_and_no_traceback(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    call = [sys.executable, "-X", "importtime", "-m", "tiny_command", "root=x", "network.widht=3"]
    done = subprocess.run(call, env=environment(root), cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: network.widht: unknown key. Did you mean 'network.width'?" in done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time" in line}
    assert "hydra" in imported and not {"torch", "pytorch_lightning", "numpy"} & imported


def test_an_exception_of_the_job_is_one_line(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    call = [sys.executable, "-m", "tiny_command", "root=x"]
    done = subprocess.run(
        [*call, "seed=11"], env=environment(root), cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert (
        done.stderr
        == "internal error: RuntimeError: bad luck - run again with debug=true to see the traceback\n"
    )


def test_dvsn_lists_and_corrects_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dvsn", "--help"])
    dvsn_main.main()
    text = capsys.readouterr().out
    assert all(name in text for name in ("train", "evaluate", "predict", "convert"))
    monkeypatch.setattr(sys, "argv", ["dvsn", "trian"])
    with pytest.raises(SystemExit) as stop:
        dvsn_main.main()
    assert stop.value.code == 2 and "Did you mean 'train'?" in capsys.readouterr().err


def test_dvsn_runs_a_command_as_the_main_module(tmp_path: Path) -> None:
    """Lightning starts its ranks as `python -m <__main__.__spec__.name> <sys.argv[1:]>`."""
    (tmp_path / "probe.py").write_text("import sys, __main__\nprint(__main__.__spec__.name, sys.argv[1:])\n")
    code = (
        f"import sys, dvsn; dvsn.__path__.append({str(tmp_path)!r}); import dvsn.__main__ as m; "
        "m.COMMANDS['probe'] = ''; sys.argv = ['dvsn', 'probe', 'a=1', '-m']; m.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "dvsn.probe ['a=1', '-m']"


def test_a_command_that_does_one_thing_refuses_a_sweep(compose: Callable[..., Any]) -> None:
    for argument in ("-m", "--multirun", "hydra.mode=MULTIRUN"):
        with pytest.raises(ConfigError, match=r"^-m: tiny does one thing at a time\. Leave out -m"):
            compose(argument, "seed=1,2")


def test_an_option_below_a_plain_value_is_written_with_a_dot() -> None:
    """`resume` is text, so `resume.force` could not be composed: it is a key of its own."""
    with composing.opened("train", ["resume.force=[optim.lr]", "resume=auto", "optim.lr=1"]) as session:
        assert session.overrides == ["resume_force=[optim.lr]", "resume=auto", "optim.lr=1"]
        cfg = composing.compose(session.loader, "train", [*session.overrides, "network=unet_256"]).cfg
    assert (list(cfg.resume_force), cfg.resume) == (["optim.lr"], "auto")
    with composing.opened("train", ["resume.force=optim.lr", "callbacks=null", "logger=null"]) as session:
        assert session.overrides == ["resume_force=[optim.lr]", "callbacks=none", "logger=none"]
    from dvsn.train import COMMAND

    assert "resume.force=[]" in COMMAND.help_text()
