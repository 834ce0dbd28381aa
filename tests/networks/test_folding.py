"""Folded batch norms and counted costs: hand-built networks, and the figures of PIDNet's fact sheet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dvsn.benchmark.costs import costs
from dvsn.networks.folding import fold_batch_norms, relative_error
from dvsn.networks.pidnet import PIDNet

S = {"width": 32, "deep_blocks": 3}
M = {"width": 64, "deep_blocks": 3}
PAPER_M = {"width": 64, "deep_blocks": 4}
L = {"width": 64, "blocks": 3, "deep_blocks": 4, "pyramid": "dappm", "pyramid_width": 112, "head_width": 256,
     "fusion": "bag", "derivative": "wide"}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def pidnet(options: dict[str, object], *, heads: bool = False, classes: int = 19) -> PIDNet:
    """Without memory: only its shapes are looked at."""
    with torch.device("meta"):
        return PIDNet(classes=classes, heads=heads, **options)  # type: ignore[arg-type]


def disturbed(network: nn.Module) -> nn.Module:
    """With batch norms that do something, in evaluation mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.2, 2.0)
            if module.affine:
                module.weight.data.uniform_(-1.5, 1.5)
                module.bias.data.normal_()
    return network.eval().requires_grad_(False)


class Cases(nn.Module):
    """One of each: what folds, and what must not."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 4, 3, bias=True)
        self.plain_norm = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 6, 3, groups=2, bias=False)
        self.grouped_norm = nn.BatchNorm2d(6, affine=False, eps=0.1)
        self.shared = nn.Conv2d(6, 6, 1, bias=False)
        self.shared_norm = nn.BatchNorm2d(6)  # its convolution is also added to the result
        self.early_norm = nn.BatchNorm2d(6)  # before an activation and a convolution
        self.twice = nn.Conv2d(6, 6, 1)
        self.twice_norm = nn.BatchNorm2d(6)  # its convolution runs twice
        self.rectified = nn.Conv2d(6, 6, 1)
        self.rectified_norm = nn.BatchNorm2d(6)  # a ReLU in place stands between
        self.answered = nn.Conv2d(6, 6, 1)
        self.answered_norm = nn.BatchNorm2d(6)  # its convolution's result is also an answer
        self.batch_norm = nn.BatchNorm2d(6, track_running_stats=False)
        self.for_training = nn.Sequential(nn.Conv2d(6, 2, 1), nn.BatchNorm2d(2))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.plain_norm(self.plain(image)))
        x = torch.relu(self.grouped_norm(self.grouped(x)))
        y = self.shared(x)
        x = self.early_norm(self.shared_norm(y) + y).relu()
        x = self.twice_norm(self.twice(x)) + self.twice(x + 1)
        x = self.rectified_norm(self.rectified(x).relu_())
        y = self.answered(x)
        x = self.answered_norm(y)
        if self.training:
            x = x + self.for_training(x).sum()
        return self.batch_norm(x), y


def test_folds_only_what_feeds_one_norm_and_nothing_else() -> None:
    network = disturbed(Cases())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold_batch_norms(network, (1, 3, 20, 20))
    assert folded.folded == ("plain_norm", "grouped_norm")
    assert folded.kept == ("shared_norm", "early_norm", "twice_norm", "rectified_norm", "answered_norm")
    image = torch.randn(2, 3, 24, 24)
    for found, expected in zip(folded.network(image), network(image), strict=True):
        assert relative_error(found, expected) < 1e-5
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_folding_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0)).eval()
    values = {"0.weight": 3.0, "0.bias": 5.0, "1.weight": 2.0, "1.bias": 7.0, "1.running_mean": 1.0}
    state = {name: torch.full_like(network.state_dict()[name], value) for name, value in values.items()}
    state |= {"1.running_var": torch.tensor([16.0]), "1.num_batches_tracked": torch.tensor(0)}
    network.load_state_dict(state)
    folded = fold_batch_norms(network, (1, 1, 2, 2)).network
    assert folded[0].weight.item() == 1.5  # type: ignore[index, union-attr]  # 3 * 2 / 4
    assert folded[0].bias.item() == 9.0  # type: ignore[index, union-attr]  # (5 - 1) * 2 / 4 + 7
    assert isinstance(folded[1], nn.Identity)  # type: ignore[index]


@pytest.mark.parametrize(
    ("options", "folded", "kept"),
    [
        (S, 66, 9),
        (M, 66, 9),
        # 86 in all. The sheet keeps 13: final_layer.bn1 is one of them, but here a bare convolution, that of Bag, feeds it.
        (L, 74, 12),
    ],
)
def test_norms_of_pidnet(options: dict[str, object], folded: int, kept: int) -> None:
    found = fold_batch_norms(pidnet(options, heads=True))
    assert (len(found.folded), len(found.kept)) == (folded, kept)
    own = ("final_layer.bn1",) if options is not L else ("dfm.conv.0",)
    assert all(name.startswith("spp.") or name in own for name in found.kept)


def test_a_folded_pidnet_answers_the_same() -> None:
    network = disturbed(PIDNet(classes=5, width=8, pyramid_width=8, head_width=8))
    image = torch.randn(1, 3, 72, 104)
    folded = fold_batch_norms(network).network
    assert relative_error(folded(image).logits, network(image).logits) < 1e-4
    assert relative_error(folded(image).logits, network(image).logits + 1) > 1e-4


SHEET = [
    (
        S,
        19,
        False,
        7_625_715,
        {(1024, 2048): 47.194, (720, 960): 15.633, (640, 640): 9.218, (360, 480): 3.954},
    ),
    (S, 19, True, 7_625_715, {(1024, 2048): 47.194}),
    (S, 11, False, 7_624_683, {(720, 960): 15.622}),
    (S, 171, False, 7_645_323, {(640, 640): 9.342}),
    (M, 19, False, 28_538_515, {(1024, 2048): 177.329, (360, 480): 14.866}),
    (PAPER_M, 19, False, 34_439_827, {(1024, 2048): 196.656}),
    (L, 19, False, 36_939_571, {(1024, 2048): 274.933, (360, 480): 22.982}),
]


@pytest.mark.parametrize(("options", "classes", "heads", "parameters", "giga"), SHEET)
def test_costs_are_those_of_the_sheet(
    options: dict[str, object],
    classes: int,
    heads: bool,
    parameters: int,
    giga: dict[tuple[int, int], float],
) -> None:
    network = pidnet(options, heads=heads, classes=classes)
    for size, expected in giga.items():
        found = costs(network, (1, 3, *size))
        assert found.parameters == parameters
        assert round(found.macs / 1e9, 3) == expected
        assert found.all_parameters == sum(p.numel() for p in network.parameters())
    assert (found.all_parameters > parameters) == heads


def test_costs_by_hand() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1)
            self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
            self.linear = nn.Linear(8, 5)
            self.unused = nn.Linear(2, 2)

        def forward(self, image: Tensor) -> Tensor:
            x = self.deep(self.conv(image))  # (N, 8, 5, 10)
            attention = x.flatten(2).transpose(1, 2) @ x.flatten(2)  # a product of activations does not count
            return self.linear(x.mean(dim=(2, 3))) + attention.mean()

    found = costs(Mixed(), (2, 3, 10, 20))
    assert found.macs == 2 * (5 * 10 * (8 * 3 * 9 + 8 * 9) + 8 * 5)
    assert found.parameters == (3 * 8 * 9 + 8) + 8 * 9 + (8 * 5 + 5)
    assert found.all_parameters == found.parameters + 6
