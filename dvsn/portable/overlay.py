"""A result drawn on its picture: classes, boxes, masks, skeletons, faces, cards; with a legend."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from dvsn.errors import ConfigError, nearest
from dvsn.portable.bands import as_rgb
from dvsn.portable.cards import GREY, card
from dvsn.portable.draw import (
    FARTHEST,
    HUES,
    draw_boxes,
    draw_head,
    draw_skeleton,
    hue_colour,
    tag,
    tag_box,
)
from dvsn.portable.legend import draw_legend, draw_lines
from dvsn.portable.record import SHOWN, Colour, Record
from dvsn.portable.runs import decode_mask

Array = np.ndarray[Any, Any]

UNTINTED = frozenset(
    {"background", "unlabeled", "unlabelled", "void", "ignore", "none", "_background_", "bg"}
)
"""Names of classes that say that nothing is there: the picture is left as it is."""
TINT = 0.5
LEAST = 0.002  # share of the picture from which a class is in the legend
OUTLINE = 0.45  # what is left of the picture's brightness on the border of two classes
LIGHT = 95  # of 255, the least brightness of a line
DRAWN_CLASSES = 3  # lines of a card


def draw(
    result: Record,
    *,
    legend: bool = True,
    tint: float = TINT,
    outlines: bool = True,
    threshold: float | None = None,
    points: bool = True,
    lines: bool = True,
    axes: bool = True,
) -> Array:
    """A new picture (H, W, 3) uint8 RGB with the answer on it; of pix2pix the picture that was made.

    - `legend`: names with their colours, in the lower left corner where there is room.
    - `tint`: how much of a class's or mask's colour covers the picture, in [0, 1]. Classes such as `background` are left
      as they are.
    - `outlines`: dark lines between classes and around masks.
    - `threshold`: objects of a lower score, keypoints of a lower confidence are not drawn; null: `shown_from` of the result.
    - `points`, `lines`, `axes`: of people and faces the dots, what joins them, and how a head is turned.
    """
    if not 0 <= tint <= 1:
        raise ConfigError(f"tint: found {tint}, expected a share from 0 to 1.")
    least = result.shown_from if threshold is None else threshold
    least = SHOWN.get(result.kind, 0.0) if least is None else least
    if result.picture is not None:
        return np.array(
            result.picture if result.picture.ndim == 3 else np.stack([result.picture] * 3, axis=-1)
        )
    if result.ids is not None:
        return draw_classes(result, legend=legend, tint=tint, outlines=outlines)
    if result.classes is not None:
        shown = [f"{each.score:.0%} {each.name}" for each in result.classes[:DRAWN_CLASSES]]
        return draw_lines(background(result), shown)
    picture = background(result)
    if result.labels is not None:
        draw_objects(picture, result, least=least, tint=tint, outlines=outlines, legend=legend)
    elif result.skeleton is not None:
        draw_people(picture, result, least=least, points=points, lines=lines, axes=axes)
        found = result.keypoints if result.keypoints is not None else result.points
        if legend and (points or lines) and found is not None and (found[..., 2] > least).any():
            draw_legend(picture, people_legend(result))
    return picture


def background(result: Record) -> Array:
    """A copy of the frame's picture in the size of the answer; ids of a label map as shades."""
    picture = result.frame.picture
    if picture.ndim == 2:
        shades = (picture.astype(np.int64) * 37 % 256).astype(np.uint8)
        picture = np.repeat(shades[..., None], 3, axis=2)
    else:
        picture = as_rgb(picture, result.frame.rule.bands)
    if picture.shape[:2] == result.size:
        return np.array(picture, order="C")
    size = (result.size[1], result.size[0])
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def colours_of(result: Record) -> Array:
    """(256, 3) uint8 RGB by id; what is no class is black."""
    table = np.zeros((256, 3), np.uint8)
    if result.palette:
        table[: len(result.palette)] = result.palette
    return table


def draw_classes(result: Record, *, legend: bool, tint: float, outlines: bool) -> Array:
    """The picture under the colours of its classes."""
    assert result.ids is not None
    ids, picture = result.ids, background(result)
    bare = np.ones(256, bool)
    bare[: len(result.names)] = [name.strip().lower() in UNTINTED for name in result.names]
    table = colours_of(result)
    colours = cv2.merge([cv2.LUT(ids, table[:, part].copy()) for part in range(3)])
    covered = cv2.LUT(ids, np.where(bare, 0, 255).astype(np.uint8))
    cv2.copyTo(cv2.addWeighted(picture, 1 - tint, colours, tint, 0), covered, picture)
    if outlines and min(ids.shape) >= 64:
        dark = cv2.convertScaleAbs(picture, alpha=OUTLINE, beta=-0.499)
        cv2.copyTo(dark, borders(ids).view(np.uint8), picture)
    if legend:
        counts = np.bincount(ids.ravel(), minlength=256)
        shown = [
            (result.names[number], colour_at(table, number))
            for number in np.argsort(-counts, kind="stable").tolist()
            if number < len(result.names) and counts[number] >= LEAST * ids.size and not bare[number]
        ]
        draw_legend(picture, shown)
    return picture


def borders(ids: Array) -> Array:
    """(H, W) bool: pixels whose right or lower neighbour is of another class."""
    border = np.zeros(ids.shape, bool)
    border[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    border[:-1] |= ids[:-1] != ids[1:]
    return border


def colour_at(table: Array, number: int) -> Colour:
    red, green, blue = (int(value) for value in table[number])
    return red, green, blue


def draw_objects(
    picture: Array, result: Record, *, least: float, tint: float, outlines: bool, legend: bool
) -> None:
    """Masks and boxes with names and scores, in place; the worst first."""
    assert result.boxes is not None and result.scores is not None and result.labels is not None
    kept = np.flatnonzero(result.scores >= least)[::-1]
    labels = result.labels[kept].tolist()
    colours = [bright(result.palette[label]) for label in labels] if result.palette else None
    if result.mask_codes is not None:
        for place, colour in zip(kept, colours or [(255, 210, 0)] * len(kept), strict=True):
            inside = decode_mask(result.mask_codes[place])
            picture[inside] = ((1 - tint) * picture[inside] + tint * np.array(colour)).astype(np.uint8)
            if outlines:
                rim = inside & (borders(inside) | borders(inside[::-1, ::-1])[::-1, ::-1])
                picture[rim] = (OUTLINE * np.array(colour)).astype(np.uint8)
    names = [result.names[label] for label in labels]
    if result.track_ids is not None:
        numbers = result.track_ids[kept].tolist()
        names = [f"{name} {number}" if number else name for name, number in zip(names, numbers, strict=True)]
    draw_boxes(picture, result.boxes[kept], colours=colours or [(255, 210, 0)] * len(kept))
    draw_tags(picture, result.boxes[kept], names, result.scores[kept], colours)
    if legend and labels and colours:
        present = dict(sorted(zip(labels, colours, strict=True)))
        draw_legend(picture, [(f"{result.names[label]} ({labels.count(label)})", colour)
                              for label, colour in present.items()])  # fmt: skip


def draw_tags(
    picture: Array, boxes: Array, names: list[str], scores: Array, colours: list[Colour] | None
) -> None:
    """Names and scores in percent, in place; the last are the best. One that would cover a better one is left out."""
    taken: list[tuple[int, int, int, int]] = []
    for place in reversed(range(len(boxes))):
        if not np.isfinite(boxes[place]).all():
            continue
        text = f"{names[place]} {100 * float(scores[place]):.0f}"
        x, y = (round(float(value)) for value in np.clip(boxes[place][:2], -FARTHEST, FARTHEST))
        left, top, right, bottom = plate = tag_box(picture, text, (x, y))
        if any(left <= r and right >= l and top <= b and bottom >= t for l, t, r, b in taken):  # noqa: E741
            continue
        taken.append(plate)
        tag(picture, text, (x, y), colours[place] if colours else (255, 210, 0))


def bright(colour: Colour) -> Colour:
    """A colour of a palette light enough for a thin line on any picture: its largest part 230 or more, then as much white
    as brings its brightness to 95."""
    most = max(colour)
    parts = np.array(colour if most else (1, 1, 1), np.float64) * (max(most, 230) / max(most, 1))
    light = float(parts @ [0.299, 0.587, 0.114])
    white = max(0.0, (LIGHT - light) / (255 - light)) if light < 255 else 0.0
    red, green, blue = (int(value) for value in np.round(parts + white * (255 - parts)).clip(0, 255))
    return red, green, blue


def draw_people(
    picture: Array, result: Record, *, least: float, points: bool, lines: bool, axes: bool
) -> None:
    """Skeletons, and of faces how they are turned, in place; the best on top."""
    found = result.keypoints if result.keypoints is not None else result.points
    assert found is not None and result.skeleton is not None
    for place in reversed(range(len(found))):
        triples = found[place]
        draw_skeleton(
            picture, triples[:, :2], triples[:, 2], result.skeleton, threshold=least, dots=points, lines=lines
        )
        if axes and result.angles_degrees is not None:
            draw_head(picture, triples[:, :2], np.radians(result.angles_degrees[place]), result.skeleton)
        if result.track_ids is not None and result.boxes is not None and result.track_ids[place]:
            draw_track(picture, result.boxes[place], int(result.track_ids[place]))


def draw_track(picture: Array, box: Array, number: int) -> None:
    """The number of a person or face at the upper left of its box."""
    tag(picture, str(number), (round(float(box[0])), round(float(box[1]))), (255, 255, 255))


def people_legend(result: Record) -> list[tuple[str, Colour | None]]:
    """What the colours of people say, where their sides are known."""
    assert result.skeleton is not None
    if not result.skeleton.pairs:
        return []
    return [(side, hue_colour(HUES[side][0])) for side in ("left", "right")]


KINDS = {
    "segmentation": ("color", "overlay", "ids", "submission"),
    "classification": ("cards", "table"),
}
"""Ways to write a result as a picture, by task; the others have one way."""


def render(result: Record, kind: str, **options: Any) -> Array:
    """The result as a picture to write: `color` (classes in their colours), `ids`, `submission` (ids of the data set's test
    server), (H, W) uint8; `cards`, of classification, all of one size; or anything else: as `draw` with its options. A grey
    picture that was made stays (H, W)."""
    if result.picture is not None and result.picture.ndim == 2:
        return np.array(result.picture)
    if result.ids is not None and kind in ("color", "ids", "submission"):
        if kind == "ids":
            return result.ids
        if kind == "color":
            return colours_of(result)[result.ids]
        if not result.file_ids:
            raise ConfigError(
                "write: this data set's files hold the class ids themselves; there is no other numbering for a "
                "test server. Use write=ids."
            )
        table = np.arange(256, dtype=np.uint8)
        for label, number in result.file_ids.items():
            table[label] = number
        return table[result.ids]
    if result.classes is not None and kind == "cards":
        lines = [(f"{each.score:.0%} {each.name}", GREY) for each in result.classes[:DRAWN_CLASSES]]
        return card(background(result), lines)
    known = KINDS.get(result.kind, ())
    if known and kind not in known:
        raise ConfigError(f"write: the task '{result.kind}' has no '{kind}'. {nearest(kind, known)}")
    return draw(result, **options)
