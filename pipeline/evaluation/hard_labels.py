"""The rows of a run that have one class: the corpus's label, or the unique plurality of votes.

A run that learns several targets, or votes alone, is scored on its rows with a class as a run that
learns classes is. Rows without agreement are left out of that; no class is invented for them:
votes stand in only where the corpus names no class of any utterance.

Shapes: N rows of a job, T of them of the test split, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from features.corpus.manifest import Label
from pipeline.evaluation.labels import vote_shares
from pipeline.evaluation.rows import Flags
from pipeline.evaluation.run_folder import Guess, JobResult, RunFolder
from pipeline.metrics.votes import plurality


@dataclass(frozen=True)
class Labelled:
    """A run and the labels of its corpus, only rows with a class.

    Attributes:
        run: The run.
        labels: Labels, each with a class.
        pluralities: Number of labels whose class is the plurality of their votes.
    """

    run: RunFolder
    labels: tuple[Label, ...]
    pluralities: int


def labelled_rows(run: RunFolder, labels: Sequence[Label]) -> Labelled | None:
    """The rows of a run that have a class; None for a run, or a test split, without classes.

    Args:
        run: Run folder that `pipeline.evaluation.labels` has checked.
        labels: Labels of the whole corpus.
    """
    if not run.classes:
        return None
    # Where the corpus names classes, a row without one is one that its raters did not agree on.
    votes = "votes" in run.targets.tasks and not any(label.label for label in labels)
    found = [_with_class(label, run.classes) if votes else label for label in labels]
    kept = tuple(label for label in found if label.label is not None)
    if len(kept) == len(labels) and all(label.label for label in labels):
        return Labelled(run, tuple(labels), 0)
    number = {label.id: run.classes.index(str(label.label)) for label in kept}
    jobs = tuple(_labelled(job, number) for job in run.jobs)
    if not all(job.test.any() for job in jobs):
        return None
    own = {label.id for label in labels if label.label is not None}
    ids = {label.id for label in kept}
    dropped = {id: reason for id, reason in run.dropped.items() if id in ids}
    return Labelled(replace(run, jobs=jobs, dropped=dropped), kept, len(ids - own))


def _with_class(label: Label, classes: Sequence[str]) -> Label:
    shares = np.array(vote_shares(label, classes))
    top = -1 if np.isnan(shares).any() else int(plurality(shares))
    # Those who chose none of the classes may all have chosen the same.
    if top < 0 or (label.votes or {})[classes[top]] <= (label.votes_outside or 0):
        return label
    return replace(label, label=classes[top])


def _labelled(job: JobResult, number: dict[str, int]) -> JobResult:
    """The rows of a job with a class, by the class number of each id."""
    ids = job.table.column("id")
    keep: Flags = np.array([id in number for id in ids], bool)
    rows = np.flatnonzero(keep).tolist()
    table = job.table.only_rows(rows)
    tested = keep[job.test]
    return replace(
        job,
        labels=np.array([number[ids[row]] for row in rows], np.int64),
        predictions=job.predictions[keep],
        probabilities=job.probabilities[keep],
        named=job.named[keep],
        shares=job.shares[keep],
        truth=job.truth[keep],
        values=job.values[keep],
        test=job.test[keep],
        table=table,
        probes={name: _kept(guess, tested) for name, guess in job.probes.items()},
        conditions={name: _kept(guess, tested) for name, guess in job.conditions.items()},
    )


def _kept(guess: Guess, keep: Flags) -> Guess:
    shares = None if guess.probabilities is None else guess.probabilities[keep]
    return Guess(guess.predictions[keep], shares, guess.values[keep])
