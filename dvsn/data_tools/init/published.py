"""Data sets that dvsn reads as they were published, told by the files that lie in a folder."""

from __future__ import annotations

import re
import shlex
import tarfile
from collections.abc import Iterable
from fnmatch import translate
from typing import NamedTuple

from dvsn.data_tools.init.listing import Listing


class Published(NamedTuple):
    """A published layout: its choice of the group `data`, what it is in words, the tasks it serves, the likeliest first,
    and `marks`, patterns of paths relative to the root, a file of each of which is there."""

    data: str
    words: str
    tasks: tuple[str, ...]
    marks: tuple[str, ...]


SCENES = ("leftImg8bit/train/*_leftImg8bit.png", "gtFine/train/*_gtFine_*")
LAYOUTS = (
    Published("street", "dvsn's own street scenes", ("segmentation", "pose", "detection", "pix2pix"),
              ("street.json", *SCENES)),
    Published("cityscapes", "Cityscapes", ("segmentation", "detection", "pix2pix"), SCENES),
    Published("coco", "COCO 2017", ("pose", "detection"), ("annotations/person_keypoints_train2017.json",)),
    Published("coco", "COCO 2017", ("detection",), ("annotations/instances_train2017.json",)),
    Published("cocostuff", "COCO-Stuff", ("segmentation",), ("imageLists/train.txt", "annotations/*")),
    Published("pascal_context", "PASCAL-Context", ("segmentation",), ("SegmentationClassContext/*", "JPEGImages/*")),
    Published("lip", "LIP", ("segmentation",), ("TrainVal_images/train_images/*", "TrainVal_parsing_annotations/*")),
    Published("camvid", "CamVid", ("segmentation",), ("train/0001TP_*", "trainannot/0001TP_*")),
    Published("camvid", "CamVid", ("segmentation",), ("701_StillsRaw_full/*", "LabeledApproved_full/*_L.png")),
    Published("mpii", "MPII", ("pose",), ("annot/train.json", "annot/valid.json", "images/*")),
    Published("crowdpose", "CrowdPose", ("pose",), ("*crowdpose_train.json", "images/*")),
    Published("wflw", "WFLW", ("landmarks",), ("WFLW_annotations/*/list_98pt_*.txt", "WFLW_images/*")),
    Published("300w", "300-W", ("landmarks",), ("afw/*.pts", "lfpw/trainset/*.pts", "helen/trainset/*.pts")),
    Published("aflw", "AFLW with 19 points", ("landmarks",), ("face_landmarks_aflw_train.csv",)),
    Published("cofw", "COFW", ("landmarks",), ("COFW_train_color.mat",)),
    Published("cifar10", "CIFAR-10", ("classification",), ("cifar-10-batches-py/data_batch_1",)),
    Published("cifar10", "CIFAR-10", ("classification",), ("cifar-10-batches-bin/data_batch_1.bin",)),
    Published("cifar100", "CIFAR-100", ("classification",), ("cifar-100-python/train",)),
    Published("cifar100", "CIFAR-100", ("classification",), ("cifar-100-binary/train.bin",)),
)  # fmt: skip
"""The first that fits is meant."""

ARCHIVES = Published("cifar10", "CIFAR-10 in archives", ("classification",), ("train.tar.gz", "test.tar.gz"))
CLASSES = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}


def published(listing: Listing) -> Published | None:
    """The published data set that lies in a folder."""
    names = (*listing.pictures, *listing.others)
    top = {name.partition("/")[0] for name in names}
    for each in (*LAYOUTS, ARCHIVES):
        if all(there(mark, names, top) for mark in each.marks):
            return None if each is ARCHIVES and not holds_classes(listing) else each
    return None


def there(mark: str, names: Iterable[str], top: set[str]) -> bool:
    """Whether a name fits a pattern; `top` are the first parts of the names."""
    first = mark.partition("/")[0]
    return ("*" in first or first in top) and any(map(re.compile(translate(mark)).match, names))


def holds_classes(listing: Listing) -> bool:
    """Whether the archive of what is learnt holds `train/CLASS/NAME` of CIFAR-10's classes, by its first pictures."""
    try:
        with tarfile.open(listing.path(ARCHIVES.marks[0]), "r:gz") as archive:
            for member in (archive.next() for _ in range(100)):
                if member is None:
                    return False
                parts = member.name.removeprefix("./").split("/")
                if member.isfile():
                    return len(parts) == 3 and parts[1] in CLASSES
    except (OSError, EOFError, tarfile.TarError):
        pass
    return False


def sentence(found: Published, listing: Listing, task: str | None = None) -> str:
    """What is said of it instead of writing files: the line that trains on it, for `task` where that is one of its own."""
    tasks = sorted(found.tasks, key=lambda each: each != task)
    rest = f" Also task={', task='.join(tasks[1:])}." if tasks[1:] else ""
    root = shlex.quote(str(listing.root.absolute()))
    return (
        f"{listing.root}: this is {found.words} as published, which dvsn reads as it is: nothing to write.{rest} Train by\n"
        f"    python -m dvsn.train task={tasks[0]} data={found.data} data.root={root}"
    )
