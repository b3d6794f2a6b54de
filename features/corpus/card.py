"""Make the corpus card, `card.json`: description, contents, splits and oddities of a corpus.

Layout: docs/design.md. Training and the report read it (`features.corpus.labels_folder`), and
`heronry corpora NAME` prints it.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from features.corpus.adapter import Corpus, Item, Published
from features.corpus.entry import CorpusEntry
from features.corpus.label_checks import (
    contradictions,
    label_lines,
    lacking_classes,
    similar_classes,
    split_lines,
)
from features.corpus.leaks import Leak, leak_lines
from features.corpus.ratings import Rating
from features.corpus.split_counts import (
    count_classes,
    count_genders,
    count_speakers,
    splits_sha256,
    sum_seconds,
)
from features.corpus.survey import Survey
from features.corpus.targets import classes_of, targets_card
from features.files.reasons import group_reasons

IDS = 5  # utterances that the card names for each reason
PARTIAL = 0.9  # share of the published utterances below which a copy is called partial


def make_card(
    entry: CorpusEntry,
    corpus: Corpus,
    survey: Survey,
    splits: Sequence[tuple[str, ...]],
    leaks: Sequence[Leak],
    ratings: Sequence[Rating] = (),
) -> dict[str, Any]:
    """Content of `card.json`.

    Args:
        entry: The corpus.
        corpus: Adapter of the corpus.
        survey: Usable and unusable items.
        splits: Splits of each labelled utterance, one per fold.
        leaks: Leaks between the splits.
        ratings: What each rater said of the labelled utterances.
    """
    targets = targets_card(corpus, entry.targets, survey.labelled, splits, ratings)
    classes = classes_of(corpus, entry.targets)
    counts = count_classes(survey.labelled, splits, classes)
    return {
        "corpus": entry.name,
        "kind": entry.kind,
        **facts(corpus),
        "classes": list(classes),
        "protocol": entry.protocol,
        "split_seed": entry.split_seed,
        "folds": len(splits[0]),
        **({} if entry.fold is None else {"fold": entry.fold}),  # the only fold
        "splits_sha256": splits_sha256(survey.labelled, splits),
        "differences": count_differences(
            [item for item in survey.labelled if item.label is not None],
            getattr(corpus, "published", None) if classes else None,
        ),
        "counts": counts,
        **_contents(survey, splits),
        "rejected": len(survey.rejected),
        **_by_reason("rejected", survey.causes.items()),
        "noticed": len(survey.notices),
        **_by_reason(
            "noticed", ((id, each) for id, notices in survey.notices.items() for each in notices)
        ),
        "similar_classes": [list(pair) for pair in similar_classes(classes)],
        "lacking": lacking_classes(counts),
        "contradictions": len(contradictions(survey.labelled, survey.spans)),
        "warnings": [
            *survey.warnings,
            *split_lines(survey.labelled, entry.protocol),
            *label_lines(survey.labelled, counts, survey.spans),
        ],
        "allow_leak": list(entry.allow_leak),
        "leaks": leak_lines(leaks, scripted=bool(getattr(corpus, "scripted", False))),
        "leak_verdict": [leak.to_dict() for leak in leaks],
        **({} if targets is None else {"targets": targets}),
    }


def facts(corpus: Corpus) -> dict[str, Any]:
    """Description of a corpus by its adapter, which needs no data; None for what it lacks."""
    published: Published | None = getattr(corpus, "published", None)
    label_map: Mapping[str, str | None] | None = getattr(corpus, "label_map", None)
    counts = published and dataclasses.asdict(published) | {"notes": list(published.notes)}
    return {
        **dataclasses.asdict(corpus.source),
        "disclaimer": getattr(corpus, "disclaimer", None),
        "scripted": bool(getattr(corpus, "scripted", False)),
        "variant": getattr(corpus, "variant", None),
        "label_map": None if label_map is None else dict(label_map),
        "published": counts,
    }


def count_differences(labelled: Sequence[Item], published: Published | None) -> list[str]:
    """Counts that differ from the published ones, one line each.

    For a copy with fewer than `PARTIAL` of the utterances, one line that says so.
    """
    if published is None:
        return []
    found, whole = len(labelled), published.utterances
    if found < PARTIAL * whole:
        return [f"partial copy: {found} of {whole}"]
    lines = [] if found == whole else [f"utterances: {found} of {whole}"]
    for name, wanted in published.by.items():
        values = (getattr(item, name) for item in labelled)
        had = Counter(str(value) for value in values if value is not None)
        for value in {**wanted, **had}:
            if value not in wanted:
                lines.append(f"{name} {value}: {had[value]}, none published")
            elif not had[value] and wanted[value]:
                lines.append(f"{name} {value}: missing")
            elif had[value] != wanted[value]:
                lines.append(f"{name} {value}: {had[value]} of {wanted[value]}")
    return lines


def _by_reason(what: str, reasons: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Number of utterances by reason, and the first ids of each; from pairs of id and reason."""
    grouped = group_reasons(reasons)
    return {
        f"{what}_reasons": {reason: len(ids) for reason, ids in grouped.items()},
        f"{what}_ids": {reason: ids[:IDS] for reason, ids in grouped.items()},
    }


def _contents(survey: Survey, splits: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    labelled, seconds = survey.labelled, survey.seconds
    known = [seconds[item.id] for item in labelled if item.id in seconds]
    by_split = sum_seconds(labelled, splits, seconds)
    return {
        "utterances": len(labelled),
        "speakers": count_speakers(labelled, splits),
        "genders": count_genders(labelled, splits),
        "seconds": by_split,
        "hours": [{split: round(s / 3600, 4) for split, s in fold.items()} for fold in by_split],
        "durations": _durations(known),
        "files": len(survey.facts),
        "sample_rates_hz": _counted(file.sample_rate_hz for file in survey.facts.values()),
        "channels": _counted(file.channels for file in survey.facts.values()),
    }


def _durations(seconds: Sequence[float]) -> dict[str, float] | None:
    """Statistics of durations; None without any."""
    if not seconds:
        return None
    statistic = {
        "total": sum(seconds),
        "min": min(seconds),
        "median": statistics.median(seconds),
        "max": max(seconds),
    }
    return {name: round(value, 3) for name, value in statistic.items()}


def _counted(values: Iterable[int]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}
