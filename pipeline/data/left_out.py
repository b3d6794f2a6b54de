"""Reasons for which utterances are left out: a slot has no features of them.

In the code they are a mapping, utterance to slot to reason. run.json holds one text an utterance
(`dropped`), which `encode` writes and `decode` reads.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from features.files.reasons import count_reasons


@dataclass(frozen=True)
class ReasonCount:
    """Number of utterances that lack the same slot for the same reason.

    Attributes:
        slot: Slot without features; empty if run.json names none.
        reason: Reason that they share: numbers and paths that differ are replaced by an ellipsis.
        utterances: Their number. One that lacks two slots is counted in both.
    """

    slot: str
    reason: str
    utterances: int


def encode(reasons: Mapping[str, str]) -> str:
    """Text in run.json for an utterance's reasons by slot.

    >>> encode({"text": "has no text", "speech": "the file is empty"})
    'text: has no text; speech: the file is empty'
    """
    return "; ".join(f"{slot}: {reason}" for slot, reason in reasons.items())


def decode(text: str, slots: Collection[str]) -> dict[str, str]:
    """Reasons by slot of an utterance, from its text in run.json.

    Args:
        text: Result of `encode`, or a text of an older run, which gets the slot `""`.
        slots: Slots of the run. A reason may itself hold `; ` and `: `, so that the text can only
            be split where a known slot begins.

    >>> decode("text: has no text; speech: cut; at 2: 3", ["speech", "text"])
    {'text': 'has no text', 'speech': 'cut; at 2: 3'}
    """
    names = "|".join(map(re.escape, slots))
    # With a group in the pattern: what comes before, then name and text in turns.
    before, *rest = re.split(rf"(?:^|; )({names}): ", text)
    reasons = dict(zip(rest[::2], rest[1::2], strict=True))
    return {"": before} | reasons if before else reasons


def count_by_reason(dropped: Mapping[str, Mapping[str, str]]) -> list[ReasonCount]:
    """Numbers of utterances by slot and reason, the most frequent first."""
    by_slot: dict[str, list[str]] = {}
    for reasons in dropped.values():
        for slot, reason in reasons.items():
            by_slot.setdefault(slot, []).append(reason)
    counts = [
        ReasonCount(slot, reason, utterances)
        for slot, found in by_slot.items()
        for reason, utterances in count_reasons(found).items()
    ]
    return sorted(counts, key=lambda count: -count.utterances)


def summary(dropped: Mapping[str, Mapping[str, str]], total: int) -> str:
    """Number of utterances left out of `total`, and a line for each slot and reason."""
    head = f"{len(dropped)} of {total} utterances are left out, alike for all slots:"
    counts = count_by_reason(dropped)
    lines = [f"{count.slot}: {count.reason} ({count.utterances})" for count in counts]
    return "\n  ".join([head, *lines])
