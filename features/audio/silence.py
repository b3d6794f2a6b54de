"""Finds stretches of a recording without usable sound, in windows of 10 ms.

Silence, constants, channels that cancel each other, values that are not finite, and floats far
beyond full scale: a backbone would compute features of these as of any sound. They are found once
for each file, and looked up for each span that an utterance uses (`judge_span`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WINDOW_SECONDS = 0.01
SHORTEST_SECONDS = 0.1  # shorter ones are ignored; digital silence between words is frequent
SMALLEST = 2.0**-15  # one step of 16-bit samples: a smaller range is constant
CANCELLED = 0.03  # share of a channel's range that is left in the mean of channels: -30 dB

Samples = NDArray[np.float32]
FULL_SCALES = 16.0  # 24 dB too loud: floats that were never divided by the range of integers
_SOUND, _SILENT, _CONSTANT, _CANCELLED, _NO_NUMBER, _LOUD = range(6)
SILENT = "it is silent: all of its samples are zero"
CONSTANT = "it has no sound: its samples are constant"
CANCELLING = "its channels cancel each other: their mean, which is what is used, has no sound"
NOT_FINITE = "the audio holds samples that are not finite"
LOUD = f"its samples reach more than {FULL_SCALES:g} times full scale: divide floats by their range"
NOTICES = {SILENT, CONSTANT, CANCELLING, LOUD}


class Stretch(NamedTuple):
    """A part of a recording, from `start` to `stop` in seconds, and what is wrong with it."""

    start: float
    stop: float
    what: str


def find_silence(blocks: Iterable[Samples], rate_hz: int) -> list[Stretch]:
    """Find stretches without sound of `SHORTEST_SECONDS` or more, and all that are not finite.

    Args:
        blocks: Consecutive blocks `[block, channels]`; each is used before the next is requested.
        rate_hz: Samples per second and channel.
    """
    window = max(1, round(rate_hz * WINDOW_SECONDS))
    kinds = [_kinds(part) for part in _windowed(blocks, window)]
    return list(_stretches(np.concatenate([*kinds, [_SOUND]]), window / rate_hz))


def judge_span(
    stretches: Iterable[Stretch], start: float, stop: float
) -> tuple[str | None, str | None]:
    """Why a span of a recording, in seconds, cannot be used; else what is odd about it."""
    notice = None
    for each in stretches:
        if each.what not in NOTICES or each.what == LOUD:
            if each.start < stop and each.stop > start:
                if each.what != LOUD:
                    return each.what, None
                notice = LOUD
        elif each.start <= start + WINDOW_SECONDS and each.stop >= stop - WINDOW_SECONDS:
            notice = each.what
    return None, notice


def _windowed(blocks: Iterable[Samples], window: int) -> Iterator[Samples]:
    """Regroup blocks as `[channels, windows, window]`; the last window repeats its last sample."""
    rest: Samples | None = None
    for block in blocks:
        held = block.T if rest is None else np.concatenate([rest, block.T], 1)
        whole = held.shape[1] // window * window
        # Contiguous windows, since reducing along neighbours in memory is ten times as fast.
        yield np.ascontiguousarray(held[:, :whole]).reshape(len(held), -1, window)
        rest = held[:, whole:]
    if rest is not None and rest.shape[1]:
        yield np.pad(rest, ((0, 0), (0, window - rest.shape[1])), mode="edge")[:, None]


def _kinds(windows: Samples) -> NDArray[np.int8]:
    """Classify windows `[channels, windows, window]` as `[windows]` of `_SOUND` to `_LOUD`."""
    with np.errstate(invalid="ignore", over="ignore"):  # infinite values become _NO_NUMBER
        lows, highs = windows.min(2), windows.max(2)
        spread = (highs - lows).max(0)
        mono = windows.mean(0, dtype=np.float32) if len(windows) > 1 else windows[0]
        low, high = mono.min(1), mono.max(1)
        left = high - low
    level = np.maximum(np.abs(low), np.abs(high))
    # From the weakest statement to the strongest, each of which replaces the ones before it.
    kinds = np.full(len(level), _SOUND, np.int8)
    kinds[left <= np.maximum(SMALLEST, CANCELLED * spread)] = _CANCELLED
    kinds[(left <= SMALLEST) & (spread <= SMALLEST)] = _CONSTANT
    kinds[(kinds == _CONSTANT) & (level <= SMALLEST)] = _SILENT
    kinds[level > FULL_SCALES] = _LOUD
    kinds[~(np.isfinite(level) & np.isfinite(lows).all(0) & np.isfinite(highs).all(0))] = _NO_NUMBER
    return kinds


def _stretches(kinds: NDArray[np.int8], window_seconds: float) -> Iterator[Stretch]:
    """Join windows of a kind to stretches; the last entry of `kinds` is a `_SOUND` as an end."""
    loud = np.flatnonzero(kinds == _LOUD)
    if len(loud):  # a single stretch, since loud and quiet may alternate with each period
        yield Stretch(
            round(loud[0] * window_seconds, 4), round((loud[-1] + 1) * window_seconds, 4), LOUD
        )
    groups = np.array([0, 1, 1, 1, 2, 0])[kinds]  # 1: without sound, of any kind; 2: not finite
    edges = [0, *(np.flatnonzero(np.diff(groups)) + 1), len(groups)]
    for first, last in pairwise(edges):
        span = (round(first * window_seconds, 4), round(last * window_seconds, 4))
        if groups[first] == 2:
            yield Stretch(*span, NOT_FINITE)
        elif groups[first] and (
            span[1] - span[0] >= SHORTEST_SECONDS or last - first == len(kinds) - 1
        ):
            found = kinds[first:last]
            if (found == _CANCELLED).any():
                yield Stretch(*span, CANCELLING)
            else:
                yield Stretch(*span, SILENT if (found == _SILENT).all() else CONSTANT)
