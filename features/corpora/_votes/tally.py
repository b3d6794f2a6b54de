"""Count the votes of raters by class, and average their values of attributes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from features.corpus.ratings import Rating


@dataclass(frozen=True)
class Tally:
    """Votes on one utterance, as in `features.corpus.adapter.Item`."""

    votes: Mapping[str, float] | None = None
    votes_outside: float | None = None
    secondary: Mapping[str, float] | None = None


def tally(
    ratings: Iterable[Rating], classes: Sequence[str], *, mentions: bool = False
) -> dict[str, Tally]:
    """Votes by utterance, of those that a rater chose a class or another name for.

    Args:
        ratings: What raters said. One without a label does not vote.
        classes: Class names in the order of the model's outputs; other names are outside.
        mentions: Whether every name that a rater gives is a vote, so that nothing is secondary.
    """
    first: defaultdict[str, Counter[str]] = defaultdict(Counter)
    beside: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for rating in ratings:
        if rating.label is None:
            continue
        named = set(rating.secondary or ()) - {rating.label}
        first[rating.id][rating.label] += 1
        (first if mentions else beside)[rating.id].update(named)
    return {
        id: Tally(
            votes=_of(votes, classes),
            votes_outside=sum(count for name, count in votes.items() if name not in classes),
            secondary=_of(beside[id], classes),
        )
        for id, votes in first.items()
    }


def averaged(ratings: Iterable[Rating]) -> dict[str, dict[str, float]]:
    """Mean of each attribute over the raters who gave it, by utterance."""
    given: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for rating in ratings:
        for name, value in (rating.values or {}).items():
            given[rating.id][name].append(value)
    return {
        id: {name: sum(held) / len(held) for name, held in by_name.items()}
        for id, by_name in given.items()
    }


def _of(counts: Mapping[str, int], classes: Sequence[str]) -> dict[str, float] | None:
    """Counts of the classes, in their order; None without any."""
    return {name: counts[name] for name in classes if counts.get(name)} or None
