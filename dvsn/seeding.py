"""Random numbers: every draw of a run is a function of its seed and of the place in the run."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int, *, rank: int, epoch: int, batch: int, stage: int) -> None:
    """Seed torch, numpy and random from a place in the run."""
    state = int(np.random.SeedSequence([seed, rank, epoch, batch, stage]).generate_state(1)[0])
    # Not torch.manual_seed, which formats a stack trace for each kind of device that is not in use: 2 ms a step.
    torch.default_generator.manual_seed(state)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(state)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(state)
    np.random.seed(state)  # noqa: NPY002 - third-party code draws from the global generator
    random.seed(state)
