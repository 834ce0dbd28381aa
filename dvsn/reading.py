"""The boundary of files that others wrote: regular files of a bounded size, as JSON, CSV or text, with their types checked.

Whatever is wrong becomes a `DataError` that says the file, the place in it, what was found and what is expected.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import math
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from dvsn.errors import ConfigError, DataError

MEGABYTE = 1 << 20
JSON_LIMIT = 4096 * MEGABYTE  # LVIS and Objects365 have files of a gigabyte
LARGEST = 1e18  # of coordinates, sides and areas: float32 holds its square
TEXT_LIMIT = 1024 * MEGABYTE
HIGHEST = 10**18  # of whole numbers, such as ids: they have to fit into 64 bits
SHOWN = 60  # characters of a wrong value
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""What a text starts with, and its encoding; the longer ones first."""
KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
QUOTED = re.compile(r"\"([^\"]*)\"(?=\s|$)|'([^']*)'(?=\s|$)|(\S+)")


class Line(NamedTuple):
    """One line of a list or table: its number in the file, from 1, and its columns."""

    number: int
    columns: list[str]


# Bytes -----------------------------------------------------------------------------------------------


def read_bytes(path: str | Path, *, limit: int | None = None, expected: str = "a file") -> bytes:
    """The content of a regular file of `limit` bytes at most. A pipe, a socket or a device is refused unopened."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        kind = special_kind(path)
        found = f"it is {kind}" if kind else getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: cannot be read ({found}); expected {expected}.") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            kind = KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")
            raise DataError(f"{path}: cannot be read (it is {kind}); expected {expected}.")
        if limit is not None and status.st_size > limit:
            raise DataError(
                f"{path}: {status.st_size:,} bytes, expected {expected} of {limit:,} bytes at most."
            )
        with open(handle, "rb", buffering=0, closefd=False) as file:
            return file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    finally:
        os.close(handle)


def require_regular(path: str | Path, *, expected: str) -> None:
    """Raise `DataError` for a pipe, a socket, a device or a folder, for libraries that open a file by its name."""
    kind = special_kind(path)
    if kind:
        raise DataError(f"{path}: cannot be read (it is {kind}); expected {expected}.")


def special_kind(path: str | Path) -> str | None:
    """What stands at `path` in place of a regular file, in words; None for a file, and where nothing is."""
    try:
        return KINDS.get(stat.S_IFMT(os.stat(path).st_mode))  # noqa: PTH116 - a text has no stat
    except (OSError, ValueError):
        return None


# Checkpoints -----------------------------------------------------------------------------------------

_UNPACKED: ContextVar[int | None] = ContextVar("max_unpacked", default=None)


@contextlib.contextmanager
def unpacking(options: Mapping[str, Any]) -> Iterator[None]:
    """Within it, the option `max_unpacked` of a command holds for every checkpoint that is read."""
    most = options.get("max_unpacked")
    check_unpacked(most)
    token = _UNPACKED.set(most)
    try:
        yield
    finally:
        _UNPACKED.reset(token)


def check_unpacked(most: Any) -> None:
    """Raise `ConfigError` for a value that `max_unpacked` cannot have."""
    if most is not None and (type(most) is not int or most < 1):
        raise ConfigError(
            f"max_unpacked: found {most!r}, expected a number of bytes above 0, or null: 16 times the size of the file."
        )


def most_unpacked() -> int | None:
    """How many bytes a checkpoint may unpack to, where that was said."""
    return _UNPACKED.get()


# Text ------------------------------------------------------------------------------------------------


def read_text(path: str | Path, *, expected: str = "a text file", limit: int = TEXT_LIMIT) -> str:
    """The text of a file in UTF-8, or in the UTF-16 or UTF-32 that its first bytes announce."""
    data = read_bytes(path, limit=limit, expected=expected)
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"line {line}: found the byte 0x{data[error.start]:02x}, which is no {encoding.upper()}"
        advice = f"expected {expected} in UTF-8. Save it as UTF-8, such as by `iconv -f latin1 -t utf-8`."
        raise DataError(f"{path}: not a text file in UTF-8; {found}; {advice}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}: line {line}: not a text file (it holds a zero byte); expected {expected}.")
    return text


def read_rows(path: str | Path, *, columns: Collection[int] = (), expected: str = "a list") -> list[Line]:
    """The lines that hold anything, in columns separated by blanks, tabs or commas, with names in quotes where needed.

    One separator holds for the whole file: of tab, comma and blanks that by which every line has a number of columns out
    of `columns`; of several the one whose columns look most like names of files, by their dot. Without one, blanks.
    """
    lines = [
        (number, line.strip())
        for number, line in enumerate(read_text(path, expected=expected).splitlines(), 1)
    ]
    lines = [(number, line) for number, line in lines if line]
    by_blanks = [Line(number, words(line)) for number, line in lines]
    found = []
    for mark in ("\t", ",") if columns and lines else ():
        if all(mark in line for _, line in lines):
            found.append([Line(number, separated(line, mark)) for number, line in lines])
    fitting = [rows for rows in (*found, by_blanks) if all(fits(row, columns) for row in rows)]
    return max(
        fitting, key=lambda rows: sum("." in each for row in rows for each in row.columns), default=by_blanks
    )


def fits(row: Line, columns: Collection[int]) -> bool:
    return len(row.columns) in columns and all(row.columns)


def separated(line: str, mark: str) -> list[str]:
    """The columns of one line, a quoted one possibly with `mark` in it."""
    try:
        row = next(csv.reader([line], delimiter=mark, skipinitialspace=True))
    except (csv.Error, StopIteration):
        return []
    return [each.strip() for each in row]


def words(line: str) -> list[str]:
    """The words of a line; in quotes one may hold blanks."""
    if '"' not in line and "'" not in line:
        return line.split()
    return [double or single or word for double, single, word in QUOTED.findall(line)]


def read_table(path: str | Path, *, expected: str = "a CSV table") -> list[Line]:
    """The rows of a CSV file that hold anything, the first being its heading if it has one. Where its first line has no
    comma, columns are parted by semicolons or tabs, as spreadsheets write them."""
    text = read_text(path, expected=expected)
    first = text.lstrip().partition("\n")[0]
    mark = next((each for each in (",", ";", "\t") if each in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    try:
        return [Line(reader.line_num, row) for row in reader if any(each.strip() for each in row)]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}; expected {expected}.") from error


# JSON ------------------------------------------------------------------------------------------------


def read_json(path: str | Path, *, expected: str = "a JSON file", limit: int = JSON_LIMIT) -> Any:
    """The content of a JSON file in UTF-8, -16 or -32."""
    data = read_bytes(path, limit=limit, expected=expected)
    try:
        return json.loads(data)
    except RecursionError as error:
        raise DataError(f"{path}: not a JSON file (nested too deeply); expected {expected}.") from error
    except (ValueError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: not a JSON file ({reason}); expected {expected}.") from error


def entries(content: Any, key: str, path: str | Path, *, what: str = "an object") -> list[dict[str, Any]]:
    """The list of objects at `content[key]`."""
    found = content.get(key)
    if not isinstance(found, list):
        raise DataError(f"{path}: {key}: found {shown(found)}, expected a list, each {what}.")
    if not set(map(type, found)) <= {dict}:
        place, wrong = next((n, each) for n, each in enumerate(found) if type(each) is not dict)
        raise DataError(f"{path}: {key}[{place}]: found {shown(wrong)}, expected {what}.")
    return found


# Values ----------------------------------------------------------------------------------------------
# `where` is what a message starts with: the file and the place in it.


def shown(value: Any) -> str:
    """A wrong value in words: its type unless that is plain to see, and its beginning."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"an object of {len(value)} entries"
    if isinstance(value, list):
        text = json.dumps(value, default=str) if len(value) <= 8 else f"a list of {len(value)}"
    else:
        text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def is_usable(number: float) -> bool:
    """Whether a coordinate, a side or an area is finite, and also where it is squared in float32."""
    return abs(number) <= LARGEST


def to_number(value: Any, where: str, expected: str = "a finite number") -> float:
    """A finite number, also written as text; no truth value, which counts as one in Python."""
    if type(value) is str:
        with contextlib.suppress(ValueError):
            value = float(value)
    if type(value) in (int, float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if is_usable(number):
            return number
    raise DataError(f"{where}: found {shown(value)}, expected {expected}.")


def to_whole(value: Any, where: str, expected: str = "a whole number") -> int:
    """A whole number, also as 3.0 or as text."""
    if type(value) is str and re.fullmatch(r"\s*[+-]?\d{1,18}\s*", value):
        value = int(value)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int and abs(value) <= HIGHEST:
        return value
    raise DataError(f"{where}: found {shown(value)}, expected {expected}.")


def to_flag(value: Any, where: str) -> int:
    """0 or 1, also as false, true or text."""
    if value in (0, 1) and type(value) in (int, float, bool):
        return int(value)
    if type(value) is str and value.strip().lower() in ("0", "1", "false", "true"):
        return int(value.strip().lower() in ("1", "true"))
    raise DataError(f"{where}: found {shown(value)}, expected 0 or 1.")


def to_text(value: Any, where: str, expected: str = "a name") -> str:
    """Text that holds anything."""
    if type(value) is str and value.strip() and "\0" not in value:
        return value
    raise DataError(f"{where}: found {shown(value)}, expected {expected}.")


def are_whole(values: Collection[Any]) -> bool:
    """Whether all are whole numbers already."""
    return set(map(type, values)) <= {int} and max(map(abs, values), default=0) <= HIGHEST


def column(
    values: Iterable[Any],
    where: Callable[[int], str],
    change: Callable[[Any, str], Any],
    plain: type,
) -> list[Any]:
    """`change` applied to each value, with `where(place)` for its message; at once where all are whole numbers (`plain` is
    int) already."""
    found = list(values)
    if plain is int and are_whole(found):
        return found
    return [change(value, where(place)) for place, value in enumerate(found)]


def to_numbers(fields: Sequence[str], where: str) -> list[float]:
    """Finite numbers from the columns of a line. Raises `DataError` for the first that is none."""
    try:
        values = [float(field) for field in fields]
    except ValueError:
        values = []
    if values and all(map(is_usable, values)):
        return values
    for place, field in enumerate(fields, start=1):
        try:
            if is_usable(float(field)):
                continue
        except ValueError:
            pass
        raise DataError(f"{where}: column {place} is '{field[:40]}', expected a finite number.")
    raise DataError(f"{where}: no numbers in it.")
