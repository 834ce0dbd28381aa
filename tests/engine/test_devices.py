"""Precision: bf16 where it is fast, by a rule over what the hardware has."""

from __future__ import annotations

import pytest
import torch

from dvsn.engine import devices

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
