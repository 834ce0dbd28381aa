"""`dvsn completion bash|zsh|fish`: a script by which a shell completes commands, options, groups and their choices.

The script asks `dvsn completion words WORD...` for what may follow, which imports the standard library alone.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from dvsn.config.menu import choices
from dvsn.errors import ConfigError, nearest

SCRIPTS = {
    "bash": """_dvsn() {
    local IFS=$'\\n'
    local line="${COMP_LINE:0:COMP_POINT}" word="${COMP_WORDS[COMP_CWORD]}" words=()
    read -ra words <<< "${line// /$'\\n'}" -d ''
    [[ "$line" == *' ' ]] && words+=("")
    local last="${words[${#words[@]}-1]}"
    COMPREPLY=($(dvsn completion words "${words[@]:1}" 2>/dev/null))
    # bash parts words at '=': what stands before it in the last one is not replaced
    [[ "$last" == *=* && "$COMP_WORDBREAKS" == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${last%=*}="}")
    [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *= ]] && compopt -o nospace
}
complete -o default -F _dvsn dvsn
""",
    "zsh": """#compdef dvsn
_dvsn() {
    local -a found
    found=("${(@f)$(dvsn completion words "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    [[ -n "$found" ]] && compadd -Q -S '' -- $found || _files
}
compdef _dvsn dvsn
""",
    "fish": """function __dvsn
    set -l words (commandline -opc)
    dvsn completion words $words[2..] (commandline -ct) 2>/dev/null
end
complete -c dvsn -a '(__dvsn)'
""",
}
INSTALL = {
    "bash": 'eval "$(dvsn completion bash)"       # in ~/.bashrc',
    "zsh": 'eval "$(dvsn completion zsh)"        # in ~/.zshrc, after compinit',
    "fish": "dvsn completion fish | source        # in ~/.config/fish/config.fish",
}
PARTS = {
    "data": {
        name: f"data_tools.commands:{name.upper()}"
        for name in ("init", "check", "show", "weights", "stats", "faces", "shard")
    },
    "distill": {"taps": "engine.tap_table:COMMAND"},
    "hub": {"push": "hub.__main__:PUSH"},
    "zoo": {"show": "", "verify": "zoo.__main__:VERIFY", "page": ""},
}  # fmt: skip
"""The commands of a command, and where their options are."""
PLACES = {
    "predict": "predict.options:COMMAND",
    "serve": "serve.options:COMMAND",
    "convert": "convert.options:COMMAND",
    "export": "export.__main__:COMMAND",
    "compress": "compress.command:COMMAND",
    "search": "sweep.search:COMMAND",
    "report": "report.command:COMMAND",
    "dashboard": "dashboard.command:COMMAND",
    "train": "train:COMMAND",
    "tune": "tune:COMMAND",
    "evaluate": "evaluate:COMMAND",
    "average": "average:COMMAND",
    "benchmark": "benchmark.__main__:COMMAND",
}
BOOLEANS = ("true", "false")


def follow(words: Sequence[str], commands: Iterable[str]) -> list[str]:
    """What the last of `words` may become: the command, its own command, or `key=` and `key=value`."""
    *before, last = words or [""]
    if not before:
        return starting(last, commands)
    name, part = before[0], next((word for word in before[1:] if "=" not in word), "")
    if name == "completion":
        return starting(last, SCRIPTS)
    if name in PARTS and len(before) == 1:
        return starting(last, PARTS[name])
    if name == "zoo":
        from dvsn.zoo.entries import entries

        return starting(last, entries()) if len(before) == 2 else []
    command = options_of(PARTS[name].get(part, "") if name in PARTS else PLACES.get(name, ""))
    if command is None:
        return []
    groups = choices() if command.groups else {}
    key, equals, _ = last.partition("=")
    if equals:
        return starting(last, [f"{key}={value}" for value in values(key, command, groups)])
    names = [*groups, *(option.name for option in command.options)]
    return starting(last, [f"{each}=" for each in dict.fromkeys(names)])


def values(key: str, command: Any, groups: dict[str, list[str]]) -> list[str]:
    """The choices of a group, or of an option of two values."""
    if key in groups:
        return groups[key]
    option = next((each for each in command.options if each.name == key), None)
    two = option is not None and (isinstance(option.default, bool) or option.default in BOOLEANS)
    return list(BOOLEANS) if two else []


def options_of(place: str) -> Any:
    """The command at `module:NAME`, without its work; None where there is none."""
    return pkgutil.resolve_name(f"dvsn.{place}") if place else None


def starting(last: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(last)]


def run(argv: Sequence[str], commands: Iterable[str]) -> None:
    """The command: a script, or what may follow."""
    name = argv[0] if argv else "--help"
    if name == "words":
        sys.stdout.write("".join(f"{word}\n" for word in follow(argv[1:], commands)))
    elif name in SCRIPTS:
        sys.stdout.write(SCRIPTS[name])
    elif name in ("--help", "-h", "help"):
        lines = "\n".join(f"  {line}" for line in INSTALL.values())
        sys.stdout.write(
            f"dvsn completion bash|zsh|fish: a script by which a shell completes dvsn\n\n{lines}\n"
        )
    else:
        raise ConfigError(f"{name}: no script for this shell. {nearest(name, SCRIPTS)}")
