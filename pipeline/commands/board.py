"""`python -m pipeline board`: the experiments, best first, and which of them are not worse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from features.errors import ParamsError
from pipeline.board.page import as_text, notes
from pipeline.board.rows import Row, Shown, ascends, check_metric, read_shown, reported
from pipeline.board.ties import Group, Verdict, as_dict, judge
from pipeline.compare.rows import UNIT
from pipeline.evaluation.rows import UNITS
from pipeline.storage.dvc_command import dvc_output

_Test = tuple[tuple[str, str], ...]
_HASH = 7  # letters that are shown

SORTS = ("metric", "name", "fusion", "regime", "seeds", "seconds")
_METRIC = (
    "A number of reports/metrics.json that ranks, such as valid_uar. Scores of the test split rank "
    "too, but the best of many by them is partly luck."
)


def board(
    *,
    metric: Annotated[str, typer.Option(help=_METRIC)] = "valid_weighted_f1",
    sort: Annotated[str, typer.Option(help=f"Order of rows: {', '.join(SORTS)}.")] = "metric",
    all_commits: Annotated[
        bool, typer.Option("--all-commits", help="Not just the experiments of the last commit.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read no predictions: ties by intervals alone.")
    ] = False,
    unit: Annotated[str | None, typer.Option(help=f"{UNIT} For the test of ties.")] = None,
    as_object: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """List the experiments, best on validation first, marking those that test no worse."""
    if sort not in SORTS:
        raise ParamsError(f"--sort {sort!r}; expected one of {list(SORTS)}")
    if unit not in (None, *UNITS):
        raise ParamsError(f"--unit {unit!r}; expected one of {list(UNITS)}")
    words = ["exp", "show", "--json", *(["--all-commits"] if all_commits else [])]
    shown = read_shown(json.loads(dvc_output(words)))
    found = groups(shown, metric, sort=sort, tests=not quick, unit=unit)
    typer.echo(as_json(found, shown, metric) if as_object else as_text(found, shown, metric))


def groups(
    shown: Shown,
    metric: str,
    *,
    sort: str = "metric",
    tests: bool = True,
    unit: str | None = None,
) -> list[Group]:
    """The rows by what they are scored on, as a score on another test set says nothing here.

    Args:
        shown: All rows.
        metric: What ranks.
        sort: One of `SORTS`.
        tests: Whether to read predictions.
        unit: "speaker" or "dialogue", for the test of ties; None: as `compare`.

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
        settings = _peculiar(test, sets)
        found.append(Group(rows[0].corpus, settings, *map(list, zip(*pairs, strict=True))))
    return found


def as_json(found: Sequence[Group], shown: Shown, metric: str) -> str:
    """All there is, unrounded."""

    def record(row: Row, verdict: Verdict) -> dict[str, Any]:
        interval = row.interval(reported(metric))
        return {
            **{key: getattr(row, key) for key in ("name", "rev", "fusion", "regime", "corpus")},
            **({"note": row.note} if row.note else {}),
            **{name: row.metrics.get(name) for name in dict.fromkeys((metric, reported(metric)))},
            "interval": None if interval is None else [interval.low, interval.high],
            "seeds": row.metrics.get("seeds"),
            "seconds": row.metrics.get("train_seconds"),
            "differing": row.differing,
            "against_best": as_dict(verdict),
        }

    content = {
        "metric": metric,
        "better": "lower" if ascends(metric) else "higher",
        "groups": [
            {
                "corpus": group.corpus,
                "settings": group.settings,
                "notes": list(notes(group, metric)),
                "rows": [record(*pair) for pair in zip(group.rows, group.verdicts, strict=True)],
            }
            for group in found
        ],
        "without_results": shown.without,
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def _rank(row: Row, metric: str) -> tuple[bool, float, str]:
    value = row.metrics.get(metric)
    if value is None:
        return True, 0.0, row.name
    return False, value if ascends(metric) else -value, row.name


def _key(row: Row, sort: str) -> tuple[Any, str]:
    number = {"seeds": "seeds", "seconds": "train_seconds"}.get(sort)
    return (row.metrics.get(number, 0) if number else getattr(row, sort)), row.name


def _peculiar(test: _Test, sets: Mapping[_Test, Sequence[Row]]) -> dict[str, str]:
    """Settings of a test set in which others of the same corpus differ from it."""
    others = [of for of in sets if dict(of)["corpus"] == dict(test)["corpus"] and of != test]
    mine, theirs = _settings(sets[test]), [_settings(sets[other]) for other in others]
    found = {k: v for k, v in mine.items() if any(other.get(k, "") != v for other in theirs)}
    if others and not found and "test" in dict(test):
        return {"test": dict(test)["test"][:_HASH]}
    return found


def _settings(rows: Sequence[Row]) -> Mapping[str, str]:
    """Of a corpus, as far as they are known: rows of one test set have them in common."""
    known = [row.settings.items() for row in rows if row.settings]
    return dict(sorted(set(known[0]).intersection(*known[1:]))) if known else {}
