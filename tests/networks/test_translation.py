"""Generators and discriminators of image translation: published counts, shapes, fields of view, bad input."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from dvsn.errors import ConfigError, UserError
from dvsn.losses.translation import TranslationLoss
from dvsn.networks.initialise import initialise
from dvsn.networks.patchgan import PatchGan, PixelGan
from dvsn.networks.resnet_generator import ResNetGenerator
from dvsn.networks.unet import UNet

CONF = Path(__file__).parents[2] / "conf"
CLASSES = (UNet, ResNetGenerator, PatchGan, PixelGan, TranslationLoss)
POST = {"bottleneck_norm": True, "first_bias": True, "dropout_steps": (1, 2, 3), "skip_order": "up_skip"}
UNCONDITIONAL = {"condition_channels": 0}
YAMLS = sorted(
    path
    for group in ("network", "discriminator", "loss")
    for path in (CONF / group).glob("*.yaml")
    if any(f"{kind.__module__}.{kind.__qualname__}" in path.read_text() for kind in CLASSES)
)


def from_yaml(path: Path, **changes: object) -> nn.Module:
    """The object of a YAML whose data set has three channels on either side."""
    text = path.read_text().replace("${data.input_channels}", "3").replace("${data.output_channels}", "3")
    node = {**yaml.safe_load(text), **changes}
    target = node.pop("_target_")
    (kind,) = [kind for kind in CLASSES if target == f"{kind.__module__}.{kind.__qualname__}"]
    return kind(**node)


def count(network: nn.Module) -> tuple[int, int]:
    return sum(p.numel() for p in network.parameters()), len(network.state_dict())


def paddle_counts(network: nn.Module) -> tuple[int, int]:
    """Paddle's summary: a batch norm counts as four vectors, none of which is called trainable."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    parameters, channels = count(network)[0], sum(norm.num_features for norm in norms)
    return parameters + 2 * channels, parameters - 2 * channels


# Published numbers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "parameters", "keys"),
    [
        (lambda: UNet(**POST), 54_415_043, 88),
        (lambda: UNet(), 54_413_955, 82),
        (lambda: UNet(norm="instance"), 54_409_603, 32),
        (lambda: UNet(depth=7), 41_828_995, 70),
        (lambda: UNet(depth=7, norm="instance"), 41_825_667, 28),
        (lambda: ResNetGenerator(blocks=9), 11_383_427, 140),
        (lambda: ResNetGenerator(blocks=9, norm="instance"), 11_378_179, 48),
        (lambda: ResNetGenerator(blocks=6), 7_841_411, 104),
        (lambda: ResNetGenerator(blocks=6, norm="instance"), 7_837_699, 36),
        (lambda: PatchGan(), 2_768_705, 22),
        (lambda: PatchGan(norm="instance"), 2_767_809, 10),
        (lambda: PatchGan(norm="instance", **UNCONDITIONAL), 2_764_737, 10),
        (lambda: PatchGan(layers=1), 139_585, 10),
        (lambda: PatchGan(layers=2), 666_433, 16),
        (lambda: PatchGan(layers=4), 6_964_033, 28),
        (lambda: PatchGan(layers=5), 11_159_361, 34),
        (lambda: PatchGan(layers=6), 15_354_689, 40),
        (lambda: PixelGan(), 9_024, 9),
    ],
)
def test_published_counts(build: Callable[[], nn.Module], parameters: int, keys: int) -> None:
    with torch.device("meta"):
        assert count(build()) == (parameters, keys)


def test_paddles_two_summaries() -> None:
    with torch.device("meta"):
        assert paddle_counts(UNet(**POST)) == (54_425_923, 54_404_163)
        assert paddle_counts(PatchGan()) == (2_770_497, 2_766_913)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("network/unet_256", 54_413_955),
        ("network/unet_paper", 54_413_955),
        ("network/unet_post", 54_415_043),
        ("network/unet_128", 41_828_995),
        ("network/resnet_9blocks", 11_383_427),
        ("network/resnet_6blocks", 7_841_411),
        ("discriminator/patchgan", 2_768_705),
        ("discriminator/patchgan_post", 2_768_705),
        ("discriminator/n_layers", 139_585),
        ("discriminator/pixel", 9_024),
    ],
)
def test_yaml_counts(name: str, parameters: int) -> None:
    with torch.device("meta"):
        assert count(from_yaml(CONF / f"{name}.yaml"))[0] == parameters


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_yaml_repeats_every_option(path: Path) -> None:
    node = yaml.safe_load(path.read_text())
    (kind,) = [kind for kind in CLASSES if node["_target_"] == f"{kind.__module__}.{kind.__qualname__}"]
    parameters = inspect.signature(kind).parameters.values()
    assert list(node)[1:] == [parameter.name for parameter in parameters]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)


@pytest.mark.parametrize(
    ("name", "places"),
    [("unet_256", [1, 2, 3]), ("unet_128", [1, 2]), ("unet_paper", [0, 1, 2]), ("unet_post", [0, 1, 2])],
)
def test_where_dropout_is(name: str, places: list[int]) -> None:
    with torch.device("meta"):
        network = from_yaml(CONF / "network" / f"{name}.yaml")
    rates = {index: m.p for index, up in enumerate(network.ups) for m in up if isinstance(m, nn.Dropout)}
    assert rates == dict.fromkeys(places, 0.5)
    assert sum(isinstance(m, nn.Dropout) for m in network.modules()) == len(places)


# Shapes and fields of view ----------------------------------------------------------------------


def test_generator_shapes_and_range() -> None:
    for network, sides in (
        (UNet(input_channels=5, output_channels=2, width=4, depth=3), (8, 24)),
        (UNet(input_channels=5, output_channels=2, width=4, depth=3, upsample="resize"), (8, 24)),
        (ResNetGenerator(input_channels=5, output_channels=2, width=4, blocks=2), (8, 12)),
        (ResNetGenerator(input_channels=5, output_channels=2, width=4, blocks=2, upsample="resize"), (8, 12)),
    ):
        initialise(network, init="kaiming", gain=1.0)
        output = network(100 * torch.randn(2, 5, *sides))
        assert output.shape == (2, 2, *sides)
        assert output.abs().max() <= 1.0
        assert output.abs().max() > 0.3


def test_post_unet_has_the_layer_table() -> None:
    with torch.device("meta"):
        network = UNet(**POST)
        shapes: list[tuple[int, ...]] = []
        for step in (*network.downs, *network.ups, network.head):
            step.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
        network(torch.zeros(16, 3, 256, 512))
    assert shapes == [
        (64, 128, 256), (128, 64, 128), (256, 32, 64), (512, 16, 32), (512, 8, 16), (512, 4, 8), (512, 2, 4),
        (512, 1, 2),
        (512, 2, 4), (512, 4, 8), (512, 8, 16), (512, 16, 32), (256, 32, 64), (128, 64, 128), (64, 128, 256),
        (3, 256, 512),
    ]  # fmt: skip


@pytest.mark.parametrize(("layers", "side"), [(1, 126), (2, 62), (3, 30), (4, 14), (5, 6), (6, 2)])
def test_score_map_of_a_256_image(layers: int, side: int) -> None:
    with torch.device("meta"):
        assert PatchGan(layers=layers)(torch.zeros(1, 6, 256, 256)).shape == (1, 1, side, side)
        assert PatchGan()(torch.zeros(1, 6, 256, 512)).shape == (1, 1, 30, 62)
        assert PixelGan()(torch.zeros(1, 6, 256, 256)).shape == (1, 1, 256, 256)


@pytest.mark.parametrize(
    ("layers", "field"), [(0, 1), (1, 16), (2, 34), (3, 70), (4, 142), (5, 286), (6, 574)]
)
def test_field_of_view(layers: int, field: int) -> None:
    """All weights one: the gradient of a score is non-zero exactly on the pixels it sees."""
    options = {"condition_channels": 0, "image_channels": 1, "width": 1, "norm": "none"}
    network = PatchGan(layers=layers, **options) if layers else PixelGan(**options)
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    image = torch.ones(1, 1, 2 * field + 64, 2 * field + 64, dtype=torch.float64, requires_grad=True)
    scores = network.double()(image)
    middle = scores.shape[-1] // 2
    scores[0, 0, middle, middle].backward()
    seen = image.grad[0, 0] != 0
    assert seen.any(dim=0).sum() == field
    assert seen.any(dim=1).sum() == field
    assert seen.sum() == field**2


# Learning ----------------------------------------------------------------------

SMALL = {
    "unet": lambda **options: UNet(width=8, depth=4, dropout_steps=(1, 2), **options),
    "unet_post": lambda **options: UNet(width=8, depth=4, **POST, **options),
    "unet_resize": lambda **options: UNet(width=8, depth=4, upsample="resize", **options),
    "resnet": lambda **options: ResNetGenerator(width=8, blocks=2, **options),
    "resnet_resize": lambda **options: ResNetGenerator(width=8, blocks=2, upsample="resize", **options),
    "patchgan": lambda **options: PatchGan(width=8, **options),
    "pixel": lambda **options: PixelGan(width=8, **options),
}


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("name", SMALL)
def test_gradient_reaches_every_parameter(name: str, norm: str) -> None:
    torch.manual_seed(0)
    network = SMALL[name](norm=norm, init="kaiming")
    channels = 6 if isinstance(network, PatchGan | PixelGan) else 3
    output = network(torch.randn(2, channels, 32, 32))
    (output * torch.randn_like(output)).sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        cancelled = norm == "instance" and key.endswith("bias")  # the norm takes the bias away again
        assert cancelled or parameter.grad.abs().max() > 0, key


def test_norms_and_biases() -> None:
    batch, instance, none = (UNet(width=4, depth=3, norm=n) for n in ("batch", "instance", "none"))
    biases = [key for key, _ in batch.named_parameters() if key.endswith("conv.bias")]
    assert biases == ["head.conv.bias"]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in instance.modules())
    norms = [m for m in instance.modules() if isinstance(m, nn.InstanceNorm2d)]
    assert len(norms) == 3
    assert not any(m.affine or m.track_running_stats for m in norms)
    assert list(instance.state_dict()) == list(none.state_dict())
    assert "downs.0.bias" in none.state_dict()
    assert "downs.0.bias" not in UNet(width=4, depth=3, norm="none", bias=False).state_dict()
    x = torch.randn(1, 3, 8, 8)
    none.load_state_dict(instance.state_dict())
    assert not torch.equal(none(x), instance(x))


def test_skip_order_only_permutes_weights() -> None:
    torch.manual_seed(0)
    ours = UNet(width=4, depth=4, skip_order="skip_up", init="kaiming").eval()
    other = UNet(width=4, depth=4, skip_order="up_skip").eval()
    state = ours.state_dict()
    for key in ("ups.1.conv.weight", "ups.2.conv.weight", "head.conv.weight"):
        state[key] = torch.cat(state[key].chunk(2)[::-1])
    other.load_state_dict(state)
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(ours(x), other(x))


def test_modules_do_not_write_on_what_they_read() -> None:
    """In place is only what no module has answered: each answer is the same after the whole pass."""
    for name, build in SMALL.items():
        network = build()
        seen: list[tuple[str, torch.Tensor, torch.Tensor]] = []
        for path, module in network.named_modules():
            module.register_forward_hook(
                lambda _, __, answer, path=path, seen=seen: seen.append(
                    (path, answer, answer.detach().clone())
                )
            )
        side = max(network.multiple, 32)
        channels = getattr(network, "input_channels", None) or next(network.parameters()).shape[1]
        network(torch.randn(2, channels, side, side)).sum().backward()
        assert len(seen) > 5
        for path, answer, was in seen:
            assert torch.equal(answer, was), f"{name}: {path}"
        for tap in network.taps:
            network.get_submodule(tap)


def test_float32_out_of_autocast() -> None:
    x = torch.randn(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        for network in (UNet(width=4, depth=2), ResNetGenerator(width=4, blocks=1)):
            assert network(x).dtype == torch.float32
    assert UNet(width=4, depth=2).double()(x.double()).dtype == torch.float64


def test_join_and_probability() -> None:
    condition, image = torch.zeros(1, 2, 24, 24), torch.ones(1, 3, 24, 24)
    first = PatchGan(condition_channels=2, width=4)
    assert first.join(condition, image)[0, :, 0, 0].tolist() == [0, 0, 1, 1, 1]
    last = PatchGan(condition_channels=2, width=4, image_first=True)
    assert last.join(condition, image)[0, :, 0, 0].tolist() == [1, 1, 1, 0, 0]
    assert PatchGan(condition_channels=0, width=4).join(None, image) is image
    pair = first.join(condition, image)
    first.eval()
    torch.testing.assert_close(first.probability(pair), torch.sigmoid(first(pair)))


# Initialisation ----------------------------------------------------------------------


def test_initialisations() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 96, 4)  # fan in 1024, fan out 1536
    norm = nn.BatchNorm2d(4096)
    block = nn.Sequential(conv, norm)
    for init, gain, std in (
        ("normal", 0.02, 0.02),
        ("xavier", 0.5, 0.5 * (2 / (1024 + 1536)) ** 0.5),
        ("kaiming", 0.02, (2 / 1024) ** 0.5),
    ):
        nn.init.ones_(conv.bias)
        initialise(block, init=init, gain=gain)
        assert conv.weight.std().item() == pytest.approx(std, rel=0.02), init
        assert abs(conv.weight.mean().item()) < 0.02 * std
        assert not conv.bias.any()
        assert norm.weight.mean().item() == pytest.approx(1.0, abs=gain / 10)
        assert norm.weight.std().item() == pytest.approx(gain, rel=0.05)
        assert not norm.bias.any()
    initialise(block, init="orthogonal", gain=0.5)
    rows = conv.weight.detach().flatten(1)  # (96, 1024)
    torch.testing.assert_close(rows @ rows.T, 0.25 * torch.eye(96), atol=1e-5, rtol=0)
    before = conv.weight.detach().clone()
    initialise(block, init="none", gain=0.02)
    assert torch.equal(conv.weight, before)


def test_networks_are_initialised_as_published() -> None:
    torch.manual_seed(0)
    for network in (UNet(width=16, depth=4), ResNetGenerator(width=16, blocks=1), PatchGan(width=16)):
        weights = torch.cat([m.weight.flatten() for m in network.modules() if hasattr(m, "kernel_size")])
        assert weights.std().item() == pytest.approx(0.02, rel=0.05)


# Bad input ----------------------------------------------------------------------


def test_sides_are_explained() -> None:
    with torch.device("meta"):
        with pytest.raises(ValueError, match=r"divisible by 256.*256 x 320.*256 x 256 or 256 x 512"):
            UNet()(torch.zeros(1, 3, 256, 320))
        with pytest.raises(ValueError, match=r"found 100 x 90.*256 x 256\."):
            UNet()(torch.zeros(1, 3, 100, 90))
        with pytest.raises(ValueError, match=r"divisible by 4.*18 x 16.*16 x 16 or 20 x 16"):
            ResNetGenerator()(torch.zeros(1, 3, 18, 16))
        with pytest.raises(ValueError, match=r"at least 8.*4 x 4.*8 x 8\."):
            ResNetGenerator()(torch.zeros(1, 3, 4, 4))
        for layers in range(1, 7):
            network = PatchGan(layers=layers)
            assert network(torch.zeros(2, 6, network.minimum, network.minimum)).shape == (2, 1, 1, 1)
            with pytest.raises(
                ValueError, match=rf"of at least {network.minimum}, found {network.minimum - 1} x 99"
            ):
                network(torch.zeros(2, 6, network.minimum - 1, 99))
        assert ResNetGenerator()(torch.zeros(2, 3, 8, 8)).shape == (2, 3, 8, 8)
    assert UNet(width=1, depth=5).multiple == 32
    assert ResNetGenerator.multiple == 4


@pytest.mark.parametrize("shape", [(1, 4, 16, 16), (3, 16, 16), (1, 3, 16)])
def test_channels_are_explained(shape: tuple[int, ...]) -> None:
    for network in (UNet(width=4, depth=3), ResNetGenerator(width=4), PixelGan(condition_channels=0)):
        with pytest.raises(UserError, match=r"expects \(N, 3, H, W\), found"):
            network(torch.zeros(shape))


def test_bytes_are_refused() -> None:
    with pytest.raises(UserError, match=r"floating point.*uint8"):
        UNet(width=4, depth=3)(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_one_value_at_a_normed_bottleneck() -> None:
    with torch.device("meta"):
        network = UNet(**POST)
        with pytest.raises(
            ValueError, match=r"batch norm at the bottleneck.*one value per channel.*bottleneck_norm"
        ):
            network(torch.zeros(1, 3, 256, 256))
        assert network(torch.zeros(2, 3, 256, 256)).shape == (2, 3, 256, 256)
        assert network(torch.zeros(1, 3, 256, 512)).shape == (1, 3, 256, 512)
        assert network.eval()(torch.zeros(1, 3, 256, 256)).shape == (1, 3, 256, 256)
        network.downs[-1].norm.train()  # statistics of the test image
        with pytest.raises(ValueError, match="bottleneck"):
            network(torch.zeros(1, 3, 256, 256))
        with pytest.raises(ValueError, match=r"instance norm at the bottleneck"):
            UNet(norm="instance", bottleneck_norm=True).eval()(torch.zeros(2, 3, 256, 256))
        assert UNet()(torch.zeros(1, 3, 256, 256)).shape == (1, 3, 256, 256)  # the reference has no such norm


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UNet(norm="bacth"), r"norm='bacth'. Did you mean 'batch'"),
        (lambda: UNet(skip_order="up"), r"skip_order='up'"),
        (lambda: UNet(upsample="bilinear"), r"upsample='bilinear'.*resize, transposed"),
        (lambda: UNet(depth=1), r"depth must be at least 2"),
        (lambda: UNet(depth=4, dropout_steps=(2, 4)), r"dropout_steps must lie in 1..3"),
        (lambda: UNet(width=0), r"width must be at least 1"),
        (lambda: UNet(dropout=1.5), r"dropout must be between 0.0 and 1.0"),
        (lambda: UNet(dropout=float("nan")), r"dropout must be"),
        (lambda: UNet(width=1, init="gauss"), r"init='gauss'"),
        (lambda: ResNetGenerator(blocks=-1), r"blocks must be at least 0"),
        (lambda: ResNetGenerator(norm="layer"), r"norm='layer'"),
        (lambda: PatchGan(layers=0), r"layers must be at least 1"),
        (lambda: PatchGan(image_channels=0), r"image_channels must be at least 1"),
        (lambda: PatchGan(condition_channels=-1), r"condition_channels must be at least 0"),
        (lambda: PixelGan(width=4, init_gain=-1.0), r"init_gain must be at least 0"),
    ],
)
def test_bad_options(build: Callable[[], nn.Module], message: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        build()
