"""The pages: those that are made from data are up to date, every link leads somewhere, and every page is in the menu."""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.support.documented import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "experiments").rglob("*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
MENU = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "docs" / "site.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(page: Path) -> set[str]:
    """The anchors of a page: its headings in small letters, as Markdown's table of contents spells them."""
    text = re.sub(r"^(```|    ).*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        plain = unicodedata.normalize("NFKD", heading.replace("`", "")).encode("ascii", "ignore").decode()
        found.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower()))
    return found


def broken(page: Path) -> list[str]:
    """The links of a page, within the repository, that lead nowhere."""
    wrong = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        place, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = page.parent / place if place else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


def leaves(menu: list[dict[str, object]]) -> list[str]:
    """The pages of the menu."""
    found = []
    for node in menu:
        for entry in node.values():
            found += leaves(entry) if isinstance(entry, list) else [str(entry)]
    return found


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading, here\n[a](page.md#a-heading-here) [b](page.md#b) [c](none.md) [d](https://x.y)\n"
    )
    assert broken(page) == ["page.md#b", "none.md"]


def test_the_menu_has_every_page() -> None:
    expected = {page.relative_to(ROOT).as_posix() for page in PAGES if page.is_relative_to(ROOT / "docs")}
    found = leaves(MENU)
    assert expected - set(found) == set(), "not in the menu of mkdocs.yml"
    assert len(found) == len(set(found)), "twice in the menu of mkdocs.yml"
    assert all((ROOT / page).is_file() for page in found if page != "index.md"), "in the menu, and not there"


def test_every_link_of_the_site_leads_somewhere(
    site: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the pages as they are gathered, which is not all of the repository."""
    monkeypatch.setattr(site, "PAGES", tmp_path / "pages")
    site.gather()
    wrong = {str(page): broken(page) for page in (tmp_path / "pages").rglob("*.md")}
    assert {page: links for page, links in wrong.items() if links} == {}


def test_pages_made_from_data_are_up_to_date(site: ModuleType) -> None:
    for path, text in site.made().items():
        assert path.read_text(encoding="utf-8") == text, (
            f"{path.name} is older than its data: run `make pages`"
        )


def test_every_method_has_a_paragraph_and_a_table(site: ModuleType) -> None:
    text = site.methods()
    names = [file.stem for file in (ROOT / "conf" / "distill").glob("*.yaml") if file.stem != "none"]
    for page in ("README.md", "notebooks/teach_a_small_network.py"):
        assert f"{len(names)} methods" in (ROOT / page).read_text(encoding="utf-8"), page
    for name in names:
        section = re.split(r"^## ", text.partition(f"\n## {name}\n")[2], flags=re.MULTILINE)[0]
        assert len(section.split()) > 40 and "| `weight` |" in section, name
        assert f"| [`{name}`](#{name}) |" in text
    assert "| [`kd`](#kd) | Knowledge distillation: softened classes of the teacher as labels (Hinton" in text
    assert "| `method.temperature` | `4.0` | 1 on ImageNet |" in text
