"""The brushes of the street generator: camera, light, canvas, and how each kind of thing is drawn.

World frame: metres, X to the right, Y up from the road, Z forward from the camera. Picture frame: (x, y)
pixels, centres at integers. A thing is painted from far to near on a canvas of twice the size: once into the
photo, once into a map of *part* numbers. A part knows its label, its instance, its material and the plane it
lies on, so the labels, the haze and the surface texture all come from the same map and cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from dvsn.data.cityscapes_labels import ID_OF

Color = tuple[float, float, float]
Plane = tuple[float, float, float]

SCALE = 2  # the canvas is drawn at twice the size and averaged down
NEAR = 1.0  # metres; nothing is drawn nearer
FAR = 160.0  # metres; where the street ends
SUBPIXEL = 3  # bits
TILE = 512  # pixels of the square texture, 64 to a metre
PER_METRE = 64.0

# material: (texture channel, strength, strength left when far away)
MATERIALS = {
    "none": (0, 0.0, 0.0),
    "smooth": (0, 0.012, 0.5),
    "asphalt": (0, 0.045, 0.35),
    "plaster": (0, 0.03, 0.4),
    "brick": (1, 0.075, 0.15),
    "slabs": (2, 0.055, 0.15),
    "leaves": (3, 0.14, 0.6),
    "grass": (3, 0.09, 0.4),
    "cloth": (0, 0.025, 0.5),
}
MATERIAL_INDEX = {name: i for i, name in enumerate(MATERIALS)}


@dataclass(frozen=True)
class Camera:
    """A level pinhole camera `eye` metres above the road, looking along a street bent by `bend` * Z**2."""

    focal: float
    center: float  # x of the vanishing point
    horizon: float  # y of the horizon
    eye: float
    bend: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """World (..., 3) -> picture (..., 2). Z must be positive."""
        points = np.asarray(points, np.float64)
        z = points[..., 2]
        scale = self.focal / z
        flat = np.empty((*points.shape[:-1], 2))
        flat[..., 0] = points[..., 0] * scale + (self.focal * self.bend) * z + self.center
        flat[..., 1] = (self.eye - points[..., 1]) * scale + self.horizon
        return flat

    def upright(self, z: float) -> Plane:
        """1 / Z of anything that stands at depth `z`, as a plane over the picture."""
        return (0.0, 0.0, 1.0 / z)

    def ground(self, height: float = 0.0) -> Plane:
        slope = 1.0 / (self.focal * (self.eye - height))
        return (0.0, slope, -slope * self.horizon)

    def wall(self, start: np.ndarray, end: np.ndarray) -> Plane:
        """1 / Z over a vertical wall between two ground points: linear in x, exact for a plane."""
        ends = self.project(np.stack((start, end)))
        run = ends[1, 0] - ends[0, 0]
        if abs(run) < 1e-3:
            return self.upright(float(start[2] + end[2]) / 2)
        slope = (1.0 / end[2] - 1.0 / start[2]) / run
        return (float(slope), 0.0, float(1.0 / start[2] - slope * ends[0, 0]))


@dataclass(frozen=True)
class Light:
    """The hour: colours are RGB factors (sun, ambient) or RGB 0..255 (sky, haze)."""

    sun: Color  # unit vector towards the sun
    sun_color: Color
    ambient: Color
    sky_top: Color
    sky_bottom: Color
    cloud: Color
    haze: Color
    density: float  # haze per metre
    lamps: float  # share of lit windows and lamps

    def shade(self, color: Sequence[float], normal: Sequence[float] = (0.0, 0.6, -0.5)) -> Color:
        """The colour of a matt surface with this outward normal."""
        (x, y, z), (r, g, b), sun, sky = normal, color, self.sun_color, self.ambient
        facing = max(0.0, x * self.sun[0] + y * self.sun[1] + z * self.sun[2])
        return (
            min(255.0, r * (sky[0] + sun[0] * facing)),
            min(255.0, g * (sky[1] + sun[1] * facing)),
            min(255.0, b * (sky[2] + sun[2] * facing)),
        )


@dataclass
class Canvas:
    """One plane of four 16-bit channels at `SCALE` times the size of the picture: R, G, B and the part
    number.

    A brush writes colour and part in one stroke, so photo and label have the same outlines to the pixel.
    """

    height: int
    width: int
    camera: Camera
    light: Light
    plane: np.ndarray = field(init=False)
    labels: list[int] = field(default_factory=list)
    instances: list[int] = field(default_factory=list)
    materials: list[int] = field(default_factory=list)
    planes: list[Plane] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.plane = np.zeros((self.height * SCALE, self.width * SCALE, 4), np.uint16)

    def new_part(
        self, label: str, plane: Plane, material: str = "smooth", instance: int | None = None
    ) -> int:
        """A part number. `instance` is a value of the Cityscapes instance map; None means stuff."""
        self.labels.append(ID_OF[label])
        self.instances.append(ID_OF[label] if instance is None else instance)
        self.materials.append(MATERIAL_INDEX[material])
        self.planes.append(plane)
        return len(self.labels) - 1

    def new_instance(self, label: str) -> int:
        """The next free instance value of a thing, `id * 1000 + k`."""
        k = self.counts.get(ID_OF[label], 0)
        self.counts[ID_OF[label]] = k + 1
        return ID_OF[label] * 1000 + k

    def convex(self, points: np.ndarray, color: Color, part: int) -> None:
        """Paint one convex polygon (n, 2) in picture pixels."""
        cv2.fillConvexPoly(self.plane, to_fixed(points), (*color, part), shift=SUBPIXEL)

    def polygon(self, points: np.ndarray, color: Color, part: int) -> None:
        """Paint one polygon (n, 2) in picture pixels."""
        cv2.fillPoly(self.plane, [to_fixed(points)], (*color, part), shift=SUBPIXEL)

    def apart(self, fixed: np.ndarray, color: Color, part: int) -> None:
        """Paint polygons that do not overlap, (n, corners, 2) from `to_fixed`; those outside are skipped."""
        right = (self.width * SCALE) << SUBPIXEL
        inside = (fixed[..., 0].max(axis=1) >= 0) & (fixed[..., 0].min(axis=1) < right)
        if inside.any():
            cv2.fillPoly(self.plane, list(fixed[inside]), (*color, part), shift=SUBPIXEL)

    def solid(self, points: np.ndarray, color: Color, part: int) -> None:
        """Paint one world polygon (n, 3), cut at the near plane."""
        points = clip_near(points)
        if len(points) > 2:
            self.polygon(self.camera.project(points), color, part)

    def capsule(
        self,
        centers: Sequence[np.ndarray] | np.ndarray,
        radii: Sequence[float] | np.ndarray,
        color: Color,
        part: int,
    ) -> None:
        """Paint the convex hull of discs; centres and radii in picture pixels."""
        cloud = np.asarray(centers)[:, None] + ring(12) * np.asarray(radii)[:, None, None]
        outline = cv2.convexHull(to_fixed(cloud.reshape(-1, 2)))
        cv2.fillConvexPoly(self.plane, outline, (*color, part), shift=SUBPIXEL)

    def dot(self, center: Sequence[float] | np.ndarray, radius: float, color: Color, part: int) -> None:
        """Paint a disc; centre and radius in picture pixels."""
        x, y = round(float(center[0]) * UNIT + SHIFT), round(float(center[1]) * UNIT + SHIFT)
        if max(abs(x), abs(y)) < REACH:
            size = max(1, round(radius * UNIT))
            cv2.circle(self.plane, (x, y), size, (*color, part), -1, shift=SUBPIXEL)

    def stamp(
        self,
        sprite: np.ndarray,
        center: Sequence[float] | np.ndarray,
        size: tuple[float, float],
        ramp: np.ndarray,
        part: int,
    ) -> None:
        """Paint a sprite (h, w) uint8, 0 clear and 1..255 a tone, in the colours of `ramp` (256, 3).

        `center` and `size` (width, height) are picture pixels.
        """
        rows, columns = self.plane.shape[:2]
        w, h = (max(2, round(side * SCALE)) for side in size)
        left, top = (
            round((float(c) + 0.5) * SCALE - side / 2) for c, side in zip(center, (w, h), strict=True)
        )
        x0, y0, x1, y1 = max(0, left), max(0, top), min(columns, left + w), min(rows, top + h)
        if x1 <= x0 or y1 <= y0:
            return
        tone = cv2.resize(sprite, (w, h), interpolation=cv2.INTER_NEAREST_EXACT)[
            y0 - top : y1 - top, x0 - left : x1 - left
        ]
        table = np.empty((256, 4), np.uint16)
        table[:, :3] = np.clip(ramp, 0, 255)
        table[:, 3] = part
        target = self.plane[y0:y1, x0:x1]
        np.copyto(target.view(np.uint64)[..., 0], table.view(np.uint64)[:, 0][tone], where=tone > 0)


UNIT = SCALE << SUBPIXEL
SHIFT = (
    UNIT / 2 - (1 << SUBPIXEL) / 2
)  # half a picture pixel less half a canvas pixel: centres stay at integers
REACH = 1 << 17


def to_fixed(points: np.ndarray) -> np.ndarray:
    """Picture pixels (..., 2) -> the canvas' fixed-point coordinates, int32."""
    fixed = points * UNIT
    fixed += SHIFT + 0.5
    np.floor(fixed, out=fixed)
    np.maximum(fixed, -REACH, out=fixed)
    np.minimum(fixed, REACH, out=fixed)
    return fixed.astype(np.int32)


def clip_near(points: np.ndarray, near: float = NEAR) -> np.ndarray:
    """Cut a world polygon (n, 3) at Z = near (Sutherland and Hodgman)."""
    points = np.asarray(points, np.float64)
    if points[:, 2].min() >= near:
        return points
    if points[:, 2].max() < near:
        return points[:0]
    kept: list[np.ndarray] = []
    for here, there in zip(points, np.concatenate((points[1:], points[:1])), strict=True):
        if here[2] >= near:
            kept.append(here)
        if (here[2] >= near) != (there[2] >= near):
            kept.append(here + (there - here) * (near - here[2]) / (there[2] - here[2]))
    return np.asarray(kept).reshape(-1, 3)


def tint(color: Sequence[float], factor: float, add: float = 0.0) -> Color:
    r, g, b = color
    return (
        min(255.0, max(0.0, r * factor + add)),
        min(255.0, max(0.0, g * factor + add)),
        min(255.0, max(0.0, b * factor + add)),
    )


def mix(a: Sequence[float], b: Sequence[float], share: float) -> Color:
    rest = 1 - share
    return (a[0] * rest + b[0] * share, a[1] * rest + b[1] * share, a[2] * rest + b[2] * share)


def band(
    foot: np.ndarray, top: np.ndarray, below: tuple[float, float], above: tuple[float, float]
) -> np.ndarray:
    """A quadrilateral between two points, from left to right offsets at each."""
    (x0, y0), (x1, y1) = foot, top
    return np.array([[x0 + below[0], y0], [x0 + below[1], y0], [x1 + above[1], y1], [x1 + above[0], y1]])


def spread(start: float, end: float, count: int) -> np.ndarray:
    """`count` depths from `start` to `end`, each the same factor further."""
    return start * (end / start) ** unit_steps(count)


@lru_cache(maxsize=32)
def unit_steps(count: int) -> np.ndarray:
    return np.linspace(0, 1, count)


@lru_cache(maxsize=8)
def ring(points: int) -> np.ndarray:
    angles = np.arange(points) * (2 * np.pi / points)
    return np.stack((np.cos(angles), np.sin(angles)), axis=-1)


def hull(centers: np.ndarray, radii: Sequence[float] | np.ndarray, points: int = 12) -> np.ndarray:
    """The convex hull of discs: (n, 2) centres and n radii -> polygon (m, 2)."""
    cloud = np.asarray(centers)[:, None] + ring(points) * np.asarray(radii)[:, None, None]
    return convex_hull(cloud.reshape(-1, 2))


def convex_hull(points: np.ndarray) -> np.ndarray:
    outline: np.ndarray = cv2.convexHull(points.astype(np.float32)).reshape(-1, 2)
    return outline


# -------------------- light and sky

HOURS: dict[str, tuple[float, float, Color, Color, Color, Color, Color, float, float]] = {
    # share, sun's height in degrees, sun, ambient,
    # sky above, sky at the horizon, cloud, haze per metre, lamps
    "noon": (0.36, 48, (0.72, 0.68, 0.60), (0.50, 0.54, 0.62),
             (64, 118, 196), (188, 216, 238), (250, 250, 252), 0.004, 0.0),
    "morning": (0.18, 28, (0.78, 0.66, 0.48), (0.50, 0.54, 0.62),
                (104, 152, 206), (226, 224, 214), (252, 246, 238), 0.008, 0.0),
    "evening": (0.18, 17, (0.92, 0.62, 0.36), (0.48, 0.47, 0.54),
                (92, 118, 172), (250, 202, 146), (255, 214, 178), 0.006, 0.08),
    "overcast": (0.18, 60, (0.12, 0.12, 0.12), (0.72, 0.74, 0.77),
                 (166, 176, 188), (214, 218, 222), (232, 234, 236), 0.008, 0.03),
    "dusk": (0.10, 8, (0.10, 0.07, 0.08), (0.40, 0.41, 0.52),
             (38, 50, 96), (226, 150, 118), (150, 110, 128), 0.005, 0.45),
}  # fmt: skip


def choose_light(rng: np.random.Generator) -> Light:
    """Noon, morning, evening, overcast or dusk, each with its own spread."""
    shares = np.array([row[0] for row in HOURS.values()])
    hour = list(HOURS)[int(rng.choice(len(HOURS), p=shares / shares.sum()))]
    _, degrees, sun, ambient, top, bottom, cloud, density, lamps = HOURS[hour]
    azimuth = float(rng.uniform(0, 2 * np.pi))
    rise = float(np.radians(degrees * rng.uniform(0.8, 1.25)))
    toward = (np.cos(rise) * np.sin(azimuth), np.sin(rise), -np.cos(rise) * np.cos(azimuth))
    warm = rng.normal(0, 0.025, 3)
    strength = float(rng.uniform(0.9, 1.1))
    sky_bottom = as_color(np.asarray(bottom) * (1 + rng.normal(0, 0.03)))
    return Light(
        sun=as_color(toward),
        sun_color=as_color(np.asarray(sun) * strength * (1 + warm)),
        ambient=as_color(np.asarray(ambient) * rng.uniform(0.92, 1.08)),
        sky_top=as_color(np.asarray(top) * rng.uniform(0.9, 1.1)),
        sky_bottom=sky_bottom,
        cloud=cloud,
        haze=tint(sky_bottom, 0.93),
        density=density * float(rng.uniform(0.6, 1.5)),
        lamps=lamps,
    )


def as_color(values: Iterable[float]) -> Color:
    r, g, b = (float(v) for v in values)
    return (r, g, b)


def seamless_noise(rng: np.random.Generator, slope: float, low: float = 0.0) -> np.ndarray:
    """(TILE, TILE) noise of unit deviation that repeats; amplitude is frequency ** -slope above `low`."""
    rows, columns = np.meshgrid(np.fft.fftfreq(TILE), np.fft.rfftfreq(TILE), indexing="ij")
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE))) * frequency**-slope * (frequency > low)
    noise: np.ndarray = np.fft.irfft2(spectrum, s=(TILE, TILE))
    return noise / noise.std()


@lru_cache(maxsize=1)
def textures() -> np.ndarray:
    """(4 * TILE, TILE) float32: asphalt, brick, paving slabs and leaves above each other, each of mean 0."""
    rng = np.random.default_rng(20160604)
    y, x = np.mgrid[0:TILE, 0:TILE]
    asphalt = 0.7 * seamless_noise(rng, 1.1) + 0.6 * seamless_noise(rng, 0.3)
    course = y // 8
    shifted = (x + 8 * (course % 2)) % TILE
    bricks = rng.normal(0, 0.7, (TILE // 8, TILE // 16))[course, shifted // 16]
    brick = np.where((y % 8 < 1) | (shifted % 16 < 1), 1.5, bricks - 0.2) + 0.5 * seamless_noise(rng, 0.8)
    slab = rng.normal(0, 0.5, (TILE // 64, TILE // 64))[y // 64, x // 64]
    slabs = np.where((y % 64 < 3) | (x % 64 < 3), -2.2, slab + 0.2) + 0.5 * seamless_noise(rng, 0.9)
    leaves = 0.9 * seamless_noise(rng, 0.9, low=0.015) + 0.5 * seamless_noise(rng, 0.2)
    stack = [np.clip(each - each.mean(), -2.5, 2.5) for each in (asphalt, brick, slabs, leaves)]
    return np.concatenate(stack).astype(np.float32)


@lru_cache(maxsize=1)
def cloud_field() -> np.ndarray:
    return seamless_noise(np.random.default_rng(7), 1.7, low=0.004).astype(np.float32)


@lru_cache(maxsize=1)
def grain_field() -> np.ndarray:
    """(3 * 512 * 1024,) int8 normal noise of deviation 32, cut at four deviations."""
    noise = np.random.default_rng(11).standard_normal(3 * 512 * 1024, dtype=np.float32)
    return np.clip(np.rint(noise * 32), -127, 127).astype(np.int8)


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


IS_GROUND = np.zeros(256, bool)
IS_GROUND[[ID_OF[name] for name in ("road", "sidewalk", "parking", "terrain", "ground", "rail track")]] = True


def finish(canvas: Canvas, shadow: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Texture, shadow, haze, lens and grain. Returns the photo (H, W, 3) uint8 and the part map (H, W).

    `shadow` (H, W) float32 in 0..1 darkens whatever lies on the ground.
    """
    height, width, camera, light = canvas.height, canvas.width, canvas.camera, canvas.light
    planes = cv2.split(cv2.resize(canvas.plane, (width, height), interpolation=cv2.INTER_AREA))[:3]
    part = majority(canvas.plane[..., 3])
    label = np.asarray(canvas.labels, np.uint8)[part]
    across, down, level = (np.asarray(column, np.float32) for column in zip(*canvas.planes, strict=True))
    x = np.arange(width, dtype=np.float32)[None, :]
    y = np.arange(height, dtype=np.float32)[:, None]
    inverse = np.clip(across[part] * x + down[part] * y + level[part], 1e-4, 2.0)  # 1 / Z
    z = 1.0 / inverse
    ground = IS_GROUND[label]
    # texture: ground by (X, Z), everything upright by (X + Z, height)
    material = np.asarray(canvas.materials, np.uint8)[part]
    channel, strength, far = (np.asarray(each, np.float32) for each in zip(*MATERIALS.values(), strict=True))
    scale = np.float32(1 / camera.focal)
    map_x = (x - np.float32(camera.center)) * scale * z - np.float32(camera.bend) * z * z
    map_x += np.where(ground, np.float32(0), z)
    map_y = np.where(ground, z, (y - np.float32(camera.horizon)) * scale * z)
    map_x = np.mod(map_x * np.float32(PER_METRE), TILE)
    map_y = np.mod(map_y * np.float32(PER_METRE), TILE) + channel[material] * TILE
    texel = cv2.remap(textures(), map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    near = np.minimum(1.0, inverse * np.float32(camera.focal / 40))
    gain = 1 + texel * (strength[material] * (near + far[material] * (1 - near)))
    dark = np.where(ground, shadow, np.float32(0))
    clear = np.exp(z * np.float32(-light.density))
    clear[label == ID_OF["sky"]] = 1
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
        speckle = np.take(grain, np.arange(start, start + height * width), mode="wrap").reshape(height, width)
        lit = (lit - 128) * contrast + (128.5 + speckle * noise)
        photo[..., c] = np.clip(lit, 0, 255)
    return photo, part


def majority(part: np.ndarray) -> np.ndarray:
    """Halve a part map: of each 2 x 2 the number that occurs twice, else the first."""
    a, b, c, d = part[0::2, 0::2], part[0::2, 1::2], part[1::2, 0::2], part[1::2, 1::2]
    return np.where((b == c) | (b == d), b, np.where(c == d, c, a)).astype(np.intp)


# -------------------- buildings


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


def pick(rng: np.random.Generator, colors: Sequence[Color], low: float = 1.0, high: float = 1.0) -> Color:
    return tint(colors[int(rng.integers(len(colors)))], float(rng.uniform(low, high)))


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


@dataclass
class Wall:
    """A vertical rectangle, and the flat boxes to be painted on it in order."""

    start: tuple[float, float, float]  # its ground corner
    along: tuple[float, float, float]  # unit direction
    length: float
    height: float
    normal: tuple[float, float, float]
    boxes: list[np.ndarray] = field(default_factory=list)
    colors: list[Color] = field(default_factory=list)

    def add(self, boxes: np.ndarray | list[list[float]], color: Color) -> None:
        """Boxes (n, 4) of (left, bottom, right, top) in metres on the wall, none over another."""
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        if len(boxes):
            self.boxes.append(boxes)
            self.colors.append(color)

    def corners(self, boxes: np.ndarray) -> np.ndarray:
        """(n, 4) boxes -> (n, 4, 3) world corners."""
        s = boxes[:, [0, 2, 2, 0]]
        points = np.empty((len(boxes), 4, 3))
        points[..., 0] = self.start[0] + s * self.along[0]
        points[..., 1] = self.start[1] + boxes[:, [1, 1, 3, 3]]
        points[..., 2] = self.start[2] + s * self.along[2]
        return points

    def paint(self, canvas: Canvas, part: int) -> None:
        if not self.boxes:
            return
        fixed = to_fixed(canvas.camera.project(self.corners(np.concatenate(self.boxes))))
        done = 0
        for boxes, color in zip(self.boxes, self.colors, strict=True):
            canvas.apart(fixed[done : done + len(boxes)], color, part)
            done += len(boxes)


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
            canvas.solid(slope, light.shade(style.roof, (-side * 0.5, 0.85, 0.0)), roof)
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
        wall.add([[0, h - 0.12, wall.length, h + 0.12] for h in levels if h < wall.height - 0.6], lit)
    if sharp > 5:
        wall.add([[0, 0, wall.length, 0.6]], tint(plain, 0.72))
    wall.add([[0, wall.height - 0.45, wall.length, wall.height]], tint(lit, 0.9))
    sky = mix(light.sky_bottom, light.sky_top, 0.4)
    glass = mix(tint(style.glass, sum(light.ambient) / 2), sky, 0.22)
    if sharp > 8:
        wall.add(boxes + np.array([-0.14, -0.14, 0.14, 0.14]), lit)
    if sharp > 14:
        wall.add(boxes[:, [0, 1, 2, 1]] + np.array([-0.25, -0.26, 0.25, -0.06]), tint(lit, 1.06))
    draw = rng.random(len(boxes))
    bright, blind = draw < light.lamps, draw > 0.72
    if sharp > 5:
        wall.add(boxes[~bright & ~blind], glass)
        wall.add(boxes[blind & ~bright], mix(glass, sky, 0.45))
    else:
        wall.add(boxes[~bright], mix(glass, sky, 0.12))
    wall.add(boxes[bright], (250, 208, 128))
    if sharp > 8:
        shaded = boxes[~bright] * 1.0
        shaded[:, 1] += 0.7 * tall
        wall.add(shaded, tint(glass, 0.72))
    if sharp > 14:
        middle = (boxes[:, [0, 1, 0, 3]] + boxes[:, [2, 1, 2, 3]]) / 2
        wall.add(middle + np.array([-0.05, 0, 0.05, 0]), lit)
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
        wall.add([[0.2, 0.1, wall.length - 0.2, 3.0]], tint(color, 0.8))
        wall.add(panes, mix(glass, (255, 220, 160), 0.1 + 0.7 * min(1.0, light.lamps * 2)))
        if sharp > 10:
            wall.add(panes * (1, 1, 1, 0.45) + np.array([0.15, 0.05, -0.15, 0]), mix(glass, style.shop, 0.35))
        wall.add([[0.1, 2.55, wall.length - 0.1, 3.1]], color)
        if sharp > 10:
            words = panes[named] * (1, 0, 1, 0) + np.array([0.35, 2.7, -0.35, 2.95])
            wall.add(words, mix(color, (255, 255, 255), 0.75))
    else:
        center = np.delete((panes[:, 0] + panes[:, 2]) / 2, door)
        half = style.window[0] / 2
        small = np.stack(
            (center - half, np.full(bays - 1, 1.0), center + half, np.full(bays - 1, 2.4)), axis=-1
        )
        wall.add(small + np.array([-0.12, -0.12, 0.12, 0.12]), frame)
        wall.add(small, glass)
    if sharp > 8:
        middle = float(panes[door, [0, 2]].mean())
        wall.add([[middle - 0.65, 0.0, middle + 0.65, 2.35]], frame)
        wall.add([[middle - 0.52, 0.0, middle + 0.52, 2.25]], light.shade(wood, wall.normal))


# -------------------- trees, fences and poles


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


LEAVES: tuple[Color, ...] = (
    (74, 104, 44),
    (88, 116, 50),
    (62, 94, 50),
    (106, 120, 52),
    (72, 98, 40),
    (134, 112, 48),
)


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
    bark = light.shade((96, 78, 60))
    canvas.convex(band(foot, fork, (-girth, girth), (-0.7 * girth, 0.7 * girth)), bark, part)
    if girth > 1.2:
        bright = -girth if light.sun[0] < 0 else girth
        canvas.convex(band(foot, fork, (0, bright), (0, 0.7 * bright)), tint(bark, 1.25), part)
        for reach in (-0.5, 0.45):
            end = top + np.array([reach * radius * size, 0])
            canvas.capsule((fork, end), (0.55 * girth, 0.3 * girth), tint(bark, 0.9), part)
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


def paint_fence(
    canvas: Canvas,
    rng: np.random.Generator,
    *,
    side: int,
    inner: float,
    start: float,
    end: float,
    solid: bool,
) -> None:
    """A fence of pickets (one filled label, as Cityscapes draws it) or a low wall."""
    camera, light = canvas.camera, canvas.light
    wall = Wall((side * inner, 0.0, start), (0.0, 0.0, 1.0), end - start, 1.3, (-side, 0, 0))
    ends = np.array([[side * inner, 0.0, start], [side * inner, 0.0, end]])
    plane = camera.wall(*ends)
    stone = pick(rng, ((168, 160, 148), (150, 90, 70), (190, 186, 178)), 0.9, 1.05)
    wood = pick(rng, ((120, 92, 66), (214, 210, 200), (60, 66, 62)), 0.9, 1.05)
    if solid:
        part = canvas.new_part("wall", plane, "brick")
        wall.add([[0, 0, wall.length, 1.3]], light.shade(stone, wall.normal))
        wall.add([[0, 1.18, wall.length, 1.32]], light.shade(tint(stone, 1.12), (0, 1, 0)))
    else:
        part = canvas.new_part("fence", plane)
        color = light.shade(wood, wall.normal)
        wall.add([[0, 0, wall.length, 1.3]], tint(color, 0.5))
        posts = np.arange(0, wall.length - 0.2, 0.45)
        posts = posts[camera.focal * 0.2 * inner / (start + posts) ** 2 > 0.25]
        wall.add(np.stack((posts, posts * 0, posts + 0.24, posts * 0 + 1.3), axis=-1), color)
        wall.add([[0, 0.95, wall.length, 1.1], [0, 0.3, wall.length, 0.45]], tint(color, 0.9))
    wall.paint(canvas, part)


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
        bend[2] + size * np.array([[-0.35, 0.03], [0.35, 0.03], [0.33, 0.09], [-0.33, 0.09]]), glow, part
    )


def paint_sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    """A traffic sign on its post."""
    camera, light = canvas.camera, canvas.light
    height = float(rng.uniform(2.3, 2.9))
    paint_post(canvas, x, z, height + 0.2, 0.09, (140, 144, 148))
    part = canvas.new_part("traffic sign", camera.upright(z))
    center = camera.project(np.array([x, height, z]))
    radius = float(rng.uniform(0.34, 0.46)) * camera.focal / z

    def shape(corners: int, turn: float, scale: float, color: Color) -> None:
        angles = np.arange(corners) * 2 * np.pi / corners + turn
        canvas.convex(
            center + scale * radius * np.stack((np.sin(angles), -np.cos(angles)), axis=-1), color, part
        )

    def box(left: float, top: float, right: float, bottom: float, color: Color) -> None:
        canvas.convex(
            center + radius * np.array([[left, top], [right, top], [right, bottom], [left, bottom]]),
            color,
            part,
        )

    white, red, blue, yellow, black = (
        light.shade(c, (0.0, 0.3, -0.9))
        for c in ((238, 238, 236), (204, 28, 36), (24, 76, 168), (246, 196, 32), (28, 28, 30))
    )
    kind = int(rng.integers(8))
    if kind == 0:  # stop
        shape(8, np.pi / 8, 1.05, white)
        shape(8, np.pi / 8, 0.93, red)
        box(-0.6, -0.18, 0.6, 0.18, white)
    elif kind == 1:  # give way
        shape(3, np.pi, 1.2, red)
        shape(3, np.pi, 0.72, white)
    elif kind == 2:  # warning
        shape(3, 0, 1.2, red)
        shape(3, 0, 0.75, white)
        box(-0.08, -0.3, 0.08, 0.22, black)
    elif kind == 3:  # no entry
        shape(20, 0, 1.0, red)
        box(-0.68, -0.17, 0.68, 0.17, white)
    elif kind == 4:  # speed limit
        shape(20, 0, 1.0, red)
        shape(20, 0, 0.76, white)
        for left in (-0.42, 0.08):
            box(left, -0.35, left + 0.34, 0.35, black)
            box(left + 0.1, -0.22, left + 0.24, 0.22, white)
    elif kind == 5:  # parking
        box(-0.9, -0.9, 0.9, 0.9, blue)
        box(-0.36, -0.6, 0.36, 0.14, white)
        box(-0.1, -0.38, 0.14, -0.1, blue)
        box(-0.36, -0.6, -0.12, 0.62, white)
    elif kind == 6:  # priority road
        shape(4, 0, 1.2, white)
        shape(4, 0, 0.85, yellow)
    else:  # place name
        paper, ink = (blue, white) if rng.random() < 0.5 else (yellow, black)
        box(-1.8, -0.8, 1.8, 0.8, white)
        box(-1.7, -0.7, 1.7, 0.7, paper)
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
        canvas.dot(at, 0.135 * size, lamp if i == state else tint(lamp, 0.2), part)
        if i == state:
            canvas.dot(at, 0.07 * size, mix(lamp, (255, 255, 255), 0.6), part)


# -------------------- vehicles

# Label; outline (z, height) from rear bumper over the roof to front bumper; half widths; wheel's radius.
VEHICLES: dict[str, tuple[str, tuple[tuple[float, float], ...], float, float, float]] = {
    "sedan": ("car", ((-2.22, 0.30), (-2.28, 0.62), (-2.20, 0.96), (-1.55, 1.00), (-0.85, 1.42), (0.35, 1.45),
                      (1.10, 1.00), (2.05, 0.82), (2.26, 0.58), (2.22, 0.28)), 0.90, 0.66, 0.33),
    "hatch": ("car", ((-1.90, 0.30), (-1.97, 0.64), (-1.93, 0.98), (-1.80, 1.02), (-1.45, 1.47), (0.25, 1.51),
                      (1.00, 1.03), (1.80, 0.84), (2.00, 0.58), (1.96, 0.28)), 0.87, 0.67, 0.31),
    "suv": ("car", ((-2.15, 0.38), (-2.22, 0.75), (-2.18, 1.12), (-2.08, 1.16), (-1.75, 1.66), (0.35, 1.70),
                    (1.15, 1.17), (2.10, 1.00), (2.28, 0.70), (2.22, 0.36)), 0.95, 0.74, 0.38),
    "van": ("car", ((-2.35, 0.34), (-2.42, 0.70), (-2.40, 1.10), (-2.38, 1.14), (-2.25, 1.92), (1.15, 1.98),
                    (1.95, 1.16), (2.35, 0.98), (2.48, 0.62), (2.44, 0.32)), 0.97, 0.84, 0.35),
    "bus": ("bus", ((-5.4, 0.40), (-5.5, 0.80), (-5.5, 1.20), (-5.48, 1.24), (-5.4, 3.0), (5.2, 3.05),
                    (5.45, 1.20), (5.5, 1.10), (5.52, 0.80), (5.45, 0.36)), 1.25, 1.18, 0.48),
}  # fmt: skip
PAINTS: tuple[Color, ...] = (
    (196, 200, 204), (228, 230, 232), (40, 42, 46), (96, 100, 106), (176, 30, 34), (34, 66, 132),
    (22, 40, 82), (126, 34, 40), (60, 98, 84), (206, 186, 150), (224, 164, 40), (100, 146, 186),
    (72, 66, 62),
)  # fmt: skip


class Panel(NamedTuple):
    """A piece of a vehicle: its corners are `mesh.points[first:last]`."""

    first: int
    last: int
    role: str  # decides the colour
    shell: int  # 0 wheels behind, 1.. strips across the width, 50 and 51 flanks; what hides together
    sharp: float  # smallest scale, in pixels per metre, at which it is drawn


class Mesh(NamedTuple):
    """A vehicle in its own frame (right, up, forward), metres. Normals and middles are per shell."""

    points: np.ndarray  # (n, 3)
    panels: tuple[Panel, ...]
    normals: np.ndarray  # (52, 3)
    middles: np.ndarray  # (52, 3)


LEFT, RIGHT = 50, 51


@lru_cache(maxsize=8)
def vehicle_mesh(kind: str) -> Mesh:
    """An outline drawn across its width, with glass, lamps, wheels and door lines."""
    _, outline, body, roof, wheel = VEHICLES[kind]
    profile = np.asarray(outline)
    belt, low = float(profile[3, 1]), float(profile[:, 1].min())
    half = np.where(profile[:, 1] > belt + 0.1, roof, body)
    clouds: list[np.ndarray] = []
    panels: list[Panel] = []
    normals, middles = np.zeros((52, 3)), np.zeros((52, 3))

    def add(
        points: Sequence[Sequence[float]] | np.ndarray, role: str, shell: int, sharp: float = 0.0
    ) -> None:
        first = sum(len(each) for each in clouds)
        clouds.append(np.asarray(points, np.float64))
        panels.append(Panel(first, first + len(points), role, shell, sharp))

    turn = np.arange(20) * (2 * np.pi / 20)
    axles = (profile[1, 0] * 0.62, profile[-2, 0] * 0.62)

    def tyre(x: float, z: float, scale: float) -> np.ndarray:
        return np.stack(
            (np.full(20, x), wheel * (1 + scale * np.sin(turn)), z + wheel * scale * np.cos(turn)), axis=-1
        )

    # behind everything: the dark underside and the tyres as solid drums
    add([[s * body * 0.9, h, z] for s in (-1, 1) for h in (wheel * 0.6, 0.6) for z in axles], "under", 0)
    for side in (-1, 1):
        for z in axles:
            drum = np.concatenate((tyre(side * body * 0.97, z, 1.0), tyre(side * body * 0.72, z, 1.0)))
            add(drum, "rubber", 0)
    for i in range(len(profile) - 1):
        (z0, h0), (z1, h1), a, b = profile[i], profile[i + 1], half[i], half[i + 1]
        quad = np.array([[-a, h0, z0], [a, h0, z0], [b, h1, z1], [-b, h1, z1]])
        shell = i + 1
        n = np.array([0.0, z1 - z0, h0 - h1])
        normals[shell], middles[shell] = n / np.linalg.norm(n), quad.mean(axis=0)
        add(quad, "dark" if i in (0, 8) else "paint", shell)
        bottom, top = (quad[:2], quad[[3, 2]]) if h1 > h0 else (quad[[3, 2]], quad[:2])

        def at(u: float, v: float, bottom: np.ndarray = bottom, top: np.ndarray = top) -> np.ndarray:
            return (bottom[0] * (1 - u) + bottom[1] * u) * (1 - v) + (top[0] * (1 - u) + top[1] * u) * v

        def box(
            left: float, below: float, right: float, above: float, at: Callable[..., np.ndarray] = at
        ) -> np.ndarray:
            return np.stack((at(left, below), at(right, below), at(right, above), at(left, above)))

        if i in (3, 5):
            add(box(0.05, 0.08, 0.95, 0.9), "windscreen" if i == 5 else "pane", shell)
            add(box(0.05, 0.62, 0.95, 0.9), "gleam", shell, 14)
        if i in (1, 7):
            lamp = "headlamp" if i == 7 else "tail"
            for left in (0.02, 0.76):
                add(box(left, 0.35, left + 0.22, 0.95), lamp + "_rim", shell, 8)
                add(box(left + 0.03, 0.45, left + 0.19, 0.88), lamp, shell)
            if i == 7:
                add(box(0.3, 0.1, 0.7, 0.75), "grille", shell)
            add(box(0.38, 0.08, 0.62, 0.34), "plate", shell, 8)
    for side, shell in ((-1, LEFT), (1, RIGHT)):
        normals[shell], middles[shell] = (side, 0, 0), (side * body, 0.8, 0.0)

        def flank(points: Sequence[Sequence[float]] | np.ndarray, side: int = side) -> np.ndarray:
            flat = np.asarray(points, np.float64)
            lean = np.clip((flat[:, 1] - belt) / (profile[:, 1].max() - belt), 0, 1)
            return np.stack((side * (body + (roof - body) * lean), flat[:, 1], flat[:, 0]), axis=-1)

        rear, front = profile[0, 0], profile[-1, 0]
        add(flank(profile), "paint", shell)
        add(flank([[rear, low], [front, low], [front, low + 0.22], [rear, low + 0.22]]), "dark", shell)
        add(
            flank([[rear, belt - 0.22], [front, belt - 0.34], [front, belt - 0.28], [rear, belt - 0.16]]),
            "crease",
            shell,
            10,
        )
        cabin = profile[3:7]
        pane = cabin.mean(axis=0) + (cabin - cabin.mean(axis=0)) * np.array([0.9, 0.72])
        add(flank(pane), "pane", shell)
        add(flank(pane * (1, 0.45) + pane[[1, 0, 3, 2]] * (0, 0.55)), "gleam", shell, 14)
        for share in (0.5,) if kind != "bus" else (0.12, 0.25, 0.38, 0.5, 0.62, 0.75, 0.88):
            z = pane[0, 0] + (pane[3, 0] - pane[0, 0]) * share
            top = pane[:, 1].max()
            add(
                flank([[z - 0.05, belt], [z + 0.05, belt], [z + 0.05, top], [z - 0.05, top]]),
                "paint",
                shell,
                10,
            )
        for z in (-0.75, 0.32, 1.05) if kind != "bus" else (4.2, -1.0):
            add(
                flank([[z, low + 0.2], [z + 0.03, low + 0.2], [z + 0.03, belt], [z, belt]]), "line", shell, 22
            )
        for z in (-0.55, 0.55) if kind != "bus" else ():
            add(
                flank([[z, belt - 0.14], [z + 0.2, belt - 0.14], [z + 0.2, belt - 0.09], [z, belt - 0.09]]),
                "line",
                shell,
                22,
            )
        for z in axles:
            arch = tyre(side * body, z, 1.2)
            arch[:, 1] = np.maximum(arch[:, 1], low)  # it stops above the tyre's foot
            add(arch, "arch", shell)
            add(tyre(side * body, z, 1.0), "rubber", shell)
            add(tyre(side * body, z, 0.64), "rim", shell, 6)
            add(tyre(side * body, z, 0.5), "spokes", shell, 18)
            add(tyre(side * body, z, 0.2), "rim", shell, 18)
    return Mesh(np.concatenate(clouds), tuple(panels), normals, middles)


@dataclass(frozen=True)
class Vehicle:
    """A vehicle on the road: kind, centre (x, z) in metres, heading in radians (0 drives away from us),
    paint.
    """

    kind: str
    x: float
    z: float
    heading: float
    paint: Color

    @property
    def length(self) -> float:
        return VEHICLES[self.kind][1][-2][0] - VEHICLES[self.kind][1][1][0]

    def turn(self, local: np.ndarray) -> np.ndarray:
        """(..., 3) directions of (right, up, forward) -> world."""
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        world = np.empty_like(local)
        world[..., 0] = local[..., 0] * cos + local[..., 2] * sin
        world[..., 1] = local[..., 1]
        world[..., 2] = local[..., 2] * cos - local[..., 0] * sin
        return world

    def world(self, local: np.ndarray) -> np.ndarray:
        return self.turn(local) + np.array([self.x, 0.0, self.z])

    def footprint(self) -> np.ndarray:
        """(4, 3) corners on the ground."""
        outline, half = VEHICLES[self.kind][1], VEHICLES[self.kind][2]
        rear, front = outline[1][0], outline[-2][0]
        return self.world(np.array([[-half, 0, rear], [half, 0, rear], [half, 0, front], [-half, 0, front]]))


def paint_vehicle(canvas: Canvas, vehicle: Vehicle) -> int:
    """Panels that face us, from far to near. Returns the instance value."""
    camera, light = canvas.camera, canvas.light
    mesh = vehicle_mesh(vehicle.kind)
    label = VEHICLES[vehicle.kind][0]
    instance = canvas.new_instance(label)
    part = canvas.new_part(label, camera.upright(vehicle.z), "smooth", instance)
    points = vehicle.world(mesh.points)
    if points[:, 2].min() < NEAR:
        return instance
    fixed = to_fixed(camera.project(points))
    normals, middles = vehicle.turn(mesh.normals), vehicle.world(mesh.middles)
    eye = np.array([-camera.bend * vehicle.z**2, camera.eye, 0.0])
    seen = ((eye - middles) * normals).sum(axis=1) > 0
    seen[0] = True
    depth = np.linalg.norm(middles - eye, axis=1)
    order = [0, *sorted(np.flatnonzero(seen)[1:].tolist(), key=lambda s: (s >= LEFT, -depth[s]))]
    sharp = camera.focal / vehicle.z
    groups: dict[int, list[Panel]] = {}
    for panel in mesh.panels:
        if panel.sharp <= sharp:
            groups.setdefault(panel.shell, []).append(panel)
    fittings = fitting_colors(light)
    for shell in order:
        body = lacquer(light, vehicle.paint, normals[shell].tolist())
        for panel in groups.get(shell, ()):
            outline = fixed[panel.first : panel.last]
            if shell == 0:
                outline = cv2.convexHull(outline)
            color = fittings.get(panel.role) or tint(body, *BODY_TONES[panel.role])
            cv2.fillPoly(canvas.plane, [outline], (*color, part), shift=SUBPIXEL)
    return instance


BODY_TONES = {"paint": (1.0, 0.0), "dark": (0.55, 0.0), "crease": (1.12, 6.0), "line": (0.6, 0.0)}


@lru_cache(maxsize=4)
def fitting_colors(light: Light) -> dict[str, Color]:
    """The colours of glass, lamps and wheels, the same on every vehicle."""
    sky = mix(light.sky_bottom, light.sky_top, 0.3)
    glass = mix(tint((34, 42, 50), sum(light.ambient) / 1.9), sky, 0.12)
    night = light.lamps > 0.2
    head: Color = (255, 246, 214) if night else light.shade((226, 230, 232))
    tail: Color = (255, 44, 36) if night else light.shade((190, 22, 28))
    return {
        "pane": glass,
        "windscreen": mix(glass, sky, 0.18),
        "gleam": mix(glass, sky, 0.3),
        "headlamp": head,
        "headlamp_rim": tint(head, 0.55),
        "tail": tail,
        "tail_rim": tint(tail, 0.55),
        "grille": light.shade((34, 36, 40)),
        "plate": light.shade((226, 226, 218)),
        "under": light.shade((20, 20, 22)),
        "arch": light.shade((16, 16, 18)),
        "rubber": light.shade((34, 34, 36)),
        "rim": light.shade((150, 152, 156)),
        "spokes": light.shade((92, 94, 98)),
    }


def lacquer(light: Light, paint: Color, normal: Sequence[float]) -> Color:
    """The colour of a painted panel with this normal; it reflects the sky."""
    share = 0.05 + 0.16 * max(0.0, normal[1])
    return mix(light.shade(paint, normal), mix(light.sky_bottom, light.sky_top, 0.3), share)


# -------------------- people

JOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
    "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
"""The 17 COCO joints in their order; left and right are the person's own."""

SKINS: tuple[Color, ...] = (
    (240, 208, 182),
    (226, 184, 152),
    (206, 158, 122),
    (170, 120, 88),
    (124, 84, 60),
    (92, 62, 46),
)
HAIRS: tuple[Color, ...] = (
    (42, 32, 28),
    (82, 56, 38),
    (126, 88, 52),
    (188, 150, 92),
    (60, 58, 58),
    (176, 172, 168),
    (110, 52, 34),
)
SHIRTS: tuple[Color, ...] = (
    (196, 40, 44), (40, 70, 140), (232, 232, 230), (48, 50, 56), (72, 120, 84), (224, 170, 56),
    (150, 96, 150), (96, 146, 178), (180, 110, 70), (120, 124, 130), (214, 120, 140), (34, 92, 98),
)  # fmt: skip
TROUSERS: tuple[Color, ...] = (
    (44, 56, 88),
    (34, 34, 40),
    (96, 88, 78),
    (150, 138, 116),
    (70, 84, 110),
    (88, 50, 46),
)


@dataclass(frozen=True)
class Walker:
    """A person: ground point, stature in metres, heading in radians (0 walks away from us, pi towards us)."""

    x: float
    z: float
    ground: float
    stature: float
    heading: float
    phase: float
    stride: float  # radians of thigh swing
    gaze: tuple[float, float, float]  # the head against the body: pitch, yaw, roll in radians
    skin: Color
    hair: Color
    shirt: Color
    trousers: Color
    long_hair: bool
    skirt: bool
    bag: bool
    mouth: float  # 0 shut .. 1 open
    smile: float
    jaw: float
    brow: float


def choose_walker(rng: np.random.Generator, *, x: float, z: float, ground: float, heading: float) -> Walker:
    child = rng.random() < 0.12
    standing = rng.random() < 0.25
    woman = rng.random() < 0.5
    return Walker(
        x=x,
        z=z,
        ground=ground,
        stature=float(rng.uniform(1.15, 1.4) if child else rng.uniform(1.6, 1.9)),
        heading=heading,
        phase=float(rng.uniform(0, 2 * np.pi)),
        stride=float(rng.uniform(0.02, 0.12) if standing else rng.uniform(0.3, 0.48)),
        gaze=(float(rng.normal(0, 0.08)), float(rng.normal(0, 0.25)), float(rng.normal(0, 0.06))),
        skin=pick(rng, SKINS, 0.88, 1.1),
        hair=pick(rng, HAIRS, 0.88, 1.1),
        shirt=pick(rng, SHIRTS, 0.88, 1.1),
        trousers=pick(rng, TROUSERS, 0.88, 1.1),
        long_hair=bool(woman and rng.random() < 0.7),
        skirt=bool(woman and rng.random() < 0.3),
        bag=bool(rng.random() < 0.3),
        mouth=float(max(0.0, rng.normal(0, 0.35))),
        smile=float(rng.normal(0.5, 0.5)),
        jaw=float(rng.normal(1.0, 0.06)),
        brow=float(rng.normal(0, 0.06)),
    )


def skeleton(walker: Walker) -> dict[str, np.ndarray]:
    """World positions of the body joints, and of `neck` and `head` (the centre of the skull)."""
    h = walker.stature
    cos, sin = np.cos(walker.heading), np.sin(walker.heading)
    swing = walker.stride * np.sin(walker.phase)

    def place(right: float, up: float, forward: float) -> np.ndarray:
        return np.array(
            [
                walker.x + right * cos + forward * sin,
                walker.ground + up,
                walker.z - right * sin + forward * cos,
            ]
        )

    local: dict[str, tuple[float, float, float]] = {}
    for name, sign in (("left", -1.0), ("right", 1.0)):
        thigh = swing * sign
        bend = max(0.0, 0.9 * walker.stride * np.sin(walker.phase * 1.0 + (0.9 if sign > 0 else np.pi + 0.9)))
        shin = thigh - bend - 0.03
        hip = np.array([sign * 0.052 * h, 0.0, 0.0])
        knee = hip + 0.245 * h * np.array([0.0, -np.cos(thigh), np.sin(thigh)])
        ankle = knee + 0.245 * h * np.array([0.0, -np.cos(shin), np.sin(shin)])
        shoulder = np.array([sign * 0.100 * h, 0.295 * h, 0.01 * h])
        arm = -0.9 * thigh
        elbow = shoulder + 0.17 * h * np.array([0.12 * sign, -np.cos(arm), np.sin(arm)])
        lower = arm + 0.25 + 0.5 * walker.stride
        wrist = elbow + 0.15 * h * np.array([0.02 * sign, -np.cos(lower), np.sin(lower)])
        for joint, point in (
            ("hip", hip),
            ("knee", knee),
            ("ankle", ankle),
            ("shoulder", shoulder),
            ("elbow", elbow),
            ("wrist", wrist),
        ):
            local[f"{name}_{joint}"] = (float(point[0]), float(point[1]), float(point[2]))
    local["neck"] = (0.0, 0.335 * h, 0.015 * h)
    local["head"] = (0.0, 0.425 * h, 0.03 * h)
    lift = 0.045 * h - min(
        local["left_ankle"][1], local["right_ankle"][1]
    )  # the lower foot stands on the ground
    return {name: place(x, y + lift, z) for name, (x, y, z) in local.items()}


def head_unit(walker: Walker) -> float:
    """Half the width of the face in metres."""
    return 0.043 * min(walker.stature, 1.75) + 0.002


def head_rotation(walker: Walker) -> np.ndarray:
    """(3, 3) from the face's frame (x image right, y down, z to the viewer when it looks at us) to world."""
    pitch, yaw, roll = walker.gaze
    turn = walker.heading - np.pi + yaw  # 0 looks straight at the camera
    cp, sp, cr, sr = np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    tilt = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])  # nods: positive looks down
    lean = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    ct, st = np.cos(turn), np.sin(turn)
    spin = np.array([[ct, 0, -st], [0, 1, 0], [st, 0, ct]])
    flip = np.diag([1.0, -1.0, -1.0])  # face axes to world axes
    return flip @ spin @ tilt @ lean


def face_model(walker: Walker) -> np.ndarray:
    """The 98 WFLW landmarks in the face's frame, (98, 3), in units of half the face's width."""
    points = np.zeros((98, 3))

    def depth(x: np.ndarray) -> np.ndarray:
        return 1.12 * np.sqrt(np.maximum(0.0, 1 - (x / 1.15) ** 2))

    turn = np.linspace(0, np.pi, 33)
    jaw_x = (
        -np.cos(turn) * (1 - 0.10 * np.sin(turn) ** 2) * np.where(np.abs(np.cos(turn)) < 0.9, walker.jaw, 1.0)
    )
    jaw_x = np.clip(jaw_x, -1, 1)
    jaw_y = 0.02 + 1.5 * np.sin(turn) ** 0.9 * (1 - 0.06 * np.abs(np.cos(turn)))
    points[0:33] = np.stack((jaw_x, jaw_y, 0.85 * depth(jaw_x)), axis=-1)
    brow = -0.36 + walker.brow
    upper = np.array([[-0.80, 0.10], [-0.66, -0.05], [-0.50, -0.10], [-0.33, -0.09], [-0.16, -0.03]])
    lower = np.array([[-0.17, 0.07], [-0.34, 0.02], [-0.50, 0.01], [-0.66, 0.05]])
    left = np.concatenate((upper, lower)) + np.array([0, brow])
    points[33:42, :2] = left
    mirror = left * (-1, 1)
    points[42:51, :2] = mirror[[4, 3, 2, 1, 0, 8, 7, 6, 5]]
    points[33:51, 2] = depth(points[33:51, 0]) + 0.02
    points[51:55] = np.array([[0, 0.0, 1.16], [0, 0.2, 1.26], [0, 0.4, 1.38], [0, 0.58, 1.46]])
    points[55:60] = np.array(
        [[-0.24, 0.70, 1.14], [-0.12, 0.75, 1.22], [0, 0.78, 1.26], [0.12, 0.75, 1.22], [0.24, 0.70, 1.14]]
    )
    open_eye = 0.105
    eye = np.array(
        [
            [-0.215, 0.01],
            [-0.11, -0.8 * open_eye],
            [0, -open_eye],
            [0.11, -0.75 * open_eye],
            [0.2, 0.02],
            [0.11, 0.6 * open_eye],
            [0, 0.75 * open_eye],
            [-0.11, 0.62 * open_eye],
        ]
    )
    points[60:68, :2] = eye + np.array([-0.43, 0.0])
    points[68:76, :2] = (eye * (-1, 1) + np.array([0.43, 0.0]))[[4, 3, 2, 1, 0, 7, 6, 5]]
    points[60:76, 2] = depth(points[60:76, 0]) - 0.06
    points[[96, 97]] = np.array([[-0.43, -0.005, 1.02], [0.43, -0.005, 1.02]])
    corner = -0.07 * walker.smile
    gap = 0.10 * min(1.5, walker.mouth)
    half = 0.36 + 0.04 * walker.smile
    x = np.array([-1, -0.6, -0.25, 0, 0.25, 0.6, 1]) * half
    top = np.array([corner, -0.075, -0.115, -0.09, -0.115, -0.075, corner])
    points[76:83, :2] = np.stack((x, 1.06 + top), axis=-1)
    points[83:88, :2] = np.stack(
        (x[5:0:-1], 1.06 + gap + np.array([0.07, 0.115, 0.13, 0.115, 0.07])), axis=-1
    )
    inner = np.array([-0.86, -0.4, 0, 0.4, 0.86]) * half
    points[88:93, :2] = np.stack((inner, 1.06 + np.array([corner, -0.02, -0.015, -0.02, corner])), axis=-1)
    points[93:96, :2] = np.stack((inner[3:0:-1], 1.06 + gap + np.array([0.02, 0.025, 0.02])), axis=-1)
    points[76:96, 2] = depth(points[76:96, 0]) + 0.06
    points[16, 2] = points[15:18, 2].mean()
    return points


EARS = np.array(
    [[-1.04, 0.22, 0.05], [1.04, 0.22, 0.05]]
)  # image left, image right of a face that looks at us
FOREHEAD = np.array(
    [[np.cos(a), -0.05 - 1.02 * np.sin(a), 0.75 * np.sin(a) ** 0.5 + 0.35] for a in np.linspace(0, np.pi, 9)]
)


@dataclass(frozen=True)
class Figure:
    """What painting a person leaves behind; visibility is settled when the picture is complete."""

    walker: Walker
    instance: int
    joints: np.ndarray  # (17, 2) picture pixels
    owners: tuple[frozenset[int], ...]  # the parts on which each joint is plainly seen
    landmarks: np.ndarray  # (98, 2) picture pixels
    face_parts: frozenset[int]
    angles: tuple[float, float, float]  # of the head against the camera: pitch, yaw, roll in radians
    turned: float  # cosine between gaze and line of sight; 1 looks at us


def paint_person(canvas: Canvas, walker: Walker, label: str = "person") -> Figure:
    """Limbs from far to near, then the head."""
    camera, light = canvas.camera, canvas.light
    instance = canvas.new_instance(label)
    world = skeleton(walker)
    names = list(world)
    flat = dict(zip(names, camera.project(np.stack([world[n] for n in names])), strict=True))
    size = camera.focal / walker.z
    h = walker.stature
    plane = camera.upright(walker.z)

    def new_part() -> int:
        return canvas.new_part(label, plane, "cloth", instance)

    slant = np.array([0.25 if light.sun[0] > 0 else -0.25, -0.1])
    fine = h * size > 28

    def limb(
        part: int, ends: Sequence[np.ndarray], radii: Sequence[float] | np.ndarray, color: Color
    ) -> None:
        centers, widths = np.asarray(ends), np.asarray(radii) * (h * size)
        canvas.capsule(centers, widths, color, part)
        if fine:
            canvas.capsule(centers + slant * widths[:, None], widths * 0.62, tint(color, 1.14), part)

    shirt, trousers, skin = (light.shade(c) for c in (walker.shirt, walker.trousers, walker.skin))
    shoe = light.shade((46, 40, 38))
    parts: dict[str, int] = {}
    jobs: list[tuple[float, Callable[[], None]]] = []
    toe = np.array([np.sin(walker.heading), 0.0, np.cos(walker.heading)]) * 0.085 * h
    for name in ("left", "right"):
        parts[f"{name}_leg"], parts[f"{name}_arm"] = new_part(), new_part()

        def leg(name: str = name) -> None:
            part = parts[f"{name}_leg"]
            hip, knee, ankle = (flat[f"{name}_{j}"] for j in ("hip", "knee", "ankle"))
            heel = world[f"{name}_ankle"] - (0, 0.022 * h, 0)
            foot = camera.project(np.stack((heel, heel + toe)))
            limb(part, list(foot), (0.022, 0.017), shoe)
            bare = walker.skirt
            limb(part, (knee, ankle), (0.032, 0.021), skin if bare else trousers)
            limb(part, (hip, knee), (0.050, 0.036), skin if bare else trousers)

        def arm(name: str = name) -> None:
            part = parts[f"{name}_arm"]
            shoulder, elbow, wrist = (flat[f"{name}_{j}"] for j in ("shoulder", "elbow", "wrist"))
            limb(part, (elbow, wrist), (0.022, 0.016), tint(shirt, 0.9))
            canvas.dot(wrist + (wrist - elbow) * 0.16, 0.020 * h * size, skin, part)
            limb(part, (shoulder, elbow), (0.030, 0.024), tint(shirt, 0.94))

        jobs.append(
            (float(world[f"{name}_knee"][2]) + (1.0 if walker.skirt else 0.0), leg)
        )  # under the skirt
        depth = float(world[f"{name}_elbow"][2] + world[f"{name}_shoulder"][2]) / 2
        jobs.append(
            (depth - 0.06 * h * abs(float(np.cos(walker.heading))), arm)
        )  # beside the body, not behind it
    parts["torso"], parts["head"] = new_part(), new_part()

    def torso() -> None:
        part = parts["torso"]
        shoulders = [flat["left_shoulder"], flat["right_shoulder"]]
        hips = [flat["left_hip"], flat["right_hip"]]
        limb(part, hips, (0.058, 0.058), trousers)
        if walker.skirt:
            knees = [flat["left_knee"], flat["right_knee"]]
            hem = [a * 0.25 + b * 0.75 for a, b in zip(hips, knees, strict=True)]
            limb(part, [*hips, *hem], (0.055, 0.055, 0.062, 0.062), trousers)
        limb(part, [flat["neck"], (shoulders[0] + shoulders[1]) / 2], (0.032, 0.036), tint(skin, 0.85))
        raised = [p * 0.75 + q * 0.25 for p, q in zip(hips, shoulders, strict=True)]
        inner = [p * 0.86 + flat["neck"] * 0.14 for p in shoulders]
        limb(part, [*inner, *raised], (0.034, 0.034, 0.054, 0.054), shirt)
        if walker.bag:
            strap = (0.012 * h * size, 0.012 * h * size)
            canvas.capsule((shoulders[0], hips[1]), strap, tint(shirt, 0.45), part)

    jobs.append((float(world["neck"][2]), torso))
    for _, job in sorted(jobs, key=lambda each: -each[0]):
        job()
    points, ears, facing = paint_head(canvas, walker, world["head"], parts["head"], skin)
    eyes = points[[97, 96]]  # the person's left eye is on the image right when he looks at us
    joints = np.concatenate((points[54:55], eyes, ears[[1, 0]], np.stack([flat[n] for n in JOINTS[5:]])))
    head = frozenset((parts["head"],))
    hidden: frozenset[int] = frozenset()
    turn = head_rotation(walker)
    gaze_yaw = float(np.arctan2(-facing[0], -facing[2]))  # positive: to the image left
    sees = [turn @ np.array([s, 0.0, 0.25]) for s in (-1.0, 1.0)]  # which eye and ear point at us
    toward = [float(-s[2]) for s in sees]
    owners = [head if facing[2] < 0.15 else hidden]
    owners += [head if facing[2] < 0 and toward[k] > -0.55 else hidden for k in (1, 0)]
    owners += [head if toward[k] > -0.45 and not walker.long_hair else hidden for k in (1, 0)]
    for name in JOINTS[5:]:
        side, joint = name.split("_")
        limb_part = parts[f"{side}_arm" if joint in ("shoulder", "elbow", "wrist") else f"{side}_leg"]
        extra = (parts["torso"],) if joint in ("shoulder", "hip") else ()
        owners.append(frozenset((limb_part, *extra)))
    view = np.array([walker.x + camera.bend * walker.z**2, 0.0, walker.z])
    view /= np.linalg.norm(view)
    angles = (walker.gaze[0], gaze_yaw, walker.gaze[2])
    return Figure(walker, instance, joints, tuple(owners), points, head, angles, float(-(facing @ view)))


def paint_head(
    canvas: Canvas, walker: Walker, center: np.ndarray, part: int, skin: Color
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Skull, face and features from the 98 landmarks. Returns landmarks (98, 2), ears (2, 2), gaze (3,)."""
    camera, light = canvas.camera, canvas.light
    unit, turn = head_unit(walker), head_rotation(walker)

    def place(points: np.ndarray) -> np.ndarray:
        return camera.project(center + unit * np.asarray(points) @ turn.T)

    points, ears = place(face_model(walker)), place(EARS)
    gaze = turn @ np.array([0.0, 0.0, 1.0])
    size = unit * camera.focal / walker.z
    hair = light.shade(walker.hair)
    crown = place(np.array([[0, -0.35, -0.12]]))[0]
    skull = hull(np.stack((crown, place(np.array([[0, 0.15, -0.2]]))[0])), np.array([1.17, 1.08]) * size, 20)
    if walker.long_hair:
        mane = place(np.array([[-0.45, 1.6, -0.55], [0.45, 1.6, -0.55], [0, 0.2, -0.25]]))
        canvas.capsule(mane, np.array([0.55, 0.55, 1.15]) * size, tint(hair, 0.85), part)
    canvas.convex(skull, hair, part)
    show_face = gaze[2] < 0.35
    if walker.long_hair and show_face:
        canvas.capsule(
            place(np.array([[0, 1.0, 0.1], [0, 2.1, -0.1]])),
            (0.5 * size, 0.52 * size),
            tint(skin, 0.82),
            part,
        )
    for k in (0, 1):
        canvas.dot(ears[k], 0.24 * size, tint(skin, 0.88), part)
    if not show_face:
        if gaze[2] > 0.6 or walker.long_hair:
            canvas.convex(skull, hair, part)
            canvas.convex(skull * 0.6 + (crown - (0, 0.3 * size)) * 0.4, tint(hair, 1.25), part)
        return points, ears, gaze
    outline = np.concatenate((points[0:33], place(FOREHEAD)))
    canvas.convex(convex_hull(outline), skin, part)
    if size > 2.0 and gaze[2] < 0:
        paint_features(canvas, walker, points, place, part, skin, size)
    fringe = np.concatenate((place(FOREHEAD), place(FOREHEAD[::-1] * (0.86, 0.78, 1.0) + (0, -0.02, 0.1))))
    canvas.polygon(fringe, hair, part)
    top = place(np.concatenate((FOREHEAD[2:7] * (1.0, 1.0, 1.0), FOREHEAD[2:7][::-1] * (0.9, 1.28, 0.2))))
    canvas.convex(convex_hull(top), hair, part)
    return points, ears, gaze


def paint_features(
    canvas: Canvas,
    walker: Walker,
    points: np.ndarray,
    place: Callable[[np.ndarray], np.ndarray],
    part: int,
    skin: Color,
    size: float,
) -> None:
    """Brows, eyes, nose and mouth: polygons through the landmarks themselves."""
    light = canvas.light
    side = slice(0, 17) if light.sun[0] > 0 else slice(16, 33)  # the cheek away from the sun
    middle = points[[51, 57, 16]].mean(axis=0)
    canvas.polygon(
        np.concatenate((points[side], points[side][::-1] * 0.72 + middle * 0.28)), tint(skin, 0.88), part
    )
    canvas.polygon(points[55:60], tint(skin, 0.78), part)
    flank = np.array([0.12 * size if light.sun[0] < 0 else -0.12 * size, 0.0])
    canvas.polygon(
        np.concatenate((points[51:55], points[[57]], points[[54]] + flank)), tint(skin, 0.88), part
    )
    canvas.polygon(np.concatenate((points[51:55], points[54:51:-1] - flank * 0.6)), tint(skin, 1.07), part)
    brow = tint(light.shade(walker.hair), 0.8)
    canvas.polygon(points[33:42], brow, part)
    canvas.polygon(points[42:51], brow, part)
    white, iris, lash = (light.shade(c) for c in ((236, 234, 230), (58, 44, 36), (50, 38, 34)))
    for eye, pupil in ((points[60:68], points[96]), (points[68:76], points[97])):
        canvas.polygon(eye, white, part)
        canvas.dot(pupil, 0.085 * size, iris, part)
        canvas.polygon(np.concatenate((eye[:5], eye[4::-1] - (0, 0.04 * size))), lash, part)
    canvas.polygon(points[76:88], tint(mix(skin, light.shade((176, 74, 72)), 0.62), 0.95), part)
    canvas.polygon(points[88:96], light.shade((70, 26, 28)), part)
