"""The test rows that several runs have in common, and the rows that are left out, with reasons.

Runs are compared on the same utterances, with the same labels, tested in the same fold: a model of
another fold was trained on other utterances, maybe on this one. A row that one run lacks is left
out for all, and counted.

Shapes: U common test rows, S seeds of a run, C clusters, K classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

import numpy as np

from features.errors import ParamsError, RunError
from pipeline.compare.sources import Item, Key, PredictedRun
from pipeline.evaluation.groups import MINIMUM_UTTERANCES
from pipeline.evaluation.rows import UNITS, Ints, cluster_unit, shared_speakers
from pipeline.evaluation.statistics import cluster_confusions
from pipeline.metrics.classes import Counts, Floats

_EXAMPLES = 3  # ids that are quoted for each reason


@dataclass(frozen=True)
class LeftOut:
    """Test rows of one run that are not compared, for one reason; `examples` are some ids."""

    tag: str
    reason: str
    number: int
    examples: tuple[str, ...]

    def line(self) -> str:
        """A line for the comparison's notes."""
        return f"left out of {self.tag}: {self.number} {self.reason}: {', '.join(self.examples)}"


@dataclass(frozen=True)
class Compared:
    """One run on the common rows.

    Attributes:
        tag: A, B, ... in the order given.
        name: Name as the user gave it.
        whose: Fusion, corpus and regime; None where the run's files do not name them.
        seeds: S.
        predictions: `[S, U]`; -1 where a seed named no class.
        votes: `[U]`, the class that most seeds predict; ties go to the higher mean probability; -1
            if no seed named a class.
        probabilities: `[U, K]`, means over seeds; without probabilities shares of the seeds.
        matrices: `[S, C, K, K]` confusion matrices; `[S, C, K, K + 1]` if some run named no class
            of some row.
    """

    tag: str
    name: str
    whose: str | None
    seeds: int
    predictions: Ints
    votes: Ints
    probabilities: Floats
    matrices: Counts


@dataclass(frozen=True)
class CommonRows:
    """Runs on the rows that all of them predicted.

    Attributes:
        classes: Names of the K classes, in the order of the first run.
        items: The U rows, in the order of the first run.
        unit: "speaker" or "dialogue", which is drawn and swapped as a whole.
        clusters: C.
        speakers: Number of speakers.
        shared_speakers: Number of speakers in several clusters.
        labels: `[U]` indices below K.
        runs: Two or more runs.
        left_out: Rows that are not compared, by run and reason.
    """

    classes: tuple[str, ...]
    items: tuple[Item, ...]
    unit: str
    clusters: int
    speakers: int
    shared_speakers: int
    labels: Ints
    runs: tuple[Compared, ...]
    left_out: tuple[LeftOut, ...]


def common_rows(
    runs: Sequence[PredictedRun], *, unit: str | None = None, least: int = MINIMUM_UTTERANCES
) -> CommonRows:
    """Restrict runs to the rows that all of them predicted.

    Args:
        runs: Two or more runs.
        unit: "speaker" or "dialogue"; None: `pipeline.evaluation.rows.cluster_unit` decides.
        least: Smallest number of common rows.

    Raises:
        ParamsError: If there are too few or too many runs, or a row lacks the unit.
        RunError: If classes differ or too few rows are common.
    """
    if not 2 <= len(runs) <= len(ascii_uppercase):
        raise ParamsError(f"{len(runs)} runs to compare; expected 2 to {len(ascii_uppercase)}")
    tagged = dict(zip(ascii_uppercase, runs, strict=False))
    first = runs[0]
    for tag, run in tagged.items():
        if set(run.classes) != set(first.classes):
            raise RunError(
                f"{tag} ({run.name}) has the classes {sorted(run.classes)}; expected those of A "
                f"({first.name}), {sorted(first.classes)}: compare runs with the same labels"
            )
    keys = [key for key, item in first.items.items() if all(_like(r, key, item) for r in runs)]
    left_out = tuple(_left_out(tagged, set(keys)))
    if len(keys) < least:
        lines = "".join(f"\n- {each.line()}" for each in left_out)
        raise RunError(
            f"{len(keys)} test rows are common to all {len(runs)} runs; expected {least} or more. "
            f"Compare runs of the same corpus and protocol:{lines}"
        )
    items = tuple(first.items[key] for key in keys)
    unit = unit_of(items, unit)
    clusters = [str(getattr(item, unit)) for item in items]
    names, cluster = np.unique(clusters, return_inverse=True)
    truth = np.array([first.classes.index(str(item.label)) for item in items], np.int64)
    abstains = any(bool((run.predictions < 0).any()) for run in runs)
    return CommonRows(
        classes=first.classes,
        items=items,
        unit=unit,
        clusters=len(names),
        speakers=len({item.speaker for item in items}),
        shared_speakers=shared_speakers(items, clusters),
        labels=truth,
        runs=tuple(
            _compared((tag, run), keys, first.classes, truth, cluster, abstains=abstains)
            for tag, run in tagged.items()
        ),
        left_out=left_out,
    )


def unit_of(items: Sequence[Item], unit: str | None) -> str:
    """What is drawn and swapped as a whole: the unit that was asked for, else as in a report.

    Raises:
        ParamsError: If it is no unit, or a row lacks it.
    """
    if unit is None:
        return cluster_unit(items)
    if unit not in UNITS:
        raise ParamsError(f"--unit {unit!r}; expected one of {list(UNITS)}")
    lacking = [item.id for item in items if getattr(item, unit) is None]
    if lacking:
        raise ParamsError(
            f"--unit {unit}: {len(lacking)} test rows have no {unit}, such as {lacking[0]!r}; "
            "expected one of each: use another unit"
        )
    return unit


def _compared(
    tagged: tuple[str, PredictedRun],
    keys: Sequence[Key],
    classes: Sequence[str],
    labels: Ints,
    cluster: Ints,
    *,
    abstains: bool,
) -> Compared:
    """A run on the common rows, its classes in the order of `classes`."""
    tag, run = tagged
    place = {key: index for index, key in enumerate(run.items)}
    columns = [place[key] for key in keys]
    order = [run.classes.index(name) for name in classes]  # the run's index of each class
    # argsort inverts a permutation: from the run's index of a class to that in `classes`. Behind
    # the classes stands -1, no class, which is the index of the last place.
    ours = np.append(np.argsort(order), -1)[run.predictions[:, columns]]
    # One-hot `[S, U, K]` summed over seeds: votes of each class.
    counts = (ours[..., None] == np.arange(len(order))).sum(0)
    shares = run.probabilities[:, columns][..., order].mean(0)
    if np.isnan(shares).any():
        shares = counts / len(ours)
    seeds, size = ours.shape
    confusions = cluster_confusions(
        np.tile(cluster, seeds),
        np.repeat(np.arange(seeds), size),
        np.tile(labels, seeds),
        ours.ravel(),
        (seeds, int(cluster.max()) + 1, len(order)),
        abstains=abstains,
    )
    # A mean probability is at most 1, and a vote counts 2, so that probability only breaks ties.
    votes = np.where(counts.any(1), (2 * counts + shares).argmax(1), -1)
    return Compared(tag, run.name, run.whose, seeds, ours, votes, shares, confusions)


def _like(run: PredictedRun, key: Key, item: Item) -> bool:
    return key in run.items and run.items[key].label == item.label


def _left_out(tagged: Mapping[str, PredictedRun], kept: set[Key]) -> Iterator[LeftOut]:
    tested = {tag: {id for _, id in (*run.items, *run.incomplete)} for tag, run in tagged.items()}
    for tag, run in tagged.items():
        found: defaultdict[str, list[str]] = defaultdict(list)
        for key in (*run.items, *sorted(run.incomplete)):
            if key not in kept:
                found[_reason(tagged, tested, tag, key)].append(key[1])
        for reason, ids in found.items():
            yield LeftOut(tag, reason, len(ids), tuple(ids[:_EXAMPLES]))


def _reason(
    tagged: Mapping[str, PredictedRun], tested: Mapping[str, set[str]], tag: str, key: Key
) -> str:
    """Reason not to compare a test row of a run, by the first run that lacks it."""
    own = tagged[tag]
    if key in own.incomplete:
        return "not predicted by each of its own seeds"
    other = next(t for t, run in tagged.items() if not _like(run, key, own.items[key]))
    run = tagged[other]
    if key in run.items:
        return f"with another label in {other}"
    if key in run.incomplete:
        return f"not predicted by each seed of {other}"
    if key[1] in run.dropped:
        return f"dropped by {other} ({run.dropped[key[1]]})"
    if key in run.untested:
        return f"of the valid split in {other}"
    elsewhere = key[1] in tested[other]
    return f"tested in another fold in {other}" if elsewhere else f"not tested in {other}"
