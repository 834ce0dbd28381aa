"""The measurement of a checkpoint on a split: a table, metrics.json and pictures."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dvsn.atomic import write_csv, write_json
from dvsn.config.build import inspect_tree
from dvsn.config.folders import at_home, require_writable
from dvsn.config.outputs import check_drawn
from dvsn.config.types import whole
from dvsn.engine import trainer as runtime
from dvsn.engine.analysing import Analysing
from dvsn.engine.boards.evaluated import show_on_boards
from dvsn.engine.callbacks import PictureFiles
from dvsn.engine.compared import find_teacher, load_teacher
from dvsn.engine.console import quiet
from dvsn.engine.devices import measuring
from dvsn.engine.faults import told
from dvsn.engine.fiftyone import FiftyOneFolder
from dvsn.engine.records import measured_line
from dvsn.engine.results import how_measured
from dvsn.engine.run_folder import environment
from dvsn.errors import ConfigError
from dvsn.hub.names import is_name, parse
from dvsn.hub.resolve import local, read
from dvsn.pictures.grids import write_picture
from dvsn.portable.engine import open_engine
from dvsn.tasks.exported import answer_by, header_of, is_exported
from dvsn.tasks.inference import read_options
from dvsn.tasks.recipe import build_task, load_state, read_recipe

log = logging.getLogger("dvsn")
Config = dict[str, Any]
SHOWN = 40  # rows of a table on the screen


def evaluate(config: Config, *, shown: bool = True) -> dict[str, float]:
    """Evaluate by a resolved, plain config. Returns the metrics by name, which are `shown` as a table on the screen."""
    quiet()
    inspect_tree({key: config.get(key) for key in ("data", "trainer")})
    started, (path, split) = time.time(), asked(config)
    check_analysis(config)
    engine = open_engine(path) if is_exported(path) else None
    content = {} if engine else read(path)
    header = header_of(engine) if engine else read_recipe(content, path)
    recipe = chosen_recipe(config, header, path, fixed=engine is not None)
    output = require_writable(output_of(config), option="output")
    task = build_task(recipe, data=header.get("data"), path=path)
    task.data_recipe = data_of(config, header, path, task)
    data = runtime.build_data({"data": task.data_recipe})
    task.ask_data(data)
    runtime.measure_by(task, config["metrics"] or {})
    if engine is None:
        load_state(task, content["state_dict"], path)
    else:
        answer_by(task, engine)
    pictures = PictureFiles(
        folder=output, count=int(config["pictures"] or 0), save_all=bool(config["save_all"])
    )
    analysing = analysis_of(config, task, path, output)
    own = {"run_dir": str(output), "callbacks": {}, "trainer": measuring(config["trainer"])}
    trainer = runtime.build_trainer({**config, **own}, task, fitting=False)
    trainer.callbacks += [pictures, analysing, *export_of(config, task, output, analysing)]  # type: ignore[attr-defined]
    data.prepare_data()
    data.test_split = split
    with told(trainer, config):
        logged = trainer.test(task, data, verbose=False)
    if not logged:
        raise ConfigError(
            f"trainer.limit_test_batches: found {config['trainer'].get('limit_test_batches')!r}, so nothing is measured. "
            "Set trainer.limit_test_batches=1.0"
        )
    values = {key.removeprefix("test/"): value for key, value in logged[0].items()}
    if trainer.is_global_zero:
        about = {
            "checkpoint": str(path),
            "step": content.get("global_step"),
            "split": split,
            "samples": pictures.samples,
            "measured": {
                **how_measured(task, engine.precision if engine else trainer.precision),
                "samples": pictures.samples,
                "samples_in_split": len(data.datasets["test"]),
                "size": [[sides.low, sides.high] for sides in (pictures.heights, pictures.widths)],
            },
        }
        write(about, values, task, output, shown=shown)
        analysing.write(about, task.test_details)
        show_on_boards(config, about, values, task, output, since=started)
    return values


def check_analysis(config: Config) -> None:
    """Raise `ConfigError` for options of the analysis that have no meaning."""
    worst, teacher = config.get("worst"), config.get("teacher")
    if worst is not None and not whole(worst, 1):
        raise ConfigError(
            f"worst: found {worst!r}, expected null or how many pictures to keep, 1 or more, such as worst=50."
        )
    if teacher is not None and (not isinstance(teacher, str) or not teacher):
        raise ConfigError(f"teacher: found {teacher!r}, expected null, auto, or the path of one checkpoint.")
    if teacher is not None and worst is None:
        raise ConfigError("teacher: is set beside the checkpoint picture by picture. Set worst=50 as well.")
    name = config.get("fiftyone")
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise ConfigError(f"fiftyone: found {name!r}, expected null, or a name for the data set in FiftyOne.")


def analysis_of(config: Config, task: Any, path: Path, output: Path) -> Analysing:
    """What watches the test for the analysis, with the teacher that is set beside the task."""
    named = find_teacher(config.get("teacher"), path)
    teacher = None if named is None else load_teacher(named, task)
    return Analysing(task, folder=output, worst=config.get("worst"), teacher=teacher)


def export_of(config: Config, task: Any, output: Path, analysing: Analysing) -> list[FiftyOneFolder]:
    """What writes the data set for FiftyOne, where one is wanted."""
    name = config.get("fiftyone")
    if name is None:
        return []
    options = {"folder": output / "fiftyone", "name": name, "split": config["split"]}
    return [FiftyOneFolder(task, **options, scores=lambda: analysing.latest)]


def asked(config: Config) -> tuple[Path, str]:
    """The checkpoint and the split that are to be measured. Raises `ConfigError`."""
    checkpoint, split = config["checkpoint"], config["split"]
    if not isinstance(checkpoint, str):
        raise ConfigError(f"checkpoint: found {checkpoint!r}, expected the path of a checkpoint.")
    if split not in ("train", "val", "test"):
        raise ConfigError(f"split: found '{split}', expected train, val or test.")
    return (Path(checkpoint) if is_name(checkpoint) else local(checkpoint)), split


def chosen_recipe(config: Config, header: Config, path: Path, *, fixed: bool = False) -> Config:
    """The checkpoint's recipe with the options of testing that were set. Raises `ConfigError` for one that it lacks, and for
    any where the answer is `fixed`, as in an exported file."""
    recipe, kind = dict(header["recipe"]), header["task"]
    if fixed:
        given = [key for key in ("test_dropout", "test_norm", "flip_test") if config.get(key) is not None]
        given += [
            f"inference.{key}" for key, value in (config.get("inference") or {}).items() if value is not None
        ]
        if given:
            raise ConfigError(
                f"{given[0]}: {path} is an exported file, whose answer is fixed. Set it in the export."
            )
    for key in ("test_dropout", "test_norm", "flip_test"):
        if config.get(key) is not None:
            if key not in recipe:
                raise ConfigError(f"{key}: the task '{kind}' of {path} has no such option.")
            recipe[key] = config[key]
    chosen = {key: value for key, value in (config.get("inference") or {}).items() if value is not None}
    if chosen and "inference" not in recipe and kind != "segmentation":
        raise ConfigError(f"inference: the task '{kind}' of {path} has no such options.")
    if chosen:
        recipe["inference"] = {**(recipe.get("inference") or {}), **chosen}
        read_options(recipe["inference"], path="inference")
    return recipe


def write(about: Config, values: dict[str, float], task: Any, output: Path, *, shown: bool = True) -> None:
    """metrics.json, the task's own tables, pictures and files; and, if they are `shown`, the scores on the screen."""
    result = {**about, "metrics": values, "details": task.test_details, "environment": environment()}
    write_json(output / "metrics.json", result)
    how = measured_line(about["measured"])
    if shown:
        show(values, Path(about["checkpoint"]), about["split"], how)
        for title, rows in task.test_details.items():
            show_rows(title, rows, how)
    for stem, picture in task.test_pictures.items():
        write_picture(output / f"{stem}.png", picture)
    for name, content in task.test_files.items():
        (write_csv if name.endswith(".csv") else write_json)(output / name, content)
    for name in ("metrics.json", *task.test_files):
        log.info("%s", output / name)
    for stem in ("grid", *task.test_pictures):
        log.info("%s", output / f"{stem}.png")


def data_of(config: Config, header: Config, path: Path, task: Any) -> Config:
    """The data node: the one given on the command line, in the task's sense, else the checkpoint's own."""
    node = header.get("data")
    if config.get("data"):
        given = dict(config["data"])
        if not given.get("transform", {}).get("eval"):
            given["transform"] = (node or {}).get("transform") or {"train": [], "eval": []}
        node = task.adapt_data(given)
    if not node:
        raise ConfigError(
            f"{path}: was converted from a published file and knows no data set. Add data=..., such as data=cityscapes, and "
            "transform=... if pictures must be resized."
        )
    node = dict(node)
    if node.get("deep_range") is None:  # 16 bits become 8 as in training
        node["deep_range"] = (header.get("data") or {}).get("deep_range")
    known, given = ((each.get("bands") or {}) for each in (header.get("data") or {}, node))
    if known and all(given.get(key) is None for key in ("take", "range", "beside")):
        node["bands"] = known  # bands are read as in training
    for option, key in (("root", "root"), ("batch_size", "eval_batch_size"), ("workers", "workers")):
        if config.get(option) is not None:
            node[key] = config[option]
    if not config.get("data") and not config.get("root"):
        check_drawn(node)  # the checkpoint of somebody else says where
    return node


def default_output(path: Path, split: str) -> Path:
    """Beside the checkpoint; of a name on the hub, in the working directory."""
    if is_name(path):
        return Path("evaluation") / f"{parse(path).repository.replace('/', '_')}_{split}"
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    name = path.name.replace(".", "_") if is_exported(path) else path.stem  # best.onnx lies beside best.ckpt
    return folder / "evaluation" / f"{name}_{split}"


def output_of(config: Config) -> Path:
    """The folder that an evaluation writes."""
    given = config["output"]
    return default_output(*asked(config)) if not given else at_home(given, option="output")


def show(values: dict[str, float], path: Path, split: str, how: str) -> None:
    """The metrics as a table on the screen, and how they were measured."""
    table = Table(title=f"{path.name} on {split}", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in values.items():
        table.add_row(name, f"{value:.4f}")
    Console().print(table)
    Console().print(f"measured: {how}", highlight=False, soft_wrap=True)


def show_rows(title: str, rows: list[Config], how: str) -> None:
    """A table behind the scores, on the screen."""
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(rows[0] if rows else ()):
        table.add_column(name, justify="right" if number else "left")
    for row in rows[:SHOWN]:
        table.add_row(
            *("-" if v is None else f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values())
        )
    Console().print(table)
    Console().print(f"measured: {how}", highlight=False, soft_wrap=True)
    if len(rows) > SHOWN:
        log.info("and %d more rows, all in metrics.json", len(rows) - SHOWN)
