"""Scores of a run's attributes: intervals, baselines, probes and conditions.

What is scored is the prediction on the corpus's own scale, clipped to it when it was written, on
the test rows whose value is known; all folds pooled, mean over seeds. Beside it stands the mean
over folds. The two are no estimates of the same thing: pooling rewards a model that knows the level
of each fold, and the mean over folds does not. What is undefined (a CCC of equal constants) is
absent, or None.

Shapes: R test rows of all seeds and folds, S seeds, F folds, A attributes, D draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from features.corpus.manifest import Label
from features.errors import RunError
from pipeline.evaluation.attributes.parts import (
    FEWEST,
    AttributeGroups,
    Bin,
    LargeError,
    SpeakerBias,
    attribute_groups,
    largest_errors,
    scale_bins,
    speaker_biases,
    truth_terciles,
)
from pipeline.evaluation.attributes.rows import (
    AttributeRows,
    defined,
    draws_of,
    first_rows,
    seed_mean,
)
from pipeline.evaluation.rows import RunRows
from pipeline.evaluation.run_folder import RunFolder
from pipeline.evaluation.slots import Difference
from pipeline.evaluation.statistics import Draws
from pipeline.evaluation.summaries import JobScores, Summary, summary_of
from pipeline.metrics.attributes import SCORES
from pipeline.metrics.classes import Floats

OF_CONSTANT = ("ccc", "rmse", "mae", "bias")
"""Scores that say something of a constant prediction."""


@dataclass(frozen=True)
class Attribute:
    """Scores of one attribute.

    Attributes:
        name: Name of the attribute.
        low: Lowest value of its scale.
        high: Highest value.
        rows: Test utterances whose value is known.
        truth_mean: Mean of their values.
        truth_sd: Standard deviation of the population of them.
        scores: Summary by metric, those that are defined.
        undefined: Draws of the bootstrap in which the CCC is undefined.
        train_mean: Scores of predicting the mean of each fold's training split.
        gain: RMSE of that minus the model's, so that above 0 is better.
        clipped: Predictions of all trained models, on validation rows too, that were clipped to
            the scale.
    """

    name: str
    low: float
    high: float
    rows: int
    truth_mean: float
    truth_sd: float
    scores: Mapping[str, Summary]
    undefined: int
    train_mean: Mapping[str, float]
    gain: Difference | None
    clipped: int


@dataclass(frozen=True)
class AttributeGuess:
    """CCC by attribute, and mean, of a probe or under a condition; `change` from the model."""

    name: str
    ccc: float | None
    by_attribute: Mapping[str, float]
    pearson: Mapping[str, float]
    change: Difference | None


@dataclass(frozen=True)
class AttributeResults:
    """All about the attributes of a run.

    Attributes:
        rows: Test utterances with any known value.
        mean: Summary of `ccc`, the mean over attributes; None if one of them is undefined.
        attributes: Scores by attribute.
        jobs: CCC of each trained model, `ccc` and `ccc_<attribute>`, those that are defined.
        valid: `ccc` and `ccc_<attribute>` of the validation rows, means over trained models.
        groups: Groups by gender, duration and session, as far as the corpus states them.
        speakers: Bias and MAE by speaker, the largest mean absolute bias first.
        bins: Bins of the truth by attribute, for a plot.
        terciles: Terciles of the truth by attribute: a bias above 0 in the first and below 0 in
            the last is a drift to the middle.
        errors: Utterances with the largest errors.
        probes: Linear probes on each slot.
        conditions: The model under worse conditions.
    """

    rows: int
    mean: Summary | None
    attributes: tuple[Attribute, ...]
    jobs: tuple[JobScores, ...]
    valid: Mapping[str, float]
    groups: tuple[AttributeGroups, ...]
    speakers: tuple[SpeakerBias, ...]
    bins: Mapping[str, tuple[Bin, ...]]
    terciles: Mapping[str, tuple[Bin, ...]]
    errors: tuple[LargeError, ...]
    probes: tuple[AttributeGuess, ...]
    conditions: tuple[AttributeGuess, ...]


def attribute_results(run: RunFolder, rows: RunRows, labels: Iterable[Label]) -> AttributeResults:
    """Score the attributes of a run.

    Args:
        run: The run folder, one of whose tasks is "attributes".
        rows: Its test rows.
        labels: Labels of the whole corpus, for the means of the training splits.

    Raises:
        RunError: If an attribute has fewer than two known values in the test split.
    """
    data = AttributeRows.of(run, rows)
    sums, known = data.sums(), ~np.isnan(data.truth)
    for k, name in enumerate(data.names):
        count = int(known[first_rows(rows), k].sum())
        if count < FEWEST:
            raise RunError(
                f"{run.path}: {name}: {count} test utterances have a value of it; expected at "
                f"least {FEWEST}: leave it out of `train.attributes`"
            )
    draws = draws_of(data, sums)
    values, folds = data.statistic(sums.sum(1)), data.statistic(data.job_sums(run.jobs))
    summaries = {
        name: summary_of(of, folds[name], draws.interval(name)) for name, of in values.items()
    }
    constant = _train_means(run, labels, data)
    of_constant = data.sums(prediction=constant)
    base = {name: seed_mean(of) for name, of in data.statistic(of_constant.sum(1)).items()}
    base_draws = draws_of(data, of_constant)
    first = first_rows(rows)
    attributes = []
    for k, name in enumerate(data.names):
        truth = data.truth[first][known[first, k], k]
        own = {metric: summaries[f"{metric}_{name}"] for metric in SCORES}
        missing = draws.values.get(f"ccc_{name}")
        attributes.append(
            Attribute(
                name=name,
                low=float(data.scales[k, 0]),
                high=float(data.scales[k, 1]),
                rows=len(truth),
                truth_mean=float(truth.mean()),
                truth_sd=float(truth.std()),
                scores={metric: each for metric, each in own.items() if each is not None},
                undefined=0 if missing is None else int(np.isnan(missing).sum()),
                train_mean=defined({m: base[f"{m}_{name}"] for m in OF_CONSTANT}),
                gain=_gain(f"rmse_{name}", base, values, base_draws, draws),
                clipped=run.targets.clipped.get(name, 0),
            )
        )
    terciles = {name: truth_terciles(data, k) for k, name in enumerate(data.names)}
    return AttributeResults(
        rows=int(known[first].any(1).sum()),
        mean=summaries["ccc"],
        attributes=tuple(attributes),
        jobs=tuple(
            JobScores(
                job.seed,
                job.fold,
                int((~np.isnan(job.truth[job.test])).any(1).sum()),
                defined({name: float(folds[name][k]) for name in _concordances(data)}),
                None,
            )
            for k, job in enumerate(run.jobs)
        ),
        valid=_validation(data, run),
        groups=tuple(attribute_groups(data)),
        speakers=speaker_biases(data),
        bins={name: scale_bins(data, k) for k, name in enumerate(data.names)},
        terciles=terciles,
        errors=largest_errors(data),
        probes=_guesses(data, values, draws, "probes"),
        conditions=_guesses(data, values, draws, "conditions"),
    )


def _gain(
    name: str,
    base: Mapping[str, float],
    own: Mapping[str, Floats],
    base_draws: Draws,
    draws: Draws,
) -> Difference | None:
    """How much lower the model's error is, paired; None where it is undefined."""
    value = base[name] - seed_mean(own[name])
    if np.isnan(value):
        return None
    return Difference(value, base_draws.change(name, draws))


def _train_means(run: RunFolder, labels: Iterable[Label], data: AttributeRows) -> Floats:
    """`[R, A]`: mean of the training split of each row's fold; the middle where none is known."""
    means = np.tile(data.middles, (run.folds, 1))
    used = [label for label in labels if label.id not in run.dropped]
    for fold in range(run.folds):
        split = [label.values or {} for label in used if label.splits[fold] == "train"]
        for k, name in enumerate(data.names):
            known = [values[name] for values in split if name in values]
            if known:
                means[fold, k] = np.mean(known)
    return np.concatenate([np.tile(means[job.fold], (job.test.sum(), 1)) for job in run.jobs])


def _validation(data: AttributeRows, run: RunFolder) -> dict[str, float]:
    """CCC of the validation rows, means over trained models; what is undefined is left out."""
    scores = data.statistic(data.job_sums(run.jobs, test=False))
    return defined({name: seed_mean(scores[name]) for name in _concordances(data)})


def _concordances(data: AttributeRows) -> tuple[str, ...]:
    return ("ccc", *(f"ccc_{name}" for name in data.names))


def _guesses(
    data: AttributeRows,
    own: Mapping[str, Floats],
    draws: Draws,
    kind: str,
) -> tuple[AttributeGuess, ...]:
    """Scores of probes (the model minus them) or conditions (them minus the model)."""
    jobs = data.rows.jobs
    found = []
    for name in getattr(jobs[0], kind):
        values = np.concatenate([getattr(job, kind)[name].values for job in jobs])
        sums = data.sums(prediction=values)
        scores = {key: seed_mean(of) for key, of in data.statistic(sums.sum(1)).items()}
        change, value = None, scores["ccc"] - seed_mean(own["ccc"])
        if not np.isnan(value):
            change = Difference(value, draws_of(data, sums).change("ccc", draws))
        ccc, pearson = (
            defined({a: scores[f"{metric}_{a}"] for a in data.names})
            for metric in ("ccc", "pearson")
        )
        mean = None if np.isnan(scores["ccc"]) else scores["ccc"]
        found.append(AttributeGuess(name, mean, ccc, pearson, change))
    return tuple(found)
