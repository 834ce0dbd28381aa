"""`python -m dvsn.distill taps`: where a network can be tapped."""

from __future__ import annotations

import sys

from dvsn import command_line
from dvsn.engine import tap_table

COMMANDS = {"taps": "list the places of a network where distillation may look, with their shapes"}


def main() -> None:
    head = "dvsn distill: prepare knowledge distillation; `dvsn train ... teacher=PATH distill=kd` does it"
    usage = "python -m dvsn.distill COMMAND network=... [option=value ...]"
    if command_line.asked_for(COMMANDS, head=head, usage=usage) == "taps":
        del sys.argv[1]
        tap_table.main()


if __name__ == "__main__":
    main()
