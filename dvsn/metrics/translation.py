"""How close generated pictures are to the real ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, Metric, MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from dvsn.errors import ConfigError

INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth, from the releases of torch-fidelity"
BACKBONE_FILES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}


def translation_metrics(
    *,
    inception_weights: str | None = None,
    lpips_weights: str | None = None,
    lpips_network: str = "alex",
    kid_subset_size: int = 50,
) -> MetricCollection:
    """Metrics of (generated, real), both float RGB (N, 3, H, W) in [0, 1]. Nothing is downloaded.

    - `l1`, `psnr` (dB) and `ssim`: always; means over pictures.
    - `fid`, `kid`: where `inception_weights` names the file of FID's own Inception.
    - `lpips`: where `lpips_weights` names torchvision's backbone file.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        "l1": MeanAbsoluteError(),
        "psnr": PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3), reduction="elementwise_mean"),
        "ssim": StructuralSimilarityIndexMeasure(data_range=1.0),
    }
    if inception_weights is not None:
        metrics["fid"], metrics["kid"] = inception_metrics(inception_weights, kid_subset_size)
    if lpips_weights is not None:
        metrics["lpips"] = Lpips(network=lpips_network, weights=lpips_weights)
    return MetricCollection(metrics, compute_groups=False)  # type: ignore[arg-type]


def inception_metrics(weights: str, subset_size: int) -> tuple[Metric, Metric]:
    """FID and KID over one Inception network read from `weights`."""
    require_weights(weights, option="metrics.inception_weights", expected=INCEPTION_FILE)
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3
    except (ImportError, ModuleNotFoundError) as error:  # pragma: no cover - depends on the installation
        raise ConfigError(missing_fidelity()) from error
    try:
        features = NoTrainInceptionV3("inception-v3-compat", ["2048"], weights)
    except ModuleNotFoundError as error:
        raise ConfigError(missing_fidelity()) from error
    except (RuntimeError, OSError, ValueError) as error:
        raise ConfigError(
            f"metrics.inception_weights: {weights} is not the Inception file of FID ({INCEPTION_FILE}): {error}"
        ) from error
    return distribution_metrics(features, subset_size=subset_size)


def require_two(seen: int) -> None:
    """A distribution has no spread below two pictures."""
    if seen < 2:
        raise ConfigError(
            f"metrics.inception_weights: FID and KID need at least 2 pictures, found {seen} in this split. Set "
            "metrics.inception_weights=null."
        )


def missing_fidelity() -> str:
    return "metrics.inception_weights: FID and KID need torch-fidelity. Install it with: pip install 'dvsn[metrics]'"


def distribution_metrics(features: nn.Module, *, subset_size: int = 50) -> tuple[Metric, Metric]:
    """FID and KID over any network that turns uint8 (N, 3, H, W) into features (N, D)."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    class Fid(FrechetInceptionDistance):
        """Heusel et al., 2017, arXiv:1706.08500: generated test pictures against real test pictures."""

        def update(self, generated: Tensor, real: Tensor) -> None:  # type: ignore[override]
            super().update(as_bytes(real), real=True)
            super().update(as_bytes(generated), real=False)

        def compute(self) -> Tensor:  # type: ignore[override]
            require_two(int(self.real_features_num_samples))  # type: ignore[arg-type]
            return super().compute()

    class Kid(KernelInceptionDistance):
        """Binkowski et al., 2018, arXiv:1801.01401: the mean over 100 subsets, of at most the pictures seen."""

        def update(self, generated: Tensor, real: Tensor) -> None:  # type: ignore[override]
            super().update(as_bytes(real), real=True)
            super().update(as_bytes(generated), real=False)

        def compute(self) -> Tensor:  # type: ignore[override]
            seen = sum(len(part) for part in self.real_features)  # type: ignore[union-attr, arg-type]
            require_two(seen)
            self.subset_size = min(subset_size, seen)
            return super().compute()[0]

    return Fid(feature=features), Kid(feature=features, subset_size=subset_size)


class Lpips(Metric):
    """Learned perceptual distance (Zhang et al., 2018, arXiv:1801.03924), the mean over pictures.

    The linear heads ship with torchmetrics; the backbone is read from `weights`, torchvision's file for
    `alex`, `vgg` or `squeeze`.
    """

    full_state_update = False
    higher_is_better = False
    total: Tensor
    count: Tensor

    def __init__(self, *, network: str, weights: str) -> None:
        super().__init__()
        from torchmetrics.functional.image.lpips import _LPIPS

        if network not in BACKBONE_FILES:
            raise ConfigError(
                f"metrics.lpips_network: found '{network}', expected one of {sorted(BACKBONE_FILES)}."
            )
        require_weights(
            weights, option="metrics.lpips_weights", expected=f"torchvision's {BACKBONE_FILES[network]}"
        )
        self.net = _LPIPS(net=network, pnet_rand=True).eval()  # type: ignore[arg-type]
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            self._load_backbone({k: v for k, v in state.items() if k.startswith("features.")}, weights)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"metrics.lpips_weights: {weights} does not fit the '{network}' backbone "
                f"({BACKBONE_FILES[network]}): {str(error).splitlines()[0]}"
            ) from error
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def _load_backbone(self, state: dict[str, Tensor], weights: str) -> None:
        """Torchvision numbers its layers straight through; the slices of LPIPS keep those numbers."""
        wanted = {re.sub(r"^slices?\.?\d+", "features", name): name for name in self.net.net.state_dict()}
        if not wanted or set(wanted) - set(state):
            missing = sorted(set(wanted) - set(state))[:3]
            raise ConfigError(
                f"metrics.lpips_weights: {weights} lacks {', '.join(missing)}; it is another network's. Expected "
                f"torchvision's {BACKBONE_FILES[self.net.pnet_type]}, or set metrics.lpips_network."
            )
        self.net.net.load_state_dict({wanted[key]: state[key] for key in wanted}, strict=True)

    @torch.no_grad()
    def update(self, generated: Tensor, real: Tensor) -> None:
        distance = self.net(generated.float(), real.float(), normalize=True)
        self.total += distance.double().sum()
        self.count += distance.numel()

    def compute(self) -> Tensor:
        return (self.total / self.count).float()


def as_bytes(image: Tensor) -> Tensor:
    return (image.float().clamp(0, 1) * 255).round().to(torch.uint8)


def require_weights(path: Any, *, option: str, expected: str) -> None:
    if not Path(path).is_file():
        raise ConfigError(
            f"{option}: no file at {path}. Expected {expected}. dvsn downloads nothing by itself."
        )
