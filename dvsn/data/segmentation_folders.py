"""One's own segmentation set: two folders or a list, and what the labels' ids or colours mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from dvsn.data.class_ids import RGB, ClassIds, ColorIds, distinct_palette, shorten
from dvsn.data.files import read_colors, read_grey, read_labels, require_folder
from dvsn.data.folders import ALL, find_folders, match
from dvsn.data.labelled import ADVICE, LabelledPhotos, Labels, existing_pairs, listed_pairs, named_pairs
from dvsn.errors import ConfigError, nearest
from dvsn.types import IGNORE, Sample, Vocabulary

TREE = """\
    ROOT/{split}/images/NAME.jpg + ROOT/{split}/labels/NAME.png, or the lines 'photo label' of a list file"""

SOFT = (
    "Of two classes data.dataset.threshold=128 parts them by their brightness; with data.dataset.nearest=true each pixel is "
    "the nearest id that is known."
)


class SegmentationFolders(LabelledPhotos):
    """Photos and labels of any classes, from two folders whose files match by stem, or from a list.

    `names` are the classes in the order of their ids, `palette` an RGB colour for each (a usual one if null),
    `swaps` pairs of names that a mirror exchanges. What label files hold:

    - ids, that of a class being its place in `names`. Ids in `ignore_ids` are ignored, all others an error;
    - other ids, with `id_map` from each file id to its class id, or to null (or 255) where ignored. Ids that the
      map does not name are an error unless in `ignore_ids`; what it names, it decides, 255 too;
    - colours, with `colors`: each class as its `palette` colour exactly. Pixels of `ignore_colors` are ignored;
      other colours are an error, unless they are less than the share `stray` of a picture, and then ignored;
    - soft masks of two classes, with `threshold`: brightness 0 to 255, from which on a pixel belongs to the second;
    - JPEG files and such as were interpolated, with `nearest`: each pixel is the nearest colour, or the nearest id.

    Files: with `photos` and `masks` as names of folders ROOT/SPLIT/FOLDER, ROOT/FOLDER/SPLIT or ROOT/SPLITFOLDER;
    of a split called all also ROOT/FOLDER; `photo_ending` and `label_ending` are what their names have in addition, such
    as _sat and _mask, or .jpg and _mask.png: with one of them, photos and masks may lie in one folder, "." for both. Files
    without a partner are an error, or passed over with `skip_lonely`. With `lists`, such as
    ImageSets/Segmentation/{split}.txt, the folders are of all splits, and a list names the photos of each, without their
    endings; what no list names is passed over. Or `list_file`, "photo label" lines.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str,
        names: Sequence[str],
        labels: Labels = "classes",
        palette: Sequence[Sequence[int]] | None = None,
        swaps: Sequence[Sequence[str]] = (),
        photos: str = "images",
        masks: str = "labels",
        photo_ending: str = "",
        label_ending: str = "",
        skip_lonely: bool = False,
        lists: str | None = None,
        list_file: str | None = None,
        id_map: Mapping[int, int | None] | None = None,
        ignore_ids: Sequence[int] = (255,),
        colors: bool = False,
        ignore_colors: Sequence[Sequence[int]] = (),
        stray: float = 0.0,
        threshold: int | None = None,
        nearest: bool = False,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        vocabulary = self.vocabulary(names=names, palette=palette, swaps=swaps, id_map=id_map)
        if colors and (palette is None or id_map is not None):
            raise ConfigError(
                "data.dataset.colors: labels in colours need data.dataset.palette, a colour for each class, and "
                "take no id_map. Colours to ignore are listed in data.dataset.ignore_colors."
            )
        check_threshold(threshold, len(names), exclusive=colors or nearest or id_map is not None)
        super().__init__(vocabulary=vocabulary, labels=labels, transform=transform, seed=seed)
        base = require_folder(root, expected=TREE, option="data.root")
        if list_file is not None:
            if lists is not None:
                raise ConfigError("data.dataset: found lists and list_file, expected one of them.")
            self.pairs = existing_pairs(listed_pairs(base, list_file, split), base, tree=TREE)
        else:
            where = ALL if lists is not None else split
            folders = find_folders(
                root, where, photos, masks, options="data.dataset.photos, data.dataset.masks"
            )
            listed = lists is not None
            self.pairs = match(*folders, endings=(photo_ending, label_ending), skip=skip_lonely or listed)
            if lists is not None:
                self.pairs = named_pairs(
                    base, lists, split, self.pairs, photos=folders[0], ending=photo_ending
                )
        self.threshold, self.nearest = threshold, nearest
        self.color_ids = color_ids(vocabulary, ignore_colors, stray, nearest) if colors else None
        self.class_ids = class_ids(vocabulary.names, id_map, ignore_ids, nearest)

    @classmethod
    def vocabulary(
        cls,
        *,
        names: Sequence[str],
        palette: Sequence[Sequence[int]] | None = None,
        swaps: Sequence[Sequence[str]] = (),
        id_map: Mapping[int, int | None] | None = None,
        **_: object,
    ) -> Vocabulary:
        """The classes as the options name them; where `id_map` gives each a file id, results can be written with it."""
        if not 1 <= len(names) <= 255 or len(set(names)) < len(names):
            raise ConfigError(
                f"data.dataset.names: found {len(names)} names, {len(set(names))} of them different; expected 1 to "
                "255 different ones, since 255 stands for ignored pixels."
            )
        first = 0 if names[0] == "background" else 1  # number 0 is black
        usual = (
            ((0, 0, 0), (255, 255, 255))
            if not first and len(names) == 2
            else distinct_palette(len(names), first=first)
        )
        colors = usual if palette is None else tuple(map(_rgb, palette))
        if len(colors) != len(names):
            raise ConfigError(
                f"data.dataset.palette: found {len(colors)} colours for {len(names)} names, expected one each."
            )
        return Vocabulary(
            tuple(names), colors, tuple(_swap(pair, names) for pair in swaps), own_ids(len(names), id_map)
        )

    def read_classes(self, path: Path) -> np.ndarray:
        """(H, W) uint8 class ids of one label file."""
        if self.threshold is not None:
            return (read_grey(path) >= self.threshold).astype(np.uint8)
        if self.color_ids is not None:
            return self.color_ids(read_colors(path), path)
        ids = read_labels(path, advice=ADVICE, lossy=self.nearest, lossy_advice=SOFT)
        return self.class_ids(ids, path)


def own_ids(classes: int, id_map: Mapping[int, int | None] | None) -> tuple[int, ...]:
    """The file id of each class, the lowest of several; () without a map, or where it is not for each."""
    found: dict[int, int] = {}
    for key, value in sorted((id_map or {}).items(), reverse=True):
        if value is not None and str(key).isdecimal():
            found[value] = int(key)
    return tuple(found[number] for number in range(classes)) if set(range(classes)) <= found.keys() else ()


def class_ids(
    names: Sequence[str],
    id_map: Mapping[int, int | None] | None = None,
    ignore_ids: Sequence[int] = (),
    nearest: bool = False,
) -> ClassIds:
    """What the ids of the files mean: a class's place in `names`, or what `id_map` says."""
    class_of: dict[int, int] = {}
    for key, value in enumerate(range(len(names))) if id_map is None else id_map.items():
        each = IGNORE if value is None else value
        if not str(key).isdecimal() or (each != IGNORE and not 0 <= each < len(names)):
            raise ConfigError(
                f"data.dataset.id_map: found {key}: {value}; expected a file id (0 or more) and the id of a class "
                f"(0 to {len(names) - 1}), or null to ignore it."
            )
        class_of[int(key)] = each
    if id_map is not None and not set(range(len(names))) <= set(class_of.values()):
        absent = [name for number, name in enumerate(names) if number not in class_of.values()]
        raise ConfigError(f"data.dataset.id_map: no file id becomes {', '.join(absent)}.")
    return ClassIds(
        class_of,
        kind=f"0..{len(names) - 1}" if id_map is None else "data.dataset.id_map",
        names=names,
        ignore_ids=[each for each in ignore_ids if id_map is None or each not in class_of],
        advice="To make classes of them set data.dataset.id_map={FILE_ID: CLASS_ID, ...}"
        + (", for masks of 0 and 255 data.dataset.id_map={0: 0, 255: 1}." if len(names) == 2 else "."),
        soft=SOFT,
        nearest=nearest,
    )


def color_ids(
    vocabulary: Vocabulary,
    ignore_colors: Sequence[Sequence[int]] = (),
    stray: float = 0.0,
    nearest: bool = False,
) -> ColorIds:
    """What the colours of the files mean."""
    ignored = [_rgb(color) for color in ignore_colors]
    id_of = {color: number for number, color in enumerate(vocabulary.palette)}
    if len(id_of) < len(vocabulary.palette) or id_of.keys() & set(ignored):
        raise ConfigError(
            "data.dataset.palette: a colour stands for two classes, or for a class and in ignore_colors; with "
            "data.dataset.colors each must be another one."
        )
    pairs = zip(vocabulary.names, vocabulary.palette, strict=True)
    listed = shorten([f"{name} {color}" for name, color in pairs])
    return ColorIds(
        id_of | dict.fromkeys(ignored, IGNORE),
        default=IGNORE,
        stray=stray,
        known=f"data.dataset.palette ({listed}) and ignore_colors",
        nearest=nearest,
        advice="With data.dataset.nearest=true each pixel is the nearest of these colours.",
    )


def check_threshold(threshold: int | None, classes: int, *, exclusive: bool) -> None:
    """Raise `ConfigError` for a threshold that parts nothing, or that stands beside another way to read masks."""
    if threshold is None:
        return
    if type(threshold) is not int or not 1 <= threshold <= 255:
        raise ConfigError(
            f"data.dataset.threshold: found {threshold!r}, expected a brightness of 1 to 255, such as 128."
        )
    if classes != 2 or exclusive:
        raise ConfigError(
            f"data.dataset.threshold: parts two classes by their brightness, and takes no colors, id_map or nearest; found "
            f"{classes} names{' and one of these' if exclusive else ''}."
        )


def _rgb(color: Sequence[int]) -> RGB:
    if len(color) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in color):
        raise ConfigError(f"data.dataset.palette: found {color}, expected [RED, GREEN, BLUE], each 0 to 255.")
    return color[0], color[1], color[2]


def _swap(pair: Sequence[str], names: Sequence[str]) -> tuple[int, int]:
    for name in pair:
        if name not in names:
            raise ConfigError(f"data.dataset.swaps: found '{name}'. {nearest(name, names)}")
    if len(pair) != 2:
        raise ConfigError(f"data.dataset.swaps: found {list(pair)}, expected pairs of names.")
    return names.index(pair[0]), names.index(pair[1])
