"""Small folders of annotated pictures, as people have them: written by tests of readers and of `data init`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (60, 80)  # height, width


def picture(path: Path, *, size: tuple[int, int] = SIZE) -> Path:
    """Grey noise of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(path.name.encode())).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def yolo(root: Path, labels: Mapping[str, str], *, names: str = "bolt\nnut\n") -> Path:
    """images/NAME.png and labels/NAME.txt; a name may hold folders."""
    for name, lines in labels.items():
        picture(root / "images" / f"{name}.png")
        text(root / "labels" / f"{name}.txt", lines)
    text(root / "classes.txt", names)
    return root


def voc(root: Path, objects: Mapping[str, str]) -> Path:
    """JPEGImages/NAME.png and Annotations/NAME.xml, given the elements of its objects."""
    for name, inner in objects.items():
        picture(root / "JPEGImages" / f"{name}.png")
        size = f"<size><width>{SIZE[1]}</width><height>{SIZE[0]}</height><depth>3</depth></size>"
        text(root / "Annotations" / f"{name}.xml", f"<annotation>{size}{inner}</annotation>")
    return root


def voc_object(name: str, box: Sequence[int], more: str = "") -> str:
    corners = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def coco(
    file: Path,
    folder: Path,
    annotations: Sequence[Mapping[str, Any]],
    *,
    categories: Sequence[Mapping[str, Any]],
    pictures: int = 4,
    start: str = "",
) -> Path:
    """A COCO file and its pictures, START0.png and so on with the ids 0 and so on."""
    images = []
    for number in range(pictures):
        name = f"{start}{number}.png"
        picture(folder / name)
        images.append({"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
    given = [{"id": n, "iscrowd": 0} | dict(each) for n, each in enumerate(annotations, 1)]
    content = {"images": images, "annotations": given, "categories": list(categories)}
    return text(file, json.dumps(content))
