"""Whether there is a key to log in with."""

from __future__ import annotations

import os


def has_wandb_key() -> bool:
    """Of W&B: in WANDB_API_KEY, or where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc

    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
