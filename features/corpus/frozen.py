"""Fields of records that cannot be changed: mappings of names to numbers, and repeated texts."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from features.arguments import quoted
from features.errors import ManifestError


class Numbers(Mapping[str, float]):
    """Read-only mapping of names to numbers, in order.

    Unlike `types.MappingProxyType` it can be pickled, as records for worker processes are.
    """

    __slots__ = ("_held",)

    def __init__(self, held: Mapping[str, float]) -> None:
        self._held = dict(held)

    def __getitem__(self, name: str) -> float:
        return self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        return repr(self._held)


def frozen(what: str, given: Any, *, counts: bool = False) -> Numbers | None:
    """Read-only copy of a mapping of names to numbers; None of None.

    Args:
        what: Name of the mapping, for messages.
        given: The mapping.
        counts: Whether the numbers are counts of raters, which are whole and above 0, rather than
            any finite numbers.

    Raises:
        ManifestError: If it is anything else, or empty: what is unknown is None.
    """
    if given is None or isinstance(given, Numbers):
        return given
    if not isinstance(given, Mapping) or not given:
        raise ManifestError(f"{what} is {quoted(given)}; expected a mapping of names to numbers")
    for name, value in given.items():
        if not isinstance(name, str) or not name:
            raise ManifestError(f"{what} names {quoted(name)}; expected text")
        # Not isinstance, since True is an int.
        if type(value) not in (float, int) or not math.isfinite(value):
            raise ManifestError(f"{what}: {name} is {quoted(value)}; expected a finite number")
        if counts and not (value > 0 and float(value).is_integer()):
            raise ManifestError(
                f"{what}: {name} is {quoted(value)}; expected a count of raters, 1 or more"
            )
    return Numbers(given)


def check_outside(what: str, given: Any) -> None:
    """Raise `ManifestError` unless a number of votes outside the classes is whole, or None."""
    if given is not None and not (
        type(given) in (float, int) and given >= 0 and float(given).is_integer()
    ):
        raise ManifestError(f"{what} is {quoted(given)}; expected a count of raters")


def share_texts(record: object, fields: Iterable[str]) -> None:
    """Let a frozen record hold the one copy of each text, or row of texts, that all records share.

    Names of speakers, classes and files stand in many rows, and parsing makes a new text of each;
    under a protocol of thousands of folds a row of splits takes more than all else.
    """
    for name in fields:
        value = getattr(record, name)
        if type(value) is str:  # others are refused elsewhere, and a subclass cannot be interned
            object.__setattr__(record, name, sys.intern(value))
        elif type(value) is tuple:
            object.__setattr__(record, name, _one_copy(value))


@functools.lru_cache(maxsize=4096)
def _one_copy(row: tuple[str, ...]) -> tuple[str, ...]:
    return row
