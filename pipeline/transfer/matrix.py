"""The transfer matrix: scores of all models on all corpora, with clustered intervals.

All is scored in the classes of the union. A class of the model that the union leaves out is a wrong
answer (`OUTSIDE`). A class of the tested corpus that the model was never taught has a recall of 0,
and is named beside the score, with the score of the other classes.

Seeds are scored by themselves and averaged. On a corpus of its own a model of each fold has its own
test utterances; on another one, all models of a seed have the same, and count alike. Intervals are
those of `pipeline.evaluation.statistics`; differences from the model that was trained on the tested
corpus are paired, draw by draw, since a column has the same utterances in all rows.

Shapes: S seeds, C clusters, K classes of the union and one for `OUTSIDE`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from features.errors import RunError
from pipeline.evaluation.rows import cluster_unit
from pipeline.evaluation.statistics import (
    ConfidenceInterval,
    Draws,
    cluster_confusions,
    cluster_draws,
)
from pipeline.metrics.classes import MONITORS, Counts, scores, uar
from pipeline.transfer.ground import Ground, TargetCorpus
from pipeline.transfer.predictions import Row

OUTSIDE = "(left out)"


@dataclass(frozen=True)
class Cell:
    """A model on a corpus.

    Attributes:
        trained_on: Corpus of the model.
        tested_on: Corpus of the utterances.
        scores: Means over seeds by metric.
        intervals: 95 % intervals of them; none with too few clusters.
        change: Difference from the model that was trained on the tested corpus, and its interval.
        unseen: TargetCorpus utterances by class that the model was never taught.
        known_uar: UAR of the classes that it was taught, where some were not.
        foreign: Share of the predictions that are classes which the tested corpus lacks.
    """

    trained_on: str
    tested_on: str
    scores: Mapping[str, float]
    intervals: Mapping[str, ConfidenceInterval]
    change: Mapping[str, tuple[float, ConfidenceInterval | None]] = field(default_factory=dict)
    unseen: Mapping[str, int] = field(default_factory=dict)
    known_uar: float | None = None
    foreign: float = 0.0


@dataclass(frozen=True)
class Column:
    """A tested corpus.

    Attributes:
        corpus: Its name.
        utterances: Number of tested utterances that all models predicted.
        counts: Their number by class of the union.
        lacks: Classes of the union that it does not have.
        unit: What the bootstrap draws: speaker or dialogue.
        clusters: Number of these.
        left_out: Reasons why other test utterances are not scored, with their numbers.
        models: Number of trained models by the corpus that they were trained on.
        cells: By the same.
    """

    corpus: str
    utterances: int
    counts: Mapping[str, int]
    lacks: tuple[str, ...]
    unit: str
    clusters: int
    left_out: Mapping[str, int]
    models: Mapping[str, int]
    cells: Mapping[str, Cell]


def column(ground: Ground, tested: TargetCorpus, rows: Mapping[str, Sequence[Row]]) -> Column:
    """Score all models on a corpus.

    Args:
        ground: The corpora.
        tested: The corpus.
        rows: Predictions by the corpus that the model was trained on, the union included.

    Raises:
        RunError: If no utterance was predicted by all of them.
    """
    common = set.intersection(*({id for id, *_ in each} for each in rows.values()))
    ids = [id for id in tested.truth if id in common]
    if not ids:
        raise RunError(
            f"no test utterance of {tested.corpus} was predicted by the models of all corpora; "
            "expected some: see `dropped` in their run.json"
        )
    truth = [tested.truth[id] for id in ids]
    unit = cluster_unit(truth)
    names = [str(getattr(label, unit)) for label in truth]
    cluster = dict(zip(ids, np.unique(names, return_inverse=True)[1].tolist(), strict=True))
    matrices = {
        source: _matrices(ground, source, tested, cluster, found) for source, found in rows.items()
    }
    draws = {source: cluster_draws(each, scores) for source, each in matrices.items()}
    counts = Counter(label.class_name for label in truth)
    cells = {source: _cell(ground, source, tested, matrices, draws, counts) for source in matrices}
    models = {source: len({row[1:3] for row in found}) for source, found in rows.items()}
    return Column(
        corpus=tested.corpus,
        utterances=len(ids),
        counts={name: counts[name] for name in ground.classes},
        lacks=tuple(name for name in ground.classes if name not in tested.map.values()),
        unit=unit,
        clusters=len(set(names)),
        left_out=_left_out(tested, len(ids)),
        models=models,
        cells=cells,
    )


def _matrices(
    ground: Ground,
    source: str,
    tested: TargetCorpus,
    cluster: Mapping[str, int],
    rows: Sequence[Row],
) -> Counts:
    """Confusion matrices `[S, C, K, K]` of the scored rows, in classes of the union."""
    number = {name: k for k, name in enumerate((*ground.classes, OUTSIDE))}
    kept = [row for row in rows if row[0] in cluster]
    seeds = {seed: rank for rank, seed in enumerate(sorted({row[1] for row in kept}))}
    own = ground.corpora[source].map if source in ground.corpora else {}
    return cluster_confusions(
        np.array([cluster[id] for id, *_ in kept], np.int64),
        np.array([seeds[row[1]] for row in kept], np.int64),
        np.array([number[tested.truth[id].class_name] for id, *_ in kept], np.int64),
        np.array([number[own.get(guess, guess) or OUTSIDE] for *_, guess in kept], np.int64),
        (len(seeds), max(cluster.values()) + 1, len(number)),
    )


def _cell(
    ground: Ground,
    source: str,
    tested: TargetCorpus,
    matrices: Mapping[str, Counts],
    draws: Mapping[str, Draws],
    counts: Mapping[str, int],
) -> Cell:
    target = tested.corpus
    whole = {name: each.sum(1) for name, each in matrices.items()}  # [S, K, K]
    found = {name: float(of.mean()) for name, of in scores(whole[source]).items()}
    base = scores(whole[target])
    change = {
        name: (found[name] - float(base[name].mean()), draws[source].change(name, draws[target]))
        for name in (MONITORS if source != target else ())
    }
    taught = set(ground.classes)
    if source in ground.corpora:
        taught = {name for name in ground.corpora[source].map.values() if name is not None}
    unseen = {name: counts[name] for name in ground.classes if counts[name] and name not in taught}
    known = np.array([name in taught for name in (*ground.classes, OUTSIDE)])
    has = set(tested.map.values())
    absent = np.array([name not in has for name in (*ground.classes, OUTSIDE)])
    guessed = whole[source].sum((0, 1))
    intervals = {name: draws[source].interval(name) for name in draws[source].values}
    return Cell(
        trained_on=source,
        tested_on=target,
        scores=found,
        intervals={name: each for name, each in intervals.items() if each is not None},
        change=change,
        unseen=unseen,
        known_uar=float(uar(whole[source] * known[:, None]).mean()) if unseen else None,
        foreign=float(guessed[absent].sum() / guessed.sum()),
    )


def _left_out(tested: TargetCorpus, scored: int) -> dict[str, int]:
    """Reasons why test utterances are not scored, with their numbers."""
    found = Counter(
        f"its class {label.label!r} is left out of the union"
        for label in tested.labels
        if label.label is not None and tested.map.get(label.label) is None
    )
    if missing := len(tested.labels) - sum(found.values()) - scored:
        found["not predicted by the models of all corpora, or without a class"] = missing
    return dict(found)
