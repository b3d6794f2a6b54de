"""A comparison of runs as a report: the same sections as plain text and as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

from features.process.terminal import aligned
from pipeline.compare.comparison import Change, Comparison, Pair
from pipeline.compare.flips import Flip
from pipeline.compare.significance import PermutationTest, few_units
from pipeline.evaluation.statistics import DRAWS, LEAST_CLUSTERS, ConfidenceInterval
from pipeline.html.format import few_clusters_note, quantity, shared_speakers_note
from pipeline.html.pages import page_environment
from pipeline.metrics.classes import MONITORS

NAMES = dict(zip(MONITORS, ("accuracy (WA)", "UAR", "macro F1", "weighted F1"), strict=True))
_WIDTH = 100  # characters of a line of notes
_TEXT = 60  # characters of a transcript that are shown
_NONE = "-"


OF_TEST = (
    "Scores of the test split say how good a chosen model is; choosing is done by scores of the "
    "validation split, as the board does."
)


@dataclass(frozen=True)
class Section:
    """A title, notes that explain the numbers, and a table, which may have no rows.

    `words` says whether the cells of the table are words rather than numbers.
    """

    title: str
    notes: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: bool = False


def sections(found: Comparison) -> list[Section]:
    """All sections, in order."""
    parts = [_runs(found), _scores(found)]
    for pair in found.pairs:
        parts += [_metrics(found, pair), _classes(found, pair), _flips(pair)]
    return parts


def as_text(parts: Sequence[Section]) -> str:
    """Sections as plain text, for a terminal or a file."""
    lines: list[str] = []
    for part in parts:
        lines += ["", part.title]
        for note in part.notes:
            lines += wrap(_plain(note), _WIDTH, initial_indent="  ", subsequent_indent="  ")
        if part.rows:
            cells = [[_plain(cell) for cell in row] for row in (part.header, *part.rows)]
            lines += [f"  {line}" for line in aligned(cells)]
    # Without the blank line above the first title.
    return "\n".join(lines[1:])


def as_html(names: Sequence[str], parts: Sequence[Section]) -> str:
    """Sections of a comparison of runs, by their names, as one HTML file."""
    pages = page_environment(Path(__file__).parent / "templates")
    title = "Comparison: " + ", ".join(names)
    return pages.get_template("comparison.html").render(title=title, sections=parts)


def _runs(found: Comparison) -> Section:
    folds = f" of {found.folds} folds, pooled" if found.folds > 1 else ""
    notes = [
        f"{found.utterances} test utterances{folds}, by {_people(found)}, that every run "
        f"predicted; {len(found.classes)} classes.",
        OF_TEST,
        *(each.line() for each in found.left_out),
    ]
    if len({run.seeds for run in found.runs}) > 1:
        notes.append(
            "Runs have different numbers of seeds: a mean of fewer seeds varies more, and p of the "
            "permutation test is approximate."
        )
    rows = tuple(
        (run.tag, run.name, run.whose or "not stated", str(run.seeds)) for run in found.runs
    )
    return Section("Runs", tuple(notes), ("", "run", "of", "seeds"), rows, words=True)


def _scores(found: Comparison) -> Section:
    notes = [
        "Mean over seeds; sd: standard deviation over seeds.",
        *interval_notes(found.clusters, found.unit),
        *_shared(found),
    ]
    rows = tuple(
        (
            NAMES[name] if k == 0 else "",
            run.tag,
            f"{s.value:.3f}",
            interval_cell(s.interval),
            sd_cell(s.sd),
        )
        for name in MONITORS
        for k, run in enumerate(found.runs)
        for s in (run.scores[name],)
    )
    return Section("Scores", tuple(notes), ("", "run", "score", "95 % interval", "sd"), rows)


def interval_notes(clusters: int, unit: str) -> Iterator[str]:
    """What intervals are over, and whether these are few."""
    if clusters >= LEAST_CLUSTERS:
        yield (
            f"95 % intervals: bootstrap over {quantity(clusters, unit)}, {DRAWS} draws, the same "
            "for all runs, widened for that number."
        )
    if note := few_clusters_note(clusters, unit):
        yield note


def _metrics(found: Comparison, pair: Pair) -> Section:
    names = {run.tag: run.name for run in found.runs}
    rows = tuple(
        (NAMES[name], *change_cells(change), p_cell(pair.test.p[name]), p_cell(pair.p_holm[name]))
        for name, change in pair.changes.items()
    )
    return Section(
        f"{pair.second} minus {pair.first}: {names[pair.second]} against {names[pair.first]}",
        (
            f"Above 0, {pair.second} is better. Interval: paired bootstrap, in which each draw of "
            f"{found.unit}s scores both runs.",
            *_of_test(pair),
            *_shared(found),
        ),
        ("", *_header(pair), *p_header(pair.test, len(found.pairs))),
        rows,
    )


def _of_test(pair: Pair) -> Iterator[str]:
    test = pair.test
    ways = "all there are" if test.exact else "drawn at random"
    yield (
        f"p: two-sided permutation test that swaps the two runs' predictions, {test.unit} by "
        f"{test.unit} ({test.units}, of which {test.differing} differ between the runs), "
        "with scores averaged over seeds; "
        f"{test.permutations} swaps ({ways}), so p cannot be below {p_cell(test.smallest)}. Holm: "
        "adjusted for the number of pairs compared, each metric by itself."
    )
    yield from few_note(test)


def _people(found: Comparison) -> str:
    several = f"{quantity(found.speakers, 'speaker')} in " if found.unit != "speaker" else ""
    return several + quantity(found.clusters, found.unit)


def _shared(found: Comparison) -> Iterator[str]:
    note = shared_speakers_note(found.shared_speakers, found.unit, p=True)
    if note:
        yield f"{note} --unit speaker draws and swaps whole people."


def _classes(found: Comparison, pair: Pair) -> Section:
    rows = tuple(
        (each.name, str(each.support), *change_cells(each.recall), *change_cells(each.f1))
        for each in pair.classes
    )
    header = _header(pair)
    named = (*(f"recall {cell}" for cell in header[:2]), *header[2:])
    named += (*(f"F1 {cell}" for cell in header[:2]), *header[2:])
    return Section(
        f"{pair.second} minus {pair.first}, by class",
        (
            "n: test utterances. Intervals as above, not adjusted for the number of classes.",
            *_shared(found),
        ),
        ("class", "n", *named),
        rows,
    )


def _flips(pair: Pair) -> Section:
    flips, test = pair.flips, pair.mcnemar
    counts = (
        f"{flips.right_to_wrong} right in {pair.first} and wrong in {pair.second}, "
        f"{flips.wrong_to_right} the other way round, {flips.wrong_to_wrong} wrong in both, but "
        "differently."
    )
    rows = [_flip(kind, each) for kind in ("lost", "won") for each in getattr(flips, kind)]
    total = flips.right_to_wrong + flips.wrong_to_right
    shown = f" {len(rows)} of {total} are listed, the greatest changes first." if rows else ""
    return Section(
        f"Utterances that changed from {pair.first} to {pair.second}",
        (
            "By the vote of each run's seeds (a tie goes to the higher mean probability): "
            + counts
            + shown,
            f"Exact McNemar test of these: p {p_cell(test.p)}, Holm {p_cell(pair.mcnemar_holm)}. "
            "It assumes independent utterances, and those of one speaker are not: this p is too "
            "small for conclusions about other speakers.",
        ),
        ("", "id", "speaker", "label", pair.first, pair.second, "p(label)", "text"),
        tuple(rows),
        words=True,
    )


def _flip(kind: str, flip: Flip) -> tuple[str, ...]:
    text = " ".join((flip.text or _NONE).split())
    short = text if len(text) <= _TEXT else text[: _TEXT - 3] + "..."
    answers = (flip.label, flip.before, flip.after)
    return (kind, flip.id, flip.speaker, *answers, f"{flip.gain:+.3f}", short)


def _header(pair: Pair) -> tuple[str, ...]:
    return (pair.first, pair.second, f"{pair.second} - {pair.first}", "95 % interval")


def change_cells(of: Change) -> tuple[str, ...]:
    """Both scores, their difference and its interval."""
    return (
        f"{of.first:.3f}",
        f"{of.second:.3f}",
        f"{of.value:+.3f}",
        interval_cell(of.interval, "+"),
    )


def interval_cell(interval: ConfidenceInterval | None, sign: str = "") -> str:
    """Both ends of an interval, or a dash."""
    if interval is None:
        return _NONE
    return f"{interval.low:{sign}.3f} to {interval.high:{sign}.3f}"


def sd_cell(value: float | None) -> str:
    """A standard deviation, or a dash."""
    return _NONE if value is None else f"{value:.3f}"


def p_header(test: PermutationTest, pairs: int) -> tuple[str, str]:
    """Headers of p and of the adjusted p, with the smallest p where units are few."""
    few = f" ({p_cell(test.smallest)} or more)" if any(few_note(test)) else ""
    return f"p{few}", f"p, Holm of {pairs}"


def few_note(test: PermutationTest) -> Iterator[str]:
    """A note where units are so few that it limits p."""
    if note := few_units(test.smallest, quantity(test.differing, f"differing {test.unit}")):
        yield note


def p_cell(value: float) -> str:
    """A p value."""
    return f"{value:.4f}" if value >= 0.0001 else f"{value:.1e}"


def _plain(text: str) -> str:
    """`text` without control characters, which would act on a terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
