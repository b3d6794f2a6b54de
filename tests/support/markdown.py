"""Code blocks of the documentation, each with what the comment above it says of running it.

    <!-- file: pipeline/fusion/x.py -->     the block is that file of the project
    <!-- entry: models -->                  the block is an entry of that section of params.yaml
    <!-- commands: why -->                  not run; its heronry commands exist, with their options
    <!-- run by: tests/system/test_x.py --> that test runs it
    <!-- not run: why -->                   nothing holds it

A block without such a comment is run as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt

from tests.support.paths import ROOT

MARKS = ("file", "entry", "commands", "run by", "not run")
_MARK = re.compile(rf"<!-- ({'|'.join(MARKS)}): (.+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Path from the project's root.
        line: Line of the opening fence, from 1.
        language: First word after the fence; empty where there is none.
        code: Lines between the fences.
        mark: Word of the comment above it, one of `MARKS`; None: the block is run.
        words: What the comment says after it.
    """

    page: str
    line: int
    language: str
    code: str
    mark: str | None = None
    words: str = ""

    @property
    def place(self) -> str:
        """`page:line`, for messages."""
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """README and the pages of docs/, as paths from the project's root."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def blocks_of(page: str) -> list[Block]:
    """Blocks of a page, in order."""
    return list(blocks_in((ROOT / page).read_text(encoding="utf-8"), page))


def blocks_in(text: str, page: str) -> Iterator[Block]:
    """Blocks of a Markdown text."""
    above: re.Match[str] | None = None
    for token in MarkdownIt().parse(text):
        if token.type == "html_block":
            above = _MARK.fullmatch(token.content.strip())
            continue
        if token.type == "fence":
            assert token.map is not None
            mark, words = above.groups() if above else (None, "")
            language = token.info.partition(" ")[0]
            yield Block(page, token.map[0] + 1, language, token.content, mark, words)
        above = None


def code_in_lines(page: str) -> list[str]:
    """Code within the lines of a page, between backticks."""
    tokens = MarkdownIt().enable("table").parse((ROOT / page).read_text(encoding="utf-8"))
    inside = [child for token in tokens for child in token.children or ()]
    return [child.content for child in inside if child.type == "code_inline"]
