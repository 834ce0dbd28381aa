"""The form in which a teacher teaches: the same answers and maps, the choice, and what stays as it was built."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from dvsn.config import rules
from dvsn.config.build import build
from dvsn.config.menu import conf_dir
from dvsn.distill.deployed import ENGINES, Deployed
from dvsn.distill.taps import Taps, first_tensor, roles
from dvsn.distill.teacher import Teacher
from dvsn.engine import deploying, training
from dvsn.engine.deploying import deploy
from dvsn.errors import CheckpointError, ConfigError
from dvsn.networks.compiling import compile_in_place
from dvsn.networks.folding import fold_batch_norms, relative_error
from dvsn.weights import read_checkpoint
from tests.support.distill_stubs import Hint, Soft, distilled, node, prepare, save_teacher
from tests.support.resuming import equal
from tests.support.tiny import TINY, composed, write_pairs

pytestmark = pytest.mark.usefixtures("stubs")

QUICK = {
    "resnet14": 32, "wrn_16_1": 32, "vgg8": 32, "shufflenet_v2": 32, "mobilenetv2_half": 32, "ddrnet_23_slim": 64,
    "pidnet_s": 64, "hrnet_small": 64, "pfld_025": 112, "bisenetv2": 64,
}  # fmt: skip
"""Networks of `conf/network` and a side of their pictures; the others are looked at where slow tests run."""
SIDES = {"unet": 256, "pfld": 112}
NOT_ASKED = ("detector_small", "torchvision", "hrnetv2p_w18", "hrnetv2p_w32", "hrnetv2p_w40", "hrnetv2p_w48")
"""What does not answer for a tensor of pictures, or with more than a user has installed."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def drawn(network: nn.Module) -> nn.Module:
    """In eval mode, its norms no identities."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(std=0.1)
    return network.eval().requires_grad_(False)


def network_of(name: str) -> nn.Module:
    text = Path(conf_dir(), "network", f"{name}.yaml").read_text(encoding="utf-8")
    for kind, count in {"classes": 5, "joints": 5, "input_channels": 3, "output_channels": 3}.items():
        text = text.replace(f"${{data.{kind}}}", str(count))
    found = build(yaml.safe_load(text), path="network")
    assert isinstance(found, nn.Module)
    return drawn(found)


def seen(body: nn.Module, ask: Any, paths: tuple[str, ...], image: Tensor) -> dict[str, Tensor]:
    taps = Taps(body, paths)
    taps.install()
    with torch.no_grad(), taps:
        output = first_tensor(ask(image))
    assert output is not None
    return {**taps.take(), "": output}


def apart(network: nn.Module, paths: tuple[str, ...], image: Tensor, engine: str = "folded") -> float:
    expected = seen(network, network, paths, image)
    form = Deployed(network, engine, image, paths)
    found = seen(form.network, form, paths, image)
    return max(relative_error(found[name], expected[name]) for name in expected)


# The same answers ------------------------------------------------------------------------------------


def battery() -> list[Any]:
    names = sorted(path.stem for path in Path(conf_dir(), "network").glob("*.yaml"))
    others = [
        name for name in names if name not in QUICK and name not in NOT_ASKED and "detector" not in name
    ]
    return [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in others)]


@pytest.mark.parametrize("name", battery())
def test_a_folded_teacher_answers_the_same(name: str) -> None:
    side = next((side for start, side in SIDES.items() if name.startswith(start)), QUICK.get(name, 64))
    network = network_of(name)
    every = tuple(dict.fromkeys(path for group in roles(network).values() for path in group))
    assert apart(network, every, torch.randn(2, 3, side, side)) < deploying.TOLERANCE


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.second, self.last = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(self.second(F.relu(self.norm(self.first(image))))).mean((2, 3))


@pytest.mark.parametrize(
    ("path", "folded"),
    [
        ("first", 1),
        ("norm:in", 1),
        ("first:in", 2),
        ("last", 2),
        ("second", 1),
        ("last:in", 1),
        ("second:in", 2),
    ],
)
def test_a_tap_between_convolution_and_norm_keeps_the_norm(path: str, folded: int) -> None:
    network, image = drawn(Net()), torch.randn(2, 3, 9, 9)
    assert apart(network, (path,), image) < 1e-6
    found = fold_batch_norms(network, image.shape, (path,))
    assert len(found.folded) == folded and len(found.folded) + len(found.kept) == 2
    if folded == 1:  # without being told, another map would be recorded
        wrong = fold_batch_norms(network, image.shape).network
        one, other = (seen(each, each, (path,), image)[path] for each in (network, wrong))
        assert relative_error(other, one) > 0.01


@pytest.mark.parametrize("engine", ["channels_last", "onnx"])
def test_other_forms_answer_the_same(engine: str) -> None:
    if engine == "onnx":
        pytest.importorskip("onnxruntime")
    network, image = drawn(Net()), torch.randn(2, 3, 9, 9)
    assert apart(network, () if engine == "onnx" else ("norm", "last"), image, engine) < 1e-5
    form = Deployed(network, engine, image)
    torch.testing.assert_close(
        form(image[:1]), network(image[:1]), atol=1e-6, rtol=1e-5
    )  # the last batch of an epoch


def test_taps_count_where_a_network_of_the_class_was_compiled_without() -> None:
    image = torch.randn(1, 3, 9, 9)
    for paths in ((), ("norm",), ("norm", "last")):
        network = drawn(Net())
        compile_in_place(network, backend="eager")
        assert set(seen(network, network, paths, image)) == {*paths, ""}


@pytest.mark.slow
def test_a_compiled_form_answers_the_same() -> None:
    assert apart(drawn(Net()), ("norm", "second"), torch.randn(2, 3, 9, 9), "compiled") < 1e-5


# What is asked and what stays ------------------------------------------------------------------------


def teacher_of(network: nn.Module, ask: Any = None, **facts: Any) -> Teacher:
    holder = nn.Sequential(network)
    for name, value in facts.items():
        setattr(holder, name, value)
    return Teacher(holder, network, ask or network, name="x")


def config_of(engine: str, **trainer: Any) -> dict[str, Any]:
    return {
        "distillation": {"engine": engine}, "trainer": {"accelerator": "cpu", **trainer}, "channels_last": False
    }  # fmt: skip


def test_the_network_itself_stays_as_it_is() -> None:
    """Methods read its weights, and its score is measured; only when it teaches the copy is asked."""
    network = drawn(Net())
    before = {key: value.clone() for key, value in network.state_dict().items()}
    teacher, image = teacher_of(network), torch.randn(2, 3, 9, 9)
    ((title, text),) = deploy([teacher], ["last"], image[:1], config_of("folded"), batch_size=2)
    assert (title, text) == ("teacher", "folded: 2 batch norms folded") and teacher.engine == "folded"
    asked: list[str] = []
    network.norm.register_forward_hook(lambda *_: asked.append("itself"))
    teacher.taught_by.norm.register_forward_hook(lambda *_: asked.append("copy"))  # type: ignore[operator, union-attr]
    teacher.start("cpu")
    output, features = teacher(image, {})
    assert asked == ["copy"] and "forward" not in vars(network)
    expected = network(image)
    assert asked == ["copy", "itself"] and isinstance(network.norm, nn.BatchNorm2d)
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(features["last"].mean((2, 3)), expected, atol=1e-6, rtol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


class OfBatches(nn.BatchNorm2d):
    """Normalises by the batch in evaluation too, in spite of its running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=True)


class Batchwise(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = OfBatches(4)


class Named(Net):
    def forward(self, image: Tensor, scale: float = 1.0) -> Tensor:
        return scale * super().forward(image)


class Wild(Net):
    """Asks a value that a dry run has not."""

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) * (2.0 if float(image.sum()) > 0 else 1.0)


UNFIT: Mapping[str, tuple[Any, dict[str, Any], dict[str, Any], str]] = {
    "by the batch": (Batchwise, {}, {}, "differs by"),
    "in parts": (Net, {"ask": lambda net: lambda x: net.norm(net.first(x))}, {}, "not asked as a whole"),
    "with options": (Named, {"ask": lambda net: lambda x: net(x, scale=2.0)}, {}, "not asked as a whole"),
    "twice": (Net, {"ask": lambda net: lambda x: net(x) + net(x.flip(3))}, {}, "not asked as a whole"),
    "by values": (Wild, {}, {}, "Error: "),
    "tested by batches": (Net, {"answers_alone": False}, {}, "statistics of a batch"),
    "float16": (Net, {}, {"precision": "16-mixed"}, "range of float16"),
    "nothing to fold": (lambda: nn.Conv2d(3, 2, 3), {}, {}, "no batch norm"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_what_is_not_safe_is_asked_as_it_is(case: str) -> None:
    make, facts, trainer, reason = UNFIT[case]
    network, facts = drawn(make()), dict(facts)
    ask = facts.pop("ask", lambda net: net)(network)
    teacher, image = teacher_of(network, ask, **facts), torch.rand(2, 3, 9, 9)
    ((_, text),) = deploy([teacher], [], image[:1], config_of("folded", **trainer), batch_size=2)
    assert text.startswith("eager, not folded: ") and reason in text
    assert teacher.engine == "eager" and teacher.taught_by is network
    with torch.no_grad():
        assert torch.equal(teacher(image, {})[0], ask(image))
    settled = deploy([teacher], [], image[:1], config_of("auto", **trainer), batch_size=2, ran=["eager"])
    assert settled == []


def test_maps_are_not_had_of_onnx_runtime() -> None:
    pytest.importorskip("onnxruntime")
    teacher = teacher_of(drawn(Net()))
    ((_, text),) = deploy([teacher], ["last"], torch.rand(1, 3, 9, 9), config_of("onnx"), batch_size=2)
    assert "methods read its maps" in text and teacher.engine == "eager"


def test_onnx_runtime_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploying, "has_onnxruntime", lambda: False)
    with pytest.raises(ConfigError, match=r"distillation\.engine: onnx .* pip install 'dvsn\[onnx\]'"):
        deploy([teacher_of(Net())], [], torch.rand(1, 3, 9, 9), config_of("onnx"), batch_size=2)


def test_a_generator_that_is_tested_by_batches_is_asked_as_it_is(tmp_path: Path) -> None:
    usual = [*TINY, "network.norm=batch", f"data.root={write_pairs(tmp_path / 'pairs')}"]
    for option, engine in (("task.test_norm=batch", "eager"), ("task.test_norm=running", "folded")):
        teacher = save_teacher(composed([*usual, option], tmp_path), tmp_path / "teacher.ckpt")
        config = composed(usual, tmp_path) | {"teacher": str(teacher), "distill": {"soft": node(Soft)}}
        assert prepare(config)[0].distiller.teachers[0].engine == engine


# The choice ------------------------------------------------------------------------------------------


def test_auto_measures_and_takes_the_simpler_of_two_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def figures(case: Any, forms: Mapping[str, Any]) -> dict[str, float]:
        asked.append((case.batch_size, list(forms)))
        return {"eager": 0.2, "folded": 0.1, "channels_last": 0.099}

    monkeypatch.setattr(deploying, "measure", figures)
    teacher = teacher_of(drawn(Net()))
    ((_, text),) = deploy([teacher], ["last"], torch.rand(1, 3, 9, 9), config_of("auto"), batch_size=3)
    assert asked == [(3, ["eager", "folded", "channels_last"])] and teacher.engine == "folded"
    assert text == (
        "folded: auto, milliseconds for a batch of 3: eager 200.0, folded 100.0, channels_last 99.0"
    )
    deploy([teacher], ["last"], torch.rand(1, 3, 9, 9), config_of("auto", devices=2), batch_size=3)
    assert len(asked) == 1 and teacher.engine == "folded", "processes must agree"


def test_a_measurement_leaves_no_trace() -> None:
    teacher, image = teacher_of(drawn(Net())), torch.rand(1, 3, 9, 9)
    state = torch.get_rng_state()
    ((_, text),) = deploy([teacher], ["last"], image, config_of("auto"), batch_size=2)
    assert torch.equal(state, torch.get_rng_state()) and not teacher.taps._handles
    assert text.startswith(f"{teacher.engine}: auto, milliseconds for a batch of 2: eager ")
    expected = teacher.network(image)
    torch.testing.assert_close(teacher.start("cpu") or teacher(image, {})[0], expected, atol=1e-6, rtol=1e-5)


def test_the_options_are_the_forms() -> None:
    assert (*ENGINES, "auto") == rules.ENGINES


# A run that is continued -----------------------------------------------------------------------------


def test_a_resumed_run_has_the_form_that_it_had(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `auto` would choose otherwise now: bit for bit as the unbroken run, and what ran is in the checkpoint."""
    fastest = ["channels_last"]
    monkeypatch.setattr(
        deploying, "measure", lambda _, forms: {name: 0.1 if name in fastest else 1.0 for name in forms}
    )
    path = save_teacher(distilled(blobs, tmp_path, None, {}, "network=resnet14"), tmp_path / "teacher.ckpt")

    def run(folder: str, epochs: int, *more: str) -> dict[str, Any]:
        words = ["distillation.engine=auto", "channels_last=false", "schedule=constant", *more]
        words.append(f"trainer.max_epochs={epochs}")
        config = distilled(blobs, tmp_path / folder, str(path), {"hint": node(Hint, taps="stages")}, *words)
        training.train({**config, "resume": "auto"})
        return read_checkpoint(tmp_path / folder / "checkpoints" / "last.ckpt")

    whole = run("whole", 2)
    assert whole["dvsn"]["ran"]["teachers"] == ["channels_last"]
    run("broken", 1)
    fastest[:] = ["folded"]
    resumed = run("broken", 2)
    assert resumed["dvsn"]["ran"]["teachers"] == ["channels_last"]
    assert equal(whole["state_dict"], resumed["state_dict"])
    with pytest.raises(CheckpointError, match=r"distillation\.engine: 'auto' there, 'eager' now"):
        run("broken", 3, "distillation.engine=eager")


def test_a_run_of_an_earlier_version_goes_on_as_it_was_built() -> None:
    teacher = teacher_of(drawn(Net()))
    assert deploy([teacher], [], torch.rand(1, 3, 9, 9), config_of("folded"), batch_size=2, ran=()) == []
    assert teacher.engine == "eager"
