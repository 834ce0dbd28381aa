"""`python -m dvsn.benchmark`: what a network for segmentation, pose or landmarks costs, and how fast each lever makes it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from dvsn import command_line
from dvsn.atomic import replacing, write_json
from dvsn.benchmark.table import PROTOCOLS, markdown, show
from dvsn.command_line import UNPACKED, Command, Option
from dvsn.config import menu
from dvsn.config.types import number, require, whole
from dvsn.errors import ConfigError, nearest

log = logging.getLogger("dvsn")
Config = dict[str, Any]
COMMAND = Command(
    name="benchmark",
    summary="Count, time and compare a network for segmentation, pose or landmarks, plain and with what makes it faster.",
    groups=True,
    sweeps=True,
    options=(
        Option("checkpoint", "null", "measure a trained network instead of network=..., which is random"),
        Option("size", [1024, 2048], "height and width of the image"),
        Option("batch", 1, "images at a time"),
        Option("protocols", list(PROTOCOLS), "network: to the raw answer, as papers do; end_to_end: from bytes"),
        Option("variants", [], "rows, such as folded+channels_last+bf16+compiled; []: those of the device"),
        Option("device", "auto", "auto, cpu, cuda, cuda:1, mps"),
        Option("threads", "null", "of the CPU; null: PyTorch's choice"),
        Option("seconds", 6, "how long a row is timed, about as long again for warming up"),
        Option("runs", "null", "time so many runs of a row instead"),
        Option("rounds", 3, "the rows take turns so many times"),
        Option("images", "null", "folder of pictures to agree on (16 of them); null: noise"),
        Option("calibration", "null", "folder of other pictures, for the scales of int8; null: images"),
        Option("calibration_pictures", 16, "how many of them; int8 needs some hundreds where it is inexact"),
        Option("keep", [], "module paths that int8 leaves in higher precision, such as [final_layer,dfm]"),
        Option("rest", "bf16", "that precision: bf16, or f32, which moves points less"),
        Option("data.classes", 19, "how many classes a random network for segmentation has"),
        Option("data.joints", 17, "how many keypoints a random network for pose or landmarks has"),
        Option("output", "null", "also write a file.json or file.md"),
        UNPACKED,
    ),
    examples=(
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
    from dvsn.predict.predictor import find_device

    result = measure(config, torch.device(find_device(str(config["device"]))))
    show(result)
    if config["output"] is not None:
        write(result, Path(config["output"]))
    return result


def check_options(config: Config) -> None:
    """Refuse values that have no meaning, before torch is loaded. Raises `ConfigError`."""
    size, protocols, output = config["size"], config["protocols"], config["output"]
    sides = isinstance(size, list) and len(size) == 2 and all(whole(side, 1) for side in size)
    names = isinstance(protocols, list) and protocols != [] and all(name in PROTOCOLS for name in protocols)
    endings = output is None or str(output).endswith((".json", ".md"))
    rules = (
        ("size", size, sides, "height and width, two whole numbers such as [1024,2048]"),
        ("protocols", protocols, names, f"a list of {' and '.join(PROTOCOLS)}"),
        ("variants", config["variants"], isinstance(config["variants"], list), "a list such as [folded,compiled]"),
        ("rest", config["rest"], config["rest"] in ("bf16", "f32"), "bf16 or f32"),
        ("batch", config["batch"], whole(config["batch"], 1), "a whole number, 1 or more"),
        *(
            (key, config[key], whole(config[key], 1), "a whole number, 1 or more")
            for key in ("rounds", "calibration_pictures")
        ),
        ("seed", config["seed"], whole(config["seed"], 0), "a whole number, 0 or more"),
        ("seconds", config["seconds"], number(config["seconds"]) and config["seconds"] > 0, "a number above 0"),
        *((key, config[key], config[key] is None or whole(config[key], 1), "null, or a whole number, 1 or more")
          for key in ("runs", "threads")),
        ("output", output, endings, "null, or a file that ends in .json or .md"),
    )  # fmt: skip
    require(rules)
    if (config.get("network") is None) == (config["checkpoint"] is None):
        found = "neither" if config.get("network") is None else "both"
        raise ConfigError(
            f"network, checkpoint: found {found}, expected one of them: network=pidnet_s for random weights, or "
            f"checkpoint=best.ckpt. {nearest('', menu.choices()['network'])}"
        )


def write(result: Config, path: Path) -> None:
    if path.suffix == ".json":
        write_json(path, result)
    else:
        with replacing(path) as temporary:
            temporary.write_text(markdown(result), encoding="utf-8")
    log.info("%s", path)


def compose_and_benchmark() -> Any:
    """Runs the command line, once or for every job of a sweep."""
    from dvsn.sweep import launcher  # imports Hydra, which `--help` does without

    return launcher.run("benchmark", benchmark)


def main() -> None:
    command_line.run(compose_and_benchmark, command=COMMAND)


if __name__ == "__main__":
    main()
