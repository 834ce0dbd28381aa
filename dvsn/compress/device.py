"""A table of `dvsn.portable.measure` in the place of this machine's clock, and the files that it is measured on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvsn.benchmark import backends, compare
from dvsn.errors import ConfigError, UserError
from dvsn.export import formats
from dvsn.portable.measure import FORMAT, architecture
from dvsn.reading import read_json

log = logging.getLogger("dvsn")
Row = Mapping[str, Any]
VARIANTS = {
    ("onnxruntime", "fp32"): "folded+onnxruntime",
    ("onnxruntime", "int8"): "folded+int8+onnxruntime",
    ("openvino", "fp32"): "folded+openvino",
    ("openvino", "bf16"): "folded+bf16+openvino",
    ("openvino", "int8"): "folded+int8+openvino",
}
"""The back end that a file of an engine and a precision stands for."""
NUMBERS = ("p50", "p95", "bytes")


@dataclass(frozen=True)
class Device:
    """The table of another machine."""

    path: Path
    rows: Sequence[Row]
    """Of one number of threads."""
    said: str
    """The machine, its versions and the date, in words."""
    digest: str

    @property
    def variants(self) -> set[str]:
        return {VARIANTS[row["engine"], row["precision"]] for row in self.rows}

    def find(self, about: Row, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The times of an architecture by back end, for those of `wanted` that the table has. `about` is the manifest of
        what would be exported, of one shape. Raises `ConfigError` where the table has none, or those of another shape."""
        known = [row for row in self.rows if row["architecture"] == architecture(about)]
        if not known:
            raise ConfigError("lacks it")
        batch, _, height, width = about["input"]["shape"]
        same = [row for row in known if list(row["size"]) == [height, width] and row["batch"] == batch]
        if not same:
            row = known[0]
            raise ConfigError(
                f"has it at {'x'.join(map(str, row['size']))}, batch {row['batch']}, and it is asked at {height}x{width}, "
                f"batch {batch}"
            )
        found = {VARIANTS[row["engine"], row["precision"]]: dict(row) for row in same}
        missing = [name for name in wanted if name not in found]
        if missing:
            raise ConfigError(f"lacks it by {', '.join(missing)}")
        return {name: found[name] for name in wanted}


def read(path: Path, threads: int | None) -> Device:
    """The table of a file. Raises `ConfigError` for a file that is none, and where `threads` does not say which of its rows
    are meant."""
    content = read_json(path)
    expected = "expected the table that python -m dvsn.portable.measure FILES output=device.json writes."
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list) or not content["rows"]:
        raise ConfigError(f"device: {path} holds no rows; {expected}")
    if content.get("format") != FORMAT:
        raise ConfigError(f"device: {path} has the format {content.get('format')!r}; {expected}")
    rows = content["rows"]
    for number, row in enumerate(rows):
        if not sound(row):
            raise ConfigError(f"device: {path}: rows.{number} is damaged; {expected}")
    counts = sorted({row["threads"] for row in rows})
    if (threads is None and len(counts) > 1) or (threads is not None and threads not in counts):
        listed = ", ".join(map(str, counts))
        raise ConfigError(
            f"threads: found {threads}, and {path} was measured with {listed}. Give one of them."
        )
    chosen = [row for row in rows if row["threads"] == (counts[0] if threads is None else threads)]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Device(path, chosen, spoken(content, chosen[0]["threads"]), digest)


def sound(row: Any) -> bool:
    """Whether a row has what is read of it."""
    if not isinstance(row, Mapping) or (str(row.get("engine")), str(row.get("precision"))) not in VARIANTS:
        return False
    numbers = all(
        isinstance(row.get(name), int | float) and not isinstance(row[name], bool) and row[name] > 0
        for name in NUMBERS
    )
    counts = all(isinstance(row.get(name), int) for name in ("threads", "batch"))
    memory = row.get("memory")
    return (
        numbers
        and counts
        and isinstance(row.get("architecture"), str)
        and isinstance(row.get("size"), list)
        and (memory is None or isinstance(memory, int | float))
    )


def spoken(content: Row, threads: int) -> str:
    machine = content.get("machine") if isinstance(content.get("machine"), Mapping) else {}
    assert isinstance(machine, Mapping)
    versions = machine.get("versions") if isinstance(machine.get("versions"), Mapping) else {}
    assert isinstance(versions, Mapping)
    known = ", ".join(f"{name} {versions[name]}" for name in ("onnxruntime", "openvino") if name in versions)
    asked = f"{threads} thread{'s' if threads > 1 else ''}"
    return f"{machine.get('processor', 'a machine')}, {asked}, {known}, {content.get('date')}"


# The files that it is measured on -----------------------------------------------------------------------


def write_files(
    subject: compare.Subject, name: str, levers: Mapping[str, frozenset[str]], folder: Path
) -> list[Path]:
    """The files of a task by back end, as its export would be, `NAME.PRECISION.onnx` or `.xml`. What cannot be written is
    left out, and the log says why."""
    found = []
    for variant in levers:
        how = dict(part.split("=") for part in compare.as_export(variant).split())
        precision = how["precision"]
        path = folder / f"{name}.{precision}{formats.SUFFIX[how['format']]}"
        about = {**subject.manifest, "precision": precision}
        try:
            model = backends.model_of(subject.source, "int8" if precision == "int8" else "fp32")
            folder.mkdir(parents=True, exist_ok=True)
            if how["format"] == "onnx":
                formats.write_onnx(model, path, about)
            else:
                formats.write_openvino(formats.openvino_model(model), path, about, half=precision == "bf16")
        except (UserError, RuntimeError, ValueError) as error:
            log.warning("files  %s: left out: %s", path.name, compare.said_by(error))
            continue
        log.info("files  %s", path)
        found.append(path)
    return found


def told(written: Sequence[Path], folder: Path) -> str:
    """What is to be done with the files."""
    endings = sorted({path.suffix for path in written})
    extras = ",".join({".onnx": "onnx", ".xml": "openvino"}[each] for each in endings)
    return "\n".join(
        [
            f"{len(written)} files with random weights in {folder}. On the target, without torch, in a checkout of dvsn:",
            f"    pip install './portable[{extras}]'",
            f"    python -m dvsn.portable.measure {folder} output=device.json",
            "Then this line again, with device=device.json in the place of files.",
        ]
    )
