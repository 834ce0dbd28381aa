"""A report in a real browser: opened in frames of given widths, and asked there by a script."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FRAMES = """<!DOCTYPE html><meta charset="utf-8"><body>%(frames)s<pre id="answer"></pre><script>
const frames = Array.from(document.querySelectorAll("iframe"));
const ask = (frame, number) => { const page = frame.contentDocument, view = frame.contentWindow; %(script)s };
const ready = frame => { const root = frame.contentDocument && frame.contentDocument.documentElement;
  return root && (root.hasAttribute("data-drawn") || !frame.contentDocument.querySelector("[data-figure]")); };
let waited = 0;
const timer = setInterval(() => {
  if (!frames.every(ready) && ++waited < 200) return;
  clearInterval(timer);
  Promise.all(frames.map(ask)).then(answers => {
    document.getElementById("answer").textContent = "ANSWER" + JSON.stringify(answers) + "END"; });
}, 100);
</script>"""


@dataclass(frozen=True)
class Seen:
    """What a script answered in each frame, and what the browser's console said."""

    answers: list[Any]
    console: list[str]


def find_browser() -> str:
    """The path of a browser; skips the test where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed")
    return found


def open_page(frames: list[tuple[Path, str, int]], script: str, folder: Path) -> Seen:
    """Open pages, each a (file, #hash, width in pixels), and run `script`, which returns a value of JSON, in each.

    It knows `page`, the document, `view`, its window, and `number`, the place of the frame.
    """
    opened = "".join(
        f'<iframe src="{html.escape(file.resolve().as_uri() + fragment)}" style="width:{width}px;height:900px"></iframe>'
        for file, fragment, width in frames
    )
    outer = folder / "frames.html"
    outer.write_text(FRAMES % {"frames": opened, "script": script}, encoding="utf-8")
    command = [
        find_browser(), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--hide-scrollbars",
        "--allow-file-access-from-files", "--virtual-time-budget=20000", "--window-size=1400,1000", "--dump-dom",
        f"--user-data-dir={folder / 'browser'}", outer.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    start, end = done.stdout.find("ANSWER[") + len("ANSWER"), done.stdout.find("]END") + 1
    assert end > start > 5, done.stdout[-2000:] + done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Seen(json.loads(html.unescape(done.stdout[start:end])), lines)
