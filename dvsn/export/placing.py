"""Where a network in training is rounded to 8 bits, and how it becomes an ONNX model that computes in them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dvsn.export import formats
from dvsn.networks.rounding import Rounding


def nncf_options(*, gpu: bool, bias_correction: bool = True) -> dict[str, Any]:
    """The options of `nncf.quantize` for a CPU, or for TensorRT, which wants symmetric activations."""
    import nncf
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        OverflowFix,
        QuantizationParameters,
    )

    logging.getLogger("nncf").setLevel(logging.ERROR)
    parameters = AdvancedQuantizationParameters(disable_bias_correction=not bias_correction)
    if gpu:
        parameters.overflow_fix = OverflowFix.DISABLE
        parameters.activations_quantization_params = QuantizationParameters(signedness_to_force=True)
    return {
        "preset": nncf.QuantizationPreset.PERFORMANCE if gpu else nncf.QuantizationPreset.MIXED,
        "target_device": nncf.TargetDevice.GPU if gpu else nncf.TargetDevice.CPU,
        "advanced_parameters": parameters,
    }


def rounding(network: nn.Module, inputs: Sequence[Tensor], *, gpu: bool) -> nn.Module:
    """A copy of `network` whose weights and maps are rounded where NNCF places its quantisers, with a scale a channel of
    weights and a tensor of maps, taken from what `inputs`, each (N, C, H, W), make in it.

    NNCF finds the places in the order of the operations of the forward pass, so the copy must be asked in the form in which
    it was looked at: in evaluation mode, without heads for training.
    """
    import nncf
    from nncf.torch.quantization.layers import BaseQuantizer

    with formats.quiet(), torch.no_grad():
        made: nn.Module = nncf.quantize(
            network.eval(),
            nncf.Dataset(list(inputs)),
            subset_size=len(inputs),
            **nncf_options(gpu=gpu, bias_correction=False),  # biases are trained
        )
    replace_hooks(made, BaseQuantizer, rounding_of)
    return made


def replace_hooks(network: nn.Module, kind: type, make: Callable[[Any], nn.Module]) -> None:
    """Put another module in the place of each hook of a kind; one that stands at several places, as before maps that are
    joined, is replaced by one."""
    from nncf.torch.function_hook import get_hook_storage

    storage: Any = get_hook_storage(network)
    known: dict[int, nn.Module] = {}
    for places in (*storage.pre_hooks.values(), *storage.post_hooks.values()):
        for name, hook in list(places.items()):
            if isinstance(hook, kind):
                if id(hook) not in known:
                    known[id(hook)] = make(hook)
                places[name] = known[id(hook)]


def rounding_of(quantiser: Any) -> Rounding:
    """The same as a quantiser of NNCF, in torch's own operations: those of NNCF are compiled on the user's machine."""
    low, high, scale, zero = quantiser.get_parameters_for_torch_fq()
    if quantiser.is_half_range:  # of 7 bits, whose products do not leave 16 bits on CPUs without VNNI
        low, high = int(quantiser.level_low), int(quantiser.level_high)
    axis = int(np.argmax(quantiser.scale_shape)) if quantiser.per_channel else None
    return Rounding(scale, zero, low=int(low), high=int(high), axis=axis)


def roundings(network: nn.Module) -> list[Rounding]:
    return [module for module in network.modules() if isinstance(module, Rounding)]


@torch.no_grad()
def settle(network: nn.Module, example: Tensor) -> None:
    """Give the weights their rounded values and let all scales stand still. After it a rounding has the whole range of 8
    bits, which changes nothing that was inside a part of it."""

    def keep(_: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> None:
        if isinstance(given[0], nn.Parameter):
            given[0].copy_(answer)

    found = roundings(network)
    for each in found:
        each.hold()
    handles = [each.register_forward_hook(keep) for each in found]
    try:
        network(example)
    finally:
        for handle in handles:
            handle.remove()
    for each in found:
        each.low, each.high = (-128, 127) if each.low < 0 else (0, 255)


def without_rounding(network: nn.Module) -> nn.Module:
    """The network with its roundings taken out, in place."""
    replace_hooks(network, Rounding, lambda _: nn.Identity())
    return network


# As ONNX ----------------------------------------------------------------------------------------------

BITS = "_8_bits"
"""Ends the name of a weight that is stored in 8 bits."""


def in_8_bits(model: Any) -> Any:
    """An exported model whose rounded weights are stored in 8 bits instead of being rounded when it is asked."""
    from onnx import numpy_helper

    graph = model.graph
    constants = {each.name: each for each in graph.initializer}
    gone, stored, renamed = [], {}, {}
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] not in constants:
            continue
        weight, scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input)
        axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
        shape = [-1 if place == axis else 1 for place in range(weight.ndim)] if scale.ndim else []
        steps = np.rint(weight / scale.reshape(shape)) + zero.reshape(shape)
        bounds = np.iinfo(zero.dtype)
        renamed[node.output[0]] = name = f"{node.input[0]}{BITS}"
        stored[name] = np.clip(steps, bounds.min, bounds.max).astype(zero.dtype)
        gone.append(node)
    for node in gone:
        graph.node.remove(node)
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored.items())
    read = {name for node in graph.node for name in node.input} | {each.name for each in graph.output}
    kept = [each for each in graph.initializer if each.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return model


def named_as(model: Any, plain: Any) -> None:
    """Give the operations with weights in 8 bits, in place, the names that they have in the `plain` model, which is the same
    network without roundings; others get names that it has not."""
    makers = {output: node for node in model.graph.node for output in node.output}
    known = {node.input[1]: node.name for node in plain.graph.node if len(node.input) > 1 and node.input[1]}
    for node in model.graph.node:
        maker = makers.get(node.input[1]) if len(node.input) > 1 else None
        weight = maker.input[0] if maker is not None and maker.op_type == "DequantizeLinear" else ""
        found = known.get(weight.removesuffix(BITS)) if weight.endswith(BITS) else None
        node.name = found or f"rounded/{node.name}"
