"""`python -m dvsn.predict`: a checkpoint on pictures, videos and cameras. In Python a function: `dvsn.predict(...)`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, overload

from dvsn.config.callable_module import make_callable

if TYPE_CHECKING:
    from PIL.Image import Image

    from dvsn.engine.records import Run
    from dvsn.portable.result import Result
    from dvsn.predict.model import Model

    Checkpoint = str | os.PathLike[str] | Run | Model


@overload
def called(
    checkpoint: Checkpoint, source: Any, *, stream: Literal[True], **options: Any
) -> Iterator[Result]: ...


@overload
def called(
    checkpoint: Checkpoint,
    source: list[Any] | tuple[Any, ...],
    *,
    stream: Literal[False] = ...,
    **options: Any,
) -> list[Result]: ...


@overload
def called(
    checkpoint: Checkpoint, source: Image, *, stream: Literal[False] = ..., **options: Any
) -> Result: ...


@overload
def called(checkpoint: Checkpoint, source: Any, *, stream: bool = ..., **options: Any) -> Any: ...


def called(
    checkpoint: Checkpoint,
    source: Any,
    *,
    device: str | None = None,
    max_unpacked: int | None = None,
    stream: bool = False,
    bgr: bool = False,
    **options: Any,
) -> Any:
    """The answer of a checkpoint to a picture, or to each of several: `dvsn.load(checkpoint).predict(source)` in one call.

        dvsn.predict("best.ckpt", "photo.jpg").plot().save("seen.png")

    - `checkpoint`: what `dvsn.load` takes, on `device` (None: cpu) and with its `max_unpacked`; a run of `dvsn.train`,
      of which the best is taken, else the last; or a loaded model, which stays where it is.
    - `source`, `stream`, `bgr` and `options`, and what is returned, are those of `Model.predict`: a `Result` of one picture,
      a list of several, an iterator of a video.

    The checkpoint is opened at each call. Whoever asks often keeps the model: `model = dvsn.load("best.ckpt")`.
    Raises `CheckpointError`, `DataError` and `ConfigError`.
    """
    from dvsn.predict.model import open_model  # torch, which `--help` does without

    model = open_model(checkpoint, device=device, max_unpacked=max_unpacked)
    return model.predict(source, stream=stream, bgr=bgr, **options)


make_callable(__name__, called)
