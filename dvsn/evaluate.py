"""`python -m dvsn.evaluate`: a checkpoint on a split, as a table, metrics.json and pictures."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from dvsn import commands
from dvsn.errors import ConfigError

log = logging.getLogger("dvsn")
Config = dict[str, Any]

COMMAND = commands.Command(
    name="evaluate",
    summary="Measure a checkpoint on a split of a data set.",
    groups=True,
    options=(
        commands.Option(
            "checkpoint", commands.REQUIRED, "what to measure; it knows its task and its data set"
        ),
        commands.Option("split", "val", "val, test or train"),
        commands.Option("root", "null", "where the data set lies now"),
        commands.Option("output", "null", "folder of metrics.json and pictures; null: beside the checkpoint"),
        commands.Option("batch_size", "null", "null: as in training's validation"),
        commands.Option("save_all", "false", "write every generated picture too"),
        commands.Option("test_dropout", "null", "pix2pix: dropout at test time; null: as the recipe"),
        commands.Option("test_norm", "null", "pix2pix: running or batch statistics; null: as the recipe"),
        commands.Option("metrics.inception_weights", "null", "file of FID's Inception: adds FID and KID"),
        commands.Option("metrics.lpips_weights", "null", "file of torchvision's backbone: adds LPIPS"),
    ),
    examples=(
        "python -m dvsn.evaluate checkpoint=runs/demo/latest/checkpoints/best.ckpt split=test",
        "python -m dvsn.evaluate checkpoint=best.ckpt data=cityscapes data.root=/data/cityscapes",
    ),
)


def evaluate(config: Config) -> dict[str, float]:
    """Evaluate by a resolved, plain config. Returns the metrics by name."""
    from dvsn import runtime
    from dvsn.checkpoint import build_task, load_state, read_checkpoint, read_recipe
    from dvsn.config import check
    from dvsn.train import quiet

    quiet()
    check({key: config.get(key) for key in ("data", "trainer")})
    path = Path(config["checkpoint"])
    content = read_checkpoint(path)
    header = read_recipe(content, path)
    recipe = dict(header["recipe"])
    for key in ("test_dropout", "test_norm"):
        if config.get(key) is not None:
            if key not in recipe:
                raise ConfigError(f"{key}: the task '{header['task']}' of {path} has no such option.")
            recipe[key] = config[key]
    split = config["split"]
    if split not in ("train", "val", "test"):
        raise ConfigError(f"split: found '{split}', expected train, val or test.")
    data_node = data_of(config, header, path)
    output = Path(config["output"] or default_output(path, split))

    data = runtime.build_data({"data": data_node})
    task = build_task(recipe, data=data_node, path=path)
    task.use_metrics(**config["metrics"])
    load_state(task, content["state_dict"], path)
    from dvsn.callbacks import PictureFiles

    pictures = PictureFiles(folder=output, count=int(config["pictures"]), save_all=bool(config["save_all"]))
    trainer = runtime.build_trainer({**config, "run_dir": str(output), "callbacks": {}}, task, fitting=False)
    trainer.callbacks.append(pictures)  # type: ignore[attr-defined]
    data.prepare_data()
    data.test_split = split
    values = {
        key.removeprefix("test/"): value for key, value in trainer.test(task, data, verbose=False)[0].items()
    }
    if trainer.is_global_zero:
        result = {
            "checkpoint": str(path),
            "step": content.get("global_step"),
            "split": split,
            "samples": pictures.samples,
            "metrics": values,
            "environment": runtime.environment(),
        }
        runtime.write_json(output / "metrics.json", result)
        show(values, path, split, pictures.samples)
        log.info("%s", output / "metrics.json")
        log.info("%s", output / "grid.png")
    return values


def data_of(config: Config, header: Config, path: Path) -> Config:
    """The data node: the one given on the command line, else the checkpoint's own."""
    node = config.get("data") or header.get("data")
    if not node:
        raise ConfigError(
            f"{path}: was converted from a published file and knows no data set. Add data=... and transform=..., such as "
            "data=cityscapes transform=resize_256."
        )
    node = dict(node)
    for option, key in (("root", "root"), ("batch_size", "eval_batch_size"), ("workers", "workers")):
        if config.get(option) is not None:
            node[key] = config[option]
    return node


def default_output(path: Path, split: str) -> Path:
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return folder / "evaluation" / f"{path.stem}_{split}"


def show(values: dict[str, float], path: Path, split: str, samples: int) -> None:
    """The metrics as a table on the screen."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{path.name} on {split}, {samples} samples", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in values.items():
        table.add_row(name, f"{value:.4f}")
    Console().print(table)


def job(config: Any) -> dict[str, float]:
    return evaluate(commands.plain(config))


def main() -> None:
    commands.run(lambda: commands.hydra_main("evaluate", job), command=COMMAND)


if __name__ == "__main__":
    main()
