"""8 bits: scales from pictures of the data set, and the modules that must stay in float32 found by measuring the score."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dvsn.errors import ConfigError, DataError
from dvsn.export import formats, parting, placing
from dvsn.export.check import resized
from dvsn.export.finetune import read_plan, tuned
from dvsn.export.graph import Graph, example_inputs
from dvsn.export.samples import Samples
from dvsn.export.scoring import Scorer
from dvsn.export.shape import Shape

log = logging.getLogger("dvsn")

BACKBONE = "backbone"
"""What of a detector computes in 8 bits: behind it the numbers of boxes change, of which no scales can be taken."""

EQUAL = 0.9
"""The least share of answers as in fp32, where nothing else is asked for."""

MOST_GROUPS = 40
"""Modules that the sensitivity pass looks at one by one."""


BETWEEN = "between modules"
"""Stands for operations in no module of the pass, such as sums and enlargements, which may read 8 bits too."""


class Sensitivity(NamedTuple):
    """A module, and of the network in which it alone computes in 8 bits the score and the share of equal answers."""

    module: str
    score: float
    equal: float


class Wanted(NamedTuple):
    """What 8 bits may cost: `drop` of the score, in its units; `equal`: the least share of answers as in fp32."""

    plain: float
    drop: float
    equal: float | None

    def holds(self, score: float, scorer: Scorer) -> bool:
        """Whether the model that `scorer` was asked about last, with this score, is good enough."""
        return scorer.worse(self.plain, score) <= self.drop and (
            self.equal is None or scorer.equal >= self.equal
        )


def quantised(
    model: Any, task: Any, graph: Graph, shape: Shape, samples: Samples, options: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """An ONNX model whose convolutions and linear layers compute in 8 bits, and what is to be said of it.

    - Weights: symmetric, a scale a channel. Activations: a scale a tensor, of the calibration pictures; symmetric for
      `target=gpu`, as TensorRT wants them.
    - If the score on pictures of val falls by more than `drop` points of a hundred, modules go back to float32: ranked by
      the score that is left when each alone is in 8 bits, the most sensitive first, as few as are needed.
    - Of segmentation, pose and landmarks likewise until the share `equal` of classes is that of fp32, or of points within
      one pixel; ranked by this share.
    - With `finetune` the network in 8 bits is trained first, all of it; modules go back only where that was not enough.

    Raises `ConfigError` or `DataError` where no pictures are there for the scales, or no data set for the score.
    """
    images = calibration(samples, shape, int(options["samples"]), graph)
    scorer = Scorer(task, samples, shape, count=int(options["scored"]))
    gpu = str(options["target"]) == "gpu"
    whole = convert(model, images, gpu=gpu, only=BACKBONE if graph.one_at_a_time else None)
    wanted = Wanted(scorer(model), float(options["drop"]) / 100, least_equal(options["equal"], scorer))
    found = scorer(whole)
    log.info(
        "int8  %s on %d pictures of val: %.4f in fp32, %.4f in 8 bits%s",
        scorer.name, scorer.count, wanted.plain, found, told(scorer),
    )  # fmt: skip
    about = {
        "score": scorer.name, "pictures": scorer.count, "fp32": wanted.plain, "all": found, "kept": [], "int8": found,
        "equal": scorer.equal, "calibrated": len(images), "sensitivity": [], "finetune": None,
    }  # fmt: skip
    plan, plain = read_plan(options), model
    if plan is not None:
        made = tuned(task, graph, shape, images, plan, samples.module(), gpu=gpu)
        before, whole, found = (found, scorer.equal), made.model, scorer(made.model)
        about |= {
            "int8": found,
            "equal": scorer.equal,
            "finetune": {**made.about, "before": before[0], "before_equal": before[1]},
        }
        say_tuned(scorer, wanted, before, found)
        if not wanted.holds(found, scorer):
            plain = made.plain()
    if wanted.holds(found, scorer):
        return whole, about
    return kept_out(whole, plain, scorer, wanted, about)


def say_tuned(scorer: Scorer, wanted: Wanted, before: tuple[float, float], found: float) -> None:
    """The three scores: in fp32, in 8 bits without training, and after it."""
    log.info(
        "int8  %s %.4f in fp32, %.4f in 8 bits, %.4f fine-tuned%s",
        scorer.name, wanted.plain, before[0], found, told(scorer),
    )  # fmt: skip
    lost = scorer.worse(before[0], found) > 0 and scorer.equal <= before[1]
    if lost:
        log.warning(
            "finetune: made it worse. Leave it out, or give another finetune.lr, more epochs, or another task_weight."
        )


def kept_out(
    whole: Any, plain: Any, scorer: Scorer, wanted: Wanted, about: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The model with as few modules in fp32 as are needed, and what is to be said of it. Raises `ConfigError` where none
    are enough."""
    ranked = rank(whole, plain, scorer, wanted)
    for each in ranked[:5]:
        log.info(
            "int8  %s alone in 8 bits: %.4f", each.module, each.score if wanted.equal is None else each.equal
        )
    kept, best = fewest(whole, plain, [each.module for each in ranked], scorer, wanted)
    made = without(whole, plain, kept)
    best = scorer(made)
    about |= {
        "kept": kept,
        "int8": best,
        "equal": scorer.equal,
        "sensitivity": [list(each) for each in ranked],
    }
    log.info("int8  %.4f%s with %d modules in fp32: %s", best, told(scorer), len(kept), ", ".join(kept))
    if not wanted.holds(best, scorer):
        raise ConfigError(
            f"drop: {scorer.name} is {best:.4f} instead of {wanted.plain:.4f}{told(scorer)} with {len(kept)} of "
            f"{len(ranked)} modules in fp32; expected at most {wanted.drop:.4f} less. Calibrate on more pictures "
            "(samples=256), or give a larger drop or a smaller equal."
        )
    return made, about


def least_equal(given: Any, scorer: Scorer) -> float | None:
    """The option `equal` as a share; null: `EQUAL`. Raises `ConfigError` for a task without such answers."""
    if given is None:
        return EQUAL if scorer.compared else None
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= 1:
        raise ConfigError(
            f"equal: found {given!r}, expected a share above 0, at most 1, such as 0.99, or null."
        )
    if not scorer.compared:
        raise ConfigError(
            f"equal: is for classes of pixels and for points; the task '{scorer.task.kind}' has neither. Leave it out."
        )
    return float(given)


def told(scorer: Scorer) -> str:
    what = {"ids": "of pixels of the same class", "points": "of coordinates within a pixel"}
    return f", {scorer.equal:.2%} {what[scorer.compared]}" if scorer.compared else ""


def calibration(samples: Samples, shape: Shape, count: int, graph: Graph) -> list[dict[str, np.ndarray]]:
    """Inputs of training pictures by name, each a batch of one or of the fixed size."""
    if count < 1:
        raise ConfigError(f"samples: found {count}, expected 1 or more.")
    found = samples.images(count, "train")
    if not found:
        raise DataError(
            f"precision: int8 takes its scales from pictures of the data set, and there are none: {samples.said}."
        )
    log.info("int8  scales from %s", samples.said)
    ids = int(getattr(graph.task, "input_classes", 0)) > 0
    repeats = shape.batch or 1
    multiple = int(getattr(graph.task.network, "multiple", 1))
    made = []
    for picture in found:
        height, width = picture.shape[-2:]
        sides = shape.sides or (
            max(multiple, height // multiple * multiple),
            max(multiple, width // multiple * multiple),
        )
        image = resized(picture, sides, ids=ids)[None].expand(repeats, -1, -1, -1)
        inputs = zip(graph.inputs, example_inputs(graph, image), strict=True)
        made.append({name: each.numpy().copy() for name, each in inputs})
    return made


def convert(
    model: Any, images: Sequence[dict[str, np.ndarray]], *, gpu: bool, only: str | None = None
) -> Any:
    """The model by NNCF, with pairs of QuantizeLinear and DequantizeLinear; `only`: in modules whose path has this part."""
    import nncf

    options = placing.nncf_options(gpu=gpu)
    if only is not None:
        options["ignored_scope"] = nncf.IgnoredScope(names=outside(model, only), validate=False)
    with formats.quiet():
        return nncf.quantize(
            formats.copy_of(model), nncf.Dataset(list(images)), subset_size=len(images), **options
        )


def outside(model: Any, part: str) -> list[str]:
    """The names of operations in no module whose path has `part`."""
    return [
        node.name
        for node in model.graph.node
        if node.op_type != "Constant" and not any(part in path.split(".") for path in parting.scopes_of(node))
    ]


# Which modules ----------------------------------------------------------------------------------------


def groups(model: Any) -> dict[str, list[str]]:
    """{module: its operations with weights}, in the order of the forward pass; as deep as `MOST_GROUPS` allows."""
    paths: dict[str, list[str]] = {
        node.name: [path for path in parting.scopes_of(node) if path]
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul", "ConvTranspose")
    }
    best: dict[str, list[str]] = {}
    for depth in range(1, 12):
        made: dict[str, list[str]] = {}
        for name, scopes in paths.items():
            if scopes:
                made.setdefault(scopes[min(depth, len(scopes) - 1)], []).append(name)
        if len(made) > MOST_GROUPS or made == best:
            break
        best = made
    return best


def rank(whole: Any, plain: Any, scorer: Scorer, wanted: Wanted) -> list[Sensitivity]:
    """The modules, the one first that alone in 8 bits costs the most."""
    modules = [*groups(plain), BETWEEN]
    found = []
    for module in modules:
        score = scorer(without(whole, plain, [each for each in modules if each != module]))
        found.append(Sensitivity(module, score, scorer.equal))
    if wanted.equal is not None:
        return sorted(found, key=lambda each: each.equal)
    return sorted(found, key=lambda each: scorer.sign * each.score)


def fewest(
    whole: Any, plain: Any, ranked: Sequence[str], scorer: Scorer, wanted: Wanted
) -> tuple[list[str], float]:
    """The shortest start of the ranking that is to stay in float32, by bisection, and the score with it."""
    low, high = 0, len(ranked)
    scores: dict[int, float] = {}
    while high - low > 1:
        middle = (low + high) // 2
        scores[middle] = scorer(without(whole, plain, ranked[:middle]))
        low, high = (low, middle) if wanted.holds(scores[middle], scorer) else (middle, high)
    if high not in scores:
        scores[high] = scorer(without(whole, plain, ranked[:high]))
    return list(ranked[:high]), scores[high]


def without(whole: Any, plain: Any, modules: Sequence[str]) -> Any:
    """A copy in which the operations of `modules` compute in float32: what they read is not rounded, and their weights and
    biases, which the calibration has corrected for 8 bits, are those of the `plain` model. `BETWEEN`: those of none."""
    import onnx

    wanted, known = set(modules), groups(plain).keys()
    copied = onnx.ModelProto()
    copied.CopyFrom(whole)
    graph = copied.graph
    makers = {output: node for node in graph.node for output in node.output}
    there = {each.name for each in graph.initializer}
    before = {node.name: node for node in plain.graph.node}
    constants = {each.name: each for each in plain.graph.initializer}
    for node in graph.node:
        scopes = parting.scopes_of(node)
        between = BETWEEN in wanted and node.op_type not in PAIR and known.isdisjoint(scopes)
        if not between and wanted.isdisjoint(scopes):
            continue
        own = before.get(node.name)
        for place, name in enumerate(node.input):
            given = own.input[place] if own is not None and place < len(own.input) else ""
            if given in constants:
                node.input[place] = f"{given}_plain"
                if f"{given}_plain" not in there:
                    graph.initializer.add().CopyFrom(constants[given])
                    graph.initializer[-1].name = f"{given}_plain"
                    there.add(f"{given}_plain")
            elif (maker := makers.get(name)) is not None and maker.op_type == "DequantizeLinear":
                source = makers.get(maker.input[0])
                if source is not None and source.op_type == "QuantizeLinear":
                    node.input[place] = source.input[0]
    return pruned(copied)


PAIR = ("QuantizeLinear", "DequantizeLinear")


def pruned(model: Any) -> Any:
    """The model without operations and constants that nothing reads."""
    graph = model.graph
    read = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if read.intersection(node.output):
            kept.append(node)
            read.update(node.input)
    kept.reverse()
    constants = [each for each in graph.initializer if each.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(constants)
    return model
