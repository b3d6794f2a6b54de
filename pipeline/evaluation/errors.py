"""Worst errors: test utterances that most seeds predict wrongly with high confidence.

They are worth listening to: often the label is doubtful there, or the recording.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.corpus.manifest import Label
from pipeline.evaluation.rows import RunRows
from pipeline.metrics.classes import Floats

SHOWN = 20  # utterances listed in a report


@dataclass(frozen=True)
class WorstError:
    """A test utterance that most seeds predicted wrongly.

    Attributes:
        utterance: Label of the utterance.
        predicted: The wrong class with the highest mean probability; without probabilities that
            which most seeds predict. None if most name no class.
        probability: Mean over seeds of the probability of `predicted`; None without probabilities.
        seeds_wrong: Number of seeds that predicted the utterance wrongly.
        seeds: Number of seeds that predicted it.
    """

    utterance: Label
    predicted: str | None
    probability: float | None
    seeds_wrong: int
    seeds: int


@dataclass(frozen=True)
class WorstErrors:
    """The worst errors, the most confident first, and the number of all such utterances.

    Without probabilities those that most seeds agree on come first.
    """

    shown: tuple[WorstError, ...]
    total: int


def worst_errors(rows: RunRows, *, shown: int = SHOWN) -> WorstErrors:
    """Test utterances that more than half of the seeds predicted wrongly."""
    size = len(rows.utterances)
    times = np.bincount(rows.utterance, minlength=size)
    wrong = np.bincount(rows.utterance, rows.predictions != rows.labels, minlength=size)
    known = not np.isnan(rows.probabilities).any()
    # Without probabilities a prediction stands for 1, and for none of the classes if it names none.
    chosen = (rows.predictions[:, None] == np.arange(len(rows.classes))).astype(np.float64)
    sums: Floats = np.zeros((size, len(rows.classes)))
    np.add.at(sums, rows.utterance, rows.probabilities if known else chosen)
    means = sums / times[:, None]
    means[rows.utterance, rows.labels] = -1  # the true class is never the highest
    found = np.flatnonzero(2 * wrong > times).tolist()
    ids = [rows.utterances[u].id for u in found]
    ranked = [u for _, _, u in sorted(zip(-means[found].max(1), ids, found, strict=True))]
    return WorstErrors(
        shown=tuple(_error(rows, u, means[u], int(wrong[u]), known=known) for u in ranked[:shown]),
        total=len(found),
    )


def _error(rows: RunRows, index: int, others: Floats, wrong: int, *, known: bool) -> WorstError:
    """`others` `[K]`: mean probability of each class but for the true one, where it is `known`."""
    guess = int(others.argmax())
    return WorstError(
        utterance=rows.utterances[index],
        predicted=rows.classes[guess] if known or others[guess] > 0 else None,
        probability=float(others[guess]) if known else None,
        seeds_wrong=wrong,
        seeds=int((rows.utterance == index).sum()),
    )
