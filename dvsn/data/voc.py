"""Pascal VOC's XML files: one a picture, a box an object (Everingham et al., 2010)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from pycocotools import mask as rle

from dvsn.data.coco_files import Picture, contradiction
from dvsn.data.files import SUFFIXES, read_labels, require_folder
from dvsn.data.objects import Annotation
from dvsn.data.own_objects import ListedObjects, annotation
from dvsn.data.xml_files import number_in, read_xml, text_in
from dvsn.errors import ConfigError, DataError, nearest
from dvsn.portable import headers
from dvsn.reading import read_rows
from dvsn.types import Sample

TREE = """\
    ROOT/{pictures}/NAME.jpg
    ROOT/{annotations}/NAME.xml    <annotation> with <size> and, for each object, <name> and <bndbox>"""


class VocObjects(ListedObjects):
    """Objects in the XML files of Pascal VOC (doi:10.1007/s11263-009-0275-4), of LabelImg and others.

    `annotations` and `pictures` are folders below `root`, with `{split}` for the split; they may be one folder. Without
    `lists`, every XML file is taken; with it, those whose names the list of a split has, such as
    `ImageSets/Main/{split}.txt`. `names` are the classes by label from 1 on.

    Boxes count pixels from `first_pixel` = 1, and their last pixel is inside, as published. Objects that are marked as
    `difficult` are neither trained on nor punished.

    `outlines` is a folder with a map for a picture, NAME.png, in which the first object of its file is 1, the second 2, and
    what is not said 255, as VOC's `SegmentationObject`; objects then have masks, and their area is the mask's. Where only
    some pictures have one, `lists` names these: `ImageSets/Segmentation/{split}.txt`.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str,
        classes: int,
        names: Mapping[int, str],
        annotations: str = "Annotations",
        pictures: str = "JPEGImages",
        lists: str | None = None,
        first_pixel: int = 1,
        outlines: str | None = None,
        masks: bool = False,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(classes=classes, names=names, masks=masks, transform=transform, seed=seed)
        self.label_of = {name: label for label, name in self.categories.items()}
        self.first_pixel = first_pixel
        self.outlines = None if outlines is None else Path(root) / outlines.replace("{split}", split)
        if masks and self.outlines is None:
            raise ConfigError(
                "data.objects.outlines: null, and masks are asked for. Set data.objects.outlines=SegmentationObject, the "
                "folder of the maps of objects, or train without masks: network.detector=faster_rcnn."
            )
        tree = TREE.format(annotations=annotations, pictures=pictures)
        folder, photos = (
            require_folder(Path(root) / each.replace("{split}", split), expected=tree, option="data.root")
            for each in (annotations, pictures)
        )
        files = sorted(
            path for path in folder.iterdir() if path.suffix.lower() == ".xml" and path.name[0] != "."
        )
        if lists is not None:
            files = listed(Path(root) / lists.replace("{split}", split), folder)
        if not files:
            raise DataError(f"{folder}: no .xml file in it. Expected:\n{tree}")
        there = {path.stem: path for path in photos.iterdir() if path.suffix.lower() in SUFFIXES}
        rows = [self._read(file, there, photos) for file in files]
        self._take([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows], folder)

    def _read(
        self, file: Path, there: Mapping[str, Path], photos: Path
    ) -> tuple[Path, tuple[int, int], list[Annotation]]:
        """The picture of a file, its size and its objects."""
        root = read_xml(file, expected="annotations of a picture, as Pascal VOC has them")
        picture = there.get(file.stem)
        if picture is None:
            raise DataError(f"{photos / file.stem}.jpg: no such picture, but {file} describes it. Copy "
                            f"it there, or move the "
                            "XML file away.")  # fmt: skip
        size = headers.size_of(picture)
        if size is None:
            raise DataError(f"{picture}: no picture that can be read.")
        width, height = text_in(root, "size/width"), text_in(root, "size/height")
        if width.isdigit() and height.isdigit() and int(width) and (int(height), int(width)) != size:
            said = Picture(picture, int(width), int(height))
            raise DataError(
                contradiction(said, size, file, option="data.objects.sizes").partition(" If the pos")[0]
            )
        objects = [
            self._object(each, f"{file}: {n}. object") for n, each in enumerate(root.iter("object"), 1)
        ]
        if self.masks and self.outlines is not None:
            objects = outlined(objects, self.outlines / f"{file.stem}.png", size)
        return picture, size, objects

    def _object(self, node: Element, where: str) -> Annotation:
        name = text_in(node, "name")
        if name not in self.label_of:
            raise DataError(
                f"{where}: the class {name!r} is not in data.objects.names. {nearest(name, self.label_of)}"
            )
        left, top, right, bottom = (
            number_in(node, f"bndbox/{key}", where) for key in ("xmin", "ymin", "xmax", "ymax")
        )
        box = (
            left - self.first_pixel,
            top - self.first_pixel,
            right - self.first_pixel + 1,
            bottom - self.first_pixel + 1,
        )
        return annotation(self.label_of[name], box, iscrowd=int(text_in(node, "difficult") == "1"))


def outlined(objects: list[Annotation], file: Path, size: tuple[int, int]) -> list[Annotation]:
    """Objects with the masks of a map (H, W), in which each has its number, from 1 on."""
    if not file.is_file():
        raise DataError(
            f"{file}: no such file, and masks are asked for. Name the pictures that have one by data.objects.lists, such as "
            "ImageSets/Segmentation/{split}.txt, or train without masks: network.detector=faster_rcnn."
        )
    ids = read_labels(
        file, advice="Its pixels are the numbers of objects, as palettes or grey values have them."
    )
    if ids.shape != size:
        raise DataError(
            f"{file}: is {ids.shape[0]}x{ids.shape[1]}, expected its picture's {size[0]}x{size[1]} (height x width)."
        )
    found = []
    for number, each in enumerate(objects, 1):
        mask = np.asfortranarray((ids == number).astype(np.uint8))
        if not mask.any() and not each["iscrowd"]:
            raise DataError(
                f"{file}: no pixel of object {number} of {len(objects)}. Expected the objects of the XML file in their "
                "order."
            )
        code = {"size": list(size), "counts": rle.encode(mask)["counts"].decode("ascii")}
        found.append(each | {"segmentation": code, "area": float(mask.sum())})
    return found


def listed(file: Path, folder: Path) -> list[Path]:
    """The XML files of a list of names; a second column, of the lists of a class, is 1 where it is in the picture."""
    rows = read_rows(file, columns=(1, 2), expected="a list of pictures")
    found = [folder / f"{Path(row.columns[0]).stem}.xml" for row in rows if row.columns[1:] in ([], ["1"])]
    missing = next((path for path in found if not path.is_file()), None)
    if missing:
        raise DataError(f"{missing}: no such file, but {file} names it.")
    return found
