"""Pascal VOC's XML files: one a picture, a box an object (Everingham et al., 2010)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree.ElementTree import Element

from dvsn.data.coco_files import Picture, contradiction
from dvsn.data.files import SUFFIXES, require_folder
from dvsn.data.objects import Annotation
from dvsn.data.own_objects import ListedObjects, annotation
from dvsn.data.xml_files import number_in, read_xml, text_in
from dvsn.errors import DataError, nearest
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
        masks: bool = False,
        transform: Callable[[Sample, int], Sample] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(classes=classes, names=names, masks=masks, transform=transform, seed=seed)
        self.label_of = {name: label for label, name in self.categories.items()}
        self.first_pixel = first_pixel
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
        return (
            picture,
            size,
            [self._object(each, f"{file}: {n}. object") for n, each in enumerate(root.iter("object"), 1)],
        )

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


def listed(file: Path, folder: Path) -> list[Path]:
    """The XML files of a list of names; a second column, of the lists of a class, is 1 where it is in the picture."""
    rows = read_rows(file, columns=(1, 2), expected="a list of pictures")
    found = [folder / f"{Path(row.columns[0]).stem}.xml" for row in rows if row.columns[1:] in ([], ["1"])]
    missing = next((path for path in found if not path.is_file()), None)
    if missing:
        raise DataError(f"{missing}: no such file, but {file} names it.")
    return found
