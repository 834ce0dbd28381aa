"""From the painted canvas to the photo (RGB 0..255): texture, shadow, haze, lens and grain."""

from __future__ import annotations

import cv2
import numpy as np

from dvsn.data.cityscapes_labels import ID_OF
from dvsn.data.street.canvas import MATERIALS, PIECE_BITS, Canvas
from dvsn.data.street.textures import PER_METRE, TILE, grain_field, textures

IS_GROUND = np.zeros(256, bool)
IS_GROUND[[ID_OF[name] for name in ("road", "sidewalk", "parking", "terrain", "ground", "rail track")]] = True


def finish(
    canvas: Canvas, shadow: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texture, shadow, haze, lens and grain. Returns the photo (H, W, 3) uint8, the part map and that of pieces (H, W).

    `shadow` (H, W) float32 in 0..1 darkens whatever lies on the ground.
    """
    height, width, camera, light = canvas.height, canvas.width, canvas.camera, canvas.light
    planes = cv2.split(cv2.resize(canvas.plane, (width, height), interpolation=cv2.INTER_AREA))[:3]
    part, pieces = settle(cv2.extractChannel(canvas.plane, 3))
    across, down, level = (np.asarray(column, np.float32) for column in zip(*canvas.planes, strict=True))
    x = np.arange(width, dtype=np.float32)[None, :]
    y = np.arange(height, dtype=np.float32)[:, None]
    inverse = np.clip(across[part] * x + down[part] * y + level[part], 1e-4, 2.0)  # 1 / Z
    z = 1.0 / inverse
    labels, materials = np.asarray(canvas.labels), np.asarray(canvas.materials)
    ground = IS_GROUND[labels][part]
    # texture: ground by (X, Z), everything upright by (X + Z, height)
    table = np.asarray(list(MATERIALS.values()), np.float32)[materials]
    channel, strength, far = (table[:, k].copy()[part] for k in range(3))
    scale = np.float32(1 / camera.focal)
    map_x = (x - np.float32(camera.center)) * scale * z - np.float32(camera.bend) * z * z
    map_x += np.where(ground, np.float32(0), z)
    map_y = np.where(ground, z, (y - np.float32(camera.horizon)) * scale * z)
    map_x = wrap(map_x * np.float32(PER_METRE))
    map_y = wrap(map_y * np.float32(PER_METRE)) + channel * TILE
    texel = cv2.remap(textures(), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    near = np.minimum(1.0, inverse * np.float32(camera.focal / 40))
    gain = 1 + texel * (strength * (near + far * (1 - near)))
    dark = np.where(ground, shadow, np.float32(0))
    clear = np.exp(z * np.float32(-light.density))
    clear[(labels == ID_OF["sky"])[part]] = 1
    vignette = 1 - 0.22 * ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2)
    contrast = np.float32(rng.uniform(1.0, 1.1))
    noise, grain = np.float32(rng.uniform(0.05, 0.11)), grain_field()
    sigma = 0.45 * max(1.0, height / 512)
    photo = np.empty((height, width, 3), np.uint8)
    for c, plane in enumerate(planes):
        sun = np.float32(light.sun_color[c] / (light.sun_color[c] + light.ambient[c]))
        lit = plane * gain * (1 - sun * dark)
        lit = light.haze[c] + (lit - np.float32(light.haze[c])) * clear
        lit = cv2.GaussianBlur(lit, (3, 3), sigma) * vignette
        start = int(rng.integers(len(grain)))
        speckle = cut(grain, start, height * width).reshape(height, width)
        lit = (lit - 128) * contrast + (128.5 + speckle * noise)
        photo[..., c] = np.clip(lit, 0, 255)
    return photo, part, pieces


def wrap(texels: np.ndarray) -> np.ndarray:
    """Texels modulo TILE. As TILE is a power of two this is np.mod to the bit, and faster."""
    return texels - np.floor(texels * np.float32(1 / TILE)) * np.float32(TILE)


def cut(values: np.ndarray, start: int, count: int) -> np.ndarray:
    """`count` values from `start` on, going round."""
    if start + count <= len(values):
        return values[start : start + count]
    return np.take(values, np.arange(start, start + count), mode="wrap")


def settle(painted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Halve a map of part numbers: of each 2 x 2 the part that occurs twice, else the first; and a piece of that part.

    (2H, 2W) uint16 -> (H, W) intp and (H, W) uint16. Pieces do not vote for the part, so that it is the same with and
    without them.
    """
    own = np.uint16((1 << PIECE_BITS) - 1)
    quarters = [painted[i::2, j::2].copy() for i in (0, 1) for j in (0, 1)]
    part = majority(*(each & own for each in quarters))
    whole = majority(*quarters)
    other = np.flatnonzero((whole & own) != part)
    if len(other):  # take the first of the four that is of this part
        mine, four = part.flat[other], np.stack([each.flat[other] for each in quarters])
        first = ((four & own) == mine).argmax(axis=0)
        whole.flat[other] = four[first, np.arange(len(other))]
    return part.astype(np.intp), whole >> PIECE_BITS


def majority(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """The number that occurs twice among four, else the first."""
    return np.where((b == c) | (b == d), b, np.where(c == d, c, a))
