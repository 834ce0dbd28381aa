"""`python -m dvsn.benchmark`: what a network for segmentation, pose or landmarks costs, and how fast each lever makes it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dvsn import command_line
from dvsn.atomic import replacing, write_json
from dvsn.benchmark.table import PROTOCOLS, markdown, show
from dvsn.command_line import Command, Option
from dvsn.config import compose, menu
from dvsn.errors import CheckpointError, ConfigError, nearest

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from dvsn.benchmark.kinds import Kind
    from dvsn.benchmark.levers import Subject

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
    ),
    examples=(
        "python -m dvsn.benchmark network=pidnet_s size=[1024,2048]",
        "python -m dvsn.benchmark network=hrnet_w32 size=[256,192] batch=32",
        "python -m dvsn.benchmark network=pfld size=[112,112] data.joints=98 threads=1",
        "python -m dvsn.benchmark network=pidnet_s size=[360,480] device=cpu 'variants=[folded,folded+bf16+compiled]'",
        "python -m dvsn.benchmark checkpoint=best.ckpt size=[360,480] images=camvid/test calibration=camvid/train",
    ),
)  # fmt: skip


class Given(NamedTuple):
    """What is measured, on the device."""

    name: str
    network: nn.Module
    kind: Kind
    """What is shipped around the network, and when two answers agree."""


def benchmark(config: Config) -> Config:
    """Benchmark by a resolved, plain config. Returns what the table shows, as plain data."""
    check_options(config)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler, which counts memory, is chatty otherwise
    import torch

    from dvsn.benchmark import levers
    from dvsn.predict.command import find_device

    device = torch.device(find_device(str(config["device"])))
    variants = levers.parse(config["variants"] or levers.defaults(str(device)), str(device))
    if config["threads"] is not None:
        torch.set_num_threads(config["threads"])
    torch.backends.cudnn.benchmark = True
    given = read_given(config, device)
    shape = (config["batch"], 3, *config["size"])
    images = read_images(config["images"], shape, config["seed"])
    keep = kept_modules(config["keep"], given.network)
    calibration = images
    if config["calibration"] is not None:
        calibration = read_images(config["calibration"], shape, 0, most=config["calibration_pictures"])
    result = {**describe(given, config, device), **counts(given.network, shape)}
    result["rows"] = []
    for protocol in config["protocols"]:
        subject, pictures = arrange(given, protocol, images, calibration, device, keep)
        subject = subject._replace(rest=config["rest"])
        result["rows"] += measure_all(variants, subject, pictures, config, protocol, given.kind)
    show(result)
    if config["output"] is not None:
        write(result, Path(config["output"]))
    return result


def check_options(config: Config) -> None:
    """Refuse values that have no meaning, before torch is loaded. Raises `ConfigError`."""
    from dvsn.config.types import number, whole

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
    for path, value, good, expected in rules:
        if not good:
            raise ConfigError(f"{path}: found {value!r}, expected {expected}.")
    if (config.get("network") is None) == (config["checkpoint"] is None):
        found = "neither" if config.get("network") is None else "both"
        raise ConfigError(
            f"network, checkpoint: found {found}, expected one of them: network=pidnet_s for random weights, or "
            f"checkpoint=best.ckpt. {nearest('', menu.choices()['network'])}"
        )


# What is measured -------------------------------------------------------------------------------------


def read_given(config: Config, device: torch.device) -> Given:
    """The network of the command line, with random weights, or that of a checkpoint."""
    import torch

    from dvsn.benchmark import kinds
    from dvsn.config.build import build
    from dvsn.tasks.recipe import load

    kind: Kind | None
    if config["checkpoint"] is None:
        torch.manual_seed(config["seed"])
        node = config["network"]
        name = str(node["_target_"]).rpartition(".")[2]
        kind = kinds.of_network(randomise(build(node, path="network")), node, config["size"])
    else:
        name = Path(config["checkpoint"]).name
        task = load(config["checkpoint"])
        kind = kinds.of_shipped(task.deployable())
        if kind is None:
            raise CheckpointError(
                f"{config['checkpoint']}: a checkpoint of the task '{task.kind}', expected 'segmentation', 'pose' "
                "or 'landmarks'."
            )
    kind.shipped.to(device).eval().requires_grad_(False)
    return Given(name, kind.shipped.network, kind)


def randomise(network: nn.Module) -> nn.Module:
    """Batch norms that are not the identity, so that folding them has something to prove."""
    from torch.nn.modules.batchnorm import _BatchNorm

    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.affine and module.running_mean is not None:
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(std=0.1)
    return network


def read_images(folder: str | None, shape: tuple[int, ...], seed: int, *, most: int = 16) -> list[Tensor]:
    """Batches of uint8 RGB of one `shape` (N, 3, H, W): pictures spread over a folder, or one batch of noise."""
    import cv2
    import numpy as np
    import torch

    from dvsn.data.files import list_pictures, read_rgb, require_folder

    if folder is None:
        generator = torch.Generator().manual_seed(seed)
        return [torch.randint(256, shape, dtype=torch.uint8, generator=generator)]
    batch, _, height, width = shape
    paths = list_pictures(require_folder(folder, expected="PICTURES.png", option="images or calibration"))
    if not paths:
        raise ConfigError(f"images, calibration: {folder} holds no pictures.")
    count = max(batch, most // batch * batch)
    chosen = [paths[i * len(paths) // count] for i in range(count)]  # a folder of fewer repeats some
    pictures = [cv2.resize(read_rgb(path), (width, height), interpolation=cv2.INTER_AREA) for path in chosen]
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return list(stacked.split(batch))


def kept_modules(paths: Any, network: nn.Module) -> tuple[str, ...]:
    """The module paths of `keep`. Raises `ConfigError` for one that the network has not."""
    modules = dict(network.named_modules())
    for path in paths or ():
        if path not in modules:
            raise ConfigError(f"keep: the network has no module {path!r}. {nearest(str(path), modules)}")
    return tuple(paths or ())


def arrange(
    given: Given,
    protocol: str,
    images: list[Tensor],
    calibration: list[Tensor],
    device: torch.device,
    keep: tuple[str, ...] = (),
) -> tuple[Subject, list[Tensor]]:
    """The subject of one protocol, and the images as it takes them, the timed one first."""
    from dvsn.benchmark.levers import Subject

    if protocol == "end_to_end":
        whole: Any = given.kind.around
        pictures, scales = ([image.to(device) for image in each] for each in (images, calibration))
    else:
        whole, normalise = given.kind.bare, given.kind.shipped.normalise
        pictures, scales = ([normalise(i.to(device)) for i in each] for each in (images, calibration))
    return Subject(given.network, whole, pictures[0], scales, keep), pictures


# Measuring --------------------------------------------------------------------------------------------


def measure_all(
    variants: dict[str, frozenset[str]],
    subject: Subject,
    images: list[Tensor],
    config: Config,
    protocol: str,
    kind: Kind,
) -> list[Config]:
    """The rows of one protocol. The variants take turns, so that the moods of the machine meet all of them."""
    import torch

    from dvsn.benchmark.levers import pull
    from dvsn.benchmark.stopwatch import Stopwatch, peak_memory
    from dvsn.networks.folding import relative_error

    timing = {"seconds": config["seconds"], "runs": config["runs"], "turns": config["rounds"]}
    rows, watches = [], {}
    expected: list[Tensor] = []
    for name, levers in variants.items():
        row: Config = {"protocol": protocol, "variant": name}
        rows.append(row)
        log.info("%s: %s", protocol, name)
        try:
            variant = pull(levers, subject)
            watches[name] = Stopwatch(variant.run, subject.image, **timing)
            with torch.no_grad():
                answers = [variant.run(image).clone() for image in images]
        except (
            RuntimeError,
            ImportError,
        ) as error:  # a lever that this machine cannot pull stays in the table
            if not levers:
                raise
            row["failed"] = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
            continue
        expected = expected or answers
        row.update(compare(answers, expected, kind, config["size"]))
        if protocol == "network":
            row["error"] = max(relative_error(*pair) for pair in zip(answers, expected, strict=True))
        if hasattr(kind, "distances"):
            pairs = zip(answers, expected, strict=True)
            row["pixels"] = max(float(kind.distances(*pair).max()) for pair in pairs)
        if not levers & {"openvino", "onnxruntime"}:  # what they allocate is not PyTorch's
            row["peak_memory"] = peak_memory(variant.eager, subject.image, variant.parts)
    for _ in range(config["rounds"]):
        for watch in watches.values():
            watch.turn()
    plain = watches["plain"].latency().median
    for row in rows:
        if row["variant"] in watches:
            watch = watches[row["variant"]]
            latency = watch.latency()
            row["milliseconds"] = latency._asdict()
            row["images_per_second"], row["passes"] = watch.images_per_second, watch.passes
            row["speed_up"] = plain / latency.median
    return rows


def compare(found: list[Tensor], expected: list[Tensor], kind: Kind, size: list[int]) -> dict[str, float]:
    """`agreement`: the share of pixels of full size, or of keypoints, that have the answer of `expected`."""
    same = [kind.same(*pair, size) for pair in zip(found, expected, strict=True)]
    return {"agreement": sum(int(each.sum()) for each in same) / sum(each.numel() for each in same)}


def describe(given: Given, config: Config, device: torch.device) -> Config:
    """What was measured, where and when."""
    import datetime

    import torch

    from dvsn.engine.run_folder import environment, processor

    return {
        "name": given.name,
        "kind": given.kind.name,
        "size": config["size"],
        "batch": config["batch"],
        "images": config["images"] or "noise",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "date": datetime.date.today().isoformat(),
        "environment": environment(),
    }


def counts(network: nn.Module, shape: tuple[int, ...]) -> Config:
    """Parameters, multiply-accumulates an image, and what folding does to the batch norms."""
    from dvsn.benchmark.costs import costs
    from dvsn.networks.folding import fold_batch_norms

    one = (1, *shape[1:])
    folded = fold_batch_norms(network, one)
    return {
        **costs(network, one)._asdict(),
        "folded_norms": len(folded.folded),
        "kept_norms": list(folded.kept),
    }


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

    launcher.register()
    return compose.hydra_main("benchmark", benchmark, sweep=launcher.sweep)


def main() -> None:
    command_line.run(compose_and_benchmark, command=COMMAND)


if __name__ == "__main__":
    main()
