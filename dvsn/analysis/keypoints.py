"""Poses and landmarks: each person's or face's own score, errors by keypoint and by distance, and curves of the data set's
score."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvsn.analysis.analyst import Analyst, Gather
from dvsn.analysis.point_panel import draw_panels
from dvsn.analysis.precision_curves import OVERLAPS
from dvsn.analysis.record import Chart, Curve, Picture, Row
from dvsn.analysis.versus import TABLE, TEACHER
from dvsn.errors import ConfigError
from dvsn.metrics.ced import cumulative
from dvsn.metrics.detection_errors import RECALLS
from dvsn.metrics.keypoint_ap import KeypointAP
from dvsn.metrics.keypoint_errors import by_keypoint, nearer, within
from dvsn.metrics.landmarks import NME
from dvsn.metrics.pck import groups
from dvsn.portable.crop import from_corner
from dvsn.types import Batch

FARTHEST = 1e4
"""The score of a person whose prediction is not finite, where less is better."""
NOTED = 3  # keypoints in a note
CURVES = 12  # groups of keypoints in a chart
LIMIT, STEP = 0.15, 0.001  # of the curve of cumulative errors


class Found(Analyst):
    """Scores each person or face as the data set's score does a single one: OKS where that is COCO's AP, NME, else the mean
    error relative to the reference length of PCK or PCKh.

    A sample is a person or face, so each is a picture of the record. One that cannot be measured has no score. Where boxes
    were detected, a person is compared with the annotation whose box is most like it (see `KeypointAP.compared`).
    """

    compares = True

    def __init__(self, task: Any, teacher: Any = None) -> None:
        super().__init__(task, teacher)
        self.score, self.better = task.score.person_score, task.score.person_better
        if teacher is not None and len(teacher.keypoints) != len(task.keypoints):
            raise ConfigError(
                f"teacher: answers with {len(teacher.keypoints)} keypoints, the checkpoint with {len(task.keypoints)}; "
                "expected the same ones."
            )
        self.taught: dict[int, np.ndarray] = {}
        """The teacher's points (K, 2) in pixels of the picture, by the person's number."""
        self.errors = np.zeros((0, len(task.keypoints)))
        self.crossed = self.errors
        self.subsets: dict[str, np.ndarray] = {}
        self.beside: list[dict[str, Any]] = []

    # Single people ----------------------------------------------------------------------------------------

    def look(self, batch: Batch, output: Tensor) -> list[Picture]:
        index = batch["index"].cpu().numpy()
        points = as_array(self.task.in_picture(batch, output))
        errors, crossed = self.measure(index, points)
        scores = self.person_scores(errors)
        values: list[dict[str, float]] = [{} for _ in index]
        right, known = self.task.score.right(errors), ~np.isnan(errors)
        for each, good, counted in zip(values, right, known, strict=True):
            if counted.any():
                each["keypoints right"] = float(good[counted].mean())
        if self.score == "oks":
            for each, row in zip(values, errors, strict=True):
                if np.isfinite(row).any():
                    each["error"] = float(np.nanmean(row))
        if self.teacher is not None:
            self.ask_teacher(batch, index, values)
        return [
            Picture(name, float(score), value, note=self.words(row, other))
            for name, score, value, row, other in zip(
                batch["name"], scores, values, errors, crossed, strict=True
            )
        ]

    def measure(self, index: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Errors (N, K) of points (N, K, 2) in pixels of the picture, and which (N, K) are wrong, but right for the keypoint
        of the other side."""
        score, mirror = self.task.score, self.task.keypoints.mirror
        errors = score.relative(index, points)
        if not self.task.keypoints.mirrors or isinstance(
            score, NME
        ):  # points of a face are near those of its other side
            return errors, np.zeros(errors.shape, bool)
        swapped = score.right(score.relative(index, points[:, mirror]))  # of truth k, answer mirror[k]
        wrong = ~np.isnan(errors) & ~score.right(errors)
        return errors, wrong & swapped[:, mirror] & (mirror != np.arange(len(mirror)))

    def person_scores(self, errors: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.task.score.each(errors)
        return np.where(np.isnan(found), np.nan, np.minimum(found, FARTHEST))

    def words(self, errors: np.ndarray, crossed: np.ndarray) -> str:
        """The keypoints of a person that are wrong, the farthest first, such as `left_wrist 0.83, nose 0.41`; and those that
        are where the other side's is."""
        names = self.task.keypoints.names
        wrong = np.flatnonzero(~np.isnan(errors) & ~self.task.score.right(errors))
        wrong = wrong[np.argsort(-errors[wrong], kind="stable")]
        parts = [", ".join(f"{names[n]} {errors[n]:.2f}" for n in wrong[:NOTED])] if len(wrong) else []
        parts += [f"{len(wrong) - NOTED} more"] if len(wrong) > NOTED else []
        other = [n for n in wrong if crossed[n]]
        parts += [f"on the other side: {', '.join(names[n] for n in other[:NOTED])}"] if other else []
        parts += [f"{len(other) - NOTED} more there"] if len(other) > NOTED else []
        return "; ".join(parts)

    def panels(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        """Photo, prediction and label enlarged, truth and prediction with lines between, and the largest of the heatmaps
        where the network has them; the teacher's answer where there is one."""
        measured = self.task.score.compared(batch["index"].cpu().numpy()).labelled[0]
        others = {} if self.teacher is None else {TEACHER: batch["teacher"]}
        return draw_panels(self.task, batch, output, measured, others)

    # A teacher --------------------------------------------------------------------------------------------

    def ask_teacher(self, batch: Batch, index: np.ndarray, values: list[dict[str, float]]) -> None:
        batch["teacher"] = answer_of(self.teacher, batch)
        points = as_array(self.task.in_picture(batch, batch["teacher"]))
        self.taught.update(zip(index.tolist(), points, strict=True))
        for each, score in zip(values, self.person_scores(self.measure(index, points)[0]), strict=True):
            if np.isfinite(score):
                each[TEACHER] = float(score)

    def compare(self, index: np.ndarray, points: np.ndarray) -> list[dict[str, Any]]:
        known = np.isin(index, list(self.taught))
        if not known.any():
            return []
        theirs = np.array([self.taught[number] for number in index[known].tolist()])
        length = self.task.score.compared(index[known]).length
        apart = np.linalg.norm(points[known] - theirs, axis=-1) / length[:, None]
        errors = self.task.score.relative(index[known], theirs)
        return nearer(self.errors[known], errors, apart, self.task.keypoints.names)

    # All together -----------------------------------------------------------------------------------------

    def close(self, gather: Gather) -> None:
        score = self.task.score
        score.compute()  # gathers, and is not repeated
        answers = score.answers()
        self.errors, self.crossed = self.measure(answers.index, answers.points)
        self.subsets = score.by_subset() if isinstance(score, NME) else {}
        self.taught = {number: points for part in gather(self.taught) for number, points in part.items()}
        self.beside = self.compare(answers.index, answers.points)

    def tables(self) -> dict[str, list[Row]]:
        tables = {"error by keypoint": self.rows()}
        return tables | ({TABLE: self.beside} if self.beside else {})

    def rows(self) -> list[dict[str, Any]]:
        """By keypoint: the errors, the share that is right, and how many are where the other side's is."""
        rows = by_keypoint(self.errors, self.task.keypoints.names)
        right = (self.task.score.right(self.errors) & ~np.isnan(self.errors)).sum(axis=0)
        for row, good, crossed in zip(rows, right.tolist(), self.crossed.sum(axis=0).tolist(), strict=True):
            row["right"] = good / row["measured"] if row["measured"] else None
            if self.task.keypoints.pairs and not isinstance(self.task.score, NME):
                row["on the other side"] = crossed
        return rows

    def charts(self) -> tuple[Chart, ...]:
        score = self.task.score
        charts = [*self.bars()]
        charts.append(self.cumulative() if isinstance(score, NME) else self.by_distance())
        if isinstance(score, KeypointAP) and score.curves.size:
            charts += precision_charts(score.curves)
        if self.beside:
            charts.append(self.teacher_bars())
        return tuple(charts)

    def bars(self) -> list[Chart]:
        """By keypoint: the errors, and the share that is right."""
        score, rows = self.task.score, self.rows()
        names = tuple(row["keypoint"] for row in rows)
        shares = Curve("right", names, tuple(row["right"] for row in rows))
        return [
            Chart(
                "error_by_keypoint", "Error by keypoint", "keypoint", f"error, relative to {score.unit}",
                tuple(Curve(key, names, tuple(row[key] for row in rows)) for key in ("mean", "median")), "bars",
                note="A mean far above the median: a few are far off.",
            ),
            Chart(
                "right_by_keypoint", "Keypoints that are right", "keypoint", "share", (shares,), "bars",
                note=f"Right: {score.right_words}.",
            ),
        ]  # fmt: skip

    def by_distance(self) -> Chart:
        """The share of keypoints within a distance, of all and of each pair."""
        score = self.task.score
        at = np.linspace(0, 2 * score.threshold, 51)
        members = groups(self.task.keypoints)
        parts = {"all": self.errors} | (
            {name: self.errors[:, numbers] for name, numbers in members.items()}
            if len(members) <= CURVES
            else {}
        )
        curves = tuple(
            Curve(name, tuple(at.round(4).tolist()), tuple(within(part, at + 1e-12).tolist()))
            for name, part in parts.items()
        )
        return Chart(
            "distance",
            "Keypoints within a distance",
            f"distance, relative to {score.unit}",
            "share of keypoints",
            curves,
        )

    def cumulative(self) -> Chart:
        """The share of faces within an error, of all and of each part of the data set."""
        score = self.task.score
        at = np.arange(round(LIMIT / STEP) + 1) * STEP
        curves = tuple(
            Curve(
                f"{name} ({len(errors)})",
                tuple(at.round(4).tolist()),
                tuple(cumulative(errors, at + 1e-12).tolist()),
            )
            for name, errors in self.subsets.items()
            if len(errors)
        )
        figures = score.figures(self.subsets["all"])
        told = [
            f"to {limit:g}: area {figures[f'auc_{round(100 * limit):02d}']:.3f}, "
            f"{100 * figures[f'fr_{round(100 * limit):02d}']:.1f} % above it"
            for limit in score.thresholds
        ]
        return Chart(
            "ced", "Cumulative errors", f"NME, relative to {score.unit}", "share of faces", curves,
            note=f"Of all, {'; '.join(told)}. Mean {figures['nme']:.4f}.",
        )  # fmt: skip

    def teacher_bars(self) -> Chart:
        rows = self.beside[:-1]
        names, every = tuple(row["keypoint"] for row in rows), self.beside[-1]
        return Chart(
            "teacher", "Student and teacher by keypoint", "keypoint", f"mean error, relative to {self.task.score.unit}",
            tuple(Curve(key, names, tuple(row[key] for row in rows)) for key in ("student", "teacher", "apart")), "bars",
            note=f"apart: the mean distance between both. Of {every['measured']} keypoints the student is nearer to the "
            f"truth in {every['student nearer']}, the teacher in {every['teacher nearer']}.",
        )  # fmt: skip


def precision_charts(curves: np.ndarray) -> list[Chart]:
    """Of COCO's precision (T, R): the average precision by similarity, and precision by recall."""
    at, recalls = tuple(OVERLAPS.round(2).tolist()), tuple(RECALLS.round(2).tolist())
    if (curves < 0).any():
        return []
    drawn = {"OKS 0.5": curves[0], "OKS 0.75": curves[5], "mean of OKS 0.5 to 0.95": curves.mean(axis=0)}
    return [
        Chart(
            "ap_by_oks", "Average precision by similarity", "OKS from which a person is right", "AP",
            (Curve("people", at, tuple(curves.mean(axis=1).tolist())),), note="COCO's AP is the mean of the ten.",
        ),
        Chart(
            "precision_recall", "Precision and recall of people", "recall", "precision",
            tuple(Curve(f"{name}, AP {row.mean():.3f}", recalls, tuple(row.tolist())) for name, row in drawn.items()),
        ),
    ]  # fmt: skip


def answer_of(teacher: Any, batch: Batch) -> Tensor:
    """A teacher's answer (N, K, 3) for the student's crops: points in pixels of these, counted as their keypoints are, and
    confidences.

    The teacher is shown the crops at its own size.
    """
    image = batch["image"]
    size = teacher.teaching_size or tuple(image.shape[-2:])
    seen = image if tuple(image.shape[-2:]) == tuple(size) else torch.nn.functional.interpolate(
        image.float(), size=tuple(size), mode="bilinear", align_corners=False, antialias=True
    )  # fmt: skip
    offset = theirs = image.new_zeros(len(image), dtype=torch.float32)
    if "offset" in batch:
        offset = batch["offset"]
        if teacher.response == "points":
            theirs = from_corner(size[1], batch["extent"][:, 0])
    answer = teacher(seen, theirs if "offset" in batch else None)
    sides = answer.new_tensor([image.shape[-1] / size[1], image.shape[-2] / size[0]])
    places = (answer[..., :2] - theirs.view(-1, 1, 1) + 0.5) * sides - 0.5
    return torch.cat([places + offset.view(-1, 1, 1), answer[..., 2:]], dim=-1)


def as_array(points: Tensor) -> np.ndarray:
    found: np.ndarray = points.detach().cpu().double().numpy()
    return found
