"""CIFAR-10 and CIFAR-100: the published files, or their pictures as archives or folders; all held in memory."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dvsn.data.dataset import ImageDataset
from dvsn.data.files import JUNK, SUFFIXES, pictures_below, require_folder, to_rgb
from dvsn.errors import ConfigError, DataError, MissingError, nearest
from dvsn.reading import read_bytes
from dvsn.types import Sample, Vocabulary

FILES = """\
    ROOT/{python}/{first}        as published for Python
    ROOT/{binary}/{first}.bin    or as published for C
"""
PICTURES = """\
    ROOT/{split}.tar.gz          an archive of {split}/CLASS/NAME.jpg
    ROOT/{split}/CLASS/NAME.jpg  or these folders"""

SIDE = 32
MAX_BYTES = 1 << 30
"""Of an archive that is unpacked, and of all pictures of a split: a gigabyte; CIFAR's have 154 MB."""

PICKLE_BYTES = 1 << 30  # the largest published file has 154 MB
ROW = 3 * SIDE * SIDE


class Release(NamedTuple):
    """How one of the two is published."""

    python: str
    binary: str
    files: dict[str, tuple[str, ...]]
    label: bytes
    """The key of the labels in a pickle."""
    label_bytes: int
    """In front of each picture of the binary files; the last one is the class."""


RELEASES = {
    10: Release(
        "cifar-10-batches-py",
        "cifar-10-batches-bin",
        {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)},
        b"labels",
        1,
    ),
    100: Release(
        "cifar-100-python",
        "cifar-100-binary",
        {"train": ("train",), "test": ("test",)},
        b"fine_labels",
        2,
    ),
}

Found = tuple[np.ndarray, int, str]
"""A picture (H, W, 3), its class, and where it comes from."""


class Cifar(ImageDataset):
    """60,000 pictures of 32 x 32 in 10 or 100 classes (Krizhevsky, 2009). Keys `photo` and `class`, a number.

    - `names`: the classes in the order of their numbers.
    - Published files: `root` is their folder or the one around it. Of CIFAR-100 the fine classes are read. Pickles are read
      without running what they name.
    - Archives and folders: the class is the name of the innermost folder. Pictures may have another size, the same for all.
      An archive is read without unpacking it on the disk.
    - All pictures are decoded at once into one array that forked workers share: 150 MB for 50,000. They alternate between
      the classes: the first picture of each, the second of each, ...
    - `max_bytes` limits the content of an archive, and all pictures together.
    """

    gives: ClassVar[dict[str, str]] = {"photo": "photo", "class": "number"}

    def __init__(
        self,
        *,
        root: str,
        split: str,
        names: Sequence[str],
        max_bytes: int = MAX_BYTES,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        self.kinds = dict(self.gives)
        super().__init__(transform=transform, seed=seed)
        if len(set(names)) != len(names):
            raise ConfigError("data.dataset.names: a class is named twice; expected each once.")
        self.class_names, self.split = tuple(names), split
        if type(max_bytes) is not int or max_bytes < 1:
            raise ConfigError(
                f"data.dataset.max_bytes: found {max_bytes!r}, expected a whole number above 0."
            )
        found = list(of_one_size(read_split(Path(root), split, self.class_names, max_bytes), max_bytes))
        if not found:
            raise DataError(f"{root}: the split '{split}' holds no picture.")
        order = around_classes(np.array([number for _, number, _ in found], np.int64))
        self.images = np.stack([found[each][0] for each in order])  # (N, H, W, 3)
        self.targets = np.array([found[each][1] for each in order], np.int64)
        self.files = np.array(
            [os.fsencode(found[each][2]) for each in order]
        )  # one block, which workers share

    @staticmethod
    def vocabulary(*, names: Sequence[str], **_: object) -> Vocabulary:
        return Vocabulary(tuple(names), ())

    def __len__(self) -> int:
        return len(self.images)

    def describe(self, index: int) -> str:
        return os.fsdecode(self.files[index])

    def name(self, index: int) -> str:
        return f"{self.split}_{self.class_names[self.targets[index]]}_{index:05d}".replace("/", "_")

    def read(self, index: int) -> Sample:
        return {"photo": self.images[index], "class": int(self.targets[index])}


def of_one_size(pictures: Iterator[Found], limit: int) -> Iterator[Found]:
    """The pictures, the first of another size than the first of all being refused, and any beyond `limit` bytes."""
    first: Found | None = None
    held = 0
    for each in pictures:
        first = first or each
        held += each[0].nbytes
        if each[0].shape != first[0].shape:
            listed = ", ".join(f"{one[2]} is {one[0].shape[0]}x{one[0].shape[1]}" for one in (first, each))
            raise DataError(f"pictures differ in size (height x width): {listed}. Expected one size.")
        if held > limit:
            raise DataError(
                f"{each[2]}: with this picture the split takes more than {limit:,} bytes of memory, where all of it is "
                "held. Set data.dataset.max_bytes, or take data=imagefolder, which reads pictures one by one."
            )
        yield each


def around_classes(targets: np.ndarray) -> np.ndarray:
    """The order in which the first of each class come first, then the second of each, ..."""
    sorted_by_class = np.argsort(targets, kind="stable")
    numbers = targets[sorted_by_class]
    starts = np.searchsorted(numbers, numbers)  # where the class of each begins
    rank = np.empty(len(targets), np.int64)
    rank[sorted_by_class] = np.arange(len(targets)) - starts
    return np.lexsort((targets, rank))


def read_split(root: Path, split: str, names: tuple[str, ...], limit: int) -> Iterator[Found]:
    """The pictures of a split, from whichever layout is there. Raises `DataError` with the expected tree."""
    release = RELEASES.get(len(names))
    tree = PICTURES.format(split=split)
    if release is not None:
        first = release.files.get(split, ("?",))[0]
        tree = FILES.format(python=release.python, binary=release.binary, first=first) + tree
    require_folder(root, expected=tree, option="data.root")
    for folder in () if release is None else (root / release.python, root / release.binary, root):
        assert release is not None
        files = [folder / name for name in release.files.get(split, ())]
        if files and all(file.is_file() for file in files):
            return (each for file in files for each in read_pickle(file, release, len(names)))
        binaries = [file.with_name(f"{file.name}.bin") for file in files]
        if files and all(file.is_file() for file in binaries):
            return (each for file in binaries for each in read_binary(file, release, len(names)))
        there = [file.name for file in (*files, *binaries) if file.is_file()]
        if there:
            raise DataError(
                f"{folder}: has {', '.join(there)} of the split '{split}', but not the rest of "
                f"{', '.join(file.name for file in files)}. Download it again.\nExpected this tree:\n{tree}"
            )
    for archive in (root / f"{split}.tar.gz", root / f"{split}.tar"):
        if archive.is_file():
            return named_pictures(archive_members(archive, limit=limit), names, archive)
    if (root / split).is_dir():
        return named_pictures(folder_members(root / split), names, root / split)
    lying = ", ".join(sorted(item.name for item in root.iterdir())[:8]) or "nothing"
    raise MissingError(
        f"{root}: no split '{split}' of {len(names)} classes: found {lying}.\nExpected this tree:\n{tree}\nSet ROOT with "
        "data.root, or the split with data.splits.",
        root / split,
    )


# Archives and folders --------------------------------------------------------------------------------


def archive_members(archive: Path, *, limit: int) -> Iterator[tuple[str, bytes]]:
    """(path inside, content) of every picture of a tar archive, in the archive's order. It is unpacked in memory first,
    which is faster than reading through the compression, and may have `limit` bytes there."""
    packed = read_bytes(archive, limit=limit, expected="an archive (data.dataset.max_bytes)")
    try:
        content = decompress(packed, archive, limit) if archive.suffix == ".gz" else packed
        with tarfile.open(fileobj=io.BytesIO(content)) as opened:
            for member in opened:
                if member.isfile() and is_picture(member.name):
                    yield member.name, content[member.offset_data : member.offset_data + member.size]
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{archive}: not a whole archive ({error}). Copy or download it again.") from error


def decompress(packed: bytes, archive: Path, limit: int) -> bytes:
    """The content of a gzip file, of `limit` bytes at most; no more than that is ever held."""
    parts: list[bytes] = []
    left = limit
    while packed:
        inflater = zlib.decompressobj(wbits=31)
        parts.append(inflater.decompress(packed, left + 1))
        left -= len(parts[-1])
        if left < 0:
            raise DataError(
                f"{archive}: {len(packed):,} bytes that unpack to more than {limit:,}; expected no more, for memory. If it "
                "is meant, set data.dataset.max_bytes."
            )
        if not inflater.eof:
            raise EOFError("it ends before its end mark")
        packed = inflater.unused_data.lstrip(b"\0")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def folder_members(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(path below the folder, content) of every picture, sorted."""
    for name in sorted(pictures_below(folder)):
        yield name, read_bytes(folder / name, expected="a picture")


def is_picture(name: str) -> bool:
    """The rule of folders, for a path inside an archive."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part in JUNK for part in path.parts if part != ".")
    return path.suffix.lower() in SUFFIXES and not hidden


def named_pictures(
    members: Iterator[tuple[str, bytes]], names: tuple[str, ...], where: Path
) -> Iterator[Found]:
    """Decoded pictures whose class is the folder around them."""
    numbers = {name: number for number, name in enumerate(names)}
    for name, content in members:
        label = PurePosixPath(name).parent.name
        if label not in numbers:
            raise DataError(
                f"{where}: {name} lies in no folder of a class. {nearest(label, names)} The classes are those of "
                "data.dataset.names."
            )
        at = f"{where}: {name}" if where.is_file() else str(where / name)
        yield to_rgb(at, content), numbers[label], at


# Published files -------------------------------------------------------------------------------------


def read_pickle(file: Path, release: Release, classes: int) -> Iterator[Found]:
    """The pictures of one file of the Python release: rows of 3072 bytes, planes of red, green, blue."""
    data = read_bytes(file, limit=PICKLE_BYTES, expected="a pickle of the published files")
    try:
        content = PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    except Exception as error:  # whatever a damaged file makes of an unpickler
        raise DataError(
            f"{file}: not a readable pickle ({type(error).__name__}: {error}). Download it again."
        ) from error
    content = content if isinstance(content, dict) else {}
    rows, labels = content.get(b"data"), content.get(release.label)
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or not isinstance(labels, list):
        raise DataError(
            f"{file}: expected an array 'data' and a list '{release.label.decode()}', found "
            f"{', '.join(str(key) for key in content) or 'neither'}. Is this file of another release?"
        )
    if not all(type(label) is int for label in labels):
        raise DataError(f"{file}: found labels that are no whole numbers, expected 0 to {classes - 1}.")
    yield from pictures_of(rows, np.array(labels, np.int64), file, classes)


def read_binary(file: Path, release: Release, classes: int) -> Iterator[Found]:
    """The pictures of one file of the binary release: the label's bytes, then the planes."""
    content = read_bytes(file, limit=PICKLE_BYTES, expected="a file of the published pictures")
    data, row = np.frombuffer(content, np.uint8), release.label_bytes + ROW
    if len(data) == 0 or len(data) % row:
        raise DataError(
            f"{file}: {len(data)} bytes, expected a multiple of {row}. It is truncated, or of another release."
        )
    data = data.reshape(-1, row)
    yield from pictures_of(data[:, release.label_bytes :], data[:, release.label_bytes - 1], file, classes)


def pictures_of(rows: np.ndarray, labels: np.ndarray, file: Path, classes: int) -> Iterator[Found]:
    """Rows of planes (N, 3072) as pictures (32, 32, 3)."""
    if rows.ndim != 2 or rows.shape[1] != ROW or labels.shape != rows.shape[:1]:
        raise DataError(f"{file}: rows {rows.shape} and labels {labels.shape}, expected (N, {ROW}) and (N,).")
    if labels.dtype.kind not in "iu" or labels.min(initial=0) < 0 or labels.max(initial=0) >= classes:
        raise DataError(f"{file}: a label of {labels.max(initial=0)}, expected 0 to {classes - 1}.")
    pictures = np.ascontiguousarray(rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
    for number, (picture, label) in enumerate(zip(pictures, labels.tolist(), strict=True)):
        yield picture, label, f"{file}[{number}]"


class PlainUnpickler(pickle.Unpickler):
    """Reads plain containers and numpy arrays; a pickle that names anything else is refused before it is called."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return empty_array
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return latin_bytes
        raise DataError(
            f"refused: the pickle names {module}.{name}, which could run code; expected arrays and lists."
        )


def empty_array(kind: type, shape: tuple[int, ...], _: bytes) -> np.ndarray:
    """What numpy's pickles start from; their state follows."""
    if kind is not np.ndarray or shape != (0,):
        raise DataError("refused: an array of an unusual kind.")
    return np.ndarray((0,), np.uint8)


def latin_bytes(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise DataError(f"refused: bytes in the encoding {encoding!r}, expected latin1.")
    return text.encode("latin1") if isinstance(text, str) else bytes(text)
