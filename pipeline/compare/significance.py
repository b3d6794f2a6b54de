"""Is the difference between two runs more than chance? Paired tests on the same utterances.

The permutation test asks how often a difference as large would come out if the two runs were
exchangeable (Fisher 1935; Good, Permutation, Parametric and Bootstrap Tests of Hypotheses, 2005,
chapter 3). What may be swapped is what is independent. Utterances of a speaker are not: a model
that hears this voice well gets many of them right. So each speaker's (or dialogue's) predictions
are swapped as a whole. With n of them in which the runs differ there are 2^n ways, and the
smallest two-sided p is 2^(1 - n). Below `FEWEST` clusters a test could hardly reject, so that
single utterances are swapped then; as they are not independent, that p is too small.

All seeds of a run enter as one: the statistic is the difference of a metric of the confusion
matrices averaged over seeds. For accuracy and UAR that is the difference of the means over seeds,
as these are linear where the labels are fixed; for F1 it is not quite. Runs may have different
numbers of seeds; then the test holds approximately, as a mean of few seeds varies more.

Legend: P permutations, n units, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.statistics import Statistic
from pipeline.metrics import Floats

PERMUTATIONS = 9999
LEAST_PERMUTATIONS = 2000
FEWEST = 10
"""Below so many clusters utterances are swapped: nine allow no p below 0.004, six none below 0.03,
and Holm's correction multiplies it."""

_TOLERANCE = 1e-9
_CHUNK_BYTES = 1 << 25

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class PermutationTest:
    """Two-sided p of each metric.

    Attributes:
        unit: What was swapped as a whole: "speaker", "dialogue" or "utterance".
        units: How many there are.
        differing: How many have unequal confusion matrices; the others do not matter.
        permutations: How many swaps were scored.
        exact: Whether these were all there are (up to exchanging the names of the runs).
        smallest: The smallest p that the test could have had.
        p: By metric.
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

    It takes utterances as independent, so it is too sure where speakers matter.

    Attributes:
        right_to_wrong: Right in the first run only.
        wrong_to_right: Right in the second run only.
        p: Two-sided, from the binomial distribution (McNemar 1947).
    """

    right_to_wrong: int
    wrong_to_right: int
    p: float


def permutation_test(
    pair: tuple[Floats, Floats],
    statistic: Statistic,
    unit: str,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> PermutationTest:
    """Swap the two runs' predictions unit by unit.

    Where there are at most P ways to do so, all are scored and p is their share that is at least
    as extreme; else P of them are drawn, and the given one is counted as one more of them, so that
    p is never 0 (Phipson & Smyth 2010): p = (b + 1) / (P + 1).

    Args:
        pair: Confusion matrices `[n, K, K]` of each unit, averaged over seeds, of either run.
        statistic: Names and computes the metrics.
        unit: What n counts, for the record.
        permutations: P.
        seed: Of the generator.
    """
    first, second = (np.asarray(each, np.float64) for each in pair)
    change = second - first
    changed = change[np.abs(change).max((1, 2)) > _TOLERANCE]
    differing = len(changed)
    # swapping all units alike only turns the sign, so one of them can stay as it is
    exact = 2 ** max(0, differing - 1) <= permutations
    scored = 2 ** max(0, differing - 1) if exact else permutations
    totals = first.sum(0), second.sum(0)
    observed = _differences(totals, changed, np.zeros((1, differing), bool), statistic)
    extreme = dict.fromkeys(observed, 0 if exact else 1)
    for swaps in _every(differing) if exact else _some(differing, permutations, seed):
        for name, values in _differences(totals, changed, swaps, statistic).items():
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


def mcnemar(first_right: Flags, second_right: Flags) -> McNemar:
    """Compare which utterances two runs have right, `[U]` each."""
    # statsmodels takes seconds to import, and other commands do not need it
    from statsmodels.stats.contingency_tables import mcnemar as exact_test

    lost, won = int((first_right & ~second_right).sum()), int((~first_right & second_right).sum())
    both, none = int((first_right & second_right).sum()), int((~first_right & ~second_right).sum())
    found = exact_test([[both, lost], [won, none]], exact=True)
    return McNemar(lost, won, float(found.pvalue))


def holm(p: Sequence[float]) -> list[float]:
    """Adjust the p of several tests so that the chance of any false alarm is kept (Holm 1979)."""
    if len(p) == 1:
        return list(p)
    from statsmodels.stats.multitest import multipletests

    return [float(value) for value in multipletests(p, method="holm")[1]]


def _every(units: int) -> Iterator[Flags]:
    """All swaps `[P, n]` that leave the first unit as it is."""
    number = np.arange(2 ** max(0, units - 1))
    yield (number[:, None] >> np.arange(units)[::-1] & 1).astype(bool)


def _some(units: int, permutations: int, seed: int) -> Iterator[Flags]:
    """P swaps `[P, n]`, each unit by a fair coin; the chunks change no numbers."""
    rng = np.random.default_rng(seed)
    size = max(1, _CHUNK_BYTES // (8 * units))
    for start in range(0, permutations, size):
        amount = min(size, permutations - start)
        yield rng.random((amount, units)) < 0.5


def _differences(
    totals: tuple[Floats, Floats], changed: Floats, swaps: Flags, statistic: Statistic
) -> dict[str, Floats]:
    """Second minus first run, `[P]` by metric, after swapping the units flagged in `[P, n]`."""
    units, classes, _ = changed.shape if len(changed) else (0, *totals[0].shape)
    moved = swaps.astype(np.float64) @ changed.reshape(units, classes * classes)
    moved = moved.reshape(-1, classes, classes)
    first, second = statistic(totals[0] + moved), statistic(totals[1] - moved)
    return {name: second[name] - first[name] for name in second}
