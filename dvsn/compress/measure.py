"""Costs of a network on this machine before it is trained: every engine that is installed, asked with random weights."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping
from typing import Any

import torch

from dvsn.atomic import write_json
from dvsn.benchmark import backends, compare
from dvsn.benchmark.named import Named, plain_answers
from dvsn.compress.budget import Budget, spoken
from dvsn.compress.question import Question
from dvsn.engine.run_folder import environment, processor
from dvsn.errors import ConfigError
from dvsn.reading import read_json

log = logging.getLogger("dvsn")
TIMING = {"seconds": 0.6, "runs": None, "rounds": 3}
ENGINES = {
    "onnxruntime": ("folded+onnxruntime", "folded+int8+onnxruntime"),
    "openvino": ("folded+openvino", "folded+bf16+openvino", "folded+int8+openvino"),
}
"""The back ends of an engine, by its name."""
BYTES = {"fp32": 4.0, "bf16": 4.0, "int8": 1.0}
"""Of a weight in a file; OpenVINO's of bf16 keeps weights in 16 bits, and is told as such once it is written."""
Costs = dict[str, float | None]


def variants(question: Question) -> dict[str, frozenset[str]]:
    """The back ends that are measured. Raises `ConfigError` where no engine is installed."""
    asked = question.options["engines"]
    names = (
        list(ENGINES)
        if asked is None
        else [str(each) for each in (asked if isinstance(asked, list) else [asked])]
    )
    found: dict[str, frozenset[str]] = {}
    reasons = []
    for name in names:
        if name not in ENGINES:
            raise ConfigError(f"engines: found {name}, expected {' or '.join(ENGINES)}.")
        for variant in ENGINES[name]:
            levers = frozenset(variant.split("+"))
            if "int8" in levers and not question.options["int8"]:
                continue
            reason = backends.refusal(levers, "cpu", question.named.task)
            if reason:
                reasons.append(f"{variant}: {reason}")
            else:
                found[variant] = levers
    if not found:
        raise ConfigError(f"engines: none of {', '.join(names)} can be asked here: {'; '.join(reasons)}")
    device = question.device
    if device is not None:
        if not device.variants & set(found):
            raise ConfigError(
                f"device: {device.path} was measured by {', '.join(sorted(device.variants))}, and this is asked about "
                f"{', '.join(found)}. Give engines=... of the table, or install them here, to export for them."
            )
        found = {name: levers for name, levers in found.items() if name in device.variants}
    for reason in reasons:
        log.info("engine  %s", reason)
    return found


def measure(
    question: Question,
    name: str,
    task: Any,
    *,
    levers: Mapping[str, frozenset[str]],
    header: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The costs of a task by back end (`levers`, as `variants` gives them), kept in `measured/NAME.json`; what lies there is
    not measured again.

    The keys: `variants`, {back end: p50, p95 (milliseconds), memory (bytes)}; `parameters`, `macs`; `size` (height, width)
    and `batch` that were measured; `machine`.
    """
    file = question.folder / "measured" / f"{name}.json"
    table = question.device
    wanted = {
        "batch": question.options["batch"],
        "threads": torch.get_num_threads(),
        **({} if table is None else {"device": table.digest}),
    }
    if file.is_file():
        known = read_json(file)
        if known.get("asked") == wanted and set(levers) <= {*known["variants"], *known["skipped"]}:
            return known  # type: ignore[no-any-return]
    named, config = named_of(name, task, header), config_of(question)
    answer: dict[str, Any] = {"name": name, "asked": wanted, "date": datetime.date.today().isoformat()}
    if table is None:
        answer |= timed(named, levers, config)
    else:
        subject = compare.Subject(named, config, torch.device("cpu"))
        answer |= {
            "variants": table.find(subject.manifest, list(levers)),
            "skipped": {},
            **subject.costs(),
            "size": list(subject.source.image.shape[-2:]),
            "batch": len(subject.source.image),
            "machine": table.said,
        }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, answer)
    return answer


def named_of(name: str, task: Any, header: Mapping[str, Any] | None = None) -> Named:
    header = header or {"task": task.kind, "recipe": task.recipe, "data": task.data_recipe}
    return Named(name, plain_answers(task), header)


def config_of(question: Question) -> dict[str, Any]:
    """How a candidate is asked."""
    return {
        **TIMING, "images": None, "root": None, "size": None, "batch": question.options["batch"], "calibration": None,
        "calibration_pictures": 8, "rest": "f32", "agreement": 0.0,
    }  # fmt: skip


def timed(named: Named, levers: Mapping[str, frozenset[str]], config: Mapping[str, Any]) -> dict[str, Any]:
    """The times of a task on this machine."""
    all_levers = {"plain": frozenset[str](), **levers}
    found = compare.measure(compare.Group(named), all_levers, config, torch.device("cpu"), None)
    times = {
        row["variant"]: {
            "p50": row["milliseconds"]["median"],
            "p95": row["milliseconds"]["p95"],
            "memory": row["peak_memory"],
        }
        for row in found["rows"]
        if "milliseconds" in row
    }
    return {
        "variants": times,
        "skipped": {row["variant"]: row["skipped"] for row in found["rows"] if "skipped" in row},
        **found["costs"],
        "size": found["size"],
        "batch": found["batch"],
        "machine": {"processor": processor(), **environment()},
    }


def precision_of(variant: str) -> str:
    levers = variant.split("+")
    return next((name for name in ("int8", "bf16") if name in levers), "fp32")


def costs_of(measured: Mapping[str, Any], variant: str, budget: Budget) -> Costs:
    """The costs of a back end, by the names of a budget. The size is estimated from the number of parameters."""
    times = measured["variants"][variant]
    return {
        "latency": times["p95" if budget.percentile == 95 else "p50"],
        "size": times.get("bytes") or measured["parameters"] * BYTES[precision_of(variant)],
        "macs": measured["macs"],
        "memory": times["memory"],
    }


def fastest(measured: Mapping[str, Any], budget: Budget, *, int8: bool | None = None) -> str | None:
    """The back end, of a file, with the lowest latency; of those in 8 bits or of the others, where that is asked."""
    names = [
        name
        for name in measured["variants"]
        if name != "plain" and (int8 is None or ("int8" in name.split("+")) == int8)
    ]
    return min(names, key=lambda name: costs_of(measured, name, budget)["latency"] or 0.0, default=None)


def within(measured: Mapping[str, Any], budget: Budget) -> bool:
    """Whether any back end meets the budget."""
    return any(
        not budget.beyond(costs_of(measured, name, budget))
        for name in measured["variants"]
        if name != "plain"
    )


def nearest(measured: Mapping[str, Any], budget: Budget) -> tuple[float, str]:
    """By how many times the best back end is over the budget, and its costs in words."""
    found = []
    for name in measured["variants"]:
        if name == "plain":
            continue
        costs = costs_of(measured, name, budget)
        beyond = budget.beyond(costs)
        said = ", ".join(f"{spoken(cost, costs[cost] or 0.0)}" for cost in beyond)
        found.append((max(beyond.values(), default=0.0), f"{said} ({name})"))
    return min(found)


def split_by_budget(
    measured: Mapping[str, Mapping[str, Any]], budget: Budget
) -> tuple[list[str], dict[str, str]]:
    """The names that meet the budget; and why the others do not. Raises `ConfigError` where none does."""
    inside = [name for name, each in measured.items() if within(each, budget)]
    outside = {name: nearest(each, budget) for name, each in measured.items() if name not in inside}
    if not inside:
        best = min(outside, key=lambda name: outside[name][0])
        asked = ", ".join(f"{cost} {spoken(cost, bound)}" for cost, bound in budget.asked.items())
        raise ConfigError(
            f"budget: no candidate meets {asked}. The nearest is {best}: {outside[best][1]}. Give more, or "
            "smaller candidates."
        )
    return inside, {name: said for name, (_, said) in outside.items()}
