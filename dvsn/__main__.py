"""`dvsn train ...` is `python -m dvsn.train ...`, for every command."""

from __future__ import annotations

import runpy
import sys

from dvsn import command_line, completion
from dvsn.version import VERSION

COMMANDS = {
    "train": "train a task on a data set",
    "search": "search over options of a training",
    "tune": "find a learning rate and a batch size for a training",
    "evaluate": "measure a checkpoint on a data split",
    "benchmark": "count and time a network, plain and with what makes it faster",
    "predict": "turn pictures into pictures with a checkpoint",
    "serve": "answer pictures over HTTP, with a page to drop them on",
    "convert": "turn a published checkpoint into ours",
    "average": "average the weights of checkpoints of one network",
    "export": "write a checkpoint as a file that runs elsewhere",
    "compress": "find the best network that meets a budget, from a teacher",
    "hub": "publish a checkpoint as a folder for the Hugging Face hub",
    "zoo": "list published checkpoints, or see whether a file gives its published score",
    "data": "check, show or weigh a data set",
    "distill": "list where a network can be tapped",
    "completion": "print a script by which bash, zsh or fish completes what you type",
    "report": "show a run as a page, compare runs, or rank those of a sweep or a search",
    "dashboard": "make a workspace and a report of W&B for each task",
}


def main() -> None:
    """Runs the command as the main module, so that Lightning starts its further processes the same way."""
    if sys.argv[1:2] == ["--version"]:
        sys.stdout.write(f"{VERSION}\n")
        return
    name = command_line.asked_for(
        COMMANDS, head=f"dvsn {VERSION}: dense vision networks", usage="dvsn COMMAND ..."
    )
    if name == "completion":
        command_line.run(lambda: completion.run(sys.argv[2:], COMMANDS))
    elif name is not None:
        del sys.argv[1]
        runpy.run_module(f"dvsn.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
