"""Student and teacher side by side: where they agree, and where each alone is right."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dvsn.analysis.analyst import Gather, add_up
from dvsn.analysis.record import Picture, Row

TABLE = "student and teacher"
TEACHER, ONLY_STUDENT, ONLY_TEACHER, SAME = "teacher", "only_student", "only_teacher", "same_answer"
"""The further scores of a picture: the teacher's score, the shares of its pixels (1 or 0 of a class of the picture) of
which one alone is right, and on which both give the same answer."""
ROUNDING = 1e-4
"""A difference of scores below it is none."""


class Versus:
    """Counts by true class: neither is right, the teacher alone, the student alone, both; and the same answer.

    `counts` (K, 5) int64.
    """

    def __init__(self, classes: int) -> None:
        self.counts = torch.zeros(classes, 5, dtype=torch.int64)

    def add(self, truth: Tensor, student: Tensor, teacher: Tensor) -> dict[str, float]:
        """Class ids of equal shape, all of which count. Returns the shares of this picture by name."""
        truth, student, teacher = (each.long() for each in (truth, student, teacher))
        case = 2 * (student == truth) + (teacher == truth)
        classes = len(self.counts)
        counts = torch.bincount(truth * 4 + case, minlength=4 * classes).reshape(classes, 4)
        same = torch.bincount(truth[student == teacher], minlength=classes)
        found = torch.cat([counts, same[:, None]], dim=1).cpu()
        self.counts += found
        _, only_teacher, only_student, _, same_answer = (found.sum(dim=0) / max(1, truth.numel())).tolist()
        return {ONLY_STUDENT: only_student, ONLY_TEACHER: only_teacher, SAME: same_answer}

    def close(self, gather: Gather) -> None:
        self.counts = add_up(gather, self.counts)

    def table(self, names: Sequence[str], unit: str) -> list[Row]:
        """A row a class that is there, and one of all: shares that are right, the same answer, who alone is right."""
        rows: list[Row] = []
        for name, each in zip((*names, "all"), (*self.counts, self.counts.sum(dim=0)), strict=True):
            _, teacher, student, both, same = each.tolist()
            total = int(each[:4].sum())
            if total:
                rows.append({
                    "class": name, "student": (student + both) / total, "teacher": (teacher + both) / total,
                    "same answer": same / total, "only the student": student, "only the teacher": teacher, unit: total,
                })  # fmt: skip
        return rows


def apart(pictures: Sequence[Picture], score: str, better: str, most: int = 20) -> dict[str, list[Row]]:
    """Tables of the pictures on which teacher and student differ most in the pictures' score, one for each who is better."""
    sign = 1 if better == "more" else -1
    leads = [(sign * (each.score - each.values.get(TEACHER, float("nan"))), each) for each in pictures]
    tables: dict[str, list[Row]] = {}
    for who, way in (("teacher", -1), ("student", 1)):
        ranked = sorted(
            (-way * lead, place) for place, (lead, _) in enumerate(leads) if way * lead > ROUNDING
        )[:most]
        if ranked:
            tables[f"pictures on which the {who} is better"] = [
                {
                    "picture": leads[place][1].name,
                    f"{score} of the student": leads[place][1].score,
                    f"{score} of the teacher": leads[place][1].values[TEACHER],
                }
                for _, place in ranked
            ]
    return tables
