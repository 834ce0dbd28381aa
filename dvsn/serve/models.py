"""A model that is served: loaded once, asked by pictures in batches."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dvsn.errors import ConfigError, UserError
from dvsn.portable.bands import bands_of
from dvsn.portable.decode import Rule, make_rule
from dvsn.portable.frame import Frame
from dvsn.portable.result import Result
from dvsn.predict.asked import known_options, make_predictor, python_options
from dvsn.predict.predictor import Predictor, find_device, reads_of
from dvsn.serve.options import Settings
from dvsn.tasks.exported import is_exported, open_task

Array = np.ndarray[Any, Any]
Chosen = tuple[tuple[str, Any], ...]
"""Options of a request, by name, in order of the names."""

ASKABLE = {"detection": ("score",), "classification": ("top",)}
"""By task what a request may choose. Nothing that names a file, and nothing that makes a network's input larger."""
SIDE = 256
"""Of the picture that a model is tried with."""
KEPT = 16
"""Predictors of different options that are kept."""


class Served:
    """A model by its name. `load` before anything else is asked of it."""

    def __init__(self, name: str, path: str, settings: Settings) -> None:
        self.name, self.path, self.settings = name, path, settings
        self.ready = False
        self.task: Any = None
        self.device = "cpu"
        self.rule = Rule()
        self.batch = settings.batch
        self._predictors: OrderedDict[Chosen, Predictor] = OrderedDict()

    def load(self) -> None:
        """Raises `CheckpointError` or `ConfigError`."""
        exported = is_exported(self.path) and self.settings.device == "auto"
        self.device = "cpu" if exported else find_device(self.settings.device)
        self.task = open_task(self.path, device=self.device).eval()
        data = self.task.data_recipe
        self.rule = make_rule(
            max_pixels=self.settings.max_pixels,
            deep_range=data.get("deep_range"),
            upright=True,
            bands=bands_of(data),
        )
        if not getattr(self.task, "answers_alone", True):
            self.batch = 1  # a picture's answer would depend on its batch
        self.options = self._options()
        self._warm()
        self.ready = True

    def _warm(self) -> None:
        """One picture through the network: the first one takes seconds longer than others, and torchvision's detectors take
        the strides of their maps from it, which a very small or long one would falsify."""
        self.predictor(())  # raises for options that are wrong
        channels = 3 if self.rule.bands is None else self.rule.bands.count
        shape = (SIDE, SIDE) if self.reads == "ids" else (SIDE, SIDE, channels)
        with contextlib.suppress(UserError):  # a file of one size, which this picture has not
            self.ask([np.zeros(shape, np.uint8)], ())

    def _options(self) -> dict[str, Any]:
        """What the server was told, as far as this task has it."""
        known, settings = known_options(self.task), self.settings
        chosen: dict[str, Any] = {"batch_size": self.batch}
        if "size" in known:
            chosen["size"] = settings.size
            if settings.size == "recipe" and not self.task.data_recipe.get("transform", {}).get("eval", []):
                chosen["size"] = "keep"  # the same, and sides that do not divide are padded
        if "boxes" in known and settings.boxes != "image":
            chosen |= {"boxes": settings.boxes, "category": settings.category}
            if Path(settings.boxes).suffix == ".ckpt":
                chosen["boxes"] = open_task(settings.boxes, device=self.device).eval()
        return chosen

    @property
    def reads(self) -> str:
        """`photo`, or `ids`: maps of class ids."""
        return reads_of(self.task)

    def about(self) -> dict[str, Any]:
        """What `GET /models` says of it."""
        if not self.ready:
            return {"name": self.name, "ready": False}
        return {
            "name": self.name,
            "ready": True,
            "task": self.task.kind,
            "reads": self.reads,
            "options": list(ASKABLE.get(self.task.kind, ())),
            "device": self.device,
            "batch": self.batch,
        }

    def choose(self, given: Mapping[str, Any]) -> Chosen:
        """A request's options. Raises `ConfigError` for one that the task has not."""
        known = ASKABLE.get(self.task.kind, ())
        for name in given:
            if name not in known:
                raise ConfigError(
                    f"{name}: the task '{self.task.kind}' of the model '{self.name}' has no such option."
                )
        return tuple(sorted(given.items()))

    def together(self, picture: Array, chosen: Chosen) -> tuple[Any, ...]:
        """Pictures of equal keys may go through the network together. A detector would pad those of different sizes."""
        return (chosen, picture.shape) if self.task.kind == "detection" else (chosen,)

    def predictor(self, chosen: Chosen) -> Predictor:
        found = self._predictors.pop(chosen, None)
        if found is None:
            options = python_options(self.task, self.options | dict(chosen))
            found = make_predictor(self.task, options, self.device)
        self._predictors[chosen] = found
        if len(self._predictors) > KEPT:
            self._predictors.popitem(last=False)
        return found

    def ask(self, pictures: Sequence[Array], chosen: Chosen) -> list[Result]:
        """The results of pictures, in their order. Those whose input has equal sides are batched."""
        order = sorted(range(len(pictures)), key=lambda place: pictures[place].shape)
        frames = (Frame(np.ascontiguousarray(pictures[place]), "picture") for place in order)
        found = dict(zip(order, self.predictor(chosen)(frames), strict=True))
        return [found[place] for place in range(len(pictures))]


def make_models(settings: Settings) -> dict[str, Served]:
    """The models of the settings by name, none of them loaded yet."""
    return {name: Served(name, path, settings) for name, path in settings.models.items()}


def check_used(models: Mapping[str, Served], settings: Settings) -> None:
    """Raise `ConfigError` for an option that none of the loaded models has."""
    uses: dict[str, Callable[[], bool]] = {
        "boxes": lambda: settings.boxes == "image" or any("boxes" in each.options for each in models.values()),
        "size": lambda: settings.size == "recipe" or any("size" in each.options for each in models.values()),
    }  # fmt: skip
    for name, used in uses.items():
        if not used():
            kinds = ", ".join(f"{each.name} ({each.task.kind})" for each in models.values())
            raise ConfigError(f"{name}: none of the models has such an option: {kinds}.")
