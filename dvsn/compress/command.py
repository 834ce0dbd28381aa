"""`python -m dvsn.compress`: a teacher and a budget in, the best network that meets it out."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dvsn import command_line
from dvsn.command_line import REQUIRED, UNPACKED, Command, Option
from dvsn.config.light_imports import import_lightning
from dvsn.errors import ConfigError
from dvsn.reading import unpacking

log = logging.getLogger("dvsn")

COMMAND = Command(
    name="compress",
    summary="Find the best network that meets a budget: measure candidates, train them by successive halving with a\n"
    "teacher, export the finalists in full precision and in 8 bits, and choose. Other options are those of dvsn.train.",
    options=(
        Option("teacher", REQUIRED, "a dvsn checkpoint of any task; the students learn from it and are compared with it"),
        Option("latency", None, "such as 25ms: of an answer on this machine, by the fastest engine"),
        Option("percentile", 50, "of the latency: 50 or 95"),
        Option("size", None, "such as 4MB: of the exported file"),
        Option("macs", None, "such as 1.2G: multiply-accumulates of a picture"),
        Option("memory", None, "such as 300MB: of an answer, at its peak"),
        Option("drop", None, "how much worse than the teacher the score may be, in points of a hundred"),
        Option("least", None, "the lowest score that is accepted, in [0, 1]"),
        Option("hours", 1.0, "of training in all, about; epochs are chosen by it"),
        Option("epochs", None, "of the finalists' training, in the place of hours"),
        Option("rungs", 3, "of successive halving; the last trains the finalists"),
        Option("keep", 3.0, "one of so many students goes on from rung to rung, with so many times the epochs"),
        Option("finalists", 2, "students that are trained to the end"),
        Option("seeds", 1, "trainings of each finalist, with other seeds"),
        Option("seed", 0, "of all trainings but these"),
        Option("candidates", None, "a list of those in conf/compress, or a YAML file of your own; null: all of the task"),
        Option("methods", None, "a list of the methods of distillation there, alone (labels only) among them; null: all"),
        Option("starts", None, "of students: random, or teacher: its layers, where shapes agree; null: the better of both"),
        Option("device", None, "a table of dvsn.portable.measure: latency is that of its machine instead of this one"),
        Option("files", None, "a folder: write the candidates' files with random weights, for such a table, and stop"),
        Option("engines", None, "onnxruntime, openvino, or both; null: what is installed"),
        Option("int8", True, "whether files in 8 bits are made, too"),
        Option("finetune", None, "epochs of training with rounding in the loop for each of them; null: none"),
        Option("scored", 64, "pictures of val on which an export finds what must stay in full precision"),
        Option("batch", 1, "pictures of an answer"),
        Option("threads", None, "of an engine; null: as many as the machine has cores"),
        Option("jobs", 1, "trainings at the same time"),
        Option("folder", None, "of everything; the same line again goes on there; null: runs/compress/TEACHER"),
        Option("dry_run", False, "measure the candidates, print the plan and how long it takes, and stop"),
        Option("config_dir", None, "a folder of your own options, as of dvsn.train"),
        Option("allow", None, "a package of yours whose classes configs may build"),
        UNPACKED,
    ),
    examples=(
        "python -m dvsn.compress teacher=pidnet_l.ckpt data=camvid latency=25ms",
        "python -m dvsn.compress teacher=best.ckpt data=cifar10 transform=cifar size=1MB drop=1.0 hours=2",
        "python -m dvsn.compress teacher=best.ckpt data=imagefolder data.root=/data/mine latency=10ms dry_run=true",
        "python -m dvsn.compress teacher=best.ckpt data=camvid latency=10ms files=for_the_device",
        "python -m dvsn.compress teacher=best.ckpt data=camvid latency=10ms device=device.json",
    ),
)  # fmt: skip


REFUSED = {
    "trainer.max_epochs": "Epochs are chosen by hours, or by epochs=N.",
    "task": "It is the teacher's.",
    "network": "Networks are chosen by candidates=[...], or by a YAML file of your own.",
    "distill": "Methods are chosen by methods=[...], or by a YAML file of your own.",
    "resume": "The same line goes on by itself.",
    "monitor.name": "The score of the task decides.",
    "monitor.mode": "The score of the task decides.",
    "hydra.searchpath": "A folder of your own options is config_dir=FOLDER.",
    "hydra.run.dir": "Runs lie in folder=...",
}
"""Options of dvsn.train that are this command's to choose."""


def split_words(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of this command, and those of dvsn.train: options that are not this command's own. Raises `ConfigError` for
    an option of dvsn.train that it chooses itself."""
    own, others, tokens = [], [], list(argv)
    known = {option.name for option in COMMAND.options} | {"debug"}
    while tokens:
        token = tokens.pop(0)
        key = token.removeprefix("--").partition("=")[0].replace("-", "_")
        if token.startswith("--") and "=" not in token:
            own += [token, *tokens[:1]]
            tokens = tokens[1:]
        elif token.startswith("-") or "=" not in token or key in known:
            own.append(token)
        elif key.lstrip("+") in REFUSED:
            raise ConfigError(f"{key}: not for dvsn.compress. {REFUSED[key.lstrip('+')]}")
        else:
            others.append(token)
    return own, others


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does, so that no child is left behind."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def compress(options: Mapping[str, Any], words: Sequence[str]) -> str:
    """Answer the question of a command line; returns the text of the answer. Everything lies in the folder, and what lies
    there is not done again. Raises `ConfigError`, `DataError`, `CheckpointError` and `UserError`."""
    os.environ.setdefault(
        "KINETO_LOG_LEVEL", "99"
    )  # as of a benchmark: the profiler, which counts memory, is chatty
    import_lightning()
    from dvsn.compress import run  # torch and Lightning, which `--help` does without

    with unpacking(dict(options)), stopped_by_sigterm():
        return run.run(options, words)


def main() -> None:
    def command() -> None:
        own, words = split_words(sys.argv[1:])
        text = compress(COMMAND.parse(own), words)
        sys.stdout.write(f"{text}\n")

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command_line.run(command, command=COMMAND)
