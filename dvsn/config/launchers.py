"""The options of dvsn's launchers for clusters, `hydra.launcher.*`: their types, and what no option may hold.

They end up in the head of a shell script (SLURM) or in a scheduler's request, so each text is a name: no blanks, quotes or
lines. What would run commands there (setup, python, srun_args, additional_parameters of submitit; runtime_env of
Ray) is no option.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from dvsn.config.types import found, number, whole
from dvsn.errors import ConfigError, nearest


class Kind(NamedTuple):
    """The values of an option."""

    usual: Any
    kind: str
    """whole | number | name"""
    least: float = 1


NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:+@%\[\]&|*=-]*")
"""What partitions, accounts, features and resources are called; it never begins with a dash."""
HOST = re.compile(r"(ray://)?[A-Za-z0-9_][A-Za-z0-9_.:-]*")
LENGTH = 200
LOCAL = {
    "timeout_min": Kind(10080, "whole"),
    "max_num_timeout": Kind(0, "whole", 0),
}
SLURM = {
    "timeout_min": Kind(1440, "whole"),
    "max_num_timeout": Kind(10, "whole", 0),
    "nodes": Kind(1, "whole"),
    "tasks_per_node": Kind(1, "whole"),
    "gpus_per_node": Kind(None, "whole", 0),
    "cpus_per_task": Kind(None, "whole"),
    "mem_gb": Kind(None, "number", 0.1),
    "array_parallelism": Kind(256, "whole"),
    "signal_delay_s": Kind(120, "whole"),
    "name": Kind("dvsn", "name"),
    **{
        key: Kind(None, "name")
        for key in ("partition", "qos", "account", "constraint", "exclude", "nodelist", "gres", "reservation")
    },
}
RAY = {
    "address": Kind(None, "host"),
    "num_cpus": Kind(1, "number", 0),
    "num_gpus": Kind(0, "number", 0),
    "max_retries": Kind(3, "whole", 0),
}
OPTIONS: dict[str, dict[str, Kind]] = {"submitit_local": LOCAL, "submitit_slurm": SLURM, "ray": RAY}
"""The options of each launcher."""
TARGETS = {
    "submitit_local": "hydra_plugins.dvsn.SubmititLocalLauncher",
    "submitit_slurm": "hydra_plugins.dvsn.SubmititSlurmLauncher",
    "ray": "hydra_plugins.dvsn.RayLauncher",
}
COMMANDS = {
    "setup": "Load modules and set variables in the shell that starts the sweep: SLURM hands its environment on.",
    "python": "Jobs run with the Python of the sweep.",
    "srun_args": "",
    "additional_parameters": "",
    "teardown": "",
    "runtime_env": "Install dvsn on the machines of the cluster.",
    "submitit_folder": "It lies in the folder of the sweep.",
}
"""Options of others that run commands or write elsewhere, with what to do instead."""
FOREIGN = ("hydra_plugins.hydra_submitit_launcher.", "hydra_plugins.hydra_ray_launcher.")
"""Plugins that pickle the config and resolve it on the other side, where nothing checks it."""


def node(name: str) -> dict[str, Any]:
    """The node `hydra.launcher` of one of dvsn's launchers, with its usual options."""
    return {"_target_": TARGETS[name], **{key: each.usual for key, each in OPTIONS[name].items()}}


def check_launcher(given: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for an option of a launcher for clusters that there is not, or for a value of another kind."""
    target = str(given.get("_target_"))
    if target.startswith(FOREIGN):
        raise ConfigError(
            f"hydra.launcher._target_: {target} sends configs that nobody checks. Leave it out: "
            "hydra/launcher=submitit_local, submitit_slurm and ray are dvsn's own."
        )
    name = next((name for name, each in TARGETS.items() if each == target), None)
    if name is None:
        return
    options = OPTIONS[name]
    for key, value in given.items():
        path = f"hydra.launcher.{key}"
        if key == "_target_":
            continue
        if key not in options:
            hint = COMMANDS[key] if key in COMMANDS else nearest(str(key), options)
            raise ConfigError(
                f"{path}: is no option of {name}. {hint or 'It could run commands on the cluster.'}".rstrip()
            )
        _check_value(path, value, options[key])


def _check_value(path: str, value: Any, wanted: Kind) -> None:
    if value is None and (wanted.usual is None or wanted.kind == "number"):
        return
    pattern = HOST if wanted.kind == "host" else NAME
    right, expected = {
        "whole": (whole(value, int(wanted.least)), f"a whole number, {wanted.least:g} or more"),
        "number": (number(value) and value >= wanted.least, f"a number, {wanted.least:g} or more"),
        "name": (isinstance(value, str) and len(value) <= LENGTH and bool(pattern.fullmatch(value)),
                 "a name of letters, digits and . , : + @ % [ ] & | * = _ -"),
        "host": (isinstance(value, str) and len(value) <= LENGTH and bool(pattern.fullmatch(value)),
                 "auto, HOST:PORT or ray://HOST:PORT"),
    }[wanted.kind]  # fmt: skip
    if not right:
        null = "null, or " if wanted.usual is None else ""
        raise ConfigError(f"{path}: {found(value)}, expected {null}{expected}")
