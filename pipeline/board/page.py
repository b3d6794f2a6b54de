"""The board as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pipeline.board.rows import Row, Shown, ascends, reported
from pipeline.board.ties import LEVEL, Verdict
from pipeline.html.format import NAMES, NONE, number, same_people, span

if TYPE_CHECKING:
    from pipeline.board.ties import Group

_LONGEST = 48  # characters of a setting's value
_MARKS = {"test": "=", "interval": "~", "none": "?"}
_LEFT = {"name", "fusion", "regime", "corpus", "differing settings", ""}


def as_text(found: Sequence[Group], shown: Shown, metric: str) -> str:
    """The tables, what their marks mean, and what has no results."""
    lines: list[str] = []
    for group in found:
        settings = ", ".join(f"{key}={value}" for key, value in group.settings.items())
        lines += [f"{group.corpus}{f' ({settings})' if settings else ''}", *_table(group, metric)]
        lines += [*notes(group, metric), ""]
    if not found:
        lines += ["no experiment has results; `dvc exp run -S fusion=...` makes one", ""]
    if ascends(metric):
        lines.append(f"Less {metric} is better.")
    lines += [f"no results: {line}" for line in shown.without]
    return "\n".join(lines).rstrip()


def _table(group: Group, metric: str) -> Iterator[str]:
    scores = [_title(name) for name in dict.fromkeys((metric, reported(metric)))]
    header = ["", "name", "fusion", "regime", "corpus", *scores, "95 % interval"]
    rows = [[*header, "seeds", "seconds", "differing settings"]]
    for row, verdict in zip(group.rows, group.verdicts, strict=True):
        rows.append([mark(verdict), *_cells(row, metric)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = [name in _LEFT for name in rows[0]]
    for cells in rows:
        padded = (
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, width, is_left in zip(cells, widths, left, strict=True)
        )
        yield "  ".join(padded).rstrip()


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


def _title(metric: str) -> str:
    """Of a column."""
    name = NAMES.get(reported(metric), metric)
    return name if metric == reported(metric) else f"valid. {name}"


def mark(verdict: Verdict) -> str:
    """One sign: * best, = and ~ ties, + better on test, ? unknown, nothing where it is worse."""
    if verdict.best:
        return "*"
    if verdict.ahead and verdict.tie is False:
        return "+"
    return "" if verdict.tie is False else _MARKS[verdict.basis]


def notes(group: Group, metric: str) -> Iterator[str]:
    """What the marks, the intervals and the ranks of a group are to be taken for."""
    yield from (f"{row.name}: {row.note}" for row in group.rows if row.note)
    if metric != reported(metric):
        yield f"Ranked by {metric}; marks and intervals are of {reported(metric)} on the test split"
    elif metric in NAMES:
        yield f"Ranked by the test split, where the best of many is partly luck: see valid_{metric}"
    yield from _of_verdicts(group.verdicts)
    yield from _of_people(group)


def _of_people(group: Group) -> Iterator[str]:
    """Whether intervals and p tell of other people."""
    shared = max(
        *(verdict.shared for verdict in group.verdicts),
        *(int(row.metrics.get("shared_speakers", 0)) for row in group.rows),
    )
    told = same_people(shared, "dialogue", p=any(v.p is not None for v in group.verdicts))
    if told:
        yield f"{told} `--unit speaker` tests with whole people"


def _of_verdicts(verdicts: Sequence[Verdict]) -> Iterator[str]:
    bases = {verdict.basis for verdict in verdicts if not verdict.best}
    if any(mark(verdict) == "+" for verdict in verdicts):
        yield "+ better than * on the test split all the same"
    if "test" in bases:
        swapped = sorted({verdict.swapped for verdict in verdicts if verdict.swapped})
        yield (
            f"= not significantly worse than the best (*): paired permutation test, p >= {LEVEL} "
            f"after Holm's correction; swapped as a whole: {', '.join(swapped)}"
        )
        if any(what.endswith(" utterances") for what in swapped):
            yield "  where utterances are swapped, speakers are too few: that p is too small"
    if "interval" in bases:
        yield "~ its interval overlaps the best one's; a paired test might still tell them apart"
    if "none" in bases:
        yield "? nothing to compare by"
    yield from sorted({f"  no test: {v.why}" for v in verdicts if v.why and v.basis != "test"})


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
