"""The options of `python -m dvsn.serve`, and what they become."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvsn.command_line import REQUIRED, UNPACKED, Command, Option
from dvsn.errors import CheckpointError, ConfigError, nearest
from dvsn.hub.names import is_name

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""What a model may be called: it stands in addresses and in metrics."""

COMMAND = Command(
    name="serve",
    summary="Answer pictures over HTTP, and show a page to drop them on.",
    options=(
        Option("models", REQUIRED, "checkpoints and exported files (.onnx, .xml), each as PATH, called by its file's name, "
                        "or as NAME=PATH; also runs/NAME and hf://OWNER/NAME; any number of them", rest=True),
        Option("host", "127.0.0.1", "the address that is listened at. 127.0.0.1: this machine alone; 0.0.0.0: whoever "
                        "reaches it, without a password"),
        Option("port", 8000, "0: any that is free"),
        Option("names", [], "names of this machine that browsers may call it by, beside localhost, its own and addresses"),
        Option("device", "auto", "auto, cpu, cuda, cuda:1, mps; exported files are asked on the CPU"),
        Option("size", "recipe", "segmentation, pix2pix, classification: recipe: as the checkpoint was evaluated; keep: the "
                        "picture's; or HEIGHTxWIDTH"),
        Option("boxes", "image", "pose, landmarks: where people or faces are. image: the whole picture; FILE.ckpt: a dvsn "
                        "detection checkpoint; FILE.onnx: YuNet"),
        Option("category", None, "boxes: the number of people or faces among the detector's classes; null: person or face"),
        Option("batch", 8, "at most so many pictures of equal size go through a network together"),
        Option("wait", 2.0, "milliseconds that a picture waits for others to fill its batch"),
        Option("queue", 32, "at most so many requests at a time; others are told to come again (503)"),
        Option("max_bytes", 20_000_000, "of an uploaded file"),
        Option("max_pixels", 25_000_000, "of a picture, known from its header before it is decoded; and of a batch"),
        Option("upload", 30.0, "seconds in which an upload must have come"),
        Option("grace", 30.0, "seconds in which what was begun is finished, when asked to stop"),
        UNPACKED,
    ),
    examples=(
        "python -m dvsn.serve best.ckpt",
        "python -m dvsn.serve street=pidnet.onnx faces=pfld.ckpt port=8080",
        "python -m dvsn.serve pose=hrnet_w32.ckpt boxes=detector.ckpt",
        "python -m dvsn.serve pidnet.onnx host=0.0.0.0 'names=[vision.example.org]'",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """The checked options. `wait`, `upload` and `grace` are seconds."""

    models: Mapping[str, str]
    """Paths by name."""
    host: str = "127.0.0.1"
    port: int = 8000
    names: tuple[str, ...] = ()
    device: str = "auto"
    size: str = "recipe"
    boxes: str = "image"
    category: int | None = None
    batch: int = 8
    wait: float = 0.002
    queue: int = 32
    max_bytes: int = 20_000_000
    max_pixels: int = 25_000_000
    upload: float = 30.0
    grace: float = 30.0

    @property
    def local(self) -> bool:
        """Whether this machine alone can call."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own, which no other reaches."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def parse(argv: Sequence[str]) -> dict[str, Any]:
    """The options of a command line, in which models may stand as NAME=PATH. Raises `ConfigError`."""
    known = {*(option.name for option in COMMAND.options), "debug"}
    words: list[str] = []
    for token in argv:
        key, equals, _ = token.partition("=")
        named = equals and not token.startswith("--") and key not in known
        follows = words and words[-1].startswith("--") and "=" not in words[-1]
        words.append(f"models={token}" if named and not follows else token)
    return COMMAND.parse(words)


def read_settings(options: Mapping[str, Any]) -> Settings:
    """Raises `ConfigError` for a value that cannot be, and `CheckpointError` for a file that is not there."""
    for name in ("batch", "queue", "max_bytes", "max_pixels"):
        if options[name] < 1:
            raise ConfigError(f"{name}: found {options[name]}, expected 1 or more.")
    for name, most in (("wait", 10_000), ("upload", 3600), ("grace", 3600)):
        if not 0 <= options[name] <= most or (name == "upload" and options[name] == 0):
            raise ConfigError(f"{name}: found {options[name]}, expected a number above 0, up to {most}.")
    if not 0 <= options["port"] <= 65535:
        raise ConfigError(f"port: found {options['port']}, expected 0 to 65535.")
    if options["boxes"].endswith((".json", ".pth")):
        raise ConfigError(
            f"boxes: found {options['boxes']}, expected image, or a detector: FILE.ckpt, FILE.onnx (YuNet). A file of boxes "
            "knows pictures by number, and uploads have none."
        )
    category = options["category"]
    if category is not None and (type(category) is not int or options["boxes"] == "image"):
        raise ConfigError(
            f"category: found {category!r}, expected the number of a class of the detector that boxes=FILE names."
        )
    elsewhere = ("models", "wait", "names", UNPACKED.name)
    rest = {name: value for name, value in options.items() if name not in elsewhere}
    return Settings(
        models=read_models(options["models"]),
        wait=options["wait"] / 1000,
        names=tuple(str(each).lower() for each in options["names"]),
        **rest,
    )


def read_models(entries: Sequence[str]) -> dict[str, str]:
    """Paths by name, in their order. Raises `ConfigError` for names that are none or stand twice, and `CheckpointError`."""
    found: dict[str, str] = {}
    for entry in entries:
        name, equals, path = entry.partition("=")
        if not equals or Path(entry).exists():
            name, path = Path(entry).name.removesuffix(Path(entry).suffix), entry
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"models: a model cannot be called '{name}': expected letters, digits, '.', '_' and '-'. Write NAME={path}"
            )
        if name in found:
            raise ConfigError(
                f"models: two are called '{name}', {found[name]} and {path}. Write NAME=PATH for them."
            )
        if not is_name(path) and not Path(path).exists():
            options = [option.name for option in COMMAND.options]
            meant = f" Nor is '{name}' an option. {nearest(name, options)}" if equals else ""
            raise CheckpointError(
                f"{path or entry}: no such file. Expected a checkpoint or an exported file.{meant}"
            )
        found[name] = path
    return found
