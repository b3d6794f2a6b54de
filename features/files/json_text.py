"""Parses JSON from untrusted files: any fault is a `ValueError`.

The standard library raises `RecursionError` at deep nesting, and makes integers of thousands of
digits, which no float holds: neither would reach the handlers of bad files.
"""

from __future__ import annotations

import json
from typing import Any

MOST_DIGITS = 300  # digits of an integer: any such number is a finite float


class Decoder(json.JSONDecoder):
    """A `json.JSONDecoder`, with its hooks, whose `decode` raises `ValueError` and nothing else."""

    def __init__(self, **hooks: Any) -> None:
        super().__init__(parse_int=_integer, **hooks)

    def decode(self, s: str, *args: Any) -> Any:
        """Parse a document."""
        try:
            return super().decode(s, *args)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None


def parse_json(content: str | bytes) -> Any:
    """Parse a document; bytes are UTF-8.

    Raises:
        ValueError: If it is not JSON or not UTF-8, is nested deeply or holds a huge integer.

    >>> parse_json(b'{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    return _DECODER.decode(content.decode() if isinstance(content, bytes) else content)


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"it holds an integer of {len(digits)} digits")
    return int(digits)


_DECODER = Decoder()
