"""Seamless noise and the textures made of it: squares of `TILE` texels, `PER_METRE` of them to a metre."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

TILE = 512  # pixels of the square texture, 64 to a metre
PER_METRE = 64.0


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
