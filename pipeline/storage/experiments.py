"""Names of DVC's experiments, read from their Git references."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.runtime.environment import git

# <hash> refs/exps/<2 letters of the baseline's hash>/<the other 38>/<name>
_REFERENCE = re.compile(r"([0-9a-f]+) refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/([^/]+)")
# Reflog of the queue, one line an entry: commit: dvc-exp:<revision>:<baseline>:<name>
_QUEUE = "refs/exps/celery/stash"
_QUEUED = re.compile(r"(?:commit: )?dvc-exp:[0-9a-f]+:[0-9a-f]+:([^:]*)")


@dataclass(frozen=True)
class Experiment:
    """A finished experiment.

    Attributes:
        name: Name as DVC's commands take it.
        baseline: Hash of the commit that it started from.
        commit: Hash of its own commit.
    """

    name: str
    baseline: str
    commit: str


def finished() -> list[Experiment]:
    """Experiments of all commits; none outside of a Git repository."""
    shown = git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps") or ""
    matches = filter(None, map(_REFERENCE.fullmatch, shown.splitlines()))
    return [Experiment(match[4], match[2] + match[3], match[1]) for match in matches]


def taken_names() -> set[str]:
    """Names of finished and queued experiments."""
    lines = (git("log", "-g", "--format=%gs", _QUEUE, "--") or "").splitlines()
    queued = (match[1] for match in map(_QUEUED.match, lines) if match)
    return {found.name for found in finished()} | {name for name in queued if name}


def free_name(wanted: str, taken: set[str]) -> str:
    """A name without an experiment: `wanted`, or the first of `wanted-2`, `wanted-3`, ...

    >>> free_name("heron-demo", {"heron-demo", "heron-demo-2"})
    'heron-demo-3'
    """
    number, name = 1, wanted
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    return name


def below_other_commits() -> int:
    """Number of finished experiments that did not start from the current commit."""
    head = git("rev-parse", "HEAD")
    return sum(found.baseline != head for found in finished())
