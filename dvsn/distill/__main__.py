"""`python -m dvsn.distill taps`: where a network can be tapped."""

from __future__ import annotations

import runpy
import sys

from dvsn.errors import nearest

COMMANDS = {"taps": "list the places of a network where distillation may look, with their shapes"}
MODULES = {"taps": "dvsn.engine.tap_table"}


def help_text() -> str:
    """The commands, one line each."""
    lines = "\n".join(f"  {name:<8} {summary}" for name, summary in COMMANDS.items())
    head = "dvsn distill: prepare knowledge distillation; `dvsn train ... teacher=PATH distill=kd` does it"
    usage = "usage: python -m dvsn.distill COMMAND network=... [option=value ...]"
    return f"{head}\n\n{usage}\n\n{lines}\n\npython -m dvsn.distill COMMAND --help says more.\n"


def main() -> None:
    """Runs the command as the main module."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h", "help"):
        sys.stdout.write(help_text())
    elif name in COMMANDS:
        del sys.argv[1]
        runpy.run_module(MODULES[name], run_name="__main__", alter_sys=True)
    else:
        sys.stderr.write(f"error: {name}: unknown command. {nearest(name, COMMANDS)}\n")
        raise SystemExit(2)


if __name__ == "__main__":
    main()
