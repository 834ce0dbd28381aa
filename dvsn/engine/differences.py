"""The options in which a resumed run differs from the run that wrote its checkpoint, and whether it may go on
with them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytorch_lightning as pl

from dvsn.config.allow import join
from dvsn.config.build import Options, class_options
from dvsn.errors import ConfigError

Tree = Mapping[str, Any]

APPLIED = (
    "callbacks", "logger", "checkpoint", "monitor", "gradient_checkpointing",
    "data.root", "data.workers", "data.eval_batch_size", "data.splits.test", "data.check_classes", "transform.test",
    "metrics", "codec.refine", "codec.blur", "codec.flip_shift", "task.flip_test", "task.inference", "task.test_dropout",
    "task.test_norm", "distillation.measure", "distillation.cache", "distillation.compile",
    "trainer.max_epochs", "trainer.min_epochs", "trainer.max_steps", "trainer.min_steps", "trainer.max_time",
    "trainer.val_check_interval", "trainer.check_val_every_n_epoch", "trainer.num_sanity_val_steps",
    "trainer.limit_test_batches", "trainer.limit_predict_batches", "trainer.log_every_n_steps", "trainer.accelerator",
    "trainer.strategy", "trainer.process_timeout", "trainer.deterministic", "trainer.benchmark", "trainer.profiler",
    "trainer.detect_anomaly", "trainer.enable_progress_bar", "trainer.enable_model_summary",
    "trainer.devices", "trainer.num_nodes", "trainer.ddp_bucket_mb", "trainer.ddp_bucket_view", "trainer.ddp_static_graph",
    "trainer.ddp_compress", "trainer.fsdp_teacher", "trainer.fsdp_checkpoint",
)  # fmt: skip
"""What a resumed run takes as it is now, with all below it: what the network learns from the next batch does
not depend on it. Everything else must be as it was."""

PASSING = ("name", "run_dir", "resume", "resume_force", "debug", "sweep", "max_unpacked")
"""What is of one call alone, and not kept in a checkpoint."""

PROCESSES = ("trainer.devices", "trainer.num_nodes")
"""How many processes there are: each step has the same samples whatever it is, and a run goes on, though not bit for bit."""

LENGTH = ("trainer.max_epochs", "trainer.max_steps")
"""Applied as well, except where the schedule of the learning rate depends on the length of the run."""

PLACE = ("data", "transform", "trainer.limit_train_batches", "trainer.accumulate_grad_batches",
         "trainer.overfit_batches")  # fmt: skip
"""What decides which samples a batch holds, and how many steps an epoch has."""


class Difference(NamedTuple):
    """An option with another value in the earlier run."""

    path: str
    there: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.path}: {_short(self.there)} there, {_short(self.now)} now"

    def within(self, paths: Sequence[str]) -> bool:
        """Whether this is one of the options, or below one."""
        return any(self.path == path or self.path.startswith(f"{path}.") for path in paths)


def kept(config: Tree) -> dict[str, Any]:
    """The part of a config that a checkpoint stores: all but `PASSING`, without the name of the run's folder,
    so that a run that was resumed, or lies elsewhere, writes the same file."""
    place = str(config.get("run_dir") or "")

    def portable(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {key: portable(value) for key, value in node.items()}
        if isinstance(node, list | tuple):
            return [portable(value) for value in node]
        return node.replace(place, "${run_dir}") if place and isinstance(node, str) else node

    return {key: portable(value) for key, value in config.items() if key not in PASSING}


def differences(there: Tree, now: Tree, *, whole: bool = True) -> list[Difference]:
    """The options that differ, each once, under the name by which it is set on the command line.

    `whole` is false where `there` is only a part of a config, from which options may be missing.
    """
    found: dict[str, Difference] = {}
    for each in _compare(there, now, "", whole):
        named = each._replace(path=_shortest(each.path, each.now, now))
        found.setdefault(named.path, named)
    return list(found.values())


def _compare(there: Any, now: Any, path: str, whole: bool) -> Iterator[Difference]:
    if isinstance(there, Mapping) and isinstance(now, Mapping):
        if there.get("_target_") != now.get("_target_"):
            yield Difference(join(path, "_target_"), there.get("_target_"), now.get("_target_"))
            return
        usual = _defaults(now, path)
        for key in sorted({*there, *now}, key=str):
            if (
                key not in there
                and key not in usual
                and (not whole or path in ("", "distillation", "trainer"))
            ):
                continue  # an option that dvsn had not yet
            one, two = there.get(key, usual.get(key)), now.get(key, usual.get(key))
            yield from _compare(one, two, join(path, key), whole)
    elif isinstance(there, list | tuple) and isinstance(now, list | tuple) and len(there) == len(now):
        for index, (one, two) in enumerate(zip(there, now, strict=True)):
            yield from _compare(one, two, join(path, index), whole)
    elif now is None and not whole:
        return  # what is left to the data set stands in a checkpoint as it was found there, such as names of classes
    elif there != now and not (there in (None, {}, []) and now in (None, {}, [])):
        yield Difference(path, there, now)


def _defaults(node: Tree, path: str) -> dict[str, Any]:
    """The default values of the options of a node."""
    if path == "trainer":
        signature = inspect.signature(pl.Trainer)
        return {name: option.default for name, option in signature.parameters.items()}
    if "_target_" not in node:
        return {}
    try:
        options = class_options(node["_target_"], path)
    except ConfigError:  # no class is built here
        options = None
    known = Options("", {}, False) if options is None else options
    return {
        name: option.default
        for name, option in known.named.items()
        if option.default is not inspect.Parameter.empty
    }


def _shortest(path: str, value: Any, config: Tree) -> str:
    """`task.optim.lr` is set as `optim.lr`, and `data.transform` as `transform`, where the config has these."""
    for start in ("task.", "data."):
        rest = path.removeprefix(start)
        if rest != path and _look_up(config, rest) == (True, value):
            return rest
    return path


def _look_up(tree: Any, path: str) -> tuple[bool, Any]:
    for key in path.split("."):
        if isinstance(tree, Mapping) and key in tree:
            tree = tree[key]
        elif isinstance(tree, list | tuple) and key.isdigit() and int(key) < len(tree):
            tree = tree[int(key)]
        else:
            return False, None
    return True, tree


def _short(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
