"""TensorBoard: pictures, the config as text, its own precision-recall curves, matrices and other charts as pictures, tables
in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from dvsn.analysis.record import Chart, Matrix, PrecisionRecall, Row
from dvsn.engine.boards.board import Array, Board, Config, as_yaml, require_installed
from dvsn.engine.boards.figures import chart_picture, matrix_picture
from dvsn.engine.boards.labels import Labels, command
from dvsn.pictures.grids import encoded


def prepare(node: Config, labels: Labels, kept: Mapping[str, Any], *, folder: Path) -> Config:
    """The options of the logger with its folder. Raises `ConfigError` where TensorBoard is not installed."""
    require_installed("tensorboard", logger="tensorboard")
    return {**node, "save_dir": node.get("save_dir") or str(folder)}


class TensorBoard(Board):
    """Its writer has one tag for a picture, and shows that of each step."""

    has_curves: ClassVar[bool] = True

    def begin(self, config: Config, labels: Labels) -> None:
        writer = self.logger.experiment
        writer.add_text("config", fenced(as_yaml(config), "yaml"))
        writer.add_text("command", fenced(command(labels.job), "bash"))

    def picture(self, key: str, picture: Array, *, caption: str, step: int, file: Path | None = None) -> None:
        """The PNG itself: `add_image` encodes by Pillow, which takes several times as long as OpenCV."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        data = encoded(picture, Path("picture.png")) if file is None else file.read_bytes()
        height, width = picture.shape[:2]
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        writer = self.logger.experiment._get_file_writer()
        writer.add_summary(Summary(value=[Summary.Value(tag=key, image=image)]), step)

    def rows(self, key: str, rows: Sequence[Row], *, step: int) -> None:
        if rows:
            self.logger.experiment.add_text(key, markdown(rows), step)

    def chart(self, chart: Chart, *, step: int) -> None:
        self.picture(f"plots/{chart.key}", chart_picture(chart), caption=chart.title, step=step)

    def matrix(self, matrix: Matrix, *, step: int) -> None:
        self.picture(f"plots/{matrix.key}", matrix_picture(matrix), caption=matrix.title, step=step)

    def precision_recall(self, curve: PrecisionRecall, *, step: int) -> None:
        """The tab "PR Curves": with the counts at a threshold under the pointer, and a slider over the steps."""
        self.logger.experiment.add_pr_curve_raw(
            f"precision_recall/{curve.name}",
            curve.true_positives,
            curve.false_positives,
            curve.true_negatives,
            curve.false_negatives,
            curve.precision,
            curve.recall,
            global_step=step,
            num_thresholds=len(curve.recall),
        )

    def end(self, *, failed: bool = False) -> None:
        self.logger.experiment.flush()


def fenced(text: str, language: str) -> str:
    """Text as a block of code in Markdown, whatever is in it."""
    longest = max((len(run) for run in text.split("\n") if set(run) == {"`"}), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def markdown(rows: Sequence[Row]) -> str:
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    lines += [[said(row.get(name)) for name in columns] for row in rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def said(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
