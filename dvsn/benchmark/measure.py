"""The measuring of a benchmark: what is measured, the rows of its table, and the machine."""

from __future__ import annotations

import datetime
import logging
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dvsn.benchmark import kinds, levers
from dvsn.benchmark.costs import costs
from dvsn.benchmark.kinds import Kind
from dvsn.benchmark.levers import Subject, pull
from dvsn.benchmark.stopwatch import Stopwatch, peak_memory
from dvsn.config.build import build
from dvsn.data.files import list_pictures, read_rgb, require_folder
from dvsn.engine.run_folder import environment, processor
from dvsn.errors import CheckpointError, ConfigError, nearest
from dvsn.networks.folding import fold_batch_norms, relative_error
from dvsn.tasks.recipe import load

log = logging.getLogger("dvsn")
Config = dict[str, Any]


class Given(NamedTuple):
    """What is measured, on the device."""

    name: str
    network: nn.Module
    kind: Kind
    """What is shipped around the network, and the rule by which two answers agree."""


def measure(config: Config, device: torch.device) -> Config:
    """What the table shows, as plain data, for the resolved config of a benchmark whose options are checked."""
    variants = levers.parse(config["variants"] or levers.defaults(str(device)), str(device))
    if config["threads"] is not None:
        torch.set_num_threads(config["threads"])
    torch.backends.cudnn.benchmark = True
    given = read_given(config, device)
    channels = int(getattr(given.network, "image_channels", 3))
    if channels != 3 and (config["images"] or config["calibration"]):
        raise ConfigError(
            f"images, calibration: pictures of a folder are read as RGB, and the network takes {channels} channels. Leave "
            "them out: it is measured on noise."
        )
    shape = (config["batch"], channels, *config["size"])
    images = read_images(config["images"], shape, config["seed"])
    keep = kept_modules(config["keep"], given.network)
    calibration = images
    if config["calibration"] is not None:
        calibration = read_images(config["calibration"], shape, 0, most=config["calibration_pictures"])
    result = {**describe(given, config, device), **counts(given.network, shape)}
    result["rows"] = []
    for protocol in config["protocols"]:
        subject, pictures = arrange(given, protocol, images, calibration, device, keep)
        subject = subject._replace(rest=config["rest"] or "bf16")
        result["rows"] += measure_all(variants, subject, pictures, config, protocol, given.kind)
    return result


# What is measured -------------------------------------------------------------------------------------


def read_given(config: Config, device: torch.device) -> Given:
    """The network of the command line, with random weights, or that of a checkpoint."""
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
    """Give batch norms random statistics and weights: folding an identity would prove nothing."""
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.affine and module.running_mean is not None:
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(std=0.1)
    return network


def read_images(folder: str | None, shape: tuple[int, ...], seed: int, *, most: int = 16) -> list[Tensor]:
    """Batches of uint8 RGB of one `shape` (N, 3, H, W): pictures spread over a folder, or one batch of noise."""
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
    """The rows of one protocol. Variants are timed in turns, so that changes of the machine's load affect all alike."""
    timing = {"seconds": config["seconds"], "runs": config["runs"], "turns": config["rounds"]}
    rows, watches = [], {}
    expected: list[Tensor] = []
    for name, pulled in variants.items():
        row: Config = {"protocol": protocol, "variant": name}
        rows.append(row)
        log.info("%s: %s", protocol, name)
        try:
            variant = pull(pulled, subject)
            watches[name] = Stopwatch(variant.run, subject.image, **timing)
            with torch.no_grad():
                answers = [variant.run(image).clone() for image in images]
        except (
            RuntimeError,
            ImportError,
        ) as error:  # a lever that this machine cannot pull stays in the table
            if not pulled:
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
        if not pulled & {"openvino", "onnxruntime"}:  # what they allocate is not PyTorch's
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

    return {
        "name": given.name,
        "kind": given.kind.name,
        "size": config["size"],
        "batch": config["batch"],
        "images": config["images"] or "noise",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "clock": config["clock"],
        "date": datetime.date.today().isoformat(),
        "environment": environment(),
    }


def counts(network: nn.Module, shape: tuple[int, ...]) -> Config:
    """Parameters, multiply-accumulates an image, and what folding does to the batch norms."""
    one = (1, *shape[1:])
    folded = fold_batch_norms(network, one)
    return {
        **costs(network, one)._asdict(),
        "folded_norms": len(folded.folded),
        "kept_norms": list(folded.kept),
    }
