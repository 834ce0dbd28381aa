"""`dvsn train ...` is `python -m dvsn.train ...`, for every command."""

from __future__ import annotations

import runpy
import sys

from dvsn.errors import nearest
from dvsn.version import VERSION

COMMANDS = {
    "train": "train a task on a data set",
    "search": "search over options of a training",
    "evaluate": "measure a checkpoint on a data split",
    "benchmark": "count and time a network, plain and with what makes it faster",
    "predict": "turn pictures into pictures with a checkpoint",
    "convert": "turn a published checkpoint into ours",
    "hub": "publish a checkpoint as a folder for the Hugging Face hub",
    "zoo": "list published checkpoints, or see whether a file gives its published score",
    "data": "check, show or weigh a data set",
    "distill": "list where a network can be tapped",
    "completion": "print a script by which bash, zsh or fish completes what you type",
    "report": "compare the runs of a sweep or a search",
}


def help_text() -> str:
    """The commands, one line each."""
    lines = "\n".join(f"  {name:<10} {summary}" for name, summary in COMMANDS.items())
    head = f"dvsn {VERSION}: dense vision networks\n\nusage: dvsn COMMAND ..."
    return f"{head}\n\n{lines}\n\ndvsn COMMAND --help says more.\n"


def main() -> None:
    """Runs the command as the main module, so that Lightning starts its further processes the same way."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h", "help"):
        sys.stdout.write(help_text())
    elif name == "--version":
        sys.stdout.write(f"{VERSION}\n")
    elif name == "completion":
        from dvsn import command_line, completion

        command_line.run(lambda: completion.run(sys.argv[2:], COMMANDS))
    elif name in COMMANDS:
        del sys.argv[1]
        runpy.run_module(f"dvsn.{name}", run_name="__main__", alter_sys=True)
    else:
        sys.stderr.write(f"error: {name}: unknown command. {nearest(name, COMMANDS)}\n")
        raise SystemExit(2)


if __name__ == "__main__":
    main()
