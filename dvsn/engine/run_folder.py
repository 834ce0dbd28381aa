"""Files that record how a run was started: config, command, environment. Imports torch only to ask for its
version."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from dvsn.config.flags import command_words
from dvsn.engine.checkout import git_state

Config = dict[str, Any]


def record_run(folder: Path, config: Config) -> None:
    """config.yaml (resolved), command.txt and environment.json; a resumed run adds its command."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    command = shlex.join(["python", "-m", "dvsn.train", *command_words()])
    with (folder / "command.txt").open("a", encoding="utf-8") as file:
        file.write(f"{command}\n")
    (folder / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n", encoding="utf-8")


def environment() -> dict[str, Any]:
    """Versions, machine and the state of the git checkout that the run starts from."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    packages = ("dvsn", "torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "omegaconf",
                "albumentations", "numpy", "opencv-python-headless", "wandb")  # fmt: skip
    versions: dict[str, str | None] = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    versions["torch"] = torch.__version__  # with its build, such as +cu126
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "cpu_threads": torch.get_num_threads(),
        "gpus": gpus,
        "versions": versions,
        "git": git_state(Path(__file__).resolve().parent.parent.parent),
    }


def peak_memory(*, on_gpu: bool) -> int:
    """The most bytes that this process has held so far, without its workers: on the GPU, or in main memory."""
    if on_gpu:
        import torch

        return torch.cuda.max_memory_allocated()
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        if names:
            return f"{names[0]} x {len(names)}"
    return platform.processor()
