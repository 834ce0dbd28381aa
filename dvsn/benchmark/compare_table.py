"""What a comparison found: a table a task, for the screen and as a page, and which back end wins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dvsn.benchmark.agreement import RULES
from dvsn.benchmark.compare import as_export

Found = Mapping[str, Any]

COLUMNS = (
    "name", "back end", "in", "p50 ms", "p95", "per s", "x plain", "MiB", "dec/pre/net/post %", "differs", "same", "score",
)  # fmt: skip
LEFT = 3
"""So many columns hold words."""
LEGEND = (
    "x plain: plain's median by this one's, in turns; plain is eager float32. p50, p95: milliseconds, from uint8 to the "
    "answer. per s: pictures. MiB: of PyTorch, weights, input and all it allocates; of others by how much the process grew "
    "at least. dec/pre/net/post: shares of decoding a JPEG as large as the input, preparing it, the network (it normalises "
    "and reads heatmaps too) and finishing the result. differs: the largest difference of the main answer. same: {}."
)


def by_task(result: Found) -> dict[str, list[Found]]:
    """The groups of each task, in the order of the command line."""
    found: dict[str, list[Found]] = {}
    for group in result["groups"]:
        found.setdefault(group["task"], []).append(group)
    return found


def cells(group: Found, row: Found) -> list[str]:
    """One row of a table."""
    first = [row["name"], row["variant"]]
    if "skipped" in row:
        return [*first, f"skipped: {row['skipped']}", *[""] * (len(COLUMNS) - 3)]
    times, parts = row["milliseconds"], row["stages"]
    memory, score, largest = row.get("peak_memory"), row.get("score"), row.get("largest")
    unit = RULES[group["response"]].unit
    total = sum(parts.values()) if parts else 0.0
    shares = "/".join(f"{100 * each / total:.0f}" for each in parts.values()) if parts else "-"
    return [
        *first,
        row["precision"],
        f"{times['median']:.2f}",
        f"{times['p95']:.2f}",
        f"{row['per_second']:.1f}",
        f"{row['ratio']:.2f}",
        "-" if memory is None else f"{memory / 2**20:.0f}",
        shares,
        "-"
        if largest is None or RULES[group["response"]].output == "ids"
        else f"{largest:.1e} {unit}".strip(),
        "-" if "same" not in row else f"{100 * row['same']:.2f} %",
        "-" if score is None else f"{score:.4f}",
    ]


def said(group: Found) -> str:
    """What was measured, in a sentence."""
    height, width = group["size"]
    weights = "" if group["trained"] else "; random weights, whose answers rounding changes easily"
    counted = group["costs"]
    return (
        f"{group['name']}: {counted['parameters']:,} parameters, {counted['macs'] / 1e9:.3f} G multiply-accumulates a "
        f"picture of {height}x{width}; batch {group['batch']}; asked about {group['inputs']}{weights}."
    )


def verdict(group: Found, least: float) -> str:
    """Which back end wins, and how a file of it is made."""
    if group["best"] is None:
        return f"{group['name']}: no back end gives the same answers on {least:.1%}."
    row = group["rows"][group["best"]]
    start = f"{group['name']}: the fastest with the same answers on {least:.1%}"
    words = (
        f"{start} is {row['name'] if row['variant'] == 'file' else row['variant']}, {row['ratio']:.2f} times plain "
        f"({row['milliseconds']['median']:.2f} ms, {100 * row['same']:.2f} % the same)."
    )
    options = as_export(row["variant"])
    if not group["trained"]:
        return words
    return (
        f"{words} As a file: python -m dvsn.export {group['name']} {options}"
        if options
        else f"{words} It needs PyTorch."
    )


def where(result: Found) -> str:
    versions = result["environment"]["versions"]
    threads = f"{result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    clock = ", processor time" if result["clock"] == "processor" else ""
    begun, ended = result["load"]
    return (
        f"{result['device']}, {threads}{clock}; torch {versions['torch']}, dvsn {versions['dvsn']}; {result['date']}; load "
        f"average {begun:.1f} at the start, {ended:.1f} at the end."
    )


def rows_of(groups: Sequence[Found]) -> Iterator[list[str]]:
    for group in groups:
        for row in group["rows"]:
            yield cells(group, row)


def show(result: Found) -> None:
    """The tables on the screen, at least 160 characters wide."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(160, Console().width), highlight=False)
    console.print(where(result))
    for task, groups in by_task(result).items():
        table = Table(title=task, title_justify="left")
        for place, column in enumerate(COLUMNS):
            table.add_column(column, justify="left" if place < LEFT else "right", no_wrap=True)
        for row in rows_of(groups):
            if row[2].startswith("skipped"):
                console.print(f"{row[0]}, {row[1]}: {row[2]}", markup=False)
                row[2] = "skipped"
            table.add_row(*row)
        for group in groups:
            console.print(said(group), markup=False)
        console.print(table)
        console.print(LEGEND.format(RULES[groups[0]["response"]].words))
        for group in groups:
            console.print(verdict(group, result["agreement"]), markup=False)


def markdown(result: Found) -> str:
    """The tables as a page."""
    parts = [where(result)]
    for task, groups in by_task(result).items():
        lines = [list(COLUMNS), [*["---"] * LEFT, *["--:"] * (len(COLUMNS) - LEFT)], *rows_of(groups)]
        parts += [f"**{task}**", *(said(group) for group in groups)]
        parts += ["\n".join(f"| {' | '.join(line)} |" for line in lines)]
        parts += [LEGEND.format(RULES[groups[0]["response"]].words)]
        parts += [verdict(group, result["agreement"]) for group in groups]
    return "\n\n".join(parts) + "\n"
