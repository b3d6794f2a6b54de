"""The page's files: one HTML document, its styles and its scripts, and nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.html.pages import SHARED

OWN = Path(__file__).parent / "templates"
# Files by path, and their type; the styles of all pages come before the page's own.
FILES: Mapping[str, tuple[str, tuple[Path, ...]]] = {
    "/": ("text/html", (OWN / "predict.html",)),
    "/style.css": ("text/css", (SHARED / "style.css", OWN / "predict.css")),
    "/page.js": ("text/javascript", (OWN / "page.js",)),
    "/draw.js": ("text/javascript", (OWN / "draw.js",)),
    "/sound.js": ("text/javascript", (OWN / "sound.js",)),
    "/recorder.js": ("text/javascript", (OWN / "recorder.js",)),
}


def page_files() -> dict[str, tuple[str, bytes]]:
    """Type and content of each file, by path."""
    return {
        path: (kind, b"".join(each.read_bytes() for each in places))
        for path, (kind, places) in FILES.items()
    }
