"""`trainer=fsdp` on two processes (gloo): what is learned, taught, saved and gone on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dvsn.engine import trainer as runtime
from dvsn.errors import ConfigError
from dvsn.tasks.recipe import load
from dvsn.weights import read_checkpoint
from tests.support.distill_stubs import SMALL, save_teacher
from tests.support.ranks import start_ranks, two_ranks
from tests.support.tiny import TINY, composed, write_blobs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*TINY], "task=pix2pix has two"),
        ([*SMALL, "ema=0.9"], r"does not go with ema=0\.9\. Set ema=null"),
        ([*SMALL, "compile=true"], "Set compile=false"),
        ([*SMALL, "channels_last=true"], "channels_last=false"),
        ([*SMALL, "trainer.precision=16-mixed"], "32-true and bf16-mixed"),
    ],
)
def test_what_does_not_go_with_it_is_refused(words: list[str], message: str, tmp_path: Path) -> None:
    config = composed([*words, "trainer.devices=2", "trainer.strategy=fsdp", "data.batch_size=4"], tmp_path)
    with pytest.raises(ConfigError, match=message):
        runtime.build_trainer(config, runtime.make_task(config))


def test_one_process_keeps_everything(tmp_path: Path) -> None:
    config = composed([*SMALL, "trainer.strategy=fsdp"], tmp_path)
    trainer = runtime.build_trainer(config, runtime.make_task(config))
    assert type(trainer.strategy).__name__ == "SingleDeviceStrategy"


@pytest.mark.slow
def test_a_sharded_teacher_answers_as_the_whole_one(tmp_path: Path) -> None:
    """With its taps, and each process keeps half of it."""
    start_ranks("sharding.py", str(tmp_path))
    for rank in range(2):
        found = json.loads((tmp_path / f"sharding_{rank}.json").read_text())
        assert found["apart"] <= 1e-6
        assert found["bytes"][1] < 0.55 * found["bytes"][0]


@pytest.mark.slow
@pytest.mark.parametrize("teacher", ["sharded", "replicated"])
def test_sharded_processes_learn_as_ddp_does(teacher: str, tmp_path: Path) -> None:
    """CRD, whose modules are trained, and KD, with batch norm; four epochs by DDP, by FSDP, and by FSDP broken after two,
    from one whole file that a single process loads as well."""
    root = write_blobs(tmp_path / "blobs", train=4)
    shared = [
        *SMALL,
        f"data.root={root}",
        "data.batch_size=4",
        "channels_last=false",
        "callbacks=default",
        "logger=csv",
    ]
    taught = save_teacher(composed([*shared, "network=resnet14"], tmp_path), tmp_path / "teacher.ckpt")
    options = [
        *shared, f"teacher={taught}", "distill=[kd,crd]", "distill.crd.method.negatives=8", "trainer.devices=2",
        "network.depth=8", "distillation.engine=eager", "optim.lr=0.001",
    ]  # fmt: skip
    fsdp = [*options, "trainer.strategy=fsdp", f"trainer.fsdp_teacher={teacher}", "checkpoint.weights=true"]

    def config(name: str, words: list[str], epochs: int) -> dict[str, Any]:
        return composed([*words, f"trainer.max_epochs={epochs}"], tmp_path / name)

    two_ranks(
        config("ddp", options, 4),
        config("fsdp", fsdp, 4),
        config("broken", fsdp, 2),
        config("broken", fsdp, 4),
    )
    states = {}
    for name in ("ddp", "fsdp", "broken"):
        content = read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")
        states[name] = content["state_dict"]
        assert content["optimizer_states"][0]["state"], "what it has gathered is there"
    for key, value in states["ddp"].items():
        if "running_" not in key and "num_batches" not in key:
            torch.testing.assert_close(states["fsdp"][key], value, rtol=1e-4, atol=1e-5)
    for key, value in states["fsdp"].items():
        torch.testing.assert_close(states["broken"][key], value, rtol=0, atol=0)
    weights = load_file(tmp_path / "fsdp" / "checkpoints" / "last.safetensors")
    for key, value in weights.items():
        torch.testing.assert_close(value, states["fsdp"][key], rtol=0, atol=0)
    assert weights.keys() == {key for key in states["fsdp"] if not key.startswith("distiller.")}
    alone: Any = load(tmp_path / "fsdp" / "checkpoints" / "last.ckpt")
    assert torch.isfinite(alone(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))).all()
