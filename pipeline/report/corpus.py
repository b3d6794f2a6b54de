"""The report's section on the corpus: what it is, what of it was at hand, and how it was split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from features.corpus.leak_gate import read_leaks
from pipeline.evaluation.run_folder import RunFolder
from pipeline.html.format import NONE, many
from pipeline.html.markup import Markup, element, facts, folded, quiet, table

_LEAKS_LISTED = 20
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
    listed = [element("li", line) for line in leaks.harmful[:_LEAKS_LISTED]]
    lines = [element("ul", *listed)] if listed else []
    yield element("div", f"{told} Scores may be flattered.", *lines, style="warning")


def leaks_of(leaks: Leaks) -> Iterator[Markup]:
    """The verdict at length."""
    yield from leak_warning(leaks)
    shown = {line for line in leaks.harmful[:_LEAKS_LISTED] if leaks.allowed}
    others = [line for line in leaks.lines or () if line not in shown]
    if others:
        yield element("ul", *(element("li", line) for line in others[:_LEAKS_LISTED]))
    if len(others) > _LEAKS_LISTED:
        yield quiet(f"and {len(others) - _LEAKS_LISTED} more")


_TOLD = ("title", "licence", "citation", "obtain", "kind", "variant", "protocol", "folds")
_LISTED = 20


def corpus_of(card: Mapping[str, Any], leaks: Leaks) -> Iterator[Markup]:
    """All of card.json that a reader may ask for; what it lacks is a dash."""
    told: dict[str, object] = {name: _or_dash(card.get(name)) for name in ("corpus", *_TOLD)}
    if "fold" in card:
        told["folds"] = f"fold {card['fold']} alone"
    told |= dict(_audio(card))
    told["splits (SHA-256)"] = element("code", _or_dash(card.get("splits_sha256")))
    told["rejected"] = _or_dash(card.get("rejected"))
    told["noticed"] = _or_dash(card.get("noticed"))
    told["leaks between splits"] = leaks.verdict
    yield facts(told)
    yield from _warnings(card.get("warnings") or [])
    yield from leaks_of(leaks)
    yield from _published(card)
    yield from _tables(card)
    yield from _label_map(card)
    yield from _splits(card)
    yield from _reasons("Rejected utterances", card, "rejected")
    yield from _reasons("Utterances used with a notice", card, "noticed")


def _warnings(lines: Sequence[str]) -> Iterator[Markup]:
    if lines:
        yield element("p", "What is odd about the corpus as it was prepared:", style="note")
        yield element("ul", *(element("li", line) for line in lines[:_LISTED]))
    if len(lines) > _LISTED:
        yield quiet(f"and {len(lines) - _LISTED} more, in card.json")


def _tables(card: Mapping[str, Any]) -> Iterator[Markup]:
    tables = card.get("tables") or {}
    if tables:
        rows = [[name, element("code", sha256)] for name, sha256 in list(tables.items())[:_LISTED]]
        more = f", {_LISTED} of {len(tables)}" if len(tables) > _LISTED else ""
        title = f"Tables that the labels came from{more}"
        yield folded(title, table(["Table", "SHA-256"], rows, style="words", caption=title))


def _reasons(what: str, card: Mapping[str, Any], key: str) -> Iterator[Markup]:
    reasons, ids = card.get(f"{key}_reasons") or {}, card.get(f"{key}_ids") or {}
    if reasons:
        rows = [
            [reason, f"{count:,}", ", ".join(ids.get(reason, ()))]
            for reason, count in list(reasons.items())[:_LISTED]
        ]
        header = ["Reason", "Utterances", "Such as"]
        yield folded(f"{what}, by reason", table(header, rows, style="words", caption=what))
        if len(reasons) > _LISTED:
            yield quiet(f"and {len(reasons) - _LISTED} more reasons, in {key}.csv of the labels")


def _audio(card: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    lengths = card.get("durations") or {}
    if lengths:
        hours = f"{lengths['total'] / 3600:.2f} hours"
        seconds = " / ".join(f"{lengths[name]:.2f}" for name in ("min", "median", "max"))
        yield "audio", f"{hours}; shortest, median, longest: {seconds} s"
    for name, key, unit in (
        ("sample rates", "sample_rates_hz", " Hz"),
        ("channels", "channels", ""),
    ):
        counts = card.get(key) or {}
        if counts:
            yield (
                name,
                ", ".join(f"{value}{unit} ({many(n, 'file')})" for value, n in counts.items()),
            )


def _published(card: Mapping[str, Any]) -> Iterator[Markup]:
    published, differences = card.get("published"), card.get("differences") or []
    if not published:
        yield quiet("No published counts of this corpus are known to compare with.")
        return
    source = f"{published.get('utterances', 0):,} utterances, {published.get('source', '')}"
    if not differences:
        yield element("p", f"All counts are the published ones ({source}).")
    else:
        yield element("p", f"Counts that differ from the published ones ({source}):", style="note")
        yield element("ul", *(element("li", line) for line in differences[:_LISTED]))
        if len(differences) > _LISTED:
            yield quiet(f"and {len(differences) - _LISTED} more, in card.json")
    notes = published.get("notes") or []
    if notes:
        yield element("ul", *(element("li", note) for note in notes), style="quiet")


def _label_map(card: Mapping[str, Any]) -> Iterator[Markup]:
    mapping = card.get("label_map")
    if mapping:
        rows = [[name, "left out" if to is None else to] for name, to in mapping.items()]
        whole = table(["Label of the corpus", "Class"], rows, style="words", caption="Label map")
        yield folded("Label map", whole)


def _splits(card: Mapping[str, Any]) -> Iterator[Markup]:
    counts = card.get("counts") or []
    for fold, by_split in enumerate(counts):
        whole = _counts(card, fold, by_split)
        yield whole if len(counts) == 1 else folded(f"Utterances of fold {fold}", whole)


def _counts(
    card: Mapping[str, Any], fold: int, by_split: Mapping[str, Mapping[str, int]]
) -> Markup:
    splits = list(by_split)
    rows: list[list[object]] = [
        [name, *(f"{by_split[split].get(name, 0):,}" for split in splits)]
        for name in card["classes"]
    ]
    rows.append(["all utterances", *(f"{sum(by_split[s].values()):,}" for s in splits)])
    for title, key in (("speakers", "speakers"), ("hours", "hours")):
        values = _of_fold(card.get(key), fold)
        if values:
            rows.append([title, *(_or_dash(values.get(split)) for split in splits)])
    genders = _of_fold(card.get("genders"), fold)
    names = dict.fromkeys(name for of in genders.values() for name in of)
    rows += [
        [f"speakers, {name}", *(genders.get(split, {}).get(name, 0) for split in splits)]
        for name in names
    ]
    return table(["Class", *splits], rows, caption=f"Labelled utterances of fold {fold}")


def _of_fold(folds: Any, fold: int) -> Mapping[str, Any]:
    return folds[fold] if folds and fold < len(folds) else {}


def _or_dash(value: object) -> object:
    return NONE if value is None or value == "" else value
