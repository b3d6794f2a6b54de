"""Compares runs by every kind of target that all of them learn: classes, attributes, votes.

Each kind has its own rows and tests, and none is a sum over kinds. Classes are compared on the rows
that have one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase

from features.errors import ParamsError
from pipeline.compare.comparison import Comparison, Settings, compare_rows
from pipeline.compare.rows import common_rows
from pipeline.compare.sources import PredictedRun, known_labels, read_run
from pipeline.compare.targets import TargetComparison, compare_targets


@dataclass(frozen=True)
class Comparisons:
    """What was compared; None for a kind that some run does not learn."""

    classes: Comparison | None
    targets: TargetComparison | None


def compare_any(names: Sequence[str], settings: Settings | None = None) -> Comparisons:
    """Read runs and compare them by all that they learn in common.

    Args:
        names: Two or more names, as `pipeline.compare.sources.read_run` takes them.
        settings: Settings; None: the defaults.

    Raises:
        RunError: If a run cannot be read, truth differs, or too few rows are common.
        ParamsError: If a run is not known, there are too few or too many, or they learn nothing in
            common.
    """
    return compare_read([read_run(name) for name in names], settings or Settings(), texts=True)


def compare_read(
    runs: Sequence[PredictedRun], settings: Settings, *, texts: bool = False
) -> Comparisons:
    """Compare runs that are read; `texts`: whether to look for transcripts."""
    if not 2 <= len(runs) <= len(ascii_uppercase):
        raise ParamsError(f"{len(runs)} runs to compare; expected 2 to {len(ascii_uppercase)}")
    tagged = dict(zip(ascii_uppercase, runs, strict=False))
    targets = compare_targets(tagged, settings)
    labelled = [each for each in map(with_classes, runs) if each is not None]
    same = all(set(run.classes) == set(runs[0].classes) for run in runs)
    classes = None
    # Runs with other classes are refused there, unless they can be compared by something else.
    if len(labelled) == len(runs) and (same or targets is None):
        rows = common_rows(labelled, unit=settings.unit)
        classes = compare_rows(rows, settings, known_labels(labelled) if texts else {})
    if classes is None and targets is None:
        raise _nothing_shared(tagged)
    return Comparisons(classes, targets)


def with_classes(run: PredictedRun) -> PredictedRun | None:
    """A run without its rows that have no class; None if it has no classes, or no such row."""
    keep = [index for index, item in enumerate(run.items.values()) if item.label is not None]
    if not run.classes or not keep:
        return None
    if len(keep) == len(run.items):
        return run
    keys = list(run.items)
    return replace(
        run,
        items={keys[index]: run.items[keys[index]] for index in keep},
        predictions=run.predictions[:, keep],
        probabilities=run.probabilities[:, keep],
    )


def _nothing_shared(tagged: Mapping[str, PredictedRun]) -> ParamsError:
    """The error about runs that learn nothing in common."""
    learnt = "; ".join(
        f"{tag} ({run.name}): "
        + (", ".join([*(["classes"] if run.classes else []), *run.targets.attributes]) or "nothing")
        for tag, run in tagged.items()
    )
    return ParamsError(
        f"the runs have no target in common ({learnt}); expected runs that learn the same classes, "
        "votes or attributes"
    )
