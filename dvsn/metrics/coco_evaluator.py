"""The evaluator of COCO's average precision: pycocotools', or faster-coco-eval's, whose figures are the same."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from dvsn.errors import ConfigError

Evaluator = Literal["pycocotools", "faster_coco_eval"]
FIGURES = {"bbox": 12, "segm": 12, "keypoints": 10}


def evaluated(
    wanted: dict[str, Any],
    found: dict[str, Any],
    kind: str,
    *,
    evaluator: Evaluator = "pycocotools",
    sigmas: Sequence[float] | None = None,
) -> Any:
    """A COCOeval that is done: `stats`, twelve figures or ten of keypoints, and `eval`, where `precision` is (overlaps,
    recalls, categories, areas, limits).

    `wanted` and `found` are the contents of annotation files; `kind`: bbox, segm or keypoints, which want `sigmas`.
    faster_coco_eval (Apache-2.0) has the same rules in C++. Raises `ConfigError` where it is not installed.
    """
    index, work, options = classes_of(evaluator)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        truth, answers = index(), index()
        for made, content in ((truth, wanted), (answers, found)):
            made.dataset = content
            made.createIndex()
        done = work(truth, answers, kind, **options)
        if sigmas is not None:
            done.params.kpt_oks_sigmas = np.array(sigmas)
        done.evaluate()
        done.accumulate()
        done.summarize()
    done.stats = done.stats[: FIGURES[kind]]  # faster_coco_eval adds recalls
    if not done.eval["precision"].size:  # it has no category where nobody is in a picture
        params = done.params
        sides = len(params.iouThrs), len(params.recThrs), 1, len(params.areaRng), len(params.maxDets)
        done.eval["precision"] = np.full(sides, -1.0)
    return done


def classes_of(evaluator: Evaluator) -> tuple[Any, Any, dict[str, Any]]:
    """The index of an annotation file and the evaluator, with the latter's options."""
    if evaluator == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval, {}
    try:
        from faster_coco_eval import COCO as FasterCOCO
        from faster_coco_eval import COCOeval_faster
    except ImportError as error:
        raise ConfigError(
            f"metrics.evaluator: faster_coco_eval needs the package faster-coco-eval ({error}). Install it: pip install "
            "'dvsn[coco]', or set metrics.evaluator=pycocotools."
        ) from None
    return FasterCOCO, COCOeval_faster, {"print_function": lambda *_: None}
