"""The files that a graph is written to: ONNX, a program of torch.export, OpenVINO, ExecuTorch, safetensors."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from dvsn.atomic import replacing, write_json
from dvsn.errors import ConfigError
from dvsn.export.graph import Graph, Objects, example, example_inputs
from dvsn.export.manifest import KEY
from dvsn.export.shape import Shape
from dvsn.hub.folder import write_weights

OPSET = 18
"""Of ONNX: read by ONNX Runtime from 1.14 (2023) and by TensorRT from 8.6."""

SUFFIX = {
    "onnx": ".onnx",
    "pt2": ".pt2",
    "openvino": ".xml",
    "executorch": ".pte",
    "safetensors": ".safetensors",
}
NEEDS = {
    "onnx": ("onnx", ("onnx", "onnxscript", "onnxruntime")),
    "openvino": ("openvino", ("onnx", "onnxscript", "openvino")),
    "executorch": ("executorch", ("executorch",)),
}
"""By format: the extra of dvsn, and what it must bring."""

PRECISIONS = {
    "onnx": ("fp32", "fp16", "int8"),
    "pt2": ("fp32", "fp16", "bf16"),
    "openvino": ("fp32", "fp16", "bf16", "int8"),
    "executorch": ("fp32",),
    "safetensors": ("fp32", "fp16", "bf16"),
}
Written = dict[str, Any]


def require(kind: str, precision: str) -> None:
    """Raise `ConfigError` where a format is unknown, cannot hold the precision, or wants what is not installed."""
    if kind not in SUFFIX:
        raise ConfigError(f"format: found '{kind}', expected one of {', '.join(SUFFIX)}, or best.")
    if precision not in PRECISIONS[kind]:
        raise ConfigError(
            f"precision: found '{precision}', but format={kind} holds {', '.join(PRECISIONS[kind])}."
        )
    extra, modules = NEEDS.get(kind, ("", ()))
    if precision == "int8":
        extra, modules = f"{extra},openvino" if extra != "openvino" else extra, (*modules, "nncf")
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"format: {kind} in {precision} needs {', '.join(missing)}, not installed. pip install 'dvsn[{extra}]'"
        )


# ONNX -------------------------------------------------------------------------------------------------


def onnx_model(graph: Graph, shape: Shape) -> Any:
    """The graph as an ONNX model, inputs and outputs by the names of the contract."""
    import onnx

    image = example(graph.task, shape.batch or 2, shape.example)
    names = [output.name for output in graph.outputs]
    with quiet():
        if isinstance(graph, Objects):
            return onnx.load_from_string(traced(graph, image, shape, names))
        program = torch.onnx.export(
            graph,
            example_inputs(graph, image),
            dynamo=True,
            verbose=False,
            external_data=False,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=names,
            dynamic_shapes=dynamic(graph, shape),
        )
    assert program is not None
    model = program.model_proto
    name_axes(model, graph, shape)
    return model


def traced(graph: Graph, image: Tensor, shape: Shape, names: list[str]) -> bytes:
    """A detector by the older, tracing exporter: torch.export refuses torchvision's branches on how many boxes there are.

    torchvision writes its loops over boxes so that tracing keeps them; the self-check compares two sizes and pictures.
    """
    buffer = io.BytesIO()
    axes: dict[str, dict[int, str]] = {name: {0: "objects"} for name in names}
    if shape.sides is None:
        axes["image"] = {2: "height", 3: "width"}
    torch.onnx.export(
        graph, (image,), cast(Any, buffer), dynamo=False, opset_version=OPSET - 1, input_names=["image"], output_names=names,
        dynamic_axes=axes,
    )  # fmt: skip
    return buffer.getvalue()


def dynamic(graph: Graph, shape: Shape) -> dict[str, Any] | None:
    """What may change from call to call, in torch.export's terms."""
    free = torch.export.Dim.DYNAMIC
    axes: dict[int, Any] = {} if shape.batch else {0: free}
    if shape.sides is None:
        axes |= {2: free, 3: free}
    if not axes:
        return None
    offset: dict[str, Any] = {"offset": {} if shape.batch else {0: free}} if graph.wants_offset else {}
    return {"image": axes, **offset}


def name_axes(model: Any, graph: Graph, shape: Shape) -> None:
    """Readable names of the axes that may change, instead of the exporter's symbols."""
    sides = (None, None) if shape.sides else ("height", "width")
    given = (None if shape.batch else "batch", None, *sides)
    known: dict[str, str] = {}
    for axis, name in zip(model.graph.input[0].type.tensor_type.shape.dim, given, strict=True):
        if name is not None:
            known[axis.dim_param] = name
            axis.dim_param = name
    for output in (*model.graph.input[1:], *model.graph.output):
        for axis in output.type.tensor_type.shape.dim:
            if axis.dim_param in known:
                axis.dim_param = known[axis.dim_param]


def write_onnx(model: Any, path: Path, manifest: Written) -> None:
    """The model with the manifest in its metadata; whole or not at all."""
    import onnx

    model = copy_of(model)
    strip(model)
    if manifest["answer"] == "pixels":
        end_blocks(model)
    manifest["checksum"] = hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(manifest)
    model.producer_name, model.producer_version = "dvsn", manifest["versions"]["dvsn"]
    with replacing(path) as temporary:
        onnx.save(model, str(temporary))


def copy_of(model: Any) -> Any:
    """A copy, since what is kept for the check has notes that the file shall not have."""
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def strip(model: Any) -> None:
    """Leave out what the exporter notes beside each operation, such as the paths of source files on this machine."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        if hasattr(value, "metadata_props"):
            del value.metadata_props[:]
        value.doc_string = ""


def end_blocks(model: Any) -> None:
    """Put an operation that changes nothing, max(x, x), before maps are enlarged for the last time.

    ONNX Runtime computes convolutions and what follows them in blocks of 8 or 16 channels. Logits of 19 classes at the
    picture's size would take the memory of 32 channels, and of 19 once more when they leave the blocks. It has no max in
    blocks, so they are left while the maps are small.
    """
    import onnx

    makers = {output: node for node in model.graph.node for output in node.output}
    names, ends = [output.name for output in model.graph.output], []
    while names:
        node = makers.get(names.pop())
        if node is not None and node.op_type == "Resize":
            ends.append(node)
        elif node is not None and node.op_type not in ("Conv", "ConvTranspose"):
            names += node.input
    for number, node in enumerate({id(each): each for each in ends}.values()):
        made = onnx.helper.make_node(
            "Max", [node.input[0]] * 2, [f"end_blocks_{number}"], f"end_blocks_{number}"
        )
        node.input[0] = made.output[0]
        model.graph.node.insert(list(model.graph.node).index(node), made)


# Others -----------------------------------------------------------------------------------------------


def program(graph: Graph, shape: Shape) -> Any:
    """The graph as a program of torch.export, which torch alone can load and run."""
    if isinstance(graph, Objects):
        raise ConfigError(
            "format: torch.export cannot follow torchvision's detectors, which branch on how many boxes there are. Give "
            "format=onnx or format=openvino."
        )
    image = example(graph.task, shape.batch or 2, shape.example)
    with quiet(), torch.no_grad(), free_sizes():
        return torch.export.export(graph, example_inputs(graph, image), dynamic_shapes=dynamic(graph, shape))


def free_sizes() -> Any:
    """Without it a program for any sides is one for those at which every map is as thick as in the example: torch.export
    guards whether a pooled map has one pixel, since that decides about its strides."""
    from torch.fx.experimental import _config

    options: Any = _config
    known = hasattr(options, "backed_size_oblivious")
    return options.patch(backed_size_oblivious=True) if known else contextlib.nullcontext()


def write_pt2(graph: Graph, shape: Shape, path: Path, manifest: Written) -> None:
    made = program(graph, shape)
    manifest["checksum"] = digest(graph)
    with replacing(path) as temporary:
        beside = temporary.with_suffix(".pt2")  # torch.export.save wants this ending
        try:
            torch.export.save(made, beside, extra_files={f"{KEY}.json": json.dumps(manifest)})
            beside.replace(temporary)
        finally:
            beside.unlink(missing_ok=True)


def openvino_model(model: Any) -> Any:
    """An ONNX model as OpenVINO's."""
    os.environ.setdefault("OPENVINO_TELEMETRY", "0")
    import openvino

    return openvino.convert_model(io.BytesIO(model.SerializeToString()))


def write_openvino(model: Any, path: Path, manifest: Written, *, half: bool) -> None:
    """NAME.xml and NAME.bin, with weights in 16 bits where `half`; the first writing gives the checksum of the second."""
    import openvino

    openvino.save_model(model, path, compress_to_fp16=half)
    manifest["checksum"] = hashlib.sha256(path.with_suffix(".bin").read_bytes()).hexdigest()
    model.set_rt_info(json.dumps(manifest), [KEY])
    openvino.save_model(model, path, compress_to_fp16=half)


def write_executorch(graph: Graph, shape: Shape, path: Path, manifest: Written) -> None:
    """A program for ExecuTorch, with what XNNPACK can compute handed to it. Fixed shapes only."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    if shape.batch is None or shape.sides is None:
        raise ConfigError(
            "size, batch: ExecuTorch's file is of one shape. Give batch=1 and size=HEIGHTxWIDTH."
        )
    made = program(graph, shape)
    with quiet():
        lowered = to_edge_transform_and_lower(made, partitioner=[XnnpackPartitioner()]).to_executorch()
    content = lowered.buffer
    manifest["checksum"] = hashlib.sha256(content).hexdigest()
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_safetensors(graph: Graph, path: Path, manifest: Written, *, dtype: torch.dtype) -> None:
    """The weights of the task alone, the recipe in the metadata: `dvsn.load` reads it, and runs nothing of it."""
    state = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in graph.task.state_dict().items()
    }
    manifest["checksum"] = digest(graph)
    write_weights(path, state, about={KEY: json.dumps(manifest)})


def digest(module: torch.nn.Module) -> str:
    """Of all weights, in the order of their names."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(
            tensor.contiguous().cpu().view(torch.uint8).numpy().tobytes()
            if tensor.ndim
            else str(tensor.item()).encode()
        )
    return found.hexdigest()


def write_beside(path: Path, manifest: Written) -> Path:
    """The manifest as NAME.json beside the file."""
    beside = path.with_suffix(".json")
    write_json(beside, manifest)
    return beside


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' chatter: they warn of each constant, and torch of each symbol."""
    levels = {
        name: logging.getLogger(name).level
        for name in ("torch.onnx", "torch.export", "onnxscript", "torch", "root")
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


Ask = Callable[..., tuple[Tensor, ...]]
"""The inputs of the graph, of which the first is (N, C, H, W) uint8 -> its outputs of the graph, in their order."""
