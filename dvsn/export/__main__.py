"""`python -m dvsn.export`: a checkpoint becomes one file that runs without dvsn, and is checked against it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from dvsn import command_line
from dvsn.atomic import write_json
from dvsn.command_line import REQUIRED, UNPACKED, Command, Option
from dvsn.config.light_imports import import_lightning
from dvsn.errors import ConfigError
from dvsn.reading import unpacking

log = logging.getLogger("dvsn")

COMMAND = Command(
    name="export",
    summary="Write a checkpoint as one file that runs without dvsn, and check that it answers as the network does.",
    options=(
        Option("checkpoint", REQUIRED, "a dvsn checkpoint"),
        Option("format", "onnx", "onnx, openvino, pt2 (torch.export), executorch, safetensors (weights and recipe); best: "
                        "the fastest of onnx and openvino on this machine, by a short measurement"),
        Option("output", None, "the file; null: beside the checkpoint, with the ending of the format"),
        Option("precision", "auto", "fp32, fp16, bf16 or int8 (calibrated on pictures of the data set); auto: fp32, with "
                        "format=best also bf16"),
        Option("size", "recipe", "sides of the input: recipe: those that the recipe resizes to, else any; dynamic: any; or "
                        "HEIGHTxWIDTH. Crops of people and faces have one size"),
        Option("batch", "auto", "pictures at a time: a number, or dynamic: any; auto: dynamic where the task can"),
        Option("raw", False, "leave the decoding out: logits, heatmaps"),
        Option("mirror", None, "pose, landmarks, segmentation: also ask the mirrored picture; null: as the recipe"),
        Option("test_dropout", None, "pix2pix: false exports a generator that is tested with dropout without it"),
        Option("test_norm", None, "pix2pix: running or batch statistics; null: as the recipe"),
        Option("pictures", None, "a folder, of which some are asked about in the check and the calibration; null: those of "
                        "the recipe's data set, where it lies"),
        Option("root", None, "where the data set of the recipe lies, if not where it lay in training"),
        Option("samples", 64, "int8: pictures that the scales are taken from"),
        Option("drop", 0.5, "int8: how much of the score may be lost, in points of a hundred"),
        Option("equal", None, "int8: the least share of pixels with the class of fp32, or of points within a pixel of it, "
                        "such as 0.99; null: 0.9"),
        Option("scored", 128, "int8: pictures of val that the score is measured on to find what must stay in fp32"),
        Option("finetune", None, "int8: so many epochs of training with rounding in the loop, on train of the recipe's data "
                        "set and taught by the network in fp32; null: none"),
        Option("finetune.lr", None, "the learning rate at its start; null: 0.00001"),
        Option("finetune.task_weight", None, "times the task's own loss, beside what the teacher says; null: 0.1"),
        Option("finetune.teacher", None, "another checkpoint that teaches; null: the one that is exported"),
        Option("target", "cpu", "int8: cpu (ONNX Runtime, OpenVINO) or gpu (symmetric scales, as TensorRT wants them)"),
        Option("score", False, "measure the file on val of the recipe's data set, as dvsn.evaluate does, and keep that in "
                        "the manifest beside it"),
        Option("artifact", False, "log the file to W&B, as made from the checkpoint of a run with logger=wandb"),
        Option("overwrite", False, "replace a file that is there"),
        UNPACKED,
    ),
    examples=(
        "python -m dvsn.export best.ckpt",
        "python -m dvsn.export best.ckpt format=best",
        "python -m dvsn.export best.ckpt format=openvino precision=int8 root=/data/camvid",
        "python -m dvsn.export best.ckpt precision=int8 finetune=3 root=/data/camvid",
        "python -m dvsn.export best.ckpt size=512x1024 batch=1 output=pidnet.onnx",
        "python -m dvsn.export hrnet_w32.ckpt mirror=false raw=true",
    ),
)  # fmt: skip


def export(options: dict[str, Any]) -> Path:
    """Write the file, check it, and return its path. Nothing is left of a file that does not pass."""
    import_lightning()
    from dvsn.engine.boards.exported import keep_export, source_of
    from dvsn.export.run import Export

    target = options["output"]
    if target is not None and not isinstance(target, str):
        raise ConfigError(f"output: found {target!r}, expected the path of a file.")
    with unpacking(options):
        source = source_of(Path(str(options["checkpoint"]))) if options["artifact"] else None
        path = Export(settled(options)).run()
        if options["score"]:
            keep_score(path, options["root"])
        if source is not None:
            keep_export(path, source)
    return path


def settled(options: dict[str, Any]) -> dict[str, Any]:
    """The options with a format and a precision instead of `best` and `auto`."""
    if options["format"] == "best":
        from dvsn.benchmark.best import choose

        return {**options, **choose(options)}
    return {**options, "precision": "fp32"} if options["precision"] == "auto" else options


def keep_score(path: Path, root: Any) -> None:
    """Measure an exported file and write its scores into the manifest beside it."""
    from dvsn.evaluate import called

    beside = path.with_suffix(".json")
    measured = called(path, split="val", **({"root": str(root)} if root is not None else {}))
    about = json.loads(beside.read_text(encoding="utf-8"))
    about["score"] = {"split": "val", "metrics": dict(measured.metrics), "measured": measured.measured}
    write_json(beside, about)
    for name, value in measured.metrics.items():
        log.info("score  %s %.4f", name, value)


def main() -> None:
    import sys

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command_line.run(lambda: export(COMMAND.parse(sys.argv[1:])), command=COMMAND)


if __name__ == "__main__":
    main()
