"""Methods that change the student: SimKD, NORM and DWPose's second stage, from their formulas to what is shipped."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dvsn
from dvsn import train
from dvsn.config.build import build
from dvsn.distill import taps
from dvsn.distill.dwpose_head import HeadOnly
from dvsn.distill.joints import steps
from dvsn.distill.method import Joint, Method, Side
from dvsn.distill.norm import ManyToOne
from dvsn.distill.simkd import ReusedClassifier
from dvsn.engine import methods as making
from dvsn.engine import rehearsal, teaching
from dvsn.engine import trainer as runtime
from dvsn.errors import CheckpointError, ConfigError
from dvsn.networks.graft import Graft, Grafted, LinearPair, Projector, shipped
from dvsn.tasks.parameters import parameter_groups
from dvsn.weights import read_checkpoint
from tests.support.distill_stubs import Hint, Soft, distilled, fit, node, prepare, save_teacher
from tests.support.distilling import assert_equals, node_of, sides, views
from tests.support.resuming import Died, Dies, equal
from tests.support.tiny import composed

pytestmark = pytest.mark.usefixtures("stubs")

ZOO = ["resnet8", "resnet8x4", "wrn_16_1", "vgg8", "mobilenetv2_half", "shufflenet_v1", "shufflenet_v2"]


@pytest.fixture(scope="module")
def teacher_of(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A checkpoint of a network that was not trained, by name and further options."""

    @functools.cache
    def make(network: str, *more: str) -> Path:
        folder = tmp_path_factory.mktemp("teacher")
        config = distilled(blobs, folder, None, {}, f"network={network}", *more)
        return save_teacher(config, folder / "teacher.ckpt")

    return make


@functools.cache
def network_of(name: str, classes: int = 100) -> nn.Module:
    tree = composed(["task=classification", f"network={name}", f"data.classes={classes}"], Path("runs/test"))
    torch.manual_seed(0)
    network = build(tree["network"], path="network")
    awaken(network)
    return network.eval()


def awaken(network: nn.Module) -> None:
    """Norms that are no identities, as training leaves them."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)


def side_of(network: nn.Module, role: str, size: int = 32) -> Side:
    """What a dry run finds of a classifier at one tap."""
    forward = functools.partial(network, torch.rand(1, 3, size, size))
    paths = taps.role(network, role)
    seen = taps.probe(network, taps.Taps(network, paths), forward)
    features = tuple(seen.features[path] for path in paths)
    return Side("classes", seen.output, features, joint=taps.joint(network, paths[-1], forward))


def joint(at: str, features: int, classes: int = 5, *, pooled: bool = True, bias: bool = True) -> Joint:
    return Joint(at, "fc", nn.Linear(features, classes, bias=bias), pooled, ())


def given(mine: tuple[int, ...], theirs: tuple[int, ...], **more: Any) -> dict[str, Side]:
    """Sides of two maps; the student's view is what the graft shows."""
    both = sides([mine], [theirs], **more)
    return {
        "student": both["student"]._replace(joint=joint("layer3", mine[0])),
        "teacher": both["teacher"]._replace(joint=joint("layer3", theirs[0])),
    }


def shown(both: dict[str, Side], feature: tuple[int, ...]) -> dict[str, Side]:
    return {**both, "student": both["student"]._replace(features=(feature,))}


# Formulas ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 8])
def test_simkd(size: int) -> None:
    """A larger map of the teacher is averaged in blocks."""
    both = given((6, 4, 4), (10, size, size))
    method = ReusedClassifier(**both)

    def reference(_: Method, student: Any, teacher: Any, __: Any) -> Tensor:
        block = size // 4
        target = teacher.features[0].reshape(3, 10, 4, block, 4, block).mean(dim=(3, 5))
        return ((student.features[0] - target) ** 2).sum() / student.features[0].numel()

    assert_equals(method, reference, *views(shown(both, (10, 4, 4)), 3))
    assert method.change is not None and not list(method.parameters())
    assert method.change.node["middle"] == 5 and method.change.node["pool"] == [1, 1]


@pytest.mark.parametrize(("size", "answer_weight"), [(4, 0.9), (8, 0.9), (4, 0.0)])
def test_norm(size: int, answer_weight: float) -> None:
    both = given((6, 4, 4), (3, size, size))
    method = ManyToOne(**both, segments=4, feature_weight=2.0, answer_weight=answer_weight)

    def reference(_: Method, student: Any, teacher: Any, __: Any) -> Tensor:
        block = size // 4
        target = teacher.features[0].reshape(2, 3, 4, block, 4, block).amax(dim=(3, 5))
        total = torch.zeros((), dtype=target.dtype)
        for n in range(4):
            total = total + 2.0 * ((student.features[0][:, 3 * n : 3 * n + 3] - target) ** 2).mean()
        mine, theirs = (
            2.5 * (z - z.mean(1, keepdim=True)) / (z.var(1, unbiased=False, keepdim=True) + 1e-7).sqrt()
            for z in (student.output, teacher.output)
        )
        p, q = (theirs / 4).softmax(1), (mine / 4).softmax(1)
        return total + answer_weight * 16 * (p * (p / q).log()).sum() / len(p)

    assert_equals(method, reference, *views(shown(both, (12, 4, 4)), 2))
    assert method.change is not None and method.change.node["width"] == 12 and method.change.tap == "expand"


@pytest.mark.parametrize(
    ("kind", "output", "sharpness"), [("heatmaps", (5, 4, 3), 10.0), ("pixels", (5, 4, 3), 1.0), ("classes", (5,), 1.0)]
)  # fmt: skip
def test_dwpose_head(kind: Any, output: tuple[int, ...], sharpness: float) -> None:
    both = sides([], [], kind=kind, outputs=(output, output))
    method = HeadOnly(**both)

    def reference(_: Method, student: Any, teacher: Any, __: Any) -> Tensor:
        mine, theirs = sharpness * student.output, sharpness * teacher.output
        if kind == "heatmaps":
            mine, theirs = mine.reshape(10, 12), theirs.reshape(10, 12)  # a keypoint's map is a distribution
        elif kind == "pixels":
            mine, theirs = (each.permute(0, 2, 3, 1).reshape(24, 5) for each in (mine, theirs))
        p, q = theirs.softmax(1), mine.softmax(1)
        return (p * (p.log() - q.log())).sum() / len(p)

    assert_equals(method, reference, *views(both, 2, scale=0.3))
    assert method.only == () and method.share == 0.2


def test_the_projector_by_hand() -> None:
    """Value and gradient in float64, in training and in evaluation, with a map that is averaged first."""
    torch.manual_seed(0)
    graft = Projector(at="a", head="b", inputs=3, middle=4, outputs=6, classes=2, pool=(2, 1)).double()
    awaken(graft)
    layers = list(graft.layers)
    for training in (True, False):
        graft.train(training)
        x = torch.randn(2, 3, 8, 4, dtype=torch.float64, requires_grad=True)
        y = (x[:, :, 0::2] + x[:, :, 1::2]) / 2
        for number, padding in ((0, 0), (3, 1), (6, 0)):
            convolution, norm = layers[number], layers[number + 1]
            y = F.conv2d(y, convolution.weight, padding=padding)
            axes = (0, 2, 3)
            mean = y.mean(axes) if training else norm.running_mean.clone()
            variance = y.var(axes, unbiased=False) if training else norm.running_var.clone()
            y = (y - mean.view(1, -1, 1, 1)) / (variance.view(1, -1, 1, 1) + 1e-5).sqrt()
            y = (y * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)).clamp(min=0)
        found = graft(x)
        torch.testing.assert_close(found, y, rtol=1e-10, atol=1e-12)
        upstream = torch.randn_like(y)
        gradients = [torch.autograd.grad((each * upstream).sum(), x)[0] for each in (found, y)]
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-12)
    assert not any(isinstance(layer, nn.Conv2d) and layer.bias is not None for layer in layers)


def test_the_linear_pair_by_hand() -> None:
    torch.manual_seed(0)
    graft = LinearPair(at="a", head="b", channels=3, width=8).double().eval()
    awaken(graft)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)

    def layer(values: Tensor, pair: nn.Module) -> Tensor:
        weight, norm = pair[0].weight[:, :, 0, 0], pair[1]
        y = torch.einsum("oc,nchw->nohw", weight, values)
        scale = norm.weight / (norm.running_var + 1e-5).sqrt()
        return (y - norm.running_mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1) + norm.bias.view(
            1, -1, 1, 1
        )

    expected = x + layer(layer(x, graft.expand), graft.contract)
    torch.testing.assert_close(graft(x), expected, rtol=1e-10, atol=1e-12)
    two, minus = graft(2 * x) - graft(torch.zeros_like(x)), graft(x) - graft(torch.zeros_like(x))
    torch.testing.assert_close(two, 2 * minus, rtol=1e-10, atol=1e-12)  # nothing between is nonlinear


@pytest.mark.parametrize("name", [*ZOO, "resnet50_cifar"])
def test_norm_is_folded_exactly(name: str) -> None:
    """In float64 to 1e-10, into a network that has the keys, shapes and numbers of one without it."""
    plain = copy.deepcopy(network_of(name)).double()
    network = copy.deepcopy(plain)
    (at,), found = taps.role(network, "last_map"), taps.class_layer(network)
    assert found is not None
    channels = side_of(network_of(name), "last_map").features[0][0]
    torch.manual_seed(1)
    LinearPair(at=at, head=found[0], channels=channels, width=24).double().install(network)
    awaken(network.get_submodule(f"{at}.graft"))
    network.eval()
    image = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        before = network(image)
        folded = shipped(network)
        after = folded(image)
    assert (before - plain(image)).abs().max() > 1e-3  # it did something
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)
    assert {key: value.shape for key, value in folded.state_dict().items()} == {
        key: value.shape for key, value in plain.state_dict().items()
    }
    assert isinstance(network.get_submodule(at), Grafted) and not isinstance(
        folded.get_submodule(at), Grafted
    )
    assert torch.equal(network(image), before)  # the network itself is left as it was


COUNTS = {  # the sheet's numbers, measured on the CRD authors' networks
    ("resnet32x4", "resnet8x4"): 214_016,
    ("wrn_40_2", "wrn_16_2"): 53_760,
    ("wrn_40_2", "wrn_40_1"): 49_664,
    ("vgg13", "vgg8"): 854_016,
    ("vgg13", "mobilenetv2_half"): 763_904,
    ("resnet32x4", "shufflenet_v1"): 304_128,
    ("resnet50_cifar", "vgg8"): 12_066_816,
}


@pytest.mark.parametrize("pair", COUNTS, ids="_".join)
def test_the_projector_has_the_published_number_of_parameters(pair: tuple[str, str]) -> None:
    teacher, student = (network_of(name) for name in pair)
    method = ReusedClassifier(student=side_of(student, "last"), teacher=side_of(teacher, "last_map"))
    assert method.change is not None
    graft = build(method.change.node, path="task.graft")
    assert sum(p.numel() for p in graft.parameters()) == COUNTS[pair]
    assert method.change.head is taps.class_layer(teacher)[1]  # type: ignore[index]


@pytest.mark.parametrize("name", ["simkd", "norm"])
def test_features_of_scale_ten_stay_finite_in_half_precision(name: str) -> None:
    both = given((6, 4, 4), (8, 8, 8))
    method: Any = (ReusedClassifier if name == "simkd" else ManyToOne)(**both)
    graft = build(method.change.node, path="task.graft").train()
    raw = (10 * torch.randn(4, 6, 4, 4)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        feature = graft.expand(raw) if name == "norm" else graft(raw)
        answer = (graft(raw).mean((2, 3)))[:, :5] * 10
    student, teacher = views(shown(both, tuple(feature.shape[1:])), 4, scale=10.0)
    student = student._replace(output=answer, features=(feature,))
    with torch.autocast("cpu", torch.bfloat16):
        terms = method(
            student,
            teacher._replace(output=teacher.output.float(), features=(teacher.features[0].float(),)),
            {},
        )
    total = torch.stack(list(terms.values())).sum()
    assert total.dtype == torch.float32 and torch.isfinite(total)
    total.backward()
    assert raw.grad is not None and torch.isfinite(raw.grad).all() and raw.grad.abs().max() > 0


def test_sizes_that_divide() -> None:
    assert steps("x", (3, 8, 4), (5, 4, 8)) == ((2, 1), (1, 2))
    assert steps("x", (3, 1, 1), (5, 1, 1)) == ((1, 1), (1, 1))
    with pytest.raises(ConfigError, match=r"maps are 6 x 6 of the student and 4 x 4 of the teacher"):
        steps("x", (3, 6, 6), (5, 4, 4))


# The joint --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ZOO, "resnet50_cifar"])
def test_the_last_map_of_the_zoo_is_what_its_class_layer_averages(name: str) -> None:
    found = side_of(network_of(name), "last_map").joint
    assert found is not None and found.pooled and found.between == ()
    last = side_of(network_of(name), "last").joint
    assert last is not None
    expected = {"wrn_16_1": ("bn1",), "mobilenetv2_half": ("conv2",), "shufflenet_v2": ("conv2", "bn2")}
    assert last.between == expected.get(name, ()) and last.pooled == (not last.between)


@pytest.mark.parametrize(
    ("name", "pooled"), [("resnet18", True), ("mobilenet_v2", True), ("shufflenet_v2_x0_5", True), ("regnet_y_400mf", True),
                         ("mobilenet_v3_small", False), ("convnext_tiny", False)]
)  # fmt: skip
def test_torchvision_models_are_judged_by_what_they_compute(name: str, pooled: bool) -> None:
    torch.manual_seed(0)
    network = build(
        {
            "_target_": "dvsn.networks.torchvision_classifier.TorchvisionClassifier",
            "classes": 3,
            "name": name,
        },
        path="network",
    ).eval()
    found = side_of(network, "last_map", 64).joint
    assert found is not None and found.pooled is pooled


def test_without_a_linear_class_layer_there_is_no_joint() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 2, 1), nn.Flatten())
    assert taps.joint(network, "0", lambda: network(torch.rand(1, 3, 4, 4))) is None


# A run ------------------------------------------------------------------------------------------------


class Watch(pl.Callback):
    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []
        self.modes: list[set[str]] = []

    def on_train_start(self, trainer: Any, task: Any) -> None:
        self.trained = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
        self.states.append({key: value.clone() for key, value in task.state_dict().items()})

    def on_train_batch_end(self, trainer: Any, task: Any, *_: Any) -> None:
        self.states.append({key: value.clone() for key, value in task.state_dict().items()})
        self.modes.append({path for path, module in task.network.named_modules() if module.training})


def test_simkd_ships_projector_and_the_teachers_classifier(
    blobs: Path, teacher_of: Any, tmp_path: Path
) -> None:
    path = tmp_path / "teacher.ckpt"
    path.write_bytes(teacher_of("resnet14").read_bytes())
    watch = Watch()
    config = distilled(
        blobs, tmp_path / "run", str(path), {"simkd": node_of("simkd")}, "optim=sgd", "optim.weight_decay=0.1"
    )
    task, trainer, saved = fit(config, watch)
    path.unlink()
    logged = {name for name in trainer.callback_metrics if name.startswith("train/")}
    assert logged == {"train/simkd"}
    head = {key: value for key, value in saved["state_dict"].items() if key.startswith("network.fc.")}
    original = torch.load(teacher_of("resnet14"), weights_only=True)["state_dict"]
    assert set(head) == {"network.fc.weight", "network.fc.bias"}
    assert all(
        torch.equal(value, original[key]) for key, value in head.items()
    )  # neither trained nor decayed
    trained = {name for name, p in task.network.named_parameters() if id(p) in watch.trained}
    assert trained == {name for name, _ in task.network.named_parameters()} - {"fc.weight", "fc.bias"}
    first, last = watch.states[0], watch.states[-1]
    moved = {key for key in first if not torch.equal(first[key], last[key])}
    norms = {f"network.{name}" for name, _ in task.network.named_buffers()}
    assert {f"network.{name}" for name in trained} | norms == moved - {"network.fc.weight", "network.fc.bias"}
    assert all(modes == {path for path, _ in task.network.named_modules()} for modes in watch.modes)

    loaded = dvsn.load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(loaded(image), task.eval()(image))
        assert torch.equal(loaded.deployable()(image), loaded(image))
        features = loaded.network.layer3(loaded.network.layer2(loaded.network.layer1(
            loaded.network.relu(loaded.network.bn1(loaded.network.conv1(loaded.normalise(image))))
        )))  # fmt: skip
        expected = F.linear(features.mean((2, 3)), original["network.fc.weight"], original["network.fc.bias"])
        torch.testing.assert_close(loaded(image), expected)
    assert saved["dvsn"]["recipe"]["graft"]["_target_"] == "dvsn.networks.graft.Projector"
    assert "teacher" not in str(sorted(saved["dvsn"]))
    assert "graft" not in config["task"]  # what the user wrote stays as it was


def test_norm_is_trained_in_place_and_shipped_without_a_trace(
    blobs: Path, teacher_of: Any, tmp_path: Path
) -> None:
    config = distilled(blobs, tmp_path, str(teacher_of("resnet14")), {"norm": node_of("norm")})
    task, trainer, _ = fit(config)
    logged = {name for name in trainer.callback_metrics if name.startswith("train/")}
    assert logged == {"train/cross_entropy", "train/norm_features", "train/norm_answers"}
    loaded = dvsn.load(tmp_path / "checkpoints" / "last.ckpt")
    assert isinstance(loaded.network.layer3.graft, LinearPair)
    plain = runtime.make_task(distilled(blobs, tmp_path, None, {})).deployable()
    ready = loaded.deployable()
    assert {k: v.shape for k, v in ready.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(ready(image), loaded(image), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(loaded(image), task.eval()(image))


@pytest.mark.parametrize("methods", [("simkd",), ("norm",), ("dwpose_head",), ("simkd", "at")], ids="+".join)
def test_it_resumes_with_the_same_bits(
    methods: tuple[str, ...], blobs: Path, teacher_of: Any, tmp_path: Path
) -> None:
    """Killed within an epoch and between two, with a moving average."""
    nodes = {name: node_of(name) for name in methods}
    if "dwpose_head" in nodes:
        nodes["dwpose_head"]["method"]["schedule_share"] = 1.0
    teacher = str(teacher_of("resnet8" if "dwpose_head" in nodes else "resnet14"))
    more = ("trainer.max_epochs=3", "checkpoint.every_n_steps=1", "ema=0.9")
    whole = fit(distilled(blobs, tmp_path / "whole", teacher, nodes, *more))[2]
    broken = distilled(blobs, tmp_path / "broken", teacher, nodes, *more)
    for step in (1, 3):
        with pytest.raises(Died):
            fit(broken, Dies(step))
    resumed = fit(broken)[2]
    assert "current_model_state" in whole
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "current_model_state", "dvsn"):
        assert equal(whole.get(key), resumed.get(key)), key
    dvsn.load(tmp_path / "broken" / "checkpoints" / "last.ckpt")  # the average


@pytest.mark.parametrize("student", ZOO)
@pytest.mark.parametrize("method", ["simkd", "norm"])
def test_every_student_of_the_zoo_can_be_changed(
    method: str, student: str, blobs: Path, teacher_of: Any, tmp_path: Path
) -> None:
    """And answers with the reused classifier on the average of the projected map; the checkpoint rebuilds it."""
    config = distilled(
        blobs, tmp_path, str(teacher_of("wrn_16_2")), {method: node_of(method)}, f"network={student}"
    )
    task, data = prepare(config)
    task.eval()
    (path,) = task.distiller.parts[method].student
    batch = rehearsal.sample(data)
    recorder = taps.Taps(task.network, [path])
    recorder.install()
    with recorder, torch.no_grad():
        output = task(batch["image"])
    feature = recorder.take()[path]
    recorder.remove()
    if method == "simkd":
        original = torch.load(teacher_of("wrn_16_2"), weights_only=True)["state_dict"]
        expected = F.linear(feature.mean((2, 3)), original["network.fc.weight"], original["network.fc.bias"])
        torch.testing.assert_close(output, expected)
    else:
        assert feature.shape[1] == 8 * 128
    again = runtime.build_task({**task.recipe}, data=config["data"])
    assert list(again.state_dict()) == list(dict(task.state_dict()))[: len(again.state_dict())]
    again.load_state_dict({k: v for k, v in task.state_dict().items() if not k.startswith("distiller.")})
    with torch.no_grad():
        assert torch.equal(again.eval()(batch["image"]), output)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [("resnet18", "mobilenet_v2"), pytest.param("mobilenet_v2", "resnet18", marks=pytest.mark.slow)],
)
def test_torchvision_models_by_name(
    student: str, teacher: str, blobs: Path, teacher_of: Any, tmp_path: Path
) -> None:
    path = teacher_of("torchvision", f"network.name={teacher}")
    for method in ("simkd", "norm"):
        config = distilled(
            blobs,
            tmp_path,
            str(path),
            {method: node_of(method)},
            "network=torchvision",
            f"network.name={student}",
        )
        task, _ = prepare(config)
        assert any(isinstance(module, Graft) for module in task.network.modules())


@pytest.mark.slow
def test_what_is_shipped_can_be_exported(blobs: Path, teacher_of: Any, tmp_path: Path) -> None:
    """As a graph, with the answers of the network; as ONNX where that is installed."""
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    for method in ("simkd", "norm"):
        config = distilled(blobs, tmp_path / method, str(teacher_of("resnet14")), {method: node_of(method)})
        task, _ = prepare(config)
        ready = task.eval().deployable()
        graph = torch.export.export(ready, (image,)).module()
        with torch.no_grad():
            expected = task(image)
            torch.testing.assert_close(graph(image), expected, rtol=1e-4, atol=1e-5)
        if all(map(importable, ("onnx", "onnxscript", "onnxruntime"))):
            from dvsn.benchmark.levers import onnxruntime

            torch.testing.assert_close(onnxruntime(ready, image)(image), expected, rtol=1e-3, atol=1e-4)


def importable(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def test_the_run_says_what_the_student_will_cost(
    blobs: Path, teacher_of: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from dvsn.report.command import report

    caplog.set_level("INFO")
    for name, methods in (("alone", {}), ("simkd", {"simkd": node_of("simkd")})):
        teacher = str(teacher_of("resnet14")) if methods else None
        config = distilled(blobs, tmp_path / name, teacher, methods, "trainer.max_epochs=1")
        train.train(config)
    projector, head, plain = 64 * 32 + 32 * 32 * 9 + 32 * 64 + 2 * (32 + 32 + 64), 64 * 3 + 3, 77_587
    assert (
        f"graft       simkd: {projector:,} parameters behind layer3, the teacher's class layer of {head}, which is not "
        f"trained; the shipped student has {plain + projector:,} parameters, {projector:,} more than before"
    ) in caplog.text
    result = json.loads((tmp_path / "simkd" / "result.json").read_text())
    assert result["parameters"] == plain + projector
    shown = report(tmp_path)
    assert (
        f"Parameters as shipped: simkd {plain + projector:,}" in shown or f"student alone {plain:,}" in shown
    )


# Together with other methods --------------------------------------------------------------------------


def test_other_methods_see_the_students_own_modules(blobs: Path, teacher_of: Any, tmp_path: Path) -> None:
    methods = {"simkd": node_of("simkd"), "hint": node(Hint, taps="stages"), "soft": node(Soft)}
    task, data = prepare(distilled(blobs, tmp_path, str(teacher_of("resnet14")), methods))
    task.distiller.begin("cpu")
    task.train()
    seen: dict[str, Tensor] = {}
    task.network.layer3.base.register_forward_hook(lambda _, __, out: seen.update(base=out))
    task.network.layer3.register_forward_hook(lambda _, __, out: seen.update(projected=out))
    terms = task.learn(rehearsal.sample(data) | {"index": torch.tensor([0])})
    assert {"simkd", "hint", "soft_near", "soft_far"} == set(terms)
    task.distiller.taps.active = True
    views = task.distiller._pending[0]
    assert torch.equal(views["hint"][0].features[2], seen["base"].float())
    assert torch.equal(views["simkd"][0].features[0], seen["projected"].float())


def test_a_tap_that_the_student_no_longer_has_is_refused(
    blobs: Path, teacher_of: Any, tmp_path: Path
) -> None:
    methods = {"hint": node(Hint, taps=[["conv2.0", "layer3"]]), "simkd": node_of("simkd")}
    config = distilled(blobs, tmp_path, str(teacher_of("resnet14")), methods, "network=mobilenetv2_half")
    with pytest.raises(
        ConfigError,
        match=r"distill\.hint\.taps: 'conv2\.0' is not in the student that simkd makes.*blocks\.6",
    ):
        prepare(config)


def test_weights_are_loaded_before_the_graft(blobs: Path, teacher_of: Any, tmp_path: Path) -> None:
    config = distilled(
        blobs, tmp_path, str(teacher_of("resnet14")), {"simkd": node_of("simkd")}, "trainer.max_epochs=1", "optim.lr=0.0",
        "optim=sgd",
    )  # fmt: skip
    config["weights"] = str(teacher_of("resnet8"))
    train.train(config)
    trained = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["state_dict"]
    start = read_checkpoint(teacher_of("resnet8"))["state_dict"]
    assert torch.equal(trained["network.layer3.base.0.conv1.weight"], start["network.layer3.0.conv1.weight"])


# Refused ----------------------------------------------------------------------------------------------


def refused(
    blobs: Path, folder: Path, teacher: Path, methods: dict[str, Any], match: str, *more: str
) -> None:
    with pytest.raises(ConfigError, match=match) as error:
        prepare(distilled(blobs, folder, str(teacher), methods, *more))
    assert "\n" not in str(error.value)


def test_what_cannot_be_grafted_is_refused_with_what_fits(
    blobs: Path, teacher_of: Any, tmp_path: Path
) -> None:
    simkd, norm, small = node_of("simkd"), node_of("norm"), teacher_of("resnet14")
    go = functools.partial(refused, blobs, tmp_path)
    go(small, {"simkd": simkd, "norm": norm}, r"distill: each of simkd, norm changes the student")
    go(small, {"simkd": simkd, "dwpose_head": node_of("dwpose_head")}, r"each of dwpose_head, simkd changes")
    v3 = teacher_of("torchvision", "network.name=mobilenet_v3_small")
    go(
        v3,
        {"simkd": simkd},
        r"'model\.features\.12' of the teacher is not what its class layer 'model\.classifier\.3' reads",
    )
    deep = ("network=torchvision", "network.name=mobilenet_v3_small")
    go(
        small,
        {"norm": norm},
        r"the class layer 'model\.classifier\.3' of the student does not read the average",
        *deep,
    )
    go(small, {"simkd": simkd}, r"behind 'model\.features\.\d+' of TorchvisionClassifier.*resnet8x4", *deep)
    squeeze = ("network=torchvision", "network.name=squeezenet1_1")
    go(small, {"simkd": simkd}, r"the student names no class layer that is linear.*shufflenet_v2", *squeeze)
    go(small, {"simkd": {**simkd, "taps": None}}, r"distill\.simkd\.taps: found 0")
    go(small, {"simkd": {**simkd, "taps": "pooled"}}, r"simkd compares maps")
    go(
        small,
        {"simkd": {**simkd, "taps": [["layer3.0.relu:in", "layer3"]]}},
        r"an input; expected a module's answer",
    )
    go(small, {"simkd": {**simkd, "taps": [["stages", "layer3"]]}}, r"'stages' are 3 taps of CifarResNet")
    factor = {**simkd, "method": {**simkd["method"], "factor": 3}}
    go(
        small,
        {"simkd": factor},
        r"distill\.simkd\.method\.factor: found 3, expected a whole number that divides the 64",
    )
    go(
        small,
        {"simkd": simkd},
        r"the maps are 8 x 8 of the student and 3 x 3 of the teacher",
        "distillation.size=[12,12]",
    )
    segments = {**norm, "method": {**norm["method"], "segments": 0}}
    go(small, {"norm": segments}, r"distill\.norm\.method\.segments: found 0")


def test_a_class_layer_without_bias_cannot_take_norm() -> None:
    both = given((6, 4, 4), (3, 4, 4))
    both["student"] = both["student"]._replace(joint=joint("layer3", 6, bias=False))
    with pytest.raises(ConfigError, match="has no bias to fold into"):
        ManyToOne(**both)


@pytest.mark.parametrize("method", ["simkd", "norm"])
def test_other_tasks_are_told_what_fits_them(method: str) -> None:
    kind = making.method_class(node_of(method), method)
    with pytest.raises(
        ConfigError,
        match=r"reads classes, and this task answers with heatmaps\. Methods that fit: .*dwpose_head",
    ):
        making.require_reads(method, kind, "heatmaps")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"at": "layer9"}, r"graft\.at: CifarResNet has no module 'layer9'\. Did you mean 'layer"),
        ({"head": "layer1"}, r"graft\.head: 'layer1' is a Sequential, expected the linear class layer"),
        ({"without": ["nothing"]}, r"graft\.without: CifarResNet has no module 'nothing'"),
        ({"_target_": "torch.nn.Linear"}, r"graft\._target_: 'torch\.nn\.Linear' is not allowed here"),
        ({"_target_": "dvsn.networks.graft.Grafted"}, r"not a subclass of dvsn\.networks\.graft\.Graft"),
        ({"_target_": None}, r"expected the dotted name of a class"),
    ],
)
def test_a_checkpoint_with_a_false_graft_is_refused(
    change: dict[str, Any], message: str, blobs: Path, teacher_of: Any, tmp_path: Path
) -> None:
    task, _ = prepare(distilled(blobs, tmp_path, str(teacher_of("resnet14")), {"simkd": node_of("simkd")}))
    content: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(content)
    content["dvsn"]["recipe"]["graft"] |= change
    torch.save(content, tmp_path / "false.ckpt")
    with pytest.raises(CheckpointError, match=message):
        dvsn.load(tmp_path / "false.ckpt")


# DWPose's second stage --------------------------------------------------------------------------------


def test_only_a_new_head_is_trained(
    blobs: Path, teacher_of: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The trunk is the teacher's, its batch norms too, through training with a validation in between."""
    watch, path = Watch(), teacher_of("resnet8")
    part = node_of("dwpose_head")
    part["method"]["schedule_share"] = 0.5
    config = distilled(blobs, tmp_path, str(path), {"dwpose_head": part}, "trainer.max_epochs=4", "seed=5")
    task, trainer, _ = fit(config, watch)
    old = read_checkpoint(path)["state_dict"]
    fresh = runtime.make_task(config).state_dict()
    first, last = watch.states[0], watch.states[-1]
    assert trainer.current_epoch == 2 and len(watch.modes) == 4
    for key, value in old.items():
        if key.startswith("network.fc."):
            assert torch.equal(first[key], fresh[key]) and not torch.equal(first[key], value)
            assert not torch.equal(last[key], first[key])
        else:
            assert torch.equal(first[key], value) and torch.equal(last[key], value), key
    assert watch.trained == {id(p) for p in task.network.fc.parameters()}
    assert all(modes == {"fc"} for modes in watch.modes)
    assert {n for n in trainer.callback_metrics if n.startswith("train/")} == {"train/dwpose_head"}
    (line,) = [text for title, text in teaching.describe(task.distiller) if title == "head"]
    assert line == (
        "dwpose_head: fc anew and trained alone, 195 of 77,587 parameters; the rest is the teacher's, frozen and in eval "
        "mode; 0.5 of trainer.max_epochs and of the schedule"
    )
    assert dvsn.load(tmp_path / "checkpoints" / "last.ckpt").distiller is None


def test_the_schedule_shrinks_with_the_epochs(blobs: Path, teacher_of: Any, tmp_path: Path) -> None:
    """Of ten epochs with a step at the fifth, a fifth is two with a step at the first."""

    class Rates(pl.Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            self.seen.append(round(trainer.optimizers[0].param_groups[0]["lr"], 6))

    rates = Rates()
    config = distilled(
        blobs, tmp_path, str(teacher_of("resnet8")), {"dwpose_head": node_of("dwpose_head")}, "trainer.max_epochs=10",
        "schedule=step_150_180_210", "schedule.milestones=[5]", "data.batch_size=2",
    )  # fmt: skip
    fit(config, rates)
    assert len(rates.seen) == 12  # two epochs of six batches
    assert rates.seen[:5] == [0.01] * 5 and rates.seen[6:] == [0.001] * 6


def test_a_head_of_several_modules_is_named(blobs: Path, teacher_of: Any, tmp_path: Path) -> None:
    part = node_of("dwpose_head")
    part["method"]["head"] = ["layer3", "fc"]
    task, _ = prepare(distilled(blobs, tmp_path, str(teacher_of("resnet8")), {"dwpose_head": part}))
    trained = {name for name, p in task.network.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in task.network.named_parameters() if n.startswith(("layer3.", "fc."))}
    groups = parameter_groups(task.network, torch.optim.SGD)
    assert {id(p) for group in groups for p in group["params"]} == {
        id(p) for p in task.network.parameters() if p.requires_grad
    }


def test_a_head_alone_needs_the_students_own_checkpoint(blobs: Path, teacher_of: Any, tmp_path: Path) -> None:
    part, own = node_of("dwpose_head"), teacher_of("resnet8")
    go = functools.partial(refused, blobs, tmp_path)
    go(
        teacher_of("resnet14"),
        {"dwpose_head": part},
        r"the teacher must be the student as it was trained before.*differences",
    )
    go(
        own,
        {"dwpose_head": part},
        "the teacher sees pictures otherwise than the student",
        "task.mean=[0.1,0.2,0.3]",
    )
    wrong = {**part, "method": {**part["method"], "head": ["fx"]}}
    go(
        own,
        {"dwpose_head": wrong},
        r"distill\.dwpose_head\.method\.head: CifarResNet has no module 'fx'\. Did you mean 'fc'",
    )
    empty = {**part, "method": {**part["method"], "head": ["relu"]}}
    go(own, {"dwpose_head": empty}, r"method\.head: .*has no parameters")
    share = {**part, "method": {**part["method"], "schedule_share": 0}}
    go(own, {"dwpose_head": share}, r"schedule_share: found 0")
    config = distilled(blobs, tmp_path, str(own), {"dwpose_head": part})
    train.train({**config, "weights": str(own), "trainer": {**config["trainer"], "max_epochs": 1}})
    other = save_teacher(distilled(blobs, tmp_path, None, {}, "seed=3"), tmp_path / "other.ckpt")
    content = torch.load(other, weights_only=True)
    content["state_dict"]["network.conv1.weight"] += 1
    torch.save(content, other)
    with pytest.raises(
        ConfigError, match=r"weights: is not the checkpoint that teaches: 'conv1\.weight' differs"
    ):
        train.train({**config, "weights": str(other), "run_dir": str(tmp_path / "other")})
