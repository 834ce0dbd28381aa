"""What a run says on the screen: before it starts, at its end, and what libraries say that no user can act on."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

from dvsn.engine import teaching
from dvsn.engine.devices import precision_reason
from dvsn.engine.records import measured_line
from dvsn.engine.summary import class_table, score_table, scores_of, time_line

log = logging.getLogger("dvsn")
Config = dict[str, Any]


def quiet() -> None:
    """Hints of the libraries that a user of dvsn cannot act on."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for pattern in (
        r".*does not have many workers.*",
        r".*dataloader is not resumable.*",
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
        r".*Checkpoint directory .* exists and is not empty.*",
        r".*is smaller than the logging interval.*",
        r".*Trying to infer the `batch_size`.*",
        r".*find_unused_parameters=True was specified.*",
        r".*overridden `on_before_batch_transfer` in `LightningModule`.*",  # dvsn's data module has none
        r".*It is recommended to use `self\.log.*sync_dist=True.*",  # metrics are gathered before they are logged
        r".*lr_scheduler\.step\(\).*before.*optimizer\.step\(\).*",
    ):
        warnings.filterwarnings("ignore", message=pattern)
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the number of each process


def describe(
    config: Config, task: Any, trainer: Any, folder: Path, *, teacher_score: float | None = None
) -> None:
    """What is about to happen, in a few lines."""
    log.info("run folder  %s", folder)
    for name, network in task.networks.items():
        count = sum(parameter.numel() for parameter in network.parameters())
        log.info("%-11s %s, %s parameters", name, type(network).__name__, f"{count:,}")
    if task.distiller is not None:
        if teacher_score is not None:
            log.info("%-11s %s %.4f, in float32", "teacher", config["monitor"]["name"], teacher_score)
        for title, text in teaching.describe(task.distiller):
            log.info("%-11s %s", title, text)
    device = trainer.strategy.root_device
    log.info(
        "device      %s x %d, %s%s%s%s",
        device.type, trainer.world_size, trainer.precision, precision_reason(config["trainer"]),
        ", channels_last" if task.channels_last else "", ", compiled" if config.get("compile") else "",
    )  # fmt: skip


def report(result: dict[str, Any], folder: Path, lines: dict[str, str], *, advice: str | None = None) -> None:
    """What came of the run, where to look, and the `lines` with which to go on, by what they do. `advice` is what to do
    about a device that waited for data."""
    log.info("")
    log.info("trained     %d epochs, %d steps, %.0f s", result["epochs"], result["steps"], result["seconds"])
    if str(result.get("ended", "")).startswith("early"):
        log.info("ended       %s", result["ended"])
    if spent := time_line(result["times"]):
        log.info("times       %s", spent)
    if advice:
        log.info("data        %s", advice)
    for table in (score_table(result), class_table(result["classes"])):
        for line in ["", *table] if table else []:
            log.info("%s", line)
    log.info("")
    if scores_of(result["metrics"]):
        log.info("measured    %s", measured_line(result["measured"]))
    for title, path in (
        ("pictures", folder / "pictures" / "latest.png"),
        ("metrics", folder / "metrics.csv"),
    ):
        if path.exists():
            log.info("%-11s %s", title, path)
    for name in ("best", "last"):
        path = folder / "checkpoints" / f"{name}.ckpt"
        if path.exists() and (name == "last" or result["best"] is not None):
            score = score_of(result, name)
            log.info("%-11s %s", name, f"{score}, in {path}" if score else path)
        elif score := score_of(result, name):
            log.info("%-11s %s, whose checkpoint is no longer there", name, score)
    if lines:
        log.info("")
    for title, line in lines.items():
        log.info("%-11s %s", title, line)


def score_of(result: dict[str, Any], which: str) -> str:
    """The `best` or `last` score of a run by its monitor, and the epoch whose validation gave it; empty without one."""
    value, epoch = result[which], result[f"{which}_epoch"]
    if value is None:
        return ""
    name = str(result["monitor"]).removeprefix("val/")
    return f"{name} {value:.4g}" + ("" if epoch is None else f" of epoch {epoch}")
