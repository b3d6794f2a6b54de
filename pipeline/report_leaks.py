"""The leak verdict on a page: what crosses the splits, and what was allowed to, in red."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from pipeline.leak_gate import read_leaks
from pipeline.report_html import Markup, element, quiet
from pipeline.runs import RunFolder

_LISTED = 20
_HARMLESS = "sentence"  # kind of leak that is reported and never refused


@dataclass(frozen=True)
class Leaks:
    """What is known about leaks.

    Attributes:
        allowed: Kinds that params.yaml allows.
        lines: What was found, for people; None if nobody looked.
        source: Who looked.
    """

    allowed: tuple[str, ...]
    lines: tuple[str, ...] | None
    source: str

    @classmethod
    def of(cls, run: RunFolder, card: Mapping[str, Any]) -> Self:
        """What the run was trained in spite of, else what `prepare` found."""
        found = read_leaks(run.path)
        if found is not None:
            return cls(tuple(found["allowed"]), tuple(found["lines"]), "when training began")
        lines = card.get("leaks")
        return cls(
            tuple(card.get("allow_leak") or ()),
            None if lines is None else tuple(lines),
            "when the corpus was prepared",
        )

    @property
    def harmful(self) -> tuple[str, ...]:
        """Lines on what flatters a score."""
        return tuple(line for line in self.lines or () if not line.startswith(f"{_HARMLESS}:"))

    @property
    def verdict(self) -> str:
        """In a few words."""
        if self.lines is None:
            return "not stated"
        return f"{len(self.lines)} found, {self.source}" if self.lines else "none found"


def leak_warning(leaks: Leaks) -> Iterator[Markup]:
    """What params.yaml allows to be shared between splits; in red, unless there is none of it."""
    if not leaks.allowed:
        return
    told = f"Leaks between the splits are allowed by params.yaml: {', '.join(leaks.allowed)}."
    if leaks.lines is not None and not leaks.harmful:
        yield element("p", f"{told} None was found.", style="note")
        return
    listed = [element("li", line) for line in leaks.harmful[:_LISTED]]
    lines = [element("ul", *listed)] if listed else []
    yield element("div", f"{told} Scores may be flattered.", *lines, style="warning")


def leaks_of(leaks: Leaks) -> Iterator[Markup]:
    """The verdict at length."""
    yield from leak_warning(leaks)
    shown = {line for line in leaks.harmful[:_LISTED] if leaks.allowed}
    others = [line for line in leaks.lines or () if line not in shown]
    if others:
        yield element("ul", *(element("li", line) for line in others[:_LISTED]))
    if len(others) > _LISTED:
        yield quiet(f"and {len(others) - _LISTED} more")
