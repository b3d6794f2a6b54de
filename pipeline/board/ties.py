"""Rank experiments by test set, and find those that are not significantly worse than the best one.

Where the predictions of both are available, the paired permutation test of
`pipeline.compare.comparison` decides (whole speakers or dialogues are swapped), its p adjusted for
all rows of the table by Holm's method. Else the 95 % intervals do: a row ties if its interval
overlaps that of the best. Both are of the test split, whichever metric ranks: a row that validates
worse than the best may test better. The interval rule is the weaker one: intervals that do not
overlap mean a difference, but overlapping ones do not exclude it, since only a paired test removes
the variance that the runs share because they were tested on the same utterances.

No significant difference is no proof of equality: few speakers can show few differences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from features.errors import HeronryError, RunError
from pipeline.board.rows import Row, Shown, ascends, check_metric, reported
from pipeline.compare.comparison import Change, Settings
from pipeline.compare.kinds import compare_read
from pipeline.compare.significance import LEVEL, PermutationTest, holm
from pipeline.compare.sources import PredictedRun, read_run
from pipeline.compare.targets import is_of_target
from pipeline.metrics.classes import MONITORS

_HASH = 7  # letters that are shown
_Test = tuple[tuple[str, str], ...]
Basis = Literal["test", "interval", "none"]


@dataclass(frozen=True)
class Verdict:
    """How a row compares with the best one; the fields are keys of `board --json`.

    Attributes:
        best: Whether it is the best.
        tie: Whether it is neither significantly worse nor better; None: unknown.
        ahead: Whether it is significantly better on the test split, though it ranks lower.
        basis: Evidence for `tie` and `ahead`.
        p: p of the paired test.
        p_holm: p adjusted for all tests of the table.
        smallest: The smallest p that the test can give.
        swapped: Units that the test swapped, such as "12 speakers".
        shared: Number of speakers in several dialogues, where dialogues were drawn or swapped.
        why: Why there is no test.
    """

    best: bool
    tie: bool | None
    basis: Basis
    p: float | None = None
    p_holm: float | None = None
    smallest: float | None = None
    swapped: str | None = None
    ahead: bool = False
    shared: int = 0
    why: str | None = None


@dataclass(frozen=True)
class Group:
    """Experiments that are scored on the same utterances, with their verdicts.

    Attributes:
        settings: Settings of the corpus in which this group differs from another of that name; the
            hash of the test set where none is known.
        rows: Rows, best first or in the order asked for.
    """

    corpus: str
    settings: Mapping[str, str]
    rows: Sequence[Row]
    verdicts: Sequence[Verdict]


def groups(
    shown: Shown,
    metric: str,
    *,
    sort: str = "metric",
    tests: bool = True,
    unit: str | None = None,
) -> list[Group]:
    """Rows grouped by test set, since scores on different test sets cannot be compared.

    Args:
        shown: All rows.
        metric: Metric that ranks the rows.
        sort: "metric", or the column that orders the rows of a group.
        tests: Whether to read predictions for paired tests.
        unit: "speaker" or "dialogue", for the test of ties; None: as in `compare`.

    Raises:
        ParamsError: If no row has the metric.
    """
    check_metric(shown.rows, metric)
    sets: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row in shown.rows:
        sets.setdefault(row.test, []).append(row)
    found = []
    for test, rows in sorted(sets.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        ranked = sorted(rows, key=lambda row: _rank(row, metric))
        verdicts = judge(ranked, metric, tests=tests, unit=unit)
        pairs = list(zip(ranked, verdicts, strict=True))
        if sort != "metric":
            pairs.sort(key=lambda pair: _key(pair[0], sort))
        settings = _distinct_settings(test, sets)
        found.append(Group(rows[0].corpus, settings, *map(list, zip(*pairs, strict=True))))
    return found


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
        rows: Rows, best first.
        metric: Metric that ranks them.
        tests: Whether to read predictions for paired tests.
        unit: "speaker" or "dialogue", swapped as a whole; None: as in `compare`.
        read: Reads the predictions of a revision.
    """
    if metric not in rows[0].metrics:
        return [Verdict(best=False, tie=None, basis="none", why=f"no {metric}")] * len(rows)
    verdicts = [Verdict(best=True, tie=None, basis="none")]
    best: PredictedRun | HeronryError | None = None
    score = reported(metric)
    for row in rows[1:]:
        found: Verdict | str = "not asked for"
        if score not in MONITORS and not is_of_target(score):
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
    # Significance is judged by the adjusted p alone; `ahead` was so far the sign of the difference.
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
    """Verdict of the paired test, its p not yet adjusted; or why there is none."""
    if isinstance(best, HeronryError):
        return f"of the best: {best}"
    if isinstance(other, HeronryError):
        return str(other)
    try:
        found = compare_read([best, other], Settings(flips=0, unit=unit))
    except HeronryError as error:
        return str(error)
    if found.classes is not None and score in MONITORS:
        pair, shared = found.classes.pairs[0], found.classes.shared_speakers
        return _verdict(pair.test, pair.test.p[score], pair.changes[score], score, shared)
    if found.targets is not None and score in found.targets.pairs[0].p:
        of_targets, shared = found.targets.pairs[0], found.targets.shared_speakers
        # Both kinds swap the same units.
        test = next(iter(of_targets.tests.values()))
        return _verdict(test, of_targets.p[score], of_targets.changes[score], score, shared)
    return f"there is no paired test of {score}"


def _verdict(test: PermutationTest, p: float, change: Change, score: str, shared: int) -> Verdict:
    return Verdict(
        best=False,
        tie=None,
        basis="test",
        p=p,
        smallest=test.smallest,
        swapped=f"{test.units} {test.unit}s",
        ahead=change.value < 0 if ascends(score) else change.value > 0,
        shared=shared,
    )


def _read(row: Row, read: Callable[[str], PredictedRun]) -> PredictedRun | HeronryError:
    try:
        return read(row.rev)
    except HeronryError as error:
        return RunError(str(error).replace(row.rev, row.name))


def _rank(row: Row, metric: str) -> tuple[bool, float, str]:
    value = row.metrics.get(metric)
    if value is None:
        return True, 0.0, row.name
    return False, value if ascends(metric) else -value, row.name


def _key(row: Row, sort: str) -> tuple[Any, str]:
    number = {"seeds": "seeds", "seconds": "train_seconds"}.get(sort)
    return (row.metrics.get(number, 0) if number else getattr(row, sort)), row.name


def _distinct_settings(test: _Test, sets: Mapping[_Test, Sequence[Row]]) -> dict[str, str]:
    """Settings of a test set in which it differs from others of the same corpus."""
    others = [of for of in sets if dict(of)["corpus"] == dict(test)["corpus"] and of != test]
    mine, theirs = _settings(sets[test]), [_settings(sets[other]) for other in others]
    found = {k: v for k, v in mine.items() if any(other.get(k, "") != v for other in theirs)}
    if others and not found and "test" in dict(test):
        return {"test": dict(test)["test"][:_HASH]}
    return found


def _settings(rows: Sequence[Row]) -> Mapping[str, str]:
    """Settings of the corpus that all rows of a test set share, as far as they are known."""
    known = [row.settings.items() for row in rows if row.settings]
    return dict(sorted(set(known[0]).intersection(*known[1:]))) if known else {}
