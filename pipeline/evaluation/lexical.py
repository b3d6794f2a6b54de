"""Finds lexically neutral test utterances: those whose words do not decide the label.

HERON's claim is that audio helps where the text is lexically neutral or ambiguous. Two criteria:

- *ambiguous words*: the corpus has the same transcript, normalised, under two or more labels (all
  splits count; utterances that the label map leaves out do not). In a corpus of scripted sentences
  without transcripts the sentence stands for its words, so that all its utterances are ambiguous.
  A long spontaneous sentence hardly ever occurs twice, so this finds the short ones ("yeah").
- *neutral to a text probe*: the linear probe on the text slot (probes.csv) predicts the class named
  neutral in most seeds.

An utterance is lexically neutral if either holds.

Shapes: U test utterances.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from features.corpus.manifest import Label
from pipeline.evaluation.groups import Grouping, grouping
from pipeline.evaluation.rows import Flags, RunRows
from pipeline.runs.word_errors import TEXT, normalised

NEUTRAL = ("neutral", "neu")
"""Names of the class without emotion, in lower case."""


@dataclass(frozen=True)
class Lexical:
    """Lexically neutral test utterances.

    Attributes:
        neutral: `[U]` whether an utterance is lexically neutral; None without transcripts,
            sentences and text probe.
        groupings: Groupings by words, by text probe, and by both, as far as they are known.
    """

    neutral: Flags | None
    groupings: tuple[Grouping, ...]


def lexical(rows: RunRows, labels: Iterable[Label]) -> Lexical:
    """Find the lexically neutral test utterances.

    Args:
        rows: All test rows.
        labels: Labels of the whole corpus.
    """
    words, probe = _words(rows, labels), _probe(rows)
    known = [side for side in (words, probe) if side is not None]
    if not known:
        return Lexical(None, ())
    # None, unknown words, counts as not neutral
    neutral: Flags = np.any([[value is True for value in side] for side in known], axis=0)
    found = []
    if words is not None:
        found.append(grouping(rows, "words", _named(words, "ambiguous", "distinct")))
    if probe is not None:
        found.append(grouping(rows, "text_probe", _named(probe, "neutral", "emotional")))
    if words is not None and probe is not None:
        found.append(grouping(rows, "lexical", _named(neutral.tolist(), "neutral", "telling")))
    return Lexical(neutral, tuple(each for each in found if each is not None))


def _words(rows: RunRows, labels: Iterable[Label]) -> list[bool | None] | None:
    """Whether the words of each utterance have several labels; None where they are unknown."""
    meanings: defaultdict[str, set[str]] = defaultdict(set)
    for label in labels:
        key = _key(label)
        if key is not None and label.label is not None:
            meanings[key].add(label.label)
    keys = [_key(label) for label in rows.utterances]
    if all(key is None for key in keys):
        return None
    return [None if key is None else len(meanings[key]) > 1 for key in keys]


def _key(label: Label) -> str | None:
    if label.text is not None:
        return normalised(label.text)
    return None if label.sentence is None else f"sentence {label.sentence}"


def _probe(rows: RunRows) -> list[bool] | None:
    """Whether the text probe predicts neutral for each utterance in most seeds."""
    neutral = [k for k, name in enumerate(rows.classes) if name.lower() in NEUTRAL]
    if not neutral or not all(TEXT in job.probes for job in rows.jobs):
        return None
    votes = np.bincount(
        rows.utterance, rows.probe_predictions(TEXT) == neutral[0], minlength=len(rows.utterances)
    )
    times = np.bincount(rows.utterance, minlength=len(rows.utterances))
    return [bool(value) for value in 2 * votes > times]


def _named(flags: Sequence[bool | None], yes: str, no: str) -> list[str | None]:
    return [None if flag is None else yes if flag else no for flag in flags]
