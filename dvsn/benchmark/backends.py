"""Back ends: a whole task, from uint8 pictures to its decoded answer, computed in the ways that a machine offers.

A back end is a set of levers (`dvsn.benchmark.levers`). Those of PyTorch change the network inside the task; ONNX Runtime
and OpenVINO compute the graph that `dvsn.export` writes, so that what wins here is what an exported file does.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dvsn.benchmark import levers as pulled
from dvsn.errors import ConfigError
from dvsn.export import formats, quantise
from dvsn.export.graph import Graph, Objects, example_inputs, graph_of
from dvsn.export.shape import Shape
from dvsn.networks.folding import fold_batch_norms
from dvsn.networks.onnx_form import open_session
from dvsn.networks.precision import TYPES, Adapted

Answer = tuple[Tensor, ...]
Run = Callable[[Tensor], Answer]
"""uint8 (N, C, H, W) -> the outputs of the graph, in their order."""

CPU = (
    "plain", "channels_last", "folded", "folded+channels_last", "folded+channels_last+compiled",
    "folded+channels_last+bf16", "folded+channels_last+bf16+compiled", "folded+graph", "folded+onnxruntime",
    "folded+int8+onnxruntime", "folded+openvino", "folded+bf16+openvino", "folded+int8+openvino",
)  # fmt: skip
CUDA = (
    "plain", "channels_last", "folded", "folded+channels_last+compiled", "folded+channels_last+bf16",
    "folded+channels_last+bf16+compiled", "folded+graph", "folded+channels_last+fp16+graph",
    "folded+channels_last+bf16+compiled+graph", "folded+onnxruntime", "folded+openvino",
)  # fmt: skip
"""The rows of a table, by the kind of device. What cannot be had there stays in the table, with its reason."""

RUNTIMES = {
    "onnxruntime": (("onnx", "onnxscript", "onnxruntime"), "onnx"),
    "openvino": (("onnx", "onnxscript", "openvino"), "onnx,openvino"),
}
"""Levers that need packages: which, and the extra of dvsn that brings them."""


class Skipped(Exception):
    """A back end that cannot be had here; the text says why."""


class Built(NamedTuple):
    """A back end, ready to be asked."""

    run: Run
    parts: nn.Module | None
    """What holds the weights in PyTorch's memory; None of another runtime."""
    precision: str
    """In which numbers it computes."""
    eager: Run | None = None
    """The same before a CUDA graph was captured, whose memory PyTorch does not count."""


class Source(NamedTuple):
    """What back ends are built of."""

    task: Any
    shape: Shape
    image: Tensor
    """uint8 (N, C, H, W) on the device, of the shape that is measured."""
    calibration: Callable[[Graph], list[dict[str, np.ndarray]]]
    """Inputs by name, from which 8-bit scales are taken."""
    rest: str
    """In which precision OpenVINO computes what 8 bits leave out: `f32` or `bf16`."""
    models: dict[str, Any]
    """ONNX models that several back ends share, by `fp32` and `int8`."""


def defaults(device: str) -> list[str]:
    return list(CUDA if torch.device(device).type == "cuda" else CPU)


def refusal(levers: frozenset[str], device: str, task: Any) -> str:
    """Why these levers cannot be pulled; empty where they can."""
    kind = torch.device(device).type
    if kind != "cuda" and levers & set(pulled.CUDA_ONLY):
        return f"{', '.join(sorted(levers & set(pulled.CUDA_ONLY)))}: needs CUDA, and this is measured on the {kind}"
    if kind != "cpu" and levers & set(pulled.CPU_ONLY):
        return f"{', '.join(sorted(levers & set(pulled.CPU_ONLY)))}: measured on CPUs only; give device=cpu"
    for name in sorted(levers & set(RUNTIMES)):
        modules, extra = RUNTIMES[name]
        needed = (*modules, "nncf") if "int8" in levers else modules
        missing = [module for module in needed if importlib.util.find_spec(module) is None]
        if missing:
            extra = "onnx,openvino" if "nncf" in missing else extra
            return f"{', '.join(missing)} not installed: pip install 'dvsn[{extra}]'"
    halves = {*TYPES, "bf16_autocast", "fp16_autocast"}
    if str(task.response) == "objects" and levers & halves and "openvino" not in levers:
        return "detectors of torchvision compute in float32"
    return ""


def build(levers: frozenset[str], source: Source) -> Built:
    """The task with these levers. Raises `Skipped` with the reason where that cannot be."""
    device = source.image.device
    if reason := refusal(levers, str(device), source.task):
        raise Skipped(reason)
    if "onnxruntime" in levers:
        return of_onnxruntime(model_of(source, "int8" if "int8" in levers else "fp32"), source, levers)
    if "openvino" in levers:
        return of_openvino(model_of(source, "int8" if "int8" in levers else "fp32"), source, levers)
    if "int8" in levers:
        raise Skipped("int8 runs in ONNX Runtime or OpenVINO; add one of them by +")
    return of_torch(levers, source)


# PyTorch ----------------------------------------------------------------------------------------------


def of_torch(levers: frozenset[str], source: Source) -> Built:
    graph: Any = graph_of(source.task, fold="folded" in levers)
    if isinstance(graph, Objects):
        adapt_detector(graph, levers)
    else:
        adapt(graph, levers)
    graph = graph.to(source.image.device)
    whole = taking_all(graph, graph)  # a function: Dynamo trips over a task as the module that it is given
    run = pulled.with_tf32(
        pulled.compiled(whole, levers, source.image.device),  # type: ignore[arg-type]
        allowed="tf32" in levers,
    )
    precision = next((name for name in (*TYPES, "tf32") if levers & {name, f"{name}_autocast"}), "fp32")
    with torch.no_grad():
        run(source.image)
        captured = pulled.capture(run, source.image) if "graph" in levers else run
    return Built(captured, graph, precision, run)  # type: ignore[arg-type]


def adapt(graph: Any, levers: frozenset[str]) -> None:
    """The network of a graph in another precision or layout."""
    network = graph.task.network
    name = next((each for each in TYPES if levers & {each, f"{each}_autocast"}), None)
    if name is None and "channels_last" not in levers:
        return
    adapted: Any = Adapted(
        network,
        dtype=torch.float32 if name is None else TYPES[name],
        autocast=f"{name}_autocast" in levers,
        channels_last="channels_last" in levers,
    )
    adapted.multiple = int(getattr(network, "multiple", 1))
    graph.task.network = adapted


def adapt_detector(graph: Any, levers: frozenset[str]) -> None:
    """A detector's backbone with its norms folded, the whole in another layout."""
    model = graph.task.network.model
    if "folded" in levers:
        model.backbone = fold_batch_norms(model.backbone, (1, 3, 128, 128)).network
    if "channels_last" in levers:
        graph.to(memory_format=torch.channels_last)


def taking_all(run: Any, graph: Graph) -> Run:
    """Adds the second input of a graph that has one."""
    return lambda image: run(*example_inputs(graph, image))


# Other runtimes ---------------------------------------------------------------------------------------


def model_of(source: Source, precision: str) -> Any:
    """The task as `dvsn.export` writes it in ONNX, made once."""
    if precision not in source.models:
        graph = graph_of(source.task)
        if "fp32" not in source.models:
            source.models["fp32"] = formats.onnx_model(graph, source.shape)
        if precision == "int8":
            only = quantise.BACKBONE if graph.one_at_a_time else None
            inputs = source.calibration(graph)
            with contextlib.redirect_stdout(io.StringIO()):  # NNCF draws bars
                source.models["int8"] = quantise.convert(source.models["fp32"], inputs, gpu=False, only=only)
    return source.models[precision]


def of_onnxruntime(model: Any, source: Source, levers: frozenset[str]) -> Built:
    session = open_session(model)
    names = [each.name for each in session.get_inputs()]

    def run(image: Tensor) -> Answer:
        found = session.run(None, inputs_of(names, image))
        return tuple(torch.from_numpy(np.asarray(each)) for each in found)

    return Built(run, None, "int8, fp32" if "int8" in levers else "fp32")


def of_openvino(model: Any, source: Source, levers: frozenset[str]) -> Built:
    """OpenVINO with the precision said to it: left alone, it computes in bf16 on processors that have units for it."""
    made = formats.openvino_model(model)
    import openvino

    hint = source.rest if "int8" in levers else "bf16" if "bf16" in levers else "f32"
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": hint,
    }
    compiled = openvino.Core().compile_model(made, "CPU", options)
    request = compiled.create_infer_request()
    names = [port.any_name for port in compiled.inputs]

    def run(image: Tensor) -> Answer:
        found = request.infer(inputs_of(names, image), share_inputs=True, share_outputs=False)
        return tuple(torch.from_numpy(np.asarray(found[port])) for port in compiled.outputs)

    real = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
    said = {"f32": "fp32", "bf16": "bf16"}.get(real, real)
    return Built(run, None, f"int8, {said}" if "int8" in levers else said)


def inputs_of(names: Sequence[str], image: Tensor) -> dict[str, np.ndarray]:
    """The inputs of a graph by name."""
    given = {"image": image.contiguous().numpy()}
    if len(names) > 1:
        given["offset"] = torch.linspace(0.2, 0.4, len(image)).numpy()  # as `example_inputs` has it
    return given


# Memory -----------------------------------------------------------------------------------------------


class Growth:
    """By how many bytes the process grows at most between `start` and `bytes`, from Linux's own count; None elsewhere.

    Memory that was given back before and is taken again is not seen, so it is a lower bound.
    """

    STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def start(self) -> None:
        gc.collect()
        try:
            ctypes.CDLL(None).malloc_trim(0)
            self.RESET.write_text("5", encoding="ascii")  # the peak becomes what is held now
            self.before: int | None = self._read("VmRSS")
        except (OSError, AttributeError):
            self.before = None

    @property
    def bytes(self) -> int | None:
        peak = self._read("VmHWM")
        return None if self.before is None or peak is None else max(0, peak - self.before)

    def _read(self, key: str) -> int | None:
        if not self.STATUS.is_file():
            return None
        lines = self.STATUS.read_text(encoding="ascii").splitlines()
        found = next((line for line in lines if line.startswith(f"{key}:")), None)
        return None if found is None else int(found.split()[1]) * 1024


def parse(names: Sequence[Any]) -> dict[str, frozenset[str]]:
    """{back end: its levers}, `plain` first. Raises `ConfigError` for a lever that is not known, or two of a kind."""
    found = {"plain": frozenset[str]()}
    for name in map(str, names):
        found[name] = pulled.read(name)
    if len(found) == 1 and not names:
        raise ConfigError("variants: expected one or more.")
    return found


def copied(answer: Answer) -> Answer:
    """The answer in memory of its own: a runtime may write the next one over it."""
    return tuple(each.detach().clone() for each in answer)
