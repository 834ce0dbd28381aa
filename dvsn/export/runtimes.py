"""Exported files as functions of torch's tensors, each in the runtime that it was written for."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dvsn.errors import CheckpointError
from dvsn.export.formats import Ask
from dvsn.export.graph import Graph
from dvsn.hub.folder import read_single
from dvsn.portable.engine import open_engine, reason


def open_runtime(path: Path, graph: Graph) -> Ask:
    """The file at `path` as a function. `graph` says the outputs, and takes the weights of a safetensors file."""
    if path.suffix == ".pt2":
        return of_program(path)
    if path.suffix == ".pte":
        return of_executorch(path)
    if path.suffix == ".safetensors":
        return of_weights(path, graph)
    engine = open_engine(path, threads=torch.get_num_threads())

    def ask(*inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(each) for each in engine(*(each.numpy() for each in inputs)).values())

    return ask


def of_program(path: Path) -> Ask:
    try:
        module: Any = torch.export.load(path).module()
    except Exception as error:
        raise CheckpointError(f"{path}: torch.export cannot load it: {reason(error)}") from error

    def ask(image: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        try:
            return tuple(module(image, *more))
        except AssertionError as error:  # a guard: the program was traced on the other side of a branch
            raise CheckpointError(
                f"{path}: takes no pictures of {image.shape[-2]}x{image.shape[-1]}: {reason(error)}. Export it for these: "
                f"size={image.shape[-2]}x{image.shape[-1]}"
            ) from error

    return ask


def of_executorch(path: Path) -> Ask:
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")
    return lambda *inputs: tuple(method.execute(list(inputs)))


def of_weights(path: Path, graph: Graph) -> Ask:
    """The graph with the weights of the file, as float32."""
    content = read_single(path)
    assert content is not None  # it was written here
    filled = copy.deepcopy(graph)
    filled.task.load_state_dict(content["state_dict"], strict=True)
    return filled
