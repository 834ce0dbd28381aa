"""The benchmark command: its rows and what they say, its stopwatch, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor, nn

from dvsn.benchmark import kinds, levers, stopwatch
from dvsn.benchmark.__main__ import COMMAND, benchmark
from dvsn.benchmark.measure import compare, kept_modules
from dvsn.benchmark.stopwatch import Stopwatch, highest, peak_memory
from dvsn.benchmark.table import COLUMNS, cells, markdown
from dvsn.config.compose import initialized, plain
from dvsn.config.menu import conf_dir
from dvsn.errors import CheckpointError, ConfigError, DataError
from dvsn.networks.folding import Folded

TINY = [
    "network=pidnet_s", "network.width=4", "network.pyramid_width=4", "network.head_width=4", "data.classes=3",
    "device=cpu", "size=[32,48]", "runs=2", "rounds=1",
]  # fmt: skip


def composed(*overrides: str) -> dict[str, Any]:
    with initialized(conf_dir()):
        return plain(compose("benchmark", overrides=[*TINY, *overrides]))


def test_one_table_from_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    variants = "variants=[folded,folded+channels_last+bf16,folded+bf16_autocast]"
    result = benchmark(composed(variants, f"output={tmp_path}/table.json"))
    assert json.loads((tmp_path / "table.json").read_text()) == result
    rows = {(row["protocol"], row["variant"]): row for row in result["rows"]}
    names = ("plain", "folded", "folded+channels_last+bf16", "folded+bf16_autocast")
    assert list(rows) == [(protocol, name) for protocol in ("network", "end_to_end") for name in names]
    for (protocol, name), row in rows.items():
        times = row["milliseconds"]
        assert times["minimum"] <= times["p5"] <= times["median"] <= times["p95"]
        assert row["passes"] == 2 and row["peak_memory"] > 0
        assert row["agreement"] == 1 if name in ("plain", "folded") else 0.5 < row["agreement"] <= 1
        assert ("error" in row) == (protocol == "network")
    assert rows["network", "plain"]["error"] == 0 and rows["network", "plain"]["speed_up"] == 1
    assert 0 < rows["network", "folded"]["error"] < 1e-4 < rows["network", names[2]]["error"]
    assert (result["folded_norms"], len(result["kept_norms"])) == (66, 9)
    shown, page = capsys.readouterr().out, markdown(result)
    for word in (
        *names,
        "66 fold",
        f"{result['parameters']:,} parameters",
        result["date"],
        torch.__version__,
    ):
        assert word in shown and word in page


@pytest.mark.slow
def test_a_table_of_pose(capsys: pytest.CaptureFixture[str]) -> None:
    with initialized(conf_dir()):
        small = ["network=hrnet_small", "size=[64,32]", "batch=2", "device=cpu", "runs=2", "rounds=1"]
        variants = "variants=[folded,folded+channels_last+bf16,folded+bf16_autocast]"
        config = plain(compose("benchmark", overrides=[*small, variants]))
    result = benchmark(config)
    rows = {(row["protocol"], row["variant"]): row for row in result["rows"]}
    assert result["kind"] == "pose" and result["kept_norms"] == [] and len(rows) == 8
    for (protocol, name), row in rows.items():
        assert "failed" not in row and ("error" in row) == (protocol == "network")
        assert row["agreement"] > (
            0.3 if "bf16" in name else 0.9
        )  # flat maps of random weights: many near ties
    assert 0 < rows["network", "folded"]["error"] < 1e-4 < rows["network", "folded+bf16_autocast"]["error"]
    page = markdown(result)
    assert "decode the heatmaps" in page and "less than a pixel of the heatmaps" in page
    assert "decode the heatmaps" in capsys.readouterr().out


def test_a_table_of_landmarks(capsys: pytest.CaptureFixture[str]) -> None:
    with initialized(conf_dir()):
        small = [
            "network=pfld_025",
            "network.size=32",
            "size=[32,32]",
            "data.joints=5",
            "device=cpu",
            "runs=1",
            "rounds=1",
        ]
        variants = "variants=[folded+channels_last,folded+channels_last+bf16]"
        config = plain(compose("benchmark", overrides=[*small, variants]))
    result = benchmark(config)
    rows = {(row["protocol"], row["variant"]): row for row in result["rows"]}
    assert result["kind"] == "landmarks" and result["kept_norms"] == [] and len(rows) == 6
    assert all(row["pixels"] == 0 for (_, name), row in rows.items() if name == "plain")
    for protocol in ("network", "end_to_end"):  # the same unit, pixels of the crop
        assert 0 < rows[protocol, "folded+channels_last"]["pixels"] < 1e-3
        assert 1e-3 < rows[protocol, "folded+channels_last+bf16"]["pixels"] < 2
    assert " px " in markdown(result) and "tenth of a pixel" in capsys.readouterr().out


def test_points_agree_within_a_tenth_of_a_pixel() -> None:
    kind = kinds.of_network(nn.Module(), {"landmarks": 2}, [112, 112])
    points = torch.tensor([[[3.0, 4.0], [8.0, 8.0]]])
    moved = points + torch.tensor([[[0.05, 0.05], [0.08, 0.08]]])  # 0.07 and 0.11 pixels away
    assert compare([moved], [points], kind, [112, 112]) == {"agreement": 0.5}


def test_onnx_runtime_answers_as_plain_does() -> None:
    pytest.importorskip("onnxruntime", reason="needs pip install 'dvsn[onnx]'")
    pytest.importorskip("onnxscript", reason="needs pip install 'dvsn[onnx]'")
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    image = torch.randn(2, 3, 6, 7)
    subject = levers.Subject(network, levers.MainAnswer, image, [image])
    with torch.no_grad():
        found = levers.pull(frozenset({"folded", "onnxruntime"}), subject).run(image)
        torch.testing.assert_close(found, network(image))


def test_onnx_runtime_asks_for_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levers, "has_onnxruntime", lambda: False)
    with pytest.raises(ConfigError, match=r"ONNX Runtime is not installed. pip install 'dvsn\[onnx\]'"):
        levers.parse(["folded+onnxruntime"], "cpu")
    assert "folded+onnxruntime" not in levers.defaults("cpu")


@pytest.mark.parametrize(
    ("network", "parameters", "giga"),
    [("hrnet_w32", 28_536_113, 7.645), ("simplebaseline_50", 33_999_697, 5.426)],
)
def test_the_published_figures_of_pose(
    network: str, parameters: int, giga: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvsn.benchmark.measure.measure_all", lambda *_: [])
    monkeypatch.setattr("dvsn.benchmark.measure.fold_batch_norms", lambda network, _: Folded(network, (), ()))
    with initialized(conf_dir()):
        config = plain(compose("benchmark", overrides=[f"network={network}", "size=[256,192]", "device=cpu"]))
    result = benchmark(config)
    assert (result["parameters"], round(result["macs"] / 1e9, 3)) == (parameters, giga)
    assert f"{parameters:,} parameters, {giga:.3f} G multiply-accumulates" in markdown(result)


def test_plain_is_always_measured_and_a_failed_lever_stays_in_the_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(levers, "compiled", lambda model, pulled, _: broken() if pulled else model)
    result = benchmark(composed("variants=[compiled]", "protocols=[network]"))
    assert [row["variant"] for row in result["rows"]] == ["plain", "compiled"]
    assert result["rows"][1]["failed"] == "no compiler"
    assert "no compiler" in markdown(result)


@pytest.mark.slow
def test_pictures_stand_for_noise(tmp_path: Path) -> None:
    for i in range(3):
        random = np.random.default_rng(i).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(random).save(tmp_path / f"{i}.png")
    result = benchmark(
        composed(f"images={tmp_path}", "batch=2", "variants=[folded]", "protocols=[end_to_end]")
    )
    assert result["rows"][1]["agreement"] == 1
    with pytest.raises(DataError, match="no such folder"):
        benchmark(composed(f"images={tmp_path}/absent"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["size=[32]"], r"size: found \[32\], expected height and width"),
        (["size=[32,0]"], r"size: found \[32, 0\]"),
        (["size=32"], "size: found 32"),
        (["size=[32,4.5]"], "size: found"),
        (["batch=0"], "batch: found 0"),
        (["runs=0"], "runs: found 0"),
        (["seconds=0"], "seconds: found 0"),
        (["threads=0"], "threads: found 0"),
        (["output=table.txt"], "output: found 'table.txt', expected null, or a file that ends in .json or .md"),
        (["protocols=[netwrok]"], "protocols: found"),
        (["variants=[foldde]"], "there is no lever 'foldde'. Did you mean 'folded'?"),
        (["variants=[plain+folded]"], "plain means no lever"),
        (["variants=[bf16+fp16]"], "found bf16 and fp16, expected one precision"),
        (["variants=[compiled+openvino]"], "expected one engine"),
        (["variants=[compiled+onnxruntime]"], "expected one engine"),
        (["variants=[bf16+onnxruntime]"], "ONNX Runtime computes in float32 in a layout of its own; leave out bf16"),
        (["variants=[graph]"], "graph cannot be used on device=cpu"),
        (["variants=[int8]"], r"int8 runs in OpenVINO. Write int8\+openvino"),
        (["network=unet_128", "+data.input_channels=3", "+data.output_channels=3"], "found UNet, which neither segments"),
        (["rest=f16"], "rest: found 'f16'"),
        (["calibration_pictures=0"], "calibration_pictures: found 0"),
        (["checkpoint=best.ckpt"], "network, checkpoint: found both"),
        (["network=null"], "network, checkpoint: found neither"),
    ],
)  # fmt: skip
def test_refuses(overrides: list[str], message: str) -> None:
    given = composed() if "network=null" in overrides else None
    with pytest.raises(ConfigError, match=message):
        if given is not None:
            benchmark({**given, "network": None})
        elif overrides[0].startswith("network="):
            with initialized(conf_dir()):
                tree = OmegaConf.to_container(compose("benchmark", overrides=overrides), resolve=True)
            assert isinstance(tree, dict)
            benchmark({str(key): value for key, value in tree.items()})
        else:
            benchmark(composed(*overrides))


def test_refuses_a_checkpoint_of_another_task(monkeypatch: pytest.MonkeyPatch) -> None:
    class Translator(nn.Module):
        kind = "pix2pix"

        def deployable(self) -> nn.Module:
            return nn.Identity()

    monkeypatch.setattr("dvsn.benchmark.measure.load", lambda path: Translator())
    config = {**composed(), "network": None, "checkpoint": "best.ckpt"}
    with pytest.raises(CheckpointError, match=r"best\.ckpt: a checkpoint of the task 'pix2pix'"):
        benchmark(config)


def test_every_default_variant_is_understood() -> None:
    for names, device in ((levers.CPU_VARIANTS, "cpu"), (levers.CUDA_VARIANTS, "cuda")):
        assert list(levers.parse(names, device)) == list(names)


def test_the_stopwatch_counts_every_pass() -> None:
    seen = []
    watch = Stopwatch(lambda image: seen.append(1) or image, torch.zeros(4, 1), seconds=1, runs=6, turns=3)  # type: ignore[func-returns-value]
    for _ in range(3):
        watch.turn()
    assert len(seen) == watch.passes == len(watch.times) == 6
    assert watch.images_per_second == pytest.approx(24 / watch.seconds)
    watch.times = [0.004, 0.001, 0.002, 0.003, 0.005]
    assert watch.latency() == pytest.approx((3, 1.2, 4.8, 1))


def test_the_stopwatch_calibrates_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    monkeypatch.setattr(stopwatch, "clock", lambda: len(passes) / 1000)  # a pass takes a millisecond

    def run(image: Tensor) -> Tensor:
        passes.append(1)
        return image

    watch = Stopwatch(run, torch.zeros(1), seconds=0.06, runs=None, turns=2)
    for _ in range(2):
        watch.turn()
    assert (watch.per_turn, watch.passes) == (30, 60)
    assert watch.seconds == pytest.approx(0.06) and watch.latency().median == pytest.approx(1)


def test_peak_memory_is_that_of_the_tensors_alive() -> None:
    def run(image: Tensor) -> Tensor:
        first = image + 1  # two maps alive, then one
        second = first + 1
        del first
        return second.sum()

    image = torch.zeros(1, 3, 256, 256)
    layer = nn.Linear(10, 10)
    found = peak_memory(run, image, layer) - 110 * 4
    assert 3 * image.nbytes <= found < 3.1 * image.nbytes
    assert highest([5, -5, 3, 4, -7]) == 7 and highest([]) == 0


def test_agreement_is_of_pixels_of_full_size() -> None:
    expected = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # (1, 2, 1, 2): class 0, then class 1
    network = nn.Module()
    network.align_corners = True  # type: ignore[assignment]
    kind = kinds.of_network(network, {}, [1, 4])
    assert compare([expected.flip(1)], [expected], kind, [1, 4]) == {"agreement": 0.0}
    weak = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.25]]]])  # class 1 wins only in the last of four pixels
    assert compare([weak], [expected], kind, [1, 4])["agreement"] == 0.75
    ids = torch.tensor([[[0, 1], [2, 2]]])
    assert compare([ids], [ids * 2], kind, [2, 2]) == {"agreement": 0.25}


def test_agreement_is_of_keypoints_that_stay() -> None:
    network = nn.Module()
    network.stride = 4  # type: ignore[assignment]
    kind = kinds.of_network(network, {"joints": 2}, [32, 32])
    maps = torch.zeros(1, 2, 8, 8)
    maps[0, 0, 4, 4] = maps[0, 1, 2, 5] = 1
    moved = maps.clone()
    moved[0, 1] = moved[0, 1].roll(1, dims=1)  # four pixels of the crop
    assert compare([moved], [maps], kind, [32, 32]) == {"agreement": 0.5}
    points = torch.tensor([[[3.0, 4.0, 0.9], [8.0, 8.0, 0.8]]])
    near = points + torch.tensor([[[2.5, 2.5, 0.3], [3.0, 3.0, 0.0]]])  # 3.5 and 4.2 pixels away
    assert compare([near], [points], kind, [32, 32]) == {"agreement": 0.5}


def test_help_and_cells_agree_with_the_config() -> None:
    with initialized(conf_dir()):
        config = compose("benchmark")
    for option in COMMAND.options:
        value = OmegaConf.select(config, option.name)
        assert (None if option.default == "null" else option.default) == value, option.name
    assert len(cells({"failed": "reason"}, 1)) == len(COLUMNS)


def test_modules_to_keep_from_int8_must_exist() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(nn.ReLU()))
    assert kept_modules(["1.0", "0"], network) == ("1.0", "0") and kept_modules(None, network) == ()
    with pytest.raises(ConfigError, match=r"keep: the network has no module '1\.1'\. Did you mean '1"):
        kept_modules(["1.1"], network)


def test_a_checkpoint_needs_no_network(tmp_path: Path) -> None:
    """Hydra leaves the group out of the config when none is chosen."""
    with initialized(conf_dir()):
        config = plain(compose("benchmark", overrides=["device=cpu", f"checkpoint={tmp_path}/none.ckpt"]))
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        benchmark(config)
    with pytest.raises(ConfigError, match="neither"):
        benchmark(config | {"checkpoint": None})
