"""From the name or the path that somebody gives to a file, and to what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dvsn.config.newest import best_of
from dvsn.hub.download import download
from dvsn.hub.folder import RECIPE, RECIPE_LIMIT, WEIGHTS, read_folder, read_header, read_single
from dvsn.hub.names import is_name, parse
from dvsn.parts import INDEX

WEIGHTS_LIMIT = 8 << 30  # bytes


def fetch(name: str) -> Path:
    """The path of a copy on this machine of `hf://OWNER/NAME[/FILE][@REVISION]`.

    Without FILE it is the folder that `python -m dvsn.hub push` wrote there: its recipe and its weights, of one commit, and
    nothing else; the recipe is checked before the weights are downloaded. With FILE it is that file, such as a published
    checkpoint. A file is downloaded once; huggingface_hub's cache (HF_HOME) is asked alone where HF_HUB_OFFLINE=1 or
    nothing answers. Raises `CheckpointError` for what is not there, wants a login or is larger than the limit, and
    `ConfigError` where the name is none or huggingface_hub is missing.
    """
    asked = parse(name)
    if asked.file is not None:
        return download(asked, asked.file, limit=WEIGHTS_LIMIT)
    recipe = download(asked, RECIPE, limit=RECIPE_LIMIT)
    read_header(recipe)
    download(asked._replace(revision=recipe.parent.name), WEIGHTS, limit=WEIGHTS_LIMIT)
    return recipe.parent


def local(path: str | Path) -> Path:
    """The path on this machine: of a name on the hub, that of its copy here, which is downloaded where it is missing; of the
    folder of a run, or of several of one name, the best checkpoint of the newest."""
    if is_name(path):
        return fetch(str(path))
    place = Path(path)
    if place.is_dir() and not any((place / name).exists() for name in (RECIPE, WEIGHTS, INDEX)):
        return best_of(place) or place
    return place


def files_of(path: str | Path) -> list[Path]:
    """The files on this machine that a checkpoint consists of: one, the recipe and the weights of a folder, or all parts."""
    place = local(path)
    if (place / INDEX).is_file():
        return sorted(file for file in place.rglob("*") if file.is_file())
    return [place / RECIPE, place / WEIGHTS] if place.is_dir() else [place]


def read(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint as `dvsn.weights.read_checkpoint` gives it: of a file, of a folder that dvsn wrote for
    the hub, or of a name on the hub. Raises `CheckpointError`.
    """
    from dvsn.weights import read_checkpoint

    place = local(path)
    if place.is_dir() and ((place / RECIPE).exists() or (place / WEIGHTS).exists()):
        return read_folder(place)
    if place.name == WEIGHTS and (place.parent / RECIPE).is_file():
        return read_folder(place.parent)
    if place.suffix == ".safetensors" and place.is_file() and (content := read_single(place)) is not None:
        return content
    return read_checkpoint(place)
