"""The errors to listen to first: where most models agree, and are sure, and are wrong.

Often it is the label that is doubtful there, or the recording.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.rows import RunRows
from pipeline.metrics import Floats

SHOWN = 20


@dataclass(frozen=True)
class WorstError:
    """A test utterance that most seeds got wrong with great confidence.

    Attributes:
        id: The utterance.
        speaker: Who says it.
        label: True class.
        predicted: The wrong class with the highest mean probability.
        probability: That mean, over seeds.
        seeds_wrong: How many seeds' models were wrong (of `seeds`).
        seeds: How many predicted it.
        text: Transcript; None where unknown, as all below.
        audio: Path below the corpus root.
        start: Seconds into that file.
        stop: Seconds into that file.
    """

    id: str
    speaker: str
    label: str
    predicted: str
    probability: float
    seeds_wrong: int
    seeds: int
    text: str | None
    audio: str | None
    start: float | None
    stop: float | None


@dataclass(frozen=True)
class WorstErrors:
    """The worst errors, worst first, and how many utterances most seeds got wrong in all."""

    shown: tuple[WorstError, ...]
    total: int


def worst_errors(rows: RunRows, *, shown: int = SHOWN) -> WorstErrors:
    """Test utterances that more than half of the seeds got wrong, the surest first."""
    size = len(rows.utterances)
    times = np.bincount(rows.utterance, minlength=size)
    wrong = np.bincount(rows.utterance, rows.predictions != rows.labels, minlength=size)
    sums: Floats = np.zeros((size, len(rows.classes)))
    np.add.at(sums, rows.utterance, rows.probabilities)
    means = sums / times[:, None]
    means[rows.utterance, rows.labels] = -1
    found = np.flatnonzero(2 * wrong > times).tolist()
    ids = [rows.utterances[u].id for u in found]
    ranked = [u for _, _, u in sorted(zip(-means[found].max(1), ids, found, strict=True))]
    return WorstErrors(
        shown=tuple(_error(rows, u, means[u], int(wrong[u])) for u in ranked[:shown]),
        total=len(found),
    )


def _error(rows: RunRows, index: int, others: Floats, wrong: int) -> WorstError:
    """`others` `[K]`: mean probability of each class but for the true one."""
    label, guess = rows.utterances[index], int(others.argmax())
    return WorstError(
        id=label.id,
        speaker=label.speaker,
        label=label.label,
        predicted=rows.classes[guess],
        probability=float(others[guess]),
        seeds_wrong=wrong,
        seeds=int((rows.utterance == index).sum()),
        text=label.text,
        audio=label.audio,
        start=label.start,
        stop=label.stop,
    )
