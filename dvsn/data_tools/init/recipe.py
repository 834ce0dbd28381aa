"""A proposed recipe: choices and values with a reason each, and the sums that every task shares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dvsn.data_tools.init.found import Found
from dvsn.data_tools.init.machine import Machine


class Setting(NamedTuple):
    """A value with its reason; "" where it needs none."""

    value: Any
    reason: str = ""


@dataclass
class Recipe:
    """What the experiment's YAML says. `choices` by group (`network`, `transform`, ...), beside task and data; `values` by
    dotted key (`data.batch_size`). `minutes`: about how long it trains here; 0: unknown."""

    choices: dict[str, Setting] = field(default_factory=dict)
    values: dict[str, Setting] = field(default_factory=dict)
    minutes: float = 0.0

    def choose(self, group: str, choice: str, reason: str = "") -> None:
        self.choices[group] = Setting(choice, reason)

    def set(self, key: str, value: Any, reason: str = "") -> None:
        self.values[key] = Setting(value, reason)

    def on_crops(self, found: Found, machine: Machine, *, largest: int, evaluated: int) -> int:
        """What learns from crops of people or faces: AdamW under a cosine, and batches of what there is. Returns their size,
        `largest` at most; `evaluated` crops at a time are measured."""
        self.choose("optim", "adamw")
        self.choose("schedule", "cosine")
        batch = self.values["data.batch_size"] = batch_size(found, largest=largest)
        self.set("data.eval_batch_size", evaluated)
        self.set("data.drop_last", found.train >= batch.value, "a last batch of one cannot be normalised")
        self.values["data.workers"] = workers(machine)
        return int(batch.value)

    def train_for(
        self, key: str, found: Found, machine: Machine, *, batch: int, steps: int, cost: float
    ) -> int:
        """Set how often to go through the pictures (`key`), to be measured about twenty times; returns it.

        `steps` are wanted; `cost` is that of one step in seconds of one core. Without a GPU no more than the machine's
        `minutes` are asked for: then the reason says so.
        """
        every = max(1, found.train // batch)
        seconds = cost / (machine.cores if not machine.gpu else 60.0)
        asked = max(1, math.ceil(steps / every))
        affordable = max(1, int(machine.minutes * 60 / (seconds * every)))
        count = min(asked, affordable) if not machine.gpu else asked
        self.minutes = count * every * seconds / 60
        reason = f"about {count * every} steps"
        if not machine.gpu:
            reason += f", {about(self.minutes)} on {machine.words_of_cores()}"
        if count < asked:
            reason += f"; {asked} is better where there is time"
        self.set(key, count, reason)
        measured = "measured about twenty times" if count >= 40 else ""
        self.set("trainer.check_val_every_n_epoch", max(1, count // 20), measured)
        return count

    def nested(self) -> dict[str, Any]:
        """The values as a tree."""
        return nested({key: setting.value for key, setting in self.values.items()})


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} -> {"a": {"b": 1}}."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *above, last = key.split(".")
        node = tree
        for name in above:
            node = node.setdefault(name, {})
        node[last] = value
    return tree


def batch_size(found: Found, *, largest: int) -> Setting:
    """A power of two: an eighth of the pictures, 4 at least where an epoch then has two steps, and `largest` at most."""
    wanted = max(4, found.train // 8)
    size = min(largest, 1 << (wanted.bit_length() - 1), max(2, found.train // 2))
    steps = max(1, found.train // size)
    return Setting(
        size, f"{found.train} pictures to train on make {steps} {'step' if steps == 1 else 'steps'} an epoch"
    )


def workers(machine: Machine) -> Setting:
    """Processes that read, beside the one that trains."""
    count = max(1, min(8, machine.cores - 1)) if machine.gpu else (1 if machine.cores > 1 else 0)
    return Setting(count, f"of {machine.cores} cores" + ("" if machine.gpu else "; the others train"))


def multiple(side: int, of: int, *, least: int = 0, most: int = 1 << 30) -> int:
    """The side as the next multiple of `of`, within the limits."""
    return max(least, min(most - most % of, -(-side // of) * of))


def about(minutes: float) -> str:
    return "about a minute" if minutes < 1.5 else f"about {minutes:.0f} minutes"


def seconds(giga: float) -> float:
    """Of one step on one core, forward and back, of `giga` thousand million multiply-accumulates a batch; 0.2 more for what
    does not depend on their number."""
    return 3 * giga / 25 + 0.2
