"""Paired comparison of runs by the attributes and votes that all of them learn.

Rows are those that all runs predicted; their truth must be the same to 1e-6, since scores against
different truth are no comparison. Scores, intervals and the permutation test are those of classes
(`pipeline.compare.comparison`), on other sums: a swap exchanges the predictions of a unit seed by
seed, and scores are averaged over seeds afterwards. Runs with different numbers of seeds are
repeated to a common number, which changes no mean. There is no McNemar test, as there is no right
and wrong.

Shapes: U common rows, S seeds of a run, C clusters, A attributes, n swapped units, D draws; `...`
the axes of an utterance's sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from features.errors import RunError
from pipeline.compare.comparison import Change, RunScore, RunScores, Settings
from pipeline.compare.rows import unit_of
from pipeline.compare.significance import PermutationTest, holm, permutation_test
from pipeline.compare.sources import Key, PredictedRun
from pipeline.evaluation.groups import MINIMUM_UTTERANCES
from pipeline.evaluation.rows import Ints, shared_speakers
from pipeline.evaluation.statistics import Draws, cluster_draws
from pipeline.evaluation.votes.rows import OF_VOTES, normalised, vote_statistic, vote_sums
from pipeline.metrics.attributes import attribute_scores, attribute_sums
from pipeline.metrics.classes import Floats
from pipeline.metrics.votes import named

OF_ATTRIBUTES = ("ccc", "pearson", "rmse", "mae")
"""Scores of each attribute that are compared."""
LOWER = ("rmse", "mae", "jsd", "kld", "total_variation", "brier_soft", "soft_nll")
"""Beginnings of the names of scores of which lower is better."""
_TOLERANCE = 1e-6  # of truth written with nine significant digits

_Statistic = Callable[[Floats], Mapping[str, Floats]]


@dataclass(frozen=True)
class TargetPair:
    """The comparison of two runs, second minus first.

    Attributes:
        first: Tag of the baseline.
        second: Tag of the run that is compared with it.
        changes: Change of each score that is defined in both.
        tests: Permutation test of the attributes, and of the votes, by "attributes" and "votes".
        p: p of each score.
        p_holm: p adjusted over all pairs, each score by itself.
    """

    first: str
    second: str
    changes: Mapping[str, Change]
    tests: Mapping[str, PermutationTest]
    p: Mapping[str, float]
    p_holm: Mapping[str, float]


@dataclass(frozen=True)
class TargetComparison:
    """The comparison of all runs by attributes and votes.

    Attributes:
        utterances: U.
        attributes: Attributes that all runs predict.
        votes: Whether all runs predict votes.
        unit: "speaker" or "dialogue".
        clusters: C.
        shared_speakers: Number of speakers in several clusters.
        runs: Scores of the runs, in the order given.
        pairs: The first run with each other one, or all pairs.
    """

    utterances: int
    attributes: tuple[str, ...]
    votes: bool
    unit: str
    clusters: int
    shared_speakers: int
    runs: tuple[RunScores, ...]
    pairs: tuple[TargetPair, ...]


@dataclass(frozen=True)
class _Family:
    """Sums of one kind of target: of each run `[S, U, ...]`, and what scores them."""

    sums: tuple[Floats, ...]
    statistic: _Statistic


def lower_is_better(name: str) -> bool:
    """Whether less of a score is better: `rmse_valence`, `jsd`.

    >>> lower_is_better("rmse_valence"), lower_is_better("ccc"), lower_is_better("jsdx")
    (True, False, False)
    """
    return any(name == lower or name.startswith(f"{lower}_") for lower in LOWER)


def is_of_target(name: str) -> bool:
    """Whether a score is one that attributes or votes are compared by.

    >>> is_of_target("ccc_valence"), is_of_target("multilabel_macro_f1"), is_of_target("ece")
    (True, True, False)
    """
    of_attribute = any(name.startswith(f"{score}_") for score in OF_ATTRIBUTES)
    return name == "ccc" or name in OF_VOTES or of_attribute


def compare_targets(
    tagged: Mapping[str, PredictedRun], settings: Settings
) -> TargetComparison | None:
    """Compare runs by what they all learn beside classes; None if that is nothing.

    Args:
        tagged: Two or more runs by tag.
        settings: Settings.

    Raises:
        RunError: If the truth of a common row differs, or too few rows are common.
        ParamsError: If a row lacks the unit that was asked for.
    """
    runs = list(tagged.values())
    first = runs[0]
    attributes = tuple(
        name
        for name in first.targets.attributes
        if all(name in run.targets.attributes for run in runs)
    )
    same = all(set(run.classes) == set(first.classes) for run in runs)
    votes = same and all(run.targets.shares is not None for run in runs)
    if not attributes and not votes:
        return None
    keys = [key for key in first.items if all(key in run.items for run in runs)]
    if len(keys) < MINIMUM_UTTERANCES:
        raise RunError(
            f"{len(keys)} test rows are common to all {len(runs)} runs; expected "
            f"{MINIMUM_UTTERANCES} or more. Compare runs of the same corpus and protocol"
        )
    items = [first.items[key] for key in keys]
    unit = unit_of(items, settings.unit)
    names = [str(getattr(item, unit)) for item in items]
    distinct, cluster = np.unique(names, return_inverse=True)
    families: dict[str, _Family] = {}
    if attributes:
        families["attributes"] = _of_attributes(tagged, keys, attributes)
    if votes:
        families["votes"] = _of_votes(tagged, keys)
    clusters = len(distinct)
    draws = [_draws(families, k, cluster) for k in range(len(runs))]
    order = range(len(runs))
    chosen = list(combinations(order, 2)) if settings.all_pairs else [(0, k) for k in order[1:]]
    pairs = [
        _pair(families, (i, j), (draws[i], draws[j]), cluster, unit, settings) for i, j in chosen
    ]
    tags = list(tagged)
    return TargetComparison(
        utterances=len(keys),
        attributes=attributes,
        votes=votes,
        unit=unit,
        clusters=clusters,
        shared_speakers=shared_speakers(items, names),
        runs=tuple(
            _scores(tag, run, families, k, draws[k]) for k, (tag, run) in enumerate(tagged.items())
        ),
        pairs=_adjusted(
            [
                replace(pair, first=tags[i], second=tags[j])
                for pair, (i, j) in zip(pairs, chosen, strict=True)
            ]
        ),
    )


def _places(run: PredictedRun, keys: Sequence[Key]) -> list[int]:
    place = {key: index for index, key in enumerate(run.items)}
    return [place[key] for key in keys]


def _same_truth(
    tagged: Mapping[str, PredictedRun], keys: Sequence[Key], truths: Sequence[Floats]
) -> None:
    """Refuse runs that were scored against different truth."""
    (first, own), *others = zip(tagged.items(), truths, strict=True)
    for (tag, run), truth in others:
        wrong = ~np.isclose(truth, own, rtol=0, atol=_TOLERANCE, equal_nan=True).all(1)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise RunError(
                f"{keys[row][1]!r} is {own[row].tolist()} in {first[0]} ({first[1].name}) and "
                f"{truth[row].tolist()} in {tag} ({run.name}), one of {int(wrong.sum())} such "
                "rows; expected the same truth: compare runs on the same labels"
            )


def _of_attributes(
    tagged: Mapping[str, PredictedRun], keys: Sequence[Key], attributes: tuple[str, ...]
) -> _Family:
    truths, guesses = [], []
    for run in tagged.values():
        columns = [run.targets.attributes.index(name) for name in attributes]
        places = _places(run, keys)
        truths.append(run.targets.truth[places][:, columns])
        guesses.append(run.targets.values[:, places][..., columns])
    _same_truth(tagged, keys, truths)
    known = ~np.isnan(truths[0])
    # Any number near the values serves to keep their digits; the scale is not among predictions.
    counts = np.maximum(known.sum(0), 1)
    middles = np.where(known, truths[0], 0).sum(0) / counts
    each = np.arange(len(keys))

    def statistic(sums: Floats) -> dict[str, Floats]:
        scores = attribute_scores(sums)
        found = {"ccc": np.asarray(scores["ccc"].mean(-1))}
        for k, name in enumerate(attributes):
            found |= {f"{score}_{name}": scores[score][..., k] for score in OF_ATTRIBUTES}
        return found

    sums = tuple(
        np.stack([attribute_sums(truths[0], x, each, len(keys), middles) for x in of])
        for of in guesses
    )
    return _Family(sums, statistic)


def _of_votes(tagged: Mapping[str, PredictedRun], keys: Sequence[Key]) -> _Family:
    classes = next(iter(tagged.values())).classes
    truths, guesses = [], []
    for run in tagged.values():
        order, places = [run.classes.index(name) for name in classes], _places(run, keys)
        assert run.targets.shares is not None
        truths.append(run.targets.shares[places][:, order])
        guesses.append(run.probabilities[:, places][..., order])
    _same_truth(tagged, keys, truths)
    known = np.flatnonzero(~np.isnan(truths[0]).any(1))
    truth = truths[0][known]
    sums = tuple(
        np.stack(
            [vote_sums(truth, normalised(q[known]), named(q[known]), known, len(keys)) for q in of]
        )
        for of in guesses
    )
    return _Family(sums, vote_statistic)


def _grouped(sums: Floats, groups: Ints) -> Floats:
    """Sums `[S, U, ...]` of utterances added up by group, `[S, G, ...]`."""
    found: Floats = np.zeros((int(groups.max()) + 1, len(sums), *sums.shape[2:]))
    np.add.at(found, groups, np.swapaxes(sums, 0, 1))
    return np.swapaxes(found, 0, 1)


def _draws(families: Mapping[str, _Family], run: int, cluster: Ints) -> Draws:
    """All scores in each draw, of the kind of target that the fewest clusters hold."""
    found = [
        cluster_draws(_grouped(family.sums[run], cluster), family.statistic)
        for family in families.values()
    ]
    values = {name: of for each in found for name, of in each.values.items()}
    return Draws(values, min((each.clusters for each in found if each.values), default=0))


def _totals(families: Mapping[str, _Family], run: int) -> dict[str, Floats]:
    """Scores of each seed, `[S]`, those that are defined."""
    found: dict[str, Floats] = {}
    for family in families.values():
        found |= family.statistic(family.sums[run].sum(1))
    return {name: values for name, values in found.items() if not np.isnan(values).any()}


def _scores(
    tag: str,
    run: PredictedRun,
    families: Mapping[str, _Family],
    place: int,
    draws: Draws,
) -> RunScores:
    found = {}
    for name, of_seeds in _totals(families, place).items():
        sd = float(of_seeds.std(ddof=1)) if len(of_seeds) > 1 else None
        found[name] = RunScore(float(of_seeds.mean()), draws.interval(name), sd)
    return RunScores(tag, run.name, run.whose, len(run.seeds), found)


def _pair(
    families: Mapping[str, _Family],
    runs: tuple[int, int],
    draws: tuple[Draws, Draws],
    units: Ints,
    unit: str,
    settings: Settings,
) -> TargetPair:
    totals = [{k: float(v.mean()) for k, v in _totals(families, run).items()} for run in runs]
    changes, tests = {}, {}
    for name in totals[0].keys() & totals[1].keys():
        first, second = totals[0][name], totals[1][name]
        changes[name] = Change(first, second, second - first, draws[1].change(name, draws[0]))
    for kind, family in families.items():
        pair = _alike(*(np.swapaxes(_grouped(family.sums[run], units), 0, 1) for run in runs))
        tests[kind] = permutation_test(
            pair,
            _seed_means(family.statistic, changes),
            unit,
            permutations=settings.permutations,
            seed=settings.seed,
        )
    p = {name: value for test in tests.values() for name, value in test.p.items()}
    order = {name: changes[name] for name in p}
    # Not adjusted yet: Holm's method needs the p of all pairs (`_adjusted`).
    return TargetPair("", "", order, tests, p, p)


def _alike(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Sums `[n, S, ...]` of two runs with the seeds of each repeated to a common number."""
    seeds = math.lcm(first.shape[1], second.shape[1])

    def repeated(sums: Floats) -> Floats:
        return np.concatenate([sums] * (seeds // sums.shape[1]), axis=1)

    return repeated(first), repeated(second)


def _seed_means(statistic: _Statistic, shown: Mapping[str, Change]) -> _Statistic:
    """The scores that are `shown`, averaged over the seeds of sums `[..., S, ...]`."""

    def means(sums: Floats) -> dict[str, Floats]:
        found = statistic(sums)
        return {name: values.mean(-1) for name, values in found.items() if name in shown}

    return means


def _adjusted(pairs: Sequence[TargetPair]) -> tuple[TargetPair, ...]:
    names = [name for name in pairs[0].p if all(name in pair.p for pair in pairs)]
    adjusted = {name: holm([pair.p[name] for pair in pairs]) for name in names}
    return tuple(
        replace(pair, p_holm={name: values[k] for name, values in adjusted.items()})
        for k, pair in enumerate(pairs)
    )
