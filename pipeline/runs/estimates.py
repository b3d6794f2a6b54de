"""Training values of attributes, estimated from what each rater said (`train.estimator`).

Validation and test are always scored on the corpus's own values.

Shapes: N utterances.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.corpus.agreement import Judgements, rater_weights, weighted_means
from features.corpus.manifest import Label
from features.corpus.ratings import Rating, read_ratings
from features.errors import ParamsError
from pipeline.data.targets import TargetReader, known_values

Floats = NDArray[np.float64]


def estimated(
    labels: Sequence[Label],
    reader: TargetReader,
    estimator: str,
    ratings: Path,
) -> list[Label]:
    """Training labels with attributes estimated from what each rater said.

    Estimates rest on the ratings of these utterances alone: raters' weights from others would let
    ratings of the test split shape what is learnt. Utterances without ratings keep the corpus's own
    value.

    Args:
        labels: Training split.
        reader: What is learnt.
        estimator: `median`, or `ewe`: raters weighted by their correlation with the others.
        ratings: Folder `data/<corpus>/ratings`.

    Raises:
        ParamsError: If there are no ratings of an attribute.
    """
    number = {label.id: row for row, label in enumerate(labels)}
    found = [
        rating
        for rating in read_ratings(ratings)
        if rating.id in number and (reader.with_self or not rating.self)
    ]
    values = known_values(labels, reader.outputs.attributes)
    for column, name in enumerate(reader.outputs.attributes):
        rated = [rating for rating in found if name in (rating.values or {})]
        if not rated:
            raise ParamsError(
                f"train.estimator: given {estimator!r}, and {ratings} has no rating of {name!r} in "
                "the training split; expected what each rater said: set `estimator: mean`"
            )
        judgements = _judgements(rated, name, number)
        estimate = _median(judgements)
        if estimator == "ewe":
            estimate = weighted_means(judgements, rater_weights(judgements))
        values[:, column] = np.where(np.isnan(estimate), values[:, column], estimate)
    return [_with_values(label, reader, row) for label, row in zip(labels, values, strict=True)]


def _judgements(rated: Sequence[Rating], name: str, number: Mapping[str, int]) -> Judgements:
    raters = {rater: k for k, rater in enumerate(dict.fromkeys(each.rater for each in rated))}
    return Judgements(
        np.array([number[each.id] for each in rated], np.int64),
        np.array([raters[each.rater] for each in rated], np.int64),
        np.array([(each.values or {})[name] for each in rated], np.float64),
        len(number),
        len(raters),
    )


def _median(judgements: Judgements) -> Floats:
    """Median of each utterance's ratings, `[N]`; NaN without ratings."""
    order = np.argsort(judgements.items, kind="stable")
    items, starts = np.unique(judgements.items[order], return_index=True)
    medians = np.full(judgements.n_items, np.nan)
    medians[items] = [np.median(each) for each in np.split(judgements.values[order], starts[1:])]
    return medians


def _with_values(label: Label, reader: TargetReader, row: Floats) -> Label:
    found = zip(reader.outputs.attributes, row.tolist(), strict=True)
    values = {name: value for name, value in found if not np.isnan(value)}
    if not values:
        return label
    return dataclasses.replace(label, values={**(label.values or {}), **values})
