"""Which experiments are not significantly worse than the best one.

Where the predictions of both are at hand, by the paired permutation test of `pipeline.comparison`
(whole speakers or dialogues are swapped), its p adjusted for all rows of the table by Holm's
method. Else by the 95 % intervals: a row ties if its interval overlaps that of the best. The two
are not alike: intervals that do not overlap mean a difference, but overlapping ones do not mean
that there is none, since a paired test takes out what utterances have in common.

No significant difference is no proof of equality; few speakers can show few differences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from features.errors import HeronryError
from pipeline.board_rows import Row
from pipeline.common_rows import common_rows
from pipeline.comparison import Settings, compare_rows
from pipeline.metrics import MONITORS
from pipeline.paired_tests import PermutationTest, holm
from pipeline.run_sources import PredictedRun, read_run
from pipeline.tables import RunError

LEVEL = 0.05
Basis = Literal["test", "interval", "none"]


@dataclass(frozen=True)
class Verdict:
    """How a row compares with the best one.

    Attributes:
        best: It is the best.
        tie: Not significantly worse; None: nothing is known.
        basis: What that rests on.
        p: Of the paired test.
        p_holm: Adjusted for all tests of the table.
        swapped: What the test swapped, such as "12 speakers".
        why: Why there is no test.
    """

    best: bool
    tie: bool | None
    basis: Basis
    p: float | None = None
    p_holm: float | None = None
    swapped: str | None = None
    why: str | None = None


def judge(
    rows: Sequence[Row],
    metric: str,
    *,
    tests: bool = True,
    read: Callable[[str], PredictedRun] = read_run,
) -> list[Verdict]:
    """Compare rows of one test set with the first of them.

    Args:
        rows: Best first.
        metric: By which they are ranked.
        tests: Whether to read predictions.
        read: Predictions of a revision.
    """
    if metric not in rows[0].metrics:
        return [Verdict(best=False, tie=None, basis="none", why=f"no {metric}")] * len(rows)
    verdicts = [Verdict(best=True, tie=None, basis="none")]
    best: PredictedRun | HeronryError | None = None
    for row in rows[1:]:
        tested: PermutationTest | str = "not asked for"
        if metric not in MONITORS:
            tested = f"there is no paired test of {metric}"
        elif tests:
            best = best or _read(rows[0], read)
            tested = _test(best, row, read)
        if isinstance(tested, str):
            verdicts.append(_by_interval(rows[0], row, metric, tested))
        else:
            swapped = f"{tested.units} {tested.unit}s"
            p = tested.p[metric]
            verdicts.append(Verdict(best=False, tie=None, basis="test", p=p, swapped=swapped))
    return _adjusted(verdicts)


def _adjusted(verdicts: Sequence[Verdict]) -> list[Verdict]:
    places = [k for k, verdict in enumerate(verdicts) if verdict.p is not None]
    adjusted = holm([verdicts[k].p or 0.0 for k in places]) if places else []
    found = list(verdicts)
    for k, p in zip(places, adjusted, strict=True):
        found[k] = replace(found[k], p_holm=p, tie=p >= LEVEL)
    return found


def _by_interval(best: Row, row: Row, metric: str, why: str) -> Verdict:
    first, second = best.interval(metric), row.interval(metric)
    if first is None or second is None:
        return Verdict(best=False, tie=None, basis="none", why=f"{why}, and no interval")
    overlap = first.low <= second.high and second.low <= first.high
    return Verdict(best=False, tie=overlap, basis="interval", why=why)


def _test(
    best: PredictedRun | HeronryError, row: Row, read: Callable[[str], PredictedRun]
) -> PermutationTest | str:
    """The test, or why there is none."""
    if isinstance(best, HeronryError):
        return f"of the best: {best}"
    other = _read(row, read)
    if isinstance(other, HeronryError):
        return str(other)
    try:
        rows = common_rows([best, other])
    except HeronryError as error:
        return str(error)
    return compare_rows(rows, Settings(flips=0), {}).pairs[0].test


def _read(row: Row, read: Callable[[str], PredictedRun]) -> PredictedRun | HeronryError:
    try:
        return read(row.rev)
    except HeronryError as error:
        return RunError(str(error).replace(row.rev, row.name))


def as_dict(verdict: Verdict) -> Mapping[str, Any]:
    """For JSON, without what there is not."""
    return {key: value for key, value in vars(verdict).items() if value is not None}
