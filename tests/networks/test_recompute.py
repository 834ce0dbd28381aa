"""Gradient checkpointing: the same bits with dropout, batch norms, taps and copies, and less memory."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dvsn.distill.taps import Taps
from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError
from dvsn.networks.cifar_resnet import CifarResNet
from dvsn.networks.recompute import Recomputed, recompute
from tests.support.resuming import equal, run
from tests.support.tiny import TINY, TINY_CLASSIFICATION, composed, write_pairs


class Layers(nn.Module):
    """Two stages with all that could go wrong, in a list, and a class layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(
                OrderedDict(
                    conv=nn.Conv2d(inputs, 4, 3, padding=1),
                    norm=nn.BatchNorm2d(4),
                    relu=nn.ReLU(inplace=True),
                    drop=nn.Dropout(0.5),
                )
            )
            for inputs in (3, 4)
        )
        self.fc = nn.Linear(4, 2)

    def forward(self, image: Tensor) -> Tensor:
        for stage in self.stages:
            image = stage(image)
        answer: Tensor = self.fc(image.mean((2, 3)))
        return answer


def made() -> Layers:
    torch.manual_seed(0)
    return Layers()


def stepped(network: nn.Module, *, mixed: bool = False) -> dict[str, Any]:
    """Two steps of training: gradients of both, and the state at the end."""
    found: dict[str, Any] = {}
    for step in range(2):
        torch.manual_seed(step)
        image = torch.randn(4, 3, 8, 8)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = network(image).float().pow(2).sum()
        network.zero_grad()
        loss.backward()
        found[f"loss{step}"] = loss.detach()
        found[f"random{step}"] = torch.rand(1)  # what is drawn afterwards
        found |= {
            f"{step}.{name}": p.grad.clone() for name, p in network.named_parameters() if p.grad is not None
        }
    return found | {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("mixed", [False, True])
def test_the_same_bits(mixed: bool) -> None:
    """With dropout, batch norms and their counts, operations in place, and bf16."""
    spared = made()
    assert recompute(spared, ["stages"]) == ("stages.0", "stages.1")
    assert equal(stepped(made(), mixed=mixed), stepped(spared, mixed=mixed))
    assert int(spared.stages[0].norm.num_batches_tracked) == 2  # type: ignore[union-attr]
    assert all(each.track_running_stats for each in spared.modules() if isinstance(each, nn.BatchNorm2d))


def test_a_frozen_norm_stays_frozen() -> None:
    plain, spared = made(), made()
    recompute(spared, ["stages.1"])
    for network in (plain, spared):
        network.stages[1].norm.eval()  # type: ignore[union-attr, operator]
    assert equal(stepped(plain), stepped(spared))


def test_maps_are_not_kept() -> None:
    """Bytes that the graph holds between the passes."""

    def held(network: nn.Module) -> int:
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(torch.randn(2, 3, 32, 32)).sum().backward()
        return sum(kept.values())

    plain, spared = (CifarResNet(classes=2, depth=14, widths=(8, 8, 8, 8)) for _ in range(2))
    recompute(spared, ["layer?"])
    assert held(spared) < held(plain) / 3


def test_gradients_reach_through_taps() -> None:
    """The tap of a map within a recomputed stage, as methods of distillation read it."""
    found = []
    for spare in (False, True):
        network = made()
        network.stages[0].relu.inplace = False  # type: ignore[union-attr, assignment]
        if spare:
            recompute(network, ["stages"])
        taps = Taps(network, ["stages.0.relu"])
        taps.install()
        torch.manual_seed(0)
        with taps:
            output = network(torch.randn(2, 3, 8, 8))
        (output.sum() + taps.take()["stages.0.relu"].pow(2).sum()).backward()
        found.append([parameter.grad for parameter in network.parameters()])
    assert equal(*found)


def test_copies_and_eval() -> None:
    """A copy, such as a moving average's, runs its own weights; in eval nothing is run twice."""
    network = made()
    recompute(network, ["stages"])
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not twin(torch.randn(1, 3, 8, 8)).any()
    assert network.state_dict().keys() == made().state_dict().keys()
    assert isinstance(network.stages[0], nn.Sequential) and isinstance(network.stages[0], Recomputed)
    assert type(network.stages[0]).__name__ == "Sequential"
    network.eval()
    assert "Checkpoint" not in str(network(torch.randn(1, 3, 8, 8)).grad_fn)


def test_the_outermost_counts_and_a_typo_is_refused() -> None:
    network = CifarResNet(classes=2, depth=8)
    assert recompute(network, ["layer1*"]) == ("layer1",)
    with pytest.raises(
        ConfigError, match=r"gradient_checkpointing: .* no module 'layr1'. Did you mean 'layer1'"
    ):
        recompute(network, ["layr1"])


def test_a_run_ends_with_the_same_bits(nine_blobs: Path, tmp_path: Path) -> None:
    """Plain, and spared from the start; and a run that is killed and goes on with the option changed."""
    words = [
        *TINY_CLASSIFICATION,
        f"data.root={nine_blobs}",
        "trainer.max_epochs=2",
        "checkpoint.every_n_steps=1",
    ]
    spare = "gradient_checkpointing=[layer1,'layer[23]']"
    plain = run(composed(words, tmp_path / "plain"))
    assert run(composed([*words, spare], tmp_path / "spared"), dies_after=4) is None
    spared = run(composed([*words, spare], tmp_path / "spared"))
    assert plain is not None and spared is not None
    for part in ("state_dict", "optimizer_states", "global_step"):
        assert equal(plain[part], spared[part]), part


@pytest.mark.slow
def test_a_generator(tmp_path: Path) -> None:
    """pix2pix, whose generator runs for both networks."""
    words = [
        *TINY,
        f"data.root={write_pairs(tmp_path / 'pairs', train=2, val=1)}",
        "trainer.max_epochs=1",
        "network.norm=batch",
    ]
    plain = run(composed(words, tmp_path / "plain"))
    network = runtime.make_task(composed(words, tmp_path / "x")).student
    stage = next(path for path, module in network.named_modules() if path and list(module.parameters()))
    spared = run(composed([*words, f"gradient_checkpointing=[{stage}]"], tmp_path / "spared"))
    assert plain is not None and spared is not None and equal(plain["state_dict"], spared["state_dict"])


def test_compiled_is_refused(nine_blobs: Path, tmp_path: Path) -> None:
    words = [
        *TINY_CLASSIFICATION,
        f"data.root={nine_blobs}",
        "compile=true",
        "gradient_checkpointing=[layer1]",
    ]
    config = composed(words, tmp_path)
    with pytest.raises(ConfigError, match=r"gradient_checkpointing: a compiled network"):
        runtime.build_trainer(config, runtime.make_task(config))
