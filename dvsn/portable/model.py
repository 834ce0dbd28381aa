"""An exported file as something to be asked: `Model("pidnet.onnx")("photo.jpg")`, without torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dvsn.errors import ConfigError, DataError, nearest
from dvsn.portable import answers
from dvsn.portable.bands import from_memory
from dvsn.portable.boxes import picture_numbers
from dvsn.portable.contract import Contract, read_contract
from dvsn.portable.decode import MAX_PIXELS, make_rule, read_by, read_labels, read_rgb
from dvsn.portable.engine import open_engine
from dvsn.portable.frame import Frame
from dvsn.portable.memory import id_map, photo

Array = np.ndarray[Any, Any]

EXPECTED = "the path of a picture, a picture of Pillow, an array (H, W, 3) of RGB, or a list or generator of any of them"
SHARED: dict[str, Any] = {"bgr": False, "upright": True, "max_pixels": MAX_PIXELS}
PICTURES: dict[str, Any] = {"size": "recipe", "original_size": True}
PEOPLE: dict[str, Any] = {"boxes": None, "score": None, "category": None, "padding": None, "joint_score": 0.2}
OPTIONS: dict[str, dict[str, Any]] = {
    "pixels": PICTURES,
    "image": PICTURES,
    "classes": {"size": "recipe", "top": 5},
    "objects": {"score": None},
    "heatmaps": PEOPLE | {"nms": 0.9},
    "points": PEOPLE | {"nms": 0.9},
}
"""By answer the options that it has beside `SHARED`, with what they are where nobody says otherwise."""
MAKERS: dict[str, Callable[..., Any]] = {
    "pixels": answers.of_picture,
    "image": answers.of_picture,
    "classes": answers.of_class,
    "objects": answers.of_objects,
    "heatmaps": answers.of_points,
    "points": answers.of_points,
}


class Model:
    """An exported file (.onnx, or .xml of OpenVINO), which answers as `dvsn.load(checkpoint).predict` does.

    - `threads`: of one call; None: as many as the machine has cores.
    - `providers`: ONNX Runtime's, such as `["CUDAExecutionProvider", "CPUExecutionProvider"]`; None: the CPU.
    - `small`: of ONNX Runtime: less memory, for up to a third more time.
    - `binding`: inputs and outputs are bound to memory (ONNX Runtime's IOBinding; OpenVINO's own output arrays).

    Raises `CheckpointError` for a file that dvsn.export has not written, and `ConfigError` where its runtime is missing.
    """

    def __init__(
        self,
        path: str | Path,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        *,
        small: bool = False,
        binding: bool = False,
    ) -> None:
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise ConfigError(f"threads: found {threads!r}, expected a whole number above 0, or None.")
        self.engine = open_engine(path, threads=threads, providers=providers, small=small, binding=binding)
        self.contract: Contract = read_contract(self.engine.manifest, self.engine.path)

    def __repr__(self) -> str:
        return f"Model({str(self.engine.path)!r}: {self.contract.kind}, {self.engine.precision})"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, or of the keypoints."""
        joints = self.contract.joints
        return self.contract.names if joints is None else joints.names

    def __call__(self, source: Any, *, stream: bool = False, **options: Any) -> Any:
        """The `Result` of a picture; of a list, a tuple or an array (N, H, W, 3) a list of them. A generator, and with
        `stream=True` anything, becomes an iterator, which reads and answers as it is asked.

        `source`: the path of a picture file; a picture of Pillow; an array (H, W, 3) of RGB, RGBA or grey (H, W), uint8,
        uint16, or float in [0, 1]; a `Frame`. Of a task that paints from class ids: ids (H, W), or a file of them.

        - `size`, of segmentation, pix2pix and classification: `recipe`, as the checkpoint was evaluated; `keep`, the
          picture's own, padded to what the network needs and cropped back; HEIGHTxWIDTH, or both in a tuple.
        - `original_size`: ids and pictures are made as large as the given picture.
        - `top`, of classification: how many classes.
        - `score`: objects, or boxes of people and faces, below it are left out.
        - `boxes`, of pose and landmarks: corners (N, 4), x1, y1, x2, y2 in pixels; a `Result` with boxes, of which those of
          people or faces count, or of the class `category`; None: the whole picture.
        - `padding`, of landmarks and pose: the crop's side, as a factor of the box's.
        - `nms`, `joint_score`: as in `python -m dvsn.predict`.
        - `bgr`: arrays are blue, green, red. `upright`: pictures are turned by their orientation tag. `max_pixels`: of the
          largest picture that is read.

        Raises `DataError` for what is no picture and `ConfigError` for a wrong option.
        """
        chosen = self._options(options)
        answer = MAKERS[self.contract.answer](self.engine, self.contract, chosen)
        one = isinstance(source, str | os.PathLike | Image.Image | Frame) or (
            isinstance(source, np.ndarray) and source.ndim < 4
        )
        if not one and (not isinstance(source, Iterable) or isinstance(source, Mapping | bytes)):
            raise DataError(f"predict: found {type(source).__name__}, expected {EXPECTED}.")
        many = isinstance(source, list | tuple | np.ndarray)
        numbers = self._numbers([source] if one else source if many else ())
        frames = self._frames([source] if one else source, chosen, alone=one)
        results = (answer(frame, number_of(frame, numbers)) for frame in frames)
        if stream or not (one or many):
            return results
        return next(results) if one else list(results)

    def _options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        known = OPTIONS[self.contract.answer] | SHARED
        for name in given:
            if name not in known:
                raise ConfigError(
                    f"{name}: the task '{self.contract.kind}' has no such option. {nearest(name, known)}"
                )
        chosen = {**known, **given}
        size = chosen.get("size")
        if isinstance(size, tuple | list):
            chosen["size"] = "x".join(str(side) for side in size)
        elif size is not None:
            chosen["size"] = str(size)
        for name, (low, high) in LIMITS.items():
            value = chosen.get(name)
            if value is None and known.get(name) is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ConfigError(f"{name}: found {value!r}, expected a number from {low:g} to {high:g}.")
        if "top" in chosen and not isinstance(chosen["top"], int):
            raise ConfigError(f"top: found {chosen['top']!r}, expected a whole number above 0.")
        return chosen

    def _numbers(self, sources: Any) -> dict[Path, int]:
        """COCO's numbers of picture files, where all are known beforehand."""
        if not all(isinstance(each, str | os.PathLike) for each in sources):
            return {}
        return picture_numbers([Path(each) for each in sources])

    def _frames(self, things: Iterable[Any], options: Mapping[str, Any], *, alone: bool) -> Iterator[Frame]:
        rule = make_rule(
            max_pixels=options["max_pixels"],
            deep_range=self.contract.deep_range,
            upright=bool(options["upright"]),
            bands=self.contract.bands,
        )
        ids = bool(self.contract.input_classes)
        for index, thing in enumerate(things):
            if isinstance(thing, Frame):
                yield thing
            elif isinstance(thing, str | os.PathLike):
                path = Path(thing)
                with read_by(rule):
                    picture = read_labels(path) if ids else read_rgb(path)
                yield Frame(picture, path.stem, path, index, rule=rule)
            elif isinstance(thing, Image.Image | np.ndarray):
                if rule.bands is not None and not ids:
                    picture = from_memory(thing, rule.bands)
                else:
                    picture = id_map(thing, rule) if ids else photo(thing, rule, bgr=bool(options["bgr"]))
                named = getattr(thing, "filename", None) if alone else None
                name = Path(named).stem if isinstance(named, str) and named else f"picture_{index + 1}"
                yield Frame(np.ascontiguousarray(picture), name, None, index, rule=rule)
            else:
                raise DataError(f"predict: found {type(thing).__name__}, expected {EXPECTED}.")


LIMITS = {
    "score": (0.0, 1.0), "joint_score": (0.0, 1.0), "nms": (0.0, 1.0), "padding": (0.01, 100.0), "top": (1, 1_000_000),
}  # fmt: skip
"""The smallest and the largest value of an option."""


def number_of(frame: Frame, numbers: Mapping[Path, int]) -> int:
    """The picture's number in COCO's files: as given, else that which its file's name ends with, else its place from 1."""
    path = frame.path
    if path is None or frame.seconds is not None:
        return frame.index + 1
    if path in numbers:
        return numbers[path]
    end = path.stem.rpartition("_")[2]
    return int(end) if end.isdecimal() and not numbers else frame.index + 1
