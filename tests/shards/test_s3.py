"""Shards in a bucket of a real S3 server on this machine (moto's), in processes of their own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dvsn.errors import ConfigError, MissingError
from dvsn.shards.index import read_index
from dvsn.shards.storage import open_storage
from dvsn.weights import read_checkpoint
from tests.support.own_data import write_classes
from tests.support.ranks import environment, free_port
from tests.support.resuming import equal
from tests.support.tiny import TINY_CLASSIFICATION

MISSING = [name for name in ("moto", "s3fs", "flask") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: pip install s3fs 'moto[server]'"),
]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    import s3fs

    port = free_port()
    line = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    account = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for key, value in account.items():
            patch.setenv(key, value)
        with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                for _ in range(200):
                    with contextlib.suppress(Exception):
                        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("sets")
                        break
                    time.sleep(0.1)
                yield "s3://sets"
            finally:
                process.terminate()


def dvsn(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"dvsn.{module}", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def test_a_set_is_written_trained_on_and_evaluated_from_a_bucket(bucket: str, tmp_path: Path) -> None:
    """With two workers, by the same bits as from a folder of shards."""
    write_classes(tmp_path / "source", {f"{split}/{name}": 6 for split in ("train", "val") for name in "abc"})
    source = ["task=classification", "data=imagefolder", f"data.root={tmp_path / 'source'}", "data.classes=3"]
    kept = [each for each in TINY_CLASSIFICATION if not each.startswith(("data.classes", "data.workers"))]
    ends = []
    for place in (f"{bucket}/classes", str(tmp_path / "shards")):
        dvsn("data", "shard", *source, f"target={place}")
        run = tmp_path / f"run{len(ends)}"
        options = ["data=shards", f"data.root={place}", f"data.cache={tmp_path / 'cache'}", "data.workers=2"]
        text = dvsn("train", *kept, *options, "trainer.max_epochs=2", f"run_dir={run}")
        assert "credentials" not in text.lower()
        ends.append(read_checkpoint(run / "checkpoints" / "last.ckpt"))
        text = dvsn("evaluate", f"checkpoint={run / 'checkpoints' / 'last.ckpt'}", "split=val")
        assert "top1" in text
    assert equal(ends[0]["state_dict"], ends[1]["state_dict"])
    assert list((tmp_path / "cache").glob("*.shard"))


def test_what_is_not_there_or_not_allowed_is_one_sentence(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"s3://sets/nowhere/index\.json: no such file"):
        read_index(open_storage(f"{bucket}/nowhere"))
    with pytest.raises(MissingError, match="no finished set"):
        read_index(open_storage("s3://no-such-bucket/x"))
    assert open_storage(f"{bucket}/nowhere").sizes() == {}


def test_no_account_is_one_sentence(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for key in [each for each in os.environ if each.startswith("AWS_") and each != "AWS_ENDPOINT_URL"]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ConfigError, match=r"no account is known|no right to it"):
        read_index(open_storage(f"{bucket}/x"))
