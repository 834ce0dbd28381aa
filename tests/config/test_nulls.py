"""A null in any node of a task's config works, or is refused in words: never an internal error."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict, read_write

from dvsn.config import compose
from dvsn.engine import trainer as runtime
from dvsn.engine import training
from dvsn.errors import UserError
from tests.distill import test_matrix as matrix
from tests.test_devices import TASKS, data_of

schools = matrix.schools


def nodes(node: Any, path: str = "") -> Iterator[str]:
    """The paths of the mappings and lists below the groups."""
    for key, value in node.items():
        below = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict | list):
            if path:
                yield below
            if isinstance(value, dict):
                yield from nodes(value, below)


def build_all(tree: dict[str, Any]) -> None:
    data, task = runtime.build_data(tree), runtime.make_task(tree)
    task.ask_data(data)


def faults_of(name: str, schools: Any, folder: Path, work: Any) -> tuple[int, dict[str, str]]:
    """How many nodes were made null, and of which `work` ended in something else than a message."""
    root, _ = schools(data_of(name))
    given = ["logger=csv", "callbacks=default", "trainer.fast_dev_run=1"]
    with compose.opened("train", [*TASKS[name], "name=test", f"data.root={root}", *given]) as session:
        composed = compose.compose(session.loader, session.name, session.overrides)
        HydraConfig.instance().set_config(composed.cfg)
        with read_write(composed.cfg), open_dict(composed.cfg):
            composed.cfg.run_dir = str(folder / "run")
        plain: Any = OmegaConf.to_container(composed.cfg, resolve=False)
        paths = [path for path in nodes(plain) if not path.startswith("hydra")]
        work(compose.checked(composed.cfg, composed.defaults))
        faults = {}
        for path in paths:
            config = copy.deepcopy(composed.cfg)
            with read_write(config), open_dict(config):
                OmegaConf.update(config, path, None, merge=False)
            try:
                work(compose.checked(config, composed.defaults))
            except UserError:
                continue
            except Exception as error:  # noqa: BLE001 - what is looked for
                faults[path] = f"{type(error).__name__}: {error}"
    return len(paths), faults


SHARED = ("landmarks_heatmaps", "landmarks_pfld")
"""Tasks that share almost all nodes with another."""


@pytest.mark.parametrize("name", [name for name in TASKS if name not in SHARED])
def test_every_node_that_is_null(name: str, schools: Any, tmp_path: Path) -> None:
    count, faults = faults_of(name, schools, tmp_path, build_all)
    assert count > 10 and faults == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_every_node_that_is_null_up_to_a_step(
    name: str, schools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, faults = faults_of(name, schools, tmp_path, training.train)
    assert faults == {}


@pytest.mark.parametrize(
    ("top", "message"),
    [
        (3, r"^metrics\.top: expected a list \(each a whole number\), found 3"),
        (["a"], r"^metrics\.top: expected a list"),
        ("best", r"^metrics\.top: expected a list"),
    ],
)
def test_metrics_have_the_types_of_their_task(top: Any, message: str, schools: Any, tmp_path: Path) -> None:
    root, _ = schools("classification")
    config = matrix.composed([*TASKS["classification"], f"data.root={root}"], tmp_path)
    config["metrics"] = {"top": None, "calibration_bins": None}
    assert set(runtime.make_task(config).metrics) == {"top1", "ece"}  # null: as the task has it
    config["metrics"] = {"top": top}
    with pytest.raises(UserError, match=message):
        runtime.make_task(config)
    config["metrics"] = {"tip": [1]}
    with pytest.raises(
        UserError, match=r"metrics\.tip: the task 'classification' has no such option\. Did you mean 'top'"
    ):
        runtime.make_task(config)


def test_metrics_of_landmarks_are_those_of_keypoints(schools: Any, tmp_path: Path) -> None:
    """Whose task passes them on."""
    root, _ = schools("landmarks")
    config = matrix.composed([*TASKS["landmarks"], f"data.root={root}"], tmp_path)
    config["metrics"]["nms"] = "none"
    with pytest.raises(UserError, match=r"metrics\.nms: expected a number, found 'none'"):
        runtime.make_task(config)
