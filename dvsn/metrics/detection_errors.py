"""What kinds of errors a detector makes, how many, and what average precision each costs.

After TIDE (Bolya et al., 2020, arXiv:2008.08115, section 2.2). A detection is right if it is matched as COCO does: the
best scored first, each with the object of its class that it overlaps most, by an IoU of `MATCHED` or more, which no
better one has taken. A detection in a crowd region of its class is neither right nor wrong. The others, in this order:

- badly placed: an IoU from `NEAR` to `MATCHED` with an object of its class;
- wrong class: `MATCHED` or more with an object of another class;
- double: `MATCHED` or more with an object of its class that a better one has taken;
- background: `NEAR` or less with every object;
- both: what remains, which is near an object of another class.

Missed is an object that no detection has found and that no badly placed detection and none of a wrong class would find.

Differences from the authors' code (tidecv 1.0.1): detections in crowd regions have no kind; of equal scores and overlaps the
order is COCO's; classes without objects do not count as an AP of 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as rle

Array = np.ndarray[Any, Any]

MATCHED, NEAR = 0.5, 0.1
RIGHT, IGNORED = "right", "ignored"
KINDS = ("wrong class", "badly placed", "both", "double", "background")
"""Of wrong detections."""
MISSED = "missed"
"""Of objects."""
STATES = (RIGHT, IGNORED, *KINDS)
BACKGROUND = 0
"""The label of no object."""
LIMIT = 100
"""Detections of a class in a picture, the best ones, as COCO counts them."""
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Judged:
    """The D detections of a picture, the best first, and its G objects that are no crowd regions."""

    place: Array
    """(D,) which of the given detections each is."""
    labels: Array
    scores: Array
    state: Array
    """(D,) numbers of `STATES`."""
    mended: Array
    """(D,) the object that would be found if this error alone were mended, else -1: of several the best detection's."""
    wanted: Array
    """(G,) labels of the objects."""
    numbers: Array
    """(G,) which of the given objects each is."""
    found: Array
    """(G,) bool."""
    missed: Array
    """(G,) bool, as above."""
    pairs: Array
    """(P, 2) labels, true and found, of the matrix of confusion; see `confused`."""

    def count(self, state: str) -> int:
        return int((self.state == STATES.index(state)).sum())

    @property
    def wrong(self) -> int:
        return len(self.state) - self.count(RIGHT) - self.count(IGNORED)

    @property
    def f1(self) -> float:
        """Twice the right detections over detections and objects; 1 where there is neither."""
        right = self.count(RIGHT)
        every = 2 * right + self.wrong + int((~self.found).sum())
        return 2 * right / every if every else 1.0


def judge(
    found: Sequence[Mapping[str, Any]], objects: Sequence[Mapping[str, Any]], *, least: float = 0.0
) -> Judged:
    """The detections of a picture with a score of `least` or more, in COCO's form of results (`bbox`, `category_id`,
    `score`), and its objects in COCO's form of annotations."""
    place = best(found, least)
    labels, scores = _column(found, "category_id", np.int64)[place], _column(found, "score", float)[place]
    crowd = _column(objects, "iscrowd", np.int64).astype(bool)
    kinds = _column(objects, "category_id", np.int64)
    overlap = overlaps([found[n]["bbox"] for n in place], [each["bbox"] for each in objects], crowd)
    same = labels[:, None] == kinds[None]
    numbers = np.flatnonzero(~crowd)
    iou, own = overlap[:, numbers], same[:, numbers]
    taken = match(iou * own)
    inside = ((overlap >= MATCHED) & same)[:, crowd].any(axis=1)
    state, target = sort_out(iou, own, taken, inside)
    hit = np.isin(np.arange(len(numbers)), taken[taken >= 0])
    mended = mending(state, target, hit)
    return Judged(
        place, labels, scores, state, mended,
        wanted=kinds[numbers], numbers=numbers, found=hit,
        missed=~hit & ~np.isin(np.arange(len(numbers)), mended[mended >= 0]),
        pairs=confused(iou, labels, kinds[numbers], taken, state),
    )  # fmt: skip


def best(found: Sequence[Mapping[str, Any]], least: float) -> Array:
    """The places of the detections that count, the best first: `LIMIT` of each class, with a score of `least` or more."""
    scores, labels = _column(found, "score", float), _column(found, "category_id", np.int64)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= least]
    kept = [order[np.flatnonzero(labels[order] == label)[:LIMIT]] for label in np.unique(labels)]
    return order[np.isin(order, np.concatenate([np.zeros(0, np.int64), *kept]))]


def overlaps(boxes: Sequence[Sequence[float]], others: Sequence[Sequence[float]], crowd: Array) -> Array:
    """Intersection over union (D, G) of boxes x, y, width, height; with a crowd region, over the first's area."""
    if not len(boxes) or not len(others):
        return np.zeros((len(boxes), len(others)))
    corners = (np.array(each, np.float64) for each in (boxes, others))
    found: Array = rle.iou(*corners, crowd.astype(np.uint8).tolist())
    return found


def match(iou: Array) -> Array:
    """(D, G) overlaps with objects of the same class, the best detections first -> the object of each, (D,), or -1."""
    left = iou.copy()
    taken = np.full(len(iou), -1)
    for number in range(len(iou) if iou.shape[1] else 0):
        most = iou.shape[1] - 1 - int(left[number, ::-1].argmax())  # the last of equals, as COCO's evaluator
        if left[number, most] >= min(MATCHED, 1 - 1e-10):
            taken[number] = most
            left[:, most] = -1
    return taken


def sort_out(iou: Array, own: Array, taken: Array, inside: Array) -> tuple[Array, Array]:
    """The state of each detection (D,), and the object (D,) that it would find if it were placed better or of another class;
    -1 where there is none. `inside` (D,): in a crowd region of its class."""
    state = np.full(len(iou), STATES.index("background"))
    target = np.full(len(iou), -1)
    for number in range(len(iou)):
        if taken[number] >= 0 or inside[number]:
            state[number] = STATES.index(RIGHT if taken[number] >= 0 else IGNORED)
            continue
        if not iou.shape[1]:
            continue
        same, other = iou[number] * own[number], iou[number] * ~own[number]
        if NEAR <= same.max() <= MATCHED:
            state[number], target[number] = STATES.index("badly placed"), same.argmax()
        elif other.max() >= MATCHED:
            state[number], target[number] = STATES.index("wrong class"), other.argmax()
        elif same.max() >= MATCHED:
            state[number] = STATES.index("double")
        elif iou[number].max() > NEAR:
            state[number] = STATES.index("both")
    return state, target


def mending(state: Array, target: Array, found: Array) -> Array:
    """(D,) the object that each badly placed detection, or one of a wrong class, would find; -1 for the others, for objects
    that are found anyway, and where a better detection would find it."""
    mended = np.full(len(state), -1)
    done = found.copy()
    for number in np.flatnonzero(np.isin(state, [STATES.index("wrong class"), STATES.index("badly placed")])):
        if not done[target[number]]:
            mended[number] = target[number]
            done[target[number]] = True
    return mended


def confused(iou: Array, labels: Array, wanted: Array, taken: Array, state: Array) -> Array:
    """(P, 2) the true and the found label of each object and each detection, `BACKGROUND` where it has no partner.

    Right detections and their objects are pairs. What remains of both is paired by overlap, the largest first, whatever its
    class, from `MATCHED` on. Detections in crowd regions are left out.
    """
    pairs = [(wanted[taken[n]], labels[n]) for n in np.flatnonzero(taken >= 0)]
    free = np.flatnonzero((taken < 0) & (state != STATES.index(IGNORED)))
    open_ = np.setdiff1d(np.arange(len(wanted)), taken)
    left = iou[np.ix_(free, open_)].copy()
    while left.size and left.max() >= MATCHED:
        row, column = np.unravel_index(int(left.argmax()), left.shape)
        pairs.append((wanted[open_[column]], labels[free[row]]))
        left = np.delete(np.delete(left, row, 0), column, 1)
        free, open_ = np.delete(free, row), np.delete(open_, column)
    pairs += [(wanted[n], BACKGROUND) for n in open_] + [(BACKGROUND, labels[n]) for n in free]
    return np.array(pairs, np.int64).reshape(-1, 2)


# All pictures together -----------------------------------------------------------------------------------


def average_precision(scores: Array, right: Array, objects: int) -> float:
    """COCO's average precision of one class at one overlap: the mean at 101 recalls of the best precision from there on."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    precision = hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(hits / objects, RECALLS, side="left")
    return float(np.where(at < len(hits), np.append(precision, 0.0)[at], 0.0).mean())


def mean_precision(pictures: Sequence[Judged], labels: Sequence[int], mended: str = "") -> float:
    """The mean over classes of the average precision at an overlap of `MATCHED`, with the errors of one kind `mended`.

    A badly placed detection, and one of a wrong class, finds its object, unless that is found anyway; the other kinds are
    left out. Missed objects are not counted; a class all of whose objects are missed then does not count. NaN where no class
    has an object.
    """
    labels_of, scores, right = (
        np.concatenate([np.zeros(0), *parts]) for parts in zip(*(_after(each, mended) for each in pictures), strict=True)
    ) if pictures else (np.zeros(0),) * 3  # fmt: skip
    precisions = []
    for label in labels:
        objects = sum(
            int(((each.wanted == label) & ~(each.missed & (mended == MISSED))).sum()) for each in pictures
        )
        if objects:
            of_it = labels_of == label
            precisions.append(average_precision(scores[of_it], right[of_it].astype(bool), objects))
    return float(np.mean(precisions)) if precisions else float("nan")


def _after(judged: Judged, mended: str) -> tuple[Array, Array, Array]:
    """Labels, scores and whether they are right, of a picture's detections that count after one kind is mended."""
    right = judged.state == STATES.index(RIGHT)
    kept, labels = judged.state != STATES.index(IGNORED), judged.labels.copy()
    if mended in KINDS:
        of_it = judged.state == STATES.index(mended)
        solved = of_it & (judged.mended >= 0)
        kept = kept & (~of_it | solved)
        right = right | solved
        labels[solved] = judged.wanted[judged.mended[solved]]
    return labels[kept].astype(float), judged.scores[kept], right[kept].astype(float)


def by_confidence(pictures: Sequence[Judged], labels: Sequence[int], at: Array) -> dict[str, Array]:
    """`precision`, `recall` and `f1` of all classes together, (T,), of the detections with a score of at least each of `at`.
    NaN for the precision of none, and for the recall of no object."""
    hits, wrong, objects = (each.sum(axis=0) for each in counts_by_score(pictures, labels, at))
    detections, objects = hits + wrong, np.float64(objects)
    with np.errstate(invalid="ignore"):
        return {
            "precision": hits / detections,
            "recall": hits / objects,
            "f1": 2 * hits / (detections + objects),
        }


def counts_by_score(
    pictures: Sequence[Judged], labels: Sequence[int], at: Array
) -> tuple[Array, Array, Array]:
    """Right and wrong detections (K, T) of each class with a score of at least each of `at`, and its objects (K,)."""
    scores = np.concatenate([np.zeros(0), *(each.scores for each in pictures)])
    kinds, state = (
        np.concatenate([np.zeros(0, np.int64), *parts])
        for parts in ([each.labels for each in pictures], [each.state for each in pictures])
    )
    wanted = np.concatenate([np.zeros(0, np.int64), *(each.wanted for each in pictures)])
    right = state == STATES.index(RIGHT)
    wrong = ~right & (state != STATES.index(IGNORED))
    counts = np.zeros((2, len(labels), len(at)), np.int64)
    for number, label in enumerate(labels):
        for place, which in enumerate((right, wrong)):
            own = np.sort(scores[which & (kinds == label)])
            counts[place, number] = len(own) - np.searchsorted(own, at, side="left")
    objects = np.array([(wanted == label).sum() for label in labels], np.int64)
    return counts[0], counts[1], objects


def confusion(pictures: Sequence[Judged], labels: Sequence[int]) -> Array:
    """Counts (K + 1, K + 1) of the pairs of all pictures, in the order of `labels` and then the background."""
    order = {label: number for number, label in enumerate([*labels, BACKGROUND])}
    counts = np.zeros((len(order), len(order)), np.int64)
    for judged in pictures:
        for true, found in judged.pairs.tolist():
            counts[order[true], order[found]] += 1
    return counts


def _column(rows: Sequence[Mapping[str, Any]], key: str, kind: Any) -> Array:
    return np.array([row[key] for row in rows], kind)
