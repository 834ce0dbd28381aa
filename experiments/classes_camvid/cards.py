"""Crops of the test split with what a network takes them for: `python cards.py CHECKPOINT CROPS OUTPUT`.

Of each class three crops, at a quarter, the middle and three quarters of their names in order: none is chosen by its answer.
What is right is written in green, what is wrong in red.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

import dvsn

PARTS, SIDE, BAR = (0.25, 0.5, 0.75), 192, 36
RIGHT, WRONG = (60, 140, 30), (40, 40, 210)  # BGR


def card(file: Path, result: dvsn.Result) -> np.ndarray:
    """The crop, and below it the likeliest class and its probability."""
    picture = cv2.resize(cv2.imread(str(file)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    bar = np.full((BAR, SIDE, 3), 255, np.uint8)
    first = result.classes[0]
    colour = RIGHT if first.name == file.parent.name else WRONG
    text = f"{first.name} {first.score:.0%}"
    cv2.putText(bar, text, (4, BAR - 11), cv2.FONT_HERSHEY_DUPLEX, 0.66, colour, 1, cv2.LINE_AA)
    return np.vstack([picture, bar])


def main() -> None:
    checkpoint, crops, output = sys.argv[1:]
    files = [sorted(folder.iterdir()) for folder in sorted(Path(crops).iterdir())]
    chosen = [found[int(part * len(found))] for part in PARTS for found in files]
    results = dvsn.predict(checkpoint, [str(file) for file in chosen])
    cards = [card(file, result) for file, result in zip(chosen, results, strict=True)]
    rows = [np.hstack(cards[start : start + len(files)]) for start in range(0, len(cards), len(files))]
    cv2.imwrite(output, np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 92])


if __name__ == "__main__":
    main()
