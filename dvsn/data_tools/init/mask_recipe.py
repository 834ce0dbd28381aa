"""The recipe of a segmentation: PIDNet-S from scratch, with crops and steps that fit."""

from __future__ import annotations

import math

from dvsn.data_tools.init import recipe
from dvsn.data_tools.init.found import Found
from dvsn.data_tools.init.machine import Machine
from dvsn.data_tools.init.recipe import Recipe, Setting

GIGA = 47.2 / (1024 * 2048)
"""Thousand million multiply-accumulates of PIDNet-S a pixel."""
LARGE = 2_000_000
"""Pixels of a picture from which on it is looked at in windows."""


def propose(found: Found, machine: Machine) -> Recipe:
    height, width = found.side
    most = 1024 if machine.gpu else 512
    crop = tuple(recipe.multiple(side, 32, least=64, most=most) for side in (height, width))
    if not machine.gpu and crop[0] * crop[1] > 256 * 256:
        crop = tuple(min(side, 256) for side in crop)
    batch = recipe.batch_size(found, largest=largest_batch(crop[0] * crop[1], machine))
    made = Recipe()
    made.choices["network"] = Setting(
        "pidnet_s", "7.6 million weights, quick on any machine; trained here from scratch"
    )
    made.choices["loss"] = Setting("pidnet")
    made.choices["transform"] = Setting("segmentation_small", "strong augmentation, for few pictures")
    made.choices["optim"] = Setting("adamw", "learns quicker from scratch than SGD")
    made.choices["schedule"] = Setting("poly")
    made.values["transform.crop_height"] = Setting(crop[0], f"photos are {height}x{width}; a multiple of 32")
    made.values["transform.crop_width"] = Setting(crop[1])
    made.values["data.batch_size"] = batch
    made.values["data.workers"] = recipe.workers(machine)
    kept = max(1024, batch.value * crop[0] * crop[1] // 16)
    made.values["loss.terms.boundary.kernel"] = Setting(
        3 if max(height, width) < 1000 else 4, "pixels of an outline"
    )
    for name in ("main", "main_at_boundary"):
        made.values[f"loss.terms.{name}.min_kept"] = Setting(
            kept, "a sixteenth of a batch's pixels" if name == "main" else ""
        )
    weights = class_weights(found.facts.get("pixels", []))
    if weights:
        rarest = min(found.facts["pixels"]) / max(1, sum(found.facts["pixels"]))
        made.values["loss.class_weights"] = Setting(
            weights,
            f"1 / ln(1.02 + share of pixels), over their mean: the rarest class has {100 * rarest:.2g} %",
        )
    made.values["optim.lr"] = Setting(0.001)
    made.values["optim.weight_decay"] = Setting(0.01)
    if height * width > LARGE:
        window = [min(crop[0], height), min(crop[1], width)]
        made.values["task.inference"] = Setting(
            {"mode": "slide", "window": window}, "photos are large: looked at in windows, not whole"
        )
    schedule(found, machine, made, batch.value, crop[0] * crop[1])
    return made


def schedule(found: Found, machine: Machine, made: Recipe, batch: int, pixels: int) -> None:
    """How many epochs, with a short warm-up and an average of the weights where there are steps enough."""
    steps = max(800, min(40 * found.train // batch, 40000))
    count, made.minutes = recipe.epochs(
        found, batch=batch, steps=steps, cost=recipe.seconds(GIGA * batch * pixels), machine=machine
    )
    taken = count.value * max(1, found.train // batch)
    made.values["schedule.warmup_steps"] = Setting(min(200, taken // 10))
    if taken >= 500:
        made.values["ema"] = Setting(
            0.99 if taken < 2000 else 0.998, "an average of the weights: steadier scores"
        )
    made.values["trainer.max_epochs"] = count
    made.values["trainer.check_val_every_n_epoch"] = recipe.every(count.value)


def largest_batch(pixels: int, machine: Machine) -> int:
    """What fits into memory, at about 1 kB a pixel in training, and no more than 16."""
    memory = machine.gpu_memory if machine.gpu else machine.memory / 2
    return max(2, min(16 if machine.gpu else 8, int(memory * 2**30 / (1500 * pixels))))


def class_weights(pixels: list[int]) -> list[float]:
    """ENet's rule, where the classes are very unequal; [] where they are not."""
    total = sum(pixels)
    if not total or min(pixels) == 0 or max(pixels) < 20 * min(pixels):
        return []
    raw = [1 / math.log(1.02 + count / total) for count in pixels]
    return [round(each * len(raw) / sum(raw), 3) for each in raw]
