"""Scores of attributes in parts of the test split: groups, speakers, bins of the truth, errors.

Shapes: R test rows of all seeds and folds, U test utterances, A attributes, B bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from features.corpus.manifest import Label
from pipeline.evaluation.attributes.rows import AttributeRows, defined, first_rows, seed_mean
from pipeline.evaluation.groups import BANDS, MINIMUM_SPEAKERS, duration_band
from pipeline.evaluation.rows import Flags
from pipeline.metrics.attributes import attribute_scores, attribute_sums
from pipeline.metrics.classes import Floats

LEAST_ROWS = 30
"""Utterances of a group below which it has no CCC: of a few it is mostly luck."""
SHOWN = 20  # utterances of the worst errors
BINS = 12
FEWEST = 2
"""Known values of a group, or of the test split, below which there is no score."""


@dataclass(frozen=True)
class AttributeGroup:
    """Scores of one attribute in a group; no CCC for fewer than `LEAST_ROWS` utterances.

    The CCC is lower where the group's own values differ less (`truth_sd`), without any bias.
    """

    name: str
    rows: int
    truth_sd: float
    ccc: float | None
    rmse: float
    bias: float


@dataclass(frozen=True)
class AttributeGroups:
    """Groups by one field of the labels, by attribute; `unknown` utterances state none."""

    field: str
    attributes: Mapping[str, tuple[AttributeGroup, ...]]
    unknown: int


@dataclass(frozen=True)
class SpeakerBias:
    """Bias and MAE of one speaker by attribute; a CCC of few utterances would say nothing."""

    speaker: str
    rows: int
    bias: Mapping[str, float]
    mae: Mapping[str, float]


@dataclass(frozen=True)
class Bin:
    """Test rows with the truth in [low, high]: mean truth, mean prediction and its spread."""

    low: float
    high: float
    rows: int
    truth: float
    prediction: float
    tenth: float
    ninetieth: float

    @property
    def residual(self) -> float:
        """Mean of prediction minus truth."""
        return self.prediction - self.truth


@dataclass(frozen=True)
class LargeError:
    """A test utterance with a large error, as a share of the scale of its worst attribute."""

    utterance: Label
    attribute: str
    truth: float
    prediction: float
    size: float


def attribute_groups(data: AttributeRows) -> Iterator[AttributeGroups]:
    """Groups by gender, duration and session, as far as the corpus states them."""
    labels = data.rows.utterances
    fields: dict[str, list[str | None]] = {
        "gender": [label.gender for label in labels],
        "duration": [duration_band(label.seconds) for label in labels],
        "session": [label.session for label in labels],
    }
    for field, names in fields.items():
        order = list(BANDS) if field == "duration" else sorted({n for n in names if n})
        groups: dict[str, list[AttributeGroup]] = {name: [] for name in data.names}
        for group in (name for name in order if name in names):
            keep = np.array([name == group for name in names], bool)
            speakers = {labels[u].speaker for u in np.flatnonzero(keep)}
            for k, name in enumerate(data.names):
                found = _group(data, k, group, keep, several=len(speakers) >= MINIMUM_SPEAKERS)
                groups[name] += [] if found is None else [found]
        if any(groups.values()):
            shown = {name: tuple(found) for name, found in groups.items()}
            yield AttributeGroups(field, shown, sum(name is None for name in names))


def _group(
    data: AttributeRows, k: int, name: str, keep: Flags, *, several: bool
) -> AttributeGroup | None:
    truth = data.truth[first_rows(data.rows)][keep, k]
    truth = truth[~np.isnan(truth)]
    if len(truth) < FEWEST:
        return None
    scores = attribute_scores(data.sums(keep)[..., k, :].sum(1))
    ccc = seed_mean(scores["ccc"])
    shown = len(truth) >= LEAST_ROWS and several and not np.isnan(ccc)
    return AttributeGroup(
        name=name,
        rows=len(truth),
        truth_sd=float(truth.std()),
        ccc=ccc if shown else None,
        rmse=seed_mean(scores["rmse"]),
        bias=seed_mean(scores["bias"]),
    )


def speaker_biases(data: AttributeRows) -> tuple[SpeakerBias, ...]:
    """Bias and MAE of each speaker, all seeds together."""
    rows = data.rows
    speakers = np.array([label.speaker for label in rows.utterances])
    names, of_utterance = np.unique(speakers, return_inverse=True)
    group = of_utterance[rows.utterance]
    scores = attribute_scores(
        attribute_sums(data.truth, data.prediction, group, len(names), data.middles)
    )
    count = np.bincount(of_utterance, minlength=len(names))
    found = []
    for s, name in enumerate(names):
        bias, mae = (
            defined({a: float(scores[metric][s, k]) for k, a in enumerate(data.names)})
            for metric in ("bias", "mae")
        )
        if bias:
            found.append(SpeakerBias(str(name), int(count[s]), bias, mae))
    widths = dict(zip(data.names, np.ptp(data.scales, axis=1), strict=True))
    return tuple(
        sorted(
            found,
            key=lambda of: -float(np.mean([abs(b) / widths[a] for a, b in of.bias.items()])),
        )
    )


def scale_bins(data: AttributeRows, k: int) -> tuple[Bin, ...]:
    """Test rows in equal steps of the scale of attribute `k`: truth is discrete, means of a few."""
    low, high = data.scales[k]
    return _bins(data, k, np.linspace(float(low), float(high), BINS + 1))


def truth_terciles(data: AttributeRows, k: int) -> tuple[Bin, ...]:
    """Test rows in terciles of the truth of attribute `k`."""
    truth = data.truth[first_rows(data.rows), k]
    return _bins(data, k, np.nanquantile(truth, [0, 1 / 3, 2 / 3, 1]))


def _bins(data: AttributeRows, k: int, edges: Floats) -> tuple[Bin, ...]:
    """Rows of all seeds by truth; bins without rows are left out, and equal edges make one."""
    known = ~np.isnan(data.truth[:, k])
    truth, prediction = data.truth[known, k], data.prediction[known, k]
    place = np.searchsorted(edges[1:-1], truth, side="left")
    found = []
    for b in np.unique(place):
        own = prediction[place == b]
        tenth, ninetieth = np.quantile(own, [0.1, 0.9])
        found.append(
            Bin(
                low=float(edges[b]),
                high=float(edges[b + 1]),
                rows=len(own) // data.rows.seeds,
                truth=float(truth[place == b].mean()),
                prediction=float(own.mean()),
                tenth=float(tenth),
                ninetieth=float(ninetieth),
            )
        )
    return tuple(found)


def largest_errors(data: AttributeRows) -> tuple[LargeError, ...]:
    """Utterances by the error of their worst attribute, predictions averaged over seeds."""
    rows, size = data.rows, len(data.rows.utterances)
    sums: Floats = np.zeros((size, len(data.names)))
    np.add.at(sums, rows.utterance, data.prediction)
    means = sums / np.bincount(rows.utterance, minlength=size)[:, None]
    truth = data.truth[first_rows(rows)]
    errors = np.nan_to_num(np.abs(means - truth) / np.ptp(data.scales, axis=1), nan=-1.0)
    worst = errors.argmax(1)
    sizes = errors.max(1)
    order = sorted(range(size), key=lambda u: (-sizes[u], rows.utterances[u].id))
    return tuple(
        LargeError(
            rows.utterances[u],
            data.names[worst[u]],
            float(truth[u, worst[u]]),
            float(means[u, worst[u]]),
            float(sizes[u]),
        )
        for u in order[:SHOWN]
        if sizes[u] >= 0
    )
