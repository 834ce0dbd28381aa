"""Checkpoints of the time before the package was reorganised load, go on and are measured as they were then.

`old_checkpoints/make.py` says how they were made. Where processor and libraries are those that made them, weights, answers
and metrics must be equal to the last bit. Other processors and releases of torch add up in another order: there the bits
cannot be promised, and numbers are compared to a ten-thousandth.

`old_checkpoints/targets.txt` has every class that the configs of that time named, and where: a YAML of a user, or another
checkpoint, may name any of them.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import old_runs
import pytest
import torch
from torch import Tensor

import dvsn

EXPECTED = json.loads(old_runs.EXPECTED.read_text(encoding="utf-8"))
RUNS: dict[str, dict[str, Any]] = EXPECTED["runs"]
TARGETS = [line.split() for line in old_runs.TARGETS.read_text(encoding="utf-8").splitlines()]
NEAR = 1e-4
PLACES = re.compile(rb"(?:/tmp|/work|/home|/root|/Users)/[ -~]*")

every_run = pytest.mark.parametrize("name", RUNS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of the old runs: their data, and their checkpoints."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("old")
    old_runs.write_data(place)
    for name in RUNS:
        old_runs.unpack(name, place)
    return place


@pytest.fixture(scope="module")
def exact(folder: Path) -> bool:
    """Whether this machine gives the bits of the one that made the files."""
    return bool(old_runs.machine() == EXPECTED["machine"])


def compare(found: dict[str, Any], expected: dict[str, Any], *, exact: bool) -> None:
    """Numbers, or lists of numbers, by name; one that is small is compared with the largest of its list."""
    assert found.keys() == expected.keys()
    for key, wanted in expected.items():
        values = found[key]
        if exact:
            assert values == wanted or (wanted != wanted and values != values), key
            continue
        pairs = list(zip(values, wanted, strict=True)) if isinstance(wanted, list) else [(values, wanted)]
        scale = max(1.0, *(abs(number) for _, number in pairs if math.isfinite(number)))
        for each, number in pairs:
            assert math.isclose(each, number, rel_tol=NEAR, abs_tol=NEAR * scale), (key, each, number)


def compare_weights(found: dict[str, Tensor], expected: dict[str, Any], *, exact: bool) -> None:
    """By their digest, or by the sum of each tensor, to a share of the sum of its absolute values."""
    sums = old_runs.sums(found)
    assert len(sums) == len(expected["sums"])
    different = [
        f"{key}: the sum is {total}, expected {wanted}"
        for (key, value), total, wanted in zip(found.items(), sums, expected["sums"], strict=True)
        if abs(total - wanted) > NEAR * max(0.1, float(value.double().abs().sum()))
    ]
    assert not different, "\n".join(different[:8])
    if exact:
        assert old_runs.digest(found) == expected["digest"]


@every_run
def test_it_loads_and_answers(name: str, folder: Path, exact: bool) -> None:
    expected = RUNS[name]
    with old_runs.setting([]):
        task = dvsn.load(folder / f"{name}.ckpt")
    compare(old_runs.answer(task, tuple(expected["size"])), expected["answer"], exact=exact)


@every_run
def test_it_is_resumed(name: str, folder: Path, exact: bool) -> None:
    expected = RUNS[name]
    content = old_runs.resume(name, expected["arguments"], folder)
    assert content["global_step"] > expected["step"]
    compare_weights(old_runs.weights(content), expected, exact=exact)


@pytest.mark.parametrize("name", ["pix2pix", "pose", "distilled"])
def test_it_is_resumed_by_options_that_name_the_old_classes(name: str, folder: Path, exact: bool) -> None:
    """As the YAML files of a user do, which were written then."""
    header = old_runs.read(folder / f"{name}.ckpt")["dvsn"]
    found = [*old_runs.targets(header["recipe"], "task"), *old_runs.targets(header["data"], "data")]
    found = [(path.removeprefix("task."), target) for path, target in found]
    known = {path for path, _ in found}
    wanted = ("distill.kd.method", "distill.at.method") if name == "distilled" else ()
    wanted += ("callbacks.pictures", "callbacks.rates", "logger.csv") if name == "pix2pix" else ()
    found += [(path, target) for path, target in TARGETS if path in wanted and path not in known]
    names = [f"{path}._target_={target}" for path, target in found if "transform" not in path]
    assert len(names) >= 5 + len(wanted)
    content = old_runs.resume(name, [*RUNS[name]["arguments"], *names], folder)
    compare_weights(old_runs.weights(content), RUNS[name], exact=exact)


def test_the_best_score_is_not_forgotten(folder: Path) -> None:
    """What callbacks keep lies in a checkpoint under their names: a run that has seen better does not write best.ckpt."""
    content = old_runs.read(folder / "classification.ckpt")
    content["callbacks"]["Checkpoints"]["best"] = 2.0
    torch.save(content, folder / "better.ckpt")
    resumed = old_runs.resume("better", RUNS["classification"]["arguments"], folder)
    assert resumed["callbacks"]["Checkpoints"]["best"] == 2.0
    assert not (folder / "resumed" / "better" / "checkpoints" / "best.ckpt").exists()


@every_run
def test_it_is_evaluated(name: str, folder: Path, exact: bool) -> None:
    expected = RUNS[name]
    found = old_runs.evaluate(name, folder, split=expected["split"])
    compare(found, expected["metrics"], exact=exact)


def test_the_files_are_small_and_name_no_place_of_a_machine(folder: Path) -> None:
    files = sorted(path.name for path in old_runs.FOLDER.glob(f"*{old_runs.ENDING}"))
    assert files == sorted(f"{name}{old_runs.ENDING}" for name in RUNS)
    assert sum(path.stat().st_size for path in old_runs.FOLDER.iterdir()) < 2_000_000
    for name in RUNS:
        assert not PLACES.findall((folder / f"{name}.ckpt").read_bytes()), name


# Classes by their old names ---------------------------------------------------------------------------------------


def locate(target: str, path: str) -> type:
    """What the config builder makes of a class that a config names at `path`: allowed, and found. The one
    place that knows how."""
    from dvsn.config import allow, build

    allow.check({"_target_": target}, path=path)
    target = allow.new_name(target)
    return build.locate(target, path)


@pytest.mark.parametrize(("path", "target"), TARGETS)
def test_a_class_is_found_by_its_old_name(path: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVSN_ALLOW", old_runs.ALLOWED)
    assert isinstance(locate(target, path), type)


def test_the_list_of_classes_is_whole() -> None:
    """At least one of each group, and those of every old checkpoint."""
    assert len({target for _, target in TARGETS}) >= 145
    groups = {path.split(".")[0] for path, _ in TARGETS}
    assert groups >= {"network", "discriminator", "loss", "codec", "distill", "transform", "data", "optim", "schedule",
                      "task", "logger", "callbacks"}  # fmt: skip
