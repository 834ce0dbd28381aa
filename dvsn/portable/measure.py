"""`python -m dvsn.portable.measure FILES...`: time and memory of exported files here, as a table for `dvsn.compress`.

It needs no torch: numpy, and ONNX Runtime or OpenVINO. Each file is asked in a process of its own, in several rounds over
all files, so that a change of the machine's load meets all of them alike.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np

from dvsn.errors import ConfigError, UserError
from dvsn.portable.engine import Engine, open_engine

FORMAT = 1
"""Of the table."""
OPTIONS: dict[str, tuple[Any, str]] = {
    "output": ("device.json", "the table, a JSON file"),
    "threads": (None, "of an engine, or several, such as 1,4; null: as many as the machine has cores"),
    "seconds": (3.0, "of timed answers of a file, about"),
    "rounds": (3, "over all files, in each of which a file is opened and asked anew"),
    "size": (None, "HEIGHTxWIDTH of files that take any"),
    "batch": (None, "pictures of an answer, of files that take any number"),
}
WARM_UPS = 3
USAGE = "usage: python -m dvsn.portable.measure FILE.onnx FILE.xml FOLDER ... [option=value ...]"
ENGINES = {".onnx": "onnxruntime", ".xml": "openvino"}
GRAPH = ("network", "inference", "flip_test", "codec", "score", "shown", "size", "channels")
"""What of a recipe decides which graph is exported; the rest is about training."""


def architecture(manifest: Mapping[str, Any]) -> str:
    """A short name of what a file computes, whatever its weights: the same for a network before and after its training."""
    recipe = manifest.get("recipe") or {}
    parts = {
        "task": manifest.get("task"),
        "raw": bool(manifest.get("raw")),
        **{key: recipe.get(key) for key in GRAPH},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read_options(words: Sequence[str]) -> tuple[list[Path], dict[str, Any]]:
    """The files and the options of a command line. Raises `ConfigError` for an option without meaning."""
    files = [Path(word) for word in words if not re.match(r"(--)?[a-z]+=", word)]
    options: dict[str, Any] = {name: default for name, (default, _) in OPTIONS.items()}
    for word in words:
        if not re.match(r"(--)?[a-z]+=", word):
            continue
        key, _, text = word.removeprefix("--").partition("=")
        if key not in OPTIONS:
            raise ConfigError(f"{key}: there is no such option. There are {', '.join(OPTIONS)}.")
        options[key] = options[key] if text == "null" else text
    options["threads"] = wholes("threads", options["threads"]) or [os.cpu_count() or 1]
    options["batch"] = next(iter(wholes("batch", options["batch"])), None)
    options["rounds"] = wholes("rounds", options["rounds"])[0]
    try:
        options["seconds"] = float(options["seconds"])
    except ValueError:
        options["seconds"] = math.nan
    if not 0 < options["seconds"] < math.inf:
        raise ConfigError("seconds: expected a number above 0, such as seconds=3.")
    if options["size"] is not None and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", str(options["size"])):
        raise ConfigError(f"size: found {options['size']}, expected HEIGHTxWIDTH, such as size=512x1024.")
    if not files:
        raise ConfigError(f"files: expected one or more.\n{USAGE}")
    return files, options


def wholes(name: str, given: Any) -> list[int]:
    """Whole numbers of 1 or more, parted by commas; none of null."""
    if given is None:
        return []
    words = [word.strip() for word in str(given).strip("[]").split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ConfigError(f"{name}: found {given}, expected a whole number, 1 or more.")
    return [int(word) for word in words]


# One file, in a process of its own ----------------------------------------------------------------------


def input_of(engine: Engine, size: Any, batch: int | None) -> np.ndarray[Any, Any]:
    """Drawn pictures of the shape that a file takes. Raises `ConfigError` for a size or batch that lacks or differs."""
    given = engine.manifest["input"]
    sides = [None, None] if size is None else [int(side) for side in str(size).split("x")]
    asked = {0: batch, 2: sides[0], 3: sides[1]}
    shape = list(given["shape"])
    for axis, name in {0: "batch", 2: "size", 3: "size"}.items():
        if shape[axis] is None:
            shape[axis] = asked[axis] if asked[axis] is not None else 1 if axis == 0 else None
        elif asked[axis] not in (None, shape[axis]):
            raise ConfigError(
                f"{name}: found {asked[axis]}, and {engine.path} takes {shape[axis]}. Leave {name} out."
            )
    if None in shape:
        raise ConfigError(
            f"size: {engine.path} takes pictures of any size. Give size=HEIGHTxWIDTH, such as size=512x1024."
        )
    top = int(given.get("range", [0, 255])[1])
    return np.random.default_rng(0).integers(0, top + 1, shape).astype(np.uint8)


def peak_bytes() -> int | None:
    """The most memory that this process has held; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(found) * (1 if sys.platform == "darwin" else 1024)


def ask(file: Path, *, threads: int, seconds: float, size: Any, batch: int | None) -> dict[str, Any]:
    """The seconds of the answers of a file, one by one, and by how many bytes its process has grown at most."""
    with suppress(ImportError):  # which the engine says
        import_module(ENGINES[file.suffix])  # what the runtime itself takes is not the file's
    before = peak_bytes()
    engine = open_engine(file, threads=threads)
    image = input_of(engine, size, batch)
    for _ in range(WARM_UPS):
        engine(image)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        engine(image)
        times.append(time.perf_counter() - start)
    after = peak_bytes()
    given = engine.manifest["input"]
    return {
        "times": times,
        "memory": None if before is None or after is None else after - before,
        "size": list(image.shape[2:]),
        "batch": len(image),
        "task": engine.manifest["task"],
        "precision": engine.manifest["precision"],
        "architecture": architecture(engine.manifest),
        "channels": given["shape"][1],
    }


# All files ----------------------------------------------------------------------------------------------


def measure(options: Mapping[str, Any], files: Sequence[Path]) -> dict[str, Any]:
    """The table of files, and of those in folders. Raises `ConfigError` for a file that cannot be asked."""
    files = [
        inner
        for file in files
        for inner in (
            sorted(each for each in file.iterdir() if each.suffix in ENGINES) if file.is_dir() else [file]
        )
    ]
    if not files:
        raise ConfigError("files: the folder holds no file that ends with .onnx or .xml.")
    for file in files:
        if file.suffix not in ENGINES or not file.is_file():
            raise ConfigError(f"files: found {file}, expected a file that ends with .onnx or .xml.")
    rounds = int(options["rounds"])
    jobs = [(file, threads) for file in files for threads in options["threads"]]
    parts: dict[tuple[Path, int], list[dict[str, Any]]] = {job: [] for job in jobs}
    for number in range(rounds):
        for file, threads in jobs if number % 2 == 0 else reversed(jobs):
            sys.stderr.write(f"round {number + 1} of {rounds}  {file}  {threads} threads\n")
            chosen = {key: options[key] for key in ("size", "batch")}
            found = apart(file, {**chosen, "threads": threads, "seconds": options["seconds"] / rounds})
            parts[file, threads].append(found)
    return {
        "format": FORMAT,
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "rows": [row(file, threads, parts[file, threads]) for file, threads in jobs],
    }


def apart(file: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """`ask` in a process of its own. Raises `ConfigError` with what it said."""
    call = [sys.executable, "-m", "dvsn.portable.measure", "--one", str(file), json.dumps(dict(options))]
    folder = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        call, capture_output=True, text=True, encoding="utf-8", env={**os.environ, "PYTHONPATH": path}
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"{file}: cannot be measured: {said.removeprefix('error: ')}")
    content: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return content


def row(file: Path, threads: int, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A line of the table: milliseconds, bytes."""
    times = np.array([each for part in parts for each in part["times"]]) * 1e3
    p50, p95 = np.percentile(times, [50, 95])
    memories = [part["memory"] for part in parts if part["memory"] is not None]
    kept = ("task", "architecture", "precision", "size", "batch", "channels")
    return {
        "file": file.name,
        "engine": ENGINES[file.suffix],
        "threads": threads,
        **{key: parts[0][key] for key in kept},
        "p50": round(float(p50), 5),
        "p95": round(float(p95), 5),
        "answers": len(times),
        "memory": max(memories, default=None),
        "bytes": size_of(file),
    }


def size_of(path: Path) -> int:
    """Bytes of an exported file; of OpenVINO with its weights."""
    binary = path.with_suffix(".bin")
    return path.stat().st_size + (binary.stat().st_size if path.suffix == ".xml" and binary.is_file() else 0)


def machine() -> dict[str, Any]:
    """What the table was measured on."""
    found = {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform()}
    versions = {"python": platform.python_version()}
    for name in ("numpy", "onnxruntime", "openvino"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {**found, "versions": versions}


def processor() -> str:
    """The name of the processor, as far as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for key in ("model name", "Model", "Hardware"):
        for line in lines:
            if line.startswith(key) and ":" in line:
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write(table: Mapping[str, Any], path: Path) -> None:
    """Write a table whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_text(f"{json.dumps(table, indent=1)}\n", encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise ConfigError(f"output: {path} cannot be written: {error.strerror or error}.") from error
    finally:
        aside.unlink(missing_ok=True)


def lines(table: Mapping[str, Any]) -> list[str]:
    """The table for the eye."""
    width = max(len(each["file"]) for each in table["rows"])
    head = f"{'file':{width}}  engine       precision  threads  {'p50 ms':>9}  {'p95 ms':>9}  {'memory MB':>9}  {'MB':>8}"
    found = [head]
    for each in table["rows"]:
        memory = "" if each["memory"] is None else f"{each['memory'] / 1e6:.1f}"
        found.append(
            f"{each['file']:{width}}  {each['engine']:11}  {each['precision']:9}  {each['threads']:7}  {each['p50']:9.3f}  "
            f"{each['p95']:9.3f}  {memory:>9}  {each['bytes'] / 1e6:8.3f}"
        )
    return found


def answer(argv: Sequence[str]) -> None:
    """What a command line asks for."""
    if argv[:1] == ["--one"]:
        sys.stdout.write(f"{json.dumps(ask(Path(argv[1]), **json.loads(argv[2])))}\n")
        return
    if not argv or "--help" in argv or "-h" in argv:
        told = [
            f"  {name}={'null' if default is None else default}".ljust(24) + text
            for name, (default, text) in OPTIONS.items()
        ]
        sys.stdout.write("\n".join([str(__doc__).partition("\n")[0], "", USAGE, "", *told, ""]))
        return
    files, options = read_options(argv)
    output = Path(str(options["output"]))
    if not output.parent.is_dir():
        raise ConfigError(f"output: the folder {output.parent} is not there. Make it first.")
    table = measure(options, files)
    write(table, output)
    sys.stdout.write("\n".join([*lines(table), str(output), ""]))


def main() -> None:
    try:
        answer(sys.argv[1:])
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
