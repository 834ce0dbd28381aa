"""`python -m dvsn.benchmark`: what networks, checkpoints and exported files cost, and how fast each back end makes them."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dvsn import command_line
from dvsn.atomic import replacing, write_json
from dvsn.benchmark.table import PROTOCOLS, markdown, show
from dvsn.command_line import UNPACKED, Command, Option
from dvsn.config import menu
from dvsn.config.python import spelt
from dvsn.config.types import number, require, whole
from dvsn.errors import ConfigError, nearest

log = logging.getLogger("dvsn")
Config = dict[str, Any]
VALUED = (
    "--config-dir",
    "-cd",
    "--allow",
    "--cfg",
    "-c",
    "--config-name",
    "-cn",
    "--package",
    "-p",
    "--info",
    "-i",
)
"""Flags that a word follows."""
USUAL_SIZE = (1024, 2048)
COMMAND = Command(
    name="benchmark",
    summary="Count, time and compare checkpoints, exported files and networks, plain and by each back end.",
    groups=True,
    sweeps=True,
    options=(
        Option("files", [], "by position: checkpoints, runs, exported files (.onnx, .xml), names of networks; any task"),
        Option("checkpoint", "null", "instead of files: a trained network of segmentation, pose or landmarks, by levers"),
        Option("size", "null", "height and width of the image; null: the recipe's; with network= and checkpoint= 1024x2048"),
        Option("batch", 1, "images at a time"),
        Option("protocols", list(PROTOCOLS), "network: to the raw answer, as papers do; end_to_end: from bytes"),
        Option("variants", [], "rows, such as folded+channels_last+bf16+compiled; []: those of the device"),
        Option("device", "auto", "auto, cpu, cuda, cuda:1, mps"),
        Option("threads", "null", "of the CPU; null: PyTorch's choice"),
        Option("clock", "wall", "wall; processor: what one thread of a CPU really had, where other jobs share the machine"),
        Option("seconds", 6, "how long a row is timed, about as long again for warming up"),
        Option("runs", "null", "time so many runs of a row instead"),
        Option("rounds", 3, "the rows take turns so many times"),
        Option("images", "null", "folder of pictures to agree on (16 of them); null: noise"),
        Option("calibration", "null", "folder of other pictures, for the scales of int8; null: images"),
        Option("calibration_pictures", 16, "how many of them; int8 needs some hundreds where it is inexact"),
        Option("keep", [], "module paths that int8 leaves in higher precision, such as [final_layer,dfm]"),
        Option("rest", "null", "that precision: bf16, or f32, which moves points less; null: bf16, among files f32"),
        Option("data.classes", 19, "how many classes a random network for segmentation has"),
        Option("data.joints", 17, "how many keypoints a random network for pose or landmarks has"),
        Option("agreement", 0.99, "files: share of answers that must be plain's for a back end to win"),
        Option("score", False, "files: measure each on val of its recipe's data set; false: what is known of it"),
        Option("root", "null", "files: where the data set of the recipe lies, if not where it lay in training"),
        Option("picture", "null", "files: also draw score against latency, a file.png, .svg or .pdf"),
        Option("output", "null", "also write a file.json or file.md"),
        UNPACKED,
    ),
    examples=(
        "python -m dvsn.benchmark best.ckpt best.onnx runs/pidnet picture=speed.png",
        "python -m dvsn.benchmark pidnet_s ddrnet_23_slim size=[512,1024] variants=[folded+onnxruntime]",
        "python -m dvsn.benchmark network=pidnet_s size=[1024,2048]",
        "python -m dvsn.benchmark network=hrnet_w32 size=[256,192] batch=32",
        "python -m dvsn.benchmark network=pfld size=[112,112] data.joints=98 threads=1",
        "python -m dvsn.benchmark network=pidnet_s size=[360,480] device=cpu 'variants=[folded,folded+bf16+compiled]'",
        "python -m dvsn.benchmark checkpoint=best.ckpt size=[360,480] images=camvid/test calibration=camvid/train",
    ),
)  # fmt: skip


def benchmark(config: Config) -> Config:
    """Benchmark by a resolved, plain config. Returns what the table shows, as plain data."""
    check_options(config)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler, which counts memory, is chatty otherwise
    import torch

    from dvsn.benchmark.measure import measure  # torch, which `--help` does without
    from dvsn.benchmark.stopwatch import reading
    from dvsn.predict.predictor import find_device

    device = torch.device(find_device(str(config["device"])))
    if config["clock"] == "processor" and device.type != "cpu":
        raise ConfigError(f"clock: found processor, and device={device}. Expected device=cpu, or clock=wall.")
    with reading(config["clock"]):
        if config["files"]:
            return compared(config, device)
        result = measure(config, device)
    show(result)
    if config["output"] is not None:
        write(result, Path(config["output"]), markdown)
    return result


def compared(config: Config, device: Any) -> Config:
    """The tables and the picture of several files."""
    from dvsn.benchmark import compare_table, picture
    from dvsn.benchmark.compare import compare

    result = compare(config, device, scorer(config) if config["score"] else None)
    compare_table.show(result)
    if config["picture"] is not None:
        picture.draw(result, Path(config["picture"]))
        log.info("%s", config["picture"])
    if config["output"] is not None:
        write(result, Path(config["output"]), compare_table.markdown)
    return result


def scorer(config: Config) -> Any:
    """What measures a checkpoint or a file on val, as `python -m dvsn.evaluate` does."""
    from dvsn.evaluate import called

    root = {} if config["root"] is None else {"root": str(config["root"])}
    return lambda path: called(path, split="val", **root).metrics


def check_options(config: Config) -> None:
    """Refuse values that have no meaning, before torch is loaded. Raises `ConfigError`."""
    size, protocols, output, share = (config[key] for key in ("size", "protocols", "output", "agreement"))
    if config["size"] is None and not config["files"]:
        config["size"] = size = list(USUAL_SIZE)
    sides = size is None or (
        isinstance(size, list) and len(size) == 2 and all(whole(side, 1) for side in size)
    )
    names = isinstance(protocols, list) and protocols != [] and all(name in PROTOCOLS for name in protocols)
    endings = output is None or str(output).endswith((".json", ".md"))
    rules = (
        ("size", size, sides, "height and width, two whole numbers such as [1024,2048]"),
        ("protocols", protocols, names, f"a list of {' and '.join(PROTOCOLS)}"),
        ("variants", config["variants"], isinstance(config["variants"], list), "a list such as [folded,compiled]"),
        ("rest", config["rest"], config["rest"] in (None, "bf16", "f32"), "bf16, f32 or null"),
        ("batch", config["batch"], whole(config["batch"], 1), "a whole number, 1 or more"),
        *(
            (key, config[key], whole(config[key], 1), "a whole number, 1 or more")
            for key in ("rounds", "calibration_pictures")
        ),
        ("seed", config["seed"], whole(config["seed"], 0), "a whole number, 0 or more"),
        ("seconds", config["seconds"], number(config["seconds"]) and config["seconds"] > 0, "a number above 0"),
        *((key, config[key], config[key] is None or whole(config[key], 1), "null, or a whole number, 1 or more")
          for key in ("runs", "threads")),
        ("clock", config["clock"], config["clock"] in ("wall", "processor"), "wall or processor"),
        ("output", output, endings, "null, or a file that ends in .json or .md"),
        ("files", config["files"], isinstance(config["files"], list), "a list of files and networks"),
        ("agreement", share, number(share) and 0 <= share <= 1, "a number from 0 to 1"),
        ("score", config["score"], isinstance(config["score"], bool), "true or false"),
    )  # fmt: skip
    require(rules)
    if config["clock"] == "processor" and config["threads"] != 1:
        raise ConfigError(
            "clock: processor counts the time of all threads together. Expected threads=1 beside it."
        )
    if config["files"]:
        check_files(config)
        return
    if config["picture"] is not None or config["score"]:
        raise ConfigError(
            "picture, score: are for files, given by position: python -m dvsn.benchmark best.ckpt best.onnx"
        )
    if (config.get("network") is None) == (config["checkpoint"] is None):
        found = "neither" if config.get("network") is None else "both"
        raise ConfigError(
            f"network, checkpoint: found {found}, expected one of them: network=pidnet_s for random weights, or "
            f"checkpoint=best.ckpt; or files and networks by position. {nearest('', menu.choices()['network'])}"
        )


def check_files(config: Config) -> None:
    """Refuse options that have no meaning beside files, before torch is loaded. Raises `ConfigError`."""
    for key in ("network", "checkpoint"):
        if config.get(key) is not None:
            raise ConfigError(f"files, {key}: found both. Give the {key} among the files, without {key}=.")
    if config["keep"]:
        raise ConfigError(
            "keep: is for network= and checkpoint=. Export an int8 file, and give that among the files."
        )
    picture = config["picture"]
    if picture is not None and not str(picture).endswith((".png", ".svg", ".pdf")):
        raise ConfigError(
            f"picture: found {picture!r}, expected null, or a file that ends in .png, .svg or .pdf."
        )


def write(result: Config, path: Path, page: Callable[[Config], str]) -> None:
    if path.suffix == ".json":
        write_json(path, result)
    else:
        with replacing(path) as temporary:
            temporary.write_text(page(result), encoding="utf-8")
    log.info("%s", path)


def compose_and_benchmark() -> Any:
    """Runs the command line, once or for every job of a sweep."""
    from dvsn.sweep import launcher  # imports Hydra, which `--help` does without

    return launcher.run("benchmark", benchmark, argv=with_files(sys.argv[1:]))


def with_files(argv: Sequence[str]) -> list[str]:
    """The command line with what is given by position as `files=[...]`."""
    names, others = words_of(argv)
    return [*others, *([f"files={spelt(names)}"] if names else [])]


def words_of(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that name things, and all others, which are options."""
    names, others, flag = list[str](), list[str](), ""
    for word in argv:
        value = flag in VALUED
        option = (
            value or word.startswith(("-", "~", "+")) or re.match(r"[A-Za-z_][\w./@]*=", word) is not None
        )
        if option and not value and Path(word).exists():  # a path that holds '='
            option = False
        (others if option else names).append(word)
        flag = word
    return names, others


def main() -> None:
    command_line.run(compose_and_benchmark, command=COMMAND)


if __name__ == "__main__":
    main()
