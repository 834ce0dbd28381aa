"""Scenes as the files of a Cityscapes tree (Cordts et al., 2016, arXiv:1604.01685), written once however many
processes ask.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dvsn.atomic import write_json
from dvsn.config.folders import at_home
from dvsn.data.cityscapes_labels import PALETTE, TRAIN_ID_OF
from dvsn.data.street.annotations import Entry, coco_file, describe
from dvsn.data.street.scene import draw_scene
from dvsn.errors import DataError

log = logging.getLogger(__name__)

VERSION = 3  # counts changes of the generator
WITHOUT_PARTS = 2  # the same scenes, without the maps of parts
STAMP = "street.json"
LOCK = ".street.lock"
SPLITS = ("train", "val", "test")
KINDS = ("leftImg8bit", "gtFine", "annotations")
CITIES = {
    "train": ("alderbrook", "birchford", "cedarvale", "dunmere"),
    "val": ("elmstead",),
    "test": ("fairhaven",),
}
SPLIT_STRIDE = 1_000_000  # scene index = split number * stride + position, so that splits never share a scene
LABEL_FILES = 5  # of a scene
# A photo's grain hardly shrinks: stored as it is, it takes 1.7 times the space and is read and written eight
# times as fast.
PHOTO_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 0]
LABEL_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # newer OpenCV: one filter for all rows, twice as fast, no larger here
    PHOTO_PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    LABEL_PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB]
BGRA = np.concatenate((PALETTE[:, ::-1], np.full((256, 1), 255, np.uint8)), axis=1)


def file_stems(split: str, count: int) -> list[tuple[str, str]]:
    """(city, stem) of every scene of a split, in the published manner: CITY_SEQUENCE_FRAME."""
    cities = CITIES[split]
    return [
        (city := cities[i * len(cities) // max(1, count)], f"{city}_{i:06d}_000019") for i in range(count)
    ]


def write_scene(task: tuple[str, str, str, str, int, int, int, int]) -> tuple[Entry, list[Entry]]:
    """Draw one scene and write its six pictures; returned is what COCO's files say of it."""
    root, split, city, stem, seed, index, height, width = task
    scene = draw_scene(seed=seed, index=index, height=height, width=width)
    ids = scene.label_ids
    fine = f"gtFine/{split}/{city}/{stem}_gtFine"
    name = f"{split}/{city}/{stem}_leftImg8bit"
    photo = cv2.cvtColor(scene.photo, cv2.COLOR_RGB2BGR)
    for file, array, options in (
        (f"leftImg8bit/{name}", photo, PHOTO_PNG),
        (f"{fine}_labelIds", ids, LABEL_PNG),
        (f"{fine}_labelTrainIds", TRAIN_ID_OF[ids], LABEL_PNG),
        (f"{fine}_color", BGRA[ids], LABEL_PNG),
        (f"{fine}_instanceIds", scene.instance_ids.astype(np.uint16), LABEL_PNG),
        (f"{fine}_partIds", scene.part_ids, LABEL_PNG),
    ):
        path = Path(root) / f"{file}.png"
        encoded, data = cv2.imencode(".png", array, options)
        if not encoded:
            raise DataError(f"{path}: the picture could not be encoded.")
        path.write_bytes(data.data)
    return describe(scene, image_id=index + 1, file_name=f"{name}.png")


def write_cityscapes(
    root: str | Path,
    *,
    seed: int = 0,
    train: int = 200,
    val: int = 40,
    test: int = 20,
    height: int = 256,
    width: int = 512,
    workers: int = 1,
) -> None:
    """Write scenes as a Cityscapes tree under `root`, which may exist; files of equal names are replaced.

    leftImg8bit/SPLIT/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png (RGB) and, under gtFine, `_labelIds` and
    `_labelTrainIds` (8-bit grey), `_color` (RGBA) and `_instanceIds` (16-bit grey); also `_partIds` (8-bit grey, ids of
    `dvsn.data.street_parts.PARTS`), which the published set has not. The published test labels are placeholders;
    here they are real. Beside them annotations/person_keypoints_SPLIT.json, in COCO's format, with file names below
    leftImg8bit.
    """
    root = Path(root)
    tasks = []
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for number, (split, count) in enumerate(zip(SPLITS, (train, val, test), strict=True)):
        for kind in ("leftImg8bit", "gtFine"):
            for city in CITIES[split]:
                (root / kind / split / city).mkdir(parents=True, exist_ok=True)
        for i, (city, stem) in enumerate(file_stems(split, count)):
            tasks.append((str(root), split, city, stem, seed, number * SPLIT_STRIDE + i, height, width))
    if workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            scenes = list(pool.map(write_scene, tasks, chunksize=8))
    else:
        scenes = [write_scene(task) for task in tasks]
    for split in SPLITS:
        content = coco_file([scene for scene, task in zip(scenes, tasks, strict=True) if task[1] == split])
        (root / "annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(content))


def ensure_street(
    root: str | Path,
    *,
    seed: int = 0,
    train: int = 200,
    val: int = 40,
    test: int = 20,
    height: int = 256,
    width: int = 512,
    workers: int = 1,
    parts: bool = True,
) -> Path:
    """Make sure that `root` holds exactly this street set, and return it.

    Written on first use, rewritten when the stamp `street.json` differs or a former attempt was killed. A set of an earlier
    version, which has no maps of parts, is taken as it is unless `parts` are wanted.
    Processes that ask at the same time wait for the one that writes. A folder that holds anything else is
    left alone.
    """
    root = at_home(root, option="data.root")
    counts = {"train": train, "val": val, "test": test}
    wanted: dict[str, Any] = {
        "generator": "dvsn street",
        "version": VERSION,
        "seed": seed,
        "scenes": counts,
        "height": height,
        "width": width,
        "finished": True,
    }
    if is_complete(root, wanted, parts=parts):
        return root
    refuse_foreign(root)
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / LOCK):
        if is_complete(root, wanted, parts=parts):
            return root
        refuse_foreign(root)
        began = time.monotonic()
        log.info("street: drawing %d scenes of %d x %d into %s", sum(counts.values()), height, width, root)
        write_json(root / STAMP, {**wanted, "finished": False})
        for left_over in root.glob(".partial*"):
            shutil.rmtree(left_over)
        partial_root = root / ".partial"
        write_cityscapes(partial_root, seed=seed, **counts, height=height, width=width, workers=workers)
        for kind in KINDS:
            if (root / kind).exists():
                shutil.rmtree(root / kind)
            (partial_root / kind).rename(root / kind)
        partial_root.rmdir()
        write_json(root / STAMP, wanted)
        log.info("street: finished after %.0f s", time.monotonic() - began)
    return root


def read_stamp(root: Path) -> dict[str, Any] | None:
    try:
        stamp = json.loads((root / STAMP).read_text())
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) else None


def is_complete(root: Path, wanted: dict[str, Any], *, parts: bool) -> bool:
    stamp = read_stamp(root)
    older = not parts and stamp == {**wanted, "version": WITHOUT_PARTS}
    if stamp != wanted and not older:
        return False
    files = LABEL_FILES - 1 if older else LABEL_FILES
    for split, count in wanted["scenes"].items():
        if not (root / "annotations" / f"person_keypoints_{split}.json").is_file():
            return False
        photos = sum(1 for _ in (root / "leftImg8bit" / split).glob("*/*.png"))
        labels = sum(1 for _ in (root / "gtFine" / split).glob("*/*.png"))
        if (photos, labels) != (count, files * count):
            return False
    return True


def refuse_foreign(root: Path) -> None:
    """Raise unless `root` is missing, empty or a street set, finished or not."""
    if root.exists() and not root.is_dir():
        raise DataError(f"{root} is a file; the street set needs a folder. Set data.root to another place.")
    if not root.is_dir() or (root / STAMP).is_file():
        return
    found = sorted(
        each.name for each in root.iterdir() if each.name != LOCK and not each.name.startswith(STAMP)
    )
    if found:
        shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
        raise DataError(
            f"{root} is not a street set ({STAMP} is missing) and not empty: found {shown}. "
            "Nothing was written. Set data.root to a new or empty folder."
        )


@contextlib.contextmanager
def locked(path: Path, *, stale_after: float = 900.0) -> Iterator[None]:
    """Hold a lock between processes: fcntl's where there is one (freed with its holder), else a file."""
    try:
        import fcntl
    except ImportError:
        with locked_by_file(path, stale_after=stale_after):
            yield
        return
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            with locked_by_file(path.with_suffix(".held"), stale_after=stale_after):
                yield
            return
        yield


@contextlib.contextmanager
def locked_by_file(path: Path, *, stale_after: float) -> Iterator[None]:
    """A lock file made exclusively; one older than `stale_after` seconds is taken for a dead process's."""
    while True:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > stale_after:
                    path.unlink()
                    continue
            time.sleep(0.2)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
