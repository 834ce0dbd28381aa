"""Where the time of one picture goes: decoding the file, preparing the input, the network, finishing the answer."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from dvsn.benchmark import stopwatch
from dvsn.benchmark.backends import Run
from dvsn.errors import UserError
from dvsn.portable.contract import read_contract
from dvsn.portable.decode import read_labels, read_rgb
from dvsn.portable.engine import Array, Engine
from dvsn.portable.frame import Frame
from dvsn.portable.model import MAKERS, OPTIONS, SHARED

PASSES = 5


class Stages(NamedTuple):
    """Milliseconds of one picture, the medians of several passes."""

    decode: float
    preprocess: float
    network: float
    """From uint8 to the decoded answer, as the file of `dvsn.export` has it: normalisation is in here."""
    postprocess: float

    def shares(self) -> list[float]:
        """Of all four together, in [0, 1]."""
        return [each / max(sum(self), 1e-12) for each in self]


class Watched(Engine):
    """A back end in the place of an exported file's runtime, which notes when it is asked."""

    def __init__(self, run: Run, manifest: Mapping[str, Any], device: torch.device) -> None:
        super().__init__(Path("benchmark"), manifest)
        self.run, self.device = run, device
        self.asked: list[float] = []
        self.answered: list[float] = []

    def ask(self, inputs: dict[str, Array]) -> Sequence[Array]:
        self.asked.append(stopwatch.clock())
        with torch.no_grad():
            answer = [
                each.cpu().numpy() for each in self.run(torch.from_numpy(inputs["image"]).to(self.device))
            ]
        self.answered.append(stopwatch.clock())
        return answer


def stages(run: Run, image: Tensor, manifest: Mapping[str, Any]) -> Stages | None:
    """Of a picture as large as the input `image` (N, C, H, W), on its way through `dvsn.portable`; None where the answer
    cannot be finished, such as keypoints without names."""
    ids = manifest["input"]["colours"] == "ids"
    engine = Watched(run, manifest, image.device)
    try:
        contract = read_contract(manifest, engine.path)
        height, width = image.shape[-2:]
        options = {**SHARED, **OPTIONS[contract.answer]}
        if "size" in options:
            options["size"] = f"{height}x{width}"
        finish = MAKERS[contract.answer](engine, contract, options)
        with tempfile.TemporaryDirectory() as folder:
            path = write(image, Path(folder), ids=ids)
            times = [once(path, ids, finish, engine) for _ in range(PASSES + 1)][1:]
    except UserError:
        return None
    return Stages(*(float(each) for each in np.median(times, axis=0)))


def once(path: Path, ids: bool, finish: Any, engine: Watched) -> tuple[float, float, float, float]:
    """Milliseconds of the four parts."""
    engine.asked.clear()
    engine.answered.clear()
    start = stopwatch.clock()
    picture = read_labels(path) if ids else read_rgb(path)
    decoded = stopwatch.clock()
    finish(Frame(picture, path.stem, path), 1)
    end = stopwatch.clock()
    network = sum(engine.answered) - sum(engine.asked)
    before = engine.asked[0] - decoded
    parts = (decoded - start, before, network, end - decoded - before - network)
    return tuple(1000 * each for each in parts)  # type: ignore[return-value]


def write(image: Tensor, folder: Path, *, ids: bool) -> Path:
    """The first picture as a JPEG of quality 95; ids, which must stay as they are, as a PNG."""
    planes = image[0].cpu().permute(1, 2, 0).numpy()
    path = folder / ("seen.png" if ids else "seen.jpg")
    stored = planes[..., 0] if ids else planes[..., 2::-1]
    cv2.imwrite(str(path), np.ascontiguousarray(stored), [] if ids else [cv2.IMWRITE_JPEG_QUALITY, 95])
    return path
