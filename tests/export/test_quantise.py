"""8 bits: what goes back to float32 is what costs the most, and the rest stays."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'dvsn[onnx]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'dvsn[onnx]'")

import onnx
import onnxruntime
from onnx import helper, numpy_helper

from dvsn.export.parting import SCOPE
from dvsn.export.quantise import fewest, groups, without


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


def test_as_few_modules_as_needed() -> None:
    """The score is 1 - 0.1 for each sensitive module still in 8 bits; three of eight are, so three are kept out."""

    class Counted:
        sign, asked = 1.0, 0

        def __call__(self, kept: tuple[str, ...]) -> float:
            Counted.asked += 1
            return 1.0 - 0.1 * sum(name not in kept for name in ("a", "b", "c"))

        def worse(self, plain: float, found: float) -> float:
            return plain - found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dvsn.export.quantise.without", lambda _, __, modules: tuple(modules))
        kept, score = fewest(None, None, list("abcdefgh"), Counted(), 1.0, 0.05)  # type: ignore[arg-type]
    assert kept == ["a", "b", "c"]
    assert score == pytest.approx(1.0)
    assert Counted.asked <= 4
