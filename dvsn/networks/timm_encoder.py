"""Encoders of timm (pytorch-image-models): any model with `features_only`, by its name there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

from dvsn.errors import ConfigError, UserError, nearest
from dvsn.networks.blocks import out_of_place, require_image

PREFIXES = ("encoder.model.", "model.backbone.body.model.", "model.")
"""Where networks of dvsn keep timm's tensors."""
STRIDES = (4, 8, 16, 32)
"""Of the pyramid that is made of the one map of a plain transformer."""


class Expected(NamedTuple):
    """How timm normalised the pictures of a model's published weights, of RGB in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class TimmEncoder(nn.Module):
    """A model of timm without its head: its maps, finest first.

    Input: float (N, channels, H, W). Output: a list of maps (N, widths[i], H/strides[i], W/strides[i]), one
    for each stride from 2 on that the model has, all in this layout, also of models that keep channels last.

    - `name` as timm has it, with or without its tag: resnet18, convnext_tiny.fb_in22k. It starts from random
      weights; nothing is downloaded. `weights=` of a training takes timm's published files.
    - `size` [H, W]: builds a transformer for pictures of this size. None: for any size where timm can, else
      for the one of its published weights, which stands in `fixed`; then pictures of other sizes are refused.
    - `multiple`: what both sides must divide by, the coarsest stride.

    A plain transformer, all of whose maps have one stride, gets the simple feature pyramid of ViTDet (Li et
    al., 2022, arXiv:2203.16527, section 3) behind its last map, which is `pyramid`. Where a model pads so
    little that a map is smaller than its stride says, such as inception_v4, the map is enlarged bilinearly.
    Activations are not in place, so that every map can be tapped: the modules of `stages` are identities that
    the maps go through. Keys are timm's behind `model.`.
    """

    def __init__(self, *, name: str, channels: int = 3, size: Sequence[int] | None = None) -> None:
        super().__init__()
        self.name, self.channels = name, channels
        self.model, self.fixed = create(name, size, in_chans=channels, features_only=True)
        out_of_place(self.model)
        reductions = [int(each) for each in self.model.feature_info.reduction()]
        odd = [each for each in reductions if each & (each - 1)]
        if odd:
            raise ConfigError(
                f"network.name: the maps of {name!r} are {', '.join(map(str, reductions))} times smaller than the "
                "picture, and decoders double and halve: powers of two are expected. Choose another model, such as resnet18."
            )
        last = {stride: place for place, stride in enumerate(reductions) if stride > 1}
        widths = self.model.feature_info.channels()
        self.places = tuple(last[stride] for stride in sorted(last))
        self.strides = tuple(sorted(last))
        self.widths = tuple(int(widths[place]) for place in self.places)
        self.pyramid: SimplePyramid | None = None
        if len(self.strides) == 1:
            self.pyramid = SimplePyramid(self.widths[0], self.strides[0])
            self.strides, self.widths = STRIDES, self.pyramid.widths
        self.multiple = max(self.strides)
        require_whole(size, self.multiple, name)
        self.channels_last = "NHWC" in str(getattr(self.model, "output_fmt", ""))
        self.stages = nn.ModuleList(nn.Identity() for _ in self.strides)

    @property
    def stage_paths(self) -> tuple[str, ...]:
        """The paths of the maps, finest first, without the finest of all where there are more than four: taps."""
        return tuple(f"stages.{number}" for number in range(len(self.stages)))[-4:]

    @property
    def expects(self) -> Expected | None:
        """What timm's published weights of this name were trained on; None where it does not say."""
        return expected_of(self.name)

    def forward(self, image: Tensor) -> list[Tensor]:
        found = self.model(image)
        maps = [found[place] for place in self.places]
        if self.channels_last:
            maps = [each.permute(0, 3, 1, 2).contiguous() for each in maps]
        if self.pyramid is not None:
            maps = self.pyramid(maps[0])
        height, width = image.shape[-2:]
        levels = zip(self.stages, maps, self.strides, strict=True)
        return [stage(exactly(each, height // stride, width // stride)) for stage, each, stride in levels]


def exactly(x: Tensor, height: int, width: int) -> Tensor:
    """A map at this size, bilinear where it has another."""
    if x.shape[-2] == height and x.shape[-1] == width:
        return x
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)


class SimplePyramid(nn.Module):
    """Maps of strides 4, 8, 16 and 32 of one map (N, width, H/stride, W/stride), finest first.

    A finer one by transposed 2x2 convolutions, each of which doubles the sides and halves the channels, with
    a layer norm over the channels and GELU between two; a coarser one by maximum pooling. Li et al., 2022,
    arXiv:2203.16527, section 3.
    """

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        widths = []
        for wanted in STRIDES:
            layers: list[nn.Module] = []
            inputs = width
            for _ in range(int(math.log2(stride / wanted)) if wanted < stride else 0):
                if layers:
                    layers += [LayerNorm2d(inputs, eps=1e-6), nn.GELU()]
                layers.append(nn.ConvTranspose2d(inputs, inputs // 2, 2, stride=2))
                inputs //= 2
            if wanted > stride:
                layers.append(nn.MaxPool2d(wanted // stride))
            self.steps.append(nn.Sequential(*layers))
            widths.append(inputs)
        self.widths = tuple(widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [step(x) for step in self.steps]


class KeepsTimm(nn.Module):
    """Base of networks with a model of timm at the path `kept`, which take weights for it."""

    kept: ClassVar[str]

    def adopt(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of another network on a timm model under this network's names."""
        return adopted(state, self, f"{self.kept}.")

    def adopt_published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a file of timm's under this network's names."""
        return self.adopt(filtered(state, self.get_submodule(self.kept)))


class OnEncoder(KeepsTimm):
    """Base of networks that decode the maps of a `TimmEncoder`, which is `encoder`."""

    kept: ClassVar[str] = "encoder.model"
    encoder: TimmEncoder

    @property
    def multiple(self) -> int:
        """What the sides of a picture must divide by; 1 where it has to have one size anyway."""
        return self.encoder.multiple if self.encoder.fixed is None else 1

    @property
    def taps(self) -> tuple[str, ...]:
        """The encoder's maps, finest first."""
        return tuple(f"encoder.{path}" for path in self.encoder.stage_paths)

    @property
    def expects(self) -> Expected | None:
        """See `TimmEncoder.expects`."""
        return self.encoder.expects

    def require(self, image: Tensor, *, multiple: int | None = None) -> None:
        """Refuse all but float (N, channels, H, W) of sides that the encoder takes."""
        multiple = self.multiple if multiple is None else multiple
        require_image(self, image, channels=self.encoder.channels, multiple=multiple, minimum=multiple)
        require_size(self, image, self.encoder.name, self.encoder.fixed)

    def padded(self, image: Tensor) -> Tensor:
        """The picture with zeros, the mean colour, right and below, until its sides divide by the encoder's
        multiple; as it is where the encoder takes one size only. Refuses what is no picture, or of another size."""
        self.require(image, multiple=1)
        if self.encoder.fixed is not None:
            return image
        right, below = (-image.shape[side] % self.encoder.multiple for side in (-1, -2))
        return F.pad(image, (0, right, 0, below)) if right or below else image


# timm itself -------------------------------------------------------------------------------------------------


def library() -> Any:
    """timm. Raises `ConfigError` where it is missing."""
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"network: models of timm need the package timm ({error}). Install it: pip install 'dvsn[timm]'"
        ) from error
    return timm


def require_name(name: Any) -> None:
    """Raise `ConfigError` for a name that timm does not list, with the nearest ones. Other forms that timm would follow to
    the hub or to a folder, such as hf-hub:OWNER/NAME, are none."""
    timm = library()
    base, _, tag = str(name).partition(".")
    if not timm.is_model(base):
        known = timm.list_models()
        near = (nearest(base, known), containing(base, known))
        raise ConfigError(f"network.name: timm has no model {str(name)!r}. {' '.join(filter(None, near))}")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise ConfigError(
            f"network.name: timm's {base} has no weights {tag!r}. {nearest(tag, tags)}".rstrip()
        )


def containing(word: str, names: Iterable[str], most: int = 5) -> str:
    """A sentence with some names that start alike."""
    start = word.split("_")[0].split("-")[0][:8].lower()
    alike = [each for each in names if start and each.startswith(start)][:most]
    return f"Some that start alike: {', '.join(alike)}." if alike else "See timm.list_models()."


def create(name: Any, size: Sequence[int] | None, **options: Any) -> tuple[Any, tuple[int, int] | None]:
    """A model of timm from random weights, and the one size (H, W) of pictures that it takes; None: it takes any.

    Raises `ConfigError` for an unknown name, a model without features, a size that it cannot be built for.
    """
    require_name(name)
    if size is not None:
        if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
            raise ConfigError(
                f"network.size: found {list(size)}, expected [HEIGHT, WIDTH] in pixels, or null."
            )
        return built(name, img_size=(size[0], size[1]), **options), (size[0], size[1])
    published = library().models.get_pretrained_cfg(name)
    if published is None or not published.fixed_input_size:
        return built(name, **options), None
    try:
        return built(name, dynamic_img_size=True, **options), None
    except Inflexible:
        height, width = published.input_size[-2:]
        return built(name, **options), (int(height), int(width))


class Inflexible(ConfigError):
    """A model that does not know an option about the size of its pictures."""


def built(name: str, **options: Any) -> Any:
    """`timm.create_model` without weights; its errors in our words."""
    try:
        return library().create_model(name, pretrained=False, **options)
    except (
        TypeError,
        AttributeError,
        RuntimeError,
        NotImplementedError,
        AssertionError,
        ValueError,
    ) as error:
        text = str(error)
        if "img_size" in text and isinstance(error, TypeError):
            raise Inflexible(
                f"network.size: {name!r} is not built for a size of pictures: it takes any, or its own only. Set "
                "network.size=null."
            ) from error
        if "img_size" in options or "dynamic_img_size" in options:
            raise ConfigError(f"network.size: timm cannot build {name!r} for this size: {text}") from error
        what = "has no features for a decoder" if options.get("features_only") else "cannot be built"
        raise ConfigError(
            f"network.name: timm's {name!r} {what} ({type(error).__name__}: {text}). Choose another model, such as resnet18."
        ) from error


def expected_of(name: str) -> Expected | None:
    """How timm normalised pictures for the published weights of a name."""
    published = library().models.get_pretrained_cfg(name)
    return None if published is None else Expected(tuple(published.mean), tuple(published.std))


def require_size(owner: nn.Module, image: Tensor, name: str, fixed: tuple[int, int] | None) -> None:
    """Refuse pictures of another size than the only one that a model takes."""
    found = tuple(image.shape[-2:])
    if fixed is not None and found != fixed:
        raise UserError(
            f"{type(owner).__name__}: found pictures of {found[0]} x {found[1]} (H x W), and {name} takes "
            f"{fixed[0]} x {fixed[1]} only. Resize or crop them, or set "
            f"network.size=[{found[0]},{found[1]}] in a new training."
        )


def require_whole(size: Sequence[int] | None, multiple: int, name: str) -> None:
    """Refuse a size to build for that does not divide."""
    if size is not None and any(side % multiple for side in size):
        whole = ",".join(str(-(-side // multiple) * multiple) for side in size)
        raise ConfigError(
            f"network.size: found {list(size)}, but sides must divide by {multiple} for {name}. Set network.size=[{whole}]."
        )


# Weights -----------------------------------------------------------------------------------------------------


def adopted(state: Mapping[str, Tensor], network: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Tensors named by timm, or by another network of dvsn on a timm model, under the names of `network`, which keeps
    its model behind `prefix`. What has no place keeps its name.

    As an encoder timm writes some dots as underscores (stages_0.blocks) or puts `model.` in front. A first
    convolution of another number of channels is made of the published one by timm's rule: summed over RGB for
    one channel, repeated and scaled for more.
    """
    own = network.state_dict()
    table = {spelt(key.removeprefix(prefix)): key for key in own if key.startswith(prefix)}
    found = {}
    for key, value in state.items():
        bare = [key.removeprefix(start) for start in PREFIXES if key.startswith(start)] + [key]
        name = key if key in own else next((table[spelt(b)] for b in bare if spelt(b) in table), key)
        found[name] = widened(value, own[name]) if name in own else value
    return found


def spelt(key: str) -> str:
    """A key as it is compared."""
    return key.removeprefix("model.").replace(".", "_")


def widened(value: Tensor, like: Tensor) -> Tensor:
    """Of RGB's kernels (n, 3, h, w) those for as many channels as `like` has; anything else as it is."""
    fits = (
        value.ndim == like.ndim == 4 and value.shape[0] == like.shape[0] and value.shape[2:] == like.shape[2:]
    )
    if not fits or value.shape[1] != 3 or like.shape[1] == 3:
        return value
    adapted: Tensor = library().models.adapt_input_conv(like.shape[1], value)
    return adapted


def filtered(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A published file as timm's own loader has it for this model: older names of keys, position embeddings for another
    size. Of models that are kept whole; the others as they are."""
    import sys

    whole = getattr(model, "model", model)
    convert = getattr(sys.modules.get(type(whole).__module__), "checkpoint_filter_fn", None)
    if convert is None or type(whole).__module__.startswith("timm.models._"):
        return dict(state)
    return dict(convert(dict(state), whole))
