"""What a benchmark found, for the screen and as a page."""

from __future__ import annotations

from typing import Any

Result = dict[str, Any]

PROTOCOLS = ("network", "end_to_end")
STEPS = {
    "segmentation": {
        "network": "from the normalised float32 image to the logits, as papers time it",
        "end_to_end": "from bytes to class ids: normalise, network, resize to full size, arg-max",
    },
    "pose": {
        "network": "from the normalised float32 crop to the heatmaps, as papers time it",
        "end_to_end": "from bytes of a crop to its keypoints: normalise, network, decode the heatmaps",
    },
    "landmarks": {
        "network": "from the normalised float32 crop to the points, as papers time it",
        "end_to_end": "from bytes of a crop to its points in pixels: normalise and network",
    },
}
SAME = {
    "segmentation": "pixels of full size whose arg-max is plain's",
    "pose": "keypoints less than a pixel of the heatmaps from plain's",
    "landmarks": "points less than a tenth of a pixel of the crop from plain's",
}
COLUMNS = ("median ms", "p5", "p95", "min", "images/s", "speed-up", "GMAC/s", "MiB", "error", "same")
LEGEND = (
    "speed-up: of the median, against plain, which is eager float32 without TF32. MiB: weights, image and all that "
    "PyTorch allocates in a pass. error: the largest difference of logits or heatmaps, as a share of the largest, or the "
    "largest distance of points in pixels (px). same: {}."
)


def cells(row: Result, macs: int) -> list[str]:
    """One row of the table, after its variant."""
    if "failed" in row:
        return [f"failed: {row['failed']}", *[""] * (len(COLUMNS) - 1)]
    times = [f"{value:.2f}" for value in row["milliseconds"].values()]
    speed, memory, error = row["images_per_second"], row.get("peak_memory"), row.get("error")
    error = None if error is None else f"{error:.1e}"
    if "pixels" in row:
        error = f"{row['pixels']:.1e} px"
    return [
        *times,
        f"{speed:.1f}",
        f"{row['speed_up']:.2f}",
        f"{macs * speed / 1e9:.0f}",
        "-" if memory is None else f"{memory / 2**20:.0f}",
        "-" if error is None else error,
        f"{100 * row['agreement']:.2f} %",
    ]


def summary(result: Result) -> list[str]:
    """What was measured, where, when: a paragraph each."""
    height, width = result["size"]
    spare = result["all_parameters"] - result["parameters"]
    heads = f" (and {spare:,} of heads that only training uses)" if spare else ""
    kept = ", ".join(result["kept_norms"]) or "none"
    versions = result["environment"]["versions"]
    clock = ", processor time" if result["clock"] == "processor" else ""
    threads = f", {result['threads']} thread{'s' if result['threads'] > 1 else ''}"
    return [
        f"{result['name']}, batch {result['batch']} of {height}x{width}: {result['parameters']:,} parameters{heads}, "
        f"{result['macs'] / 1e9:.3f} G multiply-accumulates an image in convolutions and linear layers.",
        f"Batch norms: {result['folded_norms']} fold into a convolution, {len(result['kept_norms'])} stay ({kept}).",
        f"{result['device']}{threads}{clock}; torch {versions['torch']}, dvsn {versions['dvsn']}; {result['date']}. "
        f"Input: {result['images']}.",
    ]


def sections(result: Result) -> dict[str, list[Result]]:
    """The rows of each protocol."""
    return {
        name: rows
        for name in PROTOCOLS
        if (rows := [row for row in result["rows"] if row["protocol"] == name])
    }


def show(result: Result) -> None:
    """The tables on the screen, at least 144 characters wide: what is cut in pieces cannot be read."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(144, Console().width), highlight=False)
    for paragraph in summary(result):
        console.print(paragraph)
    for protocol, rows in sections(result).items():
        table = Table(title=f"{protocol}: {STEPS[result['kind']][protocol]}", title_justify="left")
        table.add_column("variant", no_wrap=True)
        for column in COLUMNS:
            table.add_column(column, justify="right", no_wrap=True)
        for row in rows:
            if "failed" in row:
                row, failed = {**row, "failed": "see below"}, row["failed"]
                console.print(f"{protocol}, {row['variant']}: failed: {failed}")
            table.add_row(row["variant"], *cells(row, result["macs"]))
        console.print(table)
    console.print(LEGEND.format(SAME[result["kind"]]))


def markdown(result: Result) -> str:
    """The tables as a page."""
    parts = summary(result)
    for protocol, rows in sections(result).items():
        lines = [["variant", *COLUMNS], ["---", *["--:"] * len(COLUMNS)]]
        lines += [[row["variant"], *cells(row, result["macs"])] for row in rows]
        parts += [f"**{protocol}**: {STEPS[result['kind']][protocol]}"]
        parts += ["\n".join(f"| {' | '.join(line)} |" for line in lines)]
    return "\n\n".join([*parts, LEGEND.format(SAME[result["kind"]])]) + "\n"
