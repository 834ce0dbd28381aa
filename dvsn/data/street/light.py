"""The hour of the day and the colours it makes: RGB 0..255, directions in the world's frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Color = tuple[float, float, float]


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


def pick(rng: np.random.Generator, colors: Sequence[Color], low: float = 1.0, high: float = 1.0) -> Color:
    return tint(colors[int(rng.integers(len(colors)))], float(rng.uniform(low, high)))
