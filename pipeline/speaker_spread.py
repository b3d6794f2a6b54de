"""How differently single speakers are understood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.rows import Rows

MINIMUM = 10  # utterances; the accuracy on fewer is mostly luck


@dataclass(frozen=True)
class SpeakerScore:
    """Accuracy on one speaker's test utterances, mean over seeds."""

    speaker: str
    utterances: int
    accuracy: float


@dataclass(frozen=True)
class SpeakerSpread:
    """Accuracy by speaker.

    Attributes:
        speakers: Those with `minimum` test utterances or more, worst first.
        minimum: Fewer than so many utterances are not scored.
        too_few: Speakers left out for that.
        lowest: Lowest accuracy; None without scored speakers, as the next two.
        median: Of the scored speakers.
        highest: Highest accuracy.
    """

    speakers: tuple[SpeakerScore, ...]
    minimum: int
    too_few: int
    lowest: float | None
    median: float | None
    highest: float | None


def speaker_spread(rows: Rows) -> SpeakerSpread:
    """Accuracy by speaker, on the test rows of all folds."""
    names, of_utterance = np.unique(
        np.array([label.speaker for label in rows.utterances]), return_inverse=True
    )
    utterances = np.bincount(of_utterance, minlength=len(names))
    speaker = of_utterance[rows.utterance]
    # every seed has predicted the same utterances, so the mean over rows is that over seeds
    right = np.bincount(speaker, rows.predictions == rows.labels, minlength=len(names))
    accuracy = right / np.bincount(speaker, minlength=len(names))
    scored = [
        SpeakerScore(str(names[k]), int(utterances[k]), float(accuracy[k]))
        for k in np.argsort(accuracy, kind="stable")
        if utterances[k] >= MINIMUM
    ]
    values = [score.accuracy for score in scored]
    return SpeakerSpread(
        speakers=tuple(scored),
        minimum=MINIMUM,
        too_few=len(names) - len(scored),
        lowest=values[0] if values else None,
        median=float(np.median(values)) if values else None,
        highest=values[-1] if values else None,
    )
