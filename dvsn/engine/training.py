"""One training, from its resolved config to result.json: the steps in order."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from dvsn.atomic import write_json
from dvsn.config.build import inspect_tree
from dvsn.config.launched import restarted
from dvsn.config.partners import check_partners
from dvsn.engine import console, loggers, results, resume, run_folder, teaching
from dvsn.engine import trainer as runtime
from dvsn.engine.boards import runs
from dvsn.engine.boards.ids import keep_ids
from dvsn.engine.faults import told
from dvsn.engine.initial_weights import start_from
from dvsn.engine.next_steps import next_lines
from dvsn.engine.times import Times
from dvsn.engine.together import Together

Config = dict[str, Any]


def train(config: Config) -> dict[str, Any]:
    """Train by a resolved, plain config. Returns what result.json holds."""
    console.quiet()
    check_partners(config)
    inspect_tree(config)
    runtime.keep_class_weights(config)
    folder = Path(config["run_dir"])
    checkpoint = resume.find_resume(config.get("resume"), folder)
    task, data = runtime.build_both(config)
    forced: tuple[str, ...] = ()
    ran: tuple[str, ...] | None = None
    if checkpoint is not None:
        config, forced, ran = resume.settle(checkpoint, config, task)
    elif config.get("weights"):
        start_from(task, config["weights"])
    teaching.distil(task, config, data, ran)
    if checkpoint is not None:
        resume.require_weights(task, checkpoint)
    keep_ids(folder, checkpoint, again=bool(config.get("resume")) or restarted())
    trainer = runtime.build_trainer(config, task)
    if forced:
        trainer.callbacks.append(resume.ForcedOptions(forced))  # type: ignore[attr-defined]
    teacher = results.measure_teacher(task, config)  # before training: its file may be gone at the end
    if trainer.is_global_zero:
        run_folder.record_run(folder, config)
        console.describe(config, task, trainer, folder, teacher_score=teacher.score)
        runs.begin(trainer.loggers, config)
    before = 0
    if checkpoint is not None:
        reached = resume.reached(checkpoint)
        before = reached.logged
        loggers.resume_csv(trainer, before)
        results.find(trainer, Together).started_from = (reached.epoch, reached.step)

    started = time.perf_counter()
    with told(trainer, config):
        trainer.fit(
            task,
            datamodule=data,
            ckpt_path=None if checkpoint is None else str(checkpoint),
            weights_only=True,
        )
    result = results.result(
        config, task, trainer, folder, teacher=teacher, seconds=time.perf_counter() - started, before=before
    )
    if trainer.is_global_zero:
        write_json(folder / "result.json", result)
        times = results.find(trainer, Times)
        console.report(
            result,
            folder,
            next_lines(config, task, trainer, folder),
            advice=times.advice() if times else None,
        )
        runs.finish(trainer.loggers, config, result=result, folder=folder)
    return result
