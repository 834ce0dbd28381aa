"""The command as a process: a port, a load, and its end."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dvsn.errors import CheckpointError, ConfigError
from dvsn.serve.options import Settings
from dvsn.serve.running import listen, place, require_libraries, serve_at
from tests.support.six_tasks import write_checkpoint


@pytest.mark.parametrize("name", ["fastapi", "uvicorn", "python_multipart"])
def test_a_missing_library_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in ("fastapi", "uvicorn", "python_multipart"):
        monkeypatch.setitem(sys.modules, each, None if each == name else sys)
    with pytest.raises(ConfigError, match=rf"{name} is not installed. pip install 'dvsn\[serve\]'"):
        require_libraries()


def test_a_port_that_is_taken() -> None:
    with listen(Settings(models={}, port=0)) as opened:
        port = opened.getsockname()[1]
        assert place(opened, Settings(models={}, host="0.0.0.0")) == f"localhost:{port}"
        with pytest.raises(ConfigError, match=f"port: {port} is taken by another program"):
            listen(Settings(models={}, port=port))


@pytest.mark.parametrize("host", ["203.0.113.7", "no such name", "x" * 70])
def test_an_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen at"):
        listen(Settings(models={}, host=host, port=0))


def test_a_broken_model_ends_the_server_and_leaves_the_signals(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
    (tmp_path / "a.onnx").write_bytes(b"not one")
    settings = Settings(models={"a": str(tmp_path / "a.onnx")}, port=0)
    before = signal.getsignal(signal.SIGTERM)
    with listen(settings) as opened, pytest.raises(CheckpointError, match="not an ONNX file"):
        serve_at(opened, settings)
    assert signal.getsignal(signal.SIGTERM) is before


def post(address: str, data: bytes) -> dict[str, object]:
    with urllib.request.urlopen(urllib.request.Request(address, data), timeout=60) as answer:
        content: dict[str, object] = json.load(answer)
        return content


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_answers_eight_clients_and_stops_in_peace(number: signal.Signals, tmp_path: Path) -> None:
    """200 requests from 8 clients at once; then what is in line is finished, nothing new is let in, and it exits with 0."""
    pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
    path = write_checkpoint("classification", tmp_path)
    words = [sys.executable, "-m", "dvsn.serve", f"small={path}", "port=0"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        found = re.search(r"http://([\d.]+):(\d+)", process.stderr.readline())
        assert found is not None
        base = f"http://{found[1]}:{found[2]}"
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{base}/health")
                break
            except urllib.error.HTTPError as error:
                assert error.code == 503
                time.sleep(0.1)
        files = []
        for seed in range(200):
            buffer = io.BytesIO()
            colours = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(colours).save(buffer, "PNG")
            files.append(buffer.getvalue())
        address = f"{base}/models/small/predict"
        with ThreadPoolExecutor(8) as clients:
            answers = list(clients.map(lambda data: post(address, data), files))
            again = [post(address, files[place]) for place in range(0, 200, 40)]
            for place_, each in enumerate(again):
                one, other = (
                    answer["result"]["classes"][0]["score"]  # type: ignore[index]
                    for answer in (answers[40 * place_], each)
                )
                assert one == pytest.approx(other, abs=1e-5)
            assert len({json.dumps(answer["result"]) for answer in answers}) == 200
            last = [clients.submit(post, address, data) for data in files[:8]]
            time.sleep(0.05)
            process.send_signal(number)
            finished = sum(not isinstance(each.exception(), Exception) for each in last)
        assert process.wait(30) == 0
        assert f"stopped: {205 + finished} answered, 0 refused" in process.stderr.read()
        assert finished > 0
        with pytest.raises(OSError), socket.create_connection((found[1], int(found[2])), 1):
            pass
    finally:
        process.kill()
        process.wait()
