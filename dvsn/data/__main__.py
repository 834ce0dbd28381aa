"""`python -m dvsn.data check|show|weights`: look at a data set before a network does."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from dvsn.errors import nearest

COMMANDS = {
    "check": "walk every split and report every fault",
    "show": "draw samples as the network will see them",
    "weights": "count the pixels of each class and weigh the classes",
    "faces": "write the faces of the embedded street scenes as a WFLW tree",
}


def help_text() -> str:
    """The commands, one line each."""
    lines = "\n".join(f"  {name:<8} {summary}" for name, summary in COMMANDS.items())
    head = "dvsn data: look at a data set before a network does"
    usage = "usage: python -m dvsn.data COMMAND data=... [option=value ...]"
    return f"{head}\n\n{usage}\n\n{lines}\n\npython -m dvsn.data COMMAND --help says more.\n"


def with_task(arguments: Sequence[str]) -> list[str]:
    """Also `task=classification`, where the data set has a class a picture and no task is asked for."""
    import yaml

    from dvsn.config.menu import conf_dir

    asked = dict(each.partition("=")[::2] for each in arguments if "=" in each)
    file = Path(conf_dir(), "data", f"{asked.get('data', '')}.yaml")
    if {"task", "experiment"} & set(asked) or not file.is_file():
        return list(arguments)
    pair = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("pair") or {}
    return [*arguments, *(["task=classification"] if pair.get("target") == "class" else [])]


def main() -> None:
    """Runs the command as the main module, so that a sweep starts its jobs the same way."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h", "help"):
        sys.stdout.write(help_text())
    elif name in COMMANDS:
        sys.argv[1:] = with_task(sys.argv[2:])
        runpy.run_module(f"dvsn.data_tools.{name}", run_name="__main__", alter_sys=True)
    else:
        sys.stderr.write(f"error: {name}: unknown command. {nearest(name, COMMANDS)}\n")
        raise SystemExit(2)


if __name__ == "__main__":
    main()
