"""`heronry corpora`: list the corpora of params.yaml, or describe one by its card."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from features.corpus.card import facts
from features.corpus.entry import PACKAGE, CorpusEntry, corpus_entry
from features.corpus.labels_folder import read_card
from features.corpus.targets import target_facts
from features.errors import HeronryError, ParamsError
from features.process.terminal import aligned
from features.settings.locations import corpus_root, root_variable
from features.settings.plugins import load
from pipeline.params.catalogue.entries import known_entry
from pipeline.params.file import Params, read_params
from pipeline.storage.dvc_command import PREPARE

SHOWN_FOLDS = 5
LISTED = 20  # differences and reasons that are printed
_NONE = "-"
_COLUMNS = ("corpus", "kind", "prepared", "root", "utterances", "classes", "hours", "protocol")


def corpora(name: str | None) -> None:
    """List the corpora of params.yaml, or print the card of one."""
    params = read_params(Path("params.yaml"))
    for line in overview(params) if name is None else describe(params, name):
        typer.echo(line)


def overview(params: Params) -> list[str]:
    """A line for each entry of `corpora`, below a header."""
    return aligned([_COLUMNS, *(_row(params, name) for name in params.corpora)])


def describe(params: Params, name: str) -> list[str]:
    """The card of a corpus; of one that is not prepared, what its adapter knows without data.

    Raises:
        HeronryError: If there is no such entry, or it or its card is wrong.
    """
    entry = corpus_entry(name, known_entry("corpora", params.corpora, name), params.corpora)
    path = _card_path(name)
    card = read_card(path) if path.exists() else _known(entry)
    lines = [f"{name}: {card.get('title')}", "", *aligned(_facts(entry, card, path))]
    lines += _listed("Differences from the published counts", card.get("differences"))
    lines += _listed("Rejected", _reasons(card, "rejected"))
    lines += _listed("Used with a notice", _reasons(card, "noticed"))
    lines += _listed("Warnings", card.get("warnings"))
    lines += _listed("Leaks between the splits", card.get("leaks"))
    for fold, counts in enumerate((card.get("counts") or [])[:SHOWN_FOLDS]):
        lines += ["", f"Fold {fold}", *_indented(aligned(_fold(card, fold, counts)))]
    more = int(card.get("folds", 0)) - SHOWN_FOLDS
    return lines + ([f"and {more} more folds, in {path}"] if more > 0 else [])


def _row(params: Params, name: str) -> list[str]:
    mapping = params.corpora[name]
    kind = str(mapping.get("kind", name)) if isinstance(mapping, Mapping) else _NONE
    try:
        entry = corpus_entry(name, mapping, params.corpora)
    except HeronryError:
        return [name, kind, "wrong entry: heronry check"]
    path = _card_path(name)
    try:
        card = read_card(path) if path.exists() else {}
        prepared = "yes" if card else "no"
    except HeronryError:
        card, prepared = {}, "unreadable"
    durations = card.get("durations")
    return [
        *(name, kind, prepared, _root(entry)),
        str(_size(card)) if card else _NONE,
        str(len(card["classes"])) if "classes" in card else _NONE,
        f"{durations['total'] / 3600:.2f}" if durations else _NONE,
        entry.protocol,
    ]


def _size(card: Mapping[str, Any]) -> int:
    """Labelled utterances."""
    return int(card.get("utterances", 0))


def _root(entry: CorpusEntry) -> str:
    if entry.members:
        lacking = [_root(each) for each in entry.members if not each.generated]
        return next((text for text in lacking if text != "found"), "those of its members")
    if entry.generated:
        return "generated"
    try:
        corpus_root(entry.name)
    except ParamsError:
        return f"set {root_variable(entry.name)}"
    return "found"


def _known(entry: CorpusEntry) -> dict[str, Any]:
    """Facts that the adapter knows without data."""
    factory = load(PACKAGE, entry.kind)
    with tempfile.TemporaryDirectory() as nothing:
        try:
            corpus = factory(Path(nothing), **entry.options)
            return {**facts(corpus), "classes": list(corpus.classes)}
        except (HeronryError, OSError):  # it needs its table or folders
            return dict(vars(factory.source))


def _facts(entry: CorpusEntry, card: Mapping[str, Any], path: Path) -> Iterator[tuple[str, str]]:
    yield "kind", entry.kind
    for key in ("licence", "citation", "obtain", "disclaimer"):
        if card.get(key):
            yield key, str(card[key])
    todo = f"no: dvc repro {PREPARE.format(corpus=entry.name)}"
    yield "prepared", f"yes, {path.parent}" if path.exists() else todo
    yield "root", _root(entry)
    folds = f", {card['folds']} folds" if card.get("folds", 1) > 1 else ""
    folds += f", fold {card['fold']} alone" if "fold" in card else ""
    yield "protocol", f"{card.get('protocol', entry.protocol)}{folds}"
    if entry.allow_leak:
        yield "allowed leaks", ", ".join(entry.allow_leak)
    yield from _label_facts(card)
    yield from _audio_facts(card)


def _label_facts(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if card.get("variant"):
        yield "variant", str(card["variant"])
    if card.get("label_map"):
        pairs = (f"{own} -> {name or 'left out'}" for own, name in card["label_map"].items())
        yield "label map", ", ".join(pairs)
    if card.get("classes"):
        yield "classes", ", ".join(card["classes"])
    if card.get("targets"):
        yield from target_facts(card["targets"])
    if card.get("scripted"):
        yield "scripted", "yes: a model of the text alone must sit at chance"
    published = card.get("published")
    if published:
        source = f" ({published['source']})" if published.get("source") else ""
        yield "published", f"{published['utterances']} utterances{source}"
        for name, counts in published["by"].items():
            yield f"  by {name}", _counts(counts)
        for note in published["notes"]:
            yield "  note", note
    if "counts" in card:
        listed = (f"{card.get(key, 0)} {key}" for key in ("rejected", "noticed"))
        yield "available", f"{_size(card)} labelled utterances, {', '.join(listed)}"


def _counts(counts: Mapping[str, int]) -> str:
    """All counts, or their number and range if there are many."""
    if len(counts) > LISTED:
        return f"{len(counts)} of them, {min(counts.values())} to {max(counts.values())} each"
    return ", ".join(f"{value} {count}" for value, count in counts.items())


def _audio_facts(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    durations = card.get("durations")
    if durations:
        yield "hours", f"{durations['total'] / 3600:.2f}"
        statistics = (f"{name} {durations[name]:.2f} s" for name in ("min", "median", "max"))
        yield "durations", ", ".join(statistics)
    for key, unit in (("sample_rates_hz", "Hz"), ("channels", "channels")):
        counts = (f"{value} {unit}: {n} files" for value, n in (card.get(key) or {}).items())
        if card.get(key):
            yield key.removesuffix("_hz").replace("_", " "), ", ".join(counts)


def _fold(
    card: Mapping[str, Any], fold: int, counts: Mapping[str, Mapping[str, int]]
) -> Iterator[list[str]]:
    """Rows of a fold's table: classes, their sum, speakers by gender, hours; a column a split."""

    def row(name: str, values: Iterable[object]) -> list[str]:
        return [name, *map(str, values)]

    def of_fold(key: str) -> Mapping[str, Any]:
        given = card.get(key) or []
        return given[fold] if fold < len(given) else {}

    splits = list(counts)
    yield row("", splits)
    for name in card["classes"]:
        yield row(name, (counts[split].get(name, 0) for split in splits))
    if card["classes"]:
        yield row("all", (sum(counts[split].values()) for split in splits))
    for name, of in ((card.get("targets") or {}).get("attributes") or {}).items():
        yield row(f"{name} known", (of["known"][fold].get(split, 0) for split in splits))
    yield row("speakers", (of_fold("speakers").get(split, _NONE) for split in splits))
    genders = of_fold("genders")
    for gender in dict.fromkeys(name for held in genders.values() for name in held):
        yield row(f"  {gender}", (genders[split].get(gender, 0) for split in splits))
    if card.get("durations"):
        seconds = of_fold("seconds")
        yield row("hours", (f"{seconds.get(split, 0.0) / 3600:.2f}" for split in splits))


def _listed(title: str, found: Sequence[str] | None) -> list[str]:
    if not found:
        return []
    more = [f"and {len(found) - LISTED} more"] if len(found) > LISTED else []
    return ["", title, *_indented([*found[:LISTED], *more])]


def _reasons(card: Mapping[str, Any], key: str) -> list[str]:
    """A line for each reason: the number of utterances, and the first of them."""
    ids = card.get(f"{key}_ids") or {}
    return [
        f"{count}: {reason}" + (f" ({', '.join(ids[reason])})" if reason in ids else "")
        for reason, count in (card.get(f"{key}_reasons") or {}).items()
    ]


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _card_path(name: str) -> Path:
    return Path("data", name, "labels", "card.json")
