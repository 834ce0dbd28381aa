"""Precision: bf16 where it is fast, by a rule over what the hardware has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from dvsn.engine import devices
from dvsn.engine import trainer as runtime
from dvsn.engine.callbacks import length
from dvsn.errors import ConfigError
from tests.support.distill_stubs import SMALL
from tests.support.tiny import TINY, composed

PROCESSORS = [
    # AMX, avx512_bf16, maker, what `auto` takes, a word of the reason
    (True, True, "GenuineIntel", "bf16-mixed", "AMX"),  # Sapphire Rapids
    (False, True, "GenuineIntel", "32-true", "no AMX"),  # Cooper Lake, or a virtual machine that hides AMX
    (False, True, "AuthenticAMD", "bf16-mixed", "full rate"),  # Zen 4 and later
    (False, False, "AuthenticAMD", "32-true", "no bf16 units"),  # Zen 3
    (False, False, "GenuineIntel", "32-true", "no bf16 units"),
    (False, False, "", "32-true", "no bf16 units"),
]


@pytest.mark.parametrize(("amx", "avx", "maker", "expected", "reason"), PROCESSORS)
def test_auto_on_a_cpu(
    amx: bool, avx: bool, maker: str, expected: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(devices, "cpu_vendor", lambda: maker)
    assert devices.resolve_precision("auto", cuda=False) == expected
    assert reason in devices.precision_reason({"precision": "auto", "accelerator": "cpu"})
    assert devices.precision_reason({"precision": "32-true", "accelerator": "cpu"}) == ""


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_on_a_gpu_asks_for_units(native: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch says that a GPU without bf16 units supports it as well: by emulation, which is slow."""

    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert devices.resolve_precision("auto", cuda=True) == expected


def test_a_measurement_is_float32_unless_a_precision_is_named() -> None:
    assert devices.measuring({"precision": "auto", "devices": 2}) == {"precision": "32-true", "devices": 2}
    assert devices.measuring({})["precision"] == "32-true"
    for named in ("bf16-mixed", "16-mixed", "64-true", "32-true"):
        assert devices.measuring({"precision": named})["precision"] == named


def test_what_ddp_is_told(tmp_path: Path) -> None:
    """The options of `trainer` reach DDP, and a graph that is not static is refused."""
    classes = ["trainer.devices=2", "data.batch_size=4"]
    words = [
        f"trainer.ddp_{each}"
        for each in ("bucket_mb=4", "bucket_view=true", "static_graph=true", "compress=bf16")
    ]
    config = composed([*SMALL, *classes, *words], tmp_path)
    strategy: Any = runtime.build_trainer(config, runtime.make_task(config)).strategy
    assert strategy._ddp_kwargs == {
        "find_unused_parameters": False, "static_graph": True, "gradient_as_bucket_view": True, "bucket_cap_mb": 4,
    }  # fmt: skip
    assert strategy.compress == "bf16"
    config = composed([*TINY, *classes, "trainer.ddp_static_graph=true"], tmp_path)
    with pytest.raises(ConfigError, match="task=pix2pix, with two optimisers, use other parameters"):
        runtime.build_trainer(config, runtime.make_task(config))
    config = composed([*TINY, *classes, "trainer.ddp_bucket_mb=0"], tmp_path)
    with pytest.raises(ConfigError, match=r"trainer\.ddp_bucket_mb"):
        runtime.build_trainer(config, runtime.make_task(config))


def test_nccl_records_into_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("TORCH_FR_BUFFER_SIZE", "TORCH_FR_DUMP_ON_TIMEOUT", "TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_TRACE_BUFFER_SIZE",
             "TORCH_NCCL_DUMP_ON_TIMEOUT", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE", devices.FLIGHTS)  # fmt: skip
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_FR_BUFFER_SIZE", "7")
    for name in names[1:]:
        monkeypatch.setenv(name, "")  # so that it is taken away afterwards
        monkeypatch.delenv(name)
    devices.record_flights(tmp_path)
    assert os.environ["TORCH_FR_DUMP_TEMP_FILE"] == str(tmp_path / "nccl_rank_")
    assert os.environ["TORCH_FR_BUFFER_SIZE"] == "7", "what is set stays"
    devices.record_flights(tmp_path / "second")  # another training of this process
    for name in ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE"):
        assert os.environ[name] == str(tmp_path / "second" / "nccl_rank_")
    monkeypatch.setenv("TORCH_FR_DUMP_TEMP_FILE", "/mine_")
    devices.record_flights(tmp_path / "third")
    assert os.environ["TORCH_FR_DUMP_TEMP_FILE"] == "/mine_", "what the user names stays"
    assert os.environ["TORCH_NCCL_DEBUG_INFO_TEMP_FILE"] == str(tmp_path / "third" / "nccl_rank_")


def test_the_length_of_gradients() -> None:
    assert float(length([torch.tensor([3.0, 0.0]), torch.tensor([4.0])])) == 5.0
