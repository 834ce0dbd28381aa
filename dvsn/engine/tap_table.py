"""`python -m dvsn.distill taps network=...`: the modules of a network that can be tapped, and the shapes of
their outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dvsn import command_line
from dvsn.command_line import Command, Option
from dvsn.config import compose
from dvsn.config.build import build
from dvsn.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

Config = dict[str, Any]
COMMAND = Command(
    name="distill taps",
    summary="List the places of a network where distillation may look, with their shapes.",
    groups=True,
    options=(
        Option("checkpoint", "null", "a trained network instead of network=..."),
        Option("size", [32, 32], "height and width of the picture"),
        Option("depth", 2, "how deep modules may lie to be listed"),
        Option("data.classes", 100, "how many classes a new network has"),
    ),
    examples=(
        "python -m dvsn.distill taps network=resnet8x4",
        "python -m dvsn.distill taps network=pidnet_s size=[512,1024] depth=1",
        "python -m dvsn.distill taps checkpoint=teacher.ckpt size=[224,224]",
    ),
)


def rows(network: nn.Module, size: list[int], *, depth: int) -> list[tuple[str, str, str, str]]:
    """(path, class, shape, remark) of every place, in the order in which the modules first answer.

    Listed are modules at most so deep, and whatever the network itself names; `stages[1]` is the second of these taps.
    """
    import torch

    from dvsn.distill.taps import Taps, module_path, points, probe, roles

    channels = 3
    first = next((m for m in network.modules() if isinstance(m, torch.nn.Conv2d)), None)
    if first is not None:
        channels = first.in_channels
    picture = torch.zeros(1, channels, *size)
    detector = hasattr(network, "model") and hasattr(network.model, "transform")

    def forward() -> Any:
        return network([picture[0]]) if detector else network(picture)

    named: dict[str, list[str]] = {}
    for role, paths in roles(network).items():
        for number, path in enumerate(paths):
            named.setdefault(path, []).append(role if len(paths) == 1 else f"{role}[{number}]")
    found = points(network, forward)
    inputs = [path for path in named if path.endswith(":in")]
    shapes = probe(network, Taps(network, inputs), forward).features if inputs else {}
    table = []
    for point in found:
        for path in (f"{point.path}:in", point.path):
            if path in named and path in shapes:
                table.append((path, "", spelt(shapes[path]), ", ".join(named[path])))
            elif path == point.path and (path in named or path.count(".") < depth):
                remark = named.get(path, []) + ([] if point.intact else ["overwritten in place, no tap"])
                table.append((path, point.kind, spelt(point.shape), ", ".join(remark)))
    known = {module_path(row[0]) for row in table}
    assert all(module_path(path) in known for path in named)
    return table


def spelt(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "-"


def show(network: nn.Module, size: list[int], *, depth: int) -> None:
    """The table on the screen."""
    from rich.console import Console
    from rich.table import Table

    title = f"{type(network).__name__} for a picture of {size[0]} x {size[1]}"
    table = Table("tap", "module", "shape", "named by the network as", title=title, title_justify="left")
    for row in rows(network, size, depth=depth):
        table.add_row(*row)
    console = Console()
    console.print(table, soft_wrap=not console.is_terminal)


def job(tree: Config) -> None:
    size, depth = tree["size"], tree["depth"]
    if not (
        isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
    ):
        raise ConfigError(f"size: found {size!r}, expected height and width, such as [32,32].")
    if not isinstance(depth, int) or depth < 1:
        raise ConfigError(f"depth: found {depth!r}, expected a whole number, 1 or more.")
    if (tree.get("network") is None) == (tree["checkpoint"] is None):
        raise ConfigError(
            "network, checkpoint: expected one of them: network=resnet8x4, or checkpoint=best.ckpt."
        )
    if tree["checkpoint"] is not None:
        from dvsn.tasks.recipe import load  # torch, which `--help` does without

        network = load(tree["checkpoint"]).student
    else:
        network = build(tree["network"], path="network")
    show(network, size, depth=depth)


def main() -> None:
    command_line.run(lambda: compose.hydra_main("distill_taps", job), command=COMMAND)
