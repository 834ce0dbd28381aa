"""Prediction of tasks that answer a picture by a picture: each file becomes a PNG."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dvsn.errors import ConfigError, DataError, nearest
from dvsn.predict.command import refuse_others

log = logging.getLogger("dvsn")

OPTIONS = ("size", "write", "original_size", "side_by_side")


class Reader:
    """Files as the task's input: read as its data set does, and sized by the `size` option."""

    def __init__(self, task: Any, size: str) -> None:
        from dvsn.config.build import build
        from dvsn.data.transforms import Pair, Transform

        data = task.data_recipe
        pair = data.get("pair", {})
        source = pair.get("source", "label")
        self.ids = task.input_classes > 0
        self.edges = bool(pair.get("edges", False))
        kind = data.get("dataset", {}).get(f"{source}_kind", "label" if source == "label" else "photo")
        self.kind = (
            "label" if self.ids or (kind in ("label", "ids") and not pair.get("blend_labels")) else "photo"
        )
        if size == "recipe":
            steps = build(data.get("transform", {}).get("eval", []), path="transform.eval")
        elif size == "keep":
            steps = []
        else:
            steps = [self._resize(size)]
        pair_of_one = Pair(source="input", target="input")
        self.transform = Transform(steps=steps, pair=pair_of_one, label_classes=task.input_classes)

    @staticmethod
    def _resize(size: str) -> Any:
        import albumentations

        parts = size.lower().split("x")
        if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
            raise ConfigError(f"size: found '{size}', expected recipe, keep or HEIGHTxWIDTH such as 256x512.")
        return albumentations.Resize(height=int(parts[0]), width=int(parts[1]), mask_interpolation=0)

    def __call__(self, path: Path) -> Any:
        """uint8 tensor (C, H, W), and the size of the file (H, W)."""
        import torch

        from dvsn.data.files import read_labels, read_rgb

        picture = read_labels(path) if self.ids else read_rgb(path)
        sample = {
            "input": picture, "index": 0, "name": path.stem, "kinds": {"input": self.kind}, "palettes": {},
        }  # fmt: skip
        image = self.transform(sample, 0)["image"]
        if self.edges:
            edges = self._edges(path, image.shape[-2:])
            image = torch.cat([image, edges], dim=0)
        return image, picture.shape[:2]

    @staticmethod
    def _edges(path: Path, size: Any) -> Any:
        """Edges of the instance file beside a Cityscapes label file."""
        import cv2
        import torch

        from dvsn.data.files import read_labels
        from dvsn.data.transforms import instance_edges

        instances = path.with_name(path.name.replace("_labelIds", "_instanceIds"))
        if instances == path or not instances.is_file():
            raise DataError(
                f"{path}: this network also needs instance edges, and there is no {instances.name} beside the file. "
                "Expected NAME_labelIds.png with NAME_instanceIds.png."
            )
        ids = cv2.resize(read_labels(instances), (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
        return torch.from_numpy(instance_edges(ids).astype("uint8"))[None]


def padded(image: Any, multiple: int) -> Any:
    """(N, C, H, W) uint8 padded at the right and the bottom by its border to sides that divide."""
    import torch.nn.functional as F

    height, width = image.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return image
    return F.pad(image.float(), (0, right, 0, below), mode="replicate").to(image.dtype)


def batches(items: list[tuple[Path, Path]], reader: Reader, size: int) -> Iterator[list[Any]]:
    """Consecutive pictures of equal size, at most `size` together."""
    batch: list[Any] = []
    for source, target in items:
        image, original = reader(source)
        if batch and (len(batch) == size or batch[0][2].shape != image.shape):
            yield batch
            batch = []
        batch.append((source, target, image, original))
    if batch:
        yield batch


def predict_files(
    task: Any, items: list[tuple[Path, Path]], options: dict[str, Any], device: str
) -> list[Path]:
    """One of `task.answers` for each (picture, target). Returns the files written."""
    import cv2
    import numpy as np
    import torch

    from dvsn.pictures.grids import grid, to_array, write_picture
    from dvsn.seeding import seed_everything

    if not task.answers:
        raise ConfigError(
            f"checkpoint: the task '{task.kind}' makes no pictures to write. Measure it by dvsn.evaluate, or call "
            "dvsn.load(PATH)(pictures)."
        )
    refuse_others(options, OPTIONS, task.kind)
    kind = str(options["write"] or next(iter(task.answers), ""))
    if kind not in task.answers:
        raise ConfigError(f"write: the task '{task.kind}' has no '{kind}'. {nearest(kind, task.answers)}")
    reader = Reader(task, str(options["size"]))
    multiple = int(getattr(task.network, "multiple", 1))
    written: list[Path] = []
    for number, batch in enumerate(batches(items, reader, int(options["batch_size"]))):
        image = torch.stack([entry[2] for entry in batch]).to(device)
        height, width = image.shape[-2:]
        whole = padded(image, multiple) if options["size"] == "keep" else image
        task.check_sides({"image": whole, "name": [str(batch[0][0])]})
        seed_everything(int(options["seed"]), rank=0, epoch=0, batch=number, stage=1)
        with torch.inference_mode():
            result = task.answer(whole, kind)[..., :height, :width]
            shown = task.show_input(image)
        for (_, target, _, original), picture, condition in zip(
            batch, to_array(result), to_array(shown), strict=True
        ):
            if options["original_size"]:
                how = cv2.INTER_CUBIC if kind == "picture" else cv2.INTER_NEAREST
                picture = cv2.resize(picture, (original[1], original[0]), interpolation=how)
            if options["side_by_side"] and picture.ndim == 3:
                picture = grid([[np.ascontiguousarray(condition), picture]], ["input", kind])
            write_picture(target, np.ascontiguousarray(picture))
            written.append(target)
    log.info("%d pictures in %s", len(written), options["output"])
    return written
