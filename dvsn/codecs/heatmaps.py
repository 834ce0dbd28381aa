"""Keypoints to heatmaps and back: the target of a pose network, and the decoding of its answer.

Points are pixels (x, y) of the crop, pixel centres at integers. Map pixel i stands for crop pixel spacing * i + offset.
The spacing is the stride or, with `unbiased`, (crop side - 1) / (map side - 1): see `dvsn.portable.crop` for the same choice
in the crop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dvsn.errors import ConfigError, nearest

Centre = Literal["rounded", "exact"]
Refine = Literal["none", "quarter", "dark", "udp"]


class HeatmapCodec(nn.Module):
    """Encodes points as Gaussians and decodes maps to points; `conf/codec` has the published combinations.

    - `size` (H, W) of the crop, `stride` from it to the maps, `sigma` of the Gaussians in map pixels.
    - `centre`: of a Gaussian, on the nearest map pixel (`rounded`, half up) or where the point is (`exact`).
    - `window`: cut a Gaussian at 3 sigma from its nearest pixel, on each axis; false: all of it.
    - `refine`, after the largest value of a map has been found (the first of equals):
      `quarter`: a quarter pixel towards the larger neighbour on each axis, unless the place lies within the two
      outermost lines of the map (Newell et al., 2016, arXiv:1603.06937);
      `dark`: the peak of the parabola through the logarithm of the blurred map, by differences over two pixels
      (Zhang et al., 2020, arXiv:1910.06278, eq. 6 to 9), inside the same border;
      `udp`: likewise with differences over one pixel, at borders too (Huang et al., 2020, arXiv:1911.07524).
    - `blur`: side in pixels of the Gaussian kernel that smooths maps for dark and udp, odd. It is the one that OpenCV
      takes for that side: of deviation 0.3 ((blur - 1) / 2 - 1) + 0.8, and binomial-like up to 7.
    - `unbiased`: how pixels are counted, as above. `offset`: how many crop pixels, right and down, a map pixel lies from
      its place times the spacing; 2.5 for the face weights of HRNetV2's authors (see `dvsn.convert.faces`).
    - `flip_shift`: by how many columns the answer for a mirrored crop is moved right before it is averaged, left if below
      0; fractions are interpolated. Where a map is crop / stride, mirrored maps lie (stride - 1 - 2 offset) / stride
      columns too far left, 0.75 for a stride of 4. Published recipes shift by 1, which leaves an error of 0.5 crop
      pixels (no shift: 1.5). With `unbiased` the mirrored maps fit as they are: 0.

    Known differences: the release of DARK replaces a map by its blurred self rescaled to the old peak, which the
    logarithm makes an added constant, so here it is left out; the peak's value is that of the map itself. Worked out
    in float32. UDP's Hessian gets 1.2e-7 added to its diagonal there; here a Hessian that cannot be inverted moves nothing.
    """

    reads: ClassVar[tuple[str, ...]] = ("heatmaps",)

    def __init__(
        self,
        *,
        size: Sequence[int],
        stride: int = 4,
        sigma: float = 2.0,
        centre: Centre = "rounded",
        window: bool = True,
        refine: Refine = "quarter",
        blur: int = 11,
        unbiased: bool = False,
        offset: float = 0.0,
        flip_shift: float = 1,
    ) -> None:
        super().__init__()
        for option, value, choices in (("centre", centre, Centre), ("refine", refine, Refine)):
            if value not in get_args(choices):
                raise ConfigError(
                    f"codec.{option}: found {value!r}. {nearest(str(value), get_args(choices))}"
                )
        if len(size) != 2 or stride < 1 or any(side < 2 * stride or side % stride for side in size):
            raise ConfigError(
                f"codec.size: found {list(size)}, expected [HEIGHT, WIDTH] that divide by the stride {stride}."
            )
        if sigma <= 0 or blur < 1 or blur % 2 == 0 or not abs(offset) < min(size):
            raise ConfigError(
                "codec: expected sigma > 0, an odd blur and an offset within the crop, found "
                f"sigma={sigma}, blur={blur}, offset={offset}."
            )
        if not abs(flip_shift) < size[1] // stride:
            raise ConfigError(
                f"codec.flip_shift: found {flip_shift}, expected less than the {size[1] // stride} columns of a map; 1 is "
                "usual, 0 with codec.unbiased=true."
            )
        self.size, self.stride, self.sigma = (size[0], size[1]), stride, sigma
        self.centre, self.window, self.refine = centre, window, refine
        self.unbiased, self.offset, self.flip_shift, self.blur = unbiased, offset, flip_shift, blur
        self.map_size = (size[0] // stride, size[1] // stride)

    @property
    def spacing(self) -> tuple[float, float]:
        """Crop pixels a map pixel, along x and y."""
        return self.spacing_of(self.map_size)

    def spacing_of(self, map_size: Sequence[int]) -> tuple[float, float]:
        """The spacing of maps of another size (h, w), which a crop of another size gives."""
        if not self.unbiased:
            return float(self.stride), float(self.stride)
        h, w = map_size
        return (w * self.stride - 1) / (w - 1), (h * self.stride - 1) / (h - 1)

    def same_frame(self, other: HeatmapCodec) -> bool:
        """Whether the maps of the other codec lie pixel for pixel where those of this one do."""
        return (self.size, self.spacing, self.offset) == (other.size, other.spacing, other.offset)

    def encode(self, points: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Points (N, K, 2) and their weights (N, K) -> maps (N, K, h, w) with peaks of 1, and weights (N, K).

        A point whose window lies wholly outside weighs nothing; the map of a weightless point is 0. Of one
        just outside the map has the tail of its Gaussian.
        """
        h, w = self.map_size
        points = points.float()
        centres = (points - self.offset) / points.new_tensor(self.spacing)
        pixels = (centres + 0.5).trunc()  # towards zero, as the release's int() does
        reach = 3 * self.sigma
        bounds = pixels.new_tensor([w, h])
        inside = ((pixels - reach < bounds) & (pixels + reach + 1 >= 0)).all(dim=-1)  # (N, K)
        weight = weight * inside
        across = self._bell(centres[..., 0], pixels[..., 0], w)  # (N, K, w)
        down = self._bell(centres[..., 1], pixels[..., 1], h)  # (N, K, h)
        down = down * (weight > 0).unsqueeze(-1)
        return down.unsqueeze(-1) * across.unsqueeze(-2), weight

    def _bell(self, centre: Tensor, pixel: Tensor, length: int) -> Tensor:
        """The factor of a Gaussian along one axis: centres (N, K) -> (N, K, length)."""
        places = torch.arange(length, device=centre.device, dtype=torch.float32)
        middle = pixel if self.centre == "rounded" else centre
        values = torch.exp(-((places - middle.unsqueeze(-1)) ** 2) / (2 * self.sigma**2))
        if self.window:
            values = values * ((places - pixel.unsqueeze(-1)).abs() <= 3 * self.sigma)
        return values

    def decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (N, K, h, w) -> points (N, K, 2) and confidences (N, K), the maps' largest values.

        Where no value is above 0 the point is the upper left map pixel, unrefined.
        """
        heatmaps = heatmaps.float()
        n, k, h, w = heatmaps.shape
        flat = heatmaps.reshape(n * k, h * w)
        confidence, index = flat.max(dim=1)
        index = index * (confidence > 0)
        column, row = index % w, index // w
        offset = torch.zeros(n * k, 2, device=heatmaps.device)
        if self.refine == "quarter":
            offset = _quarter(flat.view(n * k, h, w), column, row)
        elif self.refine in ("dark", "udp"):
            refine = _dark if self.refine == "dark" else _udp
            offset = refine(flat.view(n * k, h, w), column, row, self.blur)
        offset = offset * (confidence > 0).unsqueeze(-1)
        places = torch.stack([column, row], dim=-1) + offset
        points = places * offset.new_tensor(self.spacing_of((h, w))) + self.offset
        return points.view(n, k, 2), confidence.view(n, k)

    def join_mirrored(self, direct: Tensor, mirrored: Tensor, mirror: Tensor) -> Tensor:
        """The mean of the maps (N, K, h, w) of a crop and of its mirror image, whose keypoints `mirror` (K,) exchanges."""
        return (direct + moved_right(mirrored.flip(-1)[:, mirror], self.flip_shift)) / 2


def moved_right(maps: Tensor, columns: float) -> Tensor:
    """Maps (..., h, w) moved right by so many columns, left if below 0; between columns linearly interpolated. Columns
    that come in from outside stand as they were there before, as in HRNet's code."""
    whole = math.floor(columns)
    share = columns - whole
    if share:
        return (1 - share) * moved_right(maps, whole) + share * moved_right(maps, whole + 1)
    if whole > 0:
        return torch.cat([maps[..., :whole], maps[..., :-whole]], dim=-1)
    if whole < 0:
        return torch.cat([maps[..., -whole:], maps[..., whole:]], dim=-1)
    return maps


def resample(maps: Tensor, theirs: HeatmapCodec, mine: HeatmapCodec) -> Tensor:
    """Maps (N, K, h, w) in the frame of the codec `theirs` -> in that of `mine`, bilinear, of the same size.

    Resized to the maps of `mine` by areas (`align_corners=False`), they lie where these do. The crops of the two show the
    same, resized by areas too.
    """
    axes = []
    for axis, length in ((1, maps.shape[-1]), (0, maps.shape[-2])):
        place = (torch.arange(length, device=maps.device) + 0.5) * mine.map_size[axis] / length - 0.5
        crop = place * mine.spacing[1 - axis] + mine.offset
        crop = (crop + 0.5) * length * theirs.stride / mine.size[axis] - 0.5
        place = (crop - theirs.offset) / theirs.spacing_of(maps.shape[-2:])[1 - axis]
        axes.append(2 * place / (length - 1) - 1)
    rows, columns = torch.meshgrid(axes[1], axes[0], indexing="ij")
    grid = torch.stack([columns, rows], dim=-1).to(maps).expand(len(maps), -1, -1, -1)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=True)


def blurred_around(maps: Tensor, column: Tensor, row: Tensor, *, reach: int, side: int) -> Tensor:
    """(M, h, w) -> their values around places (M,), (M, 2 reach + 1, 2 reach + 1), after OpenCV's Gaussian of `side`
    pixels with zeros outside. Beyond the border stands its nearest pixel.

    A blurred pixel is a sum over rows of a sum over columns, so only those asked for are made.
    """
    _, h, w = maps.shape
    steps = torch.arange(-reach, reach + 1, device=maps.device)
    kernel = torch.from_numpy(cv2.getGaussianKernel(side, 0)[:, 0]).to(maps)

    def weights(places: Tensor, length: int) -> Tensor:
        """(M, s) -> what each pixel of a line adds to each of the places, (M, s, length)."""
        tap = torch.arange(length, device=maps.device) - places.unsqueeze(-1) + side // 2
        return kernel[tap.clamp(0, side - 1)] * ((tap >= 0) & (tap < side))

    down = weights((row.unsqueeze(1) + steps).clamp(0, h - 1), h)
    across = weights((column.unsqueeze(1) + steps).clamp(0, w - 1), w)
    return down @ maps @ across.transpose(1, 2)


def _quarter(maps: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """(M, h, w) and the places of their peaks (M,) -> offsets (M, 2) in x and y: a quarter towards the larger neighbour."""
    _, h, w = maps.shape
    place = (row * w + column).unsqueeze(-1) + torch.tensor([1, -1, w, -w], device=maps.device)
    right, left, below, above = maps.flatten(1).gather(1, place.clamp(0, h * w - 1)).unbind(-1)
    inside = (column > 1) & (column < w - 1) & (row > 1) & (row < h - 1)
    return 0.25 * torch.stack([right - left, below - above], dim=-1).sign() * inside.unsqueeze(-1)


def _dark(maps: Tensor, column: Tensor, row: Tensor, blur: int) -> Tensor:
    """Likewise, to the peak of a parabola through the log of the blurred maps, by differences over two pixels."""
    _, h, w = maps.shape
    f = blurred_around(maps, column, row, reach=2, side=blur)  # (M, 5, 5), [row, column]
    f = f.clamp(min=1e-10).log()
    slope = torch.stack([f[:, 2, 3] - f[:, 2, 1], f[:, 3, 2] - f[:, 1, 2]], dim=-1) / 2
    xx = (f[:, 2, 4] - 2 * f[:, 2, 2] + f[:, 2, 0]) / 4
    yy = (f[:, 4, 2] - 2 * f[:, 2, 2] + f[:, 0, 2]) / 4
    xy = (f[:, 3, 3] - f[:, 1, 3] - f[:, 3, 1] + f[:, 1, 1]) / 4
    inside = (column > 1) & (column < w - 2) & (row > 1) & (row < h - 2)
    return _newton(slope, xx, yy, xy) * inside.unsqueeze(-1)


def _udp(maps: Tensor, column: Tensor, row: Tensor, blur: int) -> Tensor:
    """As `_dark`, by differences over one pixel, also at the border."""
    f = blurred_around(maps, column, row, reach=1, side=blur).clamp(1e-3, 50.0).log()  # (M, 3, 3)
    slope = torch.stack([f[:, 1, 2] - f[:, 1, 0], f[:, 2, 1] - f[:, 0, 1]], dim=-1) / 2
    xx = f[:, 1, 2] - 2 * f[:, 1, 1] + f[:, 1, 0]
    yy = f[:, 2, 1] - 2 * f[:, 1, 1] + f[:, 0, 1]
    corners = f[:, 2, 2] + f[:, 0, 0]
    sides = f[:, 1, 2] + f[:, 1, 0] + f[:, 2, 1] + f[:, 0, 1]
    return _newton(slope, xx, yy, (corners - sides + 2 * f[:, 1, 1]) / 2)


def _newton(slope: Tensor, xx: Tensor, yy: Tensor, xy: Tensor) -> Tensor:
    """(M, 2) the step to the stationary point of a parabola; none where there is no single one."""
    determinant = xx * yy - xy * xy
    flat = determinant.abs() < 1e-12
    divisor = torch.where(flat, torch.ones_like(determinant), determinant)
    x = -(yy * slope[:, 0] - xy * slope[:, 1]) / divisor
    y = -(xx * slope[:, 1] - xy * slope[:, 0]) / divisor
    return torch.stack([x, y], dim=-1) * ~flat.unsqueeze(-1)
