"""The boundary of files that others wrote: encodings, separators, types, sizes, and files that are none."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from dvsn import reading
from dvsn.errors import DataError


def write(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_that_says_its_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    assert reading.read_text(write(tmp_path / "x.txt", "größe.png\n", encoding)) == "größe.png\n"
    assert reading.read_json(write(tmp_path / "x.json", '{"a": "ß"}', encoding)) == {"a": "ß"}


def test_other_text_is_named_with_its_line(tmp_path: Path) -> None:
    latin = write(tmp_path / "x.txt", "a.png\nb.png\ngröße.png\n", "latin1")
    with pytest.raises(
        DataError, match=r"x.txt: not a text file in UTF-8; line 3: found the byte 0xf6.*iconv"
    ):
        reading.read_text(latin)
    with pytest.raises(DataError, match=r"y.txt: line 2: not a text file \(it holds a zero byte\)"):
        reading.read_text(write(tmp_path / "y.txt", "a\n\0b"))


LISTS: dict[str, tuple[str, list[list[str]]]] = {
    "blanks": ("a.png  b.png\n", [["a.png", "b.png"]]),
    "a tab, names with blanks": ("my a.png\tmy b.png\nc.png\td.png", [["my a.png", "my b.png"], ["c.png", "d.png"]]),
    "a comma": ("a.png,b.png\nc.png, d.png", [["a.png", "b.png"], ["c.png", "d.png"]]),
    "a comma in a name": ("a,1.png b.png\nc.png d,2.png", [["a,1.png", "b.png"], ["c.png", "d,2.png"]]),
    "quotes": ("\"my a.png\" 'my b.png'\n", [["my a.png", "my b.png"]]),
    "quotes around commas": ('"a,1.png",b.png\n', [["a,1.png", "b.png"]]),
    "an apostrophe": ("o'brien.png b'.png\n", [["o'brien.png", "b'.png"]]),
    "Windows": ("a.png,b.png\r\n\r\nc.png,d.png\r\n", [["a.png", "b.png"], ["c.png", "d.png"]]),
}  # fmt: skip


@pytest.mark.parametrize("case", LISTS)
def test_lists_with_any_separator(tmp_path: Path, case: str) -> None:
    content, expected = LISTS[case]
    rows = reading.read_rows(write(tmp_path / "l.txt", content), columns=(2,))
    assert [row.columns for row in rows] == expected


def test_lines_keep_their_number(tmp_path: Path) -> None:
    rows = reading.read_rows(write(tmp_path / "l.txt", "\na b\n\n\nc d\n"), columns=(2,))
    assert [row.number for row in rows] == [2, 5]
    table = reading.read_table(write(tmp_path / "t.csv", 'x,y\n\n"a\nb",2\n3,4\n'))
    assert [(row.number, row.columns) for row in table] == [
        (1, ["x", "y"]),
        (4, ["a\nb", "2"]),
        (5, ["3", "4"]),
    ]


def test_a_field_that_is_too_long_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "x,y\n" + "1" * 140_000 + ",2\n")
    with pytest.raises(DataError, match=r"t.csv: line 2: field larger than field limit \(131072\)"):
        reading.read_table(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('{"a": [', "column 8"),
        ("", "Expecting value"),
        ("[" * 200_000, "nested too deeply"),
        ("1" * 5000, "digits"),
    ],
)
def test_what_is_no_json_is_named(tmp_path: Path, content: str, found: str) -> None:
    with pytest.raises(DataError, match=rf"x.json: not a JSON file \(.*{found}"):
        reading.read_json(write(tmp_path / "x.json", content))


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    place = socket.socket(socket.AF_UNIX)
    before = Path.cwd()
    os.chdir(tmp_path)  # a socket's path is short
    try:
        place.bind("socket")
    finally:
        os.chdir(before)
        place.close()
    kinds = {tmp_path / "pipe": "a named pipe", tmp_path / "socket": "a socket", tmp_path: "a folder"}
    for path, kind in (kinds | {Path("/dev/zero"): "a device"}).items():
        for read in (reading.read_bytes, reading.read_text, reading.read_json, reading.read_table):
            with pytest.raises(DataError, match=rf"{path}: cannot be read \(it is {kind}\)"):
                read(path)


def test_a_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    for read in (reading.read_text, reading.read_json):
        with pytest.raises(DataError, match=r"large.json: 1,099,511,627,776 bytes, expected .* at most"):
            read(path)


NUMBERS: list[tuple[Any, float | None]] = [
    (1, 1.0), (1.5, 1.5), ("1.5", 1.5), (" 2 ", 2.0), (True, None), (None, None), ("x", None), (float("nan"), None),
    ("nan", None), ("inf", None), ([1], None), ({}, None), (10**400, None),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), NUMBERS)
def test_numbers(value: Any, expected: float | None) -> None:
    if expected is not None:
        assert reading.to_number(value, "x") == expected
        return
    with pytest.raises(DataError, match=r"x: found .*, expected a finite number"):
        reading.to_number(value, "x")


@pytest.mark.parametrize("value", ["1e19", "-1e308", "inf", "nan", 10**400])
def test_numbers_fit_where_they_are_squared_in_float32(value: Any) -> None:
    """Or a point would be infinite in the tensors of a network: float32 ends at 3.4e38."""
    import numpy as np

    from dvsn.data.coco_files import is_numbers, table

    with pytest.raises(DataError, match="expected a finite number"):
        reading.to_number(value, "x")
    with pytest.raises(DataError, match=r"column 2 is .* expected a finite number"):
        reading.to_numbers(["1", str(value)], "x")
    plain = value if isinstance(value, int) else float(value)
    assert not is_numbers([1.0, plain], 2) and is_numbers([1.0, 1e18], 2)
    with pytest.raises(DataError, match=r"annotation 7: keypoints: .* expected 2 finite numbers"):
        table([{"id": 7, "keypoints": [1.0, plain]}], "keypoints", 2, Path("f.json"), "x, y")
    assert np.isfinite(np.float32(reading.to_number("1e18", "x")) ** 2)


def test_whole_numbers_flags_and_names() -> None:
    assert [reading.to_whole(each, "x") for each in (3, 3.0, "3", "-4", 10**15)] == [3, 3, 3, -4, 10**15]
    assert [reading.to_flag(each, "x") for each in (0, 1, "0", "1", True, False, 0.0, "true")] == [
        0,
        1,
        0,
        1,
        1,
        0,
        0,
        1,
    ]
    assert reading.to_text("a b", "x") == "a b"
    for change, wrong in (
        (reading.to_whole, (True, 1.5, "1.5", "", None, [], float("inf"))),
        (reading.to_flag, (2, -1, "2", "yes", None, [], float("nan"))),
        (reading.to_text, ("", " ", 5, None, [], "a\0b")),
    ):
        for value in wrong:
            with pytest.raises(DataError, match=r"^x: found"):
                change(value, "x")


def test_a_column_names_the_place_of_what_is_wrong() -> None:
    def where(place: int) -> str:
        return f"row {place}"

    assert reading.column([1, 2], where, reading.to_whole, int) == [1, 2]
    assert reading.column([1, "2"], where, reading.to_whole, int) == [1, 2]
    with pytest.raises(DataError, match="row 1: found true"):
        reading.column([1, True], where, reading.to_whole, int)


def test_lists_of_objects(tmp_path: Path) -> None:
    content = json.loads('{"a": [{}, 5], "b": "x", "c": [{}]}')
    assert reading.entries(content, "c", "f") == [{}]
    with pytest.raises(DataError, match=r"f: a\[1\]: found 5, expected an object"):
        reading.entries(content, "a", "f")
    with pytest.raises(DataError, match=r"f: b: found 'x', expected a list"):
        reading.entries(content, "b", "f")
