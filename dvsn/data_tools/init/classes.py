"""A folder a class: the name of the folder is the class of the pictures below it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from dvsn.data_tools.findings import counted
from dvsn.data_tools.init import pictures, recipe
from dvsn.data_tools.init.found import COULD, LOOKS, Found
from dvsn.data_tools.init.layouts import layouts
from dvsn.data_tools.init.listing import Listing, few
from dvsn.data_tools.init.machine import Machine
from dvsn.data_tools.init.naming import is_mask, is_part, is_photo
from dvsn.data_tools.init.pairs import one_scene
from dvsn.data_tools.init.recipe import Recipe, Setting
from dvsn.data_tools.init.splits import role_of
from dvsn.errors import DataError

ByClass = dict[str, list[str]]
"""Pictures by class."""


def look(listing: Listing) -> Found | None:
    """Class folders below the root, or below folders of splits."""
    splits = without_parts(by_split(listing))
    if not splits:
        return None
    classes = sorted({name for each in splits.values() for name in each})
    if len(classes) < 2 or are_cases(splits) or all(is_part(name) or role_of(name) for name in classes):
        return None
    check_splits(listing, splits)
    used = [name for each in splits.values() for names in each.values() for name in names]
    sizes = pictures.sizes_of(listing, used)
    counts = {split: sum(map(len, each.values())) for split, each in splits.items()}
    found = Found(
        kind="a folder a class",
        task="classification",
        base="imagefolder",
        counts=counts,
        sure=LOOKS if len(classes) > 2 or not are_pairs(listing, classes, sizes) else COULD,
        claimed=frozenset(used),
        node={"classes": len(classes)},
        sizes=Counter(sizes.values()),
        classes=classes,
        odd=left_out(listing, used),
    )
    found.facts["predict"] = [listing.path(used[-1])]
    if len(splits) == 1:
        only = next(iter(splits.values()))
        pairs = [(name, number) for number, kind in enumerate(sorted(only)) for name in only[kind]]
        found.items, found.targets = [name for name, _ in pairs], [number for _, number in pairs]
    found.says = describe(found, splits)
    return found


def by_split(listing: Listing) -> dict[str, ByClass]:
    """Pictures by split and class; one split called all where the classes lie in the root."""
    top: dict[str, ByClass] = {}
    for name in listing.pictures:
        first, *below = name.split("/")
        if below:
            top.setdefault(first, {}).setdefault(below[0] if len(below) > 1 else "", []).append(name)
    splits = {name: each for name, each in top.items() if role_of(name)}
    if splits:
        return {} if any("" in each for each in splits.values()) else splits
    return {"all": {name: [n for names in each.values() for n in names] for name, each in top.items()}}


def without_parts(splits: dict[str, ByClass]) -> dict[str, ByClass]:
    """Without folders of photos and of masks, where both are there: these belong to each other."""
    names = {name for each in splits.values() for name in each}
    if not (any(map(is_mask, names)) and any(map(is_photo, names))):
        return splits
    return {
        split: {name: kept for name, kept in each.items() if not is_part(name)}
        for split, each in splits.items()
    }


def are_cases(splits: Mapping[str, ByClass]) -> bool:
    """Whether a folder is a case: each holds the same names without a number, such as image.png and mask.png, or a folder of
    photos and one of masks."""
    names = [name for each in splits.values() for found in each.values() for name in found]
    below = {part for name in names for part in name.split("/")[:-1]}
    if any(map(is_mask, below)) and any(map(is_photo, below)):
        return True
    held = {
        frozenset(name.rpartition("/")[2].rpartition(".")[0] for name in names)
        for each in splits.values()
        for names in each.values()
    }
    (first, *others) = held
    return not others and len(first) > 1 and not any(any(map(str.isdigit, stem)) for stem in first)


def check_splits(listing: Listing, splits: Mapping[str, ByClass]) -> None:
    """Raise `DataError` for a class that is measured and never learnt."""
    train = next((each for name, each in splits.items() if role_of(name) == "train"), None)
    for split, each in splits.items():
        unknown = [] if train is None else sorted(each.keys() - train.keys())
        if unknown:
            raise DataError(
                f"{listing.root / split}: {few(unknown)}: no class of this name in train, so nothing can be learnt of it. "
                "Move some of its pictures to train, rename the folder, or move it away."
            )


def are_pairs(listing: Listing, classes: list[str], sizes: Mapping[str, pictures.Size]) -> bool:
    """Whether two folders hold pictures of equal names and sizes, or of names with endings, such as 1_day and 1_night,
    whose outlines lie at the same places."""
    return any(
        [made.first, made.second] == classes
        and not any(made.lonely)
        and all(sizes.get(one) == sizes.get(two) for one, two in made.every)
        and (not any(made.endings) or one_scene(listing, made.every))
        for made in layouts(listing)
    )


def left_out(listing: Listing, used: list[str]) -> list[str]:
    loose = sorted(set(listing.pictures) - set(used))
    return [f"{counted(len(loose), 'picture')} in no class folder: {few(loose)}"] if loose else []


def describe(found: Found, splits: Mapping[str, ByClass]) -> list[str]:
    shown = few(
        [f"{name} ({sum(len(each.get(name, [])) for each in splits.values())})" for name in found.classes], 12
    )
    total = sum(found.counts.values())
    lines = [
        f"{total} pictures, {found.size_words()} (height x width)",
        f"{len(found.classes)} classes: {shown}",
    ]
    for split, each in splits.items():
        missing = sorted(set(found.classes) - each.keys())
        if missing:
            lines.append(f"{split} has no picture of {few(missing)}: learnt, and not measured there")
    return lines


def propose(found: Found, machine: Machine) -> Recipe:
    """A small ResNet for small pictures, ResNet-18 for others; AdamW for few pictures."""
    side = min(found.side)
    batch = recipe.batch_size(found, largest=128 if machine.gpu else 32)
    made = Recipe()
    if side <= 64:
        crop = recipe.multiple(side, 8, least=16, most=64)
        depth = "resnet32x4" if machine.gpu else "resnet8x4"
        cost = (0.177 if depth == "resnet8x4" else 1.08) * (crop / 32) ** 2
        made.choose("network", depth, f"for pictures as small as {side}; " + why(machine))
        made.choose("transform", "cifar")
        made.values |= {f"transform.crop_{name}": Setting(crop) for name in ("height", "width")}
    else:
        crop = recipe.multiple(side * 7 // 8, 32, least=64, most=224 if machine.gpu else 128)
        cost = 1.82 * (crop / 224) ** 2
        made.choose("network", "resnet18_classifier", why(machine))
        made.choose("transform", "imagenet_224")
        made.values |= {f"transform.crop_{name}": Setting(crop) for name in ("height", "width")}
        made.set("transform.crop_height", crop, f"pictures are {found.side[0]}x{found.side[1]}")
        made.set("transform.short_side", crop * 8 // 7)
        made.set("transform.scale", [0.35, 1.0], "few pictures: a crop shows most of each")
    many = found.train > 20000
    made.choose("optim", "sgd" if many else "adamw")
    made.values["data.batch_size"] = batch
    made.set("data.drop_last", True, "a last batch of one picture cannot be normalised")
    made.values["data.workers"] = recipe.workers(machine)
    rate = round(0.1 * batch.value / 256, 4) if many else 0.001
    made.set("optim.lr", rate, "0.1 for a batch of 256" if many else "of AdamW from scratch")
    made.set("optim.weight_decay", 0.0001 if many else 0.05)
    steps = max(600, min(30 * found.train // batch.value, 40000))
    made.train_for(
        "trainer.max_epochs",
        found,
        machine,
        batch=batch.value,
        steps=steps,
        cost=recipe.seconds(cost * batch.value),
    )
    return made


def why(machine: Machine) -> str:
    return "quick enough without a GPU" if not machine.gpu else "what the usual baselines start from"
