"""Paired significance tests of two runs on the same utterances: permutation, McNemar, Holm.

The permutation test counts how often a difference as large arises if the two runs are exchangeable
(Fisher 1935; Good, Permutation, Parametric and Bootstrap Tests of Hypotheses, 2005, chapter 3).
Only independent units may be swapped. Utterances of one speaker are not independent, as a model
that fits a voice gets many of them right; so the predictions of each speaker (or dialogue) are
swapped as a whole. With n of them in which the runs differ there are 2^n permutations, and the
smallest two-sided p is 2^(1 - n): six speakers allow none below 0.03, five none below 0.06. That is
said beside p (`few_units`). Swapping utterances allows any p, but calls equal models different in
more than one of ten comparisons where they fit voices differently (docs/intervals.md).

The seeds of a run are averaged: the statistic is the difference of a metric of the confusion
matrices averaged over seeds. For accuracy and UAR that is the difference of the means over seeds,
as both are linear in the matrix where the labels are fixed; for F1 it is an approximation. Runs may
have different numbers of seeds; then the test holds approximately, as a mean of few seeds varies
more. The moments of attributes keep the axis of seeds instead, and scores are averaged after the
swap (`pipeline.compare.targets`): moments averaged over seeds would give the CCC of all seeds'
predictions together, which is another number.

Shapes: P permutations, n units, K classes; `...` the axes of a unit's sums, such as `[K, K]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.statistics import FEW_CLUSTERS, Statistic
from pipeline.metrics.classes import Floats

PERMUTATIONS = 9999
LEAST_PERMUTATIONS = 2000  # p near 0.05 then varies by 0.01 (two standard errors)
LEVEL = 0.05  # of significance

_TOLERANCE = 1e-9  # smaller differences are rounding errors
_CHUNK_BYTES = 1 << 25  # of random numbers, float64, that are drawn at once

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class PermutationTest:
    """Two-sided p of each metric.

    Attributes:
        unit: Unit that was swapped as a whole: "speaker" or "dialogue".
        units: Number of units.
        differing: Number of units with unequal sums; the others have no effect.
        permutations: Number of permutations that were scored.
        exact: Whether these are all there are (up to exchanging the names of the runs).
        smallest: The smallest p that the test can give.
        p: p of each metric.
    """

    unit: str
    units: int
    differing: int
    permutations: int
    exact: bool
    smallest: float
    p: Mapping[str, float]


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test on utterances that one run has right and the other wrong.

    It assumes independent utterances, so that p is too small where speakers matter. p is two-sided,
    from the binomial distribution (McNemar 1947).
    """

    right_to_wrong: int
    wrong_to_right: int
    p: float
    assumes: str = "independent utterances: p is too small for conclusions about other speakers"


def permutation_test(
    pair: tuple[Floats, Floats],
    statistic: Statistic,
    unit: str,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> PermutationTest:
    """Swap the two runs' predictions unit by unit.

    If there are at most P permutations, all are scored, and p is the share of them that is at least
    as extreme as the observed one. Else P are drawn, and the observed one is counted as one more,
    so that p is never 0 (Phipson & Smyth 2010): p = (b + 1) / (P + 1).

    Args:
        pair: Sums `[n, ...]` of each unit of either run, such as confusion matrices, averaged over
            seeds.
        statistic: Computes the metrics by name.
        unit: Name of the units, for the record.
        permutations: P.
        seed: Random seed of the permutations.
    """
    first, second = (np.asarray(each, np.float64) for each in pair)
    change = second - first
    changed = change[np.abs(change).reshape(len(change), -1).max(1) > _TOLERANCE]
    differing = len(changed)
    # Swapping all units only turns the sign of the difference, so that one unit can stay fixed.
    exact = 2 ** max(0, differing - 1) <= permutations
    scored = 2 ** max(0, differing - 1) if exact else permutations
    totals = first.sum(0), second.sum(0)
    observed = _differences(totals, changed, np.zeros((1, differing), bool), statistic)
    # All permutations contain the observed one; random ones do not, so it is counted here.
    extreme = dict.fromkeys(observed, 0 if exact else 1)
    for swaps in _every(differing) if exact else _some(differing, permutations, seed):
        for name, values in _differences(totals, changed, swaps, statistic).items():
            # Permutations that give the same difference may differ by rounding; ties are extreme.
            least = np.abs(observed[name]) - _TOLERANCE
            extreme[name] += int((np.abs(values) >= least).sum())
    ways = scored if exact else permutations + 1
    return PermutationTest(
        unit=unit,
        units=len(first),
        differing=differing,
        permutations=scored,
        exact=exact,
        smallest=1 / ways,
        p={name: count / ways for name, count in extreme.items()},
    )


def few_units(smallest: float, units: str) -> str:
    """What few units do to p; empty where `FEW_CLUSTERS` or more differ.

    Args:
        smallest: The smallest p that the test can give.
        units: Number and name of the units.
    """
    if smallest <= 2.0 ** (1 - FEW_CLUSTERS):
        return ""
    if smallest > LEVEL:
        return (
            f"{units} are too few for this test: p cannot be below {smallest:.3g}, so that no "
            "difference can be significant."
        )
    return (
        f"{units} are few for this test: p cannot be below {smallest:.3g}, which Holm's correction "
        "multiplies, and comes in steps of that size."
    )


def mcnemar(first_right: Flags, second_right: Flags) -> McNemar:
    """Compare which utterances two runs have right, `[U]` each."""
    # statsmodels takes seconds to import, and other commands do not need it.
    from statsmodels.stats.contingency_tables import mcnemar as exact_test

    lost, won = int((first_right & ~second_right).sum()), int((~first_right & second_right).sum())
    both, none = int((first_right & second_right).sum()), int((~first_right & ~second_right).sum())
    # p depends on `lost` and `won` alone: Binomial(lost + won, 1/2), two-sided.
    found = exact_test([[both, lost], [won, none]], exact=True)
    return McNemar(lost, won, float(found.pvalue))


def holm(p: Sequence[float]) -> list[float]:
    """Adjust the p of several tests for the family-wise error rate (Holm 1979)."""
    if len(p) == 1:
        return list(p)
    from statsmodels.stats.multitest import multipletests

    # The k-th smallest of m p times (m - k + 1), at most 1, never below the one before.
    return [float(value) for value in multipletests(p, method="holm")[1]]


def _every(units: int) -> Iterator[Flags]:
    """All permutations `[P, n]` that leave the first unit in place: the binary digits of P."""
    number = np.arange(2 ** max(0, units - 1))
    # A number below 2^(n - 1) has n - 1 digits, so the first of n columns is all 0.
    yield (number[:, None] >> np.arange(units)[::-1] & 1).astype(bool)


def _some(units: int, permutations: int, seed: int) -> Iterator[Flags]:
    """P random permutations `[P, n]`, each unit swapped with probability 1/2, in chunks."""
    rng = np.random.default_rng(seed)
    size = max(1, _CHUNK_BYTES // (8 * units))
    for start in range(0, permutations, size):
        amount = min(size, permutations - start)
        yield rng.random((amount, units)) < 0.5


def _differences(
    totals: tuple[Floats, Floats], changed: Floats, swaps: Flags, statistic: Statistic
) -> dict[str, Floats]:
    """Second minus first run, `[P]` by metric, after swapping the units flagged in `[P, n]`."""
    # Swapping a unit adds its change to the first run's total and takes it from the second's, so
    # that all permutations are one matrix product, of confusion matrices [P, n] x [n, K * K].
    moved = swaps.astype(np.float64) @ changed.reshape(len(changed), totals[0].size)
    moved = moved.reshape(-1, *totals[0].shape)
    first, second = statistic(totals[0] + moved), statistic(totals[1] - moved)
    return {name: second[name] - first[name] for name in second}
