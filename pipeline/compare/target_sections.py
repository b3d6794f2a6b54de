"""Sections of a comparison by attributes and votes."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.compare.page import (
    OF_TEST,
    Section,
    change_cells,
    few_note,
    interval_cell,
    interval_notes,
    p_cell,
    p_header,
    sd_cell,
)
from pipeline.compare.targets import TargetComparison, TargetPair, lower_is_better
from pipeline.html.format import shared_speakers_note


def target_sections(found: TargetComparison) -> list[Section]:
    """Scores of the runs, and a table for each pair."""
    return [_runs(found), *(_pair(found, pair) for pair in found.pairs)]


def _runs(found: TargetComparison) -> Section:
    kinds = [*found.attributes, *(["votes"] if found.votes else [])]
    notes = [
        f"{found.utterances} test utterances that every run predicted, with the same truth of "
        f"{', '.join(kinds)}. Mean over seeds; sd: standard deviation over seeds.",
        OF_TEST,
        *interval_notes(found.clusters, found.unit),
        *_shared(found),
    ]
    names = [name for name in found.runs[0].scores if all(name in r.scores for r in found.runs)]
    rows = tuple(
        (
            name if k == 0 else "",
            *(run.tag, f"{score.value:.3f}", interval_cell(score.interval), sd_cell(score.sd)),
        )
        for name in names
        for k, run in enumerate(found.runs)
        for score in (run.scores[name],)
    )
    header = ("", "run", "score", "95 % interval", "sd")
    return Section("Scores of attributes and votes", tuple(notes), header, rows)


def _pair(found: TargetComparison, pair: TargetPair) -> Section:
    rows = tuple(
        (
            f"{name} (lower is better)" if lower_is_better(name) else name,
            *change_cells(change),
            p_cell(pair.p[name]),
            p_cell(pair.p_holm[name]),
        )
        for name, change in pair.changes.items()
    )
    first, second = pair.first, pair.second
    header = ("", first, second, f"{second} - {first}", "95 % interval")
    return Section(
        f"{second} minus {first}, by attributes and votes",
        (*_tests(pair), *_shared(found)),
        (*header, *p_header(next(iter(pair.tests.values())), len(found.pairs))),
        rows,
    )


def _tests(pair: TargetPair) -> Iterator[str]:
    test = next(iter(pair.tests.values()))
    ways = "all there are" if test.exact else "drawn at random"
    yield (
        f"p: two-sided permutation test that swaps the two runs' predictions, {test.unit} by "
        f"{test.unit} ({test.units}), seed by seed; {test.permutations} swaps ({ways}), so p "
        f"cannot be below {p_cell(test.smallest)}. Holm: adjusted for the number of pairs "
        "compared, each score by itself. There is no McNemar test, as a number is not right or "
        "wrong."
    )
    yield from few_note(test)


def _shared(found: TargetComparison) -> Iterator[str]:
    note = shared_speakers_note(found.shared_speakers, found.unit, p=True)
    if note:
        yield f"{note} --unit speaker draws and swaps whole people."
