"""What an exported file says of itself: what it takes, what it answers, and where it comes from. Plain data."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from dvsn.config.build import build
from dvsn.data.transforms import input_kind
from dvsn.export.graph import Graph, Points, input_channels
from dvsn.export.shape import Shape
from dvsn.hub.folder import storable
from dvsn.tasks.pix2pix import label_palette
from dvsn.version import VERSION

FORMAT = 1
COLOURS = {1: "grey", 3: "RGB"}
"""By channels what a picture is; of other numbers, and where `data.bands` says how, its bands."""
KEY = "dvsn"
"""Under this name the manifest lies in a file's own metadata."""


def manifest(graph: Graph, shape: Shape, *, precision: str, header: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a graph exported for inputs of `shape`. `header` is that of its checkpoint (`dvsn` in the file).

    `checksum` and `check` are filled in by who writes and who checks the file; `score` by who measures it.
    """
    task: Any = graph.task
    return {
        "format": FORMAT,
        "task": task.kind,
        "answer": str(task.response),
        "shows": task.shows,
        "raw": graph.raw,
        "precision": precision,
        "input": input_contract(graph, shape),
        "outputs": [output._asdict() | {"axes": list(output.axes)} for output in graph.outputs],
        **words(task),
        "shown_from": getattr(task, "shown_from", None),
        "recipe": storable(header["recipe"]),
        "data": storable(header.get("data")),
        "versions": versions(),
        "score": None,
        "check": None,
        "checksum": None,
    }


def input_contract(graph: Graph, shape: Shape) -> dict[str, Any]:
    """How a picture becomes the input: its shape (null: any), its colours, and what is to be done with it before."""
    task: Any = graph.task
    classes = int(getattr(task, "input_classes", 0))
    height, width = shape.sides or (None, None)
    contract: dict[str, Any] = {
        "name": "image",
        "type": "uint8",
        "axes": ["batch", "channel", "height", "width"],
        "shape": [shape.batch, input_channels(task), height, width],
        "colours": "ids" if classes else COLOURS.get(input_channels(task), "bands"),
        "range": [0, classes - 1 if classes else 255],
        "multiple": int(getattr(task.network, "multiple", 1)),
        "resize": None,
        "crop": None,
        "offset": graph.wants_offset,
    }
    if isinstance(graph, Points):
        contract["crop"] = crop_contract(task)
    else:
        steps = (task.data_recipe.get("transform") or {}).get("eval")
        contract["resize"] = list(steps) if isinstance(steps, list) else []
        contract["treated"] = input_kind(task.data_recipe, ids=classes > 0)
        if classes:
            contract["palette"] = label_palette(classes).tolist()
    return contract


def crop_contract(task: Any) -> dict[str, Any]:
    """How a person's or a face's box becomes the crop that the network sees: the options of `dvsn.data`'s crop."""
    crop = task.crop()
    names = ("size", "padding", "unbiased", "centred")
    return {
        "kind": "face" if task.shows == "faces" else "person",
        **{name: plain(getattr(crop, name)) for name in names if hasattr(crop, name)},
    }


def words(task: Any) -> dict[str, Any]:
    """Names and colours of classes, or names, mirror pairs and lines of keypoints."""
    if hasattr(task, "codec") or str(task.response) == "points":
        node = task.data_recipe.get("keypoints")
        if not node:
            return {"keypoints": None}
        found = build(node, path="data.keypoints")
        parts = ("names", "pairs", "skeleton", "sigmas", "head")
        return {"keypoints": {name: plain(getattr(found, name)) for name in parts if hasattr(found, name)}}
    if hasattr(task, "vocabulary"):
        found = task.vocabulary
        if found is None:  # of pix2pix on pictures without classes
            return {}
        return {
            "classes": list(found.names),
            "palette": plain(found.palette),
            "file_ids": file_ids(task, found),
        }
    names = getattr(task, "names", None)
    return {"classes": list(names)} if names else {}


def file_ids(task: Any, found: Any) -> Any:
    """By class its number in files of the data set: a list, or of detection pairs of those that have one."""
    if task.shows != "objects":
        return plain(found.file_ids)
    known = (task.data_recipe.get("objects") or {}).get("ids") or {}
    return {str(label): int(number) for label, number in known.items()}


def versions() -> dict[str, str]:
    """Of what made the file."""
    found = {"dvsn": VERSION, "python": platform.python_version()}
    for name in (
        "torch",
        "torchvision",
        "onnx",
        "onnxscript",
        "onnxruntime",
        "openvino",
        "nncf",
        "executorch",
    ):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def plain(value: Any) -> Any:
    """Tuples as lists, numbers as they are: what JSON gives back."""
    return json.loads(json.dumps(value, default=lambda each: each.tolist()))
