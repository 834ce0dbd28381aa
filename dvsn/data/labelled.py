"""What the readers of segmentation sets share: pairs of a photo and a map of ids, from folders or from lists."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, ClassVar, Literal

import numpy as np

from dvsn.data.class_ids import ClassIds, palette_table
from dvsn.data.dataset import ImageDataset
from dvsn.data.files import SUFFIXES, check_pixels, read_labels, read_rgb, require_file, unique_names
from dvsn.data.folders import stem_of
from dvsn.errors import ConfigError, DataError, nearest
from dvsn.reading import read_rows, read_text, require_regular
from dvsn.types import Sample, Vocabulary

Labels = Literal["classes", "color"]


class PairedPhotos(ImageDataset):
    """Photos with a label file each. A reader sets `pairs` and reads a label by `read_classes`.

    A sample: `photo` (H, W, 3) uint8 RGB and `label`.
    """

    gives: ClassVar[dict[str, str]] = {"photo": "photo", "label": "label"}
    takes_bands: ClassVar[bool] = True
    pairs: list[tuple[Path, Path]]

    def __init__(self, *, transform: Callable[[Sample, int], Sample] | None, seed: int) -> None:
        self.kinds = dict(self.gives)
        super().__init__(transform=transform, seed=seed)

    @cached_property
    def names(self) -> list[str]:
        """A name for each item."""
        return unique_names(photo for photo, _ in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def describe(self, index: int) -> str:
        return " + ".join(map(str, self.pairs[index]))

    def photos(self, index: int) -> list[Path]:
        return [self.pairs[index][0]]

    def name(self, index: int) -> str:
        return self.names[index]

    def read_label(self, index: int, name: str) -> np.ndarray:
        return self.read_classes(self.pairs[index][1]) if name == "label" else super().read_label(index, name)

    def read(self, index: int) -> Sample:
        photo, label = self.pairs[index]
        return {"photo": read_rgb(photo), "label": self.read_classes(label)}

    def read_classes(self, path: Path) -> np.ndarray:
        """The label of one file, as the options ask for it."""
        raise NotImplementedError


class LabelledPhotos(PairedPhotos):
    """Photos with a map of classes each. A reader sets `pairs` and `class_ids` and tells its `vocabulary`.

    A sample: `photo` (H, W, 3) uint8 RGB and `label`. `labels="classes"` gives (H, W) uint8 class ids with 255
    where ignored, "color" the same painted (H, W, 3) in the colours of the vocabulary, ignored pixels black.
    """

    class_ids: ClassIds
    matlab_variable: ClassVar[str] = ""
    """The matrix of label files of MATLAB, where a reader takes such files by its `matlab_ids`."""
    matlab_ids: ClassIds

    def __init__(
        self,
        *,
        vocabulary: Vocabulary,
        labels: Labels,
        transform: Callable[[Sample, int], Sample] | None,
        seed: int,
    ) -> None:
        check_choices({"labels": (labels, ("classes", "color"))})
        self.palettes = {"label": palette_table(vocabulary.palette)} if labels == "color" else {}
        super().__init__(transform=transform, seed=seed)

    def read_classes(self, path: Path) -> np.ndarray:
        """(H, W) uint8 class ids of one label file."""
        if self.matlab_variable and path.suffix == ".mat":
            return self.matlab_ids(read_matlab(path, variable=self.matlab_variable), path)
        return self.class_ids(read_labels(path, advice=ADVICE), path)


ADVICE = "Colour-coded labels are read by data=segmentation with data.dataset.colors=true and their palette."


def check_choices(options: dict[str, tuple[Any, Collection[Any]]], *, node: str = "data.dataset") -> None:
    """Raise `ConfigError` for the first option whose value is none of its choices."""
    for option, (value, choices) in options.items():
        if value not in choices:
            raise ConfigError(f"{node}.{option}: found '{value}'. {nearest(str(value), choices)}")


def listed_pairs(
    root: str | Path, list_file: str, split: str, *, columns: Collection[int] = (2,)
) -> list[tuple[Path, Path]]:
    """Photo and label, the first two columns of a list's lines; paths relative to `root`, or absolute.

    Columns are separated by blanks, tabs or commas; a name with blanks in it stands in quotes.

    `list_file` lies in `root` (or is absolute) and holds `{split}`, which stands for the split's name.
    """
    if "{split}" not in list_file:
        raise ConfigError(
            f"data.dataset.list_file: found '{list_file}', expected a name with {{split}} in it, such as "
            "{split}.list: with one list for every split, validation would repeat the training data."
        )
    root = Path(root)
    path = require_file(
        root / list_file.replace("{split}", split),
        expected=f"    ROOT/{list_file} with 'photo label' a line, both relative to ROOT",
        option="data.root and data.dataset.list_file",
    )
    rows = read_rows(path, columns=columns, expected="a list of file names")
    for number, row in rows:
        if len(row) not in columns:
            raise DataError(
                f"{path}: line {number} has {len(row)} names, expected 'photo label'"
                f"{' (and a mirrored label)' if 3 in columns else ''}, separated by blanks, a tab or a comma in every "
                'line. A name with blanks stands in quotes: "my photo.jpg".'
            )
    if not rows:
        raise DataError(f"{path}: the list is empty, expected 'photo label' a line.")
    return [(root / row[0], root / row[1]) for _, row in rows]


def names_in(path: Path) -> list[str]:
    """The names of a list, one a line, without the endings of pictures; blanks may be in them."""
    lines = [line.strip() for line in read_text(path, expected="a list of names").splitlines()]
    return [
        line.removesuffix(end) if (end := PurePath(line).suffix).lower() in SUFFIXES else line
        for line in lines
        if line
    ]


def places_by_name(photos: Iterable[PurePath], folder: PurePath, ending: str) -> dict[str, int]:
    """The place of each photo by its name below `folder`, without its ending, as lists of names have it."""
    stems = [stem_of(photo, ending) for photo in photos]
    return {
        stem.relative_to(folder).as_posix(): place for place, stem in enumerate(stems) if stem is not None
    }


def named_pairs(
    root: Path, lists: str, split: str, pairs: list[tuple[Path, Path]], *, photos: Path, ending: str
) -> list[tuple[Path, Path]]:
    """Those of the pairs that the list of a split names, in its order. A name is that of a photo below its folder `photos`,
    without its ending. `lists` lies in `root` and holds `{split}`."""
    if "{split}" not in lists:
        raise ConfigError(
            f"data.dataset.lists: found '{lists}', expected a name with {{split}} in it, such as "
            "ImageSets/Segmentation/{split}.txt."
        )
    path = require_file(
        root / lists.replace("{split}", split),
        expected=f"    ROOT/{lists} with the name of a photo a line",
        option="data.root and data.dataset.lists",
    )
    known = places_by_name([photo for photo, _ in pairs], photos, ending)
    names = names_in(path)
    missing = [name for name in names if name not in known]
    if missing or not names:
        found = f"no photo with a mask for {', '.join(missing[:3])}" if missing else "no name"
        if len(missing) > 3:
            found += f" and {len(missing) - 3} more"
        raise DataError(f"{path}: found {found}; expected names of pictures below {photos}, one a line.")
    return [pairs[known[name]] for name in names]


def existing_pairs(pairs: list[tuple[Path, Path]], where: Path, *, tree: str) -> list[tuple[Path, Path]]:
    """The pairs, after one look into each folder that they name; a `DataError` names what is missing."""
    if not pairs:
        raise DataError(f"{where}: this split is empty. Expected this tree:\n{tree}")
    folders = {path.parent for pair in pairs for path in pair}
    names = {
        folder: {each.name for each in folder.iterdir()} if folder.is_dir() else set() for folder in folders
    }
    missing = [
        (path, other)
        for photo, label in pairs
        for path, other in ((photo, label), (label, photo))
        if path.name not in names[path.parent]
    ]
    if missing:
        path, other = missing[0]
        more = f"; {len(missing) - 1} more files are missing" if len(missing) > 1 else ""
        raise DataError(f"{path}: no such file; it belongs to {other}{more}. Expected this tree:\n{tree}")
    return pairs


def label_name(there: Collection[str], stem: str, endings: Sequence[str]) -> str:
    """The first of a photo's possible label files that is there; the first of all if none is."""
    names = [f"{stem}{ending}" for ending in endings]
    return next((name for name in names if name in there), names[0])


def read_matlab(path: Path, *, variable: str) -> np.ndarray:
    """(H, W) int32 ids: one matrix of a MATLAB file, which needs the optional package scipy."""
    try:
        from scipy.io import loadmat, whosmat
    except ImportError as error:
        raise DataError(
            f"{path}: reading MATLAB files needs scipy, which is not installed. Install it (pip install scipy), or "
            f"convert the matrix '{variable}' of each file to a PNG of the same name beside it."
        ) from error
    require_regular(path, expected="a MATLAB file")
    try:
        shape = next((size for name, size, _ in whosmat(str(path)) if name == variable), None)
        if shape is not None and len(shape) == 2:
            check_pixels(path, (shape[0], shape[1]))  # before it is unpacked
        matrix = np.asarray(loadmat(str(path), variable_names=[variable])[variable])
        if matrix.ndim != 2 or matrix.dtype.kind not in "uif" or not np.isfinite(matrix).all():
            raise ValueError(f"it is {matrix.dtype} {matrix.shape}, expected whole numbers (H, W)")
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{path}: not a MATLAB file with a matrix '{variable}' ({type(error).__name__}: {error})."
        ) from error
    return matrix.astype(np.int32)
