"""Photos beside masks: which files belong together, what the masks hold, and what the classes are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dvsn.data.class_ids import RGB
from dvsn.data_tools.findings import counted
from dvsn.data_tools.init import mask_recipe, pictures
from dvsn.data_tools.init.class_names import Names, read_names
from dvsn.data_tools.init.found import COULD, LOOKS, Found
from dvsn.data_tools.init.layouts import Layout, layouts
from dvsn.data_tools.init.listing import Listing, few
from dvsn.data_tools.init.mask_content import Content, looks_like_mask, read_content, unpacked
from dvsn.data_tools.init.mask_kinds import Kind, decide, distance
from dvsn.data_tools.init.naming import is_mask
from dvsn.data_tools.init.object_masks import apart
from dvsn.data_tools.init.split_lists import by_lists
from dvsn.data_tools.init.splits import role_of
from dvsn.errors import DataError

SAMPLE = 6
"""Files of each side that are decoded to tell photos from masks."""
MASKS = 2000
"""Masks that are decoded, evenly spread, to find the classes."""

COLOURS = {
    "black": (0, 0, 0), "white": (255, 255, 255), "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255),
    "yellow": (255, 255, 0), "cyan": (0, 255, 255), "magenta": (255, 0, 255), "grey": (128, 128, 128),
    "maroon": (128, 0, 0), "dark_green": (0, 128, 0), "navy": (0, 0, 128), "olive": (128, 128, 0), "teal": (0, 128, 128),
    "purple": (128, 0, 128), "orange": (255, 128, 0),
}  # fmt: skip

propose = mask_recipe.propose


def look(listing: Listing) -> Found | None:
    """Two sides of equal names of which one looks like masks."""
    if apart(listing):
        return None
    layout = choose(listing)
    if layout is None:
        lonely_masks(listing)
        return None
    whole = layout
    layout, lists, of_lists = by_lists(listing, whole)
    sizes = pictures.sizes_of(listing, [photo for photo, _ in layout.every])
    check_sizes(listing, layout, sizes)
    pairs = pictures.spread(list(range(len(layout.every))), MASKS)
    every = layout.every
    content = read_content([listing.path(every[place][1]) for place in pairs])
    names = read_names(listing)
    try:
        kind = decide(content, names.known(colours=content.colours))
    except DataError:
        if content.colours and layout.named() <= 0:  # photos of few colours, which nothing calls masks
            return None
        raise
    classes, notes = name_classes(kind, names)
    found = Found(
        kind="photos beside masks",
        task="segmentation",
        base="segmentation",
        counts={split: len(each) for split, each in layout.pairs.items()},
        sure=COULD if layout.drawn() else LOOKS,
        claimed=whole.claimed,
        sizes=Counter(sizes.values()),
        classes=classes,
    )
    found.node, found.comments = node_of(layout, kind, classes, content)
    if lists is not None:
        found.node["dataset"] |= {"lists": lists}
    if len(layout.pairs) == 1 and len(pairs) == len(every):
        found.items = [photo for photo, _ in every]
        found.shows = [
            frozenset(number for value in values if (number := kind.class_of(value)) is not None)
            for values in content.by_file
        ] if not kind.options else []  # fmt: skip
    found.facts["predict"] = [listing.path(layout.example())]
    found.facts["pixels"] = pixels_by_class(kind, content)
    notes += one_sided(layout, kind, classes, dict(zip(pairs, content.by_file, strict=True)))
    found.says = describe(layout, found, kind, names, [*of_lists, *notes], looked=len(pairs))
    found.odd = left_out(listing, whole)
    return found


def choose(listing: Listing) -> Layout | None:
    """The first way to pair the pictures in which the second side looks like masks and the first like photos."""
    for layout in layouts(listing):
        pairs = pictures.spread(layout.every, SAMPLE)
        masks = sum(looks_like_mask(listing.path(mask)) for _, mask in pairs)
        photos = sum(not looks_like_mask(listing.path(photo)) for photo, _ in pairs)
        half = len(pairs) / 2
        if masks > half and (photos > half or layout.named() > 0):
            return layout
    return None


def lonely_masks(listing: Listing) -> None:
    """Raise `DataError` where a folder of masks has no photos, or has them deeper than the layouts go, by its pictures, and
    by its name where other folders have pictures too."""
    for folder, names in listing.folders.items():
        named = is_mask(folder.rpartition("/")[2])
        if (named or len(listing.folders) == 1) and len(names) > 1:
            looked = pictures.spread(names, SAMPLE)
            if sum(looks_like_mask(listing.path(name)) for name in looked) > len(looked) / 2:
                beside = folder.rpartition("/")[0]
                if beside and any(
                    each != folder and listing.folders[each] for each in beside_of(listing, beside)
                ):
                    raise DataError(
                        f"{listing.root / folder}: masks that lie deeper than expected, with pictures beside them. Give the "
                        f"folder that holds both, {listing.root / beside}, or move what else is in {listing.root} away."
                    )
                what = "masks" if named else "pictures of few colours, as masks have,"
                raise DataError(
                    f"{listing.root / folder}: {len(names)} {what} without photos: no picture elsewhere has their names. "
                    "Expected a photo for each, such as images/1.jpg for masks/1.png, or 1.jpg beside 1_mask.png."
                )


def beside_of(listing: Listing, folder: str) -> list[str]:
    """The folders with pictures directly in or below a folder."""
    return [each for each in listing.folders if each == folder or each.startswith(f"{folder}/")]


def check_sizes(listing: Listing, layout: Layout, sizes: Mapping[str, pictures.Size]) -> None:
    """Raise `DataError` for masks of another size than their photo."""
    pairs = [pair for pair in layout.every if pair[0] in sizes]
    of_masks = pictures.sizes_of(listing, [mask for _, mask in pairs])
    wrong = [(photo, mask) for photo, mask in pairs if of_masks.get(mask, sizes[photo]) != sizes[photo]]
    if wrong:
        photo, mask = wrong[0]
        one, two = ("x".join(map(str, size)) for size in (sizes[photo], of_masks[mask]))
        raise DataError(
            f"{listing.root}: {len(wrong)} masks have another size than their photo, such as {mask} ({two}) and {photo} "
            f"({one}, height x width). Expected one size: resize the masks without interpolation, or move these away."
        )


def name_classes(kind: Kind, names: Names) -> tuple[list[str], list[str]]:
    """A name for each class, and what is to be said of names that do not fit."""
    known = dict(names.known(colours=kind.colours))
    notes: list[str] = []
    listed, count = names.in_order, len(kind.values)
    if not known and listed and not kind.colours:
        shift = 1 if len(listed) == count - 1 and kind.values[0] == 0 else 0
        if shift or max(kind.values) < len(listed):
            known = {number + shift: name for number, name in enumerate(listed)}
        elif len(listed) == count:
            known = dict(zip(kind.values, listed, strict=True))
        else:
            notes.append(
                f"{names.file} has {len(listed)} names, the masks {count} ids: the names are not used"
            )
    absent = [name for value, name in known.items() if value not in kind.values and value not in kind.ignored]
    if absent:
        notes.append(f"in {names.file} and in no mask, so left out: {few(absent, 8)}")
    found = [known.get(value) or default_name(kind, place) for place, value in enumerate(kind.values)]
    return unique(found), notes


def default_name(kind: Kind, place: int) -> str:
    """What a class is called of which nothing is known but its value."""
    value = kind.values[place]
    if kind.colours:
        colour = unpacked(value)
        if kind.values == [0, 0xFFFFFF]:
            return "object"
        name = colour_name(colour, [unpacked(each) for each in kind.values])
        return "background" if name == "black" else name
    if len(kind.values) == 2 and kind.values[0] == 0:
        return ("background", "object")[place]
    return "background" if value == 0 else f"class_{value}"


def colour_name(colour: RGB, others: Sequence[RGB]) -> str:
    """The word for a colour, if it is near enough and no other class is as near to it; else its number."""
    word, away = min(
        ((name, distance(each, colour)) for name, each in COLOURS.items()), key=lambda found: found[1]
    )
    rivals = [distance(COLOURS[word], each) for each in others if each != colour]
    if away < 120 and away < min(rivals, default=away + 1):
        return word
    return "colour_" + "".join(f"{channel:02x}" for channel in colour)


def unique(names: Sequence[str]) -> list[str]:
    """The names, each once: a second one gets a number."""
    found: list[str] = []
    for name in names:
        made, number = name, 2
        while made in found:
            made, number = f"{name}_{number}", number + 1
        found.append(made)
    return found


def one_sided(
    layout: Layout, kind: Kind, classes: Sequence[str], values: Mapping[int, frozenset[int]]
) -> list[str]:
    """Sentences about classes that are in train alone, or never in train; `values` by place in the pairs of the layout."""
    splits = [split for split, each in layout.pairs.items() for _ in each]
    shown: dict[str, set[str]] = {split: set() for split in layout.pairs}
    for place, each in values.items():
        numbers = (kind.class_of(value) for value in each)
        shown[splits[place]] |= {classes[number] for number in numbers if number is not None}
    train = next((split for split in shown if role_of(split) == "train"), None)
    if (
        train is None or kind.options
    ):  # soft edges have levels in between, which may be those of other classes
        return []
    notes = []
    for split, names in shown.items():
        if strange := [name for name in classes if name in names - shown[train]]:
            notes.append(
                f"{split} has {few(strange)}, which no mask of {train} shows: nothing can be learnt of it; move some of "
                f"its pictures to {train}"
            )
        if absent := [name for name in classes if name in shown[train] - names]:
            notes.append(f"{split} has no {few(absent)}: learnt, and not measured there")
    return notes


def node_of(
    layout: Layout, kind: Kind, classes: list[str], content: Content
) -> tuple[dict[str, Any], dict[str, str]]:
    """The YAML beyond its base, and the reasons in it."""
    dataset: dict[str, Any] = {"names": classes}
    if palette := palette_of(kind, content):
        dataset["palette"] = palette
    usual = {"first": "images", "second": "labels"}
    for key, name, value in (("first", "photos", layout.first), ("second", "masks", layout.second)):
        if value != usual[key]:
            dataset[name] = value
    for name, ending in zip(("photo_ending", "label_ending"), layout.endings, strict=True):
        if ending:
            dataset[name] = ending
    if any(layout.lonely):
        dataset["skip_lonely"] = True
    if kind.colours:
        dataset["colors"] = True
    elif "threshold" not in kind.options and kind.values != list(range(len(kind.values))):
        dataset["id_map"] = {value: number for number, value in enumerate(kind.values)}
    dataset |= kind.options
    reasons = {f"dataset.{key}": text for key, text in kind.reasons.items()}
    if kind.ignored:
        dataset["ignore_ids"] = kind.ignored
    if "id_map" in dataset and "dataset.id_map" not in reasons:
        reasons["dataset.id_map"] = (
            "id in the files: class; predict with write=submission writes the ids of the files"
        )
    reasons["classes"] = "as many as names"
    return {"dataset": dataset, "classes": len(classes)}, reasons


def palette_of(kind: Kind, content: Content) -> list[list[int]] | None:
    """A colour a class, where the files have different ones; None: the usual ones."""
    if kind.colours:
        return [list(unpacked(value)) for value in kind.values]
    if content.palette:
        colours = [content.palette.get(value) for value in kind.values]
        if None not in colours and len(set(colours)) == len(colours):
            return [list(colour) for colour in colours if colour is not None]
    return None


def pixels_by_class(kind: Kind, content: Content) -> list[int]:
    """Pixels of each class, as the reader will count them."""
    if not kind.options:
        return [content.values.get(value, 0) for value in kind.values]
    found = [0] * len(kind.values)
    for value, count in content.values.items():
        seen = unpacked(value) if content.colours else (value, value, value)
        found[kind.nearest(seen)] += count
    return found


def describe(
    layout: Layout, found: Found, kind: Kind, names: Names, notes: list[str], *, looked: int
) -> list[str]:
    total = sum(found.counts.values())
    lines = [
        f"{counted(total, 'photo')} with masks, such as {' + '.join(layout.every[0])}{found.parts_words()}"
    ]
    lines.append(f"{found.size_words()} (height x width)")
    lines.append(f"{kind.says}{f' (of {looked} that were read)' if looked < total else ''}")
    pixels = found.facts["pixels"]
    shares = [
        f"{name} {100 * count / max(1, sum(pixels)):.1f} %"
        for name, count in zip(found.classes, pixels, strict=True)
    ]
    source = (
        f", names of {names.file}" if names.file and not any("not used" in note for note in notes) else ""
    )
    lines.append(f"{counted(len(found.classes), 'class', 'classes')}{source}: {few(shares, 16)}")
    return [*lines, *notes, *(kind.reasons.values())]


def left_out(listing: Listing, layout: Layout) -> list[str]:
    """Files that are no part of any pair, a sentence for each kind."""
    photos, masks = layout.lonely
    other = [name for name in listing.pictures if name not in layout.claimed]
    found = [
        (photos, "photo", "without a mask"),
        (masks, "mask", "without a photo"),
        (other, "picture", "of neither kind"),
    ]
    return [f"{counted(len(names), noun)} {words}: {few(names)}" for names, noun, words in found if names]
