"""`python -m dvsn.export best.ckpt format=best`: the format and precision that answer fastest on this machine."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from dvsn.benchmark import compare
from dvsn.benchmark.compare_table import verdict
from dvsn.benchmark.named import Named, plain_answers, shortened
from dvsn.errors import ConfigError
from dvsn.export.run import read
from dvsn.hub.resolve import local

log = logging.getLogger("dvsn")

CANDIDATES = {
    "fp32": ("folded+onnxruntime", "folded+openvino"),
    "bf16": ("folded+bf16+openvino",),
    "int8": ("folded+int8+onnxruntime", "folded+int8+openvino"),
}
"""By precision: the back ends that a file stands for."""
LEAST = 0.995
"""The share of answers that must be those of plain eager float32."""
TIMING = {"seconds": 1.0, "runs": None, "rounds": 3}


def choose(options: Mapping[str, Any]) -> dict[str, str]:
    """`format` and `precision` for these options of an export: a short measurement on this machine, in turns with plain.

    `precision=auto`: float32 and bf16 are tried. In int8, whose answers the export itself mends, all that run may win.
    Raises `ConfigError` where nothing that is installed can be tried, or nothing answers as the network does.
    """
    asked = str(options["precision"])
    precisions = ("fp32", "bf16") if asked == "auto" else (asked,)
    names = [name for precision in precisions for name in CANDIDATES.get(precision, ())]
    if not names:
        raise ConfigError(
            f"precision: found '{asked}', but format=best chooses among {', '.join(CANDIDATES)}, or auto. Name a format."
        )
    path = local(str(options["checkpoint"]))
    header, task = read(path, dict(options))
    named = Named(shortened(path), plain_answers(task), header, path)
    found = compare.measure(
        compare.Group(named), {name: frozenset(name.split("+") if name != "plain" else ()) for name in ("plain", *names)},
        settings(options, least=0.0 if asked == "int8" else LEAST), torch.device("cpu"), None,
    )  # fmt: skip
    rows = found["rows"][1:]  # plain itself is no file
    best = compare.winner(rows, 0.0 if asked == "int8" else LEAST)
    for row in rows:
        log.info("best   %s", in_words(row))
    if best is None:
        raise ConfigError(
            f"format: none of {', '.join(names)} can be had or gives the same answers on {LEAST:.1%}. Name a format, "
            "such as format=onnx."
        )
    chosen = dict(part.split("=") for part in compare.as_export(rows[best]["variant"]).split())
    log.info("best   %s", verdict({**found, "rows": rows, "best": best}, LEAST))
    return {"format": chosen["format"], "precision": chosen["precision"]}


def settings(options: Mapping[str, Any], *, least: float) -> dict[str, Any]:
    """The options of a benchmark that stand for those of the export."""
    size = str(options["size"])
    sides = [int(side) for side in size.lower().split("x")] if size not in ("recipe", "dynamic") else None
    batch = str(options["batch"])
    return {
        **TIMING,
        "images": options["pictures"],
        "root": options["root"],
        "size": sides,
        "batch": int(batch) if batch.isdigit() else 1,
        "calibration": None,
        "calibration_pictures": min(16, int(options["samples"])),
        "rest": "f32",
        "agreement": least,
    }


def in_words(row: Mapping[str, Any]) -> str:
    """One candidate."""
    if "skipped" in row:
        return f"{row['variant']}: skipped: {row['skipped']}"
    return (
        f"{row['variant']}: {row['milliseconds']['median']:.2f} ms, {row['ratio']:.2f} times plain, "
        f"{100 * row['same']:.2f} % of the answers the same"
    )
