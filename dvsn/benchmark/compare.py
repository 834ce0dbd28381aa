"""Checkpoints, exported files and networks side by side: each by every back end, in turns with plain eager float32."""

from __future__ import annotations

import datetime
import functools
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dvsn.benchmark import backends, stages
from dvsn.benchmark.agreement import agreement
from dvsn.benchmark.backends import Built, Growth, Skipped, Source
from dvsn.benchmark.costs import COUNTED, costs
from dvsn.benchmark.named import Named, read_named
from dvsn.benchmark.stopwatch import Stopwatch, peak_memory
from dvsn.engine.evaluation import default_output
from dvsn.engine.run_folder import environment, processor
from dvsn.errors import UserError
from dvsn.export import quantise
from dvsn.export.check import resized
from dvsn.export.graph import Graph, Objects, example, graph_of
from dvsn.export.manifest import manifest
from dvsn.export.samples import Samples
from dvsn.export.scoring import main_score
from dvsn.export.shape import Shape, chosen
from dvsn.reading import read_json

log = logging.getLogger("dvsn")
Config = Mapping[str, Any]
Row = dict[str, Any]
Score = Callable[[Path], Mapping[str, float]]
"""Measures a checkpoint or an exported file on val: {score: value}."""

PICTURES = 4
"""How many the answers are compared on."""


@dataclass
class Group:
    """Things of one recipe, which are timed in turns: a checkpoint, or a network, and files exported of such a one."""

    named: Named
    """Of which plain eager float32 is asked: the checkpoint where it is given, else the task of the first file."""
    files: list[Named] = field(default_factory=list)


class Ready(NamedTuple):
    """A row, and what is asked and timed for it."""

    row: Row
    built: Built


def compare(config: Config, device: torch.device, score: Score | None = None) -> dict[str, Any]:
    """What the tables show, as plain data, for the resolved config of a benchmark with `files`."""
    variants = backends.parse(config["variants"] or backends.defaults(str(device)))
    if config["threads"] is not None:
        torch.set_num_threads(config["threads"])
    torch.backends.cudnn.benchmark = True
    named = [
        read_named(str(word), seed=config["seed"], threads=torch.get_num_threads())
        for word in config["files"]
    ]
    load = os.getloadavg()[0]
    measured = [measure(group, variants, config, device, score) for group in grouped(named)]
    return {
        "groups": measured,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "clock": config["clock"],
        "load": [load, os.getloadavg()[0]],
        "date": datetime.date.today().isoformat(),
        "environment": environment(),
        "agreement": config["agreement"],
    }


def grouped(named: Sequence[Named]) -> list[Group]:
    """Files with the checkpoint of their recipe; a file without one is asked beside an untrained network of its recipe."""
    groups = [Group(each) for each in named if each.engine is None]
    for each in (each for each in named if each.engine is not None):
        known = json.dumps(each.header["recipe"], sort_keys=True, default=str)
        found = next(
            (g for g in groups if json.dumps(g.named.header["recipe"], sort_keys=True, default=str) == known),
            None,
        )
        if found is None:
            groups.append(found := Group(each))
        found.files.append(each)
    return groups


# One group --------------------------------------------------------------------------------------------


def measure(
    group: Group,
    variants: Mapping[str, frozenset[str]],
    config: Config,
    device: torch.device,
    score: Score | None,
) -> dict[str, Any]:
    """The rows of a group. All of them take turns, so that changes of the machine's load affect them alike."""
    subject = Subject(group.named, config, device)
    wanted = dict(variants) if group.named.engine is None else {"plain": frozenset[str]()}
    ready: list[Ready] = []
    rows: list[Row] = []
    for name, levers in wanted.items():
        rows.append({"name": group.named.name, "variant": name})
        log.info("%s: %s", group.named.name, name)
        ready += attempt(rows[-1], functools.partial(backends.build, levers, subject.source), subject)
    for file in group.files:
        rows.append({"name": file.name, "variant": "file"})
        log.info("%s", file.name)
        ready += attempt(rows[-1], functools.partial(of_file, file, subject), subject)
    judge(ready, subject, trained_files=group.named.engine is None)
    clock(ready, subject, config)
    for each in ready:
        parts = stages.stages(each.built.run, subject.source.image, subject.manifest)
        each.row["stages"] = None if parts is None else parts._asdict()
    give_scores(group, rows, score)
    return {
        "name": group.named.name,
        "task": group.named.task.kind,
        "response": str(group.named.task.response),
        "trained": group.named.trained and group.named.engine is None,
        "size": list(subject.source.image.shape[-2:]),
        "batch": len(subject.source.image),
        "inputs": subject.said,
        "costs": subject.costs(),
        "score": main_score(group.named.task),
        "rows": rows,
        "best": winner(rows, config["agreement"]),
    }


class Subject:
    """What a group is asked: its task as a graph, the shape, pictures, and the source that back ends are built of."""

    def __init__(self, named: Named, config: Config, device: torch.device) -> None:
        self.named, self.task = named, named.task
        self.graph: Graph = graph_of(self.task, fold=False)
        self.samples = Samples(self.task, pictures=config["images"], root=config["root"])
        shown = self.samples.images(PICTURES)
        self.said = self.samples.said if shown else "made-up pictures"
        size = "recipe" if config["size"] is None else "x".join(map(str, config["size"]))
        batch = 1 if self.graph.one_at_a_time else config["batch"]
        shape = chosen(self.graph, batch=batch, size=size, like=shown[0] if shown else None)
        sides = shape.sides or shape.example
        self.shape = shape = Shape(shape.batch or config["batch"], sides, sides)
        ids = int(getattr(self.task, "input_classes", 0)) > 0
        singles = [resized(each, shape.example, ids=ids) for each in shown] or [
            example(self.task, 1, shape.example, seed=seed)[0] for seed in range(PICTURES)
        ]
        count = shape.batch or 1
        self.images = [torch.stack([each] * count).to(device) for each in singles]
        self.manifest = manifest(self.graph, shape, precision="fp32", header=named.header)
        self.config = config
        self.source = Source(self.task, shape, self.images[0], self.calibration, config["rest"] or "f32", {})

    def calibration(self, graph: Graph) -> list[dict[str, Any]]:
        """Inputs of training pictures; made-up ones where there are none."""
        count = int(self.config["calibration_pictures"])
        if self.config["calibration"] is not None:
            found = Samples(self.task, pictures=self.config["calibration"])
            return quantise.calibration(found, self.shape, count, graph)
        try:
            return quantise.calibration(self.samples, self.shape, count, graph)
        except UserError:
            return [backends.inputs_of(graph.inputs, image.cpu()) for image in self.images]

    def costs(self) -> dict[str, int]:
        """Parameters, and multiply-accumulates of one picture in convolutions and linear layers."""
        sides = self.shape.example
        if isinstance(self.graph, Objects):  # how many products depends on the boxes: counted in one pass
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                self.graph(example(self.task, 1, sides))
            flops = counter.get_flop_counts().get("Global", {})
            size = sum(each.numel() for each in self.task.network.parameters())
            return {"parameters": size, "macs": sum(flops.get(each, 0) for each in COUNTED) // 2}
        encoder = getattr(self.task, "encoder", None)
        shown = example(self.task, 1, sides)
        shape = shown.shape if encoder is None else encoder(shown).shape
        found = costs(self.task.network, shape)
        return {"parameters": found.parameters, "macs": found.macs}


def attempt(row: Row, make: Callable[[], Built], subject: Subject) -> list[Ready]:
    """A back end that works, with its memory in the row; else nothing, with the reason in the row."""
    growth = Growth()
    try:
        growth.start()
        built = make()
        with torch.no_grad():
            built.run(subject.source.image)
        row["precision"] = built.precision
        row["peak_memory"] = (
            growth.bytes
            if built.parts is None
            else peak_memory(built.eager or built.run, subject.source.image, built.parts)  # type: ignore[arg-type]
        )
    except Skipped as reason:
        row["skipped"] = str(reason)
    except UserError:
        raise
    except Exception as error:
        row["skipped"] = said_by(error)
        if row["variant"] == "plain":
            raise
    else:
        return [Ready(row, built)]
    return []


def said_by(error: Exception) -> str:
    """What an error says, without OpenVINO's lines about places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Check '", "Exception from "))]
    return (told or lines or [type(error).__name__])[0][:200]


def of_file(named: Named, subject: Subject) -> Built:
    """An exported file, asked by its own runtime about the pictures of its group."""
    engine = named.engine
    assert engine is not None
    takes = engine.manifest["input"]["shape"]
    have = subject.source.image.shape
    if any(side is not None and side != own for side, own in zip(takes, have, strict=True)):
        free = "x".join("any" if side is None else str(side) for side in takes)
        raise Skipped(
            f"takes {free}, and this group is measured on {'x'.join(map(str, have))}: give size= and batch="
        )

    def run(image: Tensor) -> tuple[Tensor, ...]:
        inputs = backends.inputs_of(subject.graph.inputs, image.cpu())
        answer = engine(inputs["image"], inputs.get("offset"))
        return tuple(torch.from_numpy(each) for each in answer.values())

    return Built(run, None, engine.precision)


# What is said of the rows -----------------------------------------------------------------------------


@torch.no_grad()
def judge(ready: Sequence[Ready], subject: Subject, *, trained_files: bool) -> None:
    """Compares the answers with those of plain; of files only where the checkpoint is there."""
    names = [output.name for output in subject.graph.outputs]
    expected = [backends.copied(ready[0].built.run(image)) for image in subject.images]
    for each in ready:
        if each.row["variant"] == "file" and not trained_files:
            continue
        found = [backends.copied(each.built.run(image)) for image in subject.images]
        result = agreement(str(subject.task.response), names, found, expected)
        each.row["largest"], each.row["same"] = result


def clock(ready: Sequence[Ready], subject: Subject, config: Config) -> None:
    """Times the rows in turns: latency, throughput, and the ratio of plain's median to theirs."""
    timing = {"seconds": config["seconds"], "runs": config["runs"], "turns": config["rounds"]}
    watches = [Stopwatch(each.built.run, subject.source.image, **timing) for each in ready]  # type: ignore[arg-type]
    for _ in range(config["rounds"]):
        for watch in watches:
            watch.turn()
    plain = watches[0].latency().median
    for each, watch in zip(ready, watches, strict=True):
        latency = watch.latency()
        each.row["milliseconds"] = latency._asdict()
        each.row["per_second"], each.row["passes"] = watch.images_per_second, watch.passes
        each.row["ratio"] = plain / latency.median


def give_scores(group: Group, rows: Sequence[Row], score: Score | None) -> None:
    """The score of a checkpoint in its plain row, and of each file in its own: measured now where `score` is given, else
    known from an evaluation of val beside it or from the file's manifest. Other back ends have none of their own."""
    name, _ = main_score(group.named.task)
    by_name = {each.name: each for each in (group.named, *group.files)}
    for row in rows:
        each = by_name[row["name"]]
        if each.path is None or row["variant"] not in ("plain", "file") or "skipped" in row:
            continue
        if row["variant"] == "plain" and each.engine is not None:
            continue
        values = score(each.path) if score is not None else known_scores(each)
        row["score"] = values.get(name)


def known_scores(named: Named) -> Mapping[str, float]:
    """Of an earlier evaluation on val."""
    assert named.path is not None
    if named.engine is not None:
        beside = named.path.with_suffix(".json")
        about = content_of(beside) or dict(named.engine.manifest)
        if about.get("score"):
            return about["score"].get("metrics", {})  # type: ignore[no-any-return]
    return content_of(default_output(named.path, "val") / "metrics.json").get("metrics", {})


def content_of(path: Path) -> dict[str, Any]:
    """A JSON file of dvsn's; {} for one that is missing, damaged or something else."""
    try:
        content = read_json(path)
    except UserError:
        return {}
    return content if isinstance(content, dict) else {}


def winner(rows: Sequence[Row], least: float) -> int | None:
    """The place of the fastest row by its median, among those whose answers agree with plain's on a share `least`."""
    good = [
        place for place, row in enumerate(rows) if "milliseconds" in row and row.get("same", 0.0) >= least
    ]
    return min(good, key=lambda place: rows[place]["milliseconds"]["median"], default=None)


def as_export(variant: str) -> str:
    """The options of `python -m dvsn.export` that make a file of a back end; empty where none stands for it."""
    levers = set(variant.split("+"))
    if not levers & {"onnxruntime", "openvino"}:
        return ""
    precision = next((name for name in ("int8", "bf16") if name in levers), "fp32")
    return f"format={'onnx' if 'onnxruntime' in levers else 'openvino'} precision={precision}"
