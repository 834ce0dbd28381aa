"""Images a second on one core, from Cityscapes-size PNGs to uint8 tensors, and where the time goes.

    python experiments/speed/input_pipeline.py > experiments/speed/input_pipeline.md

Two scenes of 1024x2048 with the file sizes of the real data are drawn into a temporary folder, in the
published layout. Every variant then reads all of them, in turn, several rounds; the fastest round counts.
Times are the process's own processor time on one thread, and all ratios come from one run, because wall
clock times on a shared machine mean little. Takes about half a minute.
"""

from __future__ import annotations

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import datetime
import io
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

from dvsn.data.cityscapes import Cityscapes
from dvsn.data.cityscapes_labels import PALETTE
from dvsn.data.dataset import item_seed
from dvsn.data.files import read_colors, read_labels, read_rgb
from dvsn.data.transforms import Pair, Transform

SCENES, ROUNDS = 2, 6
HEIGHT, WIDTH = 1024, 2048
SIZE = (256, 512)


def draw(root: Path) -> None:
    """Photos of about 2.3 MB and label maps of some hundred regions, as Cityscapes has them."""
    for number in range(SCENES):
        rng = np.random.default_rng(number)
        ids = np.full((HEIGHT, WIDTH), 11, np.uint8)
        ids[:300], ids[600:] = 23, 7
        for _ in range(150):
            center = (int(rng.integers(WIDTH)), int(rng.integers(250, HEIGHT)))
            axes = (int(rng.integers(4, 160)), int(rng.integers(8, 90)))
            cv2.ellipse(ids, center, axes, float(rng.integers(180)), 0, 360, int(rng.integers(7, 34)), -1)
        coarse = cv2.resize(
            rng.normal(0, 14, (HEIGHT // 8, WIDTH // 8, 3)).astype(np.float32), (WIDTH, HEIGHT)
        )
        grain = rng.normal(0, 0.75, (HEIGHT, WIDTH, 1))
        photo = (PALETTE[ids] * 0.5 + 60 + coarse + grain).clip(0, 255).astype(np.uint8)
        stem = f"ulm_{number:06d}_000019"
        opaque = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
        for path, array in {
            root / f"leftImg8bit/train/ulm/{stem}_leftImg8bit.png": photo,
            root / f"gtFine/train/ulm/{stem}_gtFine_color.png": np.concatenate([PALETTE[ids], opaque], 2),
            root / f"gtFine/train/ulm/{stem}_gtFine_labelIds.png": ids,
        }.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)


def race(variants: dict[str, Callable[[int], Any]]) -> dict[str, float]:
    """Milliseconds an item, the fastest of some rounds in which the variants take turns."""
    best = dict.fromkeys(variants, float("inf"))
    for call in variants.values():
        call(0)
    for _ in range(ROUNDS):
        for name, call in variants.items():
            start = time.process_time()
            for index in range(SCENES):
                call(index)
            best[name] = min(best[name], (time.process_time() - start) / SCENES * 1000)
    return best


def table(title: str, times: dict[str, float], head: str) -> None:
    base = next(iter(times.values()))
    print(f"\n## {title}\n\n| {head} | ms | per second | speed against the first |\n|---|---|---|---|")
    for name, ms in times.items():
        print(f"| {name} | {ms:.1f} | {1000 / ms:.1f} | {base / ms:.2f} |")


def jitter() -> list[Any]:
    """The steps of conf/transform/jitter_256x512.yaml."""
    resize = A.Resize(286, 572, interpolation=2, mask_interpolation=6, area_for_downscale="image")
    return [resize, A.RandomCrop(*SIZE), A.HorizontalFlip(p=0.5)]


def reference(photo: Path, label: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The order of operations of the PyTorch reference: Pillow, bicubic, crop, flip, float, normalise."""
    top, left = int(torch.randint(31, ())), int(torch.randint(61, ()))
    flip, pair = bool(torch.rand(()) < 0.5), []
    for path in (label, photo):
        image = Image.open(path).convert("RGB").resize((572, 286), Image.Resampling.BICUBIC)
        image = image.crop((left, top, left + 512, top + 256))
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image
        pair.append(
            (torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255 - 0.5) / 0.5
        )
    return pair[0], pair[1]


def document(photo: Path, label: Path) -> tuple[np.ndarray, np.ndarray]:
    """The order of operations of the source document: OpenCV, bilinear, divide, float32, no augmentation."""
    pair = []
    for path in (photo, label):
        image = cv2.resize(cv2.imread(str(path)), (512, 256)) / 255
        pair.append(image.transpose(2, 0, 1).astype("float32"))
    return pair[0], pair[1]


def late(photo: Path, label: Path, transform: Transform) -> Any:
    """The same pipeline with the resize at its end: crop and flip at full size."""
    kinds = {"photo": "photo", "label": "label"}
    arrays = {"photo": read_rgb(photo), "label": read_colors(label)}
    return transform({**arrays, "index": 0, "name": "", "kinds": kinds, "palettes": {}}, 0)


def main() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder))
        report(Path(folder))


def report(root: Path) -> None:
    transform = Transform(steps=jitter())
    full_crop = A.RandomCrop(HEIGHT * 256 // 286, WIDTH * 512 // 572)
    resize = A.Resize(*SIZE, interpolation=2, mask_interpolation=6, area_for_downscale="image")
    resize_late = Transform(steps=[full_crop, A.HorizontalFlip(p=0.5), resize])
    data = {
        labels: Cityscapes(root=str(root), split="train", labels=labels, transform=transform)  # type: ignore[arg-type]
        for labels in ("color", "painted", "ids")
    }
    items = [item[:2] for item in data["color"].items]
    ids = [item[1] for item in data["ids"].items]
    sizes = {name: np.mean([p.stat().st_size for p in paths]) / 2**20 for name, paths in {
        "photo": [photo for photo, _ in items], "color": [label for _, label in items], "labelIds": ids,
    }.items()}  # fmt: skip

    versions = ", ".join(
        f"{module.__name__} {module.__version__}" for module in (torch, torchvision, cv2, np, A, Image)
    ).replace("PIL.Image", "Pillow")
    print("# The input pipeline on one core\n")
    print("`python experiments/speed/input_pipeline.py`, " + datetime.date.today().isoformat())
    print(f"\n{platform.machine()}, {cpu()}; Python {platform.python_version()}, {versions}.")
    print("One thread; processor time, the fastest of several rounds.")
    print(
        f"\n{SCENES} scenes of {HEIGHT}x{WIDTH}, PNG: "
        + ", ".join(f"{k} {v:.2f} MB" for k, v in sizes.items())
    )

    table(
        "A whole item: two files to a pair of 256x512",
        race(
            {
                "reference's order: Pillow, bicubic, jitter, float32": lambda i: reference(*items[i]),
                "document's order: OpenCV, bilinear, float32, no jitter": lambda i: document(*items[i]),
                "dvsn, jitter, but resized last": lambda i: late(*items[i], resize_late),
                "**dvsn, jitter, labels=color**": lambda i: data["color"][0, i],
                "**dvsn, jitter, labels=painted** (the same tensors)": lambda i: data["painted"][0, i],
                "**dvsn, jitter, labels=ids**": lambda i: data["ids"][0, i],
            }
        ),
        "pipeline",
    )
    for index in range(SCENES):
        color, painted = data["color"][0, index], data["painted"][0, index]
        if not torch.equal(color["image"], painted["image"]):
            raise SystemExit("painted labels differ from colour labels")

    decoded = [
        (read_rgb(photo), read_colors(label), read_labels(path))
        for (photo, label), path in zip(items, ids, strict=True)
    ]
    kinds = {"photo": "photo", "label": "label"}
    rest = {"index": 0, "name": "", "kinds": kinds, "palettes": {}}
    small = [cv2.resize(photo, (512, 256)) for photo, _, _ in decoded]
    bare = Transform(pair=Pair(source="photo"))
    parts = race(
        {
            "files to memory (page cache), included below": lambda i: [
                p.read_bytes() for p in (*items[i], ids[i])
            ],
            "read and decode photo": lambda i: read_rgb(items[i][0]),
            "read and decode colour label": lambda i: read_colors(items[i][1]),
            "read and decode ids": lambda i: read_labels(ids[i]),
            "jitter (resize, crop, flip) and tensors": lambda i: transform(
                {"photo": decoded[i][0], "label": decoded[i][1], **rest}, i
            ),
            "of these: tensors": lambda i: bare({"photo": small[i], "label": small[i], **rest}, i),
            "item's random state": lambda i: item_seed(0, 0, i),
        }
    )
    print("\n## Where the time goes\n\n| part | ms | of color | of painted |\n|---|---|---|---|")
    shared = parts["read and decode photo"] + parts["jitter (resize, crop, flip) and tensors"]
    totals = (shared + parts["read and decode colour label"], shared + parts["read and decode ids"])
    missing = {"read and decode colour label": 1, "read and decode ids": 0}
    for name, ms in parts.items():
        shares = ["-" if missing.get(name) == k else f"{ms / total:.1%}" for k, total in enumerate(totals)]
        print(f"| {name} | {ms:.2f} | {shares[0]} | {shares[1]} |")

    inflate = 1 - parts["jitter (resize, crop, flip) and tensors"] / totals[0]
    saved = 1 - totals[1] / totals[0]
    print(f"\nDecoding PNG is {inflate:.0%} of the work. Painting the label from its ids")
    print(
        f"after the resize gives the same tensors (checked) and saves {saved:.0%}; what remains is the photo."
    )

    decoders("photo, RGB PNG", [photo for photo, _ in items])
    decoders("colour label, RGBA PNG", [label for _, label in items])
    jpegs = [root / f"{number}.jpg" for number in range(SCENES)]
    for path, (photo, _, _) in zip(jpegs, decoded, strict=True):
        Image.fromarray(photo).save(path, quality=93)
    decoders("the photo as JPEG, quality 93", jpegs)


def decoders(title: str, paths: list[Path]) -> None:
    """Decode to (H, W, 3) RGB from bytes in memory."""
    buffers = [path.read_bytes() for path in paths]
    arrays = [np.frombuffer(buffer, np.uint8) for buffer in buffers]
    tensors = [torch.frombuffer(bytearray(buffer), dtype=torch.uint8) for buffer in buffers]
    variants: dict[str, Callable[[int], Any]] = {
        "Pillow": lambda i: np.array(Image.open(io.BytesIO(buffers[i])).convert("RGB")),
        "torchvision": lambda i: decode_image(tensors[i], ImageReadMode.RGB),
        "OpenCV": lambda i: cv2.imdecode(arrays[i], cv2.IMREAD_COLOR_RGB),
    }
    table(f"Decoders: {title}", race(variants), "decoder")


def cpu() -> str:
    """The processor's name where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    name = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU"
    )
    return f"{name}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
