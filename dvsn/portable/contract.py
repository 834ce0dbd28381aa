"""What an exported file says of itself, read with its types checked: what it takes, and what its answer means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dvsn.errors import CheckpointError
from dvsn.portable.bands import Bands, bands_of
from dvsn.portable.joints import Skeleton

Array = np.ndarray[Any, Any]
ANSWERS: dict[str, tuple[str, ...]] = {
    "pixels": ("ids",),
    "image": ("picture",),
    "classes": ("probabilities",),
    "heatmaps": ("points", "confidence"),
    "points": ("points", "confidence"),
    "objects": ("boxes", "labels", "scores"),
}
"""By what a task's network answers with (`Task.response`): the outputs that a decoded answer has."""


@dataclass(frozen=True)
class Crop:
    """How the box of a person or a face becomes the network's input: see `dvsn.portable.crop`."""

    face: bool
    size: tuple[int, int]
    """(H, W)."""
    padding: float
    unbiased: bool = False
    """Of people."""
    centred: bool = False
    """Of faces."""


@dataclass(frozen=True)
class Contract:
    """The parts of a manifest (`dvsn.export.manifest`) that an answer needs."""

    kind: str
    """The task, such as `segmentation`."""
    answer: str
    """One of `ANSWERS`."""
    multiple: int
    """What the sides of pictures must divide by."""
    resize: tuple[Any, ...] = ()
    """Steps of the recipe's evaluation: see `dvsn.portable.resize`."""
    treated: str = "photo"
    """How these treat the input: `photo`, or `label`, which is never interpolated."""
    input_classes: int = 0
    """The input is class ids below it; 0: RGB."""
    channels: int = 3
    """Of an input that is a picture: 3 are RGB, 1 its brightness."""
    edges: bool = False
    """A further plane of instance edges."""
    input_palette: Array | None = None
    """(K, 3) uint8: ids of the input as colours."""
    deep_range: tuple[int, int] | None = None
    """Of 16-bit pictures: see `dvsn.portable.decode.Rule`."""
    bands: Bands | None = None
    """Of pictures that are not read as RGB."""
    crop: Crop | None = None
    names: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()
    file_ids: Mapping[int, int] | None = None
    shown_from: float | None = None
    joints: Skeleton | None = None
    sigmas: tuple[float, ...] = ()


def read_contract(about: Mapping[str, Any], path: Path) -> Contract:
    """The contract of a manifest. Raises `CheckpointError` for one that nobody can answer by here."""
    if about.get("raw"):
        raise CheckpointError(
            f"{path}: was exported with raw=true, so its answers are not decoded. Export the checkpoint without raw."
        )
    if about.get("answer") not in ANSWERS:
        raise CheckpointError(
            f"{path}: its manifest has the answer {about.get('answer')!r}, expected one of {', '.join(ANSWERS)}."
        )
    try:
        names = [str(output["name"]) for output in about["outputs"]]
        if not set(ANSWERS[about["answer"]]) <= set(names):
            raise CheckpointError(
                f"{path}: its manifest is of another task: it answers with {', '.join(names)}, and the task "
                f"'{about.get('task')}' with {', '.join(ANSWERS[about['answer']])}. Export the checkpoint again."
            )
        return _read(about)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"no key {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path}: its manifest is not one of dvsn: {said}.") from error


def _read(about: Mapping[str, Any]) -> Contract:
    given, data = about["input"], about.get("data") or {}
    ids = given["colours"] == "ids"
    deep, colours = data.get("deep_range"), given.get("palette")
    objects = about["answer"] == "objects"
    shown = about.get("shown_from", (about.get("recipe") or {}).get("shown", 0.5) if objects else None)
    points = about.get("keypoints")
    return Contract(
        kind=str(about["task"]),
        answer=str(about["answer"]),
        multiple=int(given["multiple"]),
        resize=() if objects else tuple(given.get("resize") or ()),
        treated="label" if ids else str(given.get("treated", "photo")),
        input_classes=int(given["range"][1]) + 1 if ids else 0,
        channels=3 if ids else int(given["shape"][1]),
        bands=None if ids else bands_of(data),
        edges=ids and int(given["shape"][1]) > 1,
        input_palette=None if not ids or colours is None else np.array(colours, np.uint8).reshape(-1, 3),
        deep_range=None if deep is None else (int(deep[0]), int(deep[1])),
        crop=None if given.get("crop") is None else _crop(given["crop"]),
        names=tuple(map(str, about.get("classes") or ())),
        palette=tuple((int(r), int(g), int(b)) for r, g, b in about.get("palette") or ()),
        file_ids=_numbers(about.get("file_ids")),
        shown_from=None if shown is None else float(shown),
        joints=None if points is None else Skeleton.from_json(points),
        sigmas=tuple(map(float, (points or {}).get("sigmas") or ())),
    )


def _crop(given: Mapping[str, Any]) -> Crop:
    height, width = (int(side) for side in given["size"])
    return Crop(
        given["kind"] == "face",
        (height, width),
        float(given["padding"]),
        bool(given.get("unbiased", False)),
        bool(given.get("centred", False)),
    )


def _numbers(given: Any) -> dict[int, int]:
    """A list of numbers by class, or pairs of both."""
    pairs = given.items() if isinstance(given, Mapping) else enumerate(given or ())
    return {int(label): int(number) for label, number in pairs}
