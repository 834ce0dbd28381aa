"""Splits by ratio: the same whatever the run, disjoint, whole, and by group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dvsn.data.image_folder import ImageFolder
from dvsn.data.module import DataModule
from dvsn.data.segmentation_folders import SegmentationFolders
from dvsn.data.shuffled import chosen, keys_of, order
from dvsn.data.transforms import Pair
from dvsn.data_tools.init.splits import plan, role_of, shares
from dvsn.errors import ConfigError, DataError
from tests.support.own_data import write_classes, write_masks

KEYS = [f"scene{number // 5}_{number % 5}.png" for number in range(100)]


def test_the_ranges_make_the_whole_and_share_nothing() -> None:
    made = order(KEYS, seed=3)
    parts = [chosen(made, 0, 70), chosen(made, 70, 85), chosen(made, 85, 100)]
    assert [len(part) for part in parts] == [70, 15, 15]
    assert sorted(sum(parts, ())) == list(range(100))
    assert list(parts[0]) != sorted(parts[0])
    assert order(KEYS, seed=3) == made != order(KEYS, seed=4)


def test_a_new_picture_moves_no_other_one() -> None:
    names = [KEYS[item] for item in order(KEYS, seed=0).items]
    more = [*KEYS, "added.png"]
    assert [
        name for name in (more[item] for item in order(more, seed=0).items) if name != "added.png"
    ] == names


@pytest.mark.parametrize("group", ["prefix", r"(scene\d+)_", r"scene\d+"])
def test_groups_stay_together(group: str) -> None:
    made = order(KEYS, seed=1, group=group)
    train, val = (
        {KEYS[item].partition("_")[0] for item in part}
        for part in (chosen(made, 0, 82), chosen(made, 82, 100))
    )
    assert len(train) == 16 and len(val) == 4 and not train & val  # 80 of 100: the cut is between groups


def test_two_groups_are_parted_at_any_ratio() -> None:
    made = order(["a/1.png", "a/2.png", "b/1.png"], seed=0, group="folder")
    assert {len(chosen(made, 0, 99)), len(chosen(made, 99, 100))} == {1, 2}


def test_each_part_has_its_share_of_every_class() -> None:
    classes = [0] * 80 + [1] * 20
    val = chosen(order(KEYS, seed=0, classes=classes), 80, 100)
    assert sum(classes[item] for item in val) == 4


def test_a_rule_that_matches_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"matches no name, such as scene0_0\.png"):
        order(KEYS, seed=0, group="frame")
    with pytest.raises(ConfigError, match="no regular expression"):
        order(KEYS, seed=0, group="(")


def module(root: Path, **options: Any) -> DataModule:
    given = {
        "splits": {"train": "all[:80%]", "val": "all[80%:]", "test": "all[80%:]"},
        "dataset": lambda **more: SegmentationFolders(names=["a", "b", "c", "d"], **more),
        "pair": Pair(source="photo", target="label"), "transform": {"train": [], "eval": []},
        "input_channels": 3, "output_channels": 1, "split_seed": 5,
    }  # fmt: skip
    return DataModule(root=str(root), **(given | options))


def test_the_module_serves_all(tmp_path: Path) -> None:
    write_masks(tmp_path, count=10)
    names = []
    for seed in (0, 7):  # of the run, which does not matter
        data = module(tmp_path, seed=seed)
        parts = [data.read(data.splits[role]) for role in ("train", "val")]
        names.append([[part.name(place) for place in range(len(part))] for part in parts])
    assert names[0] == names[1]
    assert [len(part) for part in names[0]] == [8, 2]
    assert sorted(names[0][0] + names[0][1]) == [f"p{number}" for number in range(10)]
    whole = module(tmp_path).read("all")
    expected = [whole.name(item) for item in chosen(order(keys_of(whole, tmp_path), seed=5), 0, 80)]
    assert names[0][0] == expected
    first = module(tmp_path, split_seed=None).read("all[:80%]")
    assert [first.name(place) for place in range(8)] == [f"p{number}" for number in range(8)]


def test_the_module_shares_out_classes(tmp_path: Path) -> None:
    write_classes(tmp_path, {"cat": 20, "dog": 5})
    data = module(
        tmp_path, pair=Pair(source="photo", target="class"), classes=2,
        dataset=lambda **more: ImageFolder(classes_from="all[:80%]", **more),
    )  # fmt: skip
    val = data.read("all[80%:]")
    assert sorted(val.targets.tolist()) == [0, 0, 0, 0, 1]  # type: ignore[attr-defined]
    assert [val.read(place)["class"] for place in range(5)] == val.targets.tolist()  # type: ignore[attr-defined]


@pytest.mark.parametrize("options, message", [
    ({"split_seed": -1}, "split_seed: found -1"),
    ({"split_seed": None, "split_group": "prefix"}, "Set data.split_seed=0"),
    ({"split_group": "("}, "no regular expression"),
])  # fmt: skip
def test_wrong_options(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        module(tmp_path, **options)


def test_splits_that_are_there_keep_their_names() -> None:
    made = plan({"training": 8, "valid": 4, "testing": 2})
    assert made.splits == {"train": "training", "val": "valid", "test": "testing"} and made.seed is None
    assert plan({"train": 8, "val": 4}).splits["test"] == "val"
    made = plan({"train": 8, "test": 4}, ratio=(75, 25))
    assert made.splits == {"train": "train[:75%]", "val": "train[75%:]", "test": "test"} and made.seed == 0
    assert made.counts == {"train": 6, "val": 2, "test": 4}
    assert role_of("Validation") == "val" and role_of("cats") is None


def test_no_splits_are_made_by_ratio() -> None:
    made = plan({"all": 100}, ratio=(70, 15, 15), items=KEYS, group="prefix")
    assert made.splits == {"train": "all[:70%]", "val": "all[70%:85%]", "test": "all[85%:]"}
    assert made.counts == {"train": 70, "val": 15, "test": 15} and made.group == "prefix"
    assert "(scene0, scene1, scene10, ...)" in plan({"all": 100}, items=KEYS).says[-1]  # what to consider
    assert len(plan({"all": 100}, items=[f"{number}.png" for number in range(100)]).says) == 1
    with pytest.raises(DataError, match="2 at least"):
        plan({"all": 1})
    with pytest.raises(DataError, match="leave none for val"):
        plan({"all": 3}, ratio=(70, 1, 29))
    with pytest.raises(DataError, match="none to train on"):
        plan({"val": 3, "test": 3})


def test_the_seed_is_one_by_which_both_show_every_class() -> None:
    """Class 1 is in two pictures of twenty: only some seeds put one into each part."""
    shown = [frozenset({0, 1}) if number in (3, 11) else frozenset({0}) for number in range(20)]
    keys = [f"{number}.png" for number in range(20)]
    made = plan({"all": 20}, items=keys, shows=shown)
    parted = order(keys, seed=made.seed or 0)
    for part in (chosen(parted, 0, 80), chosen(parted, 80, 100)):
        assert any(1 in shown[item] for item in part)
    one = plan({"all": 20}, items=keys, shows=[frozenset({0, 1})] + [frozenset({0})] * 19)
    assert any("1 class is in too few pictures" in line for line in one.says)
    few = plan({"all": 24}, items=[*keys, *"abcd"], targets=[0] * 20 + [1, 1, 2, 3])
    assert any("3 classes are in too few pictures" in line for line in few.says)


@pytest.mark.parametrize("text", ["90", "80/30", "80/20/0", "a/b", "50/25/15/10"])
def test_wrong_ratios(text: str) -> None:
    with pytest.raises(ConfigError, match="ratio: found"):
        shares(text)
