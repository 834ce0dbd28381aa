"""The sky with its clouds, in picture pixels, and the skyline at the end of the street."""

from __future__ import annotations

import cv2
import numpy as np

from dvsn.data.street.canvas import SCALE, Canvas
from dvsn.data.street.geometry import FAR
from dvsn.data.street.textures import TILE, cloud_field


def paint_sky(canvas: Canvas, rng: np.random.Generator) -> None:
    """A vertical gradient with a glow near the sun, and clouds on a plane overhead."""
    camera, light, width = canvas.camera, canvas.light, canvas.width
    below = min(canvas.height, int(np.ceil(camera.horizon)) + 2)
    rows = np.arange(below, dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None, :]
    cover = float(rng.uniform(-0.6, 1.1))
    offset = rng.uniform(0, TILE, 2)
    depth = 0.22 / np.maximum((camera.horizon - rows) / canvas.height + 0.12, 0.02)
    map_x = (columns - camera.center) / width * (90 + 160 * depth) + offset[0]
    map_y = np.broadcast_to(150 * depth + offset[1], map_x.shape)
    clouds = cv2.remap(cloud_field(), (map_x % TILE).astype(np.float32), (map_y % TILE).astype(np.float32),
                       cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)  # fmt: skip
    opaque = np.clip((clouds + (cover - 0.55)) * 0.9, 0, 0.9)
    gray = np.clip(clouds - 0.9, 0, 1) * 26
    fall = np.clip(rows / max(1.0, camera.horizon), 0, 1) ** 0.8
    glow = np.float32(0)
    if light.sun[2] > 0.05 and max(light.sun_color) > 0.3:
        spot_x = camera.center + camera.focal * light.sun[0] / light.sun[2]
        spot_y = camera.horizon - camera.focal * light.sun[1] / light.sun[2]
        spread = 2 * (0.22 * width) ** 2
        glow = 0.75 * np.exp(-((columns - spot_x) ** 2) / spread) * np.exp(-((rows - spot_y) ** 2) / spread)
    part = canvas.new_part("sky", (0.0, 0.0, 0.0), "none")
    canvas.plane[..., 3] = part
    for c in range(3):
        sky = light.sky_top[c] + (light.sky_bottom[c] - light.sky_top[c]) * fall
        sky = sky + (light.cloud[c] - gray - sky) * opaque
        sky = np.clip(sky + (255 - sky) * glow, 0, 255).astype(np.uint8)
        canvas.plane[: below * SCALE, :, c] = cv2.resize(sky, (width * SCALE, below * SCALE))


def paint_skyline(canvas: Canvas, rng: np.random.Generator) -> None:
    """Distant roofs and trees where the street ends."""
    camera, light = canvas.camera, canvas.light
    wooded = rng.random() < 0.45
    part = canvas.new_part("vegetation" if wooded else "building", camera.upright(FAR * 1.5), "plaster")
    base = (70, 92, 60) if wooded else (150, 140, 132)
    count = 90
    x = np.linspace(-4, canvas.width + 4, count)
    size = camera.focal / (FAR * 1.5)
    if wooded:
        top = 9 + np.convolve(rng.normal(0, 3.5, count + 4), np.ones(5) / 5, "valid")
    else:
        top = np.repeat(rng.uniform(6, 20, count // 5), 5)
    y = camera.horizon - np.maximum(top, 2) * size
    if not wooded:
        x, y = np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
    floor = camera.horizon + 3
    outline = np.concatenate((np.stack((x, y), axis=-1), [[x[-1], floor], [x[0], floor]]))
    canvas.polygon(outline, light.shade(base, (0, 0.3, -0.6)), part)
