"""From decoded arrays to the tensors of a sample: albumentations over all pictures at once, then the pair.

A step of a pipeline is an albumentations object, written in YAML. Photos and labels move together; labels are never
interpolated and never recoloured. Everything stays uint8: the task normalises on the device.

Differences from albumentations:

- One random stream for all steps. `Compose.set_random_seed(s)` gives every step a generator with the *same* seed, so
  that in 2.0.8 the crop position and the flip of one sample are correlated (-0.86 measured).
- A label resized with `INTER_NEAREST` is shifted by up to half a source pixel against its photo, since OpenCV
  takes the upper left of each block; the YAMLs ask for `INTER_NEAREST_EXACT` (6), which takes the centre.
"""

from __future__ import annotations

import copy
import os
import random
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvsn.data.boundary import boundary_map
from dvsn.data.dataset import check_sizes
from dvsn.data.views import Strong
from dvsn.errors import ConfigError, DataError, nearest
from dvsn.portable.memory import brightness, check_ids, instance_edges, to_bytes
from dvsn.types import Sample

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask the network for a newer version

NEAREST = (0, 6)
"""OpenCV's INTER_NEAREST and INTER_NEAREST_EXACT."""

OUTLINE = 254
"""The id of an outline in the map that the steps move: neither an id of a class nor that of padding."""


class Pair:
    """Which array of a dataset is the network's input (`image`) and which the wanted output (`target`).

    `edges` appends a channel of instance edges to the input (Wang et al., 2018, arXiv:1711.11585, section
    3.3), taken after the geometric steps so that a line is one pixel wide on each side of every border.
    `blend_labels` interpolates colour labels like photos, as the source document and the reference do:
    colours then mix at borders.
    """

    def __init__(
        self, *, source: str = "label", target: str = "photo", edges: bool = False, blend_labels: bool = False
    ) -> None:
        self.source, self.target, self.edges, self.blend_labels = source, target, edges, blend_labels

    def names(self) -> list[str]:
        """The arrays that must travel through the transform, each once."""
        return list(dict.fromkeys([self.source, self.target, *(["instance"] if self.edges else [])]))

    def check(self, kinds: dict[str, str]) -> None:
        """Raise `ConfigError` when a dataset with these arrays cannot serve this pair."""
        for option, name in (("source", self.source), ("target", self.target)):
            if name not in kinds:
                raise ConfigError(
                    f"data.pair.{option}: found '{name}', which this data set lacks. {nearest(name, kinds)}"
                )
        if kinds[self.source] == "number":
            raise ConfigError(f"data.pair.source: '{self.source}' is a number, expected a picture.")
        if self.edges and "instance" not in kinds:
            raise ConfigError(
                "data.pair.edges: needs instance ids, which this data set does not read. "
                "Set data.dataset.instances=true on Cityscapes, or data.pair.edges=false."
            )


class Transform:
    """A sample of numpy arrays to a sample of tensors.

    In: the arrays of `ImageDataset.read`, `index`, `name`, `kinds` and `palettes`. Out:

    - `image` and `target`: uint8 (C, H, W); ids have one channel; a target that is a number stays an int;
    - `boundary`, with `outlines` (options of `dvsn.data.boundary.boundary_map`): uint8 (1, H, W) of 0 and 1, the outlines
      of the target's ids before any step, moved with it; none where a step has padded;
    - `weak`, with `strong` (a strength, see `dvsn.data.views.Strong`): the picture that `image` is the strong view of;
    - `index`, `name`.

    `grey` names photos that become their brightness, one channel, before any step. With edges `image` has a further channel
    of 0 and 1. With `label_classes` the source must be ids below it. `swaps` are pairs of ids that a mirror exchanges, such
    as left arm and right arm.
    """

    def __init__(
        self,
        *,
        steps: Sequence[Any] = (),
        pair: Pair | None = None,
        label_classes: int = 0,
        outlines: dict[str, int] | None = None,
        swaps: Sequence[tuple[int, int]] = (),
        strong: float | None = None,
        grey: Sequence[str] = (),
    ) -> None:
        self.strong = None if strong is None else Strong(strong)
        self.grey = tuple(grey)
        self.steps, self.pair, self.label_classes = list(steps or ()), pair or Pair(), label_classes
        self.outlines, self.swaps = outlines, tuple(swaps)
        self._pipelines: dict[tuple[tuple[str, str], ...], Any] = {}
        for number, step in enumerate(self.steps):
            for leaf in _leaves(step):
                _check_step(leaf, f"transform step {number} ({type(step).__name__})", bool(self.swaps))

    def check(self, kinds: dict[str, str]) -> None:
        """Raise `ConfigError` when a dataset with these arrays cannot serve the pair."""
        self.pair.check(kinds)

    def __call__(self, sample: Sample, item_seed: int) -> Sample:
        kinds, palettes = sample["kinds"], sample.get("palettes", {})
        self.pair.check(kinds)
        names = [name for name in self.pair.names() if kinds[name] != "number"]
        treated = {name: self._treatment(name, kinds[name]) for name in names}
        arrays = {name: _fit(sample[name]) if name == "instance" else sample[name] for name in names}
        for name in names:
            if treated[name] == "blend" and name in palettes:
                arrays[name] = palettes[name][arrays[name]]  # mixing colours needs colours
            if treated[name] == "blend" and arrays[name].ndim == 2:
                raise ConfigError(
                    "data.pair.blend_labels: label ids cannot be blended, only colours. Set data.dataset.labels=color."
                )
        for name in names:
            if name in self.grey and treated[name] != "label":
                arrays[name] = brightness(arrays[name])
        if self.outlines is not None:
            outlines = boundary_map(arrays[self.pair.target], **self.outlines)
            arrays["boundary"] = outlines + np.uint8(OUTLINE - 1)
            treated["boundary"] = "label"
        arrays = self._move(arrays, treated, item_seed)
        for name in names:
            if treated[name] == "label" and name in palettes:
                arrays[name] = palettes[name][arrays[name]]
        if self.label_classes:
            check_ids(arrays[self.pair.source], self.label_classes)
        image, wanted = _tensor(arrays[self.pair.source]), self.pair.target
        target = _tensor(arrays[wanted]) if wanted in arrays else sample[wanted]
        if self.pair.edges:
            edges = torch.from_numpy(instance_edges(arrays["instance"]))[None]  # (1, H, W)
            image = torch.cat([image, edges])  # (C + 1, H, W)
        result = {"image": image, "target": target, "index": sample["index"], "name": sample["name"]}
        if self.strong is not None:
            result["weak"] = image
            result["image"] = _tensor(self.strong(arrays[self.pair.source], item_seed))
        if self.outlines is not None:
            result["boundary"] = torch.from_numpy((arrays["boundary"] == OUTLINE).astype(np.uint8))[None]
        return result

    def photo(self, photo: np.ndarray, item_seed: int) -> np.ndarray:
        """The steps on one picture (H, W, 3) alone."""
        return self._move({"photo": photo}, {"photo": "photo"}, item_seed)["photo"]

    def forbid_moves(self, spared: Sequence[str] = ()) -> None:
        """Raise `ConfigError` when a step would move what it shows; `spared` names transforms that do not."""
        import albumentations

        for leaf in (leaf for step in self.steps for leaf in _leaves(step)):
            if isinstance(leaf, albumentations.DualTransform) and type(leaf).__name__ not in spared:
                raise ConfigError(
                    f"transform.steps: {type(leaf).__name__} moves the picture and would leave its keypoints behind. "
                    "Zoom, rotation, shift and flip are options of the crop; steps may recolour or hide."
                )

    def _treatment(self, name: str, kind: str) -> str:
        blended = kind == "label" and self.pair.blend_labels and name != "instance"
        return "blend" if blended else kind

    def _move(
        self, arrays: dict[str, np.ndarray], treated: dict[str, str], item_seed: int
    ) -> dict[str, np.ndarray]:
        """All steps over all arrays with one draw. albumentations wants an `image`: the first photo."""
        if not self.steps:
            return arrays
        check_sizes(arrays)
        main = next((name for name, how in treated.items() if how == "photo"), None)
        height, width = next(iter(arrays.values())).shape[:2]
        data = {f"dvsn_{name}": array for name, array in arrays.items() if name != main}
        data["image"] = np.zeros((height, width, 3), np.uint8) if main is None else arrays[main]
        pipeline = self._pipeline(main, treated)
        pipeline.set_random_state(np.random.default_rng(item_seed), random.Random(item_seed))
        try:
            moved = pipeline(**data)
        except Exception as error:
            hint = ". Resize first, or pad with albumentations.PadIfNeeded." if "rop" in str(error) else ""
            raise DataError(
                f"a transform step failed on {height}x{width} (height x width): {error}{hint}"
            ) from error
        result = {name: moved["image" if name == main else f"dvsn_{name}"] for name in arrays}
        for name, array in result.items():
            if not isinstance(array, np.ndarray) or array.dtype != arrays[name].dtype:
                found = getattr(array, "dtype", type(array).__name__)
                raise ConfigError(
                    f"transform: the steps turned '{name}' from {arrays[name].dtype} into {found}. Leave "
                    "out steps such as Normalize, ToFloat and ToTensorV2: pictures stay uint8, the task "
                    "normalises on the device."
                )
        check_sizes(result)
        return result

    def _pipeline(self, main: str | None, treated: dict[str, str]) -> Any:
        """The steps, told what each array is. Built on first use in each process and kept."""
        key = (("", main or ""), *treated.items())
        if key not in self._pipelines:
            import albumentations

            from dvsn.data.augment import mirrored

            steps = [mirrored(step, self.swaps) for step in copy.deepcopy(self.steps)]
            for leaf in (leaf for step in steps for leaf in _leaves(step)):
                moves = isinstance(leaf, albumentations.DualTransform)  # others only recolour: photos alone
                role = {"photo": "image", "label": "mask", "blend": "image" if moves else "mask"}
                leaf.add_targets({f"dvsn_{name}": role[how] for name, how in treated.items() if name != main})
            self._pipelines[key] = albumentations.Compose(steps)
        return self._pipelines[key]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pipelines": {}}


def refuse_colour_steps(steps: Sequence[Any], channels: int) -> None:
    """Raise `ConfigError` for a step that cannot treat pictures of so many channels, such as one that turns hues: each is
    tried on one."""
    if channels == 3:
        return
    import albumentations

    picture = np.random.default_rng(0).integers(0, 256, (64, 64, channels), dtype=np.uint8)
    for step in (leaf for each in steps for leaf in _leaves(each)):
        if isinstance(step, albumentations.DualTransform):
            continue  # moves what it is given, whatever that shows
        tried, reason = copy.deepcopy(step), ""
        tried.p = 1.0
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = tried(image=picture)["image"]
            if made.shape != picture.shape or made.dtype != picture.dtype:
                reason = f"it makes {made.dtype} of the shape {made.shape}"
        except Exception as error:  # noqa: BLE001 - whatever it is, the step cannot be used
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if reason:
            raise ConfigError(
                f"transform: {type(step).__name__} cannot treat pictures of {channels} channels ({reason.rstrip('.')}). "
                "Leave it out, or take one that treats each channel by itself, such as RandomBrightnessContrast."
            )


def input_kind(data: dict[str, Any], *, ids: bool) -> str:
    """How a data node treats the network's input: `photo` is interpolated, `label` never. `ids`: the input is class ids."""
    pair = data.get("pair", {})
    source = pair.get("source", "label")
    kind = (data.get("dataset") or {}).get(f"{source}_kind", "label" if source == "label" else "photo")
    return "label" if ids or (kind in ("label", "ids") and not pair.get("blend_labels")) else "photo"


def _leaves(step: Any) -> Iterator[Any]:
    """The single transforms inside a step, which may be a OneOf, SomeOf, Sequential..."""
    if hasattr(step, "apply_with_params") or not hasattr(step, "transforms"):
        yield step  # ColorJitter has a list of `transforms` too, of functions
    else:
        for inner in step.transforms:
            yield from _leaves(inner)


MIRRORS = ("D4", "SquareSymmetry", "Transpose", "RandomRotate90", "RandomGridShuffle")


def _check_step(leaf: Any, where: str, handed: bool) -> None:
    if not hasattr(leaf, "apply_with_params"):
        raise ConfigError(f"{where}: found a {type(leaf).__name__}, expected an albumentations transform.")
    if handed and type(leaf).__name__ in MIRRORS:
        raise ConfigError(
            f"{where}: may mirror, and this data set has classes that a mirror exchanges (left and right). "
            "Use albumentations.HorizontalFlip, under which they are exchanged."
        )
    interpolation = getattr(leaf, "mask_interpolation", 0)
    if interpolation not in NEAREST or getattr(leaf, "area_for_downscale", None) == "image_mask":
        raise ConfigError(
            f"{where}: mask_interpolation={interpolation} or area_for_downscale=image_mask would mix the "
            "colours of labels. Use mask_interpolation=6 (nearest, centred) or 0; to mix them as the first "
            "papers did, set data.pair.blend_labels=true."
        )


def _fit(instance: np.ndarray) -> np.ndarray:
    """Instance ids in uint16, which every OpenCV function takes. Only their being different matters."""
    if instance.dtype in (np.uint8, np.uint16):
        return instance
    if instance.min() >= 0 and instance.max() < 65536:
        return instance.astype(np.uint16)
    return np.unique(instance, return_inverse=True)[1].reshape(instance.shape).astype(np.uint16)


def _tensor(array: np.ndarray) -> Tensor:
    """(H, W, C) or (H, W) to uint8 (C, H, W)."""
    array = to_bytes(array)
    planes = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return torch.from_numpy(np.array(planes, order="C"))
