"""The answer: which file is recommended, the front of all, a table, a picture, and a paragraph in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from dvsn.atomic import write_json
from dvsn.compress.budget import spoken
from dvsn.compress.finish import File
from dvsn.compress.question import Question
from dvsn.pictures import figures
from dvsn.pictures.figures import BLUE, GREEN, GREY, INK
from dvsn.report.pareto import front
from dvsn.report.table import Report, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Answer:
    """What is made of the files, which are timed and measured on val; that of the teacher in full precision is the first."""

    question: Question
    files: Sequence[File]
    trainings: Sequence[Mapping[str, Any]] = ()
    excluded: Mapping[str, str] = field(default_factory=dict)
    """Candidates that were over the budget before any training, and by how much."""

    def __post_init__(self) -> None:
        self.teacher = self.files[0]
        self.scored = [file for file in self.files if "val" in file.scores]
        on = front([(file.latency, self.gain(file)) for file in self.scored])
        self.order = sorted((self.scored[at] for at in on), key=lambda file: file.latency)
        """The front of score and latency, the fastest first."""
        asked = [file for file in self.scored if file is not self.teacher and self.meets(file)]
        self.best = max(asked, key=lambda file: (self.gain(file), -file.latency), default=None)
        """Of those that meet the budget and the floor, the best score on val. The teacher as it is is no answer."""

    def gain(self, file: File) -> float:
        """The score on val, of which more is better."""
        return self.question.sign * file.scores["val"]

    def lost(self, file: File) -> float:
        """Points of a hundred below the teacher."""
        return self.question.floor.lost(self.teacher.scores["val"], file.scores["val"])

    def meets(self, file: File) -> bool:
        fits = not self.question.budget.beyond(file.costs)
        return fits and self.question.floor.holds(self.teacher.scores["val"], file.scores["val"])

    def write(self) -> str:
        """Write answer.json, .txt, .csv, .md, .png and .svg into the folder, and return the text."""
        question = self.question
        rows = [self.row(file) for file in sorted(self.scored, key=self.gain, reverse=True)]
        told = f"{question.named.name}: the best network that meets {self.bounds()}"
        table = Table(
            "files",
            list(rows[0]),
            [["" if each is None else str(each) for each in row.values()] for row in rows],
            left=frozenset({0}),
        )
        lines = []
        if self.best is not None:
            lines = ["The lines that make it again:", "", *(f"    {line}" for line in self.best.lines)]
        text = [told, "", self.paragraph(), "", *table.text(), "", *lines]
        marked = [f"# {told}", "", self.paragraph(), "", *table.markdown(), "", *lines]
        content = {
            "recommended": None if self.best is None else str(self.best.path),
            "bounds": {**question.budget.asked, "percentile": question.budget.percentile, "drop": question.floor.drop,
                       "least": question.floor.least},
            "score": question.score,
            "files": [{**asdict(each), "path": str(each.path), "checkpoint": str(each.checkpoint)} for each in self.files],
            "front": [file.name for file in self.order],
            "excluded": dict(self.excluded),
            "trainings": list(self.trainings),
        }  # fmt: skip
        write_json(question.folder / "answer.json", content)
        pictures = {f"answer.{ending}": data for ending, data in figures.files(self.draw).items()}
        report = Report("answer", "\n".join(text) + "\n", "\n".join(marked) + "\n", rows, pictures)
        return report.write(question.folder)

    def bounds(self) -> str:
        """What is asked for, in words."""
        asked = [f"{name} {spoken(name, value)}" for name, value in self.question.budget.asked.items()]
        if self.question.floor.drop is not None:
            asked.append(f"a drop of {self.question.floor.drop:g} points")
        if self.question.floor.least is not None:
            asked.append(f"{self.question.score} {self.question.floor.least:g}")
        return ", ".join(asked) or "no bound"

    def row(self, file: File) -> dict[str, Any]:
        """A line of the table."""
        score, costs = self.question.score, file.costs
        return {
            "file": file.name,
            f"{score} val": round(file.scores["val"], 5),
            "deviation": None if file.deviation is None else round(file.deviation, 5),
            "points lost": round(self.lost(file), 2),
            f"{score} test": None if "test" not in file.scores else round(file.scores["test"], 5),
            "p50 ms": round(costs["p50"] or 0.0, 3),
            "p95 ms": round(costs["p95"] or 0.0, 3),
            "times as fast": round(self.faster(file), 2),
            "MB": round((costs["size"] or 0.0) / 1e6, 3),
            "M macs": round((costs["macs"] or 0.0) / 1e6, 1),
            "front": "yes" if file in self.order else "",
            "recommended": "yes" if file is self.best else "",
        }

    def faster(self, file: File) -> float:
        return (self.teacher.costs["p50"] or 0.0) / (file.costs["p50"] or 1.0)

    # Words ----------------------------------------------------------------------------------------------

    def paragraph(self) -> str:
        """What was gained, what was lost and what was not tried."""
        said = (
            [f"No file meets {self.bounds()}. {self.closest()}"]
            if self.best is None
            else self.gained(self.best)
        )
        if self.excluded:
            listed = "; ".join(f"{name}: {reason}" for name, reason in self.excluded.items())
            said.append(f"Over the budget before any training: {listed}.")
        said.append(f"Selected on val only. Not tried: {', '.join(self.question.untried)}.")
        return " ".join(part for part in said if part)

    def gained(self, best: File) -> list[str]:
        """Of the recommended file."""
        row, lost, score = self.row(best), self.lost(best), self.question.score
        change = f"{abs(lost):.2f} points {'less' if lost > 0 else 'more'} than" if lost else "the same as"
        test = "Test was not measured."
        if "test" in best.scores:
            own = self.teacher.scores.get("test")
            test = f"On test, measured once: {best.scores['test']:.4f}{'' if own is None else f', the teacher {own:.4f}'}."
        return [
            f"{best.path} answers in {row['p50 ms']:g} ms (p95 {row['p95 ms']:g}), {row['times as fast']:g} times as fast "
            f"as the teacher's file of full precision {self.where()} ({self.teacher.costs['p50']:.3g} ms), "
            f"and has {row['MB']:g} MB instead of {(self.teacher.costs['size'] or 0.0) / 1e6:.3g}.",
            f"On val it has {score} {best.scores['val']:.4f}, {change} the teacher ({self.teacher.scores['val']:.4f}).",
            test,
            self.chance(best),
        ]

    def where(self) -> str:
        """Where the latencies come from."""
        device = self.question.device
        if device is None:
            return "in turns on this machine"
        return (
            f"by the table {device.path.name} ({device.said}), which was measured on files of the same architecture with "
            "random weights"
        )

    def chance(self, best: File) -> str:
        """Whether the next student could as well be the best one."""
        others = (each for each in self.scored if each.student != best.student and not each.is_teacher)
        rival = max(filter(self.meets, others), key=self.gain, default=None)
        if best.is_teacher or rival is None:
            return ""
        apart = abs(best.scores["val"] - rival.scores["val"])
        if best.deviation is None or rival.deviation is None:
            return f"One seed was trained, so its lead of {apart:.4f} over {rival.name} may be chance."
        if apart <= best.deviation + rival.deviation:
            return f"Its lead of {apart:.4f} over {rival.name} is within the deviation of the seeds: it may be chance."
        return ""

    def closest(self) -> str:
        """The file that is nearest to what was asked for, and what it lacks."""
        others = [file for file in self.scored if file is not self.teacher]
        if not others:
            return "None could be measured."
        budget, drop = self.question.budget, self.question.floor.drop or 0.0

        def short(file: File) -> tuple[float, float]:
            """How far it is over the budget, and then below the floor."""
            return max(budget.beyond(file.costs).values(), default=0.0), max(0.0, self.lost(file) - drop)

        near = min(others, key=short)
        over = ", ".join(
            f"{name} {spoken(name, near.costs[name] or 0.0)}" for name in budget.beyond(near.costs)
        )
        return f"The nearest is {near.name}: {over or 'within the budget'}, {self.lost(near):.2f} points below the teacher."

    # Picture --------------------------------------------------------------------------------------------

    def draw(self) -> Figure:
        """Score against latency: the front as steps, the recommended file ringed, the budget as a line."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.6, 4.8), layout="constrained")
        axes = figure.subplots()
        steps = [(file.latency, file.scores["val"]) for file in self.order]
        axes.plot(*zip(*steps, strict=True), color=GREEN, linewidth=1.3, drawstyle="steps-post", zorder=1)
        for file in self.scored:
            colour = GREY if file.is_teacher else GREEN if file in self.order else BLUE
            place, mark = (file.latency, file.scores["val"]), "s" if file.precision == "int8" else "o"
            axes.plot(*place, mark, color=colour, markersize=6)
            if file is self.best:
                axes.plot(
                    *place,
                    "o",
                    markersize=14,
                    markerfacecolor="none",
                    markeredgecolor=GREEN,
                    markeredgewidth=1.6,
                )
            axes.annotate(
                figures.words(file.name, 34),
                place,
                xytext=(6, 5),
                textcoords="offset points",
                fontsize=7.5,
                color=INK,
            )
        if self.question.budget.latency is not None:
            axes.axvline(self.question.budget.latency, color=GREY, linestyle="--", linewidth=1)
        times = [file.latency for file in self.scored]
        axes.margins(x=0.18, y=0.12)
        if max(times) > 20 * min(times):
            figures.logarithmic(axes)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        axes.set_xlabel(f"latency of the exported file, p{self.question.budget.percentile}, milliseconds")
        axes.set_ylabel(
            f"{self.question.score} on val, {'more' if self.question.sign > 0 else 'less'} is better"
        )
        said = "Squares are 8 bits; grey is the teacher; the ring is what is recommended"
        axes.set_title(said, fontsize=8.5, color=INK)
        return figure
