"""A loaded task that predicts: what `dvsn.load` gives."""

from __future__ import annotations

import copyreg
import functools
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from dvsn.data.files import make_rule
from dvsn.engine.records import Run
from dvsn.errors import ConfigError
from dvsn.portable.bands import bands_of
from dvsn.portable.result import Result
from dvsn.predict.asked import make_predictor, python_options
from dvsn.predict.following import make_following
from dvsn.predict.inputs import Taking, open_given
from dvsn.predict.predictor import find_device, reads_of
from dvsn.reading import unpacking
from dvsn.tasks.base import Task
from dvsn.tasks.exported import is_exported, open_task

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    Picture = Image | np.ndarray[Any, Any] | Tensor


class Model(Task):
    """A task as it was trained, with `predict`.

    It is the task: called with a batch of tensors it answers as its network does, and everything of its class is there, such
    as `deployable()`, `vocabulary` or `keypoints`. `dvsn.load` makes it one by adding this class to its own.
    """

    @overload
    def predict(
        self, source: Any, *, stream: Literal[True], bgr: bool = ..., **options: Any
    ) -> Iterator[Result]: ...

    @overload
    def predict(
        self,
        source: list[Any] | tuple[Any, ...],
        *,
        stream: Literal[False] = ...,
        bgr: bool = ...,
        **options: Any,
    ) -> list[Result]: ...

    @overload
    def predict(
        self, source: Image, *, stream: Literal[False] = ..., bgr: bool = ..., **options: Any
    ) -> Result: ...

    @overload
    def predict(self, source: Any, *, stream: bool = ..., bgr: bool = ..., **options: Any) -> Any: ...

    def predict(self, source: Any, *, stream: bool = False, bgr: bool = False, **options: Any) -> Any:
        """The answer to a picture, or to each of several.

        `source`, and what is returned:

        - one picture: a path; a picture of Pillow; an array (H, W, 3) of RGB, RGBA or grey (H, W), uint8, uint16, or
          float in [0, 1]; a tensor (3, H, W), uint8 or float in [0, 1]. Of a task that paints from class ids: ids
          (H, W), or a file of them. Returns a `Result`.
        - several: a list or tuple of pictures, a folder, a glob, a list file, an array (N, H, W, 3), a tensor
          (N, 3, H, W). Returns a list of `Result`s in their order, which hold their pictures.
        - a stream: a video, the number of a camera, a generator of pictures. Returns an iterator, which reads and
          predicts as it is asked, a batch at a time; so does everything with `stream=True`.

        `bgr`: arrays are blue, green, red, as `cv2.imread` gives them.

        `options` are those of `python -m dvsn.predict` that change the answer, with its defaults: `batch_size`;
        `size`, and of segmentation `mode`, `window`, `stride`, `scales`, `flip`; of detection `score`; of pose and
        landmarks `boxes` (a file, a loaded detection model, a `Result` with boxes, or corners (N, 4) in pixels),
        `score`, `flip`; of all three `track` and `smooth`, which take what is given for frames of a sequence, at `fps` where
        they know no time; and so on. Another one is refused by its name, with a list. One differs: `original_size` is
        true, so that ids and pictures are as large as what was given.

        Raises `DataError` for what is no picture and `ConfigError` for a wrong option, which is said before anything is
        predicted. The model is set to evaluation and stays on its device; random numbers of the caller go on.
        """
        chosen = python_options(self, options)
        rule = make_rule(
            max_pixels=chosen["max_pixels"],
            deep_range=self.data_recipe.get("deep_range"),
            upright=chosen["upright"],
            bands=bands_of(self.data_recipe),
        )
        following = make_following(chosen, self.kind)
        self.eval()
        given = open_given(source, Taking(reads_of(self), rule, bgr, sequence=following is not None))
        predictor = make_predictor(self, chosen, str(self.device), given.paths)
        results = predictor(given.frames)
        if following is not None:
            results = following(results, Fraction(chosen["fps"]).limit_denominator(1001))
        if stream or given.form == "stream":
            return results
        found = list(results)
        return found[0] if given.form == "one" else found

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickled as the task's own class, which is made a model again."""
        made = super().__reduce_ex__(protocol)
        return (_empty, (type(self).__mro__[2],), *made[2:])


@functools.cache
def model_class(kind: type[Task]) -> type[Model]:
    """The class of a task, with `predict`."""
    return type(kind.__name__, (Model, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def as_model(task: Task) -> Model:
    """The task itself, with `predict`."""
    if not isinstance(task, Model):
        task.__class__ = model_class(type(task))  # type: ignore[arg-type]
    assert isinstance(task, Model)
    return task


def open_model(
    checkpoint: str | os.PathLike[str] | Run | Model,
    *,
    device: str | None = None,
    max_unpacked: int | None = None,
) -> Model:
    """What is in a checkpoint or an exported file, as `dvsn.load` says, on `device` (None: cpu); of a run its best, else its
    last. A model is given back, and a device for it is refused."""
    if isinstance(checkpoint, Model):
        if device is not None:
            raise ConfigError(
                f"device: found '{device}' with a loaded model, which is on {checkpoint.device} and stays there. Load it "
                f"there, dvsn.load(..., device='{device}'), or leave device out."
            )
        return checkpoint
    path = os.path.expanduser(_file_of(checkpoint))  # noqa: PTH111 - a name on the hub has two slashes
    with unpacking({"max_unpacked": max_unpacked}):
        place = device or "cpu"
        return as_model(open_task(path, device=place if is_exported(path) else find_device(place)))


def _file_of(checkpoint: Any) -> str:
    """The checkpoint as a path or a name. Raises `ConfigError` for what is none."""
    if isinstance(checkpoint, Run):
        checkpoint = checkpoint.kept
    if not isinstance(checkpoint, str | os.PathLike):
        raise ConfigError(
            f"checkpoint: found {type(checkpoint).__name__}, expected a path, hf://OWNER/NAME, what dvsn.train gave or "
            "what dvsn.load gave. The checkpoint comes first, the picture second."
        )
    return os.fspath(checkpoint)


def _empty(kind: type[Task]) -> Model:
    return copyreg.__newobj__(model_class(kind))  # type: ignore[arg-type,attr-defined,no-any-return]
