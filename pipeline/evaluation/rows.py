"""Test rows of a run as arrays, with the clusters that the bootstrap draws.

Shapes: R test rows of all seeds and folds, U distinct test utterances, S seeds, C clusters,
K classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from features.corpus.manifest import Label
from pipeline.evaluation.run_folder import JobResult, RunFolder
from pipeline.evaluation.statistics import cluster_confusions
from pipeline.metrics.classes import Counts, Floats

Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]
UNITS = ("speaker", "dialogue")
"""Kinds of clusters."""


@dataclass(frozen=True)
class Clusters:
    """Clusters that the bootstrap draws.

    Attributes:
        unit: "speaker" or "dialogue", as `cluster_unit` decides.
        number: Number of clusters among the test rows.
        shared_speakers: Number of speakers whose test utterances lie in several clusters. Where
            there are some (the same few people in all dialogues), intervals are about other
            dialogues of these people, and too narrow for other people.
    """

    unit: str
    number: int
    shared_speakers: int


@dataclass(frozen=True)
class RunRows:
    """Test rows in order of seed, fold, and line of predictions.csv.

    Attributes:
        classes: K names.
        utterances: U labels, in order of their first row.
        clusters: Clusters that the bootstrap draws.
        seeds: S.
        utterance: `[R]` index into `utterances`.
        cluster: `[R]` index below C, in order of name.
        seed: `[R]` rank of the seed.
        labels: `[R]` true classes.
        predictions: `[R]` predicted classes; -1 where the model named none.
        probabilities: `[R, K]` probability of each class; NaN if the model gives none.
        jobs: Jobs that the rows come from.
    """

    classes: tuple[str, ...]
    utterances: tuple[Label, ...]
    clusters: Clusters
    seeds: int
    utterance: Ints
    cluster: Ints
    seed: Ints
    labels: Ints
    predictions: Ints
    probabilities: Floats
    jobs: tuple[JobResult, ...]

    @classmethod
    def of(cls, run: RunFolder, known: Mapping[str, Label]) -> Self:
        """Collect the test rows of all jobs.

        Args:
            run: Run folder that `pipeline.evaluation.labels` has checked.
            known: Labels by id.
        """
        ids = [np.array(job.table.column("id"), object)[job.test] for job in run.jobs]
        return cls.gathered(
            np.concatenate(ids),
            known,
            classes=run.classes,
            seeds=len(run.seeds),
            seed=_joined(run, lambda job: np.full(job.test.sum(), run.seeds.index(job.seed))),
            labels=_joined(run, lambda job: job.labels[job.test]),
            predictions=_joined(run, lambda job: job.predictions[job.test]),
            probabilities=np.concatenate([job.probabilities[job.test] for job in run.jobs]),
            jobs=run.jobs,
        )

    @classmethod
    def gathered(cls, ids: Iterable[str], known: Mapping[str, Label], **columns: Any) -> Self:
        """Rows with their utterances and clusters.

        Args:
            ids: Id of each row.
            known: Labels by id.
            columns: The attributes that do not follow from these.
        """
        index: dict[str, int] = {}
        for id in ids:
            index.setdefault(id, len(index))
        utterances = tuple(known[id] for id in index)
        unit = cluster_unit(utterances)
        names = [str(getattr(label, unit)) for label in utterances]
        # sorted by name, so that the draws do not depend on the order of rows
        distinct, cluster = np.unique(np.array(names), return_inverse=True)
        utterance = np.array([index[id] for id in ids], np.int64)
        return cls(
            utterances=utterances,
            clusters=Clusters(unit, len(distinct), shared_speakers(utterances, names)),
            utterance=utterance,
            cluster=cluster.astype(np.int64)[utterance],
            **columns,
        )

    def matrices(self, keep: Flags | None = None, predictions: Ints | None = None) -> Counts:
        """Confusion matrices `[S, C, K, K]`, or `[S, C, K, K + 1]` if some prediction is none.

        Args:
            keep: `[U]` utterances that count; None: all. A cluster without any stays, with zeros,
                so that the draws of all subsets of a run are paired.
            predictions: `[R]` predictions to count instead of the model's own.
        """
        guesses = self.predictions if predictions is None else predictions
        rows = slice(None) if keep is None else keep[self.utterance]
        return cluster_confusions(
            self.cluster[rows],
            self.seed[rows],
            self.labels[rows],
            guesses[rows],
            (self.seeds, self.clusters.number, len(self.classes)),
            abstains=bool((guesses < 0).any()),
        )

    def probe_predictions(self, slot: str) -> Ints:
        """`[R]` predictions of the linear probe on a slot."""
        return np.concatenate([job.probes[slot].predictions for job in self.jobs])

    def condition_predictions(self, condition: str) -> Ints:
        """`[R]` predictions of the model under a condition."""
        return np.concatenate([job.conditions[condition].predictions for job in self.jobs])

    def member_predictions(self, member: str) -> Ints:
        """`[R]` predictions of a member of an ensemble."""
        return np.concatenate([job.members[member].predictions for job in self.jobs])


class Spoken(Protocol):
    """What is known of who said an utterance, and where."""

    @property
    def speaker(self) -> str:
        """Speaker."""

    @property
    def dialogue(self) -> str | None:
        """Dialogue; None outside of one."""


def cluster_unit(utterances: Sequence[Spoken]) -> str:
    """Unit that is drawn as a whole: "dialogue" for conversations, else "speaker".

    A corpus is of conversations if all its test utterances lie in dialogues, most of them between
    two or more speakers: what one says there depends on what the other said. A recording of one
    speaker is no conversation, whatever the corpus calls it.
    """
    if any(label.dialogue is None for label in utterances):
        return "speaker"
    voices: defaultdict[str | None, set[str]] = defaultdict(set)
    for label in utterances:
        voices[label.dialogue].add(label.speaker)
    several = sum(len(speakers) > 1 for speakers in voices.values())
    return "dialogue" if 2 * several > len(voices) else "speaker"


def shared_speakers(utterances: Sequence[Spoken], clusters: Sequence[str]) -> int:
    """Number of speakers with utterances in several clusters, given each utterance's cluster."""
    places: defaultdict[str, set[str]] = defaultdict(set)
    for label, cluster in zip(utterances, clusters, strict=True):
        places[label.speaker].add(cluster)
    return sum(len(found) > 1 for found in places.values())


def _joined(run: RunFolder, column: Callable[[JobResult], Ints]) -> Ints:
    return np.concatenate([column(job) for job in run.jobs])
