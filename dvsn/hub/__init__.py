"""Weights by name: `hf://OWNER/NAME` on the Hugging Face hub, and the folder of plain files that such a name holds."""

from dvsn.hub.names import is_name
from dvsn.hub.resolve import fetch, local, read

__all__ = ["fetch", "is_name", "local", "read"]
