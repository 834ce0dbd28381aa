"""A job stops with the process that has started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dvsn.config import parent_death
from tests.support.tiny_command import environment

CHILD = """
import signal, sys, time
from dvsn.config import parent_death
def stop(*_):
    open(sys.argv[1], "w").close()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
parent_death.stop_with_parent()
print("held", flush=True)
time.sleep(30)
"""
PARENT = """
import os, subprocess, sys
env = {**os.environ, "DVSN_PARENT": str(os.getpid())}
subprocess.run([sys.executable, "-S", "-c", sys.argv[1], sys.argv[2]], env=env)
"""


def test_it_stops_when_its_parent_is_killed(tmp_path: Path) -> None:
    call = [sys.executable, "-S", "-c", PARENT, CHILD, str(tmp_path / "stopped")]
    parent = subprocess.Popen(call, env=environment(Path(__file__).parents[2]), stdout=subprocess.PIPE)
    assert parent.stdout is not None and parent.stdout.readline() == b"held\n"
    parent.kill()
    parent.wait()
    end = time.monotonic() + 20
    while not (tmp_path / "stopped").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    parent.stdout.close()


def test_one_that_came_too_late_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    monkeypatch.setenv(parent_death.PARENT, "1" if os.getppid() != 1 else "2")
    parent_death.stop_with_parent()
    assert sent == [(os.getpid(), signal.SIGTERM)] and parent_death.PARENT not in os.environ
    parent_death.stop_with_parent()  # nobody has asked for it
    assert len(sent) == 1
