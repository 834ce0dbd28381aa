"""Landmarks of faces, or of anything that is cut as a square: tables of points, .pts files, WFLW's lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dvsn.config.menu import conf_dir
from dvsn.data_tools.init import keypoints, pictures, recipe, tables
from dvsn.data_tools.init.found import COULD, LOOKS, STATED, Found
from dvsn.data_tools.init.listing import Listing, few
from dvsn.data_tools.init.machine import Machine
from dvsn.data_tools.init.patterns import annotated
from dvsn.data_tools.init.recipe import Recipe
from dvsn.geometry.mean_shape import mirror_pairs
from dvsn.geometry.mirrors import lacking_pairs

KNOWN = {68: ("_points68", "the 68 points of 300-W"), 98: ("_points98", "the 98 points of WFLW")}
PADDING = 1.2  # of the square around a face, as published
LOOKED_AT = 2000  # faces that the mean shape is made of


def look(listing: Listing) -> Found | None:
    """Points in one of the three forms."""
    found = tables.points_in(listing)
    if found is None:
        return None
    total, used = sum(map(len, found.photos.values())), set().union(*found.photos.values())
    node = {key: value for key, value in found.node.items() if (key, value) != ("visibility", False)}
    made, sizes = annotated(
        listing, found.photos, found.files, without="without points", kind=found.kind, task="landmarks",
        base=found.bases[1], node={"people": node} if node else {}, classes=found.names,
        sure=STATED if found.bases[0] != "keypoint_table" else LOOKS if face_like(found) else COULD,
    )  # fmt: skip
    made.says = [
        f"{total} faces of {len(found.names)} points in {len(used)} pictures, {made.size_words()} (height x width)"
    ]
    take_points(made, found)
    made.says += found.says
    names = [name for each in found.photos.values() for name in each]
    padding = round(PADDING * share_of(found.points, names, sizes), 2)
    made.facts["predict"].append(f"padding={padding:g}")
    return made


def face_like(found: tables.Points) -> bool:
    """Whether points are numbered, or named like those of a face."""
    return keypoints.is_face(found.names) or (not found.named and len(found.names) >= 5)


def take_points(made: Found, found: tables.Points) -> None:
    """What the YAML says of the points: those of a known set, or names, pairs and what errors are relative to."""
    if made.base == "aflw":
        made.says.append("the 19 points of AFLW: errors are relative to the side of the faces' boxes")
        made.facts |= {"head": False, "mirrors": True}
        return
    whole = found.points[~np.isnan(found.points).any(axis=(1, 2))]
    told = mirror_pairs(whole[:: max(1, len(whole) // LOOKED_AT)])
    known = known_set(found.names, told)
    if known is not None:
        base, words = known
        made.base = f"{made.base}, {base}"
        made.says.append(
            f"{words}, by their number and their mean shape: errors are relative to the outer corners of the eyes"
        )
        made.facts |= {"head": True, "mirrors": True}
        return
    own: dict[str, Any] = {"names": found.names}
    by_name = [list(pair) for pair in lacking_pairs(found.names, ())]
    if not by_name and told is not None:
        own["pairs"] = [[found.names[one], found.names[other]] for one, other in told]
        made.comments["keypoints.pairs"] = "that a mirror exchanges, by the mean shape, which is symmetric"
    made.node["keypoints"] = own
    pairs = by_name or own.get("pairs") or []
    made.facts |= {"head": False, "mirrors": bool(pairs) or told is not None}
    if pairs:
        how = "by their names" if by_name else "by the mean shape, mirrored and matched"
        made.says.append(
            f"{len(pairs)} pairs that a mirror exchanges, {how}: {few([f'{a} and {b}' for a, b in pairs], 6)}"
        )
    else:
        made.says.append(
            "no pairs: the mean shape is not symmetric and no names tell, so nothing is mirrored"
        )
    eyes = [[a, b] for a, b in by_name if "eye" in keypoints.word_set(a)]
    if eyes:
        made.node["facts"] = {"normalise": {"eyes": [[a for a, _ in eyes], [b for _, b in eyes]]}}
        made.comments["facts.normalise"] = "what errors are relative to: the distance of the eyes"
    else:
        made.says.append("errors are relative to the diagonal of the box around the points (facts.normalise)")


def known_set(names: list[str], told: list[tuple[int, int]] | None) -> tuple[str, str] | None:
    """The shipped set of so many points whose mirror pairs the mean shape has."""
    import yaml

    if len(names) not in KNOWN or told is None or names != [f"p{number}" for number in range(len(names))]:
        return None
    base, words = KNOWN[len(names)]
    node = yaml.safe_load(Path(conf_dir(), "data", f"{base}.yaml").read_text(encoding="utf-8"))["keypoints"]
    theirs = {frozenset(int(name[1:]) for name in pair) for pair in node["pairs"]}
    ours = {frozenset(pair) for pair in told}
    return (base, words) if len(theirs & ours) > 0.9 * len(theirs) else None


def share_of(points: np.ndarray, names: list[str], sizes: dict[str, pictures.Size]) -> float:
    """The longer side of the points' box, as a share of the picture's: the median."""
    found = [
        float(np.nanmax(np.nanmax(row, axis=0) - np.nanmin(row, axis=0))) / max(sizes[name])
        for row, name in zip(points, names, strict=True)
        if name in sizes and not np.isnan(row).all()
    ]
    return float(np.median(found)) if found else 1.0


def propose(found: Found, machine: Machine) -> Recipe:
    """PFLD, a quarter of its width where there is no GPU and few faces; Wing loss."""
    made, small = Recipe(), not machine.gpu
    narrow = small and found.train < 2000
    made.choose("network", "pfld_025" if narrow else "pfld", "few faces and no GPU" if narrow else "")
    made.choose("loss", "wing", "small errors count, of few faces too")
    batch = made.on_crops(found, machine, largest=16 if small else 128, evaluated=64)
    if not found.facts["head"]:
        made.set("network.auxiliary", False, "these points do not tell how a head is turned")
    else:
        made.set("loss.angle_weight", 20.0)
    made.set("transform.train.rotation", 25.0)
    made.set("transform.train.shift", 0.08)
    made.set("optim.lr", 0.001, "of AdamW from scratch")
    made.set("optim.weight_decay", 0.01)
    made.set("schedule.warmup_steps", 100)
    if found.facts["mirrors"]:
        made.set("task.flip_test", True, "pairs are known: average with the mirrored face")
    made.set("ema", 0.99 if found.train < 2000 else 0.998, "a moving average of the weights is what is kept")
    cost = recipe.seconds((0.027 if narrow else 0.39) * batch) + 0.05
    steps = max(1500, min(100 * found.train // batch, 30000))
    made.train_for("epochs", found, machine, batch=batch, steps=steps, cost=cost)
    return made
