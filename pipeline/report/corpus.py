"""What the page says about the corpus, from its card.json: leaks, audio, labels by split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from features.corpus.leak_gate import read_leaks
from pipeline.evaluation.run_folder import RunFolder
from pipeline.html.format import dash, duration, quantity

LISTED = 20
"""Entries of a list that are shown."""
_HARMLESS = "sentence"  # kind of leak that is reported and never refused


@dataclass(frozen=True)
class Leaks:
    """Leaks between the splits.

    Attributes:
        allowed: Kinds that params.yaml allows.
        lines: What was found, for people; None if nobody looked.
        source: When it was looked for.
    """

    allowed: tuple[str, ...]
    lines: tuple[str, ...] | None
    source: str

    @classmethod
    def of(cls, run: RunFolder, card: Mapping[str, Any]) -> Self:
        """Leaks that the run was trained in spite of, else those that `prepare` found."""
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
    def unwarned(self) -> tuple[str, ...]:
        """Lines that the warning at the top of the page does not show."""
        shown = self.harmful[:LISTED] if self.allowed else ()
        return tuple(line for line in self.lines or () if line not in shown)

    @property
    def verdict(self) -> str:
        """The result in a few words."""
        if self.lines is None:
            return "not stated"
        return f"{len(self.lines)} found, {self.source}" if self.lines else "none found"


def audio_facts(card: Mapping[str, Any]) -> dict[str, str]:
    """Durations, sample rates and channels, as far as the card has them."""
    facts = {}
    lengths = card.get("durations") or {}
    if lengths:
        seconds = " / ".join(f"{lengths[name]:.2f}" for name in ("min", "median", "max"))
        facts["audio"] = f"{duration(lengths['total'])}; shortest, median, longest: {seconds} s"
    for name, key, unit in (
        ("sample rates", "sample_rates_hz", " Hz"),
        ("channels", "channels", ""),
    ):
        counts = card.get(key) or {}
        if counts:
            files = (f"{value}{unit} ({quantity(n, 'file')})" for value, n in counts.items())
            facts[name] = ", ".join(files)
    return facts


def label_counts(card: Mapping[str, Any], fold: int) -> list[list[object]]:
    """Rows of a fold's table: classes, all of them, speakers, hours, speakers by gender."""
    by_split = card["counts"][fold]
    rows: list[list[object]] = [
        [name, *(f"{of.get(name, 0):,}" for of in by_split.values())] for name in card["classes"]
    ]
    rows.append(["all utterances", *(f"{sum(of.values()):,}" for of in by_split.values())])
    speakers, hours = (_of_fold(card.get(key), fold) for key in ("speakers", "hours"))
    if speakers:
        rows.append(["speakers", *(dash(speakers.get(split)) for split in by_split)])
    if hours:
        lengths = (hours.get(split) for split in by_split)
        rows.append(
            ["audio", *(dash(None if each is None else duration(3600 * each)) for each in lengths)]
        )
    genders = _of_fold(card.get("genders"), fold)
    # a gender may occur in one split alone
    for name in dict.fromkeys(name for of in genders.values() for name in of):
        counts = (genders.get(split, {}).get(name, 0) for split in by_split)
        rows.append([f"speakers, {name}", *counts])
    return rows


def _of_fold(folds: Any, fold: int) -> Mapping[str, Any]:
    return folds[fold] if folds and fold < len(folds) else {}
