"""One data module for every dataset, and the sampler that makes interrupted runs continue exactly."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from dvsn.data import presence
from dvsn.data.dataset import ImageDataset, Joined, split_parts
from dvsn.data.facts import DataFacts
from dvsn.data.files import Rule, deep_file, highest_deep, make_rule, read_by
from dvsn.data.holdings import Holdings
from dvsn.data.loading import Clocked, Loader
from dvsn.data.mixed import Ratios, Source, read_sources, require_alike, told
from dvsn.data.mixes import Mix, SampleMix
from dvsn.data.objects import JoinedObjects, ObjectDataset
from dvsn.data.people import JoinedPeople
from dvsn.data.presence import Mode
from dvsn.data.samplers import Sampler
from dvsn.data.shuffled import check_group, chosen, fold_of, keys_of, order
from dvsn.data.tiles import Tiled, read_tile
from dvsn.data.transforms import Pair, Transform, refuse_colour_steps
from dvsn.data.unlabelled import Unlabelled
from dvsn.data.views import Strong
from dvsn.errors import ConfigError, DataError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.portable import headers
from dvsn.portable.band_files import read_numbers
from dvsn.portable.bands import OPTIONS, make_bands, measured, spread
from dvsn.types import Vocabulary

log = logging.getLogger("dvsn")
Key = tuple[int, int]
Wanted = Literal["dataset", "people", "objects"]
WORDS = {"dataset": "pictures that belong together", "people": "keypoints", "objects": "boxes"}


class TrainBatches:
    """Batches of `(epoch, index)` keys: a pure function of seed, epoch and rank.

    Every epoch has a new order. A batch of the whole run is cut into strided slices, one a rank, so
    that the ranks together see exactly what one process would. With several ranks a last short batch is
    filled up from the start of the order until every rank has the same number of samples.

    `order` gives the `size` samples of an epoch by its number; None: a permutation of 0 to `size`.

    `start` skips the first batches of the epoch that is current at that time, and of no other. The epoch
    travels in the key because persistent workers never learn of it otherwise.
    """

    def __init__(
        self,
        *,
        size: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = False,
        order: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        self.order = order or self._permutation
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world, self.drop_last = rank, world, drop_last
        self.epoch, self.start = 0, 0
        self.sampler = self  # Lightning calls set_epoch on what it finds here

    def __len__(self) -> int:
        return self.size // self.batch_size if self.drop_last else -(-self.size // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(self.size)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, first = self.epoch, self.start
        self.start = 0
        yield from self.batches(epoch, self.order(epoch), first)

    def batches(self, epoch: int, order: np.ndarray, first: int) -> Iterator[list[Key]]:
        """Those of this rank in an epoch of that order, from the batch with the number `first` on."""
        for number in range(first, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            missing = -len(batch) % self.world
            batch = np.concatenate([batch, np.resize(order, missing)]) if missing else batch
            yield [(epoch, int(index)) for index in batch[self.rank :: self.world]]


class EvalBatches:
    """Every sample exactly once over all ranks, in order: strided and never padded.

    Padding would count some samples twice, and every metric would be slightly wrong.
    """

    def __init__(self, *, size: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.indices = range(rank, size, world)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        for first in range(0, len(self.indices), self.batch_size):
            yield [(0, index) for index in self.indices[first : first + self.batch_size]]


def rule_by(dataset: ImageDataset, rule: Rule, banded: str = "photo") -> ImageDataset:
    """The dataset, which reads its pictures by the rule from now on, and so do its parts; `banded` names the one of each
    item that the rule's bands are of."""
    for each in (dataset, *getattr(dataset, "parts", ())):
        each.rule, each.banded = rule, banded
    return dataset


LOOKED_AT, HEADERS = 64, 2000
"""16-bit pictures of a kind, evenly spread, that their range is measured on; and items whose headers say which these are (of
files called .jpg, which have 8 bits, no more than the former)."""
APART = 2
"""Bits by which the ranges of two kinds of pictures may differ before it is said."""


def measure_depth(*datasets: ImageDataset) -> tuple[int, int] | None:
    """0 and the highest value of the fewest bits, 8 to 16, that the 16-bit photos of the splits use; None of 8-bit photos.

    Of pairs each kind is looked at by itself; where the one uses far fewer bits than the other, a warning says so.
    """
    used: dict[int, tuple[int, Path]] = {}  # by kind: the most bits, and a file that uses them
    for dataset in datasets:
        kinds: dict[int, list[Path]] = {}
        few = set(range(0, len(dataset), max(1, len(dataset) // LOOKED_AT)))
        for place in sorted(few.union(range(0, len(dataset), max(1, len(dataset) // HEADERS)))):
            for kind, path in enumerate(dataset.photos(place)):
                if (place in few or path.suffix.lower() not in (".jpg", ".jpeg")) and deep_file(path):
                    kinds.setdefault(kind, []).append(path)
        for kind, files in kinds.items():
            for path in files[:: max(1, len(files) // LOOKED_AT)]:
                highest = getattr(dataset, "highest_deep", highest_deep)(path)
                bits = max(8, (highest or 0).bit_length())
                used[kind] = max(used.get(kind, (0, path)), (bits, path))
    if not used:
        return None
    (least, dark), (most, bright) = min(used.values()), max(used.values())
    if most - least >= APART:
        log.warning(
            "data.deep_range: 16-bit pictures such as %s use 0 to %d, others such as %s 0 to %d. One range holds for both, "
            "so that the first become dark; write them again with the range of the others",
            dark, (1 << least) - 1, bright, (1 << most) - 1,
        )  # fmt: skip
    return 0, (1 << most) - 1


def measure_ranges(dataset: ImageDataset, rule: Rule, *, skip: bool = False) -> Rule:
    """The rule with the ranges of its bands, measured on some pictures of a split, evenly spread; as it is where they are
    stated, or where all have 8 bits. With `skip` files that cannot be read are left out."""
    bands = rule.bands
    if bands is None or bands.ranges is not None or not len(dataset):
        return rule
    paths = [dataset.banded_photo(place) for place in range(0, len(dataset), -(-len(dataset) // LOOKED_AT))]
    pictures = []
    for path in paths:
        try:
            content = headers.read_picture(path, rule.max_pixels, bands=bands.stored)
            parts = read_numbers(path, content, bands, rule.max_pixels)
            # (1, pixels, n) each: the rest need not stay
            pictures.append([spread(part).copy()[None] for part in parts])
        except DataError:
            if not skip:
                raise
    if all(part.dtype == np.uint8 for parts in pictures for part in parts):
        return rule
    return dataclasses.replace(rule, bands=measured(pictures, bands))


def calm_opencv() -> None:
    """Ends OpenCV's threads, before processes are forked: a worker that inherits the lock of their pool waits for ever."""
    import cv2

    cv2.setNumThreads(0)


def start_worker(_: int) -> None:
    """One thread a worker; and Ctrl-C, which reaches the whole process group, is for the main process."""
    calm_opencv()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of samples, which must be of one size."""
    first = samples[0]
    pictures = [key for key, value in first.items() if isinstance(value, Tensor)]
    for sample in samples:
        if any(sample[key].shape != first[key].shape for key in pictures):
            listed = ", ".join(
                f"{item['name']} is {'x'.join(map(str, item['image'].shape[1:]))}" for item in (first, sample)
            )
            raise DataError(
                f"a batch needs pictures of one size (height x width) after the transform: {listed}. Choose a transform "
                "that resizes, such as transform=resize_256, or data.batch_size=1 and data.eval_batch_size=1."
            )
    return default_collate(samples)


def readers_of(dataset: Any, people: Any, objects: Any) -> dict[Wanted, Callable[..., ImageDataset] | None]:
    """The readers by what they read. Options without a class are those that a task sets for a reader that this data set has
    not."""
    given: dict[Wanted, Any] = {"dataset": dataset, "people": people, "objects": objects}
    return {kind: reader if callable(reader) else None for kind, reader in given.items()}


class DataModule(pl.LightningDataModule):
    """Train, validation and test loaders over any dataset of `dvsn.data`.

    - `dataset` (pictures and labels), `people` (keypoints) and `objects` (boxes and masks): reader classes with their
      options bound; the task chooses one by `use`. `setup` builds it once a split; the constructor opens no file.
    - `root`: the folder. `splits`: the data set's own names of train, val and test; several are joined by a plus sign, and
      ranges are written `all[:80%]`. With `split_seed` a range is one of the items in an order that this number shuffles,
      independent of the run's seed; items of one photo, and those in whose path `split_group` finds the same, are not parted
      (see `dvsn.data.shuffled`).
    - `batch_size`: the total over all devices, which must divide it. `eval_batch_size`: likewise, 1 by default so that
      pictures of different sizes need no padding. `train_samples`: only the first ones of the training split.
    - `fold`: which of `folds` parts of the split `train` is held back as val, in place of that split; what is left is
      trained on. Parts are made as ranges are, by `split_seed` (0 if it is null) and `split_group`; None: no parts.
    - `more`: further sets to train on, of the same classes (see `dvsn.data.mixed.read_sources`); validation is of the first.
    - `strong`: the strength of the view that the network is trained on, while its teacher sees the picture without (see
      `dvsn.data.views.Strong`); None: one view for both.
    - `tile`, `tile_overlap`: pictures are read as tiles of this size (H, W), see `dvsn.data.tiles`; None: whole.
    - `mix`: how training pictures are made of several (see `dvsn.data.mixes`); None: they are not.
    - `sampler`: which training samples an epoch holds, and how often; None: each once.
    - `transform`: two lists of albumentations steps, `train` and `eval`; for people and objects two objects that treat a
      sample.
    - `input_channels`, `output_channels`, `label_classes` and `classes` describe a sample to the networks, which are built
      before any data is opened; the first sample read is checked against them. A photo of one channel is its brightness.
      `classes` counts the classes of the target's ids, 0 where there are none; `joints` the `keypoints`; `object_classes`
      those of objects, with the background.
    - `facts`: what else is known of the data set, and is not used here.

    `bands`: how pictures of other bands than red, green and blue are read (`dvsn.portable.bands.OPTIONS`).

    `max_pixels` is the largest picture that is decoded; null: `dvsn.data.files.MAX_PIXELS`. `deep_range` is what becomes 0
    and 255 of pictures with 16 bits a channel; null: measured in training on some files, and kept in the recipe.

    `check_classes`: before training, labels are looked through until each class was seen in train and in val. A class that
    neither has is an error ("refuse") or a warning ("warn"); "skip" looks for none.

    A task says before `setup` what it learns (`learns`, kinds of arrays, such as photo and label), and may ask for more than
    pictures: `outlines` (see `Transform`).
    """

    ratios: Ratios | None = None
    _sampler_state: dict[str, Any] | None = None
    outlines: dict[str, int] | None = None
    learns: tuple[str, ...] | None = None
    test_split = "test"
    """Which split `trainer.test` measures."""
    position: Key = (0, 0)
    _resume: Key | None = None

    def __init__(
        self,
        *,
        root: str,
        dataset: Callable[..., ImageDataset] | None = None,
        people: Callable[..., ImageDataset] | None = None,
        objects: Callable[..., ImageDataset] | None = None,
        splits: dict[str, str],
        transform: dict[str, Any],
        pair: Pair,
        input_channels: int,
        output_channels: int,
        label_classes: int = 0,
        classes: int = 0,
        keypoints: KeypointSet | None = None,
        joints: int = 0,
        object_classes: int = 0,
        facts: DataFacts | None = None,
        batch_size: int = 1,
        eval_batch_size: int = 1,
        workers: int = 0,
        drop_last: bool = False,
        train_samples: int | None = None,
        split_seed: int | None = None,
        split_group: str | None = None,
        fold: int | None = None,
        folds: int = 5,
        tile: list[int] | int | None = None,
        tile_overlap: list[int] | int = 0,
        max_pixels: int | None = None,
        deep_range: list[int] | None = None,
        bands: dict[str, Any] | None = OPTIONS,
        check_classes: Mode = "refuse",
        sampler: Sampler | None = None,
        mix: Mix | None = None,
        more: list[dict[str, Any]] | None = None,
        strong: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.mix, self.sampler, self.more, self.strong = mix, sampler, list(more or ()), strong
        self.check_classes: Mode = check_classes
        read = make_bands(bands, 3 if label_classes else input_channels)
        self.rule = make_rule(max_pixels=max_pixels, deep_range=deep_range, bands=read)
        self._measured: dict[str, list[Any]] = {}
        self.root, self.splits, self.pair = root, splits, pair
        self.readers = readers_of(dataset, people, objects)
        self.wanted: Wanted = next((kind for kind, reader in self.readers.items() if reader), "dataset")
        self.input_channels, self.output_channels = input_channels, output_channels
        self.label_classes, self.classes, self.object_classes = label_classes, classes, object_classes
        self.keypoints, self.joints = keypoints, joints
        self.facts = facts or DataFacts()
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.workers, self.drop_last, self.seed = workers, drop_last, seed
        self.train_samples, self.tile = train_samples, read_tile(tile, tile_overlap)
        self.split_seed, self.split_group = split_seed, split_group
        self.fold, self.folds = fold, folds
        self.datasets: dict[str, ImageDataset] = {}
        self._check_options(transform)
        self.steps = {"train": transform.get("train") or [], "eval": transform["eval"] or []}

    def _check_options(self, transform: dict[str, Any]) -> None:
        """Raises `ConfigError` for options without a meaning."""
        if not isinstance(self.pair, Pair):
            raise ConfigError(
                f"data.pair: found {self.pair!r}, expected a node with _target_ dvsn.data.transforms.Pair, as data sets "
                "have."
            )
        if self.strong is not None:
            Strong(self.strong)
        self._check_loading(transform)
        self._check_parting()
        self._check_channels()
        self._check_classes()

    def _check_loading(self, transform: dict[str, Any]) -> None:
        if self.batch_size < 1 or self.eval_batch_size < 1:
            raise ConfigError(
                f"data.batch_size: found {self.batch_size} and {self.eval_batch_size}; both must be at least 1."
            )
        if self.workers < 0:
            raise ConfigError(f"data.workers: found {self.workers}, expected 0 or more.")
        if set(transform) - {"train", "eval"} or "eval" not in transform:
            raise ConfigError(f"transform: found keys {sorted(transform)}, expected 'train' and 'eval'.")

    def _check_parting(self) -> None:
        if self.split_seed is not None and (type(self.split_seed) is not int or self.split_seed < 0):
            raise ConfigError(f"data.split_seed: found {self.split_seed!r}, expected 0 or more, or null.")
        if self.fold is not None and self.folds < 2:
            raise ConfigError(f"data.folds: found {self.folds}, expected 2 or more.")
        if self.fold is not None and not 0 <= self.fold < self.folds:
            raise ConfigError(
                f"data.fold: found {self.fold}, expected a number from 0 to {self.folds - 1} (data.folds={self.folds}), "
                "or null."
            )
        if self.split_group is not None and self.split_seed is None and self.fold is None:
            raise ConfigError("data.split_group: parts shuffled items only. Set data.split_seed=0 as well.")
        check_group(self.split_group)

    def _check_channels(self) -> None:
        """Channels, labels and keypoints must agree with each other."""
        edges, labels, channels = self.pair.edges, self.label_classes, self.input_channels
        expected = labels + int(edges) if labels else channels
        if expected != channels:
            raise ConfigError(
                f"data.input_channels: found {channels}, but {labels} one-hot classes"
                f"{' and an edge channel' if edges else ''} make {expected}. Set data.input_channels={expected}."
            )
        if edges and not labels:
            raise ConfigError(
                "data.pair.edges: instance edges are an extra channel of one-hot labels, but data.label_classes "
                "is 0 (colour pictures). Use the one-hot variant of this data set, such as data=cityscapes_onehot."
            )
        if self.keypoints is not None and self.joints != len(self.keypoints):
            raise ConfigError(
                f"data.joints: found {self.joints}, but data.keypoints.names lists {len(self.keypoints)}. Set "
                f"data.joints={len(self.keypoints)}."
            )

    def use(self, wanted: Wanted) -> None:
        """Read this kind of samples. Raises `ConfigError` where the data set has none."""
        if self.readers[wanted] is None:
            there = [WORDS[kind] for kind, reader in self.readers.items() if reader]
            raise ConfigError(
                f"data.{wanted}: this data set has no {WORDS[wanted]}, which the task needs; it has "
                f"{' and '.join(there) or 'nothing'}. Choose another data=..."
            )
        if wanted != "dataset" and not self.label_classes and (self.input_channels != 3 or self.rule.bands):
            raise ConfigError(
                f"data.input_channels, data.bands: a task that reads {WORDS[wanted]} reads RGB alone. Set "
                "data.input_channels=3 and leave data.bands as it is."
            )
        self.wanted = wanted

    @property
    def reader(self) -> Callable[..., ImageDataset]:
        """The reader of the wanted kind."""
        self.use(self.wanted)
        reader = self.readers[self.wanted]
        assert reader is not None
        return reader

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The classes of the data set by its reader's options; None where it has none. Opens no file."""
        reader, counted = self.readers[self.wanted], {"dataset": self.classes, "objects": self.object_classes}
        if not isinstance(reader, functools.partial) or not counted.get(self.wanted):
            return None
        tell = getattr(reader.func, "vocabulary", None)
        return None if tell is None else tell(**reader.keywords)

    def _check_classes(self) -> None:
        vocabulary = self.vocabulary if self.wanted == "dataset" else None
        if vocabulary is not None and len(vocabulary.names) != self.classes:
            raise ConfigError(
                f"data.classes: found {self.classes}, but the data set has {len(vocabulary.names)} classes with these "
                f"options: {', '.join(vocabulary.names[:24])}. Set data.classes={len(vocabulary.names)}."
            )

    def open(self, split: str, *, augment: bool = False) -> ImageDataset:
        """The dataset of `train`, `val` or `test`, with or without augmentation. Touches the disk."""
        if split not in self.splits:
            raise ConfigError(f"split: found '{split}'; this data set has {', '.join(self.splits)}.")
        data = self._tiled(self._read_split(split, transform=self._transform(augment)), augment)
        if len(data) == 0:
            raise DataError(f"data.splits.{split}: the split '{self.splits[split]}' holds no sample.")
        self._check_target(getattr(data, "kinds", {}))
        names = getattr(data, "class_names", ())  # of a reader that finds its classes on the disk
        if names and len(names) != self.classes:
            raise ConfigError(
                f"data.classes: found {self.classes}, but {self.root} has {len(names)} classes: "
                f"{', '.join(names[:24])}{', ...' if len(names) > 24 else ''}. Set data.classes={len(names)}."
            )
        if augment and self.more:
            data = self._with_more(data)
        if augment and isinstance(self.mix, SampleMix):
            self.mix.size = self.train_samples
            data.mix = self.mix
        sample = data[0]
        if self.wanted == "dataset":
            self._check(sample, data.describe(0))
        return data

    def read(self, split: str, *, transform: Any = None, source: Source | None = None) -> ImageDataset:
        """What the reader makes of a split by the data set's own name: one, several joined by +, or ranges of them; with
        `source` of that further set."""
        given = {"transform": transform, "seed": self.seed}
        if self.wanted == "people":
            if self.keypoints is None:
                raise ConfigError("data.keypoints: not given; a data set of people needs their names.")
            given["keypoints"] = self.keypoints
        asked = split_parts(split)
        self._check_bands()
        reader, root = (self.reader, self.root) if source is None else (source.reader, source.root)
        with read_by(self.rule):
            parts = [reader(root=root, split=name, **given) for name, _, _ in asked]
        if len(parts) == 1 and asked[0][1:] == (0, 100):
            return rule_by(parts[0], self.rule, self.pair.source)
        places = [self._range(part, first, last) for part, (_, first, last) in zip(parts, asked, strict=True)]
        return self._joined(parts, places)

    def _check_bands(self) -> None:
        """Refuse bands of a reader, and of options, that are for RGB alone."""
        if self.strong is not None and (self.rule.bands is not None or self.input_channels != 3):
            raise ConfigError(
                f"data.strong: changes the colours of RGB, found data.input_channels={self.input_channels}. Set "
                "data.strong=null."
            )
        if self.rule.bands is None:
            return
        kind = self.reader.func if isinstance(self.reader, functools.partial) else self.reader
        if not getattr(kind, "takes_bands", False):
            raise ConfigError(
                f"data.input_channels, data.bands: {getattr(kind, '__name__', kind)} reads RGB alone. Bands are read by "
                "data=segmentation, imagefolder, folders, and the published sets of segmentation."
            )

    def _joined(self, parts: Sequence[ImageDataset], places: Sequence[Sequence[int]]) -> ImageDataset:
        """These items of the parts as one data set."""
        join = {"people": JoinedPeople, "objects": JoinedObjects}.get(self.wanted, Joined)
        return rule_by(join(parts, places), self.rule, self.pair.source)  # type: ignore[arg-type]

    @property
    def has_unlabelled(self) -> bool:
        """Whether training has pictures without labels."""
        return any(isinstance(each, Mapping) and each.get("unlabelled") for each in self.more)

    def _with_more(self, first: ImageDataset) -> ImageDataset:
        """The training split joined with those of `more`, and how many samples an epoch has of each."""
        sources = read_sources(
            self.more, self.readers[self.wanted], split=self.splits["train"], kind=self.wanted
        )
        ratios = [source.ratio for source in sources]
        if self.sampler is not None and (self.has_unlabelled or any(ratio is not None for ratio in ratios)):
            raise ConfigError(
                "data.more: a sampler chooses among all samples, by their labels or losses: ratios would be a second "
                "choice, and unlabelled pictures have none. Set sampler=null, or leave both out."
            )
        if self.train_samples is not None:
            raise ConfigError(
                f"data.train_samples: found {self.train_samples} with data.more, of which it would leave nothing. Set "
                "data.train_samples=null and splits such as train[:50%], or ratios below 1."
            )
        parts = [first]
        for source in sources:
            if source.unlabelled and self.rule.bands is not None:
                raise ConfigError(
                    "data.more: unlabelled pictures are read as RGB, not as other bands. Leave them out."
                )
            if source.unlabelled:
                if self.wanted != "dataset":
                    raise ConfigError(
                        "data.more: unlabelled pictures are for classes of pictures or pixels. Leave them out."
                    )
                given: dict[str, Any] = {"like": first, "source": self.pair.source, "seed": self.seed}
                unlabelled = Unlabelled(root=source.root, transform=first.transform, **given)
                parts.append(self._tiled(rule_by(unlabelled, self.rule, self.pair.source), augment=True))
                continue
            other = self.read(source.split, transform=first.transform, source=source)
            if len(other) == 0:
                raise DataError(f"data.more: the split '{source.split}' of {source.root} holds no sample.")
            require_alike(first, other, source, self.reader)
            parts.append(self._tiled(other, augment=True))
        self.ratios = Ratios([len(part) for part in parts], ratios)
        log.info("data.more: an epoch has %s", told(sources, self.root, self.ratios.counts))
        return self._joined(parts, [range(len(part)) for part in parts])

    def _read_split(self, split: str, *, transform: Any) -> ImageDataset:
        """`train`, `val` or `test`; with `fold`, the first two are the parts of `train` outside and inside of it."""
        if self.fold is None or split not in ("train", "val"):
            return self.read(self.splits[split], transform=transform)
        whole = self.read(self.splits["train"], transform=transform)
        keys, classes = keys_of(whole, self.root), getattr(whole, "targets", None)
        made = order(keys, seed=self.split_seed or 0, group=self.split_group, classes=classes)
        rest, held = fold_of(made, self.fold, self.folds)
        return self._joined([whole], [rest if split == "train" else held])

    def _tiled(self, data: ImageDataset, augment: bool) -> ImageDataset:
        """The tiles of the pictures, where `tile` asks for them: at random places in training, else on the grid."""
        if self.tile is None:
            return data
        if self.wanted != "dataset":
            raise ConfigError(
                f"data.tile: cuts pictures and label maps, not {WORDS[self.wanted]}. Set data.tile=null."
            )
        size, overlap = self.tile
        name = self.pair.target
        ids = bool(self.classes) and data.kinds.get(name) == "label" and name not in data.palettes
        if any(overlap) and not ids:
            raise ConfigError(
                "data.tile_overlap: only class ids can be ignored where tiles overlap. Set data.tile_overlap=0."
            )
        tiles = Tiled(data, size=size, overlap=overlap, target=name if ids else None, random=augment)
        return rule_by(tiles, self.rule, self.pair.source)

    def _range(self, part: ImageDataset, first: int, last: int) -> Sequence[int]:
        """The items from `first` to `last` percent of a split: in its own order, or as `split_seed` shuffles them."""
        if self.split_seed is None or (first, last) == (0, 100):
            return range(len(part) * first // 100, len(part) * last // 100)
        classes = getattr(part, "targets", None)
        made = order(keys_of(part, self.root), seed=self.split_seed, group=self.split_group, classes=classes)
        return chosen(made, first, last)

    def _transform(self, augment: bool) -> Any:
        """What treats a sample: the steps over all pictures, or the transform's own object."""
        steps = self.steps["train" if augment else "eval"]
        if self.wanted != "dataset":
            if not callable(steps):
                raise ConfigError(
                    f"transform: has steps for pictures, and the task reads {WORDS[self.wanted]}. Choose another "
                    f"transform=..., such as {'pose' if self.wanted == 'people' else 'detection'}."
                )
            steps = copy.copy(steps)
            if hasattr(steps, "keypoints"):
                steps.keypoints = self.keypoints
            return steps
        if callable(steps):
            raise ConfigError(
                f"transform: {type(steps).__name__} does not treat pictures that belong together. Choose another "
                "transform=..."
            )
        vocabulary = self.vocabulary
        if not self.label_classes:
            refuse_colour_steps(steps, self.input_channels)
        return Transform(
            steps=list(steps),
            pair=self.pair,
            label_classes=self.label_classes,
            outlines=self.outlines if augment else None,
            swaps=vocabulary.swaps if vocabulary else (),
            strong=self.strong if augment else None,
            grey=self._grey(),
        )

    def _grey(self) -> list[str]:
        """The photos of a pair that are read as their brightness: those of one channel."""
        counts = {
            self.pair.source: 0 if self.label_classes or self.rule.bands else self.input_channels,
            self.pair.target: self.output_channels,
        }
        return [name for name, count in counts.items() if count == 1]

    def _check_target(self, kinds: Mapping[str, str]) -> None:
        """Refuse a target that the task does not learn, of a reader whose class does not say what it gives."""
        kind, learns = kinds.get(self.pair.target), self.learns
        if self.wanted != "dataset" or learns is None or kind is None or kind in learns:
            return
        fitting = [name for name, each in kinds.items() if each in learns and name != self.pair.source]
        advice = (
            f"Set data.pair.target={fitting[0]}" if fitting else "Choose another data set, or another task"
        )
        raise ConfigError(
            f"data.pair.target: '{self.pair.target}' is a {kind} in {self.root}, and the task learns a "
            f"{' or a '.join(learns)}. {advice}."
        )

    def _check(self, sample: dict[str, Any], files: str) -> None:
        channels = self.input_channels if not self.label_classes else 1 + int(self.pair.edges)
        for key, expected in (("image", channels), ("target", self.output_channels)):
            if not isinstance(sample[key], Tensor):
                continue  # a number
            found = int(sample[key].shape[0])
            if found != expected:
                option = "input" if key == "image" else "output"
                raise DataError(
                    f"{files}: '{key}' has {found} channels, expected {expected}. Set data.{option}_channels={found}, "
                    "or data.label_classes for a map of label ids."
                )

    def setup(self, stage: str) -> None:
        world = self.trainer.world_size if self.trainer else 1
        if stage == "fit" and self.batch_size % world:
            raise ConfigError(
                f"data.batch_size: {self.batch_size} is the total over devices and does not divide by {world} of them. "
                f"Set data.batch_size={world * max(1, self.batch_size // world)} or another multiple of {world}."
            )
        if stage == "fit":
            self._measure_bands()
            self.datasets = {"train": self.open("train", augment=True), "val": self.open("val")}
            self._measure_depth()
            self._keep_measured()
            self._check_presence()
        elif stage == "validate":
            self.datasets = {"val": self.open("val")}
        elif stage == "test":
            self.datasets = {"test": self.open(self.test_split)}

    def measure_bands(self, *, skip: bool = False) -> bool:
        """Measures the ranges of bands on the training split, where nobody has stated them; whether it did. With `skip` what
        cannot be read is left out, and a split that cannot be opened measures nothing."""
        before = self.rule
        if before.bands is not None and before.bands.ranges is None:
            with contextlib.suppress(*((DataError, OSError) if skip else ())):
                self.rule = measure_ranges(self._read_split("train", transform=None), before, skip=skip)
        return self.rule is not before

    def _measure_bands(self) -> None:
        """The same, said."""
        if not self.measure_bands():
            return
        assert self.rule.bands is not None and self.rule.bands.ranges is not None
        ranges = [list(pair) for pair in self.rule.bands.ranges]
        log.info("data.bands.range: measured on train, %s become 0 to 255; kept in the checkpoint", ranges)
        self._measured = {"bands": ranges}

    def _measure_depth(self) -> None:
        """The range of 16-bit pictures, where nobody has stated one: measured and said."""
        if self.rule.deep_range is not None or self.rule.bands is not None:
            return
        found = measure_depth(*self.datasets.values())
        if found is None:
            return
        log.info(
            "data.deep_range: the pictures have 16 bits a channel and use 0 to %d; this range becomes 0 to 255, and is kept "
            "in the checkpoint", found[1],
        )  # fmt: skip
        self.rule = dataclasses.replace(self.rule, deep_range=found)
        for dataset in self.datasets.values():
            rule_by(dataset, self.rule, self.pair.source)
        self._measured = {"deep_range": list(found)}

    def _keep_measured(self) -> None:
        """What was measured becomes part of the recipe of the task that is trained, also where it was measured before there
        was a trainer, as with a teacher."""
        task: Any = getattr(self.trainer, "lightning_module", None)
        if not self._measured or not hasattr(task, "data_recipe"):
            return
        kept: dict[str, Any] = dict(self._measured)
        if "bands" in kept:
            kept = {"bands": {**(task.data_recipe.get("bands") or {}), "range": kept["bands"]}}
        task.data_recipe = {**task.data_recipe, **kept}

    def _check_presence(self) -> None:
        """Refuse to train where nothing counts or a class is nowhere: see `dvsn.data.presence`."""
        train, val = self.datasets["train"], self.datasets["val"]
        if self.has_unlabelled:
            train = train.parts[0]  # type: ignore[attr-defined]
        if self.wanted == "objects":
            assert isinstance(train, ObjectDataset) and isinstance(val, ObjectDataset)
            presence.check_objects(train, val)
        if self.wanted == "people":
            assert isinstance(train, presence.People) and isinstance(val, presence.People)
            presence.check_keypoints(train, val, where=str(self.root))
        if self.wanted != "dataset" or not self.classes or self.check_classes == "skip":
            return
        target, where = self.pair.target, str(self.root)
        vocabulary = self.vocabulary
        names = vocabulary.names if vocabulary else getattr(train, "class_names", ())
        names = names or tuple(f"class {number}" for number in range(self.classes))
        if train.kinds.get(target) == "number" and hasattr(train, "targets") and hasattr(val, "targets"):
            presence.check_numbers_of_classes(
                train.targets, val.targets, names, mode=self.check_classes, where=where
            )
        elif train.kinds.get(target) == "label" and target not in train.palettes:
            learnt, measured = (presence.Seen(dataset, target, self.classes) for dataset in (train, val))
            presence.look_for_classes(learnt, measured)
            presence.check_pixels_of_classes(learnt, measured, names, mode=self.check_classes, where=where)

    def _loader(self, split: str, batches: Any) -> DataLoader[Any]:
        if self.workers:
            calm_opencv()
        data = self.datasets[split]
        clocked = Clocked(data, getattr(data, "collate", collate), workers=self.workers)
        return Loader(
            clocked,
            batch_sampler=batches,
            collate_fn=clocked.collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=bool(self.trainer and self.trainer.strategy.root_device.type == "cuda"),
            worker_init_fn=start_worker,
        )

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        size = min(len(self.datasets["train"]), self.train_samples or sys.maxsize)
        chooser = self.sampler or self.ratios
        if self.sampler is not None:
            self._prepared(self.sampler, size)
        batches = self._train_batches(
            None if chooser is None else functools.partial(chooser.order, seed=self.seed),
            size=size if chooser is None else chooser.length,
            batch_size=self.batch_size,
            seed=self.seed,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
            drop_last=self.drop_last,
        )
        if len(batches) == 0:
            raise ConfigError(
                f"data.batch_size: {self.batch_size} is more than the {batches.size} training samples and "
                "data.drop_last drops the only batch. Set data.drop_last=false or a smaller batch."
            )
        if self._resume is not None:
            # The iterator is made before Lightning calls set_epoch, so the place must be known here.
            batches.epoch, batches.start = self._resume
            self._resume = None
        return self._loader("train", batches)

    def _train_batches(self, chosen: Callable[[int], np.ndarray] | None, **options: Any) -> TrainBatches:
        """The batches of training, in an order that a sampler has `chosen`, or None has."""
        return TrainBatches(order=chosen, **options)

    def _eval_batches(self, split: str, **options: Any) -> EvalBatches:
        """The batches of an evaluation of `split`."""
        return EvalBatches(**options)

    def _prepared(self, sampler: Sampler, size: int) -> Sampler:
        """The sampler, which knows the first `size` training samples, and where a resumed run goes on."""
        sampler.prepare(self.datasets["train"], size, self._holdings())
        if self._sampler_state is not None:
            sampler.load_state_dict(self._sampler_state)
            self._sampler_state = None
        if sampler.length != size:
            log.info("sampler: an epoch has %d samples, of %d in train", sampler.length, size)
        return sampler

    def _holdings(self) -> Holdings:
        """The classes of the training samples; without names where they hold none."""
        train, label = self.datasets["train"], self.pair.target
        names: Sequence[str] = ()
        if isinstance(train, ObjectDataset):
            names = [train.categories.get(number, f"class {number}") for number in range(1, train.classes)]
        elif self.wanted == "dataset" and self.classes:
            numbers = train.kinds.get(label) == "number" and hasattr(train, "targets")
            if numbers or (train.kinds.get(label) == "label" and label not in train.palettes):
                names = self.vocabulary.names if self.vocabulary else getattr(train, "class_names", ())
                names = names or [f"class {number}" for number in range(self.classes)]
        return Holdings(train, label=label, names=names)

    def _eval_loader(self, split: str) -> DataLoader[Any]:
        assert self.trainer is not None
        world, rank = self.trainer.world_size, self.trainer.global_rank
        size = max(1, self.eval_batch_size // world)
        batches = self._eval_batches(
            split, size=len(self.datasets[split]), batch_size=size, rank=rank, world=world
        )
        return self._loader(split, batches)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self._eval_loader("test")

    def state_dict(self) -> dict[str, Any]:
        """Where the next training batch comes from: its epoch, its number in that epoch, and what the sampler knows."""
        own = {"epoch": self.position[0], "batch": self.position[1]}
        known = {} if self.sampler is None else self.sampler.state_dict()
        return {**own, "sampler": known} if known else own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._resume = (int(state["epoch"]), int(state["batch"]))
        self._sampler_state = state.get("sampler")
        self.position = self._resume
