"""What the page says about features, dropped utterances and machine, from run.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from features.files.reasons import count_reasons
from pipeline.data.left_out import count_by_reason, decode
from pipeline.evaluation.run_folder import RunFolder
from pipeline.html.format import NONE

_VARYING = "compute_deviation"  # key of a provenance in which the shards of a cache may differ
_TITLES = {
    "command": "command",
    "date": "date",
    "commit": "git commit",
    "device": "device",
    "cpu": "processor",
    "cores": "cores",
    "memory_gib": "memory",
    "platform": "system",
    "python": "Python",
    "packages": "packages",
}
"""Titles of the keys of `environment` in run.json, in order."""


def features_shape(spec: Mapping[str, Any]) -> str:
    """Width and frame rate of a slot's features.

    >>> features_shape({"dim": 8, "hop_seconds": 0.02})
    '8 wide, every 20 ms'
    """
    bins, hop = spec.get("bins"), spec.get("hop_seconds")
    width = f"{bins} bins" if bins else f"{spec.get('dim', '?')} wide"
    return width + (f", every {1000 * hop:g} ms" if isinstance(hop, int | float) else "")


def cache_hash(provenance: Mapping[str, Any]) -> str:
    """Name of a backbone's features in the work store.

    It is `features.backbone.entry.fingerprint`, whose module imports torch.
    """
    decisive = {name: value for name, value in provenance.items() if name != _VARYING}
    text = json.dumps(decisive, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def dropped_by_reason(run: RunFolder) -> list[tuple[str, str, int]]:
    """Slot, reason and number of the utterances without features, the most frequent first."""
    counts = count_by_reason({id: decode(text, run.slots) for id, text in run.dropped.items()})
    return [(count.slot or NONE, count.reason, count.utterances) for count in counts]


def noticed_in(head: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Utterance, slot and notice of what is used though a part of it is not."""
    return [
        (id, slot, notice)
        for slot, notices in _notices(head).items()
        for id, notice in notices.items()
    ]


def noticed_by_reason(head: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """Slot, notice and number of such utterances."""
    return [
        (slot, notice, count)
        for slot, notices in _notices(head).items()
        for notice, count in count_reasons(notices.values()).items()
    ]


def _notices(head: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    """Notices by slot, those on recognised words as slot `asr`."""
    heard = (head.get("asr") or {}).get("noticed")
    return dict(head.get("noticed") or {}) | ({"asr": heard} if heard else {})


def machine_facts(environment: Mapping[str, Any]) -> Iterator[tuple[str, str, object]]:
    """Key, title and value of what `pipeline.runtime.environment` recorded; None if unknown."""
    # known keys in the order of `_TITLES`, then those of other releases
    for name in dict.fromkeys((*_TITLES, *environment)):
        if name in environment and name != "dirty":
            yield name, _TITLES.get(name, name), _machine_fact(name, environment[name])


def _machine_fact(name: str, value: object) -> object:
    if value is None or value == "":
        return None
    if name == "memory_gib":
        return f"{value} GiB"
    if isinstance(value, dict):
        return ", ".join(f"{key} {of}" for key, of in value.items())
    return value
