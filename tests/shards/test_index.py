"""The index and tables of shards belong to others: nothing in them is believed, built, resolved or executed."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dvsn.errors import DataError, MissingError
from dvsn.shards.index import NAME, File, Index, Split, dump_table, join_tables, load_table, read_index
from dvsn.shards.source import check_table
from dvsn.shards.storage import Folder

FILE = File("train-000000.tar", 10, "0" * 64, 3)
GOOD = Index("dataset", {"photo": "photo", "class": "number"}, {}, {"classes": 2},
             {"train": Split(3, (FILE,), File("train.table.npz", 5, "1" * 64))})  # fmt: skip


def reread(folder: Path, change: Any = None) -> Index:
    content = json.loads(GOOD.dump())
    if change is not None:
        change(content)
    (folder / NAME).write_text(json.dumps(content))
    return read_index(Folder(folder))


def test_it_comes_back(tmp_path: Path) -> None:
    assert reread(tmp_path) == GOOD


HOSTILE: dict[str, Any] = {
    "a path": lambda c: c["splits"]["train"]["shards"][0].update(name="../secret"),
    "an absolute path": lambda c: c["splits"]["train"]["table"].update(name="/etc/passwd"),
    "an interpolation": lambda c: c["config"].update({"root": "${oc.env:SECRET}"}),
    "a class": lambda c: c["config"].update({"dataset": {"_target_": "os.system"}}),
    "a count": lambda c: c["splits"]["train"].update(items=4),
    "negative bytes": lambda c: c["splits"]["train"]["shards"][0].update(bytes=-1),
    "no digest": lambda c: c["splits"]["train"]["shards"][0].update(sha256="abc"),
    "a kind": lambda c: c.update(kind="objects"),
    "an array of objects": lambda c: c["types"].update(label="O"),
    "another version": lambda c: c.update(version=2),
    "no splits": lambda c: c.update(splits={}),
    "a part": lambda c: c["parts"].update(photo="program"),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_what_has_no_meaning_is_refused(change: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"index\.json: "):
        reread(tmp_path, change)


def test_a_missing_or_broken_index_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no finished set of shards"):
        read_index(Folder(tmp_path / "nowhere"))
    (tmp_path / NAME).write_text("{")
    with pytest.raises(DataError, match="no readable JSON"):
        read_index(Folder(tmp_path))


class Evil:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a table was unpickled",))


def test_a_table_with_objects_is_refused_before_it_is_unpickled() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, name=np.array([Evil()], object))
    for data in (buffer.getvalue(), pickle.dumps(Evil()), b"rubbish"):
        with pytest.raises(DataError, match="no readable table"):
            load_table(data, "x")


TABLE = {
    "name": np.array([b"a", b"b", b"c"]), "class": np.array([0, 1, 0]), "photo.file": np.array([0, 1, 1]),
    "photo.window": np.array([0, 1, 2]), "shard": np.array([0, 0]), "start": np.array([0, 5]), "size": np.array([5, 5]),
    "crc": np.array([1, 2], np.uint32),
}  # fmt: skip


@pytest.mark.parametrize(
    ("column", "value", "found"),
    [
        ("start", [0, -1], "outside"),
        ("start", [0, 2**63 - 2], "outside"),
        ("size", [5, 6], "outside"),
        ("size", [5, -1], "outside"),
        ("shard", [0, 1], "outside"),
        ("photo.file", [0, 1, 2], "outside"),
        ("photo.window", [0, 1, 3], "outside"),
        ("photo.window", [0, 1, -1], "outside"),
        ("shard", [0.0, 0.0], "whole numbers"),
        ("start", [[0], [5]], "whole numbers"),
        ("start", 0, "missing or not of"),
        ("class", ["0", "1", "0"], "whole numbers"),
        ("class", [0, 1], "3 whole numbers"),
        ("name", [1, 2, 3], "texts"),
    ],
)
def test_a_table_that_no_sample_can_be_read_by_is_refused(column: str, value: Any, found: str) -> None:
    split = GOOD.splits["train"]
    check_table(TABLE, split, GOOD, "x")
    with pytest.raises(DataError, match=found):
        check_table({**TABLE, column: np.array(value)}, split, GOOD, "x")


def test_joined_tables_count_on() -> None:
    one = {"start": np.array([0, 5]), "photo.file": np.array([0, 1, 1]), "name": np.array([b"a", b"b", b"c"])}
    other = {"start": np.array([0]), "photo.file": np.array([0]), "name": np.array([b"long"])}
    joined = join_tables([load_table(dump_table(each), "x") for each in (one, other)])
    assert joined["photo.file"].tolist() == [0, 1, 1, 2] and joined["shard"].tolist() == [0, 0, 1]
    assert joined["name"].tolist() == [b"a", b"b", b"c", b"long"]
