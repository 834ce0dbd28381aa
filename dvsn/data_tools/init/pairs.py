"""Pairs of pictures of which one is to be made from the other: two folders, or side by side in one file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image

from dvsn.data.files import read_rgb
from dvsn.data_tools.findings import counted
from dvsn.data_tools.init import pair_recipe, pictures
from dvsn.data_tools.init.found import COULD, LOOKS, Found
from dvsn.data_tools.init.layouts import Layout, layouts
from dvsn.data_tools.init.listing import Listing, few
from dvsn.data_tools.init.mask_content import looks_like_mask
from dvsn.data_tools.init.naming import is_drawing
from dvsn.data_tools.init.splits import role_of
from dvsn.errors import DataError, UserError

SAMPLE = 6
COMPARED = 8
"""Pairs whose outlines are compared."""

propose = pair_recipe.propose


def look(listing: Listing) -> Found | None:
    """Two sides of equal names and sizes; else wide pictures whose halves are two pictures of one scene."""
    return of_folders(listing) or side_by_side(listing)


# Two folders ------------------------------------------------------------------------------------------------


def of_folders(listing: Listing) -> Found | None:
    for layout in layouts(listing):
        sizes = pictures.sizes_of(listing, [name for pair in layout.every for name in pair])
        if any(sizes.get(a, (0, 0)) != sizes.get(b, sizes.get(a, (0, 0))) for a, b in layout.every):
            continue
        return found_in_folders(listing, toward_photos(listing, layout), sizes)
    return None


def toward_photos(listing: Listing, layout: Layout) -> Layout:
    """The pairs with the poorer side first: label maps and edges are what photos are made from. A name that says which side
    is drawn decides; else the detail of the pictures."""
    drawn = [
        any(map(is_drawing, side)) for side in zip((layout.first, layout.second), layout.endings, strict=True)
    ]
    if drawn[0] != drawn[1]:
        return layout if drawn[0] else turned(layout)
    looked = pictures.spread(layout.every, SAMPLE)
    richness = [
        float(np.mean([detail(read_rgb(listing.path(pair[side]))) for pair in looked])) for side in (0, 1)
    ]
    return layout if richness[0] <= richness[1] else turned(layout)


def turned(layout: Layout) -> Layout:
    """The other side first."""
    pairs = {split: [(b, a) for a, b in each] for split, each in layout.pairs.items()}
    one, two = layout.endings
    return Layout(layout.second, layout.first, (two, one), pairs, (layout.lonely[1], layout.lonely[0]))


def found_in_folders(listing: Listing, layout: Layout, sizes: dict[str, pictures.Size]) -> Found:
    looked = pictures.spread(layout.every, SAMPLE)
    drawn = [
        sum(looks_like_mask(listing.path(pair[side])) for pair in looked) > len(looked) / 2 for side in (0, 1)
    ]
    plain = {"a": layout.first, "b": layout.second}
    dataset: dict[str, object] = {key: name for key, name in plain.items() if name != key}
    dataset |= {f"{key}_kind": "label" for key, label in zip("ab", drawn, strict=True) if label}
    dataset |= {f"{key}_ending": ending for key, ending in zip("ab", layout.endings, strict=True) if ending}
    if any(layout.lonely):
        dataset["skip_lonely"] = True
    found = Found(
        kind="pairs of pictures",
        task="pix2pix",
        base="folders",
        counts={split: len(each) for split, each in layout.pairs.items()},
        sure=LOOKS if layout.drawn() or not (any(drawn) or crowded(listing, layout)) else COULD,
        claimed=layout.claimed,
        node={"dataset": dataset} if dataset else {},
        sizes=Counter({b: sizes[b] for _, b in layout.every if b in sizes}.values()),
    )
    found.comments = {
        f"dataset.{key}_kind": "few flat colours: resized without new ones in between"
        for key, label in zip("ab", drawn, strict=True) if label
    }  # fmt: skip
    if len(layout.pairs) == 1:
        found.items = [a for a, _ in layout.every]
    found.facts["predict"] = [listing.path(layout.example())]
    first, second = layout.every[0]
    found.says = [
        f"{len(layout.every)} pairs, such as {first} + {second}{found.parts_words()}",
        f"{found.size_words()} (height x width)",
        "the second is made from the first, which shows less; data.pair.source=b data.pair.target=a turns that round",
    ]
    found.odd = [
        f"{counted(len(names), 'picture')} without a partner: {few(names)}"
        for names in layout.lonely
        if names
    ]
    return found


def crowded(listing: Listing, layout: Layout) -> bool:
    """Whether other folders of pictures lie beside the two sides in any split, as a third class does."""
    sides = {name.rpartition("/")[0] for pair in layout.every for name in pair}
    above = {side.rpartition("/")[0] for side in sides}
    return any(
        folder and folder not in sides and folder.rpartition("/")[0] in above for folder in listing.folders
    )


def one_scene(listing: Listing, pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether pairs of pictures show the same, as `alike` has it; False where there is one pair alone."""
    looked = pictures.spread(pairs, COMPARED)
    return len(looked) > 1 and alike(
        [(read_small(listing, one), read_small(listing, two)) for one, two in looked]
    )


# Side by side ---------------------------------------------------------------------------------------------


def side_by_side(listing: Listing) -> Found | None:
    """Pictures twice as wide as high, or nearly, whose halves show one scene: in the root, or in folders of splits."""
    folders = listing.folders
    splits = {name: names for name, names in folders.items() if role_of(name)} or {"all": folders.get("", ())}
    names = [name for each in splits.values() for name in each]
    if len(names) < 2:
        return None
    looked = pictures.spread(names, 24)
    try:
        sizes = pictures.sizes_of(listing, looked)
    except DataError:
        return None
    if any(width % 2 or width <= height for height, width in sizes.values()):
        return None
    looked_at = [read_half(listing, name) for name in pictures.spread(looked, COMPARED)]
    if not alike(looked_at):
        return None
    halves = {
        name: (height, width // 2) for name, (height, width) in pictures.sizes_of(listing, names).items()
    }
    source, target = direction(looked_at)
    found = Found(
        kind="pairs side by side",
        task="pix2pix",
        base="aligned",
        counts={name: len(each) for name, each in splits.items()},
        sure=LOOKS,
        claimed=frozenset(names),
        node={"pair": {"source": source, "target": target}},
        comments={"pair": "a is the left half, b the right; made is the one that shows more"},
        sizes=Counter(halves.values()),
    )
    if len(splits) == 1:
        found.items = sorted(names)
    found.says = [
        f"{len(names)} pictures of two halves, such as {names[0]}{found.parts_words()}; halves {found.size_words()} "
        "(height x width)",
        f"the {'right' if target == 'b' else 'left'} half is made from the other, which shows less",
    ]
    return found


def read_half(listing: Listing, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Both halves, of 64 pixels each way."""
    picture = read_photo(listing, name)
    middle = picture.shape[1] // 2
    return small(picture[:, :middle]), small(picture[:, middle : 2 * middle])


def read_small(listing: Listing, name: str) -> np.ndarray:
    """The picture, of 64 pixels each way."""
    return small(read_photo(listing, name))


def read_photo(listing: Listing, name: str) -> np.ndarray:
    """(H, W, 3). Raises `DataError`, also for what an option would allow."""
    try:
        return read_rgb(listing.path(name))
    except UserError as error:
        raise DataError(f"{error}") from error


def small(picture: np.ndarray) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((64, 64), Image.Resampling.BOX), np.float64)


def alike(halves: Sequence[tuple[np.ndarray, np.ndarray]]) -> bool:
    """Whether the outlines of a picture's halves lie at the same places, more than those of two pictures' halves do.

    The correlation of the strength of their edges, of each left half with each right one.
    """
    left, right = ([edges(pair[side]) for pair in halves] for side in (0, 1))
    table = np.array([[correlation(one, two) for two in right] for one in left])
    own, count = np.diagonal(table), len(halves)
    others = (table.sum() - own.sum()) / (count * (count - 1))
    return bool(own.mean() > others + 0.06 and (own >= table.max(axis=1)).mean() > 0.5)


def edges(half: np.ndarray) -> np.ndarray:
    """(64, 64, 3) -> (63, 63): how much a pixel differs from the next ones, smoothed a little."""
    grey = half.mean(axis=2)
    found = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    found = np.sqrt(found)
    padded = np.pad(found, 1, mode="edge")
    size = found.shape[0]
    windows = [padded[y : y + size, x : x + size] for y in range(3) for x in range(3)]
    return np.mean(windows, axis=0)


def correlation(one: np.ndarray, two: np.ndarray) -> float:
    a, b = one - one.mean(), two - two.mean()
    power = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / power if power else 0.0


def direction(halves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[str, str]:
    """Source and target: the half that shows more is made."""
    left, right = (float(np.mean([detail(pair[side]) for pair in halves])) for side in (0, 1))
    return ("a", "b") if left <= right else ("b", "a")


def detail(picture: np.ndarray) -> float:
    """How rich a picture is: different colours in steps of 16, as a share of what is possible, of 64 x 64 pixels."""
    shown = small(picture) if picture.shape[:2] != (64, 64) else picture
    steps = (shown // 16).astype(np.int64)
    return len(np.unique(steps[..., 0] << 8 | steps[..., 1] << 4 | steps[..., 2])) / 4096
