"""Whole tasks, batch 1, by each back end: how many times as fast as plain eager float32, and how near the machine's limit.

    python experiments/speed/backends.py > experiments/speed/backends.md
    python experiments/speed/backends.py segmentation=pidnet.ckpt landmarks=pfld.ckpt pose=hrnet.ckpt > backends.md

Goals: PIDNet-S 360x480 at 4.5 times with 99.5 % equal classes and 6 in int8 with 99 %; HRNet-W32 256x192 at 2, and 3.5 in
int8; PFLD 1X at 5 in int8; the U-Net 256x256 and a small detector at 2. All from uint8 to the decoded answer, in one
process, in turns of a few passes, so that what others do on the machine meets all rows alike; the ratio is that of the
medians. Random weights where no checkpoint is given: their answers hang on ties, so the share of equal ones says little.
At the end the rate of products of a stack of convolutions, in turns too: the limit.

`eager` names tasks whose networks are not compiled, which takes minutes. `clock=processor` counts the processor time of
one thread, which a crowded machine disturbs less; `clock=wall` with `threads=2` is for a quiet one.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import sys
import time
from typing import Any, NamedTuple

import torch
from torch import nn

from dvsn.benchmark import backends, compare, compare_table, stopwatch
from dvsn.benchmark.measure import randomise
from dvsn.benchmark.named import Named, plain_answers, read_named
from dvsn.benchmark.stopwatch import Stopwatch
from dvsn.config import python
from dvsn.engine.run_folder import environment
from dvsn.engine.trainer import make_task
from dvsn.export import quantise

DATA = os.environ.get("DVSN_DATA", "data")
VARIANTS = (
    "plain", "folded+channels_last", "folded+channels_last+compiled",
    "folded+onnxruntime", "folded+int8+onnxruntime", "folded+openvino", "folded+bf16+openvino", "folded+int8+openvino",
    "folded+int8+openvino, rest bf16",
)  # fmt: skip


class Goal(NamedTuple):
    """What is asked of a network: a factor, the numbers that may be used, and the least share of equal answers."""

    factor: float
    numbers: tuple[str, ...]
    same: float


FLOAT, ANY, INT8 = ("fp32",), ("fp32", "bf16"), ("int8",)
CASES: dict[str, tuple[str, list[int] | None, tuple[Goal, ...]]] = {
    "segmentation": ("pidnet_s", [360, 480], (Goal(4.5, FLOAT, 0.995), Goal(4.5, ANY, 0.995), Goal(6, INT8, 0.99))),
    "pose": ("hrnet_w32", None, (Goal(2, FLOAT, 0.99), Goal(3.5, INT8, 0.0))),
    "landmarks": ("pfld", None, (Goal(5, INT8, 0.0),)),
    "pix2pix": ("unet_256", [256, 256], (Goal(2, FLOAT, 0.99),)),
    "detection": ("detector_small", [256, 512], (Goal(2, FLOAT, 0.99),)),
}  # fmt: skip
"""By task: the network, height and width, and its goals."""


def options(size: list[int] | None, settings: dict[str, str]) -> dict[str, Any]:
    return {
        "images": None, "root": None, "size": size, "batch": 1, "calibration": None, "rest": "f32", "seconds": 1.0,
        "calibration_pictures": int(settings["pictures"]), "runs": int(settings["runs"]), "rounds": int(settings["rounds"]),
    }  # fmt: skip


def measure(task: str, settings: dict[str, str]) -> dict[str, Any]:
    """The rows of one network."""
    name, size, _ = CASES[task]
    config = options(size, settings)
    named = drawn(name) if task == "pose" and task not in settings else read_named(settings.get(task, name))
    if hasattr(named.task, "flip_test"):
        named.task.flip_test = False  # one pass a crop, as papers time it
    subject = compare.Subject(named, config, torch.device("cpu"))
    rows, ready = [], []
    for variant in VARIANTS:
        eager = variant.endswith("compiled") and task in settings["eager"].split(",")
        aimless = "int8" in variant and not any(goal.numbers == INT8 for goal in CASES[task][2])
        if eager or aimless:
            continue
        print(f"{task}: {variant}", file=sys.stderr)
        levers = frozenset(variant.partition(",")[0].split("+")) - {"plain"}
        source = (
            subject.source._replace(rest="bf16")
            if variant.endswith("bf16") and "rest" in variant
            else subject.source
        )
        rows.append({"name": name, "variant": variant})
        ready += compare.attempt(rows[-1], functools.partial(backends.build, levers, source), subject)
    compare.judge(ready, subject, trained_files=False)
    compare.clock(ready, subject, config)
    for each in ready:
        parts = compare.stages.stages(each.built.run, subject.source.image, subject.manifest)
        each.row["stages"] = None if parts is None else parts._asdict()
    return {
        "name": name, "task": task, "response": str(named.task.response), "trained": named.trained,
        "size": list(subject.source.image.shape[-2:]), "batch": 1, "inputs": subject.said.replace(DATA, "$DVSN_DATA"),
        "costs": subject.costs(), "rows": rows,
    }  # fmt: skip


def drawn(name: str) -> Named:
    """HRNet with random weights at the size of its recipe for COCO."""
    task = plain_answers(python.call("train", make_task, [f"experiment={name}_coco"], {}))
    return Named(name, randomise(task), {"task": task.kind, "recipe": task.recipe, "data": task.data_recipe})


def verdicts(group: dict[str, Any], limits: dict[str, float]) -> list[str]:
    """A sentence for each goal: met, or by how much it is missed and what the best row makes of the machine."""
    found = []
    for goal in CASES[group["task"]][2]:
        least = goal.same if group["trained"] else 0.0  # ties of random weights say nothing
        good = [
            row for row in group["rows"]
            if "ratio" in row and row["precision"].split(",")[0] in goal.numbers and row["same"] >= least
        ]  # fmt: skip
        asked = f"{goal.factor:g} times in {' or '.join(goal.numbers)}" + (
            f" with {goal.same:.1%} the same" if least else ""
        )
        if not good:
            found.append(f"{group['name']}: {asked}: no row has so many equal answers.")
            continue
        best = max(good, key=lambda row: row["ratio"])
        rate = group["costs"]["macs"] / best["milliseconds"]["median"] / 1e6
        number = best["precision"].split(",")[0]
        said = "met" if best["ratio"] >= goal.factor else "missed"
        found.append(
            f"{group['name']}: {asked}: **{said}** by {best['variant']}, {best['ratio']:.2f} times "
            f"({100 * best['same']:.2f} % the same); {rate:.0f} G multiply-accumulates a second, "
            f"{rate / limits[number]:.2f} of the {limits[number]:.0f} of {number}."
        )
    return found


# The limit --------------------------------------------------------------------------------------------


class Stack(nn.Module):
    """Six convolutions of 3x3 on 128 channels of 64x64, 3.6 G multiply-accumulates: large products, nothing else."""

    macs = 6 * 128 * 128 * 9 * 64 * 64

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(128, 128, 3, padding=1), nn.ReLU()) for _ in range(6))
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(image)
        return result


def limits(rounds: int) -> tuple[dict[str, float], list[str]]:
    """G multiply-accumulates a second, the best of each kind of number, and the rows of a table."""
    import onnxruntime
    import openvino

    stack, image = Stack().eval(), torch.randn(1, 128, 64, 64)
    made = torch.onnx.export(stack, (image,), dynamo=True, verbose=False, input_names=["image"])
    assert made is not None
    model = made.model_proto
    with contextlib.redirect_stdout(sys.stderr):  # NNCF draws bars
        eight = quantise.convert(model, [{"image": image.numpy()}] * 4, gpu=False)
    runs: dict[str, tuple[str, Any]] = {"eager PyTorch, fp32": ("fp32", stack)}
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = torch.get_num_threads(), 1
    for number, content in (("fp32", model), ("int8", eight)):
        session = onnxruntime.InferenceSession(
            content.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
        runs[f"ONNX Runtime, {number}"] = (number, lambda x, s=session: s.run(None, {"image": x.numpy()}))
    for number, hint, content in (("fp32", "f32", model), ("bf16", "bf16", model), ("int8", "f32", eight)):
        hints = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": hint,
        }
        request = (
            openvino.Core()
            .compile_model(backends.formats.openvino_model(content), "CPU", hints)
            .create_infer_request()
        )
        runs[f"OpenVINO, {number}"] = (
            number,
            lambda x, r=request: r.infer([x.numpy()], share_inputs=True, share_outputs=True),
        )
    watches = {
        name: Stopwatch(run, image, seconds=1, runs=8 * rounds, turns=rounds)
        for name, (_, run) in runs.items()
    }
    for _ in range(rounds):
        for watch in watches.values():
            watch.turn()
    best: dict[str, float] = {}
    table = [
        "| stack of convolutions | median ms | G multiply-accumulates/s | by its fastest pass |",
        "|---|--:|--:|--:|",
    ]
    for name, (number, _) in runs.items():
        latency = watches[name].latency()
        rate, fastest = (Stack.macs / each / 1e6 for each in (latency.median, latency.minimum))
        best[number] = max(best.get(number, 0.0), rate)
        table.append(f"| {name} | {latency.median:.2f} | {rate:.0f} | {fastest:.0f} |")
    return best, table


def main() -> None:
    settings = {
        "rounds": "8", "runs": "24", "pictures": "16", "threads": "1", "eager": "pose", "only": ",".join(CASES),
        "clock": "processor",
    }  # fmt: skip
    settings |= dict(argument.split("=", 1) for argument in sys.argv[1:])
    torch.set_num_threads(int(settings["threads"]))
    if settings["clock"] == "processor":
        stopwatch.clock = time.process_time
    head(settings)
    rounds = int(settings["rounds"])
    before, _ = limits(rounds)
    for task in settings["only"].split(","):
        tell(measure(task, settings), before)
    after, table = limits(rounds)
    print("## The limit\n\n" + "\n".join(table) + "\n")
    pairs = ", ".join(f"{number} {before[number]:.0f} and {rate:.0f}" for number, rate in after.items())
    print(
        f"The best of each kind of number before and after the networks: {pairs}; shares above are of the first."
    )
    print(f"Load average at the end: {os.getloadavg()[0]:.1f}.")


def head(settings: dict[str, str]) -> None:
    """The command, the machine and the versions."""
    facts, known = (
        environment(),
        ", ".join(f"{name} {version}" for name, version in backend_versions().items()),
    )
    chosen = " ".join(f"{name}={settings[name]}" for name in ("rounds", "runs", "threads", "clock", "eager"))
    print("# Back ends of whole tasks\n")
    print(f"`python experiments/speed/backends.py {chosen}`, {datetime.date.today()}\n")
    print(
        f"{facts['processor']}, {settings['threads']} thread(s), {settings['clock']} time, a machine shared with other jobs:"
    )
    print(
        f"load average {os.getloadavg()[0]:.1f} at the start. Python {facts['python']}, torch {facts['versions']['torch']},"
    )
    print(f"{known}. Batch 1.\n", flush=True)


def tell(group: dict[str, Any], best: dict[str, float]) -> None:
    """The table of one network, and a line for each of its goals."""
    aligned = "---|" * compare_table.LEFT + "--:|" * (len(compare_table.COLUMNS) - compare_table.LEFT)
    print(f"## {group['name']}\n\n{compare_table.said(group)} Load average {os.getloadavg()[0]:.1f}.\n")
    print(f"| {' | '.join(compare_table.COLUMNS)} |\n|{aligned}")
    for row in group["rows"]:
        print(f"| {' | '.join(compare_table.cells(group, row))} |")
    print("\n" + "\n".join(f"- {sentence}" for sentence in verdicts(group, best)) + "\n", flush=True)


def backend_versions() -> dict[str, str]:
    from importlib import metadata

    return {name: metadata.version(name) for name in ("onnxruntime", "openvino", "nncf")}


if __name__ == "__main__":
    main()
