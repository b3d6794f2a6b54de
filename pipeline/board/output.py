"""The board as a table of text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from features.process.terminal import aligned
from pipeline.board.rows import Row, Shown, ascends, reported
from pipeline.board.ties import Group, Verdict
from pipeline.compare.significance import LEVEL, few_units
from pipeline.html.format import NAMES, NONE, number, shared_speakers_note, span
from pipeline.report.metrics_json import split_of

_LONGEST = 48  # characters of a setting's value
_VALID = "valid_"
_MARKS = {"test": "=", "interval": "~", "none": "?"}
_LEFT = {"name", "fusion", "regime", "corpus", "differing settings", ""}


def as_text(found: Sequence[Group], shown: Shown, metric: str) -> str:
    """The tables, the meaning of their marks, and the experiments without results."""
    lines: list[str] = []
    for group in found:
        settings = ", ".join(f"{key}={value}" for key, value in group.settings.items())
        lines += [f"{group.corpus}{f' ({settings})' if settings else ''}", *_table(group, metric)]
        lines += [*notes(group, metric), ""]
    if not found:
        lines += ["no experiment has results; `heronry run MODEL` makes one", ""]
    if ascends(metric):
        lines.append(f"Less {metric} is better.")
    lines += [f"no results: {line}" for line in shown.without]
    lines += [*shown.same, *shown.unreported]
    if shown.elsewhere:
        lines.append(f"{shown.elsewhere} more below other commits: --all-commits")
    return "\n".join(lines).rstrip()


def as_json(found: Sequence[Group], shown: Shown, metric: str) -> str:
    """The groups with all numbers, unrounded."""

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
            "against_best": _verdict(verdict),
        }

    content = {
        "metric": metric,
        "of_split": split_of(metric),
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
        "same_results": shown.same,
        "unreported": shown.unreported,
        "below_other_commits": shown.elsewhere,
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def _table(group: Group, metric: str) -> list[str]:
    scores = _titles(metric)
    header = ["", "name", "fusion", "regime", "corpus", *scores, "95 % interval"]
    rows = [[*header, "seeds", "seconds", "differing settings"]]
    for row, verdict in zip(group.rows, group.verdicts, strict=True):
        rows.append([mark(verdict), *_cells(row, metric)])
    columns = (
        column if column[0] in _LEFT else [cell.rjust(max(map(len, column))) for cell in column]
        for column in zip(*rows, strict=True)
    )
    return aligned(zip(*columns, strict=True))


def _cells(row: Row, metric: str) -> list[str]:
    counts = (row.metrics.get(key) for key in ("seeds", "train_seconds"))
    values = [row.metrics.get(name) for name in dict.fromkeys((metric, reported(metric)))]
    return [
        *(row.name, row.fusion, row.regime, row.corpus),
        *(f"{v:,g}" if v is not None and abs(v) > 1 else number(v) for v in values),
        span(row.interval(reported(metric))),
        *(NONE if count is None else f"{count:,.0f}" for count in counts),
        ", ".join(f"{name}={_short(value)}" for name, value in row.differing.items()),
    ]


def _titles(metric: str) -> list[str]:
    """Headers of the column that ranks, and of the test split's where that is another one."""
    name = NAMES.get(reported(metric), reported(metric))
    if split_of(metric) == "valid":
        return [f"valid. {name}", f"test {name}"]
    return [f"RANKED BY TEST: {name}" if split_of(metric) else name]


def mark(verdict: Verdict) -> str:
    """Mark of a row: * best, = and ~ ties, + better on test, ? unknown, empty if it is worse."""
    if verdict.best:
        return "*"
    if verdict.ahead and verdict.tie is False:
        return "+"
    return "" if verdict.tie is False else _MARKS[verdict.basis]


def notes(group: Group, metric: str) -> Iterator[str]:
    """Notes on the ranks, marks and intervals of a group."""
    yield from (f"{row.name}: {row.note}" for row in group.rows if row.note)
    if metric != reported(metric):
        yield f"Ranked by {metric}; marks and intervals are of {reported(metric)} on the test split"
    elif split_of(metric) == "test":
        known = any(f"{_VALID}{metric}" in row.metrics for row in group.rows)
        yield (
            f"RANKED BY TEST: the best of many by scores of the test split is partly luck, and its "
            f"score too high. Choose by the validation split: --metric {_VALID}"
            f"{metric if known else 'macro_f1'}"
        )
    yield from _legend(group.verdicts)
    shared = max(
        *(verdict.shared for verdict in group.verdicts),
        *(int(row.metrics.get("shared_speakers", 0)) for row in group.rows),
    )
    note = shared_speakers_note(shared, "dialogue", p=any(v.p is not None for v in group.verdicts))
    if note:
        yield f"{note} `--unit speaker` tests with whole people"


def _legend(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """The meaning of the marks that occur, and the reasons for missing tests."""
    bases = {verdict.basis for verdict in verdicts if not verdict.best}
    if any(mark(verdict) == "+" for verdict in verdicts):
        yield "+ better than * on the test split, though it ranks lower"
    if "test" in bases:
        swapped = sorted({verdict.swapped for verdict in verdicts if verdict.swapped})
        yield (
            f"= not significantly worse than the best (*): paired permutation test, p >= {LEVEL} "
            f"after Holm's correction; swapped as a whole: {', '.join(swapped)}"
        )
        few = {few_units(v.smallest, v.swapped) for v in verdicts if v.smallest and v.swapped}
        yield from (f"  {line}" for line in sorted(few) if line)
    if "interval" in bases:
        yield "~ its interval overlaps the best one's; a paired test might still separate them"
    if "none" in bases:
        yield "? neither predictions nor an interval to compare by"
    yield from sorted({f"  no test: {v.why}" for v in verdicts if v.why and v.basis != "test"})


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _verdict(verdict: Verdict) -> Mapping[str, Any]:
    """The fields that are set, for JSON."""
    left_out = {"ahead": False, "shared": 0}
    return {
        key: value
        for key, value in vars(verdict).items()
        if value is not None and left_out.get(key) != value
    }
