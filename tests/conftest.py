"""Every test: one thread, no network, no account, and the repository's own package."""

from __future__ import annotations

import gc
import logging
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra._internal.core_plugins.file_config_source import FileConfigSource

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


def pytest_collection_finish() -> None:
    """What is there before the first test stays to the end: the garbage collector need not look through some million objects
    of libraries and of nine thousand tests again and again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Sums in one order, and a core for each process of the suite."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def disk_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody pulls the plug of a test: files are written, but not waited for until they are on the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """What a command that runs in this process adds to the loggers is taken away again, so that no test hears another."""
    loggers = [logging.getLogger(), logging.getLogger("dvsn")]
    before = [(logger, list(logger.handlers), logger.level) for logger in loggers]
    yield
    for logger, handlers, level in before:
        logger.setLevel(level)
        for handler in [each for each in logger.handlers if each not in handlers]:
            if type(handler) in (logging.StreamHandler, logging.FileHandler):
                logger.removeHandler(handler)


@pytest.fixture(scope="session", autouse=True)
def files_are_parsed_once() -> Iterator[None]:
    """Every config is composed of some twenty of the same files, whose parsing takes a third of the time. A file is known by
    its place, size and time; what was read of it is unpickled anew for each config."""
    read, known = FileConfigSource.load_config, dict[tuple[Any, ...], bytes]()

    def load_config(source: Any, config_path: str) -> Any:
        file = Path(source.path, source._normalize_file_name(config_path))
        if not file.is_file():
            return read(source, config_path)
        facts = file.stat()
        key = (source.provider, source.path, file, facts.st_size, facts.st_mtime_ns, facts.st_ino)
        if key not in known:
            known[key] = pickle.dumps(read(source, config_path), pickle.HIGHEST_PROTOCOL)
        return pickle.loads(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileConfigSource, "load_config", load_config)
        yield


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configs may name the methods of `tests.support.distill_stubs`."""
    monkeypatch.setenv("DVSN_ALLOW", "tests.support.distill_stubs")


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three classes, four of each to train on: two batches of six."""
    from tests.support.tiny import write_blobs

    return write_blobs(tmp_path_factory.mktemp("blobs"), train=4)


@pytest.fixture(scope="session")
def nine_blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smaller pictures, three of each class to train on and one in val."""
    from tests.support.tiny import write_blobs

    return write_blobs(tmp_path_factory.mktemp("blobs"), size=16, train=3, val=1)
