"""`python -m dvsn.predict`: a checkpoint on pictures of your own."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dvsn import commands
from dvsn.errors import ConfigError, DataError, nearest

log = logging.getLogger("dvsn")

COMMAND = commands.Command(
    name="predict",
    summary="Run a checkpoint on a picture, a folder or a glob.",
    options=(
        commands.Option("checkpoint", commands.REQUIRED, "a dvsn checkpoint"),
        commands.Option("input", commands.REQUIRED, "a picture, a folder (with all below it), or a quoted glob"),
        commands.Option("output", "predictions", "folder of the results, one PNG a picture"),
        commands.Option("size", "recipe", "recipe: the checkpoint's own evaluation size; keep: the picture's (padded "
                        "to what the network needs and cropped back); or HEIGHTxWIDTH"),
        commands.Option("write", None, "what: of pix2pix picture; of segmentation color, overlay, ids, or submission (ids "
                        "of the data set's test server); null: the first"),
        commands.Option("original_size", False, "resize each result to its picture's size at the end"),
        commands.Option("side_by_side", False, "write input and result in one picture"),
        commands.Option("batch_size", 1, "pictures of one size at a time"),
        commands.Option("device", "auto", "auto, cpu, cuda, cuda:1, mps"),
        commands.Option("seed", 0, "for networks tested with dropout"),
    ),
    examples=(
        "python -m dvsn.predict runs/demo/latest/checkpoints/best.ckpt labels/ output=painted",
        "python -m dvsn.predict checkpoint=best.ckpt input='gtFine/val/*/*_color.png' size=keep",
        "python -m dvsn.predict pidnet.ckpt leftImg8bit/test write=submission output=results",
    ),
)  # fmt: skip


def find_inputs(pattern: str, output: Path) -> list[tuple[Path, Path]]:
    """(picture, where its result goes): results keep their place below the folder they were found in."""
    from dvsn.data.files import SUFFIXES

    path = Path(pattern)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and output not in p.parents)
        pairs = [(p, output / p.relative_to(path).with_suffix(".png")) for p in found]
        expected = f"a folder with pictures ({', '.join(sorted(SUFFIXES))})"
    else:
        found = [path] if path.is_file() else sorted(Path(p) for p in glob.glob(pattern, recursive=True))  # noqa: PTH207
        pairs = [(p, output / f"{p.stem}.png") for p in found if p.is_file()]
        expected = "a file, a folder or a glob such as 'labels/*.png'"
    if not pairs:
        raise DataError(f"input: nothing found at '{pattern}'; expected {expected}.")
    taken: dict[Path, Path] = {}
    for source, target in pairs:
        if target in taken:
            raise DataError(
                f"input: {taken[target]} and {source} would both be written to {target}. Give a folder instead of a "
                "glob, or rename one."
            )
        if target.resolve() == source.resolve():
            raise DataError(f"output: {target} is the picture itself. Choose another folder with output=...")
        taken[target] = source
    return pairs


class Reader:
    """Files as the task's input: read as its data set does, and sized by the `size` option."""

    def __init__(self, task: Any, size: str) -> None:
        from dvsn.config import build
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


def find_device(wanted: str) -> str:
    """The device by name; `auto` is the GPU if there is one. Raises `ConfigError` where it cannot be used."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=wanted).item()
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"device: '{wanted}' cannot be used here: {reason} Expected auto, cpu, cuda, cuda:1 or mps."
        ) from error
    return wanted


def predict(options: dict[str, Any]) -> list[Path]:
    """Returns the files written."""
    import cv2
    import numpy as np
    import torch

    import dvsn
    from dvsn.callbacks import seed_everything
    from dvsn.pictures import grid, to_array, write_picture

    output = Path(options["output"])
    items = find_inputs(str(options["input"]), output)
    device = find_device(str(options["device"]))
    if int(options["batch_size"]) < 1:
        raise ConfigError(f"batch_size: found {options['batch_size']}, expected 1 or more.")
    task: Any = dvsn.load(options["checkpoint"], device=device)
    if not task.answers:
        raise ConfigError(
            f"checkpoint: the task '{task.kind}' makes no pictures to write. Measure it by dvsn.evaluate, or call "
            "dvsn.load(PATH)(pictures)."
        )
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
    log.info("%d pictures in %s", len(written), output)
    return written


def main() -> None:
    import sys

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    commands.run(lambda: predict(COMMAND.parse(sys.argv[1:])), command=COMMAND)


if __name__ == "__main__":
    main()
