"""The runtimes that an exported file is asked by: ONNX Runtime and OpenVINO. numpy in, numpy out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dvsn.errors import CheckpointError, ConfigError

Array = np.ndarray[Any, Any]
KEY = "dvsn"
NEWEST = 1
"""The newest format of manifests that is read."""


class Engine:
    """An exported file, ready to be asked: uint8 (N, C, H, W) -> {name: array} of its outputs.

    - `manifest`: what the file says of itself; see `dvsn.export.manifest`.
    - `threads`: of one call; None: as many as the machine has cores.
    """

    runtime = "its runtime"

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path, self.manifest = path, manifest
        self.names = [output["name"] for output in manifest["outputs"]]

    def __call__(self, image: Array, offset: Array | None = None) -> dict[str, Array]:
        """`offset` (N,) float32 is for files whose manifest says so: landmarks averaged with the mirror's. Unknown, it is
        taken to be 0.5, that of a crop of very many picture pixels."""
        self.check(image)
        inputs = {"image": np.ascontiguousarray(image)}
        if self.manifest["input"].get("offset"):
            shift = np.full(len(image), 0.5) if offset is None else offset
            inputs["offset"] = np.ascontiguousarray(shift, np.float32)
        return dict(zip(self.names, self.ask(inputs), strict=True))

    def ask_all(self, image: Array, offset: Array | None = None) -> dict[str, Array]:
        """Any number of pictures, as many at a time as the file takes; a last group that is smaller is filled up."""
        fixed = self.manifest["input"]["shape"][0]
        if fixed is None or fixed == len(image):
            return self(image, offset)
        parts = []
        for start in range(0, len(image), fixed):
            rows = np.arange(start, start + fixed).clip(max=len(image) - 1)  # the last one again
            answer = self(image[rows], None if offset is None else offset[rows])
            parts.append([each[: len(image) - start] for each in answer.values()])
        joined = [np.concatenate(each) for each in zip(*parts, strict=True)]
        return dict(zip(self.names, joined, strict=True))

    def ask(self, inputs: dict[str, Array]) -> Sequence[Array]:
        raise NotImplementedError

    @property
    def precision(self) -> str:
        """In which numbers it computes, and by which runtime."""
        return f"{self.manifest['precision']} by {self.runtime}"

    def check(self, image: Array) -> None:
        """Raise `ConfigError` for an input that is not what the file takes."""
        wanted = self.manifest["input"]["shape"]
        fits = image.ndim == 4 and all(
            want in (None, have) for want, have in zip(wanted, image.shape, strict=True)
        )
        if image.dtype != np.uint8 or not fits:
            free = "x".join("any" if side is None else str(side) for side in wanted)
            raise ConfigError(
                f"{self.path}: takes uint8 {free} (pictures x channels x height x width), found {image.dtype} "
                f"{'x'.join(map(str, image.shape))}."
            )
        multiple = self.manifest["input"]["multiple"]
        if any(side % multiple for side in image.shape[2:]):
            raise ConfigError(
                f"{self.path}: sides must divide by {multiple}, found {image.shape[2]}x{image.shape[3]}."
            )


class OnnxEngine(Engine):
    """ONNX Runtime on `providers`, such as CPUExecutionProvider; None: the CPU.

    - `small`: maps are not put into blocks of channels, which takes less memory and up to a third more time.
    - `binding`: inputs and outputs are bound (IOBinding), so that a provider with memory of its own copies them itself.

    Its plan of where maps lie (memory pattern) is off: it holds a second arena and saves no time.
    """

    runtime = "ONNX Runtime"

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        small: bool = False,
        binding: bool = False,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError(f"{path}: asking it needs ONNX Runtime. pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_mem_pattern = False
        if small:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        if threads is not None:
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        known = onnxruntime.get_available_providers()
        for name in providers or ():
            if name not in known:
                raise ConfigError(f"providers: found '{name}', but this ONNX Runtime has {', '.join(known)}.")
        require_onnx(path)
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=list(providers or ["CPUExecutionProvider"])
            )
        except Exception as error:  # its errors have no common base
            named = f"ONNX Runtime {onnxruntime.__version__}"
            if opset := re.search(r"[Oo]pset (\d+) is under development", str(error)):
                raise CheckpointError(
                    f"{path}: is of opset {opset[1]}, which {named} does not know yet. pip install --upgrade onnxruntime"
                ) from error
            raise CheckpointError(f"{path}: {named} cannot open it: {reason(error)}") from error
        self.bound = self.session.io_binding() if binding else None
        properties = self.session.get_modelmeta().custom_metadata_map
        super().__init__(path, read_manifest(properties.get(KEY), path))

    def ask(self, inputs: dict[str, Array]) -> Sequence[Array]:
        if self.bound is None:
            answer = self.session.run(self.names, inputs)
            return [
                np.array(each) for each in answer
            ]  # kept as they are, they would hold pieces of its arena
        for name, array in inputs.items():
            self.bound.bind_cpu_input(name, array)
        for name in self.names:
            self.bound.bind_output(
                name, "cpu"
            )  # ONNX Runtime makes it: sides and numbers of objects may change
        self.session.run_with_iobinding(self.bound)
        return list(self.bound.copy_outputs_to_cpu())


class OpenVinoEngine(Engine):
    """OpenVINO on `device`, in the precision that the file was exported for.

    `binding`: answers of a known shape are written to the arrays that are given back, instead of copied to them.
    """

    runtime = "OpenVINO"

    def __init__(
        self, path: Path, *, threads: int | None = None, device: str = "CPU", binding: bool = False
    ) -> None:
        os.environ.setdefault("OPENVINO_TELEMETRY", "0")
        try:
            import openvino
        except ImportError as error:
            raise ConfigError(f"{path}: asking it needs OpenVINO. pip install openvino") from error
        core = openvino.Core()
        try:
            model = core.read_model(str(path))
        except Exception as error:
            raise CheckpointError(f"{path}: OpenVINO cannot read it: {reason(error)}") from error
        text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
        super().__init__(path, read_manifest(text, path))
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if device == "CPU":
            options["INFERENCE_PRECISION_HINT"] = "bf16" if self.manifest["precision"] == "bf16" else "f32"
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        try:
            compiled = core.compile_model(model, device, options)
            self.request, self.tensor = compiled.create_infer_request(), openvino.Tensor
        except Exception as error:
            raise CheckpointError(
                f"{path}: OpenVINO cannot compile it for {device}: {reason(error)}"
            ) from error
        self.bound = {
            name: (tuple(port.shape), port.element_type.to_dtype())
            for name in self.names
            if binding and (port := compiled.output(name)).partial_shape.is_static
        }

    def ask(self, inputs: dict[str, Array]) -> Sequence[Array]:
        made = {name: np.empty(shape, kind) for name, (shape, kind) in self.bound.items()}
        for name, array in made.items():
            self.request.set_tensor(name, self.tensor(array, shared_memory=True))
        answer = self.request.infer(inputs, share_inputs=True, share_outputs=True)
        return [made[name] if name in made else np.array(answer[name]) for name in self.names]


def open_engine(
    path: str | Path,
    *,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    small: bool = False,
    binding: bool = False,
) -> Engine:
    """The engine of a file by its ending. Raises `CheckpointError` for a file that is not there or not dvsn's."""
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file. Expected one that dvsn.export has written.")
    if file.suffix == ".onnx":
        return OnnxEngine(file, threads=threads, providers=providers, small=small, binding=binding)
    if file.suffix == ".xml":
        if providers or small:
            raise ConfigError(
                f"{'providers' if providers else 'small'}: is an option of ONNX Runtime, found {file}, which OpenVINO asks. "
                "Leave it out."
            )
        return OpenVinoEngine(file, threads=threads, binding=binding)
    raise CheckpointError(f"{file}: found the ending '{file.suffix}', expected .onnx or .xml (OpenVINO).")


def require_onnx(path: Path) -> None:
    """Raise `CheckpointError` where the first bytes are not those of an ONNX file: ONNX Runtime would read all of it."""
    with path.open("rb") as opened:
        start = opened.read(1)
    if start != b"\x08":  # the field of the version, which exporters write first
        raise CheckpointError(f"{path}: not an ONNX file; its first byte is {start!r}.")


def read_manifest(text: str | None, path: Path) -> dict[str, Any]:
    """The manifest of a file's own metadata, with its types checked. Raises `CheckpointError`."""
    if not text:
        raise CheckpointError(
            f"{path}: holds no manifest of dvsn, so nobody knows what it takes and answers. Expected a file of "
            "python -m dvsn.export CHECKPOINT"
        )
    try:
        content = json.loads(text)
        version = content["format"]
        inputs, outputs = content["input"], content["outputs"]
        sound = (
            isinstance(version, int)
            and isinstance(content["task"], str)
            and len(inputs["shape"]) == 4
            and all(each is None or isinstance(each, int) for each in inputs["shape"])
            and isinstance(inputs["multiple"], int)
            and inputs["multiple"] > 0
            and all(isinstance(output["name"], str) for output in outputs)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: its manifest cannot be read: {reason(error)}") from error
    if not sound:
        raise CheckpointError(f"{path}: its manifest is not one of dvsn: types differ.")
    if version > NEWEST:
        raise CheckpointError(
            f"{path}: written by dvsn {content.get('versions', {}).get('dvsn')}, in a newer format than this reads. Update."
        )
    return dict(content)


def reason(error: BaseException) -> str:
    """The first line of an error."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
