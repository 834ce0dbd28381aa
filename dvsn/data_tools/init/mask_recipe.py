"""The recipe of a segmentation: PIDNet-S from scratch, with crops and steps that fit."""

from __future__ import annotations

import math

from dvsn.data_tools.init import recipe
from dvsn.data_tools.init.found import Found
from dvsn.data_tools.init.machine import Machine
from dvsn.data_tools.init.recipe import Recipe

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
    made.choose("network", "pidnet_s", "7.6 million weights, quick on any machine; trained here from scratch")
    made.choose("loss", "pidnet")
    made.choose("transform", "segmentation_small", "strong augmentation, for few pictures")
    made.choose("optim", "adamw", "learns quicker from scratch than SGD")
    made.choose("schedule", "poly")
    made.set("transform.crop_height", crop[0], f"photos are {height}x{width}; a multiple of 32")
    made.set("transform.crop_width", crop[1])
    made.values["data.batch_size"] = batch
    made.values["data.workers"] = recipe.workers(machine)
    kept = max(1024, batch.value * crop[0] * crop[1] // 16)
    made.set("loss.terms.boundary.kernel", 3 if max(height, width) < 1000 else 4, "pixels of an outline")
    for name in ("main", "main_at_boundary"):
        made.set(
            f"loss.terms.{name}.min_kept", kept, "a sixteenth of a batch's pixels" if name == "main" else ""
        )
    weights = class_weights(found.facts.get("pixels", []))
    if weights:
        rarest = min(found.facts["pixels"]) / max(1, sum(found.facts["pixels"]))
        made.set(
            "loss.class_weights",
            weights,
            f"1 / ln(1.02 + share of pixels), over their mean: the rarest class has {100 * rarest:.2g} %",
        )
    made.set("optim.lr", 0.001)
    made.set("optim.weight_decay", 0.01)
    if height * width > LARGE:
        window = [min(crop[0], height), min(crop[1], width)]
        made.set(
            "task.inference",
            {"mode": "slide", "window": window},
            "photos are large: looked at in windows, not whole",
        )
    schedule(found, machine, made, batch.value, crop[0] * crop[1])
    return made


def schedule(found: Found, machine: Machine, made: Recipe, batch: int, pixels: int) -> None:
    """How many epochs, with a short warm-up and an average of the weights where there are steps enough."""
    steps = max(800, min(40 * found.train // batch, 40000))
    count = made.train_for(
        "trainer.max_epochs",
        found,
        machine,
        batch=batch,
        steps=steps,
        cost=recipe.seconds(GIGA * batch * pixels),
    )
    taken = count * max(1, found.train // batch)
    made.set("schedule.warmup_steps", min(200, taken // 10))
    if taken >= 500:
        made.set("ema", 0.99 if taken < 2000 else 0.998, "an average of the weights: steadier scores")


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
