"""The answer: which file is recommended, the front of all, a table, a picture, and a paragraph in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvsn.atomic import replacing, write_csv, write_json
from dvsn.compress.budget import spoken
from dvsn.compress.finish import File, meets
from dvsn.compress.question import Question
from dvsn.pictures import figures
from dvsn.pictures.figures import BLUE, GREEN, GREY, INK
from dvsn.report.pareto import front

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_TRIED = "pruned forms of the teacher, smaller pictures, and networks outside the list of candidates"


def decide(question: Question, files: Sequence[File]) -> tuple[File | None, list[File]]:
    """The recommended file, of the best score on val among those that meet the budget and the floor, or None; and the front
    of score and latency, the fastest first. The teacher's own file in full precision is not recommended."""
    teacher = score_of_teacher(files)
    scored = [file for file in files if "val" in file.scores and file.costs.get("latency") is not None]
    places = [(float(file.costs["latency"] or 0.0), question.sign * file.scores["val"]) for file in scored]
    on = front(places)
    order = sorted((scored[at] for at in on), key=lambda file: float(file.costs["latency"] or 0.0))
    asked = [f for f in scored if meets(question, f, teacher, question.budget) and not plain_teacher(f)]
    best = max(
        asked,
        key=lambda f: (question.sign * f.scores["val"], -float(f.costs["latency"] or 0.0)),
        default=None,
    )
    return best, order


def plain_teacher(file: File) -> bool:
    return file.is_teacher and file.precision != "int8"


def score_of_teacher(files: Sequence[File]) -> float:
    return next(file.scores["val"] for file in files if plain_teacher(file))


def write(
    question: Question,
    files: Sequence[File],
    *,
    best: File | None,
    order: Sequence[File],
    trainings: Sequence[Mapping[str, Any]],
    excluded: Mapping[str, str],
) -> str:
    """Write answer.json, .csv, .md, .png and .svg into the folder, and return the text."""
    rows = [
        row_of(question, file, files, best=file is best, on_front=file in order)
        for file in ranked(question, files)
    ]
    text = "\n\n".join(
        [
            f"# {question.named.name}: the best network that meets {bounds(question)}",
            paragraph(question, files, best, excluded),
            table(rows),
            *([lines(best)] if best is not None else []),
        ]
    )
    content = {
        "recommended": None if best is None else str(best.path),
        "bounds": {**question.budget.asked, "percentile": question.budget.percentile, "drop": question.floor.drop,
                   "least": question.floor.least},
        "score": question.score,
        "files": [{**asdict(file), "path": str(file.path), "checkpoint": str(file.checkpoint)} for file in files],
        "front": [file.name for file in order],
        "excluded": dict(excluded),
        "trainings": list(trainings),
    }  # fmt: skip
    write_json(question.folder / "answer.json", content)
    write_csv(question.folder / "answer.csv", rows)
    write_bytes(question.folder / "answer.md", f"{text}\n".encode())
    for ending, data in figures.files(lambda: draw(question, files, best, order)).items():
        write_bytes(question.folder / f"answer.{ending}", data)
    return text


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def ranked(question: Question, files: Sequence[File]) -> list[File]:
    """By the score on val, the best first; those without one last."""
    return sorted(
        files, key=lambda f: -question.sign * f.scores["val"] if "val" in f.scores else float("inf")
    )


def bounds(question: Question) -> str:
    """What is asked for, in words."""
    asked = [f"{name} {spoken(name, value)}" for name, value in question.budget.asked.items()]
    if question.floor.drop is not None:
        asked.append(f"a drop of {question.floor.drop:g} points")
    if question.floor.least is not None:
        asked.append(f"{question.score} {question.floor.least:g}")
    return ", ".join(asked) or "no bound"


def row_of(
    question: Question, file: File, files: Sequence[File], *, best: bool, on_front: bool
) -> dict[str, Any]:
    """A line of the table."""
    teacher = next(each for each in files if plain_teacher(each))
    val = file.scores.get("val")
    p50, size = float(file.costs["p50"] or 0.0), float(file.costs["size"] or 0.0)
    return {
        "file": file.name,
        f"{question.score} val": None if val is None else round(val, 5),
        "deviation": None if file.deviation is None else round(file.deviation, 5),
        "points lost": None if val is None else round(question.floor.lost(teacher.scores["val"], val), 2),
        f"{question.score} test": None if "test" not in file.scores else round(file.scores["test"], 5),
        "p50 ms": round(p50, 3),
        "p95 ms": round(float(file.costs["p95"] or 0.0), 3),
        "times faster": round(float(teacher.costs["p50"] or 0.0) / p50, 2),
        "MB": round(size / 1e6, 3),
        "M macs": round(float(file.costs["macs"] or 0.0) / 1e6, 1),
        "front": "yes" if on_front else "",
        "recommended": "yes" if best else "",
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in Markdown."""
    names = list(rows[0])
    body = [
        "| " + " | ".join("" if row[name] is None else str(row[name]) for name in names) + " |"
        for row in rows
    ]
    return "\n".join(["| " + " | ".join(names) + " |", "|" + "---|" * len(names), *body])


def paragraph(
    question: Question, files: Sequence[File], best: File | None, excluded: Mapping[str, str]
) -> str:
    """What was gained, what was lost and what was not tried."""
    teacher = next(file for file in files if plain_teacher(file))
    said = []
    if best is None:
        said.append(f"No file meets {bounds(question)}. {closest(question, files)}")
    else:
        row = row_of(question, best, files, best=True, on_front=True)
        lost = row["points lost"]
        change = f"{lost:g} points less" if lost > 0 else f"{-lost:g} points more" if lost < 0 else "the same"
        said.append(
            f"{best.path} answers in {row['p50 ms']:g} ms (p95 {row['p95 ms']:g}), {row['times faster']:g} times faster "
            f"than the teacher's file of full precision in turns on this machine ({float(teacher.costs['p50'] or 0):.3g} "
            f"ms), and has {row['MB']:g} MB instead of {float(teacher.costs['size'] or 0) / 1e6:.3g}."
        )
        said.append(f"On val it has {question.score} {best.scores['val']:.4f}, {change} than the teacher "
                    f"({teacher.scores['val']:.4f})." + on_test(question, best, teacher))  # fmt: skip
        said.append(chance(question, files, best))
    if excluded:
        listed = "; ".join(f"{name}: {reason}" for name, reason in excluded.items())
        said.append(f"Over the budget before any training: {listed}.")
    said.append(f"Selected on val only. Not tried: {NOT_TRIED}.")
    return " ".join(part for part in said if part)


def on_test(question: Question, best: File, teacher: File) -> str:
    if "test" not in best.scores:
        return " Test was not measured."
    told = f" On test, measured once: {best.scores['test']:.4f}"
    return told + (f", the teacher {teacher.scores['test']:.4f}." if "test" in teacher.scores else ".")


def chance(question: Question, files: Sequence[File], best: File) -> str:
    """Whether the next file could as well be the best one."""
    rivals = [
        f for f in files
        if f is not best and not f.is_teacher and f.student != best.student and meets(question, f, score_of_teacher(files),
                                                                                      question.budget)
    ]  # fmt: skip
    if best.is_teacher or not rivals:
        return ""
    rival = max(rivals, key=lambda f: question.sign * f.scores["val"])
    apart = abs(best.scores["val"] - rival.scores["val"])
    if best.deviation is None or rival.deviation is None:
        return f"One seed was trained, so its lead of {apart:.4f} over {rival.name} may be chance."
    if apart <= best.deviation + rival.deviation:
        return f"Its lead of {apart:.4f} over {rival.name} is within the deviation of the seeds: it may be chance."
    return ""


def closest(question: Question, files: Sequence[File]) -> str:
    """The file that is nearest to what was asked for, and what it lacks."""
    teacher = score_of_teacher(files)
    scored = [file for file in files if "val" in file.scores and not plain_teacher(file)]
    if not scored:
        return "None could be measured."

    def short(file: File) -> tuple[float, float]:
        """How far it is over the budget, and then below the floor."""
        beyond = max(question.budget.beyond(file.costs).values(), default=0.0)
        return beyond, max(
            0.0, question.floor.lost(teacher, file.scores["val"]) - (question.floor.drop or 0.0)
        )

    near = min(scored, key=short)
    beyond = ", ".join(
        f"{name} {spoken(name, float(near.costs[name] or 0.0))}"
        for name in question.budget.beyond(near.costs)
    )
    lost = question.floor.lost(teacher, near.scores["val"])
    return (
        f"The nearest is {near.name}: {beyond or 'within the budget'}, {lost:.2f} points below the teacher."
    )


def lines(best: File) -> str:
    """The commands that make the recommended file again."""
    return "\n".join(["The lines that make it again:", "", *(f"    {line}" for line in best.lines)])


def draw(question: Question, files: Sequence[File], best: File | None, order: Sequence[File]) -> Figure:
    """Score against latency: the front as steps, the recommended file ringed, the budget as a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 4.8), layout="constrained")
    axes = figure.subplots()
    scored = [file for file in files if "val" in file.scores]
    places = {file.name: (float(file.costs["latency"] or 0.0), file.scores["val"]) for file in scored}
    steps = [places[file.name] for file in order]
    axes.plot(*zip(*steps, strict=True), color=GREEN, linewidth=1.3, drawstyle="steps-post", zorder=1)
    for file in scored:
        colour = GREY if file.is_teacher else GREEN if file in order else BLUE
        axes.plot(*places[file.name], "s" if file.precision == "int8" else "o", color=colour, markersize=6)
        axes.annotate(
            figures.words(file.name, 34), places[file.name], xytext=(6, 5), textcoords="offset points", fontsize=7.5,
            color=INK,
        )  # fmt: skip
    if best is not None:
        axes.plot(
            *places[best.name],
            "o",
            markersize=14,
            markerfacecolor="none",
            markeredgecolor=GREEN,
            markeredgewidth=1.6,
        )
    if question.budget.latency is not None:
        axes.axvline(question.budget.latency, color=GREY, linestyle="--", linewidth=1)
    times = [place[0] for place in places.values()]
    axes.margins(x=0.18, y=0.12)
    if max(times) > 20 * min(times):
        figures.logarithmic(axes)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.set_xlabel(f"latency of the exported file, p{question.budget.percentile}, milliseconds")
    axes.set_ylabel(f"{question.score} on val, {'more' if question.sign > 0 else 'less'} is better")
    axes.set_title(
        "Squares are 8 bits; grey is the teacher; the ring is what is recommended", fontsize=8.5, color=INK
    )
    return figure
