"""The model card: README.md of a published folder, from what its run has recorded. What is not known is not said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dvsn.publish.run import Run, Scores

PIPELINES = {
    "pix2pix": "image-to-image",
    "segmentation": "image-segmentation",
    "pose": "keypoint-detection",
    "landmarks": "keypoint-detection",
    "detection": "object-detection",
    "classification": "image-classification",
}
"""What the hub calls the tasks."""
READERS = {"pose": ("people",), "landmarks": ("people",), "detection": ("objects", "dataset")}
"""Where a data node says who reads it, by the task; `dataset` for the others."""
SHOWN_CLASSES = 30
NO_SCORES = "**No scores: this checkpoint was not evaluated before it was published.**"


def card(
    header: Mapping[str, Any],
    run: Run,
    *,
    name: str,
    parameters: int,
    classes: Sequence[str] = (),
    licence: str = "",
) -> str:
    """The text of README.md. `header` is the checkpoint's, `name` what it is published as, `classes` their names."""
    parts = [front_matter(header, licence), f"# {name.rpartition('/')[2]}", about(header, parameters)]
    if run.picture is not None:
        parts.append("![what it answers](picture.png)")
    parts += ["## Use", usage(name), "## Scores", *score_parts(run.scores)]
    parts += ["## Data", data_part(header, classes)]
    if run.command:
        parts += ["## Training", training(run)]
    return "\n\n".join(parts) + "\n"


def front_matter(header: Mapping[str, Any], licence: str) -> str:
    """What the hub sorts by."""
    kind = str(header.get("task"))
    lines = ["library_name: dvsn", f"tags: [dvsn, {kind}]"]
    lines += [f"pipeline_tag: {PIPELINES[kind]}"] if kind in PIPELINES else []
    lines += [f"license: {licence}"] if licence else []
    return "\n".join(["---", *lines, "---"])


def about(header: Mapping[str, Any], parameters: int) -> str:
    """The network in one sentence."""
    node = header["recipe"].get("network") or {}
    network = str(node.get("_target_", "network")).rpartition(".")[2]
    return (
        f"{network} for {header.get('task')}, {parameters:,} parameters as shipped, by dvsn {header.get('version')}. "
        "`recipe.json` rebuilds it and `model.safetensors` holds its weights; neither can run code."
    )


def usage(name: str) -> str:
    """The lines that use it."""
    place = f"hf://{name}" if "/" in name else name
    return (
        f"```python\nimport dvsn\n\nmodel = dvsn.load({place!r})\n"
        'model.predict("photo.jpg").plot().save("seen.png")\n```\n\n'
        f"```sh\npython -m dvsn.predict {place} photos\n```"
    )


def score_parts(scores: tuple[Scores, ...]) -> list[str]:
    """A table for each evaluation, with its protocol."""
    if not scores:
        return [NO_SCORES]
    parts = []
    for each in scores:
        rows = "\n".join(f"| {key} | {value:.4f} |" for key, value in each.metrics.items())
        how = f"\n\nMeasured: {each.how}." if each.how else "\n\nHow it was measured is not recorded."
        parts.append(f"On {each.split}:\n\n| metric | value |\n|---|---|\n{rows}{how}")
    return parts


def data_part(header: Mapping[str, Any], classes: Sequence[str]) -> str:
    """The data set, its splits, and the names of what is answered about."""
    data = header.get("data") or {}
    kind = reader(data, str(header.get("task")))
    if not kind:
        return "The checkpoint knows no data set, as one that was converted from a published file."
    lines = [f"`{kind}`"]
    splits = data.get("splits")
    if isinstance(splits, Mapping):
        lines.append("splits: " + ", ".join(f"{key} `{value}`" for key, value in splits.items()))
    if classes:
        more = ", ..." if len(classes) > SHOWN_CLASSES else ""
        lines.append(f"{len(classes)} classes: " + ", ".join(classes[:SHOWN_CLASSES]) + more)
    return "\n".join(f"- {line}" for line in lines)


def reader(data: Mapping[str, Any], kind: str) -> str:
    """The class that reads what the task learns from; empty where none is known."""
    for key in READERS.get(kind, ("dataset",)):
        node = data.get(key)
        if isinstance(node, Mapping) and node.get("_target_"):
            return str(node["_target_"]).rpartition(".")[2]
    return ""


def training(run: Run) -> str:
    """The command of the run, how long it took and on what."""
    rows = []
    result, where = run.result, run.environment
    if result.get("best") is not None and result.get("monitor"):
        at = f" after epoch {result['best_epoch']}" if result.get("best_epoch") is not None else ""
        rows.append(f"best {result['monitor']} of its validations: {float(result['best']):.4f}{at}")
    if result.get("epochs") is not None:
        rows.append(f"{result['epochs']} epochs, {result.get('steps')} steps, {result.get('seconds')} s")
    machine = where.get("gpus") or [where.get("processor")]
    if machine[0]:
        rows.append("on " + ", ".join(map(str, machine)))
    versions = where.get("versions") or {}
    known = [f"{key} {versions[key]}" for key in ("dvsn", "torch", "pytorch-lightning") if versions.get(key)]
    rows += [", ".join(known)] if known else []
    listed = "\n".join(f"- {row}" for row in rows)
    return f"```sh\n{run.command}\n```\n\n{listed}".rstrip()
