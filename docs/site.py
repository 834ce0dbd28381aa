"""The pages that are made from data, and the site.

    python docs/site.py pages       # write docs/methods.md and docs/zoo.md
    python docs/site.py build       # both, then the site in build/site; needs the extra `docs`

The site has the layout of the repository: README.md is its first page, and docs/ and experiments/ lie where they lie here,
so that a link works in both.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCS, PAGES = ROOT / "docs", ROOT / "build" / "pages"
COPIED = ("*.md", "LICENSE", "Makefile", "Dockerfile", "CITATION.cff")
KINDS = {
    "classes": "classes of pictures", "pixels": "classes of pixels", "heatmaps": "heatmaps of keypoints",
    "points": "points", "image": "generated pictures",
}  # fmt: skip
TAPS = re.compile(r"\s*stages \| pre_activation.*$")

HEAD = """# Methods of distillation, one by one

Made from `conf/distill/` and the classes behind it. The numbers are the defaults, which are the papers' where they state
them. `distill=NAME` chooses one, `distill.NAME.OPTION=...` changes an option, `distill=[kd,at]` joins several.
[Distillation](distillation.md) says how to use them.

Each has the same five options: `weight` (its factor in the loss), `taps` (where it looks: a role that networks declare, or
pairs of module paths; null: at the answer alone), `start`, `end` (epochs) and `ramp` (epochs over which the weight grows).
"""


def methods() -> str:
    """docs/methods.md: for each file of conf/distill a paragraph from its class and a table of its own options."""
    files = [file for file in sorted((ROOT / "conf" / "distill").glob("*.yaml")) if file.stem != "none"]
    parts = [HEAD, "| method | paper | works on |\n|---|---|---|"]
    found = [(file.stem, *method(file)) for file in files]
    rows = [f"| [`{name}`](#{name}) | {title} | {fits} |" for name, title, fits, *_ in found]
    parts[-1] += "\n" + "\n".join(rows) + "\n"
    for name, title, _, text, options in found:
        parts.append(f"## {name}\n\n{title}.\n\n{text}\n\n{options}\n")
    return "\n".join(parts)


def method(file: Path) -> tuple[str, str, str, str]:
    """Title, what it works on, the paragraphs of its class and the table of its options."""
    text = file.read_text(encoding="utf-8")
    comment = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    title, *more = re.split(r"(?<=[a-z)])\. (?=[A-Z])", comment.rstrip("."), maxsplit=1)
    node = next(iter(yaml.safe_load(text).values()))
    module, _, name = node["method"]["_target_"].rpartition(".")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    kind = next(each for each in tree.body if isinstance(each, ast.ClassDef) and each.name == name)
    said = [f"{each}." for each in more] + [paragraphs(ast.get_docstring(kind) or "")]
    return title, fits(kind, tree), "\n\n".join(said), table(text, node)


def fits(kind: ast.ClassDef, tree: ast.Module) -> str:
    """The answers that a class reads, by its `reads` or that of the class it is made from; features where it reads none."""
    classes = {each.name: each for each in tree.body if isinstance(each, ast.ClassDef)}
    while True:
        for line in kind.body:
            if isinstance(line, ast.AnnAssign) and getattr(line.target, "id", "") == "reads" and line.value:
                return ", ".join(KINDS.get(word, word) for word in ast.literal_eval(line.value))
        base = next((classes[b.id] for b in kind.bases if isinstance(b, ast.Name) and b.id in classes), None)
        if base is None:
            return "features, of every task"
        kind = base


def paragraphs(docstring: str) -> str:
    """A docstring as Markdown: its stars and underlines mean themselves."""
    quoted = re.split(r"(`[^`]*`)", docstring)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<])", r"\\\1", part) for part in quoted)


def table(text: str, node: dict[str, object]) -> str:
    """The options of a file with their comments; those that are the same everywhere are left out."""
    rows = []
    for line in text.splitlines():
        found = re.match(r"  ( *)(\w+): +([^#]*?)\s*(?:#\s*(.*))?$", line)
        if found is None or found[2] in ("_target_", "_partial_", "start", "end", "ramp", "method"):
            continue
        name = f"method.{found[2]}" if found[1] else found[2]
        comment = TAPS.sub("", found[4] or "") if found[2] == "taps" else found[4] or ""
        cells = (f"`{name}`", f"`{found[3]}`", comment.replace("|", "or"))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(["| option | default | |", "|---|---|---|", *rows])


def made() -> dict[Path, str]:
    """The content of each page that is made from data."""
    from dvsn.zoo.entries import page

    return {DOCS / "methods.md": methods(), DOCS / "zoo.md": page()}


def write_pages() -> None:
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")


def gather() -> None:
    """Copy what the site shows to build/pages."""
    shutil.rmtree(PAGES, ignore_errors=True)
    PAGES.mkdir(parents=True)
    for pattern in COPIED:
        for file in ROOT.glob(pattern):
            shutil.copy(file, PAGES / file.name)
    shutil.move(PAGES / "README.md", PAGES / "index.md")
    for folder in ("docs", "experiments", "notebooks"):
        left_out = shutil.ignore_patterns("site.py", "__pycache__")
        shutil.copytree(ROOT / folder, PAGES / folder, ignore=left_out)
    for file in PAGES.rglob("*.md"):  # the first page is index.md in the site, and README.md here
        text = file.read_text(encoding="utf-8")
        top = "../" * (len(file.relative_to(PAGES).parts) - 1)
        file.write_text(text.replace(f"]({top}README.md", f"]({top}index.md"), encoding="utf-8")
        for place in re.findall(r"\]\(([^)#\s:]+)\)", text):
            target = (file.parent / place).resolve()
            if not target.exists() and (source := ROOT / target.relative_to(PAGES.resolve())).is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)  # source code that a page shows


def build() -> int:
    write_pages()
    gather()
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    return subprocess.run(command, cwd=ROOT).returncode


if __name__ == "__main__":
    if sys.argv[1:] == ["pages"]:
        write_pages()
    elif sys.argv[1:] == ["build"]:
        raise SystemExit(build())
    else:
        raise SystemExit("usage: python docs/site.py pages|build")
