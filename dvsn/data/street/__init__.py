"""Embedded data: street scenes drawn by a program, with everything known about them.

`draw_scene` is a pure function of (seed, index, size). `write_cityscapes` lays scenes out as a Cityscapes
tree (Cordts et al., 2016, arXiv:1604.01685), with the people in COCO's format beside it, and `ensure_street`
does so on first use, once, however many processes ask. `write_wflw` lays their faces out as WFLW.

Scenes are the same on every machine with the same numpy random streams (PCG64, stable by numpy's policy for a
bit generator; its distributions have not changed since 1.19) and the same OpenCV drawing and resizing;
another version of OpenCV may move single pixels of an outline, in photo and label alike.

The package in layers; a module imports only from lines above its own:

    light, geometry                             colours and outlines
    canvas, textures                            what is painted on, and with what
    sky, lens, walls, plants, furniture, vehicles, walkers, shadows, road
    buildings, faces
    people
    layout                                      where things stand
    scene                                       `draw_scene`
    annotations                                 COCO's files of the people
    files                                       `write_cityscapes`, `ensure_street`
    face_lists                                  `write_wflw`
"""

from __future__ import annotations

from dvsn.data.street.face_lists import write_wflw
from dvsn.data.street.files import ensure_street, write_cityscapes
from dvsn.data.street.scene import Face, Person, Scene, Thing, draw_scene

__all__ = [
    "Face",
    "Person",
    "Scene",
    "Thing",
    "draw_scene",
    "ensure_street",
    "write_cityscapes",
    "write_wflw",
]
