"""`python -m dvsn.zoo`: published checkpoints that dvsn reads, and whether a file gives its published score."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from dvsn import command_line
from dvsn.atomic import write_json
from dvsn.command_line import REQUIRED, Command, Option
from dvsn.errors import ConfigError, UserError, nearest
from dvsn.reading import read_json
from dvsn.zoo.entries import Entry, entries, find, page, told

VERIFY = Command(
    name="zoo verify",
    summary="Convert a published file, measure it and compare with its published score.",
    options=(
        Option("name", REQUIRED, "a checkpoint of `python -m dvsn.zoo`"),
        Option("file", REQUIRED, "the published file, or hf://OWNER/NAME/FILE"),
        Option(
            "output", "zoo", "the folder to write to: output/NAME/NAME.ckpt, evaluation/ and verified.json"
        ),
        Option("tolerance", 0.3, "the largest difference that counts as the same score, in points"),
    ),
    examples=(
        "python -m dvsn.zoo verify pidnet_s_cityscapes file=PIDNet_S_Cityscapes_val.pt data.root=/data/cityscapes",
    ),
)
HELP = """dvsn zoo: published checkpoints that dvsn reads

usage: python -m dvsn.zoo [COMMAND ...]

  (none)       list them: name, task, published score
  show NAME    where its authors offer it, its licence and score, and the two lines that convert and measure it
  verify NAME  convert a file, measure it and compare with the published score; --help says more
  page         the same as Markdown, which docs/zoo.md is

Further options of `verify`, such as data.root=/data/cityscapes, go to dvsn.evaluate.
"""


def listing() -> str:
    """All of them, one a line."""
    rows = [(entry.name, entry.of.task, entry.published()) for entry in entries().values()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"  {name:<{widths[0]}}  {task:<{widths[1]}}  {score}" for name, task, score in rows]
    return (
        "\n".join(lines)
        + "\n\npython -m dvsn.zoo show NAME says where it is offered and how to convert it.\n"
    )


def verify(argv: list[str]) -> bool:
    """Run both lines and compare. Whether the score is the published one; True where none is published."""
    own = {option.name for option in VERIFY.options}
    mine = [word for word in argv if "=" not in word or word.partition("=")[0].lstrip("-") in own]
    options = VERIFY.parse(mine)
    entry, folder = find(str(options["name"])), Path(str(options["output"])) / str(options["name"])
    checkpoint = folder / entry.checkpoint
    words = entry.evaluate_words(str(checkpoint))
    if words is None:
        raise ConfigError(f"{entry.name}: cannot be measured: {entry.why}. Convert it: {entry.lines()[0]}")
    more = [word for word in argv if word not in mine]
    keys = {word.partition("=")[0] for word in more}
    words = [word for word in words if word.partition("=")[0] not in keys] + more
    run(entry.convert_words(str(options["file"]), str(checkpoint)))
    run([*words, f"output={folder / 'evaluation'}"])
    return compare(entry, folder, float(options["tolerance"]))


def run(words: list[str]) -> None:
    """One of the documented lines, in a process of its own. Ends this one where it fails."""
    sys.stdout.write("$ " + " ".join(words) + "\n")
    sys.stdout.flush()
    code = subprocess.run([sys.executable, *words[1:]]).returncode
    if code:
        raise SystemExit(code)


def compare(entry: Entry, folder: Path, tolerance: float) -> bool:
    """Say how the measured score differs from the published one, and write it down."""
    found = read_json(folder / "evaluation" / "metrics.json", expected="the scores of dvsn.evaluate")
    metrics: dict[str, Any] = found["metrics"]
    if entry.metric is None or entry.score is None:
        said = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items())
        sys.stdout.write(f"{entry.name}: measured {said}. No score is published to compare with.\n")
        return True
    if entry.metric not in metrics:
        raise UserError(
            f"{entry.name}: the evaluation has no '{entry.metric}'. {nearest(entry.metric, metrics)}"
        )
    measured = 100 * float(metrics[entry.metric])
    difference = measured - entry.score
    same = abs(difference) <= tolerance
    record = {"name": entry.name, "metric": entry.metric, "published": entry.score, "measured": measured,
              "difference": difference, "tolerance": tolerance, "same": same, "protocol": entry.protocol,
              "measured_by": found.get("measured")}  # fmt: skip
    write_json(folder / "verified.json", record)
    word = "the same within" if same else "NOT the same; expected at most"
    sys.stdout.write(
        f"{entry.name}: published {entry.metric} {entry.score:g}, measured {measured:.2f}, difference {difference:+.2f}: "
        f"{word} {tolerance:g}. Protocol: {entry.protocol}.\n"
    )
    return same


def answer(argv: list[str]) -> None:
    """One command. Ends with exit code 1 where a score differs from the published one."""
    name, rest = (argv[0], argv[1:]) if argv else ("list", [])
    if name == "list":
        sys.stdout.write(listing())
    elif name in ("--help", "-h", "help"):
        sys.stdout.write(HELP)
    elif name == "show" and len(rest) == 1:
        sys.stdout.write(told(find(rest[0])))
    elif name == "page":
        sys.stdout.write(page())
    elif name == "verify" and {"--help", "-h"} & set(rest):
        sys.stdout.write(VERIFY.help_text())
    elif name == "verify":
        if not verify(rest):
            raise SystemExit(1)
    else:
        known = ("list", "show", "verify", "page")
        raise ConfigError(f"{' '.join(argv)}: not understood. {nearest(name, known)} Write: show NAME")


def main() -> None:
    arguments = [word for word in sys.argv[1:] if not word.startswith("debug=")]
    command_line.run(lambda: answer(arguments))


if __name__ == "__main__":
    main()
