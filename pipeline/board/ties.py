"""Which experiments are not significantly worse than the best one.

Where the predictions of both are at hand, by the paired permutation test of
`pipeline.compare.comparison` (whole speakers or dialogues are swapped), its p adjusted for all rows
of the table by Holm's method. Else by the 95 % intervals: a row ties if its interval overlaps that
of the best. Both are of the test split, whatever ranks: a row that validates worse than the best
may test better. The two are not alike: intervals that do not overlap mean a difference, but
overlapping ones do not mean that there is none, since a paired test takes out what utterances have
in common.

No significant difference is no proof of equality; few speakers can show few differences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from features.errors import HeronryError, RunError
from pipeline.board.rows import Row, ascends, reported
from pipeline.compare.comparison import Settings, compare_rows
from pipeline.compare.rows import common_rows
from pipeline.compare.significance import holm
from pipeline.compare.sources import PredictedRun, read_run
from pipeline.metrics import MONITORS


@dataclass(frozen=True)
class Group:
    """Experiments that are scored on the same utterances.

    Attributes:
        corpus: Its name.
        settings: Those of the corpus in which this group differs from another of its name; the
            hash of what is scored where none is known.
        rows: Best first, or in the order asked for.
        verdicts: One a row.
    """

    corpus: str
    settings: Mapping[str, str]
    rows: Sequence[Row]
    verdicts: Sequence[Verdict]


LEVEL = 0.05
Basis = Literal["test", "interval", "none"]


@dataclass(frozen=True)
class Verdict:
    """How a row compares with the best one.

    Attributes:
        best: It is the best.
        tie: Neither significantly worse nor better; None: nothing is known.
        ahead: Significantly better on the test split, though it ranks below the best.
        basis: What that rests on.
        p: Of the paired test.
        p_holm: Adjusted for all tests of the table.
        swapped: What the test swapped, such as "12 speakers".
        shared: How many speakers are in several dialogues, where dialogues were drawn or swapped.
        why: Why there is no test.
    """

    best: bool
    tie: bool | None
    basis: Basis
    p: float | None = None
    p_holm: float | None = None
    swapped: str | None = None
    ahead: bool = False
    shared: int = 0
    why: str | None = None


def judge(
    rows: Sequence[Row],
    metric: str,
    *,
    tests: bool = True,
    unit: str | None = None,
    read: Callable[[str], PredictedRun] = read_run,
) -> list[Verdict]:
    """Compare rows of one test set with the first of them.

    Args:
        rows: Best first.
        metric: By which they are ranked.
        tests: Whether to read predictions.
        unit: "speaker" or "dialogue", swapped as a whole; None: as `compare`.
        read: Predictions of a revision.
    """
    if metric not in rows[0].metrics:
        return [Verdict(best=False, tie=None, basis="none", why=f"no {metric}")] * len(rows)
    verdicts = [Verdict(best=True, tie=None, basis="none")]
    best: PredictedRun | HeronryError | None = None
    score = reported(metric)
    for row in rows[1:]:
        found: Verdict | str = "not asked for"
        if score not in MONITORS:
            found = f"there is no paired test of {score}"
        elif tests:
            best = best or _read(rows[0], read)
            found = _test(best, _read(row, read), score, unit)
        if isinstance(found, str):
            found = _by_interval(rows[0], row, score, found)
        verdicts.append(found)
    return _adjusted(verdicts)


def _adjusted(verdicts: Sequence[Verdict]) -> list[Verdict]:
    places = [k for k, verdict in enumerate(verdicts) if verdict.p is not None]
    adjusted = holm([verdicts[k].p or 0.0 for k in places]) if places else []
    found = list(verdicts)
    for k, p in zip(places, adjusted, strict=True):
        found[k] = replace(found[k], p_holm=p, tie=p >= LEVEL, ahead=found[k].ahead and p < LEVEL)
    return found


def _by_interval(best: Row, row: Row, metric: str, why: str) -> Verdict:
    first, second = best.interval(metric), row.interval(metric)
    if first is None or second is None:
        return Verdict(best=False, tie=None, basis="none", why=f"{why}, and no interval")
    overlap = first.low <= second.high and second.low <= first.high
    ahead = second.high < first.low if ascends(metric) else second.low > first.high
    shared = int(max(each.metrics.get("shared_speakers", 0) for each in (best, row)))
    found = Verdict(best=False, tie=overlap, basis="interval", why=why)
    return replace(found, ahead=ahead, shared=shared)


def _test(
    best: PredictedRun | HeronryError,
    other: PredictedRun | HeronryError,
    score: str,
    unit: str | None,
) -> Verdict | str:
    """By the test, its p not yet adjusted; or why there is none."""
    if isinstance(best, HeronryError):
        return f"of the best: {best}"
    if isinstance(other, HeronryError):
        return str(other)
    try:
        rows = common_rows([best, other], unit=unit)
    except HeronryError as error:
        return str(error)
    pair = compare_rows(rows, Settings(flips=0, unit=unit), {}).pairs[0]
    return Verdict(
        best=False,
        tie=None,
        basis="test",
        p=pair.test.p[score],
        swapped=f"{pair.test.units} {pair.test.unit}s",
        ahead=pair.changes[score].value > 0,
        shared=rows.shared_speakers,
    )


def _read(row: Row, read: Callable[[str], PredictedRun]) -> PredictedRun | HeronryError:
    try:
        return read(row.rev)
    except HeronryError as error:
        return RunError(str(error).replace(row.rev, row.name))


def as_dict(verdict: Verdict) -> Mapping[str, Any]:
    """For JSON, without what there is not."""
    left_out = {"ahead": False, "shared": 0}
    return {
        key: value
        for key, value in vars(verdict).items()
        if value is not None and left_out.get(key) != value
    }
