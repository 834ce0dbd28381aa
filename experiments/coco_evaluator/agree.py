"""Both evaluators of COCO's average precision on the random cases of their test: `python agree.py COUNT`, from the root."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from dvsn.metrics.coco_evaluator import evaluated
from tests.metrics.test_coco_evaluator import KINDS, SIGMAS, case


def main(count: int) -> None:
    for kind in KINDS:
        sigmas = SIGMAS if kind == "keypoints" else None
        largest, counted = 0.0, 0
        for seed in range(count):
            files = case(kind, seed)
            plain = evaluated(*copy.deepcopy(files), kind, sigmas=sigmas)
            fast = evaluated(*copy.deepcopy(files), kind, evaluator="faster_coco_eval", sigmas=sigmas)
            pairs = [(plain.stats, fast.stats)]
            pairs += [
                (plain.eval[name], fast.eval[name])
                for name in ("precision", "recall", "scores")
                if fast.eval[name].size
            ]
            largest = max(largest, *(float(np.abs(np.subtract(*pair)).max()) for pair in pairs))
            counted += plain.stats[0] > 0
        print(f"{kind}: {count} cases, AP above 0 in {counted}, largest difference {largest:.1e}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
