"""Facts of a data set: what its recipes, crops and scores need to know, and the reading of its files does not."""

from __future__ import annotations

from typing import Any, Literal

from dvsn.config.types import require


class DataFacts:
    """A record that other YAML files refer to, as in `mean: ${data.facts.mean}`.

    - `mean`, `std`: of RGB in [0, 1].
    - `class_weights`, `boundary_frame`: of the published recipes of segmentation; pixels along each side without outlines.
    - `padding`: the factor by which the box of a person or a face is enlarged.
    - `face_box`: what faces are cut by, their `points` or the `rectangle` of the annotation; see `dvsn.data.face_crop`.
    - `score`: what keypoints are measured by here.
    - `normalise`: the lengths that `nme` counts in (see `dvsn.metrics.landmarks.NME`).

    Raises `ConfigError` for numbers that have no meaning.
    """

    def __init__(
        self,
        *,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        class_weights: list[float] | str | None = None,
        boundary_frame: int = 0,
        padding: float = 1.25,
        face_box: Literal["points", "rectangle"] = "points",
        score: Literal["ap", "pckh", "pck", "nme"] = "pck",
        normalise: dict[str, Any] | None = None,
    ) -> None:
        rules = (
            (
                "mean",
                mean,
                len(mean or ()) == len(std or ()),
                f"as many numbers as data.facts.std has, {std}",
            ),
            ("std", std, min(std or (1.0,)) > 0, "numbers above 0"),
            ("boundary_frame", boundary_frame, boundary_frame >= 0, "0 or more pixels"),
            ("padding", padding, padding > 0, "a factor above 0"),
        )
        require(rules, "data.facts.")
        self.mean, self.std = mean, std
        self.class_weights, self.boundary_frame = class_weights, boundary_frame
        self.padding, self.face_box, self.score, self.normalise = padding, face_box, score, normalise
