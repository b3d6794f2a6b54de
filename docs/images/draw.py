"""Pictures of README and docs: `python docs/images/draw.py`, from the project's folder.

They show the report in reports/, what `heronry board` prints, and the stages of `dvc dag evaluate`
(edges that other edges imply are left out). Chromium draws them; a palette makes the files small.
"""

from __future__ import annotations

import html
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
REPORT = Path("reports/index.html")
MOST_BYTES = 150_000
COLOURS = 48
WIDTH = 1240  # pixels of a page
BOX_WIDTH, BOX_HEIGHT, ACROSS, DOWN = 184, 58, 56, 22  # pixels of a stage and between stages
BOARD = """<!DOCTYPE html><meta charset="utf-8"><style>body { margin: 0; padding: 18px 22px;
background: #14181e; color: #e4e8ee; font: 14px/1.5 "DejaVu Sans Mono", monospace }
pre { margin: 0; font: inherit } b { color: #62cf96; font-weight: 400 }</style>"""
STAGES = """<!DOCTYPE html><meta charset="utf-8"><style>body { margin: 0; background: #fff }
text { font: 14px system-ui, "DejaVu Sans", sans-serif; fill: #1c2430; text-anchor: middle }
.name { font-weight: 650 } .of { font-size: 12px; fill: #566070 }
rect { fill: #f4f6f9; stroke: #1f5fa8; stroke-width: 1.5 }
path { fill: none; stroke: #566070; stroke-width: 1.5 }</style>"""


def main() -> None:
    """Draw the pictures, and refuse one that is too large for a page."""
    pictures = {
        "report": (REPORT.read_text(encoding="utf-8"), WIDTH, 900),
        "board": board(),
        "stages": stages(),
    }
    for name, (page, width, height) in pictures.items():
        path = HERE / f"{name}.png"
        draw(page, width, height, path)
        size = path.stat().st_size
        if size > MOST_BYTES:
            sys.exit(f"{path}: {size} bytes; expected at most {MOST_BYTES}")


def draw(page: str, width: int, height: int, path: Path) -> None:
    """Write a picture of the top of an HTML page."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "page.html"), Path(folder, "page.png")
        source.write_text(page, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += [f"--user-data-dir={folder}/profile", f"--window-size={width},{height}"]
        command = ["chromium", *options, f"--screenshot={target}", source.as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        image = Image.open(target).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        image.save(path, optimize=True)


def board() -> tuple[str, int, int]:
    """A page with the output of `heronry board`, its width and height."""
    command = [sys.executable, "-m", "pipeline", "board"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip()
    lines = ["$ heronry board", *text.splitlines()]
    typed, *printed = map(html.escape, lines)
    body = "\n".join((f"<pre><b>{typed}</b>", *printed)) + "</pre>"
    # a letter of 14 pixels is 8.43 wide, a line 21 high
    return BOARD + body, 46 + int(8.44 * max(map(len, lines))), 36 + 21 * len(lines)


def stages() -> tuple[str, int, int]:
    """A page with the stages that `dvc dag evaluate` names, from left to right."""
    command = ["dvc", "dag", "evaluate", "--dot"]
    dot = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    before: dict[str, set[str]] = {name: set() for name in re.findall(r'^"([^"]+)";', dot, re.M)}
    for first, second in re.findall(r'^"([^"]+)" -> "([^"]+)"', dot, re.M):
        before[second].add(first)
    depth = {name: depth_of(name, before) for name in before}
    columns = [sorted(n for n in before if depth[n] == d) for d in range(1 + max(depth.values()))]
    tallest = max(map(len, columns))
    width = len(columns) * (BOX_WIDTH + ACROSS) - ACROSS + 40
    height = tallest * (BOX_HEIGHT + DOWN) - DOWN + 40
    corners = {}
    for column, names in enumerate(columns):
        top = (height - len(names) * (BOX_HEIGHT + DOWN) + DOWN) / 2
        for row, name in enumerate(names):
            corners[name] = (20 + column * (BOX_WIDTH + ACROSS), top + row * (BOX_HEIGHT + DOWN))
    arrow = '<marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"'
    parts = [
        f'<defs>{arrow} orient="auto"><path d="M0 0L8 4L0 8" stroke-width="1"/></marker></defs>'
    ]
    for second, sources in before.items():
        implied = {above for first in sources for above in ancestors(first, before)}
        parts += [edge(corners[first], corners[second]) for first in sorted(sources - implied)]
    parts += [box(name, *corner) for name, corner in corners.items()]
    svg = f'<svg width="{width}" height="{height}">{"".join(parts)}</svg>'
    return STAGES + svg, width, height


def depth_of(name: str, before: dict[str, set[str]]) -> int:
    """Number of stages on the longest way to a stage."""
    return max((1 + depth_of(first, before) for first in before[name]), default=0)


def ancestors(name: str, before: dict[str, set[str]]) -> set[str]:
    """All stages that a stage waits for."""
    return before[name].union(*(ancestors(first, before) for first in before[name]))


def edge(start: tuple[float, float], end: tuple[float, float]) -> str:
    """A curve with an arrow from one box to another."""
    x, y = start[0] + BOX_WIDTH, start[1] + BOX_HEIGHT / 2
    to_x, to_y = end[0] - 2, end[1] + BOX_HEIGHT / 2
    middle = (x + to_x) / 2
    curve = f"M{x} {y}C{middle} {y} {middle} {to_y} {to_x} {to_y}"
    return f'<path d="{curve}" marker-end="url(#a)"/>'


def box(name: str, x: float, y: float) -> str:
    """A box with a stage's name, and below it what it is for, without the file that defines it."""
    title, _, of = name.rpartition(":")[2].partition("@")
    middle = x + BOX_WIDTH / 2
    lines = [f'<text class="name" x="{middle}" y="{y + (25 if of else 34)}">{title}</text>']
    lines += [f'<text class="of" x="{middle}" y="{y + 44}">{of}</text>'] if of else []
    frame = f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="7"/>'
    return frame + "".join(lines)


if __name__ == "__main__":
    main()
