"""A run folder as a report needs it: its config, result, metrics, command and analysis. Damaged parts become notes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvsn.analysis import record
from dvsn.analysis.record import Analysis
from dvsn.errors import DataError
from dvsn.reading import MEGABYTE, read_json, read_text
from dvsn.report.run_metrics import Metrics, read_metrics
from dvsn.report.runs import CONFIG, LIMIT, parse_yaml, read_config
from dvsn.report.table import is_number


@dataclass
class Folder:
    """A run. Of a part that is gone or damaged there is an empty one, and a note."""

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    """Empty of a run that has not ended."""
    environment: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    metrics: Metrics = field(default_factory=Metrics)
    analysis: Analysis | None = None
    evaluation: Path | None = None
    """The folder of the analysis, or of a damaged one."""
    scores: dict[str, Any] = field(default_factory=dict)
    """metrics.json of that evaluation."""
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the run; of one without, that of its folder."""
        return str(self.config.get("name") or self.path.resolve().name)

    @property
    def monitor(self) -> str | None:
        """The score that the run is judged by."""
        found = self.config.get("monitor")
        name = found.get("name") if isinstance(found, Mapping) else self.result.get("monitor")
        return None if name is None else str(name)

    @property
    def sign(self) -> float:
        """1 where more of it is better, -1 where less is."""
        found = self.config.get("monitor")
        return -1.0 if isinstance(found, Mapping) and found.get("mode") == "min" else 1.0

    @property
    def checkpoint(self) -> Path | None:
        """The best checkpoint, else the last one."""
        for name in ("best.ckpt", "last.ckpt"):
            if (self.path / "checkpoints" / name).exists():
                return self.path / "checkpoints" / name
        return None


def is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def read_folder(path: Path, *, evaluation: Path | None = None) -> Folder:
    """Read a run. `evaluation` is the folder of an analysis; by default the newest one of the run is taken.

    Raises `DataError` for a folder that is no run, and for an `evaluation` that holds no analysis.
    """
    if not is_run(path):
        raise DataError(f"{path}: no run of dvsn: there is no {CONFIG} in it.")
    found = Folder(path)
    _read_config(found)
    found.result = _object(found, "result.json")
    found.environment = _object(found, "environment.json")
    command = path / "command.txt"
    if command.is_file():
        try:
            found.command = read_text(command, limit=MEGABYTE).strip()
        except DataError as error:
            found.notes.append(str(error))
    found.metrics = read_metrics(path)
    found.notes += found.metrics.notes
    if not found.result and not (path / "result.json").exists():
        found.notes.append(f"{path / 'result.json'}: is not there: the run has not ended, or was stopped.")
    _read_analysis(found, evaluation)
    return found


def _read_config(run: Folder) -> None:
    path = run.path / CONFIG
    try:
        run.config_text = read_config(run.path)
        content = parse_yaml(run.config_text, path)
    except DataError as error:
        run.notes.append(str(error))
        return
    if isinstance(content, dict):
        run.config = content
    else:
        run.notes.append(f"{path}: expected the options of a run by name; the options are left out.")


def _object(run: Folder, name: str) -> dict[str, Any]:
    """The JSON object in a file of the run; empty where it is not there, or damaged, which is noted."""
    path = run.path / name
    if not path.is_file():
        return {}
    try:
        content = read_json(path, limit=LIMIT)
    except DataError as error:
        run.notes.append(str(error))
        return {}
    if isinstance(content, dict):
        return content
    run.notes.append(f"{path}: expected an object; it is left out.")
    return {}


def _read_analysis(run: Folder, evaluation: Path | None) -> None:
    chosen = _chosen(run, evaluation) if evaluation is not None else _newest(run.path / "evaluation")
    if chosen is None:
        return
    run.evaluation = chosen
    try:
        run.analysis = record.read(chosen / record.FILE)
    except DataError as error:
        run.notes.append(f"{error} What the evaluation found is left out.")
    if (chosen / "metrics.json").is_file():
        try:
            content = read_json(chosen / "metrics.json", limit=LIMIT)
        except DataError as error:
            run.notes.append(str(error))
        else:
            run.scores = content if isinstance(content, dict) else {}


def _chosen(run: Folder, evaluation: Path) -> Path:
    places = [evaluation, run.path / "evaluation" / evaluation]
    for place in places:
        if (place / record.FILE).is_file():
            return place
    raise DataError(
        f"evaluation={evaluation}: there is no {record.FILE} in {' or '.join(map(str, places))}. Write one by "
        f"python -m dvsn.evaluate checkpoint={run.checkpoint or 'RUN/checkpoints/best.ckpt'} worst=50"
    )


def _newest(folder: Path) -> Path | None:
    """The folder of the analysis that was written last."""
    found = [path for path in folder.glob(f"*/{record.FILE}") if path.is_file()]
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path)).parent if found else None


# Configs ---------------------------------------------------------------------------------------------------


def short(node: Any) -> str:
    """The class of a config's node, without its package."""
    target = node.get("_target_") if isinstance(node, Mapping) else None
    return str(target).rpartition(".")[2] if target else ""


def facts(run: Folder) -> list[tuple[str, str]]:
    """What was trained on what, in words; what is not known is left out."""
    config, result, of = run.config, run.result, _lookup(run.config)
    parameters = result.get("parameters")
    network = short(config.get("network"))
    size = f", {parameters:,} parameters" if isinstance(parameters, int) else ""
    data = data_of(config)
    root, classes = of("data.root"), of("data.classes")
    taught = [
        f"{name} (weight {node.get('weight')})" for name, node in (of("distill") or {}).items() if isinstance(node, Mapping)
    ] if isinstance(of("distill"), Mapping) else []  # fmt: skip
    terms = of("loss.terms")
    rate, batch = of("optim.lr"), of("data.batch_size")
    epochs = _count(result.get("epochs"), of("trainer.max_epochs"))
    seconds = result.get("seconds")
    device = ", ".join(_devices(run.environment))
    rows = {
        "task": short(config.get("task")),
        "network": f"{network}{size}".removeprefix(", "),
        "data": " ".join(filter(None, [data, f"in {root}" if root else ""])),
        "classes": str(classes)
        if isinstance(classes, int) and short(config.get("task")) == "Segmentation"
        else "",
        "loss": ", ".join(terms) if isinstance(terms, Mapping) and terms else short(config.get("loss")),
        "optimiser": f"{short(config.get('optim'))}{f', learning rate {rate}' if rate is not None else ''}",
        "schedule": short(config.get("schedule")),
        "epochs": epochs,
        "batch size": "" if batch is None else str(batch),
        "seed": "" if config.get("seed") is None else str(config["seed"]),
        "teacher": "" if not config.get("teacher") else str(config["teacher"]),
        "distillation": ", ".join(taught),
        "time": duration(seconds) if is_number(seconds) else "",
        "device": device,
        "precision": str(of("trainer.precision") or ""),
        "versions": _versions(run.environment),
        "folder": str(run.path),
    }
    return [(name, value) for name, value in rows.items() if value]


def data_of(config: Mapping[str, Any]) -> str:
    """The class of a run's data set: of the part of `data` that is built for each split, else of the whole."""
    node = config.get("data")
    if not isinstance(node, Mapping):
        return ""
    parts = [node.get("dataset"), *node.values()]
    built = (short(part) for part in parts if isinstance(part, Mapping) and part.get("_partial_") is True)
    return next(built, "") or short(node.get("dataset")) or short(node)


def _lookup(config: Mapping[str, Any]) -> Any:
    def of(path: str) -> Any:
        node: Any = config
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        return node

    return of


def _count(done: Any, planned: Any) -> str:
    if isinstance(done, int):
        return (
            str(done)
            if done == planned or not isinstance(planned, int) or planned < 0
            else f"{done} of {planned}"
        )
    return f"{planned} planned" if isinstance(planned, int) and planned > 0 else ""


def _devices(environment: Mapping[str, Any]) -> list[str]:
    gpus = environment.get("gpus")
    if isinstance(gpus, list) and gpus:
        names = [str(each.get("name", each)) if isinstance(each, Mapping) else str(each) for each in gpus]
        return [f"{name} x {names.count(name)}" for name in dict.fromkeys(names)]
    return [str(environment["processor"])] if environment.get("processor") else []


def _versions(environment: Mapping[str, Any]) -> str:
    versions, git = environment.get("versions"), environment.get("git")
    known = versions if isinstance(versions, Mapping) else {}
    found = [f"{name} {known[name]}" for name in ("dvsn", "torch", "pytorch-lightning") if name in known]
    commit = git.get("commit") if isinstance(git, Mapping) else None
    return ", ".join(found + ([f"commit {str(commit)[:10]}"] if commit else []))


def duration(seconds: float) -> str:
    """A time in words: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
