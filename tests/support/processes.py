"""One rank of runs of two processes: of each config file that it is given it trains, then writes RUN_DIR/rank_N.pt.

Run by tests/support/ranks.py. With DIES_AFTER=N in the environment it dies before step N of the first."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dvsn.engine import teaching
from dvsn.engine import trainer as runtime
from dvsn.engine.resume import find_resume


def draw_alike(patch: Any) -> None:
    """CRD draws the same negatives for an item in whatever process it is."""
    from dvsn.distill.crd import ContrastiveRepresentation
    from tests.support.gathering import Repeatable

    patch.setattr(ContrastiveRepresentation, "draw", Repeatable.draw)


def train(config: dict[str, Any], dies_after: int | None) -> None:
    folder = Path(config["run_dir"])
    if "crd" in (config.get("distill") or {}):
        draw_alike(pytest.MonkeyPatch())
    task = runtime.make_task(config)
    if config.get("distill"):
        teaching.distil(task, config, runtime.build_data(config))
    trainer = runtime.build_trainer(config, task)
    if dies_after is not None:
        from tests.support.resuming import Dies

        class Killed(Dies):
            def on_train_batch_start(self, *arguments: object) -> None:
                self.seen += 1
                if self.seen > self.step:
                    os._exit(9)

        trainer.callbacks.insert(0, Killed(dies_after))
    resume = find_resume("auto", folder)
    trainer.fit(task, runtime.build_data(config), ckpt_path=resume, weights_only=True)
    torch.save(task.state_dict(), folder / f"rank_{trainer.global_rank}.pt")
    scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
    (folder / f"rank_{trainer.global_rank}.json").write_text(json.dumps(scores))


if __name__ == "__main__":
    torch.set_num_threads(1)
    death = os.environ.get("DIES_AFTER")
    for file in sys.argv[1:]:
        train(json.loads(Path(file).read_text()), None if death is None else int(death))
