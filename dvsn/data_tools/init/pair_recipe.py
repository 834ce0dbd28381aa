"""The recipe of pix2pix: a U-Net as deep as the pictures allow, as wide as the machine does."""

from __future__ import annotations

from dvsn.data_tools.init import recipe
from dvsn.data_tools.init.found import Found
from dvsn.data_tools.init.machine import Machine
from dvsn.data_tools.init.recipe import Recipe

GIGA = 18.1 / (256 * 256)
"""Thousand million multiply-accumulates a pixel of the U-Net of width 64; they grow with the square of the width."""


def propose(found: Found, machine: Machine) -> Recipe:
    size = tuple(fitting(side, most=512 if machine.gpu else 256) for side in found.side)
    if not machine.gpu and size[0] * size[1] > 128 * 256:
        size = tuple(min(side, 128) for side in size)
    depth = min(8, *((side & -side).bit_length() - 1 for side in size))
    width = 64 if machine.gpu else 24
    made = Recipe()
    made.choose("network", "unet_128" if depth < 8 else "unet_256")
    made.choose("discriminator", "n_layers")
    made.choose("transform", "jitter_286_256")
    made.choose("schedule", "linear_decay")
    if depth != (7 if depth < 8 else 8):
        made.set("network.depth", depth, f"halvings of {min(size)} pixels")
    if width != 64:
        made.set("network.width", width, "64 is the paper's; narrower is quick enough without a GPU")
        made.set("network.upsample", "resize", "no checkerboard in a short training")
    made.set("discriminator.width", 64 if machine.gpu else 16)
    made.set("discriminator.layers", 3 if min(size) >= 128 else 2)
    names = ("height", "width")
    for name, side in zip(names, size, strict=True):
        made.set(f"transform.load_{name}", side + max(2, side // 16))
        made.set(f"transform.crop_{name}", side)
    made.set("transform.crop_height", size[0], f"pictures are {found.side[0]}x{found.side[1]}")
    batch = 1 if found.train < 2000 else 4
    made.set("data.batch_size", batch, "as the paper has it" if batch == 1 else "many pictures")
    made.values["data.workers"] = recipe.workers(machine)
    if not machine.gpu:
        made.set("loss.gan_weight", 0.5, "a short training leaves no time to play the game to its end")
    made.set("task.test_norm", "batch", "of one picture each, as the paper tests")
    steps = max(2000, min(100 * found.train // batch, 100000))
    cost = recipe.seconds(1.6 * GIGA * (width / 64) ** 2 * size[0] * size[1] * batch)
    count = made.train_for("trainer.max_epochs", found, machine, batch=batch, steps=steps, cost=cost)
    made.set("schedule.constant_epochs", (count + 1) // 2, "then the rate falls to zero")
    made.set("schedule.decay_epochs", max(1, count - (count + 1) // 2))
    return made


def fitting(side: int, *, most: int) -> int:
    """The side as a power of two: the nearest at or below 4/3 of it, 32 at least."""
    size = 32
    while size * 2 <= min(most, side * 4 // 3):
        size *= 2
    return size
