"""What raters themselves reach: each against the mean, or the plurality, of the others.

It is a ceiling for one rater's view. A model may exceed it, since it is compared with the mean of
all raters, which is steadier than any of them. A report says both.

Ratings are those of the test utterances, without the speakers' own unless the corpus entry includes
them (`self_evaluation`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from features.corpus.agreement import Judgements, rater_accuracy, rater_ccc
from features.corpus.manifest import Label
from features.corpus.ratings import Rating


@dataclass(frozen=True)
class Ceilings:
    """Agreement of raters on the test utterances, and of the whole corpus by its card.

    Attributes:
        raters: Number of raters of the test utterances.
        ccc: Mean over raters of their CCC with the mean of the others, by attribute.
        scored: Raters that have one, by attribute: those with enough utterances in common.
        accuracy: Share of ratings that agree with the plurality of the other raters; None without.
        compared: Ratings that were compared so.
        ties: Ratings without a comparison, since the others tie or there are none.
        alpha: Krippendorff's alpha by what is rated, as the card has it.
    """

    raters: int
    ccc: Mapping[str, float]
    scored: Mapping[str, int]
    accuracy: float | None
    compared: int
    ties: int
    alpha: Mapping[str, float]


def ceilings(
    ratings: Iterable[Rating],
    utterances: Sequence[Label],
    classes: Sequence[str],
    attributes: Sequence[str],
    targets: Mapping[str, Any],
) -> Ceilings:
    """Measure how raters agree.

    Args:
        ratings: Ratings of the corpus.
        utterances: Test utterances.
        classes: Names of the classes; a rating outside of them is compared as it is.
        attributes: Names of the attributes that the run predicts.
        targets: Field `targets` of card.json.
    """
    own = (targets.get("policies") or {}).get("self_evaluation") == "include"
    place = {label.id: k for k, label in enumerate(utterances)}
    kept = [each for each in ratings if each.id in place and (own or not each.self)]
    raters = {name: k for k, name in enumerate(sorted({each.rater for each in kept}))}

    def judged(values: Iterable[tuple[Rating, float]]) -> Judgements:
        rows = [(place[each.id], raters[each.rater], value) for each, value in values]
        table = np.array(rows, np.float64).reshape(len(rows), 3)
        items, numbers = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
        return Judgements(items, numbers, table[:, 2], len(place), len(raters))

    by_rater = {
        name: rater_ccc(
            judged(
                (each, (each.values or {})[name]) for each in kept if name in (each.values or {})
            )
        )
        for name in attributes
    }
    known = {name: of[~np.isnan(of)] for name, of in by_rater.items()}
    named = sorted({each.label for each in kept if each.label is not None})
    chosen = ((each, named.index(each.label)) for each in kept if each.label is not None)
    hits, compared, ties = rater_accuracy(judged(chosen)) if classes else (0, 0, 0)
    return Ceilings(
        raters=len(raters),
        ccc={name: float(of.mean()) for name, of in known.items() if len(of)},
        scored={name: len(of) for name, of in known.items() if len(of)},
        accuracy=hits / compared if compared else None,
        compared=compared,
        ties=ties,
        alpha={k: v for k, v in (targets.get("alpha") or {}).items() if v is not None},
    )
