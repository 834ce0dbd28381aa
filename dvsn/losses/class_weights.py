"""Weights of classes: published lists, two formulas on pixel counts, and files of such numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from dvsn.errors import ConfigError, nearest
from dvsn.reading import read_json

CITYSCAPES = (0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023,
              0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507)  # fmt: skip
CAMVID_SEGNET = (0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614)

BUILT_IN: dict[str, tuple[float, ...]] = {"cityscapes": CITYSCAPES, "camvid_segnet": CAMVID_SEGNET}
"""`cityscapes`: HRNet's and PIDNet's list, in the order of the 19 train ids. `camvid_segnet`: SegNet's list for
the 11 grouped classes, sky first; its weight of signs does not follow from the files that are handed on today."""


def median_frequency(counts: Sequence[int], present: Sequence[int]) -> list[float]:
    """Median of the class frequencies over each: rare classes weigh more, the middle one weighs 1.

    `counts[k]` is the number of pixels of class k, `present[k]` the number of all pixels, ignored ones too, of the
    images that show class k; their ratio is the frequency. A class that never occurs weighs 0 and has no part
    in the median. Eigen and Fergus, 2015, arXiv:1411.4734, section 6.3.2.
    """
    frequencies = [c / p if c else 0.0 for c, p in zip(counts, present, strict=True)]
    occurring = [f for f in frequencies if f > 0]
    middle = statistics.median(occurring) if occurring else 0.0
    return [middle / f if f > 0 else 0.0 for f in frequencies]


def enet(counts: Sequence[int], *, total: int, offset: float = 1.02) -> list[float]:
    """1 / ln(offset + p), p being a class's share of the `total` of pixels, ignored ones too.

    With 1.02 the weights lie between 1.4 and 50.5; a class that never occurs gets the largest. Paszke et al.,
    2016, arXiv:1606.02147, section 5.2.
    """
    return [1.0 / math.log(offset + count / max(total, 1)) for count in counts]


def resolve(weights: Sequence[float] | str | None, *, classes: int) -> list[float] | None:
    """The numbers behind the option `class_weights`: a list, a built-in name, or the path of a JSON file.

    The file is what `python -m dvsn.data weights` writes: {"method": ..., "weights": [...], "classes": [...]}.
    Raises `ConfigError` unless there are as many as classes, each finite and at least 0, and one above 0.
    """
    if weights is None:
        return None
    source = ""
    if isinstance(weights, str):
        source = f" in '{weights}'"
        weights = BUILT_IN[weights] if weights in BUILT_IN else _read(weights)
    numbers = [float(weight) for weight in weights if isinstance(weight, int | float)]
    if len(numbers) != classes or len(weights) != classes:
        raise ConfigError(
            f"loss.class_weights: expected {classes} numbers, one a class, found {len(weights)} values"
            f"{source}. Set loss.class_weights=null for none, or count them for this data set with "
            "`python -m dvsn.data weights`."
        )
    if not all(0.0 <= number < math.inf for number in numbers) or max(numbers) == 0.0:
        raise ConfigError(
            f"loss.class_weights: expected finite numbers of at least 0, one above 0, found {numbers}{source}."
        )
    return numbers


def _read(path: str) -> Sequence[float]:
    """The weights of a JSON file."""
    if not Path(path).is_file():
        raise ConfigError(
            f"loss.class_weights: '{path}' is neither a built-in name nor a file. {nearest(path, BUILT_IN)} "
            "`python -m dvsn.data weights` writes such a file."
        )
    try:
        content = read_json(path)
        weights = content["weights"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"loss.class_weights: cannot read '{path}' ({type(error).__name__}: {error}). Expected JSON with a "
            'list "weights", as `python -m dvsn.data weights` writes.'
        ) from error
    if not isinstance(weights, list):
        raise ConfigError(f"loss.class_weights: \"weights\" in '{path}' is {weights!r}, expected a list.")
    return weights
