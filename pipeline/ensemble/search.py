"""Chooses the members of an ensemble by their predictions of the validation rows of a fold.

- `greedy` (Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004): begins with no
  member, and adds, `most` times, the one with which the ensemble scores best, with replacement: a
  member may be added again, and then weighs more. Of these ensembles the best is taken.
- `exhaustive`: the best of all sets of at most `most` members.

Of equal scores the smaller ensemble wins, then the one whose members come first in the entry. Each
fold is searched by itself: its validation rows are test rows of other folds, so that a search over
all folds would have seen them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np

from features.errors import ParamsError
from pipeline.ensemble.methods import Ints

MOST_SETS = 2000

Score = Callable[[Ints], float]
"""Score of the ensemble in which each member counts so often, `[M]`, on validation rows."""


def search(how: str, members: int, most: int, score: Score) -> Ints:
    """How often each member counts, `[M]`.

    Args:
        how: none, greedy or exhaustive.
        members: M.
        most: Largest number of members, repeated ones included.
        score: Score that is raised.

    Raises:
        ParamsError: If an exhaustive search would try more than `MOST_SETS` sets.
    """
    if how == "none":
        return np.ones(members, np.int64)
    return (_greedy if how == "greedy" else _exhaustive)(members, most, score)


def _greedy(members: int, most: int, score: Score) -> Ints:
    best, best_score = np.zeros(members, np.int64), -math.inf
    bag = best
    for _ in range(most):
        tried = [bag + one for one in np.eye(members, dtype=np.int64)]
        scores = [score(each) for each in tried]
        bag = tried[int(np.argmax(scores))]  # the first of equals
        if max(scores) > best_score:
            best, best_score = bag, max(scores)
    return best


def _exhaustive(members: int, most: int, score: Score) -> Ints:
    sizes = range(1, min(most, members) + 1)
    sets = sum(math.comb(members, size) for size in sizes)
    if sets > MOST_SETS:
        raise ParamsError(
            f"search: exhaustive: {members} members have {sets} sets of at most {sizes[-1]}; "
            f"expected {MOST_SETS} at most: lower `most`, or set `search: greedy`"
        )
    best, best_score = np.zeros(members, np.int64), -math.inf
    for size in sizes:
        for chosen in combinations(range(members), size):
            bag = np.zeros(members, np.int64)
            bag[list(chosen)] = 1
            found = score(bag)
            if found > best_score:
                best, best_score = bag, found
    return best
