"""The recipe of pix2pix: a U-Net as deep as the pictures allow, as wide as the machine does."""

from __future__ import annotations

from dvsn.data_tools.init import recipe
from dvsn.data_tools.init.found import Found
from dvsn.data_tools.init.machine import Machine
from dvsn.data_tools.init.recipe import Recipe, Setting

GIGA = 18.1 / (256 * 256)
"""Thousand million multiply-accumulates a pixel of the U-Net of width 64; they grow with the square of the width."""


def propose(found: Found, machine: Machine) -> Recipe:
    size = tuple(fitting(side, most=512 if machine.gpu else 256) for side in found.side)
    if not machine.gpu and size[0] * size[1] > 128 * 256:
        size = tuple(min(side, 128) for side in size)
    depth = min(8, *((side & -side).bit_length() - 1 for side in size))
    width = 64 if machine.gpu else 24
    made = Recipe()
    made.choices["network"] = Setting("unet_128" if depth < 8 else "unet_256")
    made.choices["discriminator"] = Setting("n_layers")
    made.choices["transform"] = Setting("jitter_286_256")
    made.choices["schedule"] = Setting("linear_decay")
    if depth != (7 if depth < 8 else 8):
        made.values["network.depth"] = Setting(depth, f"halvings of {min(size)} pixels")
    if width != 64:
        made.values["network.width"] = Setting(
            width, "64 is the paper's; narrower is quick enough without a GPU"
        )
        made.values["network.upsample"] = Setting("resize", "no checkerboard in a short training")
    made.values["discriminator.width"] = Setting(64 if machine.gpu else 16)
    made.values["discriminator.layers"] = Setting(3 if min(size) >= 128 else 2)
    names = ("height", "width")
    for name, side in zip(names, size, strict=True):
        made.values[f"transform.load_{name}"] = Setting(side + max(2, side // 16))
        made.values[f"transform.crop_{name}"] = Setting(side)
    made.values["transform.crop_height"] = Setting(size[0], f"pictures are {found.side[0]}x{found.side[1]}")
    batch = 1 if found.train < 2000 else 4
    made.values["data.batch_size"] = Setting(batch, "as the paper has it" if batch == 1 else "many pictures")
    made.values["data.workers"] = recipe.workers(machine)
    if not machine.gpu:
        made.values["loss.gan_weight"] = Setting(
            0.5, "a short training leaves no time to play the game to its end"
        )
    made.values["task.test_norm"] = Setting("batch", "of one picture each, as the paper tests")
    steps = max(2000, min(100 * found.train // batch, 100000))
    cost = recipe.seconds(1.6 * GIGA * (width / 64) ** 2 * size[0] * size[1] * batch)
    count, made.minutes = recipe.epochs(found, batch=batch, steps=steps, cost=cost, machine=machine)
    made.values["schedule.constant_epochs"] = Setting((count.value + 1) // 2, "then the rate falls to zero")
    made.values["schedule.decay_epochs"] = Setting(max(1, count.value - (count.value + 1) // 2))
    made.values["trainer.max_epochs"] = count
    made.values["trainer.check_val_every_n_epoch"] = recipe.every(count.value)
    return made


def fitting(side: int, *, most: int) -> int:
    """The side as a power of two: the nearest at or below 4/3 of it, 32 at least."""
    size = 32
    while size * 2 <= min(most, side * 4 // 3):
        size *= 2
    return size
