"""One export: the checkpoint is read, the graph made, written, asked by its own runtime and compared."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dvsn.errors import ConfigError
from dvsn.export import check, formats
from dvsn.export.finetune import read_plan, require_tunable
from dvsn.export.graph import Graph, graph_of
from dvsn.export.manifest import manifest
from dvsn.export.parting import first_parting
from dvsn.export.runtimes import open_runtime
from dvsn.export.samples import Samples
from dvsn.export.shape import Shape, chosen
from dvsn.tasks.recipe import build_task, load_state, read_recipe
from dvsn.weights import read_checkpoint

log = logging.getLogger("dvsn")

CHANGES = {"mirror": "flip_test", "test_dropout": "test_dropout", "test_norm": "test_norm"}
"""Options that change a recipe before it is exported, and their names in it."""


class Export:
    """The steps of one export, in the order of `run`."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.kind, self.precision = str(options["format"]), str(options["precision"])
        formats.require(self.kind, self.precision)
        plan = read_plan(options)
        self.checkpoint = Path(str(options["checkpoint"]))
        self.path = target(options, self.checkpoint, formats.SUFFIX[self.kind])
        self.header, self.task = read(self.checkpoint, options)
        if plan is not None:
            require_tunable(self.task)
        self.samples = Samples(self.task, pictures=options["pictures"], root=options["root"])

    def run(self) -> Path:
        with aside(self.path) as made:
            shape, about = self.make(made)
        self.tell(shape, about)
        return self.path

    def make(self, made: Path) -> tuple[Shape, dict[str, Any]]:
        """Write the file to `made`, check it there, and write its manifest beside it."""
        folded = self.kind != "safetensors"
        half = self.precision if self.precision != "int8" and self.kind in ("onnx", "pt2") else "fp32"
        self.reference = graph_of(self.task, raw=bool(self.options["raw"]), fold=False)
        graph = graph_of(self.task, raw=bool(self.options["raw"]), precision=half, fold=folded)
        self.shown = self.samples.images(3)
        self.said = self.samples.said
        shape = chosen(
            graph,
            batch=self.options["batch"],
            size=self.options["size"],
            like=self.shown[0] if self.shown else None,
        )
        require_sides(self.task, shape)
        about = manifest(graph, shape, precision=self.precision, header=self.header)
        model = formats.onnx_model(graph, shape) if self.kind in ("onnx", "openvino") else None
        if self.precision == "int8":
            from dvsn.export.quantise import quantised

            model, about["int8"] = quantised(model, self.task, graph, shape, self.samples, self.options)
        with writing(self.path):
            self.write(graph, shape, model, about, made)
        about["check"] = self.check(made, shape, model)
        formats.write_beside(made, about)
        return shape, about

    def write(self, graph: Graph, shape: Shape, model: Any, about: dict[str, Any], path: Path) -> None:
        if self.kind == "onnx":
            formats.write_onnx(model, path, about)
        elif self.kind == "openvino":
            half = self.precision in ("fp16", "bf16")
            formats.write_openvino(formats.openvino_model(model), path, about, half=half)
        elif self.kind == "pt2":
            formats.write_pt2(graph, shape, path, about)
        elif self.kind == "executorch":
            formats.write_executorch(graph, shape, path, about)
        else:
            formats.write_safetensors(graph, path, about, dtype=TYPES[self.precision])

    def check(self, path: Path, shape: Shape, model: Any) -> list[dict[str, Any]]:
        """Ask the file and the network about the same pictures. Raises `CheckpointError` where they differ."""
        ask = open_runtime(path, self.reference)
        log.info("check  %s", self.said)
        images = list(check.inputs(self.reference, shape, self.shown))
        found = check.compare(self.reference, ask, iter(images), self.precision)
        parted = ""
        if model is not None and any(not each.holds for each in found):
            parted = first_parting(self.reference_folded(), model, images[0], self.precision)
        check.require(found, self.path, parted=parted)
        return [{"output": each.output, "largest": each.largest, "same": each.share} for each in found]

    def reference_folded(self) -> Graph:
        """The float graph with the modules of the file."""
        return graph_of(self.task, raw=bool(self.options["raw"]))

    def tell(self, shape: Shape, about: dict[str, Any]) -> None:
        """What was written, and how it is asked."""
        size = self.path.stat().st_size
        binary = self.path.with_suffix(".bin")
        size += binary.stat().st_size if self.kind == "openvino" else 0
        sides = "any sides" if shape.sides is None else f"{shape.sides[0]}x{shape.sides[1]}"
        batch = "any number" if shape.batch is None else str(shape.batch)
        log.info(
            "%s: %s, %s, input uint8 of %s pictures of %s, %.1f MB", self.path, about["task"], self.precision, batch, sides,
            size / 1e6,
        )  # fmt: skip
        if self.kind == "onnx" and self.options["target"] == "gpu":
            log.info("TensorRT: %s", trtexec(self.path, shape, self.precision))


TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Where the file for `path` is made and checked: in a folder beside it, whose files take their places at the end. If
    anything is raised they go, and what was at `path` before stays. Raises `ConfigError` where nothing can be written."""
    folder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            folder.mkdir(parents=True)
        yield folder / path.name
        with writing(path):
            for file in sorted(folder.iterdir()):
                file.replace(path.parent / file.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says of an error of the file system that `path` cannot be written."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"output: {path} cannot be written: {error.strerror or error}.") from error


def target(options: dict[str, Any], checkpoint: Path, suffix: str) -> Path:
    """Where the file goes. Raises `ConfigError` where something is in the way."""
    given = options["output"]
    path = checkpoint.with_suffix(suffix) if given is None else Path(str(given))
    if path.is_dir():
        path = path / f"{checkpoint.stem}{suffix}"
    if path.suffix != suffix:
        raise ConfigError(
            f"output: found {path}, expected a name that ends with {suffix} for format={options['format']}."
        )
    if path.resolve() == checkpoint.resolve():
        raise ConfigError(f"output: {path} is the checkpoint itself. Give output=NAME{suffix}")
    if path.exists() and not options["overwrite"]:
        raise ConfigError(
            f"output: {path} is there already. Give overwrite=true, or another output=NAME{suffix}"
        )
    return path


def require_sides(task: Any, shape: Shape) -> None:
    """Raise `ConfigError` where pictures of any sides would have to be resized by their shorter one, which no graph does."""
    side = getattr(getattr(task, "inference", None), "resize", None)
    if isinstance(side, int) and shape.sides is None:
        raise ConfigError(
            f"size: the recipe resizes every picture to a shorter side of {side} (task.inference.resize), for which a file "
            f"must know both sides of its pictures. Give size=HEIGHTxWIDTH, such as size={side}x{side}."
        )


def read(path: Path, options: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The header of a checkpoint and its task, with the changes that were asked for."""
    content = read_checkpoint(path)
    header = read_recipe(content, path)
    recipe = dict(header["recipe"])
    for option, name in CHANGES.items():
        if (value := options[option]) is None:
            continue
        if name == "flip_test" and "flip_test" not in recipe and header.get("task") == "segmentation":
            recipe["inference"] = {**(recipe.get("inference") or {}), "flip": bool(value)}
        elif name not in recipe:
            raise ConfigError(f"{option}: the task '{header.get('task')}' of {path} has no such option.")
        else:
            recipe[name] = value
    header = {**header, "recipe": recipe}
    task = build_task(recipe, data=header.get("data"), path=path)
    load_state(task, content["state_dict"], path)
    return header, task.eval().requires_grad_(False)


def trtexec(path: Path, shape: Shape, precision: str) -> str:
    """The command line by which TensorRT builds an engine of the file."""
    parts = [f"trtexec --onnx={path} --saveEngine={path.with_suffix('.engine')}"]
    parts += {"fp16": ["--fp16"], "int8": ["--int8", "--fp16"]}.get(precision, [])
    if shape.batch is None or shape.sides is None:
        height, width = shape.example
        one, several = f"image:1x3x{height}x{width}", f"image:8x3x{height}x{width}"
        parts.append(
            f"--minShapes={one} --optShapes={one} --maxShapes={several if shape.batch is None else one}"
        )
    return " ".join(parts)
