"""`python -m dvsn.evaluate`: a checkpoint on a split, as a table, metrics.json and pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from dvsn import command_line
from dvsn.command_line import REQUIRED, UNPACKED, Command, Option
from dvsn.config import python
from dvsn.config.callable_module import make_callable
from dvsn.config.light_imports import import_lightning
from dvsn.engine.records import Evaluation, Run

Config = dict[str, Any]

COMMAND = Command(
    name="evaluate",
    summary="Measure a checkpoint on a split of a data set.",
    groups=True,
    sweeps=True,
    options=(
        Option(
            "checkpoint", REQUIRED, "what to measure; it knows its task and its data set"
        ),
        Option("split", "val", "val, test or train"),
        Option("root", "null", "where the data set lies now"),
        Option("output", "null", "folder of metrics.json and pictures; null: beside the checkpoint"),
        Option("batch_size", "null", "null: as in training's validation"),
        Option("trainer.precision", "32-true", "of the measurement; published numbers are float32"),
        Option("worst", "null", "such as 50: a score for every picture in pictures.csv, and so many of the worst and of the "
                        "best, and of large confusions, side by side in worst/, best/ and confused/"),
        Option("teacher", "null", "with worst: a checkpoint to set beside it; auto: the run's own teacher"),
        Option("fiftyone", "null", "a name: every picture with truth and prediction in fiftyone/, as FiftyOne imports it"),
        Option("save_all", "false", "write every result too: pictures; of segmentation also ids and, where "
                        "there is one, the test server's form"),
        Option("test_dropout", "null", "pix2pix: dropout at test time; null: as the recipe"),
        Option("test_norm", "null", "pix2pix: running or batch statistics; null: as the recipe"),
        Option("inference.mode", "null", "segmentation: whole or slide; null: as the recipe"),
        Option("inference.window", "null", "slide: [HEIGHT,WIDTH]; inference.stride likewise"),
        Option("inference.blend", "null", "slide: even, ramp or centre: what counts where windows overlap"),
        Option("inference.scales", "null", "such as [0.5,0.75,1,1.25,1.5,1.75]: averaged"),
        Option("inference.flip", "null", "true: averaged with the mirrored picture"),
        Option("inference.resize", "null", "pictures to [HEIGHT,WIDTH], or to a shorter side such as 520"),
        Option("metrics.boundary_score", "null", "segmentation: true adds the boundary F-score"),
        Option("metrics.absent", "null", "segmentation: skip or zero, for classes that are nowhere"),
        Option("metrics.segmenter", "null", "pix2pix: a segmentation checkpoint: adds the FCN score"),
        Option("flip_test", "null", "pose: whether to average with the mirrored crop; null: as the recipe"),
        Option("metrics.reference", "null", "pose: of PCK, torso, box or length; metrics.threshold likewise"),
        Option("metrics.nms", "null", "pose: of AP, the similarity above which one of two people is dropped"),
        Option("metrics.evaluator", "null", "of COCO's AP: pycocotools or faster_coco_eval; null: as the recipe"),
        Option("metrics.inception_weights", "null", "file of FID's Inception: adds FID and KID"),
        Option("metrics.lpips_weights", "null", "file of torchvision's backbone: adds LPIPS"),
        Option("logger", "none", "wandb, tensorboard, mlflow or comet: shows there what is found, too"),
        UNPACKED,
    ),
    examples=(
        "python -m dvsn.evaluate checkpoint=runs/demo/pix2pix/checkpoints/best.ckpt split=test",
        "python -m dvsn.evaluate checkpoint=best.ckpt worst=50",
        "python -m dvsn.evaluate checkpoint=best.ckpt data=cityscapes data.root=/data/cityscapes",
        "python -m dvsn.evaluate checkpoint=hrnet.ckpt data=coco data.people.boxes=COCO_val2017_detections.json",
        "python -m dvsn.evaluate checkpoint=pidnet.ckpt inference.scales=[0.75,1,1.25] inference.flip=true",
        "python -m dvsn.evaluate checkpoint=pidnet.ckpt trainer.precision=bf16-mixed",
    ),
)  # fmt: skip


def evaluate(config: Config, *, shown: bool = True) -> dict[str, float]:
    """Evaluate by a resolved, plain config. Returns the metrics by name, which are `shown` as a table on the screen."""
    values: dict[str, float] = _work().evaluate(config, shown=shown)
    return values


def _work() -> Any:
    """What does it, with Lightning, which `--help` and a wrong option do without."""
    import_lightning()
    from dvsn.engine import evaluation

    return evaluation


def compose_and_evaluate() -> Any:
    """Runs the command line, once or for every job of a sweep."""
    from dvsn.sweep import launcher  # imports Hydra, which `--help` does without

    return launcher.run("evaluate", evaluate)


def called(
    checkpoint: str | os.PathLike[str] | Run,
    *overrides: str,
    split: str = "val",
    config_dir: str | os.PathLike[str] | None = None,
    allow: Sequence[str] = (),
    **options: Any,
) -> Evaluation:
    """Measure a checkpoint on a `split` (val, test or train), as `python -m dvsn.evaluate` does with the same words.

        dvsn.evaluate(run.best, split="test")["miou"]

    `checkpoint` is a file, or a run, of which the best is taken, else the last. `overrides` and `options` are those of the
    command: `root`, `output`, `batch_size`, `inference={"flip": True}`, `"data=mine"`; accelerator, devices, precision,
    limit_test_batches and enable_progress_bar are short for those of trainer. `config_dir` and `allow`: as of `dvsn.train`.
    Raises `ConfigError`, `DataError` and `CheckpointError`.
    """
    if isinstance(checkpoint, Run):
        checkpoint = checkpoint.kept

    def job(config: Config) -> Evaluation:
        evaluate(config, shown=False)
        return Evaluation.of(_work().output_of(config))

    words = {"checkpoint": os.fspath(checkpoint), "split": split, **options}
    measured: Evaluation = python.call("evaluate", job, overrides, words, config_dir=config_dir, allow=allow)
    return measured


make_callable(__name__, called)


def main() -> None:
    command_line.run(compose_and_evaluate, command=COMMAND)


if __name__ == "__main__":
    main()
