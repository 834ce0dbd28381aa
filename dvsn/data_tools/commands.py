"""The commands of `python -m dvsn.data`: their options and help, and one way to run them."""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any

from dvsn import command_line
from dvsn.command_line import REQUIRED, Command, Option
from dvsn.config import compose

ROOT = Option("data.root", "data/NAME", "where the data set lies")
WORKERS = Option("workers", "2", "processes that read; 0: the main one")

INIT = Command(
    name="data init",
    summary="Look at a folder of your own, say what lies there, and write the YAML files that train on it.",
    options=(
        Option("folder", REQUIRED, "the folder; nothing in it is changed"),
        Option("name", "mine", "what the data set is called: data=NAME, experiment=NAME"),
        Option("task", None, "which task is meant, where the folder allows several; null: the likeliest"),
        Option("into", "my_conf", "the folder of your own configs, which --config-dir names"),
        Option("ratio", "80/20", "where there are no splits: percent of train, val and perhaps test, such as 70/15/15"),
        Option("seed", None, "of that parting; null: the first by which train and val show every class"),
        Option("group", None, "which pictures stay in one split: prefix (of the name, up to _ - or .), folder, or a regular "
                        "expression on the path, such as '(scene[0-9]+)'"),
        Option("minutes", 30, "about how long training may take without a GPU; fewer are fewer epochs"),
        Option("overwrite", False, "replace YAML files that are there"),
        Option("train", False, "then train by them at once"),
    ),
    examples=(
        "python -m dvsn.data init scans",
        "python -m dvsn.data init scans name=scans group=prefix ratio=70/15/15",
        "python -m dvsn.data init photos task=pix2pix train=true",
    ),
)  # fmt: skip

CHECK = Command(
    name="data check",
    summary="Walk every split of a data set and report every fault. Exit code 2 if there is one, else 0.",
    groups=True,
    options=(
        ROOT,
        Option("output", "null", "a JSON file with everything that was found, every file by name"),
        WORKERS,
        Option("limit", "null", "only the first so many samples of each split"),
    ),
    examples=(
        "python -m dvsn.data check data=camvid output=report.json",
        "python -m dvsn.data check data=street task=pose workers=8",
    ),
)

SHOW = Command(
    name="data show",
    summary="Draw samples after augmentation, as the network will see them.",
    groups=True,
    options=(
        ROOT,
        Option("split", "train", "train, val or test"),
        Option("augment", "true", "the steps of training; false: those of evaluation"),
        Option("count", "6", "samples, spread evenly over the split"),
        Option("max_side", "512", "larger pictures are shrunk in the drawing"),
        Option("output", "samples", "a folder"),
    ),
    examples=(
        "python -m dvsn.data show data=camvid transform.crop_height=360 transform.crop_width=480",
        "python -m dvsn.data show task=pose data=street split=val augment=false",
    ),
)

WEIGHTS = Command(
    name="data weights",
    summary="Count the pixels of each class in the training split and weigh the classes.",
    groups=True,
    options=(
        ROOT,
        Option("method", "median_frequency", "median_frequency (SegNet), or enet: 1 / ln(1.02 + share)"),
        Option("output", "weights.json", "the file to write, for loss.class_weights"),
        WORKERS,
    ),
    examples=(
        "python -m dvsn.data weights data=camvid",
        "python -m dvsn.data weights data=cityscapes method=enet output=cityscapes_enet.json workers=8",
    ),
)  # fmt: skip

STATS = Command(
    name="data stats",
    summary="Mean and standard deviation of each channel of the training pictures; of other than 8 bits also their ranges.",
    groups=True,
    options=(
        ROOT,
        Option("data.input_channels", "3", "channels of a picture; 1: its brightness, others: its bands"),
        Option("output", "null", "a JSON file with the numbers"),
        WORKERS,
        Option("limit", "null", "only the first so many pictures"),
    ),
    examples=(
        "python -m dvsn.data stats data=camvid",
        "python -m dvsn.data stats data=segmentation data.root=fields data.input_channels=4",
    ),
)  # fmt: skip

FACES = Command(
    name="data faces",
    summary="Draw street scenes and write their faces in WFLW's published layout, to try a recipe without its data.",
    options=(
        Option("root", "data/street_faces", "the folder to write, for data=wflw data.root=..."),
        Option("train", 200, "scenes of the training split; one in two or three shows faces"),
        Option("test", 40, "scenes of the test split"),
        Option("height", 1024, "pixels of a scene; faces are 1/25 to 1/12 as high"),
        Option("width", 2048, "pixels of a scene"),
        Option("seed", 0, "other scenes"),
    ),
    examples=(
        "python -m dvsn.data faces root=data/street_faces train=500",
        "python -m dvsn.train task=landmarks data=wflw data.root=data/street_faces data.batch_size=32",
    ),
)  # fmt: skip

SHARD = Command(
    name="data shard",
    summary="Write a data set as shards, which stream from a bucket: data=shards. Goes on where an earlier run was ended.",
    groups=True,
    options=(
        ROOT,
        Option("target", None, "the folder to write, or an address such as s3://BUCKET/FOLDER"),
        Option("shard_mb", "64", "MiB of a shard, about"),
        WORKERS,
    ),
    examples=(
        "python -m dvsn.data shard data=camvid target=shards/camvid",
        "python -m dvsn.data shard data=imagefolder data.root=photos target=s3://bucket/photos workers=8",
    ),
)  # fmt: skip

COMMANDS = {
    "init": (INIT, "init.command"),
    "check": (CHECK, "check"),
    "show": (SHOW, "show"),
    "weights": (WEIGHTS, "weights"),
    "stats": (STATS, "stats"),
    "faces": (FACES, "faces"),
    "shard": (SHARD, "shard"),
}
"""By name: the options, and the module of this folder whose `job` does the work."""


def main(name: str) -> None:
    """Run a command. Its module, and torch with it, is imported when the options are known to be right."""
    command, module = COMMANDS[name]

    def job(options: dict[str, Any]) -> None:
        importlib.import_module(f"dvsn.data_tools.{module}").job(options)

    def work() -> None:
        if command.groups:
            compose.hydra_main(f"data_{name}", job)
        else:
            logging.basicConfig(level=logging.INFO, format="%(message)s")
            job(command.parse(sys.argv[1:]))

    command_line.run(work, command=command)
