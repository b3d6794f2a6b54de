"""Warns of backbones in slots for something else: audio in the slot text, words elsewhere.

Such a model trains, but the report describes the slot by its name (probes, ablated and swapped
slots, texts without emotion), so that its sentences are wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path

from features.backbones.imported import reads_of
from features.cache.reader import CacheReader
from features.errors import HeronryError
from pipeline.params.file import ModelEntry, Params

_WORDS = {"text": "words", "asr": "recognised words", "audio": "audio"}


def odd_slots(params: Params, model: ModelEntry, corpus: str) -> list[str]:
    """Warnings about slots with backbones for something else, one line each."""
    found = []
    for slot, name in model.slots.items():
        reads = _reads(params, name, corpus)
        # Odd are audio in the text slot, and words in any other.
        if reads in _WORDS and (reads == "audio") == (slot == "text"):
            read, meant = _WORDS[reads], "words" if slot == "text" else "audio"
            found.append(
                f"models.{model.name}.{slot}: backbone {name!r} reads {read}, and the slot {slot} "
                f"is for {meant}: what the report says of {slot} will be of {read}"
            )
    return found


def warn_odd_slots(params: Params, model: ModelEntry, corpus: str) -> dict[str, list[str]]:
    """Print `odd_slots` to standard error; their lines as `warnings` of run.json, if any."""
    found = odd_slots(params, model, corpus)
    for line in found:
        sys.stderr.write(f"  warning: {line}\n")
    return {"warnings": found} if found else {}


def _reads(params: Params, name: str, corpus: str) -> str:
    """Modality that a backbone reads; of imported features, that of their cache."""
    entry = params.backbone(name)
    if entry.kind != "imported":
        return entry.reads
    try:
        provenance = CacheReader(Path("cache", corpus, name)).provenance
    except HeronryError:
        # Training itself reports a cache that is missing or damaged.
        return "nothing"
    return reads_of(provenance) or "nothing"
