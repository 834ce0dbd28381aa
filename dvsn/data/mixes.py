"""Pictures that are made of several: mixup and cutmix of a batch, mosaic and copy-paste of samples.

All that is random follows from the seed, the epoch and the numbers of the items, so that a resumed run, and several
processes, see the same pictures.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dvsn.data.dataset import ImageDataset
from dvsn.errors import ConfigError
from dvsn.types import IGNORE, Batch, Sample

Numbers = np.ndarray
Spot = tuple[slice, slice]
"""Rows and columns of a picture."""
OWN = 1  # tells the random numbers of a mix from those of the transform
GREY = 114  # where no picture lies, as in YOLO's code


class Mix:
    """Base of all mixes. `p` is the chance that a sample, or a batch, is mixed; `until`: the first epoch, from 0, without;
    null: none is."""

    tasks: ClassVar[tuple[str, ...]] = ()
    """The kinds of task whose labels can be joined."""

    def __init__(self, *, p: float = 1.0, until: int | None = None) -> None:
        if not 0 <= p <= 1:
            raise ConfigError(f"mix.p: found {p}, expected a probability from 0 to 1.")
        if until is not None and until < 1:
            raise ConfigError(f"mix.until: found {until}, expected an epoch from 1 on, or null.")
        self.p, self.until = p, until

    def drawn(self, random: np.random.Generator, epoch: int) -> bool:
        """Whether to mix."""
        return random.random() < self.p and (self.until is None or epoch < self.until)


class BatchMix(Mix):
    """Mixup and cutmix of the pictures of a batch with those of the same batch in another order.

    Mixup (Zhang et al., 2018, arXiv:1710.09412): a picture is l times itself and 1 - l times the other, l of
    Beta(`mixup`, `mixup`). Cutmix (Yun et al., 2019, arXiv:1905.04899): a rectangle of the share 1 - l of the picture, l of
    Beta(`cutmix`, `cutmix`), is that of the other; l becomes the share that is left. l is one for the batch. With both each
    batch is mixed by one of them, by chance. 0 leaves one out.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(
        self, *, mixup: float = 0.0, cutmix: float = 0.0, p: float = 1.0, until: int | None = None
    ) -> None:
        super().__init__(p=p, until=until)
        for name, value in {"mixup": mixup, "cutmix": cutmix}.items():
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"mix.{name}: found {value}, expected 0 or more.")
        if not mixup and not cutmix:
            raise ConfigError("mix: mixup and cutmix are both 0, expected one above it.")
        self.mixup, self.cutmix = float(mixup), float(cutmix)

    def __call__(self, batch: Batch, *, seed: int, epoch: int) -> Batch:
        """A batch with `image` float (N, 3, H, W) in 0 to 255, `other` (N,) the second class of each picture, and `share`
        (N,) float32 that of its first; or the batch itself. `items` is its `index` as a list, for which no GPU is asked."""
        random = np.random.default_rng([seed, epoch, *batch["items"]])
        if not self.drawn(random, epoch):
            return batch
        image: Tensor = batch["image"]
        order = torch.from_numpy(random.permutation(len(image))).to(image.device)
        cuts = bool(self.cutmix) and (not self.mixup or random.random() < 0.5)
        alpha = self.cutmix if cuts else self.mixup
        share = float(random.beta(alpha, alpha))
        mixed = image.float()
        if cuts:
            spot = rectangle(random, (image.shape[-2], image.shape[-1]), 1 - share)
            mixed = mixed.clone()
            mixed[(..., *spot)] = image[order][(..., *spot)].float()
            share = 1 - area(spot) / (image.shape[-2] * image.shape[-1])
        else:
            mixed = share * mixed + (1 - share) * mixed[order]
        shares = torch.full((len(image),), share, device=image.device)
        return {**batch, "image": mixed, "other": batch["target"][order], "share": shares}


def rectangle(random: np.random.Generator, size: tuple[int, int], share: float) -> Spot:
    """A rectangle of the form of a picture (H, W) with that share of it, its centre anywhere; cut at the borders."""
    spots = []
    for side in size:
        half, middle = side * math.sqrt(share) / 2, random.integers(side)
        spots.append(slice(max(0, round(middle - half)), min(side, round(middle + half))))
    return spots[0], spots[1]


def area(spot: Spot) -> int:
    return (spot[0].stop - spot[0].start) * (spot[1].stop - spot[1].start)


class SampleMix(Mix):
    """Base of mixes of samples, before their transform. `keep`: objects of which a smaller share of the area is left are
    dropped."""

    tasks: ClassVar[tuple[str, ...]] = ("segmentation", "detection")

    def __init__(self, *, keep: float = 0.2, p: float = 0.5, until: int | None = None) -> None:
        super().__init__(p=p, until=until)
        if not 0 <= keep <= 1:
            raise ConfigError(f"mix.keep: found {keep}, expected a share from 0 to 1.")
        self.keep = keep
        self.size: int | None = None  # only the first so many items take part

    def read(self, dataset: ImageDataset, epoch: int, index: int) -> Sample:
        """The arrays of an item as `dataset.read_at` gives them, mixed with those of others."""
        random = np.random.default_rng([dataset.seed, epoch, index, OWN])
        own = dataset.read_at(epoch, index)
        if not self.drawn(random, epoch):
            return own
        count = min(len(dataset), self.size or len(dataset))
        return self.mixed(own, lambda: dataset.read_at(epoch, int(random.integers(count))), random)

    def mixed(self, own: Sample, other: Any, random: np.random.Generator) -> Sample:
        raise NotImplementedError

    def left_over(self, objects: Sample, before: Numbers, after: Numbers) -> Sample:
        """The objects whose area (n,) is still large enough; `area` shrinks with it."""
        share = np.divide(after, before, out=np.zeros(len(before)), where=before > 0)
        sides = objects["boxes"][:, 2:] - objects["boxes"][:, :2]
        kept = (sides >= 1).all(axis=1) & (share >= self.keep) & (after > 0)
        found = {key: objects[key][kept] for key in OBJECTS if key in objects}
        found["area"] = (objects["area"] * share)[kept].astype(np.float32)
        return found


OBJECTS = ("boxes", "labels", "crowd", "area", "masks")
"""Arrays of a sample with a row an object."""


def pictures_of(sample: Sample) -> list[str]:
    """The arrays of a sample that are pictures or maps of ids."""
    return [
        key
        for key, value in sample.items()
        if key not in OBJECTS and isinstance(value, np.ndarray) and value.ndim >= 2
    ]


class Mosaic(SampleMix):
    """Four pictures in one (Bochkovskiy et al., 2020, YOLOv4, arXiv:2004.10934): the item and three others, each in a
    quarter around a point that is drawn between `reach` and 1 - `reach` of the sides.

    The picture keeps its size, and what is seen keeps its scale: of each picture a random window of the quarter's size, or
    all of it, next to the point. Where no picture lies it is grey, and ignored.
    """

    def __init__(self, *, reach: float = 0.25, **shared: Any) -> None:
        super().__init__(**shared)
        if not 0 <= reach <= 0.5:
            raise ConfigError(f"mix.reach: found {reach}, expected 0 to 0.5.")
        self.reach = reach

    def mixed(self, own: Sample, other: Any, random: np.random.Generator) -> Sample:
        height, width = own["photo"].shape[:2]
        y, x = (round(float(random.uniform(self.reach, 1 - self.reach)) * side) for side in (height, width))
        made = {key: blank(own[key], key) for key in pictures_of(own)}
        parts: list[Sample] = []
        for number, quarter in enumerate(
            ((0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width))
        ):
            sample = own if number == 0 else other()
            there, here = windows(random, sample["photo"].shape[:2], quarter, (y, x))
            for key, canvas in made.items():
                if key in sample:
                    canvas[here] = sample[key][there]
            if "boxes" in own:
                parts.append(self.moved(sample, there, here, (height, width)))
        joined = {
            key: np.concatenate([part[key] for part in parts]) for key in OBJECTS if parts and key in own
        }
        return {**own, **made, **joined}

    def moved(self, sample: Sample, there: Spot, here: Spot, size: tuple[int, int]) -> Sample:
        """The objects of a picture as its window `there` shows them at `here`."""
        boxes = sample["boxes"].copy()
        before = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        shift = np.array([here[1].start - there[1].start, here[0].start - there[0].start] * 2, np.float32)
        low = np.array([here[1].start, here[0].start] * 2, np.float32)
        high = np.array([here[1].stop, here[0].stop] * 2, np.float32)
        boxes = np.clip(boxes + shift, low, high)
        objects = {**{key: sample[key] for key in OBJECTS if key in sample}, "boxes": boxes}
        after = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        if "masks" in sample:
            masks = np.zeros((len(boxes), *size), np.uint8)
            masks[(slice(None), *here)] = sample["masks"][(slice(None), *there)]
            before, after = (each.sum((1, 2)).astype(np.float64) for each in (sample["masks"], masks))
            objects["masks"] = masks
        return self.left_over(objects, before, after)


def blank(picture: Numbers, name: str) -> Numbers:
    """A canvas of the form of a picture: grey, or ignored ids."""
    return np.full_like(picture, GREY if name == "photo" else IGNORE)


def somewhere(random: np.random.Generator, side: int, length: int) -> slice:
    """A random stretch of that length."""
    first = int(random.integers(side - length + 1))
    return slice(first, first + length)


def windows(
    random: np.random.Generator,
    size: tuple[int, int],
    quarter: tuple[int, int, int, int],
    point: tuple[int, int],
) -> tuple[Spot, Spot]:
    """Where a picture (H, W) is taken from, and where it lies in its quarter (top, left, bottom, right): at the point."""
    there, here = [], []
    for side, low, high, middle in zip(size, quarter[:2], quarter[2:], point, strict=True):
        length = min(side, high - low)
        there.append(somewhere(random, side, length))
        here.append(
            slice(middle - length, middle)
            if high == middle and low != middle
            else slice(middle, middle + length)
        )
    return (there[0], there[1]), (here[0], here[1])


class CopyPaste(SampleMix):
    """What is cut out of another picture is pasted onto the item: objects with masks, each with the chance of one half
    (Ghiasi et al., 2021, arXiv:2012.07177), or of a label map the half of its classes (Olsson et al., 2021, ClassMix,
    arXiv:2007.07936).

    The other picture lies at a random place, at its own scale. What it hides is taken from the masks below, whose boxes
    shrink with them. Edges are not blended, which makes no difference in the paper.
    """

    def mixed(self, own: Sample, other: Any, random: np.random.Generator) -> Sample:
        sample, size = other(), own["photo"].shape[:2]
        (rows, rows_here), (columns, columns_here) = (
            [somewhere(random, side, min(sides)) for side in sides]
            for sides in zip(sample["photo"].shape[:2], size, strict=True)
        )
        there, here = (rows, columns), (rows_here, columns_here)
        if "boxes" not in own:
            label = next(key for key in pictures_of(own) if key != "photo")
            pasted = np.zeros(size, bool)
            pasted[here] = np.isin(sample[label][there], half_of(sample[label], random))
            return {**own, **over(own, sample, pasted, there, here)}
        chosen = (random.random(len(sample["boxes"])) < 0.5) & (sample["crowd"] == 0)
        masks = np.zeros((int(chosen.sum()), *size), np.uint8)
        masks[(slice(None), *here)] = sample["masks"][chosen][(slice(None), *there)]
        theirs = {key: sample[key][chosen] for key in OBJECTS} | {"masks": masks, "boxes": boxes_of(masks)}
        new = self.left_over(theirs, sample["masks"][chosen].sum((1, 2)), masks.sum((1, 2)))
        pasted = new["masks"].any(axis=0) if len(new["masks"]) else np.zeros(size, bool)
        left = own["masks"] * ~pasted
        hidden = (left != own["masks"]).any(axis=(1, 2))
        boxes = np.where(hidden[:, None], boxes_of(left), own["boxes"]).astype(np.float32)
        old = self.left_over(
            {**own, "masks": left, "boxes": boxes}, own["masks"].sum((1, 2)), left.sum((1, 2))
        )
        joined = {key: np.concatenate([old[key], new[key]]) for key in OBJECTS}
        return {**own, **over(own, sample, pasted, there, here), **joined}


def half_of(ids: Numbers, random: np.random.Generator) -> Numbers:
    """Half of the classes of a label map, at least one where there is any."""
    classes = np.unique(ids[ids != IGNORE])
    return random.permutation(classes)[: -(-len(classes) // 2)]


def over(own: Sample, sample: Sample, pasted: Numbers, there: Spot, here: Spot) -> Sample:
    """The pictures of an item with those of another where `pasted` (H, W) is true."""
    made = {}
    for key in pictures_of(own):
        made[key] = own[key].copy()
        if key in sample:
            made[key][here][pasted[here]] = sample[key][there][pasted[here]]
    return made


def boxes_of(masks: Numbers) -> Numbers:
    """(n, H, W) -> (n, 4) float32, the outer edges x1, y1, x2, y2 of each mask; zeros of one without a pixel."""
    found = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(found, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return found
