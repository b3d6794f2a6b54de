"""What training leaves out, and why: utterances that at least one slot has no features of.

In run.json an utterance has its reasons as text, `slot: reason`, joined by `; ` if several slots
lack it. Here that text is made, and read again to count.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Group:
    """Utterances that lack the same slot for the same reason.

    Attributes:
        slot: Slot without features; empty if the text names none.
        reason: What all have in common: numbers that differ are replaced by an ellipsis.
        utterances: How many there are. One that lacks two slots is in two groups.
    """

    slot: str
    reason: str
    utterances: int


def describe(reasons: Mapping[str, str]) -> str:
    """One text of the reasons by slot of an utterance.

    >>> describe({"text": "has no text", "speech": "the file is empty"})
    'text: has no text; speech: the file is empty'
    """
    return "; ".join(f"{slot}: {reason}" for slot, reason in reasons.items())


def groups(dropped: Mapping[str, str], slots: Collection[str]) -> list[Group]:
    """Count the texts of `describe`, the most frequent first.

    Args:
        dropped: Texts by utterance.
        slots: Names of slots that may be in them.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for text in dropped.values():
        for slot, reason in _parts(text, slots):
            found.setdefault((slot, _NUMBER.sub("…", reason)), []).append(reason)
    counted = [
        Group(slot, reasons[0] if len(set(reasons)) == 1 else shape, len(reasons))
        for (slot, shape), reasons in found.items()
    ]
    return sorted(counted, key=lambda group: -group.utterances)


def message(dropped: Mapping[str, str], slots: Collection[str], total: int) -> str:
    """How many of `total` utterances are left out, with a line for each slot and reason."""
    head = f"{len(dropped)} of {total} utterances are left out, alike for all slots:"
    lines = [
        f"{group.slot}: {group.reason} ({group.utterances})" for group in groups(dropped, slots)
    ]
    return "\n  ".join([head, *lines])


def _parts(text: str, slots: Collection[str]) -> list[tuple[str, str]]:
    names = "|".join(map(re.escape, slots))
    before, *rest = re.split(rf"(?:^|; )({names}): ", text)
    parts = list(zip(rest[::2], rest[1::2], strict=True))
    return [("", before), *parts] if before else parts
