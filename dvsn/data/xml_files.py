"""XML of others: bounded, and without what XML can do beyond data. Entities are refused, not expanded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from dvsn.errors import DataError
from dvsn.reading import MEGABYTE, read_bytes, to_number

LIMIT = 16 * MEGABYTE
DEPTH = 32
ELEMENTS = 200_000


def read_xml(path: str | Path, *, expected: str) -> Element:
    """The root of an XML file of 16 MB, 200,000 elements and 32 levels at most, without document type or entities."""
    data = read_bytes(path, limit=LIMIT, expected=expected)
    parser, builder = expat.ParserCreate(), TreeBuilder()
    open_elements = count = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal open_elements, count
        open_elements, count = open_elements + 1, count + 1
        if open_elements > DEPTH or count > ELEMENTS:
            raise DataError(
                f"{path}: line {parser.CurrentLineNumber}: nested deeper than {DEPTH} levels or more than {ELEMENTS:,} "
                f"elements; expected {expected}."
            )
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal open_elements
        open_elements -= 1
        builder.end(tag)

    def refuse(*_: Any) -> NoReturn:
        raise DataError(
            f"{path}: line {parser.CurrentLineNumber}: declares a document type or entities, which are not read; expected "
            f"{expected}, with elements and text alone."
        )

    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = parser.UnparsedEntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
        root: Element = builder.close()
    except (expat.ExpatError, AssertionError, ValueError, LookupError) as error:
        raise DataError(f"{path}: not an XML file ({error}); expected {expected}.") from error
    return root


def number_in(element: Element, path: str, where: str) -> float:
    """The finite number at a path below an element, `where` being the file and the element in words."""
    found = element.find(path)
    return to_number(None if found is None else (found.text or "").strip(), f"{where}: {path}")


def text_in(element: Element, path: str) -> str:
    """The text at a path below an element; empty where there is none."""
    found = element.find(path)
    return "" if found is None or found.text is None else found.text.strip()
