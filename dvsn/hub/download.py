"""Files of the hub, through the library huggingface_hub, which keeps them in its cache and works offline from there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvsn.errors import CheckpointError, ConfigError, UserError
from dvsn.hub.folder import RECIPE
from dvsn.hub.names import Name

log = logging.getLogger(__name__)
INSTALL = "pip install 'dvsn[hub]'"
LOGIN = "Log in with `hf auth login`, or set HF_TOKEN"


def download(asked: Name, file: str, *, limit: int) -> Path:
    """The path in the cache of one file of `limit` bytes at most, which is looked at before it is downloaded."""
    library = import_library()
    given = {"repo_id": asked.repository, "filename": file, "revision": asked.revision}
    with explained(asked, file):
        found = library.hf_hub_download(**given, dry_run=True)
        if found.file_size is not None and found.file_size > limit:
            raise CheckpointError(
                f"{asked}: {file} has {found.file_size:,} bytes, expected {limit:,} at most."
            )
        if found.will_download:
            log.info("%s: downloading %s, %s bytes", asked, file, f"{found.file_size or 0:,}")
        path = Path(library.hf_hub_download(**given))
    if path.stat().st_size > limit:  # the server had not told
        raise CheckpointError(f"{path}: {path.stat().st_size:,} bytes, expected {limit:,} at most.")
    return path


def import_library() -> Any:
    """huggingface_hub. Raises `ConfigError` where it is missing or does not start."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ConfigError(
            f"hf://: names on the hub need the package huggingface_hub ({error}). Install it: {INSTALL}"
        ) from error
    return huggingface_hub


@contextmanager
def explained(asked: Name, file: str) -> Iterator[None]:
    """Turns the errors of the library into one sentence each; what it logs of its retries is not shown."""
    from huggingface_hub import constants, errors

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{asked}: its owner wants to be asked first. {LOGIN}, and ask for access at "
            f"{constants.ENDPOINT}/{asked.repository}."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{asked}: there is no {asked.repository} on the hub, or it is private. Check the name; for a private one: "
            f"{LOGIN}."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(
            f"{asked}: {asked.repository} has no revision '{asked.revision}'. Leave out @{asked.revision} for the newest."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointError(f"{asked}: {unreachable(error)}") from error
    except errors.EntryNotFoundError as error:
        advice = "Look at its files and name one: " if file == RECIPE else "Its files: "
        what = (
            "no recipe.json, so it was not written by `python -m dvsn.hub push`"
            if file == RECIPE
            else f"no {file}"
        )
        raise CheckpointError(
            f"{asked}: {asked.repository} holds {what}. {advice}{constants.ENDPOINT}/{asked.repository}/tree/main"
        ) from error
    except errors.HfHubHTTPError as error:
        raise CheckpointError(f"{asked}: {answered(error)}") from error
    except UserError:
        raise
    except Exception as error:  # whatever it raises: the connection broke, the disk is full, a proxy meddles
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{asked}: {file} could not be downloaded: {reason}") from error
    finally:
        logger.setLevel(level)


def unreachable(error: Exception) -> str:
    """Why nothing was found, in a sentence: offline by choice, or nothing answers."""
    from huggingface_hub import constants, errors

    if constants.is_offline_mode():
        return (
            "is not in the cache, and HF_HUB_OFFLINE=1 forbids to download it. Unset HF_HUB_OFFLINE, or download it "
            "where there is a network and copy the cache (HF_HOME)."
        )
    cause = error.__cause__
    if isinstance(cause, errors.HfHubHTTPError):
        return answered(cause)
    reason = f" ({str(cause).splitlines()[0]})" if cause is not None and str(cause) else ""
    return (
        f"is not in the cache, and {constants.ENDPOINT} does not answer{reason}. Check the network and HTTPS_PROXY, or "
        "give the path of a file of this machine."
    )


def answered(error: Any) -> str:
    """What the hub answers instead of a file, in a sentence."""
    status = getattr(error.response, "status_code", None)
    advice = f"{LOGIN}." if status in (401, 403) else "Try again later."
    return f"the hub answers with the status {status} and no file. {advice}"
