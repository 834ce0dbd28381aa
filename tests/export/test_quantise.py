"""8 bits: what goes back to float32 is what costs the most, and the rest stays."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'dvsn[onnx]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'dvsn[onnx]'")

import onnx
import onnxruntime
from onnx import helper, numpy_helper

from dvsn.errors import ConfigError
from dvsn.export.parting import SCOPE
from dvsn.export.quantise import BETWEEN, Wanted, fewest, groups, least_equal, without
from dvsn.export.scoring import Scorer, attach


def quantised_model() -> onnx.ModelProto:
    """y = second(first(x)), both 1x1 convolutions of one channel, by 1.5 and by 0.5, in 8 bits with steps of 0.5."""
    constants = {
        "step": np.float32(0.5), "zero": np.uint8(128), "weight_zero": np.int8(0),
        "first_bits": np.array([[[[3]]]], np.int8), "second_bits": np.array([[[[1]]]], np.int8),
    }  # fmt: skip
    nodes, value = [], "x"
    for name in ("first", "second"):
        nodes += [
            helper.make_node("QuantizeLinear", [value, "step", "zero"], [f"{name}_q"], name=f"{name}_q"),
            helper.make_node(
                "DequantizeLinear", [f"{name}_q", "step", "zero"], [f"{name}_dq"], name=f"{name}_dq"
            ),
            helper.make_node(
                "DequantizeLinear", [f"{name}_bits", "step", "weight_zero"], [f"{name}_w"], name=f"{name}_w"
            ),
            helper.make_node("Conv", [f"{name}_dq", f"{name}_w"], [f"{name}_y"], name=name),
        ]
        entry = nodes[-1].metadata_props.add()
        entry.key, entry.value = SCOPE, str(["", "task.network", f"task.network.{name}", "conv2d"])
        value = f"{name}_y"
    infos = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1, 1, 1]) for name in ("x", value)
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        infos[:1],
        infos[1:],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def plain_model() -> onnx.ModelProto:
    """The same in float32: by 1.5 and by 0.5."""
    model = quantised_model()
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    del model.graph.node[:], model.graph.initializer[:]
    value = "x"
    for node, weight in zip(convolutions, (1.5, 0.5), strict=True):
        node.input[:] = [value, f"{node.name}_weight"]
        value = node.output[0]
        array = np.full((1, 1, 1, 1), weight, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, f"{node.name}_weight"))
    model.graph.node.extend(convolutions)
    return model


def asked(model: onnx.ModelProto, value: float) -> float:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return float(session.run(None, {"x": np.full((1, 1, 1, 1), value, np.float32)})[0].item())


def test_modules_go_back_to_float_one_by_one() -> None:
    """0.7 is rounded to 0.5 before the first: 0.5 * 1.5 = 0.75, rounded (to even) to 1.0 before the second: 0.5. Without the
    first in 8 bits 0.7 * 1.5 = 1.05, rounded to 1.0: 0.5. Without both: 0.525."""
    model, plain = quantised_model(), plain_model()
    assert asked(plain, 0.7) == pytest.approx(0.525)
    assert list(groups(plain)) == ["task.network.first", "task.network.second"]
    assert asked(model, 0.7) == pytest.approx(0.5)
    assert asked(without(model, plain, ["task.network.second"]), 0.7) == pytest.approx(0.375)
    both = without(model, plain, ["task.network.first", "task.network.second"])
    assert asked(both, 0.7) == pytest.approx(0.525)
    assert not [node for node in both.graph.node if node.op_type != "Conv"]
    assert len(model.graph.node) == 8  # the model itself stays


def test_what_lies_between_modules_goes_back_too() -> None:
    """A ReLU behind the second module, which reads 0.525 rounded to 0.5."""
    model, plain = quantised_model(), plain_model()
    step = [
        helper.make_node("QuantizeLinear", ["second_y", "step", "zero"], ["out_q"]),
        helper.make_node("DequantizeLinear", ["out_q", "step", "zero"], ["out_dq"]),
    ]
    for each, before in ((model, step), (plain, [])):
        relu = helper.make_node(
            "Relu", [before[-1].output[0] if before else "second_y"], ["out"], name="relu"
        )
        entry = relu.metadata_props.add()
        entry.key, entry.value = SCOPE, str(["", "task.network", "relu"])
        each.graph.node.extend([*before, relu])
        each.graph.output[0].name = "out"
    modules = list(groups(plain))
    assert asked(without(model, plain, modules), 0.7) == pytest.approx(0.5)
    assert asked(without(model, plain, [*modules, BETWEEN]), 0.7) == pytest.approx(0.525)


def test_points_are_equal_within_a_pixel() -> None:
    scorer = Scorer.__new__(Scorer)
    scorer.first, scorer.compared = [], "points"
    scorer.compare([np.zeros((1, 2, 2))])
    scorer.compare([np.array([[[0.9, 0.0], [1.1, -1.0]]])])
    assert scorer.equal == 0.75


def test_as_few_modules_as_needed() -> None:
    """The score is 1 - 0.1 for each sensitive module still in 8 bits; three of eight are, so three are kept out."""

    kept, score = bisected(Wanted(plain=1.0, drop=0.05, equal=None))
    assert kept == ["a", "b", "c"]
    assert score == pytest.approx(1.0)
    assert Counted.asked <= 4


def test_modules_go_back_until_classes_are_equal_too() -> None:
    """The same score suffices with three of them; 99 % of the pixels with the fourth."""
    assert bisected(Wanted(plain=1.0, drop=0.05, equal=0.98))[0] == ["a", "b", "c"]
    assert bisected(Wanted(plain=1.0, drop=0.05, equal=0.99))[0] == ["a", "b", "c", "d"]


class Counted:
    sign, asked, equal = 1.0, 0, 1.0

    def __call__(self, kept: tuple[str, ...]) -> float:
        Counted.asked += 1
        self.equal = 1.0 if "d" in kept else 0.985
        return 1.0 - 0.1 * sum(name not in kept for name in ("a", "b", "c"))

    def worse(self, plain: float, found: float) -> float:
        return plain - found


def bisected(wanted: Wanted) -> tuple[list[str], float]:
    Counted.asked = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dvsn.export.quantise.without", lambda _, __, modules: tuple(modules))
        return fewest(None, None, list("abcdefgh"), Counted(), wanted)  # type: ignore[arg-type]


def test_the_share_of_equal_classes_is_counted_over_all_pictures() -> None:
    scorer = Scorer.__new__(Scorer)
    scorer.first, scorer.compared = [], "ids"
    scorer.compare([np.array([[1, 2]]), np.array([[3, 4, 5, 6]])])
    assert scorer.equal == 1
    scorer.compare([np.array([[1, 2]]), np.array([[3, 4, 0, 0]])])
    assert scorer.equal == pytest.approx(4 / 6)
    for given in (0, 1.5, True, "most"):
        with pytest.raises(ConfigError, match="equal: found"):
            least_equal(given, scorer)
    assert least_equal(None, scorer) == 0.9
    scorer.compared, scorer.task = "", SimpleNamespace(kind="pix2pix")
    assert least_equal(None, scorer) is None
    with pytest.raises(ConfigError, match="the task 'pix2pix' has neither"):
        least_equal(0.99, scorer)


def test_a_score_gets_its_data_set_beside_other_metrics() -> None:
    """As of landmarks with the auxiliary net, whose angles have no need of it."""
    given: list[str] = []
    attach(
        SimpleNamespace(metrics={"angles": object(), "score": SimpleNamespace(attach=given.append)}), "val"
    )
    assert given == ["val"]
