"""An evaluation as a command line asks for it, on the CPU."""

from __future__ import annotations

from typing import Any

from hydra import compose
from omegaconf import OmegaConf

from dvsn.config.compose import initialized
from dvsn.config.menu import conf_dir
from dvsn.evaluate import evaluate


def evaluated(*overrides: str) -> dict[str, float]:
    """The scores."""
    options = ["trainer=cpu", "trainer.enable_progress_bar=false", *overrides]
    with initialized(conf_dir()):
        config: Any = OmegaConf.to_container(compose("evaluate", overrides=options), resolve=True)
    config.pop("hydra", None)
    return evaluate(config)
