"""A job that stops when the process that has started it is killed, since its trial goes to another worker then."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

PARENT = "DVSN_PARENT"
"""The variable that names the process that has started this one."""
SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux' prctl


def stop_with_parent() -> None:
    """From here on this process gets SIGTERM, with which a run writes its checkpoint, when the one in `PARENT` ends.

    Linux does that itself; elsewhere a thread looks every second. Nothing happens where that variable is not set.
    """
    parent = os.environ.pop(PARENT, "")
    if not parent.isdecimal():
        return
    if sys.platform == "linux" and os.getppid() == int(parent):
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGTERM)
    elif os.getppid() == int(parent):
        threading.Thread(target=_look, args=(int(parent),), daemon=True).start()
        return
    if os.getppid() != int(parent):  # it ended before this process could say so
        os.kill(os.getpid(), signal.SIGTERM)


def _look(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
