"""The faces of the scenes as a WFLW tree (Wu et al., CVPR 2018, arXiv:1805.10483), which `data=wflw` reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2

from dvsn.data.street.files import PHOTO_PNG, SPLIT_STRIDE
from dvsn.data.street.scene import Face, draw_scene
from dvsn.errors import DataError

SPLITS = ("train", "test")  # WFLW has no other
TURNED = 0.5  # radians that the head is turned or nods, from which the flag `pose` is set
HIDDEN = 0.05  # the share of landmarks out of sight, from which `occlusion` is


def write_wflw(
    root: str | Path, *, seed: int = 0, train: int = 200, test: int = 40, height: int = 512, width: int = 1024
) -> dict[str, int]:
    """Write the faces of so many scenes under `root`, and say how many there were in each split.

    WFLW_images/SPLIT/street_INDEX.png, of scenes that show a face, and
    WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_SPLIT.txt. A scene of 256 x 512 shows faces of 10
    to 20 pixels, in one of four; at 1024 x 2048 they are four times as large. Of the flags only `pose` and `occlusion`
    have a meaning here; landmarks that are out of sight are written too, as in WFLW.
    """
    root = Path(root)
    folder = root / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for number, (split, scenes) in enumerate(zip(SPLITS, (train, test), strict=True)):
        lines: list[str] = []
        (root / "WFLW_images" / split).mkdir(parents=True, exist_ok=True)
        for index in range(number * SPLIT_STRIDE, number * SPLIT_STRIDE + scenes):
            lines += write_faces(
                root / "WFLW_images", f"{split}/street_{index:07d}.png", seed, index, height, width
            )
        (folder / f"list_98pt_rect_attr_{split}.txt").write_text("".join(f"{line}\n" for line in lines))
        counts[split] = len(lines)
    return counts


def write_faces(folder: Path, name: str, seed: int, index: int, height: int, width: int) -> Iterator[str]:
    """The lines of a scene's faces; its picture is written where there are any."""
    scene = draw_scene(seed=seed, index=index, height=height, width=width)
    faces = [person.face for person in scene.people if person.face is not None]
    if faces:
        photo = cv2.cvtColor(scene.photo, cv2.COLOR_RGB2BGR)
        encoded, data = cv2.imencode(".png", photo, PHOTO_PNG)
        if not encoded:
            raise DataError(f"{folder / name}: the picture could not be encoded.")
        (folder / name).write_bytes(data.data)
    for face in faces:
        yield f"{face_line(face)} {name}"


def face_line(face: Face) -> str:
    """98 points, the rectangle in whole pixels, and the six flags."""
    pitch, yaw, _ = face.angles
    flags = {"pose": max(abs(pitch), abs(yaw)) > TURNED, "occlusion": 1 - face.seen.mean() > HIDDEN}
    wflw = ("pose", "expression", "illumination", "makeup", "occlusion", "blur")
    numbers = [f"{value:.6f}" for value in face.landmarks.ravel().tolist()]
    rest = [*(round(side) for side in face.box), *(int(flags.get(flag, False)) for flag in wflw)]
    return " ".join([*numbers, *map(str, rest)])
