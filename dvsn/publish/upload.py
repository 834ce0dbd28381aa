"""A folder goes to the hub, with the login that huggingface_hub has."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from dvsn.errors import CheckpointError, ConfigError, UserError
from dvsn.hub.download import LOGIN, import_library

log = logging.getLogger("dvsn")


def upload(folder: Path, repository: str, *, private: bool, again: str) -> str:
    """Upload a folder to OWNER/NAME, which is made where it is missing. Returns the address.

    `again` is the line to repeat. Raises `ConfigError` without a login, `CheckpointError` where the hub refuses.
    """
    library = import_library()
    if not library.get_token():
        raise ConfigError(
            f"{repository}: not uploaded, for you are not logged in; the folder {folder} is written. {LOGIN}, then: {again}"
        )
    try:
        api = library.HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Written by dvsn")
    except UserError:
        raise
    except Exception as error:  # whatever the library or the connection raises
        raise CheckpointError(
            f"{repository}: not uploaded: {reason(error)}. The folder {folder} is written; then: {again}"
        ) from error
    address = f"{library.constants.ENDPOINT}/{repository}"
    log.info("uploaded %s; use it as hf://%s", address, repository)
    return address


def reason(error: Exception) -> str:
    """What the hub says, in one line."""
    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"your login may not write there (status {status}); its token needs the right to write"
    text = " ".join(str(error).split()) or type(error).__name__
    return f"status {status}: {text[:160]}" if status else text[:160]
