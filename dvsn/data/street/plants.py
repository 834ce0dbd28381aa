"""Trees and hedges: world metres, with crowns stamped from sprites."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from dvsn.data.street.canvas import Canvas, piece
from dvsn.data.street.geometry import band, spread, unit_steps
from dvsn.data.street.light import Color, Light, pick, tint
from dvsn.data.street.textures import seamless_noise

LEAVES: tuple[Color, ...] = (
    (74, 104, 44),
    (88, 116, 50),
    (62, 94, 50),
    (106, 120, 52),
    (72, 98, 40),
    (134, 112, 48),
)


@lru_cache(maxsize=1)
def crowns() -> tuple[np.ndarray, ...]:
    """Six tree crowns, (160, 160) uint8: 0 clear, else the light on the leaves, which comes from the upper
    left.
    """
    rng = np.random.default_rng(3)
    side = 160
    y, x = (np.mgrid[0:side, 0:side] + 0.5 - side / 2) / (side / 2)
    sprites = []
    for _ in range(6):
        rough = seamless_noise(rng, 0.9, low=0.02)[:side, :side]
        fine = seamless_noise(rng, 0.35, low=0.04)[:side, :side]
        depth = np.full((side, side), -9.0)
        light = np.zeros((side, side))
        solid = np.zeros((side, side), bool)
        for _ in range(46):
            angle, far = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform()) * 0.68
            cx, cy, r = far * np.cos(angle), far * np.sin(angle) * 0.9, rng.uniform(0.16, 0.34)
            cz = np.sqrt(max(0.0, 0.75 - far**2)) * rng.uniform(0.3, 1.0)
            dx, dy = (x - cx) / r, (y - cy) / r
            inside = dx**2 + dy**2 < 1 + 0.22 * rough
            bulge = np.sqrt(np.maximum(0.02, 1 - np.minimum(dx**2 + dy**2, 1)))
            here = cz + r * bulge
            front = inside & (here > depth)
            depth[front] = here[front]
            shade = np.clip(-0.5 * dx - 0.68 * dy + 0.5 * bulge, 0, 1.2) * (
                0.55 + 0.45 * (-0.4 * x - 0.5 * y + here)
            )
            light[front] = shade[front]
            solid |= inside
        tone = np.clip(70 + 150 * light + 26 * fine + 10 * rough, 1, 255)
        solid = cv2.morphologyEx(solid.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)) > 0
        sprites.append(np.where(solid, tone, 0).astype(np.uint8))
    return tuple(sprites)


def leaf_ramp(light: Light, leaf: Sequence[float]) -> np.ndarray:
    """(256, 3): from deep shade to full sun."""
    dark, bright = light.shade(tint(leaf, 0.42), (0, 0, 0)), light.shade(tint(leaf, 1.35), light.sun)
    share = unit_steps(256)[:, None] * 1.25 - 0.15
    return np.asarray(dark) + (np.asarray(bright) - np.asarray(dark)) * share


def choose_crown(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    sprite = crowns()[int(rng.integers(6))]
    return sprite[:, ::-1] if canvas.light.sun[0] > 0 else sprite


def paint_tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float, height: float) -> None:
    """A trunk with a fork, and a crown."""
    camera, light = canvas.camera, canvas.light
    part = canvas.new_part("vegetation", camera.upright(z), "leaves")
    size = camera.focal / z
    radius = height * float(rng.uniform(0.27, 0.35))
    lean = float(rng.normal(0, 0.12))
    ramp = leaf_ramp(light, pick(rng, LEAVES, 0.9, 1.12))
    sprite = choose_crown(canvas, rng)
    squeeze = float(rng.uniform(0.9, 1.15))
    foot, fork, top = camera.project(
        np.array([[x, 0.0, z], [x + lean, height - 1.5 * radius, z], [x + lean, height - radius, z]])
    )
    girth = max(0.6, 0.018 * height * size)
    trunk = piece(part, "trunk")
    bark = light.shade((96, 78, 60))
    canvas.convex(band(foot, fork, (-girth, girth), (-0.7 * girth, 0.7 * girth)), bark, trunk)
    if girth > 1.2:
        bright = -girth if light.sun[0] < 0 else girth
        canvas.convex(band(foot, fork, (0, bright), (0, 0.7 * bright)), tint(bark, 1.25), trunk)
        for reach in (-0.5, 0.45):
            end = top + np.array([reach * radius * size, 0])
            canvas.capsule((fork, end), (0.55 * girth, 0.3 * girth), tint(bark, 0.9), trunk)
    canvas.stamp(sprite, top, (2.1 * radius * size * squeeze, 2.1 * radius * size), ramp, part)


def paint_hedge(
    canvas: Canvas,
    rng: np.random.Generator,
    *,
    side: int,
    inner: float,
    start: float,
    end: float,
    height: float,
) -> None:
    """A row of bushes along X = side * inner."""
    camera, light = canvas.camera, canvas.light
    green = pick(rng, LEAVES[:3], 0.85, 1.1)
    ends = np.array([[side * inner, 0.0, start], [side * inner, 0.0, end]])
    part = canvas.new_part("vegetation", camera.wall(*ends), "leaves")
    up = np.array([0.0, height * 0.8, 0.0])
    canvas.solid(
        np.array([ends[0], ends[1], ends[1] + up, ends[0] + up]),
        light.shade(tint(green, 0.7), (-side, 0.3, 0)),
        part,
    )
    back = np.array([side * 3.0, 0.0, 0.0])
    canvas.solid(
        np.array([ends[0], ends[0] + up, ends[0] + up + back, ends[0] + back]),
        light.shade(tint(green, 0.6)),
        part,
    )
    ramp = leaf_ramp(light, green)
    for z in spread(end, start + 0.3, 14).tolist():
        at = camera.project(np.array([side * (inner + 0.25), height * 0.52, z]))
        size = height * camera.focal / z
        canvas.stamp(choose_crown(canvas, rng), at, (1.2 * size, 1.04 * size), ramp, part)
