"""What a served model costs: requests from several clients at once through a real port, against the network alone.

    python experiments/speed/serve.py best.ckpt picture.png > serve.md
    python experiments/speed/serve.py street=best.ckpt picture.png requests=200 clients=8

The server is `python -m dvsn.serve` in a process of its own, as it stands. Each request sends the picture with one row of
pixels changed, so that no two are equal, and asks for JSON; the answers are compared with those of `dvsn.load(...).predict`,
so that one that is lost or belongs to another request is seen. `one client` asks one after the other. The network alone is
`predict` on the pictures in memory, one at a time.
"""

from __future__ import annotations

import base64
import io
import json
import os
import platform
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from PIL import Image

import dvsn

ALONE = 20
"""Requests of one client, and pictures of the network alone."""


def pictures(path: str, count: int) -> list[np.ndarray[Any, Any]]:
    """The picture, each time with another row of it black."""
    given = np.array(Image.open(path).convert("RGB"))
    made = []
    for number in range(count):
        changed = given.copy()
        changed[number % len(given)] = 0
        changed[0, 0] = (number % 256, number // 256, 0)
        made.append(changed)
    return made


def encoded(picture: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def ask(address: str, data: bytes) -> tuple[Any, float]:
    """The answer and its seconds. A full server is asked again when it says."""
    start = time.perf_counter()
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, data)) as answer:
                return json.load(answer), time.perf_counter() - start
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            time.sleep(float(error.headers["Retry-After"]))


def agreement(answer: Any, expected: Any) -> float:
    """The share of pixels with the same class; of other tasks 1 or 0."""
    if expected.ids is not None:
        data = base64.b64decode(answer["result"]["ids"]["png"])
        return float((np.array(Image.open(io.BytesIO(data))) == expected.ids).mean())
    return float(answer["result"].get("classes") == expected.to_json().get("classes"))


def started(model: str) -> tuple[subprocess.Popen[str], str]:
    """The server, when it is ready, and its address."""
    words = [sys.executable, "-m", "dvsn.serve", model, "port=0"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    found = re.search(r"http://[\d.:]+", process.stderr.readline())
    assert found is not None, process.stderr.read()
    while True:
        try:
            urllib.request.urlopen(f"{found[0]}/health")
            return process, found[0]
        except urllib.error.HTTPError:
            time.sleep(0.2)


def row(name: str, seconds: list[float], wall: float) -> str:
    p50, p95 = (1000 * float(np.quantile(seconds, share)) for share in (0.5, 0.95))
    return f"| {name} | {len(seconds)} | {len(seconds) / wall:.1f} | {p50:.0f} | {p95:.0f} | {1000 * max(seconds):.0f} |"


def report(model: str, path: str, requests: int, clients: int) -> None:
    given = pictures(path, requests)
    files = [encoded(each) for each in given]
    task = dvsn.load(model.rpartition("=")[2])
    expected, alone = [], []
    for each in given:
        start = time.perf_counter()
        expected.append(task.predict(each))
        alone.append(time.perf_counter() - start)
    alone = alone[-ALONE:]
    before = os.getloadavg()[0]
    process, base = started(model)
    try:
        with urllib.request.urlopen(f"{base}/models") as answer:
            (about,) = json.load(answer)["models"]
        address = f"{base}/models/{about['name']}/predict"
        begun = time.perf_counter()
        single = [ask(address, data)[1] for data in files[:ALONE]]
        one = time.perf_counter() - begun
        begun = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            answers = list(pool.map(lambda data: ask(address, data), files))
        several = time.perf_counter() - begun
    finally:
        process.terminate()
        process.wait()
    same = [agreement(answer, want) for (answer, _), want in zip(answers, expected, strict=True)]
    sizes = Counter(answer["batch"] for answer, _ in answers)
    height, width = given[0].shape[:2]
    print("# A served model under load\n")
    print(
        f"`python experiments/speed/serve.py {model} {path} requests={requests} clients={clients}`, "
        f"{datetime.now(UTC):%Y-%m-%d}\n"
    )
    print(
        f"{about['task']}, a picture of {height}x{width}; {platform.machine()}, {os.cpu_count()} cores with a load of "
        f"{before:.1f} before it and {os.getloadavg()[0]:.1f} at the end; Python {platform.python_version()}, torch "
        f"{torch.__version__}, {torch.get_num_threads()} threads.\n"
    )
    print("| who asks | requests | a second | p50, ms | p95 | longest |")
    print("|---|--:|--:|--:|--:|--:|")
    print(row("`predict` in Python, one at a time", alone, sum(alone)))
    print(row("one client", single, one))
    print(row(f"{clients} clients at once", [seconds for _, seconds in answers], several))
    batches = ", ".join(f"{count} in batches of {size}" for size, count in sorted(sizes.items()))
    print(
        f"\n{len(answers)} of {requests} answered: {batches}; exit code of the server {process.returncode}."
    )
    print(
        f"Of the answers {sum(share == 1 for share in same)} are equal to `predict` of the same picture to the last pixel, "
        f"and the least alike agrees on {100 * min(same):.3f} %."
    )


def main() -> None:
    options = dict(word.split("=") for word in sys.argv[1:] if word.startswith(("requests=", "clients=")))
    words = [word for word in sys.argv[1:] if not word.startswith(("requests=", "clients="))]
    if len(words) != 2:
        raise SystemExit(__doc__)
    report(*words, int(options.get("requests", 200)), int(options.get("clients", 8)))


if __name__ == "__main__":
    main()
