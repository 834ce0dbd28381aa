"""A small tree of configs and a command over it, python -m tiny_command."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dvsn.config import menu

TREE = {
    "tiny.yaml": """
defaults:
  - network: unet
  - optim: adam
  - trainer: default
  - _self_
  - debug: none
  - experiment: null
seed: 0
name: run
root: ???
out: ${hydra:runtime.output_dir}
copy: ${network.width}
hydra:
  run: {dir: "runs/${name}"}
  sweep: {dir: "sweeps/${name}"}
  output_subdir: null
""",
    "network/unet.yaml": "_target_: dvsn.networks.unet.UNet\nwidth: 64\nnorm: batch\n",
    "network/unet_small.yaml": "_target_: dvsn.networks.unet.UNet\nwidth: 8\nnorm: none\n",
    "network/_base.yaml": "{}\n",
    "optim/adam.yaml": "_target_: torch.optim.Adam\n_partial_: true\nlr: 2e-4\nbetas: [0.5, 0.999]\n",
    "trainer/default.yaml": "accelerator: auto\ndevices: 1\nmax_epochs: 3\nstrategy: auto\n",
    "debug/none.yaml": "{}\n",
    "debug/true.yaml": "# @package _global_\nname: debugged\n",
    "experiment/small.yaml": "# @package _global_\ndefaults:\n  - override /network: unet_small\nseed: 7\n",
    "experiment/broken.yaml": "# @package _global_\ndefaults:\n  - /optim@second: adamm\n",
    "experiment/logs.yaml": "# @package _global_\nhydra: {job_logging: {handlers: {a: {'()': os.system}}}}\n",
    "experiment/variables.yaml": "# @package _global_\nhydra: {job: {env_set: {DVSN_ALLOW: os}}}\n",
}
SCRIPT = """
import json, os, sys, time
from pathlib import Path
from dvsn import command_line, errors
from dvsn.config import compose, menu
menu.conf_dir = lambda: str(Path(__file__).parent / "conf")

def job(config):
    from hydra.core.hydra_config import HydraConfig
    out = Path(HydraConfig.get().runtime.output_dir)
    rank, heavy = os.environ.get("LOCAL_RANK"), "torch" in sys.modules
    seed = config["seed"]
    print("job", seed, config["network"]["width"], rank, heavy, flush=True)
    if seed == 11: raise RuntimeError("bad luck")
    if seed == 12: raise errors.DataError("scene.png: truncated")
    if seed == 13: os.kill(os.getpid(), 9)
    if seed == 14:
        try: time.sleep(60)
        except KeyboardInterrupt:
            (out / "saved").touch()
            raise
    (out / "result.json").write_text(json.dumps({"objective": seed * 2.0}))

if __name__ == "__main__":
    from dvsn.sweep import launcher
    launcher.register()
    command_line.run(lambda: compose.hydra_main("tiny", job, sweep=launcher.sweep, keeps=True))
"""


def write_tree(root: Path, *, built: bool = True) -> Path:
    """The small tree of configs and a command over it, `python -m tiny_command`.

    With `built=False` its nodes name no class, and the command starts without importing torch.
    """
    for name, text in TREE.items():
        text = text if built else re.sub(r"^_(target|partial)_: .*\n", "", text, flags=re.MULTILINE)
        file = root / "conf" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (root / "tiny_command.py").write_text(SCRIPT)
    return root


def environment(root: Path, **more: str) -> dict[str, str]:
    """The variables of this process with the tree and dvsn on the path."""
    repository = str(Path(menu.PACKAGE).parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([repository, str(root)]), **more}
