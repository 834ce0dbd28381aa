"""Fine-tuning in 8 bits: its options, where is rounded, what is taught, and one whole export."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'dvsn[onnx]'")

from onnx import TensorProto, helper

from dvsn.engine.methods import method_class, require_reads
from dvsn.errors import ConfigError
from dvsn.export.__main__ import COMMAND, export
from dvsn.export.finetune import TAUGHT, AsAsked, Plan, method_of, read_plan, require_tunable
from dvsn.export.placing import BITS, named_as
from dvsn.losses.segmentation import Objective
from dvsn.networks.rounding import Rounding
from tests.support import six_tasks, tiny


def options(*given: str) -> dict[str, Any]:
    return COMMAND.parse(["best.ckpt", *given])


def test_a_plan_is_read_with_the_checkpoint_as_its_own_teacher() -> None:
    assert read_plan(options("precision=int8")) is None
    assert read_plan(options("precision=int8", "finetune=3")) == Plan(3, 1e-5, 0.1, "best.ckpt")
    given = options(
        "precision=int8",
        "finetune=1",
        "finetune.lr=1e-5",
        "finetune.task_weight=0",
        "finetune.teacher=large.ckpt",
    )
    assert read_plan(given) == Plan(1, 1e-5, 0.0, "large.ckpt")


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (["precision=int8", "finetune=0"], "finetune: found 0, expected a number of epochs"),
        (["precision=int8", "finetune=1.5"], "finetune: found 1.5"),
        (["precision=int8", "finetune=true"], "finetune: found True"),
        (["precision=fp32", "finetune=3"], "finetune: is for 8 bits, and precision is fp32"),
        (["precision=int8", "finetune.lr=1e-5"], "finetune.lr: goes with finetune=EPOCHS"),
        (["precision=int8", "finetune=3", "finetune.lr=0"], "finetune.lr: found 0, with which nothing"),
        (["precision=int8", "finetune=3", "finetune.lr=fast"], "finetune.lr: found 'fast'"),
        (["precision=int8", "finetune=3", "finetune.task_weight=-1"], "finetune.task_weight: found -1"),
    ],
)
def test_wrong_plans_are_refused_in_words(given: list[str], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        read_plan(options(*given))


def test_tasks_that_cannot_be_trained_so_are_named() -> None:
    with pytest.raises(ConfigError, match="found the task 'detection'"):
        require_tunable(SimpleNamespace(kind="detection", response="objects"))
    with pytest.raises(ConfigError, match="test_norm=batch"):
        require_tunable(SimpleNamespace(kind="pix2pix", response="image", test_norm="batch"))
    with pytest.raises(ConfigError, match="no discriminator"):
        require_tunable(SimpleNamespace(kind="pix2pix", response="image", discriminator=None))


@pytest.mark.parametrize("response", TAUGHT)
def test_every_kind_of_answer_has_a_method_that_reads_it(response: Any) -> None:
    name, node = method_of(response)
    require_reads(name, method_class(node, name), response)


def test_a_network_of_points_follows_its_teacher_everywhere() -> None:
    name, node = method_of("points")
    assert (name, node["weight"]) == ("bounded_regression", 1.0)
    assert node["method"] == {
        "_target_": "dvsn.distill.bounded_regression.BoundedRegression", "_partial_": True, "bounded": False,
        "toward": "teacher", "distance": "l1", "margin": 0.0, "size": 112.0,
    }  # fmt: skip


def test_scales_stand_still_in_the_last_third() -> None:
    """Of 2 epochs of 3 steps: from the fifth step."""
    rounding = Rounding(torch.tensor([0.5]), torch.tensor([0]), low=-128, high=127)
    task = SimpleNamespace(network=nn.Sequential(nn.Dropout(), rounding).train())
    trainer: Any = SimpleNamespace(max_epochs=2, num_training_batches=3, current_epoch=0)
    callback, seen = AsAsked(), []
    for epoch in range(2):
        trainer.current_epoch = epoch
        callback.on_train_epoch_start(trainer, task)
        for step in range(3):
            callback.on_train_batch_start(trainer, task, None, step)
            seen.append(rounding.held)
    assert seen == [False, False, False, False, True, True]
    assert not task.network[0].training


def test_the_loss_keeps_the_terms_of_the_answer(tmp_path: Path) -> None:
    """PIDNet's has four, of which one reads the answer alone."""
    node = tiny.composed([*tiny.TINY_SEGMENTATION, "network=pidnet_s"], tmp_path)["task"]["loss"]
    from dvsn.config.build import build

    objective = build(node, path="loss")
    assert isinstance(objective, Objective) and objective.needs_boundary
    objective.of_the_answer()
    assert list(objective.terms) == ["main"]
    assert not objective.needs_boundary


def test_operations_with_weights_get_the_names_of_the_plain_model() -> None:
    def node(kind: str, given: list[str], name: str) -> Any:
        return helper.make_node(kind, given, [f"{name}_out"], name=name)

    def model(*nodes: Any) -> Any:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
        return helper.make_model(helper.make_graph(list(nodes), "g", [x], [x]))

    plain = model(node("Resize", ["x", "", "s"], "conv_1"), node("Conv", ["x", "b.weight"], "conv_2"))
    bits = model(
        node("DequantizeLinear", [f"b.weight{BITS}", "s", "z"], "w"),
        node("Conv", ["x", "w_out"], "conv_1"),
        node("Resize", ["x", "", "s"], "resize"),
    )
    named_as(bits, plain)
    assert [each.name for each in bits.graph.node] == ["rounded/w", "conv_2", "rounded/resize"]


class Branches(nn.Module):
    """Convolutions, a sum, maps that are joined, and a head that only training has, in the middle of the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head, self.end = nn.Conv2d(4, 2, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.a(x).relu()
        if self.training:
            self.head(first).relu()
        second = self.b(first).relu() + first
        return self.end(torch.cat([first, second], dim=1))


def test_nncf_says_where_is_rounded() -> None:
    """Weights a channel, maps a tensor; a round trip of the float weights; half a step of every number at most is lost."""
    pytest.importorskip("nncf", reason="nncf is not installed: pip install 'dvsn[openvino]'")
    from dvsn.export.placing import rounding, roundings, settle, without_rounding

    torch.manual_seed(0)
    network, inputs = Branches().eval(), [torch.rand(1, 3, 8, 8) for _ in range(4)]
    made = rounding(network, inputs, gpu=False)
    found = roundings(made)
    assert sum(each.axis == 0 for each in found) == 3  # a, b and end; the head for training is not asked
    assert sum(each.axis is None for each in found) >= 3
    with torch.no_grad():
        exact, near = network(inputs[0]), made(inputs[0])
        assert 0 < float((exact - near).abs().max()) < 0.05 * float(exact.abs().max())
        before = made.a.weight.clone()
        settle(made, inputs[0])
        torch.testing.assert_close(made(inputs[0]), near)
        assert 0 < float((made.a.weight - before).abs().max()) <= float(found[0].base.max()) * 0.51 + 0.01
        made.load_state_dict({**made.state_dict(), **network.state_dict()})
        torch.testing.assert_close(without_rounding(made)(inputs[0]), exact)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classification", "segmentation", "pose", "pix2pix"])
def test_a_fine_tuned_file_is_exported(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nncf", reason="nncf is not installed: pip install 'dvsn[openvino]'")
    monkeypatch.chdir(tmp_path)
    blobs = [
        "task=classification", "data=imagefolder", "network=resnet8", "data.dataset.names=[red,green,blue]",
        "data.classes=3", "transform=cifar", "data.workers=0", "data.batch_size=6", *six_tasks.QUIET,
    ]  # fmt: skip
    lines = {
        "classification": blobs, "pix2pix": [*six_tasks.OPTIONS["pix2pix"], "task.test_dropout=false"],
    }  # fmt: skip
    for key, line in lines.items():
        monkeypatch.setitem(six_tasks.OPTIONS, key, line)
    make = {
        "classification": tiny.write_blobs, "segmentation": tiny.write_scenes, "pose": tiny.write_people,
        "pix2pix": tiny.write_pairs,
    }[name]  # fmt: skip
    make(tmp_path / "data")
    checkpoint = six_tasks.write_checkpoint(name, tmp_path)
    line = [
        str(checkpoint), "precision=int8", "finetune=1", "samples=4", "scored=4", "drop=100", "equal=0.01",
        f"root={tmp_path / 'data'}",
    ]  # fmt: skip
    if name in ("classification", "pix2pix"):
        line.remove("equal=0.01")
    file = export(COMMAND.parse(line))
    about = json.loads(file.with_suffix(".json").read_text())["int8"]
    assert about["finetune"]["epochs"] == 1
    assert about["finetune"]["teacher"] == checkpoint.name
    assert about["finetune"]["places"] > 8
    assert {"fp32", "all", "int8"} <= about.keys()
