"""Rounding to 8 bits: hand-computed steps, gradients that pass, and the same steps in an exported file."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from dvsn.networks.rounding import Rounding


def test_numbers_are_rounded_to_steps_by_hand() -> None:
    """In steps of 0.5 with 2 for zero, from 0 to 7: 0.3 is 0.6 steps, so 1; 0.25 is half a step, to even: 0; 9 and -9 end at
    the bounds, 7 - 2 = 5 and 0 - 2 = -2 steps."""
    rounding = Rounding(torch.tensor([0.5]), torch.tensor([2]), low=0, high=7)
    x = torch.tensor([0.3, 0.25, 0.75, 9.0, -9.0, 0.0])
    expected = torch.tensor([0.5, 0.0, 1.0, 2.5, -1.0, 0.0])
    torch.testing.assert_close(rounding(x), expected)
    rounding.hold()
    torch.testing.assert_close(rounding(x), expected)


def test_each_channel_has_its_own_scale() -> None:
    rounding = Rounding(torch.tensor([0.5, 0.1]), torch.zeros(2), low=-128, high=127, axis=0)
    weight = torch.tensor([[0.7, -0.7], [0.07, 100.0]])
    torch.testing.assert_close(rounding(weight), torch.tensor([[0.5, -0.5], [0.1, 12.7]]))


def test_gradients_pass_as_if_nothing_was_rounded() -> None:
    """Inside of the range that of the identity, outside none. Of the scale, by 0.5: 1 - 0.6 steps of 0.3; 5 of the upper
    bound, -2 of the lower. What is learned is the logarithm, whose gradient is that times the scale."""
    rounding = Rounding(torch.tensor([0.5]), torch.tensor([2]), low=0, high=7)
    x = torch.tensor([0.3, 9.0, -9.0], requires_grad=True)
    (rounding(x) * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad is not None and rounding.logarithm.grad is not None
    assert x.grad.tolist() == [1.0, 0.0, 0.0]
    assert float(rounding.logarithm.grad) == pytest.approx(0.5 * (0.4 + 10 * 5 - 100 * 2))


def test_gradients_of_scales_a_channel_are_summed_over_the_rest() -> None:
    rounding = Rounding(torch.ones(2), torch.zeros(2), low=-2, high=1, axis=1)
    x = torch.tensor([[0.2, 5.0], [0.4, -5.0]], requires_grad=True)
    rounding(x).sum().backward()
    assert rounding.logarithm.grad is not None
    torch.testing.assert_close(rounding.logarithm.grad, torch.tensor([-0.6, 1.0 - 2.0]))


def test_a_held_scale_keeps_what_was_learned() -> None:
    rounding = Rounding(torch.tensor([0.5]), torch.tensor([0]), low=-128, high=127)
    with torch.no_grad():
        rounding.logarithm.fill_(math.log(2))
    rounding.hold()
    assert float(rounding.base) == pytest.approx(1.0)
    assert rounding.held
    x = torch.tensor([0.7], requires_grad=True)
    rounding(x).backward()
    assert x.grad is not None and float(x.grad) == 1.0
    assert rounding.logarithm.grad is None


class Tiny(nn.Module):
    """Two convolutions, whose inputs and weights are rounded."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
        self.seen, self.between = unsigned(1 / 255), unsigned(0.01)
        self.weights = nn.ModuleList(of_weights(each) for each in (self.first, self.second))

    def forward(self, image: Tensor) -> Tensor:
        x = self.seen(image.float() / 255)
        x = nn.functional.conv2d(x, self.weights[0](self.first.weight), self.first.bias, padding=1).relu()
        return nn.functional.conv2d(self.between(x), self.weights[1](self.second.weight), self.second.bias)


def unsigned(step: float) -> Rounding:
    return Rounding(torch.tensor([step]), torch.tensor([0]), low=0, high=255)


def of_weights(layer: nn.Conv2d) -> Rounding:
    scale = layer.weight.detach().abs().amax(dim=(1, 2, 3)) / 127
    return Rounding(scale, torch.zeros(len(scale)), low=-128, high=127, axis=0)


def test_an_exported_network_answers_within_a_step() -> None:
    """Of ONNX Runtime, which computes in whole numbers; weights lie in the file in 8 bits."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'dvsn[onnx]'")
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'dvsn[onnx]'")
    from dvsn.export.formats import OPSET, quiet
    from dvsn.export.placing import in_8_bits

    network = Tiny().eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, Rounding):
            module.hold()
    image = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with quiet():
        program = torch.onnx.export(network, (image,), dynamo=True, verbose=False, opset_version=OPSET)
    assert program is not None
    model = in_8_bits(program.model_proto)
    kinds = [node.op_type for node in model.graph.node]
    assert (kinds.count("QuantizeLinear"), kinds.count("DequantizeLinear")) == (2, 4)
    assert sorted(tuple(each.dims) for each in model.graph.initializer if len(each.dims) == 4) == [
        (2, 4, 1, 1),
        (4, 3, 3, 3),
    ]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    step = 0.01 * float(network.second.weight.abs().sum(dim=1).max())
    expected = network(image)
    assert float((torch.from_numpy(found) - expected).abs().max()) <= step
    assert float(expected.std()) > 5 * step
