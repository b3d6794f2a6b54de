"""Interleaved rounds: machines are noisy, so contenders take turns and only ratios are reported."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def interleave(
    contenders: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each contender in each round; another one begins each round."""
    names = list(contenders)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for place in range(len(names)):
            name = names[(number + place) % len(names)]
            found[name].append(contenders[name]())
    return found


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    """Their time over ours, round by round: above 1, ours is faster."""
    quotients = [their / our for their, our in zip(theirs, ours, strict=True)]
    return {
        "median": round(statistics.median(quotients), 2),
        "range": [round(min(quotients), 2), round(max(quotients), 2)],
    }
