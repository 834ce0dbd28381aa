"""Shadows on the ground: world polygons in metres, painted into a plane over the picture."""

from __future__ import annotations

import cv2
import numpy as np

from dvsn.data.street.canvas import Canvas
from dvsn.data.street.geometry import clip_near


class Shadows:
    """Collects ground polygons (n, 3): `casts` lie in the sun's shadow, `contacts` under things."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas
        self.casts: list[np.ndarray] = []
        self.contacts: list[np.ndarray] = []

    def under(self, base: np.ndarray, height: float) -> None:
        """A thing of this height that stands on the ground polygon `base`."""
        self.contacts.append(base)
        self.body(base, height)

    def body(self, base: np.ndarray, height: float) -> None:
        """The shadow of an upright body over `base`: the hull of its foot and its displaced top."""
        sun = self.canvas.light.sun
        if max(self.canvas.light.sun_color) < 0.2:
            return
        reach = min(height / max(0.12, sun[1]), 40.0)
        moved = base - reach * np.array([sun[0], 0.0, sun[2]])
        flat = np.concatenate((base, moved))[:, [0, 2]].astype(np.float32)
        ring = cv2.convexHull(flat).reshape(-1, 2)
        self.casts.append(np.stack((ring[:, 0], np.full(len(ring), base[0, 1]), ring[:, 1]), axis=-1))

    def block(self, side: int, inner: float, start: float, end: float, height: float) -> None:
        a, b = side * inner, side * (inner + 12)
        self.body(np.array([[a, 0.0, start], [a, 0, end], [b, 0, end], [b, 0, start]]), height)

    def post(self, x: float, z: float, height: float, width: float) -> None:
        half = width / 2
        self.body(np.array([[x - half, 0.05, z], [x + half, 0.05, z], [x, 0.05, z + half]]), height)

    def disc(self, x: float, z: float, height: float, radius: float) -> None:
        sun = self.canvas.light.sun
        if max(self.canvas.light.sun_color) < 0.2:
            return
        reach = min(height / max(0.12, sun[1]), 40.0)
        angle = np.arange(14) * 2 * np.pi / 14
        rough = radius * (1 + 0.15 * np.cos(5 * angle))
        ring = np.stack((x + rough * np.cos(angle), np.full(14, 0.05), z + rough * np.sin(angle)), axis=-1)
        self.casts.append(ring - reach * np.array([sun[0], 0.0, sun[2]]))

    def paint(self) -> np.ndarray:
        """(H, W) float32: 0 in the light, 1 in full shadow; soft below vehicles and feet."""
        height, width = self.canvas.height, self.canvas.width
        cast = np.zeros((height, width), np.uint8)
        under = np.zeros((height, width), np.uint8)
        for polygons, plane in ((self.casts, cast), (self.contacts, under)):
            for polygon in polygons:
                cut = clip_near(polygon)
                if len(cut) > 2:
                    at = np.clip(self.canvas.camera.project(cut) * 8, -(1 << 17), 1 << 17)
                    cv2.fillPoly(plane, [np.rint(at).astype(np.int32)], (255,), shift=3)
        soft = cv2.GaussianBlur(cast, (0, 0), max(0.6, height / 320)).astype(np.float32) * (0.8 / 255)
        wide = cv2.GaussianBlur(under, (0, 0), max(0.8, height / 110)).astype(np.float32) * (1.3 / 255)
        return np.minimum(1.35, np.maximum(soft, 0.0) + wide)
