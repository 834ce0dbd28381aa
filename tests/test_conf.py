"""A battery over every YAML file: each option of each group composes, builds and does what its class says."""

from __future__ import annotations

import copy
import functools
import importlib.util
import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from dvsn.config import python, rules
from dvsn.config.build import build, options_of
from dvsn.config.menu import choices, conf_dir
from dvsn.config.partners import check_partners, class_of, said, shipped
from dvsn.distill.method import Kind, Method
from dvsn.engine import trainer as runtime
from dvsn.engine.loggers import build_loggers
from dvsn.errors import ConfigError
from dvsn.networks.blocks import class_layers
from dvsn.optim.schedules import Schedule
from dvsn.tasks.base import Task
from dvsn.types import LandmarkOutput, SegmentationOutput
from tests.support.networks import awake, require_extra
from tests.support.tiny import TINY, composed

FILES = sorted(Path(conf_dir()).rglob("*.yaml"))
GROUPS = choices()
DISCRIMINATORS = GROUPS["discriminator"]


def text_of(group: str, name: str) -> str:
    return Path(conf_dir(), group, f"{name}.yaml").read_text(encoding="utf-8")


def saying(group: str, attribute: str, word: str) -> list[str]:
    """The choices of a group whose class says `word` of itself, in an attribute of one or several words."""
    words = {name: said(class_of(shipped(group)[name], group), attribute) for name in GROUPS[group]}
    return [
        name for name, found in words.items() if found == word or (isinstance(found, tuple) and word in found)
    ]


TRANSLATORS = saying("network", "response", "image")
CLASSIFIERS = saying("network", "response", "classes")
POSE_NETWORKS = saying("network", "response", "heatmaps")
DETECTORS = saying("network", "response", "objects")
LANDMARKERS = saying("network", "response", "points")
SEGMENTERS = saying("network", "response", "pixels")
ZOO = [
    name
    for name in CLASSIFIERS
    if re.search(r"\.(cifar_|wide_resnet)", shipped("network")[name].get("_target_", ""))
]
LOSSES = {
    task: saying("loss", "reads", word)
    for task, word in {
        "pix2pix": "image",
        "segmentation": "pixels",
        "classification": "classes",
        "pose": "heatmaps",
        "landmarks": "points",
    }.items()
}
CROPS = [
    name
    for name in GROUPS["transform"]
    if re.search(r"dvsn\.data\.(face_)?crop\.", text_of("transform", name))
]
OBJECT_TRANSFORMS = [
    name for name in GROUPS["transform"] if "dvsn.data.object_transform." in text_of("transform", name)
]


def home(group: str, name: str) -> str:
    """The task that an option belongs to; pix2pix where any would do."""
    homes = {
        "network": {
            "segmentation": SEGMENTERS,
            "classification": CLASSIFIERS,
            "pose": [*POSE_NETWORKS, *LANDMARKERS],
            "detection": DETECTORS,
        },
        "transform": {"pose": CROPS, "detection": OBJECT_TRANSFORMS},
        "codec": {"pose": GROUPS["codec"]},
        "distill": {"classification": GROUPS["distill"]},
        "loss": LOSSES,
    }
    return next((task for task, names in homes.get(group, {}).items() if name in names), "pix2pix")


def command_lines() -> dict[str, tuple[str, ...]]:
    """Of every option, a command line that holds it, as few as there can be: options of different groups share one."""
    lines: dict[tuple[str, int], list[str]] = {}
    found: dict[str, tuple[str, ...]] = {}
    for group, names in GROUPS.items():
        count: dict[str, int] = {}
        for name in names:
            option = f"{group}='{name}'" if name == "true" else f"{group}={name}"
            if group in ("experiment", "task"):
                found[option] = (option,)
                continue
            task = home(group, name)
            count[task] = count.get(task, -1) + 1
            lines.setdefault((task, count[task]), [f"task={task}"]).append(option)
            if group == "distill" and name != "none":
                lines[task, count[task]].append("teacher=teacher.ckpt")
    return found | {option: tuple(line) for line in lines.values() for option in line[1:]}


COMMAND_LINES = command_lines()


def task_of(experiment: str) -> str:
    found = re.search(r"override /task: (\w+)", text_of("experiment", experiment))
    parent = re.search(r"^  - (?!override|_self_)(\w+)$", text_of("experiment", experiment), re.MULTILINE)
    return found[1] if found else task_of(parent[1] if parent else "")


EXPERIMENTS = [(name, task_of(name)) for name in GROUPS["experiment"]]


@functools.cache
def _composed(*overrides: str) -> dict[str, Any]:
    return composed([*overrides], Path("runs/test"))


def tree(*overrides: str) -> dict[str, Any]:
    """A config with these overrides."""
    return copy.deepcopy(_composed(*overrides))


def tree_with(group: str, name: str) -> dict[str, Any]:
    """A config that holds this option, among others."""
    return tree(*COMMAND_LINES[f"{group}={name}"])


def targets(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node with a target, and the target."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"], node
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


# Files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.relative_to(conf_dir()).as_posix())
def test_every_file_opens_with_a_sentence(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    first = next(line for line in lines if line.strip() != "# @package _global_")
    assert first.startswith("# ") and len(first) > 10, first
    assert not any(line.rstrip() != line or "\t" in line for line in lines)


@pytest.mark.parametrize("name", GROUPS["experiment"])
def test_every_experiment_states_a_command_that_names_it(name: str) -> None:
    text = Path(conf_dir(), "experiment", f"{name}.yaml").read_text(encoding="utf-8")
    head = text.partition("defaults:")[0]
    commands = [line for line in head.splitlines() if line.startswith("#   ")]
    assert commands, "no command"
    assert f"experiment={name}" in head or f"make {name}" in head
    assert "xpected" in head  # a promise, even if it is that no score is known


def test_the_menu_offers_every_group() -> None:
    wanted = {"task", "network", "discriminator", "loss", "codec", "transform", "data", "optim", "schedule", "trainer",
              "logger", "callbacks", "experiment", "debug", "distill"}  # fmt: skip
    assert wanted <= set(GROUPS)
    for profile in ("default", "gpu", "ddp", "cpu", "fast_dev_run", "deterministic"):
        assert profile in GROUPS["trainer"]


# Composing and checking ------------------------------------------------------------------------------


LINES = pytest.mark.parametrize("line", sorted(set(COMMAND_LINES.values())), ids=" ".join)


def test_every_option_is_said() -> None:
    assert len(set(COMMAND_LINES) - {"teacher=teacher.ckpt"}) == sum(map(len, GROUPS.values()))
    assert all(option in line for option, line in COMMAND_LINES.items())


@LINES
def test_every_option_composes_and_passes_the_checks(line: tuple[str, ...]) -> None:
    rules.validate(tree(*line, *(["teacher=teacher.ckpt"] if line == ("task=distillation",) else [])))


OWN_TRANSFORM = sorted(
    file.stem for file in Path(conf_dir(), "data").glob("*.yaml") if "override /transform" in file.read_text()
)


@pytest.mark.parametrize("data", OWN_TRANSFORM)
def test_an_evaluation_on_a_data_set_that_brings_its_transform_composes(data: str) -> None:
    assert python.call("evaluate", lambda config: config, [f"data={data}", "checkpoint=best.ckpt"], {})[
        "transform"
    ]


@LINES
def test_a_yaml_repeats_every_option_of_our_classes(line: tuple[str, ...]) -> None:
    """So that the command line can change every one: style principle 5."""
    bound = {
        "split",
        "transform",
        "seed",
        "root",
        "keypoints",
        "source",
    }  # what the data module gives to its reader
    bound |= {"student", "teacher", "facts"}  # and the distiller to its methods
    bound |= {"params"}  # and the task to its optimiser
    for target, node in targets(tree(*line)):
        if not target.startswith("dvsn."):
            continue
        module, _, name = target.rpartition(".")
        kind = getattr(__import__(module, fromlist=[name]), name)
        options = options_of(kind)
        assert options is not None
        wanted = set(options.named)
        given = set(node) - {"_target_", "_partial_"}
        if node.get("_partial_"):
            wanted -= bound
        assert given == wanted, f"{target}: missing {wanted - given}, unknown {given - wanted}"


def test_metrics_repeat_every_option() -> None:
    from dvsn.tasks.classification import Classification
    from dvsn.tasks.pix2pix import Pix2Pix
    from dvsn.tasks.pose import Pose
    from dvsn.tasks.segmentation import Segmentation

    tasks: dict[str, Any] = {"pix2pix": Pix2Pix, "segmentation": Segmentation, "pose": Pose}
    for task, kind in (tasks | {"classification": Classification}).items():
        known = set(inspect.signature(kind.use_metrics).parameters) - {"self"}
        assert set(tree(f"task={task}")["metrics"]) <= known
        assert known <= {*tree(f"task={task}")["metrics"], "absent"}


def test_defaults_in_yaml_are_those_of_the_class() -> None:
    """Of two sources of one default, one would be wrong some day. Variants differ, that is what they are for."""
    for option in (
        "loss=vanilla",
        "schedule=constant",
        "schedule=poly",
        "schedule=cosine",
        "schedule=linear_decay",
    ):
        group = option.partition("=")[0]
        node = tree_with(*option.split("="))[group]
        module, _, name = node["_target_"].rpartition(".")
        for key, known in options_of(getattr(__import__(module, fromlist=[name]), name)).named.items():
            assert node[key] == known.default, f"{option}: {key}"


# Building --------------------------------------------------------------------------------------------


NARROW = {"width": 4, "init": "normal"}
SLIM = {
    "width": 8,
    "deconvolution_width": 8,
    "pyramid_width": 8,
    "head_width": 8,
    "channels": 16,
    "key_channels": 8,
}


def slim(node: dict[str, Any]) -> dict[str, Any]:
    """The network of a node, narrow where it has widths."""
    return node | {key: min(value, node[key]) for key, value in SLIM.items() if key in node}


def test_every_network_and_loss_belongs_to_a_task() -> None:
    assert TRANSLATORS and SEGMENTERS and CLASSIFIERS and POSE_NETWORKS and DETECTORS and LANDMARKERS
    assert sorted(name for names in LOSSES.values() for name in names) == sorted(GROUPS["loss"])


def check_gradients(module: nn.Module, output: torch.Tensor) -> None:
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
    (output * weight).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, f"{name}: no gradient"
        assert bool(torch.isfinite(parameter.grad).all()), f"{name}: not finite"
        before_norm = name.endswith("bias") and not bool(parameter.grad.abs().max() > 0)
        assert not before_norm, f"{name}: the gradient is zero"


@pytest.mark.parametrize("name", TRANSLATORS)
def test_every_translator_builds_and_learns(name: str) -> None:
    require_extra(name)
    node = tree_with("network", name)["network"] | {"input_channels": 3, "output_channels": 3}
    node |= {key: value for key, value in NARROW.items() if key in node}
    torch.manual_seed(0)
    network = awake(build(node, path="network"))
    side = max(network.multiple, 16)
    image = torch.randn(2, 3, side, 2 * side if side < 128 else side)
    output = network(image)
    assert output.shape == image.shape and float(output.detach().abs().max()) <= 1
    check_gradients(network, output)
    taps = getattr(network, "taps", ())  # which a network need not declare
    assert isinstance(taps, tuple) and all(network.get_submodule(tap) is not None for tap in taps)
    if network.multiple > 1:
        with pytest.raises(ValueError, match=str(network.multiple)):
            network(torch.zeros(2, 3, side + network.multiple // 2, side))


@pytest.mark.parametrize("name", SEGMENTERS)
def test_every_segmenter_builds_and_learns(name: str) -> None:
    require_extra(name)
    node = slim(tree_with("network", name)["network"])
    torch.manual_seed(0)
    network = awake(build(node, path="network"))
    image = torch.randn(2, 3, 64, 96)
    output = network(image)  # in training: with the training heads
    assert isinstance(output, SegmentationOutput)
    side = network.stride
    assert tuple(output.logits.shape) == (2, 19, 64 // side, 96 // side)
    assert all(each.shape[:2] == (2, 19) for each in output.auxiliary)
    assert output.boundary is None or output.boundary.shape[:2] == (2, 1)
    boundary = [] if output.boundary is None else [output.boundary]
    flat = [each.flatten() for each in (output.logits, *output.auxiliary, *boundary)]
    check_gradients(network, torch.cat(flat))
    for path in (*network.taps, *network.classifier):
        assert network.get_submodule(path) is not None
    assert isinstance(network.align_corners, bool) and network.multiple >= 1
    network.eval()
    with torch.no_grad():
        alone = network(image[:1], heads=False)
        assert alone.logits.shape[1] == 19 and alone.boundary is None
        network(torch.randn(1, 3, 75, 101), heads=False)  # any size
    if "heads" in node:
        bare = build(node | {"heads": False}, path="network")
        assert len(bare.state_dict()) < len(network.state_dict())
        assert set(bare.state_dict()) < set(network.state_dict())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_builds_and_learns(name: str) -> None:
    require_extra(name)
    node = slim(tree_with("network", name)["network"]) | {"classes": 19}
    torch.manual_seed(0)
    network = awake(build(node, path="network"))
    side = 32 if name in ZOO else 64
    output = network(torch.randn(2, 3, side, side))
    assert tuple(output.shape) == (2, 19)
    check_gradients(network, output)
    for path in class_layers(network):
        assert network.get_submodule(path) is not None


@pytest.mark.parametrize("name", ZOO)
def test_every_network_of_small_pictures_says_where_to_tap_it(name: str) -> None:
    with torch.device("meta"):
        network = build(tree_with("network", name)["network"], path="network")
    assert len(network.pre_activation_taps) == len(network.tap_norms) == len(network.taps) >= 3
    for path in (*network.taps, network.stem_tap, network.pooled_tap, *network.pre_activation_taps):
        assert network.get_submodule(path.removesuffix(":in")) is not None
    for path in network.tap_norms:
        assert path is None or isinstance(network.get_submodule(path), nn.BatchNorm2d)
    assert class_layers(network) == (network.pooled_tap.removesuffix(":in"),)
    assert not any(getattr(module, "inplace", False) for module in network.modules())


@pytest.mark.parametrize("name", POSE_NETWORKS)
def test_every_pose_network_builds_and_learns(name: str) -> None:
    require_extra(name)
    network = build(slim(tree_with("network", name)["network"]) | {"joints": 5}, path="network")
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)  # the published start is too small for a gradient to be seen
    awake(network)
    side = network.multiple
    output = network(torch.randn(2, 3, 2 * side, 3 * side))
    assert tuple(output.shape) == (2, 5, 2 * side // network.stride, 3 * side // network.stride)
    check_gradients(network, output)
    for path in (*network.taps, *network.classifier):
        assert network.get_submodule(path) is not None


@pytest.mark.parametrize("name", LANDMARKERS)
def test_every_landmark_network_builds_and_learns(name: str) -> None:
    require_extra(name)
    node = tree_with("network", name)["network"]
    pfld = {"width": 0.25, "size": 64} if "width" in node else {}
    node |= {"landmarks": 5, **pfld}
    torch.manual_seed(0)
    network = awake(build(node, path="network"))
    output = network(torch.rand(4, 3, 64, 64))  # in training: with the angles of the head
    assert isinstance(output, LandmarkOutput) and tuple(output.points.shape) == (4, 5, 2)
    assert output.angles is not None and tuple(output.angles.shape) == (4, 3)
    check_gradients(network, torch.cat([output.points.flatten(), output.angles.flatten()]))
    for path in (*network.taps, *network.classifier):
        assert network.get_submodule(path) is not None
    assert network.eval()(torch.rand(1, 3, 64, 64)).angles is None


@pytest.mark.parametrize("name", sorted(set(GROUPS["distill"]) - {"none"}))
def test_every_method_states_the_same_options(name: str) -> None:
    """One top-level key, its own name, so that several compose; weight, taps and times beside the method."""
    whole = tree_with("distill", name)
    node = whole["distill"]
    assert list(node) == [name]
    assert set(node[name]) - {"task_weight"} == {"weight", "taps", "start", "end", "ramp", "method"}
    rules.check_distillation(whole)
    kind = build(node[name]["method"], path=f"distill.{name}.method").func
    assert issubclass(kind, Method) and set(kind.reads) <= set(typing.get_args(Kind))
    parameters = inspect.signature(kind).parameters
    assert {"student", "teacher"} <= set(parameters)
    assert all(each.kind is each.KEYWORD_ONLY for each in parameters.values())


def test_methods_compose_as_a_list() -> None:
    chosen = GROUPS["distill"][:2]
    assert list(tree("task=classification", f"distill=[{','.join(chosen)}]")["distill"]) == chosen
    assert list(tree("task=distillation")["distill"]) == ["kd"]


@pytest.mark.parametrize("name", GROUPS["codec"])
@pytest.mark.parametrize("loss", LOSSES["pose"])
def test_every_codec_and_loss_of_pose_answers(name: str, loss: str) -> None:
    codec = build(tree_with("codec", name)["codec"], path="codec")
    objective = build(tree_with("loss", loss)["loss"], path="loss")
    points = torch.rand(3, 17, 2) * 200 - 20
    for labelled in (torch.ones(3, 17), torch.zeros(3, 17), torch.eye(3, 17)):
        target, weight = codec.encode(points, labelled)
        maps = torch.randn(target.shape, requires_grad=True)
        terms = objective(maps, target, weight)
        assert terms and all(term.ndim == 0 and bool(torch.isfinite(term)) for term in terms.values())
        torch.stack(list(terms.values())).sum().backward()
        assert maps.grad is not None and bool(torch.isfinite(maps.grad).all())
    decoded, confidence = codec.decode(target)
    assert decoded.shape == (3, 17, 2) and confidence.shape == (3, 17)


@pytest.mark.parametrize("name", TRANSLATORS)
@pytest.mark.parametrize("data", ["cityscapes_onehot"])
def test_every_translator_takes_its_channels_from_the_data(name: str, data: str) -> None:
    node = tree("task=pix2pix", f"network={name}", f"data={data}")["network"]
    assert node["input_channels"] == 35 and node["output_channels"] == 3


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_every_discriminator_builds_and_learns(name: str) -> None:
    node = tree_with("discriminator", name)["discriminator"] | {"width": 4}
    torch.manual_seed(0)
    judge = build(node, path="discriminator")
    condition, image = torch.randn(2, 3, 64, 48), torch.randn(2, 3, 64, 48)
    scores = judge(judge.join(condition, image))
    assert scores.shape[:2] == (2, 1) and float(scores.detach().abs().max()) > 0
    check_gradients(judge, scores)


@pytest.mark.parametrize("name", LOSSES["segmentation"])
def test_every_loss_of_segmentation_builds_and_answers(name: str) -> None:
    loss = build(tree_with("loss", name)["loss"], path="loss")
    logits = [torch.randn(2, 19, 4, 6, requires_grad=True) for _ in range(5)]
    outlines = torch.randn(2, 1, 4, 6, requires_grad=True)
    output = SegmentationOutput(logits[0], tuple(logits[1:]), outlines)
    target = torch.randint(0, 19, (2, 16, 24), dtype=torch.uint8)
    for labels in (target, target.masked_fill(target < 9, 255), torch.full_like(target, 255)):
        terms = loss(output, labels, (target == 3).to(torch.uint8))
        assert terms and all(term.ndim == 0 and bool(torch.isfinite(term)) for term in terms.values())
        torch.stack(list(terms.values())).sum().backward()
    assert bool(torch.isfinite(logits[0].grad).all())


@pytest.mark.parametrize("name", LOSSES["pix2pix"])
def test_every_loss_of_translation_builds_and_answers(name: str) -> None:
    loss = build(tree_with("loss", name)["loss"], path="loss")
    scores, image = torch.randn(2, 1, 3, 3), torch.rand(2, 3, 8, 8)
    terms = loss.generator_terms(scores, image, image.flip(0)) | loss.discriminator_terms(scores, -scores)
    assert all(term.ndim == 0 and bool(torch.isfinite(term)) for term in terms.values())


@pytest.mark.parametrize("name", GROUPS["optim"])
def test_every_optimiser_builds_and_steps(name: str) -> None:
    node = tree_with("optim", name)["optim"]
    parameter = nn.Parameter(torch.ones(3))
    optimizer = build(node, path="optim")([parameter])
    parameter.grad = torch.ones(3)
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == node["lr"] and bool((parameter < 1).all())


@pytest.mark.parametrize("name", GROUPS["schedule"])
def test_every_schedule_builds(name: str) -> None:
    schedule = build(tree_with("schedule", name)["schedule"], path="schedule")
    assert isinstance(schedule, Schedule)
    assert schedule.factor(0, steps_per_epoch=10, total_steps=1000) == 1.0


@pytest.mark.parametrize("name", CROPS)
def test_every_crop_runs(name: str) -> None:
    import numpy as np

    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    points = np.array([[10, 20], [30, 40]], np.float32)
    sample = {
        "photo": photo,
        "keypoints": points,
        "labelled": np.array([1, 0]),
        "box": np.array([5, 6, 40, 50]),
    }
    node = tree_with("transform", name)["transform"]
    for part in ("train", "eval"):
        item = build(node[part], path=f"transform.{part}")(sample | {"index": 0, "name": "x"}, 1)
        assert list(item["image"].shape) == [3, *node["size"]]
        assert item["keypoints"].shape == (2, 2) and item["weight"].tolist() == [1, 0]


@pytest.mark.parametrize("name", sorted(set(GROUPS["transform"]) - {*CROPS, *OBJECT_TRANSFORMS}))
def test_every_transform_runs(name: str) -> None:
    import numpy as np

    from dvsn.data.transforms import Pair, Transform

    node = tree_with("transform", name)["transform"]
    random = np.random.default_rng(0)
    photo = random.integers(0, 256, (300, 600, 3), dtype=np.uint8)
    colours = np.array([[10, 20, 30], [200, 100, 0]], dtype=np.uint8)
    label = colours[random.integers(0, 2, (300, 600))]
    for part in ("train", "eval"):
        steps = build(node[part], path=f"transform.{part}")
        transform = Transform(steps=steps, pair=Pair())
        sample = {
            "photo": photo,
            "label": label,
            "index": 0,
            "name": "x",
            "kinds": {"photo": "photo", "label": "label"},
        }
        result = transform(sample, 1)
        size = (node["crop_height"], node["crop_width"]) if node[part] else (300, 600)
        assert tuple(result["image"].shape[1:]) == tuple(result["target"].shape[1:]) == size
        padding = (255, 255, 255)  # of labels: ignored
        found = result["image"].flatten(1).unique(dim=1).T.tolist()
        assert {tuple(c) for c in found} <= {*(tuple(c) for c in colours.tolist()), padding}


@pytest.mark.parametrize("name", GROUPS["data"])
def test_every_data_module_builds_without_the_disk(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    node = tree_with("data", name)
    data = node["data"]
    if (data["keypoints"] or {}).get("names") == "???":  # of a set of your own, which says them
        data |= {"joints": 1, "keypoints": data["keypoints"] | {"names": ["tip"]}}
    if (data["objects"] or {}).get("names") == "???":
        data |= {"object_classes": 2, "objects": data["objects"] | {"names": {1: "nut"}, "classes": 2}}
    if name == "shards":  # their index says it
        counts = dict.fromkeys(("input_channels", "output_channels", "label_classes", "classes", "joints"), 3)
        kept = {key: data[key] for key in ("pair", "facts") if data[key]}
        usual = {key: {"_target_": each["_target_"]} for key, each in kept.items()}
        data |= counts | {"label_classes": 0, "joints": 0, "keypoints": None} | usual
        data["dataset"]["labels"] = "classes"
        data["splits"] = dict.fromkeys(data["splits"], "train")
    module = runtime.build_data(node)
    assert isinstance(module, pl.LightningDataModule) and set(module.splits) == {"train", "val", "test"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", GROUPS["callbacks"])
def test_every_callback_builds(name: str) -> None:
    built = build(tree_with("callbacks", name)["callbacks"], path="callbacks")
    assert all(isinstance(item, pl.Callback) for item in built.values())


@pytest.mark.parametrize("name", GROUPS["logger"])
def test_every_logger_builds(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no netrc
    monkeypatch.setenv("WANDB_MODE", "disabled")
    package = {"mlflow": "mlflow", "comet": "comet_ml"}.get(name)
    config = composed(["task=pix2pix", f"logger={name}"], tmp_path)
    if package and importlib.util.find_spec(package) is None:
        with pytest.raises(ConfigError, match=rf"logger\.{name}: .* pip install 'dvsn\[{name}\]'"):
            build_loggers(config)
        return
    monkeypatch.chdir(tmp_path)
    loggers = build_loggers(config)
    kinds = {type(logger).__name__ for logger in loggers}
    expected = {
        "csv": {"CsvLogger"}, "none": set(), "tensorboard": {"CsvLogger", "TensorBoardLogger"},
        "wandb": {"CsvLogger", "WandbLogger"}, "wandb_offline": {"CsvLogger", "WandbLogger"},
        "mlflow": {"CsvLogger", "MLFlowLogger"}, "comet": {"CsvLogger", "CometLogger"},
    }  # fmt: skip
    assert kinds == expected[name]
    for logger in loggers:
        if type(logger).__name__ == "WandbLogger":
            assert logger._offline  # without a key nothing is sent


class Stub(Task):
    """A task that is not trained."""

    def __init__(self) -> None:
        super().__init__(optim=torch.optim.SGD)
        self.layer = nn.Conv2d(3, 3, 1)

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"layer": self.layer}


@pytest.mark.parametrize("name", GROUPS["trainer"])
def test_every_trainer_profile_builds(name: str, tmp_path: Path) -> None:
    options = [f"trainer={name}", "logger=none", "trainer.accelerator=cpu", "trainer.devices=1"]
    node = composed(["task=pix2pix", *options], tmp_path)
    trainer = runtime.build_trainer(node, Stub())
    assert isinstance(trainer, pl.Trainer) and trainer.num_devices == 1
    usual = tree_with("trainer", "default")["trainer"]
    assert set(node["trainer"]) == set(usual), "profiles change values, never names"


@pytest.mark.parametrize("name", GROUPS["debug"])
def test_every_debug_option_builds_its_trainer(name: str, tmp_path: Path) -> None:
    node = composed([*TINY, f"debug='{name}'"], tmp_path)
    assert node["debug"]["traceback"] is (name != "none")
    assert isinstance(runtime.build_trainer(node, Stub()), pl.Trainer)
    runtime.build_data(node)


@pytest.mark.parametrize(("name", "task"), EXPERIMENTS)
def test_every_experiment_builds_its_task(name: str, task: str) -> None:
    node = tree_with("experiment", name)
    rules.validate(node)
    check_partners(node)
    assert node["task"]["_target_"].startswith(f"dvsn.tasks.{task.partition('_')[0]}.")
    for key in ("network", "discriminator"):  # the real ones are built above
        if isinstance(node["task"].get(key), dict):
            node["task"][key] = slim(node["task"][key])
    data, built = runtime.build_data(node), runtime.make_task(node)
    built.ask_data(data)
    assert built.recipe == node["task"] and data.batch_size >= 1
    assert node["monitor"]["name"].startswith("val/")


@pytest.mark.parametrize("task", GROUPS["task"])
def test_every_task_composes_alone(task: str) -> None:
    """Its YAML chooses whatever it needs; nothing else has to be said."""
    node = tree_with("task", task)
    for group in ("network", "transform", "data", "optim", "schedule"):
        assert node[group], group
    assert node.get("loss") or task == "detection"  # torchvision's detectors bring their own
