"""Levers: changes that make a network faster without training it.

A variant is a list of levers joined by `+`, such as `folded+channels_last+bf16+compiled`; `plain` has none. Folding
changes no answer; other levers round, and the share of equal answers shows how much.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dvsn.errors import ConfigError, nearest
from dvsn.networks.folding import fold_batch_norms
from dvsn.networks.onnx_form import has_onnxruntime, onnxruntime
from dvsn.networks.precision import TYPES, Adapted

LEVERS = {
    "folded": "batch norms folded into the convolutions before them",
    "channels_last": "channels innermost in memory",
    "tf32": "float32 rounded to 10 bits of mantissa in convolutions, on tensor cores",
    "bf16": "weights and activations in bfloat16",
    "fp16": "weights and activations in float16",
    "bf16_autocast": "float32 weights, convolutions in bfloat16",
    "fp16_autocast": "float32 weights, convolutions in float16",
    "int8": "weights and activations in 8 bits, scales from calibration; with openvino",
    "compiled": "torch.compile",
    "tuned": "torch.compile that tries several kernels for each operation",
    "openvino": "OpenVINO instead of PyTorch, on CPUs",
    "onnxruntime": "ONNX Runtime instead of PyTorch, on CPUs",
    "graph": "one CUDA graph instead of a launch for each kernel",
}
EXCLUSIVE = {
    "precision": ("tf32", "bf16", "fp16", "bf16_autocast", "fp16_autocast", "int8"),
    "engine": ("compiled", "tuned", "openvino", "onnxruntime"),
}
CUDA_ONLY, CPU_ONLY = ("tf32", "graph"), ("openvino", "onnxruntime", "int8")

CPU_VARIANTS = (
    "plain", "folded", "channels_last", "folded+channels_last", "folded+channels_last+bf16_autocast",
    "folded+channels_last+bf16", "compiled", "folded+channels_last+compiled", "folded+channels_last+bf16+compiled",
)  # fmt: skip
ONNX_VARIANTS = ("folded+onnxruntime",)
OPENVINO_VARIANTS = ("folded+openvino", "folded+bf16+openvino", "folded+int8+openvino")
CUDA_VARIANTS = (
    "plain", "tf32", "folded", "folded+channels_last", "folded+graph", "folded+tf32+graph",
    "folded+channels_last+bf16_autocast", "folded+channels_last+fp16_autocast", "folded+channels_last+bf16",
    "folded+channels_last+fp16", "folded+channels_last+fp16+graph", "compiled", "folded+channels_last+fp16+compiled",
    "folded+channels_last+bf16+compiled+graph", "folded+channels_last+fp16+compiled+graph",
)  # fmt: skip

Run = Callable[[Tensor], Tensor]


class Subject(NamedTuple):
    """A network as it is given: float32, evaluation mode, on the device it is measured on."""

    network: nn.Module
    whole: Callable[[nn.Module], nn.Module]
    """Wraps the network, or one that stands for it, for a protocol: an image (N, 3, H, W) to one tensor."""
    image: Tensor
    """The image that is timed; every other one has its shape and type."""
    calibration: Sequence[Tensor]
    """Images from which 8-bit scales are taken."""
    keep: Sequence[str] = ()
    """Module paths that are left out of 8 bits."""
    rest: str = "bf16"
    """The precision of what is left out of 8 bits, `bf16` or `f32`."""


class Variant(NamedTuple):
    """A subject with levers pulled."""

    run: Run
    eager: Run
    """The same before a CUDA graph was captured, whose memory PyTorch does not count."""
    parts: nn.Module
    """What holds the weights."""


class MainAnswer(nn.Module):
    """A network in evaluation that gives one tensor: its logits, heatmaps or points."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        output = self.network(image)
        return output if isinstance(output, Tensor) else output[0]


def defaults(device: str) -> list[str]:
    """The variants worth a look on this kind of device."""
    if torch.device(device).type == "cuda":
        return list(CUDA_VARIANTS)
    return [
        *CPU_VARIANTS,
        *(ONNX_VARIANTS if has_onnxruntime() else ()),
        *(OPENVINO_VARIANTS if has_openvino() else ()),
    ]


def has_openvino() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("openvino", "nncf"))


def parse(variants: Sequence[Any], device: str) -> dict[str, frozenset[str]]:
    """{variant: its levers}, `plain` first, because all are compared with it. Raises `ConfigError`."""
    parsed: dict[str, frozenset[str]] = {"plain": frozenset()}
    for name in map(str, variants):
        levers = read(name)
        refuse(name, levers, torch.device(device).type)
        parsed[name] = levers
    return parsed


def read(name: str) -> frozenset[str]:
    """The levers of a variant. Raises `ConfigError` for one that is not known, and for two of a kind."""
    levers = frozenset(name.split("+")) - {"plain"}
    for lever in sorted(levers - set(LEVERS)):
        raise ConfigError(
            f"variants: {name!r}: there is no lever {lever!r}. {nearest(lever, ['plain', *LEVERS])} Join levers by +."
        )
    if "plain" in name.split("+") and levers:
        raise ConfigError(f"variants: {name!r}: plain means no lever; leave it out.")
    for kind, members in EXCLUSIVE.items():
        if len(clash := sorted(levers & set(members))) > 1:
            raise ConfigError(f"variants: {name!r}: found {' and '.join(clash)}, expected one {kind}.")
    return levers


def refuse(name: str, levers: frozenset[str], device: str) -> None:
    """Raise `ConfigError` for levers that this machine does not have."""
    elsewhere = {*(CUDA_ONLY if device != "cuda" else ()), *(CPU_ONLY if device != "cpu" else ())}
    wrong = sorted(levers & elsewhere)
    if wrong:
        raise ConfigError(f"variants: {name!r}: {', '.join(wrong)} cannot be used on device={device}.")
    if "int8" in levers and "openvino" not in levers:
        raise ConfigError(f"variants: {name!r}: int8 runs in OpenVINO. Write {name}+openvino.")
    if "openvino" in levers and (
        clash := levers & {"channels_last", "bf16_autocast", "fp16_autocast", "fp16"}
    ):
        raise ConfigError(
            f"variants: {name!r}: OpenVINO chooses its own layout and casts; leave out {', '.join(sorted(clash))}."
        )
    if "openvino" in levers and not has_openvino():
        raise ConfigError(f"variants: {name!r}: OpenVINO is not installed. pip install 'dvsn[openvino]'.")
    if "onnxruntime" in levers and (clash := levers & {"channels_last", *EXCLUSIVE["precision"]}):
        raise ConfigError(
            f"variants: {name!r}: ONNX Runtime computes in float32 in a layout of its own; leave out "
            f"{', '.join(sorted(clash))}."
        )
    if "onnxruntime" in levers and not has_onnxruntime():
        raise ConfigError(f"variants: {name!r}: ONNX Runtime is not installed. pip install 'dvsn[onnx]'.")


@torch.no_grad()
def pull(levers: frozenset[str], subject: Subject) -> Variant:
    """A copy of the subject with these levers applied, after one warm-up pass."""
    network = copy.deepcopy(subject.network)
    if "folded" in levers:
        network = fold_batch_norms(network, (1, *subject.image.shape[1:])).network
    if "openvino" in levers:
        model = subject.whole(network)
        run = openvino(model, subject, int8="int8" in levers, bf16="bf16" in levers)
        return Variant(run, run, model)
    if "onnxruntime" in levers:
        model = subject.whole(network)
        run = onnxruntime(model, subject.image)
        return Variant(run, run, model)
    precision = next((name for name in TYPES if levers & {name, f"{name}_autocast"}), None)
    if precision is not None or "channels_last" in levers:
        network = Adapted(
            network,
            dtype=torch.float32 if precision is None else TYPES[precision],
            autocast=f"{precision}_autocast" in levers,
            channels_last="channels_last" in levers,
        )
    model = subject.whole(network)
    run = with_tf32(compiled(model, levers, subject.image.device), allowed="tf32" in levers)
    run(subject.image)
    captured = capture(run, subject.image) if "graph" in levers else run
    return Variant(captured, run, model)


def compiled(model: nn.Module, levers: frozenset[str], device: torch.device) -> Run:
    """`model`, or its compiled form. On CPUs weights become constants, packed as the processor likes them."""
    options: dict[str, Any] = {"freezing": True} if device.type == "cpu" else {}
    if "tuned" in levers:
        options["max_autotune"] = True
    if not levers & {"compiled", "tuned"}:
        return model
    torch._dynamo.config.recompile_limit = 256  # each variant compiles the same code anew
    return torch.compile(model, dynamic=False, options=options)  # type: ignore[return-value]


def with_tf32(run: Run, *, allowed: bool) -> Run:
    """`run` with or without TF32, which PyTorch uses in convolutions unless told otherwise."""

    def switched(image: Tensor) -> Tensor:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
        return run(image)

    return switched if torch.cuda.is_available() else run


def capture(run: Run, image: Tensor) -> Run:
    """`run` as one CUDA graph over a fixed image, into which other images are copied first."""
    fixed = image.clone(memory_format=torch.preserve_format)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run(fixed)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = run(fixed)

    def replay(other: Tensor) -> Tensor:
        if other is not image:
            fixed.copy_(other)
        graph.replay()
        return answer

    return replay


def openvino(model: nn.Module, subject: Subject, *, int8: bool, bf16: bool) -> Run:
    """`model` converted to OpenVINO, on as many threads as PyTorch uses."""
    os.environ.setdefault("OPENVINO_TELEMETRY", "0")
    import openvino as runtime

    shape = tuple(subject.image.shape)
    graph = runtime.convert_model(model, example_input=subject.image, input=[shape])
    if int8:
        graph = quantise(graph, subject.calibration, keep=subject.keep)
    precision = subject.rest if int8 else "bf16" if bf16 else "f32"
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": precision,
    }
    request = runtime.Core().compile_model(graph, "CPU", options).create_infer_request()

    def run(image: Tensor) -> Tensor:
        answer = request.infer([image.numpy()], share_inputs=True, share_outputs=True)
        return torch.from_numpy(answer[0])

    return run


def quantise(graph: Any, images: Sequence[Tensor], *, keep: Sequence[str] = ()) -> Any:
    """Post-training quantisation: the scales are those of the activations that `images` cause.

    Operations of the modules `keep` stay as they are; OpenVINO names each operation after its module's path.
    """
    import nncf

    data = nncf.Dataset([image.numpy() for image in images])
    patterns = [f".*[./]{re.escape(path)}[./].*" for path in keep]
    return nncf.quantize(
        graph,
        data,
        target_device=nncf.TargetDevice.CPU,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(patterns=patterns, validate=False) if patterns else None,
    )
