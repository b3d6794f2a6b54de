"""Interleaved rounds: contenders take turns, and ratios are reported, as machines are noisy.

On a virtual machine the host may give its processors to others for a while. Linux counts that
("steal" in /proc/stat); a turn that loses more than 3 % of its time in this way is repeated.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

QUIET = 0.03  # share of the processors' time that others may take in a turn
TRIES = 5  # of a turn, of which the quietest counts


def interleave(
    contenders: Mapping[str, Callable[[], float]], rounds: int, *, quiet: float = QUIET
) -> dict[str, list[float]]:
    """Seconds of each contender in each round; another one begins each round.

    Args:
        contenders: By name; each takes a turn and returns what it measured.
        rounds: How many turns each has.
        quiet: Share of the processors' time that the host may take from a turn; infinite: any.
    """
    names = list(contenders)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for place in range(len(names)):
            name = names[(number + place) % len(names)]
            found[name].append(_quietest(contenders[name], quiet, name))
    return found


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    """Their time over ours, round by round: above 1, ours is faster."""
    quotients = [their / our for their, our in zip(theirs, ours, strict=True)]
    return {
        "median": round(statistics.median(quotients), 2),
        "range": [round(min(quotients), 2), round(max(quotients), 2)],
    }


def _quietest(turn: Callable[[], float], quiet: float, name: str) -> float:
    tries: list[tuple[float, float]] = []
    while not tries or (tries[-1][0] > quiet and len(tries) < TRIES):
        if tries:
            line = f"{name}: the host took {tries[-1][0]:.0%} of the processors in this turn"
            sys.stderr.write(f"{line}, which is repeated\n")
        stolen, began = stolen_seconds(), time.perf_counter()
        measured = turn()
        had = (time.perf_counter() - began) * (os.cpu_count() or 1)
        tries.append(((stolen_seconds() - stolen) / had, measured))
    return min(tries)[1]


def stolen_seconds() -> float:
    """Processor seconds that the host has given to others since this machine began; 0: unknown."""
    statistic = Path("/proc/stat")
    if not statistic.is_file():
        return 0.0
    ticks = statistic.read_text().splitlines()[0].split()
    return int(ticks[8]) / os.sysconf("SC_CLK_TCK") if len(ticks) > 8 else 0.0
