"""Utterances whose predicted class changes from one run to another.

The class that a run predicts is the vote of its seeds (`pipeline.compare.rows.Compared.votes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from features.corpus.manifest import Label
from pipeline.compare.rows import CommonRows, Compared

NO_CLASS = "no class"
SHOWN = 10  # utterances that are listed in each direction


@dataclass(frozen=True)
class Flip:
    """An utterance whose prediction became right or wrong.

    Attributes:
        before: Prediction of the first run; `NO_CLASS` where it named none.
        after: Prediction of the second run; likewise.
        gain: Change of the probability of the true class, mean over seeds.
        text: Transcript; None where unknown.
    """

    id: str
    fold: int
    speaker: str
    label: str
    before: str
    after: str
    gain: float
    text: str | None


@dataclass(frozen=True)
class Flips:
    """Numbers of changed predictions, from the first run to the second.

    Attributes:
        wrong_to_wrong: Number of utterances that both runs have wrong, with different predictions.
        lost: Some that became wrong, the greatest fall of the true class's probability first.
        won: Some that became right, the greatest rise first.
    """

    right_to_wrong: int
    wrong_to_right: int
    wrong_to_wrong: int
    lost: tuple[Flip, ...]
    won: tuple[Flip, ...]


def flips(
    rows: CommonRows,
    runs: tuple[Compared, Compared],
    labels: Mapping[str, Label],
    *,
    shown: int = SHOWN,
) -> Flips:
    """Compare the predictions of two runs.

    Args:
        rows: The common rows.
        runs: The first and the second run.
        labels: Labels by id, for the transcripts; may be empty.
        shown: Number of utterances to list in each direction.
    """
    each = np.arange(len(rows.items))
    right = [run.votes == rows.labels for run in runs]
    shares = [run.probabilities[each, rows.labels] for run in runs]
    gain = shares[1] - shares[0]
    lost, won = right[0] & ~right[1], ~right[0] & right[1]
    other = ~right[0] & ~right[1] & (runs[0].votes != runs[1].votes)

    def listed(kind: np.ndarray, order: np.ndarray) -> tuple[Flip, ...]:
        found = sorted(np.flatnonzero(kind).tolist(), key=lambda u: (order[u], rows.items[u].id))
        return tuple(_flip(rows, runs, u, float(gain[u]), labels) for u in found[:shown])

    return Flips(
        right_to_wrong=int(lost.sum()),
        wrong_to_right=int(won.sum()),
        wrong_to_wrong=int(other.sum()),
        # Ascending order: of `gain` the greatest fall comes first, of `-gain` the greatest rise.
        lost=listed(lost, gain),
        won=listed(won, -gain),
    )


def _flip(
    rows: CommonRows,
    runs: tuple[Compared, Compared],
    index: int,
    gain: float,
    labels: Mapping[str, Label],
) -> Flip:
    item = rows.items[index]
    known = labels.get(item.id)
    names = (*rows.classes, NO_CLASS)  # -1 is the last
    return Flip(
        id=item.id,
        fold=item.fold,
        speaker=item.speaker,
        label=str(item.label),
        before=names[runs[0].votes[index]],
        after=names[runs[1].votes[index]],
        gain=gain,
        text=known.text if known is not None else None,
    )
