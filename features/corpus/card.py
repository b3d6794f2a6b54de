"""The corpus card, `card.json`: what a corpus is, what of it is at hand, and how it is split.

Layout: docs/design.md. Training and the report read it; `python -m pipeline corpora NAME` prints
it.
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
from features.corpus.leaks import Leak, lines
from features.corpus.split_counts import (
    count_classes,
    count_genders,
    count_speakers,
    splits_sha256,
    sum_seconds,
)
from features.corpus.survey import Survey
from features.files.reasons import group_reasons

IDS = 5  # of each reason that the card names
PARTIAL = 0.9  # share of the published utterances below which single counts say nothing


def make_card(
    name: str,
    entry: CorpusEntry,
    corpus: Corpus,
    survey: Survey,
    splits: Sequence[tuple[str, ...]],
    leaks: Sequence[Leak],
) -> dict[str, Any]:
    """Content of `card.json`.

    Args:
        name: The corpus.
        entry: Its entry in params.yaml.
        corpus: Its adapter.
        survey: What of it can be used.
        splits: Of each labelled utterance, one split per fold.
        leaks: What crosses them.
    """
    counts = count_classes(survey.labelled, splits, corpus.classes)
    return {
        "corpus": name,
        "kind": entry.kind,
        **facts(corpus),
        "classes": list(corpus.classes),
        "protocol": entry.protocol,
        "split_seed": entry.split_seed,
        "folds": len(splits[0]),
        **({} if entry.fold is None else {"fold": entry.fold}),  # the only one
        "splits_sha256": splits_sha256(survey.labelled, splits),
        "differences": differences(survey.labelled, getattr(corpus, "published", None)),
        "counts": counts,
        **_contents(survey, splits),
        "rejected": len(survey.rejected),
        **_by_reason("rejected", survey.causes.items()),
        "noticed": len(survey.notices),
        **_by_reason(
            "noticed", ((id, told) for id, notices in survey.notices.items() for told in notices)
        ),
        "similar_classes": [list(pair) for pair in similar_classes(corpus.classes)],
        "lacking": lacking_classes(counts),
        "contradictions": len(contradictions(survey.labelled, survey.spans)),
        "warnings": [
            *survey.warnings,
            *split_lines(survey.labelled, entry.protocol),
            *label_lines(survey.labelled, counts, survey.spans),
        ],
        "allow_leak": list(entry.allow_leak),
        "leaks": lines(leaks, scripted=bool(getattr(corpus, "scripted", False))),
        "leak_verdict": [leak.to_dict() for leak in leaks],
    }


def facts(corpus: Corpus) -> dict[str, Any]:
    """What an adapter says of its corpus, whether the data is there or not; None where nothing."""
    published: Published | None = getattr(corpus, "published", None)
    label_map: Mapping[str, str | None] | None = getattr(corpus, "label_map", None)
    return {
        **dataclasses.asdict(corpus.source),
        "disclaimer": getattr(corpus, "disclaimer", None),
        "scripted": bool(getattr(corpus, "scripted", False)),
        "variant": getattr(corpus, "variant", None),
        "label_map": None if label_map is None else dict(label_map),
        "published": None if published is None else _plain(published),
    }


def differences(labelled: Sequence[Item], published: Published | None) -> list[str]:
    """One line for each count at hand that differs from the published one.

    A copy with fewer than `PARTIAL` of the utterances is said to be one, in a single line.
    """
    if published is None:
        return []
    found, whole = len(labelled), published.utterances
    if found < PARTIAL * whole:
        return [f"partial copy: {found} of {whole}"]
    told = [] if found == whole else [f"utterances: {found} of {whole}"]
    for name, wanted in published.by.items():
        values = (getattr(item, name) for item in labelled)
        had = Counter(str(value) for value in values if value is not None)
        for value in {**wanted, **had}:
            if value not in wanted:
                told.append(f"{name} {value}: {had[value]}, none published")
            elif not had[value] and wanted[value]:
                told.append(f"{name} {value}: missing")
            elif had[value] != wanted[value]:
                told.append(f"{name} {value}: {had[value]} of {wanted[value]}")
    return told


def _by_reason(what: str, told: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """How many utterances have each reason, and the ids of the first of them."""
    grouped = group_reasons(told)
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
    """Of the labelled utterances that have audio, in seconds."""
    if not seconds:
        return None
    told = {
        "total": sum(seconds),
        "min": min(seconds),
        "median": statistics.median(seconds),
        "max": max(seconds),
    }
    return {name: round(value, 3) for name, value in told.items()}


def _counted(values: Iterable[int]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _plain(published: Published) -> dict[str, Any]:
    """As JSON reads it back."""
    by = {name: dict(counts) for name, counts in published.by.items()}
    return {
        "utterances": published.utterances,
        "by": by,
        "source": published.source,
        "notes": list(published.notes),
    }
