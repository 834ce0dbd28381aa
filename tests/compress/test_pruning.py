"""Pruned networks: which channels go, and that plain data gives the network again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dvsn.compress import pruning
from dvsn.compress.pruning import prune
from dvsn.config.build import build
from dvsn.errors import ConfigError

RESNET = {"_target_": "dvsn.networks.cifar_resnet.CifarResNet", "classes": 3, "depth": 8}
PIDNET = {
    "_target_": "dvsn.networks.pidnet.PIDNet", "classes": 3, "width": 8, "pyramid_width": 16, "head_width": 16,
    "blocks": 1, "deep_blocks": 1,
}  # fmt: skip
PFLD = {"_target_": "dvsn.networks.pfld.PFLD", "landmarks": 5, "width": 0.25, "size": 64}


def test_layers_that_make_the_answer() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.one, self.other = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.trunk(x).relu()
            return nn.functional.interpolate(self.one(x), scale_factor=2), self.other(x.mean(dim=(2, 3)))

    network = Two()
    found = pruning.last_layers(network, lambda: network(torch.rand(1, 3, 4, 4)))
    assert {id(each) for each in found} == {id(network.one), id(network.other)}


def test_what_is_reduced_over_channels_has_no_history() -> None:
    image = torch.rand(1, 3, 4, 4, requires_grad=True)
    with pruning.Parting() as parting:
        weight, pooled = image.sum(dim=1, keepdim=True), image.mean(dim=(2, 3))
    assert not weight.requires_grad and pooled.requires_grad
    assert len(parting.inputs) == 1 and parting.inputs[0] is image
    torch.testing.assert_close(weight, image.detach().sum(dim=1, keepdim=True))


@pytest.mark.parametrize(
    ("node", "side"), [(RESNET, 16), (PIDNET, 64), (PFLD, 64)], ids=["resnet", "pidnet", "pfld"]
)
def test_a_pruned_network_is_built_again_from_plain_data(node: dict[str, Any], side: int) -> None:
    pytest.importorskip("torch_pruning")
    torch.manual_seed(0)
    network = build(node, path="network").eval()
    image = torch.rand(1, 3, side, side)
    found = prune(network, node, image, 0.5)
    assert all(isinstance(each, int) for widths in found.node["layers"].values() for each in widths)
    again = build(found.node, path="network")
    assert type(again) is type(network)
    again.load_state_dict(found.state, strict=True)

    def count(module: nn.Module) -> int:
        return sum(each.numel() for each in module.parameters())

    assert 0.15 * count(network) < count(again) < 0.5 * count(network)
    again.train()
    kept, theirs = (pruning.tensors(each(torch.cat([image, image]))) for each in (again, network.train()))
    assert [each.shape for each in kept] == [each.shape for each in theirs], "heads of training, too"


def test_the_weakest_channels_of_a_group_go() -> None:
    pytest.importorskip("torch_pruning")
    torch.manual_seed(0)
    network = build(RESNET, path="network").eval()
    strong = torch.arange(0, 16, 2)
    with torch.no_grad():
        conv = network.layer1[0].conv1
        conv.weight.fill_(0.01)
        conv.weight[strong] = torch.rand(8, *conv.weight.shape[1:]) + 1
        network.layer1[0].bn1.weight.fill_(0.01)
        network.layer1[0].bn1.weight[strong] = 1.0
        network.layer1[0].conv2.weight.fill_(0.01)
    found = prune(network, RESNET, torch.rand(1, 3, 16, 16), 0.5)
    torch.testing.assert_close(found.state["layer1.0.bn1.weight"], torch.ones(8))


def test_a_network_that_cannot_be_pruned_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch_pruning")

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.other(self.one(x).view(1, 16, 4, 4))
            return answer

    with pytest.raises(ConfigError, match="pruned: Fixed cannot be pruned: RuntimeError"):
        prune(Fixed(), {}, torch.rand(1, 3, 4, 4), 0.5)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ConfigError, match=r"pip install 'dvsn\[prune\]'"):
        prune(nn.Conv2d(3, 4, 1), {}, torch.rand(1, 3, 4, 4), 0.5)
