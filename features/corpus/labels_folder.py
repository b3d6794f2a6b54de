"""Read and validate `data/<corpus>/labels`: labels.jsonl and card.json.

Readers may rely on the fields of `Card` only. The two files are compared with each other, so that
an edit of one of them is reported and changes no result unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NoReturn

from features.arguments import Record
from features.corpus.adapter import Published, Target
from features.corpus.leaks import Leak, LeakKind
from features.corpus.manifest import SPLITS, Label, read_labels
from features.corpus.split_counts import count_classes, splits_sha256
from features.corpus.targets import row_faults
from features.errors import ManifestError
from features.files.reading import file_sha256
from features.files.records import read_record
from features.ranges import Amount, Count, MinLen

CARD, LABELS = "card.json", "labels.jsonl"
AGAIN = "run `dvc repro`, or `python -m stages.prepare`, to prepare the corpus again"

Name = Annotated[str, MinLen(1)]
Counts = Mapping[str, Amount]


@dataclass(frozen=True)
class Durations(Record):
    """Durations of the labelled utterances that have audio, in seconds."""

    total: float
    min: float
    median: float
    max: float


@dataclass(frozen=True)
class AttributeCard(Record):
    """An attribute of a corpus.

    Attributes:
        low: Lowest value of its scale.
        high: Highest value of its scale.
        known: For each fold, utterances by split of which the value is known.
        mean: Mean of the known values of all utterances.
        sd: Their standard deviation, of the population.
    """

    low: float
    high: float
    known: Sequence[Counts]
    mean: float
    sd: float


@dataclass(frozen=True)
class VotesCard(Record):
    """Votes of a corpus: raters of an utterance, and the share of votes outside the classes."""

    raters_min: float
    raters_mean: float
    raters_max: float
    outside: float


@dataclass(frozen=True)
class TargetsCard(Record):
    """What there is to learn of a corpus that offers more than classes.

    Attributes:
        tasks: What the corpus entry asks for.
        attributes: Attributes by name.
        votes: Raters of the utterances with votes; None without votes.
        policies: What was done with utterances without agreement and the like.
        alpha: Krippendorff's alpha of the ratings, by what is rated; None where it is undefined.
    """

    tasks: Annotated[Sequence[Target], MinLen(1)]
    attributes: Mapping[Name, AttributeCard] = field(default_factory=dict)
    votes: VotesCard | None = None
    policies: Mapping[str, str] = field(default_factory=dict)
    alpha: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """Fields of card.json, which `features.corpus.card` makes; older cards may lack some."""

    classes: Sequence[Name]
    folds: Count
    corpus: str | None = None
    kind: str | None = None
    title: str | None = None
    licence: str | None = None
    citation: str | None = None
    obtain: str | None = None
    disclaimer: str | None = None
    scripted: bool = False
    variant: str | None = None
    label_map: Mapping[str, str | None] | None = None
    published: Published | None = None
    protocol: str | None = None
    split_seed: int = 0
    fold: int | None = None
    splits_sha256: str | None = None
    labels_sha256: str | None = None
    tables: Mapping[str, str] | None = None
    differences: Sequence[str] = ()
    utterances: Amount = 0
    counts: Sequence[Mapping[str, Counts]] = ()
    speakers: Sequence[Counts] = ()
    genders: Sequence[Mapping[str, Counts]] = ()
    seconds: Sequence[Mapping[str, float]] = ()
    hours: Sequence[Mapping[str, float]] = ()
    durations: Durations | None = None
    files: Amount = 0
    sample_rates_hz: Counts = field(default_factory=dict)
    channels: Counts = field(default_factory=dict)
    rejected: Amount = 0
    rejected_reasons: Counts = field(default_factory=dict)
    rejected_ids: Mapping[str, Sequence[str]] = field(default_factory=dict)
    noticed: Amount = 0
    noticed_reasons: Counts = field(default_factory=dict)
    noticed_ids: Mapping[str, Sequence[str]] = field(default_factory=dict)
    similar_classes: Sequence[Sequence[str]] = ()
    lacking: Sequence[Mapping[str, Sequence[str]]] = ()
    contradictions: Amount = 0
    warnings: Sequence[str] = ()
    allow_leak: Sequence[LeakKind] = ()
    leaks: Sequence[str] = ()
    leak_verdict: Sequence[Leak] = ()
    targets: TargetsCard | None = None  # of a corpus with more than classes


def read_card(path: Path) -> dict[str, Any]:
    """Read card.json, without filling in missing fields.

    Raises:
        ManifestError: If a field is missing, of another type, or contradicts another.
    """
    card = read_record(path, Card, AGAIN)

    def refuse(name: str, expected: str) -> NoReturn:
        raise ManifestError(f"{path}: {name}: given {card[name]!r}; expected {expected}: {AGAIN}")

    classes, folds = card["classes"], card["folds"]
    tasks = (card.get("targets") or {"tasks": ["classes"]})["tasks"]
    if len(classes) < 2 and tasks != ["attributes"]:
        refuse("classes", "two or more")
    if len(set(classes)) < len(classes):
        refuse("classes", "each once")
    for name in ("counts", "speakers", "genders", "seconds", "hours", "lacking"):
        parts = card.get(name) or []
        if parts and len(parts) != folds:
            refuse(name, f"an entry for each of the {folds} folds")
        if not {split for part in parts for split in part} <= set(SPLITS):
            refuse(name, f"splits among {list(SPLITS)}")
    for part in card.get("counts") or []:
        if not all(counts.keys() <= set(classes) for counts in part.values()):
            refuse("counts", f"classes among {classes}")
    return card


def read_labelled(folder: Path) -> tuple[dict[str, Any], list[Label]]:
    """Read card.json and labels.jsonl of `data/<corpus>/labels`.

    Raises:
        ManifestError: If a file is missing or malformed, or they contradict each other.
    """
    card, labels = read_card(folder / CARD), read_labels(folder)
    path = folder / LABELS
    for number, label in enumerate(labels, 1):
        if label.label is not None and label.label not in card["classes"]:
            raise ManifestError(
                f"{path}, line {number}: label {label.label!r} of {label.id!r}; expected one of "
                f"the classes of card.json, {card['classes']}: {AGAIN}"
            )
    _check_targets(path, card, labels)
    wrong = [label.id for label in labels if len(label.splits) != card["folds"]]
    if wrong:
        raise ManifestError(
            f"{path}: {len(wrong)} utterances have another number of splits than the "
            f"{card['folds']} folds of card.json, such as {wrong[:5]}: {AGAIN}"
        )
    _check_fit(path, card, labels)
    return card, labels


def _check_targets(path: Path, card: Mapping[str, Any], labels: Sequence[Label]) -> None:
    """Refuse targets that the card does not have, or that are off its scales."""
    targets = card.get("targets") or {}
    scales = {name: (of["low"], of["high"]) for name, of in targets.get("attributes", {}).items()}
    faults = list(row_faults(labels, card["classes"], scales))
    if faults:
        raise ManifestError(f"{path}: {faults[0]}, as in {CARD}: {AGAIN}")


def _check_fit(path: Path, card: Mapping[str, Any], labels: Sequence[Label]) -> None:
    """Refuse labels that differ from the card in their counts or hashes."""
    splits = [label.splits for label in labels]
    facts: dict[str, Any] = {"utterances": len(labels), "labels_sha256": file_sha256(path)}
    if card.get("splits_sha256"):
        facts["splits_sha256"] = splits_sha256(labels, splits)
    if card.get("counts"):
        facts["counts"] = count_classes(labels, splits, card["classes"])
    # Counts first, which say more to a reader than hashes.
    for name in ("utterances", "counts", "splits_sha256", "labels_sha256"):
        held = card.get(name)
        if held is not None and name in facts and _plain(held) != _plain(facts[name]):
            raise ManifestError(
                f"{path} does not fit {CARD}: {name} of the card is {_short(held)}, of the labels "
                f"{_short(facts[name])}; expected both as `prepare` wrote them: {AGAIN}"
            )


def _plain(value: Any) -> Any:
    """Counts without zeros, which older cards may leave out; other values unchanged."""
    if not isinstance(value, list):
        return value
    return [
        {split: held for split, of in fold.items() if (held := {k: n for k, n in of.items() if n})}
        for fold in value
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
