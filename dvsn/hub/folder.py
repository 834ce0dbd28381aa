"""A folder of plain files that holds a task: `recipe.json` says how to rebuild it, `model.safetensors` holds its weights.

Neither file can hold code: the recipe is text, checked by the allow-list before anything is built, and the weights are
numbers with names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dvsn.atomic import replacing, usual_mode, write_json
from dvsn.config.allow import check
from dvsn.errors import CheckpointError, ConfigError, DataError
from dvsn.reading import read_json, require_regular

RECIPE, WEIGHTS = "recipe.json", "model.safetensors"
RECIPE_LIMIT = 4 << 20  # bytes
KEPT = ("format", "version", "task", "recipe", "data")
MANIFEST = "dvsn"
"""Of a safetensors file that stands alone: the name in its header under which its recipe lies."""
ITEMS = "_items_"
"""In place of a dictionary whose keys are no text, which JSON does not have: a list of its pairs."""


def read_folder(folder: Path) -> dict[str, Any]:
    """The content of a folder, like that of a checkpoint: `dvsn`, the recipe and what belongs to it, and `state_dict`."""
    header = read_header(folder / RECIPE)
    return {"dvsn": header, "state_dict": read_weights(folder / WEIGHTS)}


def read_header(path: Path) -> dict[str, Any]:
    """What `recipe.json` says of the task, with its nodes checked by the allow-list. Builds and imports nothing."""
    try:
        return checked(read_json(path, expected="a recipe of dvsn", limit=RECIPE_LIMIT), path)
    except DataError as error:
        raise CheckpointError(str(error)) from error


def checked(content: Any, path: Path) -> dict[str, Any]:
    """A header of plain data whose nodes the allow-list has checked. Raises `CheckpointError`."""

    try:
        header = restored(content)
        if not isinstance(header, dict) or not isinstance(header.get("recipe"), dict):
            raise CheckpointError(f"{path}: holds no recipe of dvsn (an object with 'format' and 'recipe').")
        check(header["recipe"], path="task")
        check(header.get("data") or {}, path="data")
    except (ConfigError, RecursionError) as error:
        raise CheckpointError(f"{path}: its recipe is refused: {error}") from error
    return header


def read_single(path: Path) -> dict[str, Any] | None:
    """The content of a safetensors file that holds its recipe too, as `python -m dvsn.export format=safetensors` writes it;
    None of another one. Weights in 16 bits become float32. Raises `CheckpointError`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            text = (opened.metadata() or {}).get(MANIFEST)
        content = None if text is None else json.loads(text)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}.") from error
    if content is None:
        return None
    if not isinstance(content, dict) or not isinstance(content.get("task"), str):
        raise CheckpointError(f"{path}: the recipe in it is no object with 'task' and 'recipe'.")
    header = checked({key: content.get(key) for key in ("format", "task", "recipe", "data")}, path)
    state = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in read_weights(path).items()
    }
    return {"dvsn": header, "state_dict": state}


def read_weights(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file by name, on the CPU. Raises `CheckpointError`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; the folder holds a recipe and no weights.")
    try:
        require_regular(path, expected="weights as safetensors")
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:  # ours are ValueErrors, too
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({path.stat().st_size} bytes): {error}. It may be truncated."
        ) from error


def write_header(path: Path, header: dict[str, Any]) -> None:
    """`recipe.json`: what a checkpoint says of its task under `dvsn`, without what only a resumed run needs.

    Raises `CheckpointError` for a value that JSON would not give back as it is.
    """
    kept = {key: header.get(key) for key in KEPT}
    stored = storable(kept)
    try:
        same = plain(restored(json.loads(json.dumps(stored)))) == plain(kept)
    except TypeError as error:
        raise CheckpointError(f"{path}: the recipe cannot be written as text: {error}.") from error
    if not same:
        raise CheckpointError(f"{path}: the recipe holds values that text does not give back as they are.")
    write_json(path, stored)


def write_weights(path: Path, state: dict[str, Any], *, about: dict[str, str] | None = None) -> None:
    """`model.safetensors`: the tensors by name, each with memory of its own, atomically; `about` goes into its header."""
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    with replacing(path) as temporary:
        save_file(tensors, str(temporary), metadata={"format": "pt", **(about or {})})
        usual_mode(temporary)


# Plain data as JSON --------------------------------------------------------------------------------------


def storable(tree: Any) -> Any:
    """Plain data as JSON can hold it, so that `restored` gives it back; tuples become lists."""
    if isinstance(tree, dict):
        pairs = [(key, storable(value)) for key, value in tree.items()]
        if all(isinstance(key, str) for key in tree) and ITEMS not in tree:
            return dict(pairs)
        return {ITEMS: [list(pair) for pair in pairs]}
    if isinstance(tree, list | tuple):
        return [storable(value) for value in tree]
    return tree


def restored(tree: Any) -> Any:
    """What `storable` was given. Raises `CheckpointError` for pairs that are none."""
    if isinstance(tree, dict):
        if set(tree) != {ITEMS}:
            return {key: restored(value) for key, value in tree.items()}
        try:
            return {key: restored(value) for key, value in tree[ITEMS]}
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{ITEMS}: found {str(tree[ITEMS])[:60]}, expected pairs.") from error
    if isinstance(tree, list):
        return [restored(value) for value in tree]
    return tree


def plain(tree: Any) -> Any:
    """The same with lists for tuples, to be compared."""
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return [plain(value) for value in tree] if isinstance(tree, list | tuple) else tree
