"""`python -m dvsn.predict`: a checkpoint on pictures of your own."""

from __future__ import annotations

import glob
import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvsn import command_line
from dvsn.command_line import REQUIRED, Command, Option
from dvsn.config.light_imports import import_lightning
from dvsn.errors import ConfigError, DataError

log = logging.getLogger("dvsn")

COMMAND = Command(
    name="predict",
    summary="Run a checkpoint on a picture, a folder or a glob.",
    options=(
        Option("checkpoint", REQUIRED, "a dvsn checkpoint"),
        Option("input", REQUIRED, "a picture, a folder (with all below it), or a quoted glob"),
        Option("output", "predictions", "folder of the results: a PNG a picture, and of pose keypoints.json, of "
                        "landmarks landmarks.json, of detection detections.json, in COCO's results format, of "
                        "classification classes.csv and .json"),
        Option("size", "recipe", "recipe: the checkpoint's own evaluation size; keep: the picture's (padded "
                        "to what the network needs and cropped back); or HEIGHTxWIDTH"),
        Option("write", None, "what: of pix2pix picture; of segmentation color, overlay, ids, or submission (ids "
                        "of the data set's test server); of classification cards (and the table) or table; null: the first"),
        Option("original_size", False, "resize each result to its picture's size at the end"),
        Option("side_by_side", False, "write input and result in one picture"),
        Option("upright", True, "turn pictures by their orientation tag, as viewers do; false: as stored, as in training"),
        Option("max_pixels", 200_000_000, "of the largest picture that is read"),
        Option("batch_size", 1, "pictures of one size at a time; of pose and landmarks people and faces"),
        Option("boxes", "image", "pose, landmarks: where people or faces are. image: the whole picture; "
                        "FILE.json: annotations or detections in COCO's format; FILE.ckpt: a dvsn detection checkpoint; "
                        "FILE.pth: weights of a detector of torchvision, with detector=NAME; FILE.onnx: weights of "
                        "YuNet, which finds faces"),
        Option("annotations", None, "pose, landmarks: COCO file with the pictures' ids, for detections of "
                        "pictures that are not called by their number"),
        Option("detector", None, "pose, landmarks: the model of FILE.pth, such as fasterrcnn_resnet50_fpn; of "
                        "faces also yunet, of FILE.onnx, or haar, which OpenCV 4 ships with its weights"),
        Option("category", None, "pose, landmarks: the number of people or faces among the boxes' categories; "
                        "null: person or face"),
        Option("score", None, "objects, people's and faces' boxes below it are left out; null: 0.5 of people "
                        "and faces, 0.6 of YuNet, of detection as the recipe"),
        Option("padding", None, "landmarks: the crop's side, as a factor of the box's longer one. null: as "
                        "trained, 1.2 of the points' box, to which boxes of yunet and haar are brought first; of whole "
                        "pictures 1: they should show the face with 10 % around it, wider ones want less"),
        Option("nms", 0.9, "pose: people more alike than this (OKS) to a better one are left out"),
        Option("joint_score", 0.2, "pose, landmarks: keypoints of less confidence are not drawn"),
        Option("points", True, "landmarks: draw them as dots"),
        Option("outline", True, "landmarks: draw the lines between them"),
        Option("axes", True, "landmarks: draw how the head is turned: red to its side, green down, blue forward"),
        Option("smooth", False, "landmarks: the pictures of a folder, by name, are frames of a video, in which "
                        "each face is followed and its points are smoothed by a One-Euro filter"),
        Option("fps", 30.0, "smooth: frames in a second"),
        Option("min_cutoff", 1.0, "smooth: Hz; lower is calmer, at rest"),
        Option("beta", 20.0, "smooth: Hz more for a speed of one face's side a second; higher follows faster"),
        Option("top", 5, "classification: how many classes of a picture are written"),
        Option("device", "auto", "auto, cpu, cuda, cuda:1, mps"),
        Option("seed", 0, "for networks tested with dropout"),
    ),
    examples=(
        "python -m dvsn.predict runs/demo/latest/checkpoints/best.ckpt labels/ output=painted",
        "python -m dvsn.predict checkpoint=best.ckpt input='gtFine/val/*/*_color.png' size=keep",
        "python -m dvsn.predict pidnet.ckpt leftImg8bit/test write=submission output=results",
        "python -m dvsn.predict resnet8x4.ckpt photos top=3 size=32x32",
        "python -m dvsn.predict hrnet_w32.ckpt photos boxes=detector.ckpt score=0.7 batch_size=32",
        "python -m dvsn.predict pfld.ckpt frames/ boxes=face_detection_yunet_2023mar.onnx smooth=true fps=25",
    ),
)  # fmt: skip


SHARED = ("checkpoint", "input", "output", "upright", "max_pixels", "batch_size", "device", "seed")
"""Options that every task takes."""


def find_inputs(pattern: str, output: Path) -> list[tuple[Path, Path]]:
    """(picture, where its result goes): results keep their place below the folder they were found in."""
    from dvsn.data.files import SUFFIXES, pictures_below

    path = Path(pattern)
    if path.is_dir():
        found = sorted(path / name for name in pictures_below(path, skip=output))
        pairs = [(p, output / p.relative_to(path).with_suffix(".png")) for p in found]
        expected = f"a folder with pictures ({', '.join(sorted(SUFFIXES))})"
    else:
        found = [path] if path.is_file() else sorted(Path(p) for p in glob.glob(pattern, recursive=True))  # noqa: PTH207
        pairs = [(p, output / f"{p.stem}.png") for p in found if p.is_file()]
        expected = "a file, a folder or a glob such as 'labels/*.png'"
    if not pairs:
        raise DataError(f"input: nothing found at '{pattern}'; expected {expected}.")
    taken: dict[Path, Path] = {}
    for source, target in pairs:
        if target in taken:
            raise DataError(
                f"input: {taken[target]} and {source} would both be written to {target}. Give a folder instead of a "
                "glob, or rename one."
            )
        if target.resolve() == source.resolve():
            raise DataError(f"output: {target} is the picture itself. Choose another folder with output=...")
        taken[target] = source
    return pairs


def find_device(wanted: str) -> str:
    """The device by name; `auto` is the GPU if there is one. Raises `ConfigError` where it cannot be used."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=wanted).item()
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"device: '{wanted}' cannot be used here: {reason} Expected auto, cpu, cuda, cuda:1 or mps."
        ) from error
    return wanted


def refuse_others(options: dict[str, Any], names: Sequence[str], kind: str) -> None:
    """Raise `ConfigError` for an option that was given and that the task `kind` does not know beside `SHARED`."""
    for option in COMMAND.options:
        if option.name not in (*SHARED, *names) and options[option.name] != option.default:
            raise ConfigError(
                f"{option.name}: the task '{kind}' has no such option. It has {', '.join((*SHARED, *names))}."
            )


def predict(options: dict[str, Any]) -> list[Path]:
    """Returns the files written. What they are is up to the checkpoint's task:
    `dvsn.predict.NAME.predict_files` for
    what it shows."""
    import_lightning()
    from dvsn.data.files import make_rule, read_by
    from dvsn.tasks.recipe import load

    items = find_inputs(str(options["input"]), Path(options["output"]))
    device = find_device(str(options["device"]))
    if int(options["batch_size"]) < 1:
        raise ConfigError(f"batch_size: found {options['batch_size']}, expected 1 or more.")
    task: Any = load(options["checkpoint"], device=device)
    part = importlib.import_module(f"dvsn.predict.{task.shows}")
    rule = make_rule(
        max_pixels=options["max_pixels"],
        deep_range=getattr(task, "data_recipe", {}).get("deep_range"),
        upright=bool(options["upright"]),
    )
    with read_by(rule):
        written: list[Path] = part.predict_files(task, items, options, device)
    turned = sorted(set(rule.turned))
    if turned:
        log.info(
            "%d of %d pictures were turned upright by their orientation tag, such as %s; positions are those of the upright "
            "picture (upright=false: as stored, as in training)", len(turned), len(items), turned[0],
        )  # fmt: skip
    return written


def main() -> None:
    import sys

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    command_line.run(lambda: predict(COMMAND.parse(sys.argv[1:])), command=COMMAND)
