"""What is found of image translation: PSNR and SSIM by picture, by class of the label map, and where the difference lies."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import cv2
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from dvsn.analysis import versus
from dvsn.analysis.analyst import Analyst, Gather, add_up
from dvsn.analysis.record import Chart, Curve, Picture, Row
from dvsn.types import Batch

SMALLEST = 1e-10
"""The mean squared error, at least: a PSNR of 100 dB, of pictures that are equal."""
GAIN = 2
"""How much a difference is strengthened before it is painted: half of the range is white."""


class Found(Analyst):
    """The score of a picture is its PSNR in dB, of RGB in [0, 1]; 100 at most.

    Its values: `ssim`, torchmetrics' with its defaults; `l1`, the mean absolute error in [0, 1].

    By class of the label map that was painted: the PSNR of the mean squared error over all its pixels of the split, and
    the mean of SSIM's map over them. A window of SSIM at an edge also sees the neighbours.
    """

    score: str = "psnr"
    compares: ClassVar[bool] = True

    def __init__(self, task: Any, teacher: Any = None) -> None:
        super().__init__(task, teacher)
        self._names: tuple[str, ...] = ()
        self._sums = torch.zeros(0, 3, dtype=torch.float64)  # pixels, squared error, SSIM
        self._pairs = torch.zeros(5, dtype=torch.float64)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._names

    def look(self, batch: Batch, output: Tensor) -> list[Picture]:
        real = batch["target"].float() / 255
        taught = None
        if self.teacher is not None:
            with torch.random.fork_rng(
                devices=[output.device] if output.is_cuda else []
            ):  # its dropout draws, perhaps
                taught = batch["teacher"] = self.teacher(batch["image"])
        labels = self.task.label_map(batch["image"])
        found = []
        for number, name in enumerate(batch["name"]):
            part = slice(number, number + 1)
            error, similar = compare(output[part], real[part])
            values = {"ssim": float(similar.mean()), "l1": float((output[part] - real[part]).abs().mean())}
            if labels is not None:
                self._add(labels[0][number], labels[1], error, similar)
            score = psnr(float(error.mean()))
            if taught is not None:
                theirs, like = compare(taught[part], real[part])
                values |= {versus.TEACHER: psnr(float(theirs.mean())), "teacher_ssim": float(like.mean())}
                apart = float((output[part] - taught[part]).abs().mean())
                mine = [1.0, score, values["ssim"], values[versus.TEACHER], values["teacher_ssim"]]
                values["distance_to_teacher"] = apart
                self._pairs += torch.tensor(mine, dtype=torch.float64)
            found.append(Picture(name, score, values))
        return found

    def _add(self, ids: Tensor, names: tuple[str, ...], error: Tensor, similar: Tensor) -> None:
        """Add the maps (H, W) of a picture to the sums by class (H, W), of which those from K on do not count."""
        if not self._names:
            self._names, self._sums = names, torch.zeros(len(names), 3, dtype=torch.float64)
        known = ids < len(names)
        rows = torch.stack([torch.ones_like(error), error, similar], dim=-1)[known].double().cpu()
        self._sums.index_add_(0, ids[known].long().cpu(), rows)

    def panels(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.task.panels(batch, output)
        if self.teacher is not None:
            taught = (batch["teacher"].clamp(0, 1) * 255).round().to(torch.uint8)
            found["teacher"] = taught.expand(-1, 3, -1, -1)
        return found | {"difference": difference(output, batch["target"])}

    def close(self, gather: Gather) -> None:
        names = [each for each in gather(self._names) if each]
        if names:
            self._names = names[0]
            sums = self._sums if len(self._sums) else torch.zeros(len(names[0]), 3, dtype=torch.float64)
            self._sums = add_up(gather, sums)
        self._pairs = add_up(gather, self._pairs)

    def _rows(self) -> list[Row]:
        rows: list[Row] = []
        for name, (count, error, similar) in zip(self._names, self._sums.tolist(), strict=True):
            if count:
                rows.append(
                    {
                        "class": name,
                        "psnr": psnr(error / count),
                        "ssim": similar / count,
                        "pixels": int(count),
                    }
                )
        return rows

    def tables(self) -> dict[str, list[Row]]:
        found = {}
        if rows := self._rows():
            found["classes of the label map"] = rows
        count, *sums = self._pairs.tolist()
        if count:
            means = [value / count for value in sums]
            found[versus.TABLE] = [
                {"who": who, "psnr": means[place], "ssim": means[place + 1]}
                for who, place in (("student", 0), ("teacher", 2))
            ]
        return found

    def charts(self) -> tuple[Chart, ...]:
        rows, charts = self._rows(), []
        names = tuple(str(row["class"]) for row in rows)
        for key, title, axis in (("psnr", "PSNR", "PSNR in dB"), ("ssim", "SSIM", "SSIM")) if rows else ():
            curve = Curve(title, names, tuple(row[key] for row in rows))  # type: ignore[misc]
            charts.append(Chart(key, f"{title} by class of the label map", "class", axis, (curve,), "bars"))
        return tuple(charts)


def compare(generated: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """RGB or grey (1, 3 or 1, H, W) in [0, 1] -> maps (H, W) of the squared error and of SSIM, the mean over colours."""
    generated, real = generated.float().contiguous(), real.float().contiguous()
    error = (generated - real).pow(2).mean(dim=1)[0]
    _, similar = structural_similarity_index_measure(
        generated, real, data_range=1.0, reduction="none", return_full_image=True
    )
    return error, similar.mean(dim=1)[0]  # type: ignore[union-attr]


def psnr(error: float) -> float:
    """Of a mean squared error of values in [0, 1], in dB."""
    return -10 * math.log10(max(error, SMALLEST))


def difference(generated: Tensor, real: Tensor) -> Tensor:
    """Float RGB or grey (1, 3 or 1, H, W) in [0, 1] and uint8 -> the mean absolute difference of the colours, from black
    over red to pale yellow: uint8 RGB (1, 3, H, W)."""
    apart = (generated.float().clamp(0, 1) * 255 - real.float()).abs().mean(dim=1)[0]
    strength = (apart * GAIN).clamp(0, 255).round().to(torch.uint8).cpu().numpy()
    painted = cv2.cvtColor(cv2.applyColorMap(strength, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    return torch.from_numpy(painted).permute(2, 0, 1)[None].to(real.device)
