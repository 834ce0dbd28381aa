"""Buildings along the street: blocks with windows, shops, doors and roofs, in metres of the world's frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dvsn.data.street.canvas import Canvas, piece
from dvsn.data.street.light import Color, Light, mix, pick, tint
from dvsn.data.street.walls import Wall

WALLS: tuple[Color, ...] = (
    (226, 214, 190), (214, 190, 150), (232, 226, 214), (190, 176, 158), (206, 160, 128), (168, 92, 72),
    (150, 78, 62), (184, 120, 92), (196, 200, 204), (160, 166, 172), (224, 204, 150), (176, 190, 178),
    (222, 176, 160), (136, 128, 122), (236, 232, 226), (120, 104, 96),
)  # fmt: skip
SHOPS: tuple[Color, ...] = (
    (150, 40, 38),
    (36, 66, 110),
    (40, 92, 66),
    (52, 52, 56),
    (196, 150, 60),
    (110, 56, 110),
)
ROOFS: tuple[Color, ...] = ((150, 74, 52), (92, 84, 84), (120, 96, 82))
DOORS: tuple[Color, ...] = ((96, 62, 42), (54, 70, 62), (64, 64, 72), (120, 40, 36))


@dataclass(frozen=True)
class Facade:
    """How one building looks: colours are RGB albedo, lengths metres."""

    wall: Color
    trim: Color
    glass: Color
    roof: Color
    material: str
    storey: float
    pitch: float
    window: tuple[float, float]  # width, height
    pitched: bool
    shop: Color | None
    bands: bool


def choose_facade(rng: np.random.Generator) -> Facade:
    wall = pick(rng, WALLS, 0.88, 1.06)
    brick = wall[0] > wall[2] * 1.7 or rng.random() < 0.15
    width = float(rng.uniform(1.0, 1.7))
    return Facade(
        wall=wall,
        trim=(236, 232, 224) if rng.random() < 0.75 else tint(wall, 0.72),
        glass=tint((52, 64, 76), float(rng.uniform(0.6, 1.15))),
        roof=pick(rng, ROOFS, 0.9, 1.1),
        material="brick" if brick else "plaster",
        storey=float(rng.uniform(2.9, 3.6)),
        pitch=width + float(rng.uniform(0.9, 1.9)),
        window=(width, float(rng.uniform(1.4, 2.0))),
        pitched=bool(rng.random() < 0.5),
        shop=pick(rng, SHOPS) if rng.random() < 0.5 else None,
        bands=bool(rng.random() < 0.55),
    )


def paint_building(
    canvas: Canvas,
    rng: np.random.Generator,
    *,
    side: int,
    inner: float,
    start: float,
    end: float,
    height: float,
    exposed: bool,
) -> None:
    """A block between depths `start` and `end`; its street wall stands at X = side * inner.

    `exposed`: there is a gap before it, so the wall that faces us has windows.
    """
    camera, light = canvas.camera, canvas.light
    style = choose_facade(rng)
    x = side * inner
    street = Wall((x, 0.0, start), (0.0, 0.0, 1.0), end - start, height, (-side, 0.0, 0.0))
    front = Wall((x, 0.0, start), (float(side), 0.0, 0.0), 12.0, height, (0.0, 0.0, -1.0))
    if style.pitched:
        roof = canvas.new_part("building", camera.upright((start + end) / 2), "plaster")
        rise = float(rng.uniform(2.2, 3.6))
        ridge, top = side * (inner + 4.5), height + rise
        gable = np.array([[x, height, start], [ridge, top, start], [side * (inner + 9), height, start]])
        if (inner + side * camera.bend * start**2) * rise > (
            height - camera.eye
        ) * 4.5:  # seen from above its plane
            slope = np.array([[x, height, start], [x, height, end], [ridge, top, end], [ridge, top, start]])
            canvas.solid(slope, light.shade(style.roof, (-side * 0.5, 0.85, 0.0)), piece(roof, "roof"))
        canvas.solid(gable, light.shade(style.wall, (0, 0, -1)), roof)
    for wall in (front, street):
        ends = np.array(
            [wall.start, (wall.start[0] + wall.along[0] * wall.length, 0.0, start if wall is front else end)]
        )
        part = canvas.new_part("building", camera.wall(*ends), style.material)
        color = light.shade(style.wall, wall.normal)
        wall.add([[0, 0, wall.length, height]], color)
        sharp = camera.focal / (start + wall.along[2] * wall.length * 0.4)  # pixels per metre
        run = abs(float(np.diff(camera.project(ends)[:, 0])[0]))
        if run > 3 and (wall is street or exposed):
            plan_facade(rng, light, wall, style, sharp, shop=wall is street)
        wall.paint(canvas, part)


def plan_facade(
    rng: np.random.Generator, light: Light, wall: Wall, style: Facade, sharp: float, *, shop: bool
) -> None:
    """Windows, sills, bands and ground floor, if larger than a pixel at `sharp` pixels per metre."""
    lit, plain = light.shade(style.trim, wall.normal), light.shade(style.wall, wall.normal)
    columns = int((wall.length - 0.6) // style.pitch)
    storeys = int((wall.height - 0.5) // style.storey)
    if columns < 1 or storeys < 1:
        return
    width, tall = style.window
    left = (wall.length - columns * style.pitch) / 2 + (np.arange(columns) + 0.5) * style.pitch - width / 2
    bottom = np.arange(1 if shop else 0, storeys) * style.storey + 0.9
    bottom = bottom[bottom + tall < wall.height - 0.3]
    grid = np.empty((len(bottom), columns, 4))
    grid[..., 0], grid[..., 1] = left, bottom[:, None]
    grid[..., 2], grid[..., 3] = left + width, bottom[:, None] + tall
    boxes = grid.reshape(-1, 4)
    if style.bands and sharp > 8:
        levels = np.arange(1, storeys + 1) * style.storey
        wall.add([[0, h - 0.12, wall.length, h + 0.12] for h in levels if h < wall.height - 0.6], lit, "trim")
    if sharp > 5:
        wall.add([[0, 0, wall.length, 0.6]], tint(plain, 0.72), "base")
    wall.add([[0, wall.height - 0.45, wall.length, wall.height]], tint(lit, 0.9), "trim")
    sky = mix(light.sky_bottom, light.sky_top, 0.4)
    glass = mix(tint(style.glass, sum(light.ambient) / 2), sky, 0.22)
    if sharp > 8:
        wall.add(boxes + np.array([-0.14, -0.14, 0.14, 0.14]), lit, "trim")
    if sharp > 14:
        wall.add(boxes[:, [0, 1, 2, 1]] + np.array([-0.25, -0.26, 0.25, -0.06]), tint(lit, 1.06), "trim")
    draw = rng.random(len(boxes))
    bright, blind = draw < light.lamps, draw > 0.72
    if sharp > 5:
        wall.add(boxes[~bright & ~blind], glass, "window")
        wall.add(boxes[blind & ~bright], mix(glass, sky, 0.45), "blind")
    else:
        wall.add(boxes[~bright], mix(glass, sky, 0.12), "window")
    wall.add(boxes[bright], (250, 208, 128), "lit")
    if sharp > 8:
        shaded = boxes[~bright] * 1.0
        shaded[:, 1] += 0.7 * tall
        wall.add(shaded, tint(glass, 0.72), "window")
    if sharp > 14:
        middle = (boxes[:, [0, 1, 0, 3]] + boxes[:, [2, 1, 2, 3]]) / 2
        wall.add(middle + np.array([-0.05, 0, 0.05, 0]), lit, "trim")
    if shop and sharp > 5:
        plan_ground_floor(rng, light, wall, style, glass, sharp)


def plan_ground_floor(
    rng: np.random.Generator, light: Light, wall: Wall, style: Facade, glass: Color, sharp: float
) -> None:
    """Either shop windows under a fascia, or doors and windows."""
    bays = max(1, int(wall.length // 3.4))
    edges = np.linspace(0.5, wall.length - 0.5, bays + 1)
    door = int(rng.integers(bays))
    named = rng.random(bays) < 0.7
    wood = pick(rng, DOORS)
    frame = light.shade(style.trim, wall.normal)
    panes = np.stack((edges[:-1] + 0.25, np.full(bays, 0.5), edges[1:] - 0.25, np.full(bays, 2.5)), axis=-1)
    if style.shop is not None:
        color = light.shade(style.shop, wall.normal)
        wall.add([[0.2, 0.1, wall.length - 0.2, 3.0]], tint(color, 0.8), "shop")
        wall.add(panes, mix(glass, (255, 220, 160), 0.1 + 0.7 * min(1.0, light.lamps * 2)), "display")
        if sharp > 10:
            wall.add(
                panes * (1, 1, 1, 0.45) + np.array([0.15, 0.05, -0.15, 0]),
                mix(glass, style.shop, 0.35),
                "display",
            )
        wall.add([[0.1, 2.55, wall.length - 0.1, 3.1]], color, "shop")
        if sharp > 10:
            words = panes[named] * (1, 0, 1, 0) + np.array([0.35, 2.7, -0.35, 2.95])
            wall.add(words, mix(color, (255, 255, 255), 0.75), "lettering")
    else:
        center = np.delete((panes[:, 0] + panes[:, 2]) / 2, door)
        half = style.window[0] / 2
        small = np.stack(
            (center - half, np.full(bays - 1, 1.0), center + half, np.full(bays - 1, 2.4)), axis=-1
        )
        wall.add(small + np.array([-0.12, -0.12, 0.12, 0.12]), frame, "trim")
        wall.add(small, glass, "window")
    if sharp > 8:
        middle = float(panes[door, [0, 2]].mean())
        wall.add([[middle - 0.65, 0.0, middle + 0.65, 2.35]], frame, "trim")
        wall.add([[middle - 0.52, 0.0, middle + 0.52, 2.25]], light.shade(wood, wall.normal), "door")
