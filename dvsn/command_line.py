"""What the commands share: help, options, and one place where errors become messages.

Only the standard library is imported at the top: `--help` and typos are answered before Hydra or torch load.

Exit codes: 0 done; 1 a fault of the program or the machine, or a failed job of a sweep; 2 the input is wrong;
130 interrupted; 143 asked to stop by SIGTERM.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from dvsn.config.board import tell_launcher
from dvsn.config.launched import rank_here
from dvsn.config.menu import choices, networks_by_task
from dvsn.config.messages import composition_message
from dvsn.config.types import fits, spell
from dvsn.errors import ConfigError, UserError, nearest, without_passwords

REQUIRED = "???"


FLAGS = {
    "-m, --multirun": "a sweep: every value may be a list a,b,c; one process per job",
    "--cfg job": "show the config and stop",
    "--config-dir DIR": "a folder of your own options, laid out like conf/",
    "--allow NAME": "a package of yours whose classes configs may build",
    "debug=true": "show the traceback of an error",
}


@dataclass(frozen=True)
class Option:
    """One option of a command, written `name=value`. The default "???" makes it required."""

    name: str
    default: Any
    help: str
    rest: bool = False
    """Of a required one: it is a list, and takes all that is given by position and is no other option's."""


UNPACKED = Option(
    "max_unpacked",
    None,
    "bytes that a checkpoint may unpack to in memory; null: 16 times the size of its file",
)
"""Of every command that reads checkpoints."""


@dataclass(frozen=True)
class Command:
    """A command `python -m dvsn.<name>`: what `--help` says, and options where Hydra does not read them."""

    name: str
    summary: str
    options: Sequence[Option]
    groups: bool = False  # whether the command composes the config groups
    menu: bool = False  # whether `--help` lists their choices; else only their names
    examples: Sequence[str] = ()
    sweeps: bool = False  # whether -m starts several jobs

    def help_text(self) -> str:
        """The answer to `--help`. Reads file names only."""
        required = [option.name for option in self.options if option.default == REQUIRED]
        usage = " ".join(
            [f"python -m dvsn.{self.name}", *(f"{name}=..." for name in required)]
            + (["[group=choice ...]"] if self.groups else [])
            + ["[option=value ...]"]
        )
        parts = [f"dvsn {self.name}: {self.summary}", f"usage: {usage}"]
        if self.menu:
            parts += _menu()
        rows = {_usual(option): option.help for option in self.options}
        flags = FLAGS if self.groups else {"debug=true": FLAGS["debug=true"]}
        rows |= {name: text for name, text in flags.items() if self.sweeps or not name.startswith("-m")}
        parts.append("options:\n" + _table(rows))
        parts.append("examples:\n" + "\n".join(f"  {example}" for example in self.examples))
        if self.groups and not self.menu:
            names = ", ".join(f"{name} ({len(found)})" for name, found in choices().items())
            parts.append(
                "groups and how many choices each has, listed by python -m dvsn.train --help:\n"
                + "\n".join(textwrap.wrap(names, 98, initial_indent="  ", subsequent_indent="  "))
            )
        return "\n\n".join(parts) + "\n"

    def parse(self, argv: Sequence[str]) -> dict[str, Any]:
        """The options from `key=value`, `--key value` or `--key=value`; required ones also by position.

        An option takes the type of its default: text stays text, and a default of null takes any value.
        Raises `ConfigError` for an unknown key, a value of another type or a missing required option.
        """
        known = {option.name: option for option in self.options}
        values: dict[str, Any] = {}
        tokens, free = list(argv), [option.name for option in self.options if option.default == REQUIRED]
        while tokens:
            token = tokens.pop(0)
            key, equals, text = token.removeprefix("--").partition("=")
            if token.startswith("--") and not equals:
                if key.replace("-", "_") in known and not tokens:
                    raise ConfigError(f"--{key}: no value follows")
                text = tokens.pop(0) if tokens else ""
            elif not equals or not re.fullmatch(r"[A-Za-z_][\w.-]*", key) or self._is_file(token, key):
                free = [name for name in free if known[name].rest or name not in values]
                if not free:
                    raise ConfigError(f"{token}: not understood. Write key=value. {nearest(token, known)}")
                if known[free[0]].rest:
                    values.setdefault(free[0], []).append(token)
                    continue
                key, text = free[0], token
            key = key.replace("-", "_")
            if key == "debug" and key not in known:
                continue
            if key not in known:
                raise ConfigError(f"{key}: unknown option of dvsn {self.name}. {nearest(key, known)}")
            if key in values and not known[key].rest:
                raise ConfigError(f"{key}: given twice")
            value = _typed(known[key], text)
            values[key] = [*values.get(key, []), value] if known[key].rest else value
        for name, option in known.items():
            if name not in values and option.default == REQUIRED:
                raise ConfigError(f"{name}: required and not given. Write {name}=... ({option.help})")
        return {option.name: values.get(option.name, option.default) for option in self.options}

    def _is_file(self, token: str, key: str) -> bool:
        """Whether `token` is a path that holds '=', among those that a shell makes of a glob."""
        known = {option.name for option in self.options}
        return any(option.rest for option in self.options) and key not in known and os.path.exists(token)  # noqa: PTH110


def _menu() -> list[str]:
    """The groups with their choices; networks by the tasks that they are for."""
    others = {name: ", ".join(found) for name, found in choices().items() if name != "network"}
    networks = {title: ", ".join(found) for title, found in networks_by_task().items()}
    return [
        "networks, by task:\n" + _table(networks),
        "other groups and their choices:\n" + _table(others),
    ]


def _table(rows: Mapping[str, str]) -> str:
    width = max(map(len, rows), default=0)
    width = min(width, 30)
    lines = []
    for name, text in rows.items():
        body = textwrap.wrap(text, 76 - width + 24, break_on_hyphens=False) or [""]
        lines.append(f"  {name:<{width}}  {body[0]}".rstrip())
        lines += [" " * (width + 4) + line for line in body[1:]]
    return "\n".join(lines)


def _usual(option: Option) -> str:
    if option.default == REQUIRED:
        return f"{option.name}=..."
    shown = option.default if isinstance(option.default, str) else json.dumps(option.default)
    return f"{option.name}={shown}"


def scalar(text: str) -> Any:
    """A value as YAML would read it: null, true, 3, 1e-3, [1, a], quoted or bare text."""
    text = text.strip()
    words = {"null": None, "none": None, "~": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        return float(text)
    if text[:1] in "'\"" and len(text) > 1 and text[-1] == text[0]:
        return text[1:-1]
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1].strip()
        return [scalar(part) for part in inner.split(",")] if inner else []
    return text


def _typed(option: Option, text: str) -> Any:
    if isinstance(option.default, str):
        return str(scalar(text)) if text[:1] in "'\"" and text else text
    value, default = scalar(text), option.default
    if default is None or value is None:
        return value
    kind: Any = list if isinstance(default, list | tuple) else type(default)
    if kind is list and not isinstance(value, list):
        value = [value]
    if not fits(value, kind):
        raise ConfigError(f"{option.name}: expected {spell(kind)}, found {text!r}")
    return value


def asked_for(commands: Mapping[str, str], *, head: str, usage: str) -> str | None:
    """Which of a program's commands the first word asks for; None after help was asked for and written.

    `commands` are what they do, by name; `usage` has the word COMMAND. Another word ends the program with exit code 2.
    """
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in commands:
        return name
    if name not in ("--help", "-h", "help"):
        sys.stderr.write(f"error: {name}: unknown command. {nearest(name, commands)}\n")
        raise SystemExit(2)
    width = max(map(len, commands))
    lines = "\n".join(f"  {each:<{width}}  {summary}" for each, summary in commands.items())
    more = f"{usage.partition('COMMAND')[0]}COMMAND --help says more."
    sys.stdout.write(f"{head}\n\nusage: {usage}\n\n{lines}\n\n{more}\n")
    return None


def run(main: Callable[[], Any], *, command: Command | None = None, debug: bool | None = None) -> Any:
    """Calls `main` and returns its result; a fault becomes one message on stderr and an exit code.

    With `command`, `--help` and `-h` are answered first. `debug` shows tracebacks; by default it follows
    `debug=...` among the arguments and DVSN_DEBUG=1.
    """
    if command is not None and {"--help", "-h"} & set(sys.argv[1:]):
        sys.stdout.write(command.help_text())
        return None
    if debug is None:
        debug = wants_debug(sys.argv[1:])
    try:
        return main()
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into exit(1)
            _leave(130, _interrupted(stop.__context__), stop, debug)
        raise
    except KeyboardInterrupt as error:
        _leave(130, _interrupted(error), error, debug)
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has gone
        raise SystemExit(1) from error
    except Exception as error:  # noqa: BLE001 - the one place where every fault ends
        _leave(*_explain(error, debug, command), error, debug)


def wants_debug(argv: Sequence[str]) -> bool:
    """Whether `debug=<anything but none, null, false, 0>` is given, or DVSN_DEBUG=1."""
    given = [
        token.partition("=")[2].strip("'\"").lower() for token in argv if re.match(r"(--)?\+?debug=", token)
    ]
    return os.environ.get("DVSN_DEBUG", "") not in ("", "0") or bool(
        given and given[-1] not in ("none", "null", "false", "0", "")
    )


def _leave(code: int, message: str, error: BaseException, debug: bool) -> NoReturn:
    if debug:
        sys.stderr.write(without_passwords("".join(traceback.format_exception(error))))
    rank, message = rank_here(), without_passwords(message)
    sys.stderr.write(f"{f'[process {rank}] ' if rank else ''}{message}\n")
    tell_launcher(message)
    sys.stderr.flush()
    raise SystemExit(code) from None


def _interrupted(error: BaseException) -> str:
    return f"interrupted{f': {error}' if str(error) else ''}"


def _explain(error: Exception, debug: bool, command: Command | None) -> tuple[int, str]:
    """(exit code, message) of a fault of a command."""
    data = (
        "" if command is not None and command.name == "evaluate" else "data."
    )  # where its options of loading are
    kind, text, module = type(error).__name__, str(error).strip(), type(error).__module__ or ""
    if isinstance(error, UserError):
        return 2, f"error: {_without_worker(text, kind)}"
    if module.startswith(("hydra.", "omegaconf.", "yaml.")):
        return 2, f"error: {composition_message(error)}"
    if kind == "MisconfigurationException":
        return 2, f"error: {text}"
    if kind == "SIGTERMException":
        return 143, "stopped by SIGTERM"
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError":
        hint = f"Lower {data}batch_size or the size of the pictures."
        return 1, f"error: out of memory. {hint} {_first_line(text)}".rstrip()
    if ended := _end_of_a_worker(error):
        return 1, f"error: {ended.removesuffix('.')}. {_why_a_worker_ended(ended, data, command)}"
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left" in text:
        return 1, f"error: the disk is full: {_first_line(text)}. Free some space, or write elsewhere."
    if isinstance(error, OSError) and error.strerror and error.filename:
        return 1, f"error: {error.filename}: {error.strerror}"
    again = "" if debug else " - run again with debug=true to see the traceback"
    return 1, f"internal error: {kind}: {_first_line(text)}{again}"


def _end_of_a_worker(error: BaseException) -> str:
    """What torch says of a DataLoader worker that has ended, with the signal where an error names it that led to this one;
    empty for another fault."""
    said, seen = "", error
    for _ in range(20):
        text = _first_line(str(seen))
        if "DataLoader worker" in text and "killed by signal" in text:
            return text
        if "DataLoader worker" in text and "exited unexpectedly" in text:
            said = said or text
        before = seen.__cause__ or seen.__context__
        if before is None:
            break
        seen = before
    return said


def _why_a_worker_ended(text: str, data: str, command: Command | None) -> str:
    """What ends a DataLoader worker, by the signal that torch names. `data` stands before the options of loading."""
    named = re.search(r"killed by signal: ([A-Za-z]+(?: [a-z]+)*)", text)
    name, memory = named.group(1).lower() if named else "", f"lower {data}workers or {data}batch_size"
    if name in ("terminated", "interrupt", "hangup"):
        again = (
            "Continue with resume=auto" if command is None or command.name == "train" else "Start it again."
        )
        return f"Somebody or the system has asked it to stop, such as a scheduler. {again}"
    if name == "bus error":
        return f"/dev/shm is full: {memory}, or enlarge /dev/shm."
    if name == "killed":
        return f"The system ends processes like that when memory runs out: {memory}."
    if name:
        return f"A library that reads pictures has crashed. Set {data}workers=0 to see at which file."
    return f"Set {data}workers=0 to see why."


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _without_worker(text: str, kind: str) -> str:
    """The message of an error raised in a DataLoader worker, without the trace that torch puts around it."""
    if not re.match(r"Caught \w+ in ", text):
        return text
    starts = list(re.finditer(rf"^(?:[\w.]*\.)?{kind}: ", text, re.MULTILINE))
    return text[starts[-1].end() :].strip() if starts else text
