"""Poles, lamps, traffic signs and traffic lights: world metres, details in picture pixels."""

from __future__ import annotations

import numpy as np

from dvsn.data.street.canvas import Canvas, piece
from dvsn.data.street.geometry import band
from dvsn.data.street.light import Color, mix, tint


def paint_post(canvas: Canvas, x: float, z: float, height: float, width: float, color: Color) -> int:
    """A vertical pole; returns its part."""
    camera = canvas.camera
    part = canvas.new_part("pole", camera.upright(z))
    foot, top = camera.project(np.array([[x, 0.0, z], [x, height, z]]))
    half = max(0.55, width * camera.focal / z / 2)
    lit = canvas.light.shade(color)
    canvas.convex(band(foot, top, (-half, half), (-half, half)), lit, part)
    if half > 1:
        bright = half * (0.6 if canvas.light.sun[0] > 0 else -0.6)
        canvas.convex(band(foot, top, (0, bright), (0, bright)), tint(lit, 1.3), part)
    return part


def paint_lamp(canvas: Canvas, x: float, z: float, side: int, height: float) -> None:
    """A street lamp whose arm reaches over the road."""
    camera, light = canvas.camera, canvas.light
    part = paint_post(canvas, x, z, height, 0.16, (112, 118, 120))
    color = light.shade((112, 118, 120))
    reach, size = x - side * 1.9, camera.focal / z
    arm = np.array([[x, height, z], [x - side * 0.5, height + 0.35, z], [reach, height + 0.45, z]])
    bend = camera.project(arm)
    half = max(0.5, 0.05 * size)
    canvas.capsule(bend[:2], (half, half), color, part)
    canvas.capsule(bend[1:], (half, half), color, part)
    head = bend[2] + size * np.array([[-0.35, 0.07], [0.35, 0.07], [0.3, -0.13], [-0.3, -0.13]])
    canvas.convex(head, color, part)
    glow = (255.0, 232.0, 170.0) if light.lamps > 0.2 else light.shade((206, 206, 200))
    canvas.convex(
        bend[2] + size * np.array([[-0.35, 0.03], [0.35, 0.03], [0.33, 0.09], [-0.33, 0.09]]),
        glow,
        piece(part, "lamp"),
    )


def paint_sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A traffic sign on its post."""
    camera, light = canvas.camera, canvas.light
    height = float(rng.uniform(2.3, 2.9))
    paint_post(canvas, x, z, height + 0.2, 0.09, (140, 144, 148))
    part = canvas.new_part("traffic sign", camera.upright(z))
    center = camera.project(np.array([x, height, z]))
    radius = float(rng.uniform(0.34, 0.46)) * camera.focal / z

    def shape(corners: int, turn: float, scale: float, color: Color, name: str = "") -> None:
        angles = np.arange(corners) * 2 * np.pi / corners + turn
        outline = center + scale * radius * np.stack((np.sin(angles), -np.cos(angles)), axis=-1)
        canvas.convex(outline, color, piece(part, name))

    def box(left: float, top: float, right: float, bottom: float, color: Color, name: str = "symbol") -> None:
        outline = center + radius * np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        canvas.convex(outline, color, piece(part, name))

    white, red, blue, yellow, black = (
        light.shade(c, (0.0, 0.3, -0.9))
        for c in ((238, 238, 236), (204, 28, 36), (24, 76, 168), (246, 196, 32), (28, 28, 30))
    )
    kind = int(rng.integers(8))
    if kind == 0:  # stop
        shape(8, np.pi / 8, 1.05, white)
        shape(8, np.pi / 8, 0.93, red, "symbol")
        box(-0.6, -0.18, 0.6, 0.18, white)
    elif kind == 1:  # give way
        shape(3, np.pi, 1.2, red)
        shape(3, np.pi, 0.72, white, "symbol")
    elif kind == 2:  # warning
        shape(3, 0, 1.2, red)
        shape(3, 0, 0.75, white, "symbol")
        box(-0.08, -0.3, 0.08, 0.22, black, "")
    elif kind == 3:  # no entry
        shape(20, 0, 1.0, red)
        box(-0.68, -0.17, 0.68, 0.17, white)
    elif kind == 4:  # speed limit
        shape(20, 0, 1.0, red)
        shape(20, 0, 0.76, white, "symbol")
        for left in (-0.42, 0.08):
            box(left, -0.35, left + 0.34, 0.35, black, "")
            box(left + 0.1, -0.22, left + 0.24, 0.22, white)
    elif kind == 5:  # parking
        box(-0.9, -0.9, 0.9, 0.9, blue, "")
        box(-0.36, -0.6, 0.36, 0.14, white)
        box(-0.1, -0.38, 0.14, -0.1, blue, "")
        box(-0.36, -0.6, -0.12, 0.62, white)
    elif kind == 6:  # priority road
        shape(4, 0, 1.2, white)
        shape(4, 0, 0.85, yellow, "symbol")
    else:  # place name
        paper, ink = (blue, white) if rng.random() < 0.5 else (yellow, black)
        box(-1.8, -0.8, 1.8, 0.8, white, "")
        box(-1.7, -0.7, 1.7, 0.7, paper, "")
        box(-1.3, -0.45, 1.0, -0.2, ink)
        box(-1.3, 0.1, 0.5, 0.35, ink)


def paint_traffic_light(canvas: Canvas, x: float, z: float, state: int) -> None:
    """Three lamps in a dark box on a pole; `state` 0 red, 1 amber, 2 green."""
    camera, light = canvas.camera, canvas.light
    paint_post(canvas, x, z, 3.1, 0.13, (92, 98, 98))
    part = canvas.new_part("traffic light", camera.upright(z))
    size = camera.focal / z
    center = camera.project(np.array([x, 2.9, z]))
    corners = np.array([[-0.19, -0.52], [0.19, -0.52], [0.19, 0.52], [-0.19, 0.52]]) * size
    canvas.convex(center + corners * 1.12, light.shade((58, 60, 60)), part)
    canvas.convex(center + corners, light.shade((30, 32, 32)), part)
    lamps: tuple[Color, ...] = ((255, 48, 40), (255, 186, 40), (60, 240, 120))
    for i, lamp in enumerate(lamps):
        at = center + np.array([0.0, (i - 1) * 0.33 * size])
        own = piece(part, "lamp" if i == state else "")
        canvas.dot(at, 0.135 * size, lamp if i == state else tint(lamp, 0.2), own)
        if i == state:
            canvas.dot(at, 0.07 * size, mix(lamp, (255, 255, 255), 0.6), own)
