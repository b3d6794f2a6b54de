"""Progress of long work: a bar in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
LINE_SECONDS = 15.0  # between two plain lines


def progress(items: Iterable[Item], *, total: int, what: str, unit: str) -> Iterator[Item]:
    """Pass `items` through, telling on standard error how far it has come.

    >>> list(progress([1, 2], total=2, what="counting", unit="number"))
    [1, 2]
    """
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=what, unit=f" {unit}", leave=False)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= LINE_SECONDS and done < total:
            last = now
            rate = done / (now - start)
            left = (total - done) / rate
            line = f"{what}: {done}/{total} {unit}s, {rate:.1f} a second, {left:.0f} s left\n"
            sys.stderr.write(line)
            sys.stderr.flush()
