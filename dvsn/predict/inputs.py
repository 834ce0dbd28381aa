"""What `predict` of Python takes, as frames: paths, folders, globs, pictures of Pillow, arrays, tensors, lists, videos."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dvsn.data.files import SUFFIXES, Rule, pictures_below, read_by
from dvsn.errors import DataError, nearest
from dvsn.portable.bands import from_memory
from dvsn.portable.frame import Frame
from dvsn.portable.memory import CHANNELS, id_map, photo
from dvsn.predict.files import read_frame
from dvsn.predict.sources import LISTS, Camera, VideoFile, in_order, read_list
from dvsn.predict.video import SUFFIXES as VIDEOS

Array = np.ndarray[Any, Any]

EXPECTED = (
    "a path, a folder, a glob such as 'photos/*.jpg', a picture of Pillow, an array (H, W, 3) of RGB, a tensor (3, H, W), a "
    "list of any of them, a video, or a camera's number"
)


@dataclass
class Given:
    """A source of `predict`."""

    frames: Iterable[Frame]
    form: str
    """`one` picture, `many`, or a `stream` of frames that is taken as it comes."""
    paths: list[Path] = field(default_factory=list)
    """The picture files, where they are known beforehand."""


@dataclass(frozen=True)
class Taking:
    """How pictures are taken."""

    reads: str
    """`photo` or `ids`, see `Predictor.reads`."""
    rule: Rule
    bgr: bool = False
    """Arrays are blue, green, red, as OpenCV has them."""
    sequence: bool = False
    """Pictures of a folder or a glob follow each other in time: 9.png comes before 10.png."""


def open_given(source: Any, taking: Taking) -> Given:
    """Raises `DataError` for what is no picture."""
    if isinstance(source, Frame):
        return Given([source], "one")
    if isinstance(source, str | os.PathLike):
        return _named(os.path.expanduser(str(os.fspath(source))), taking)  # noqa: PTH111 - a glob, perhaps
    if isinstance(source, int | np.integer) and not isinstance(source, bool):
        return Given(_camera(int(source)), "stream")
    if isinstance(source, np.ndarray | torch.Tensor) and source.ndim == 4:
        return Given(_from_memory(source, taking), "many")
    if isinstance(source, Image.Image | np.ndarray | torch.Tensor):
        return Given(_from_memory([source], taking), "one")
    if isinstance(source, list | tuple):
        return _listed(source, taking)
    if (
        isinstance(source, Iterable)
        and not isinstance(source, Mapping | bytes)
        and not hasattr(source, "read")
    ):
        return Given(_chained(source, taking), "stream")
    raise DataError(f"predict: found {type(source).__name__}, expected {EXPECTED}.{_opened(source)}")


def _opened(source: Any) -> str:
    """What to do with an open file or its content."""
    if isinstance(source, bytes | bytearray):
        return " Open the bytes of a picture by PIL.Image.open(io.BytesIO(...))."
    return " Open the file by PIL.Image.open, or give its path." if hasattr(source, "read") else ""


# Names -------------------------------------------------------------------------------------------------


def _named(name: str, taking: Taking) -> Given:
    path = Path(name)
    if path.is_dir():
        return _files(_sorted([path / each for each in pictures_below(path)], taking), taking, name)
    if path.is_file():
        return _file(path, taking)
    if name.isdecimal():
        return Given(_camera(int(name)), "stream")
    if "://" in name:
        raise DataError(
            f"predict: '{name}' is an address, and nothing is downloaded here. Expected {EXPECTED}."
        )
    found = _sorted([Path(each) for each in glob.glob(name, recursive=True)], taking)  # noqa: PTH207
    if glob.has_magic(name) and found:
        return _files([each for each in found if each.is_file()], taking, name)
    raise DataError(f"predict: nothing found at '{name}'{_beside(path)}; expected {EXPECTED}.")


def _beside(path: Path) -> str:
    """The nearest name in the folder of a file that is not there."""
    if glob.has_magic(str(path)) or not path.parent.is_dir():
        return ""
    there = [each.name for each in path.parent.iterdir() if not each.name.startswith(".")]
    close = nearest(path.name, there)
    return f" ({close.partition('?')[0]}?)" if close.startswith("Did you mean") else ""


def _sorted(paths: list[Path], taking: Taking) -> list[Path]:
    return sorted(paths, key=in_order) if taking.sequence else sorted(paths)


def _file(path: Path, taking: Taking) -> Given:
    if path.suffix.lower() in VIDEOS:
        return Given(_video(path, taking), "stream")
    if path.suffix.lower() in LISTS:
        return _files(read_list(path), taking, str(path))
    return Given(_read([path], taking), "one", [path])


def _files(paths: list[Path], taking: Taking, name: str) -> Given:
    if not paths:
        raise DataError(
            f"predict: nothing found at '{name}': no pictures ({', '.join(sorted(SUFFIXES))}) there or below."
        )
    if any(path.suffix.lower() in VIDEOS for path in paths):
        return Given(_chained(paths, taking), "stream")
    return Given(_read(paths, taking), "many", paths)


def _read(paths: list[Path], taking: Taking) -> Iterator[Frame]:
    for index, path in enumerate(paths):
        with read_by(taking.rule):
            frame = read_frame(path, taking.reads, index)
        yield frame


def _video(path: Path, taking: Taking) -> Iterator[Frame]:
    with VideoFile(path, path, upright=taking.rule.upright).opened() as opened:
        yield from opened.frames
        missing = opened.short()
    if missing is not None:
        raise DataError(f"{path}: {missing}.")


def _camera(number: int) -> Iterator[Frame]:
    with Camera(number, Path()).opened() as opened:
        yield from opened.frames


# Memory ------------------------------------------------------------------------------------------------


def _listed(things: list[Any] | tuple[Any, ...], taking: Taking) -> Given:
    """A list; of picture files alone their paths are known beforehand."""
    names = [each for each in things if isinstance(each, str | os.PathLike)]
    paths = [Path(each).expanduser() for each in names]
    pictures = len(paths) == len(things) and all(path.is_file() for path in paths)
    if pictures and not any(path.suffix.lower() in VIDEOS for path in paths):
        return Given(_read(paths, taking), "many", paths)
    moving = any(path.suffix.lower() in VIDEOS for path in paths) or any(
        isinstance(each, int) for each in things
    )
    return Given(_chained(things, taking), "stream" if moving else "many")


def _chained(things: Iterable[Any], taking: Taking) -> Iterator[Frame]:
    """The frames of one after the other; pictures are counted through, frames of a video keep their numbers."""
    count = 0
    for thing in things:
        given = open_given(thing, taking)
        for frame in given.frames:
            if frame.seconds is not None:
                yield frame
                continue
            named = frame.path is not None or isinstance(thing, Frame)
            name = frame.name if named else f"picture_{count + 1}"
            yield replace(frame, name=name, index=count)
            count += 1


def _from_memory(pictures: Any, taking: Taking) -> Iterator[Frame]:
    to_picture: Callable[[Any, Taking], Array] = _ids if taking.reads == "ids" else _photo
    for index, picture in enumerate(pictures):
        name, path = f"picture_{index + 1}", getattr(picture, "filename", None)
        if isinstance(path, str) and path:
            name = Path(path).stem
        yield Frame(np.ascontiguousarray(to_picture(picture, taking)), name, None, index, rule=taking.rule)


def _ids(picture: Any, taking: Taking) -> Array:
    """A map of class ids (H, W), uint8 or int32."""
    if not isinstance(picture, torch.Tensor):
        return id_map(picture, taking.rule)
    array = _array(picture)
    return id_map(array[0] if array.ndim == 3 and array.shape[0] == 1 else array, taking.rule)


def _photo(picture: Any, taking: Taking) -> Array:
    """RGB (H, W, 3) uint8: see `dvsn.portable.memory.photo`; a tensor's channels come first."""
    if isinstance(picture, torch.Tensor):
        array = _array(picture)
        if taking.rule.bands is not None:
            return from_memory(np.moveaxis(array, 0, 2) if array.ndim == 3 else array, taking.rule.bands)
        if array.ndim == 3:
            if array.shape[0] not in CHANNELS:
                last = array.shape[2] in CHANNELS
                raise DataError(
                    f"predict: found a tensor of the shape {tuple(array.shape)}, expected (3, H, W) of RGB."
                    f"{' Channels come first in a tensor: use picture.permute(2, 0, 1).' if last else ''}"
                )
            array = np.moveaxis(array, 0, 2)
        picture = array
    if taking.rule.bands is not None:
        return from_memory(picture, taking.rule.bands)
    return photo(picture, taking.rule, bgr=taking.bgr)


def _array(picture: Any) -> Array:
    if isinstance(picture, torch.Tensor):
        tensor = picture.detach().cpu()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return np.asarray(picture)
