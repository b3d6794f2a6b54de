"""Backbones in slots that are meant for something else: sound in the slot text, words elsewhere.

Nothing fails then, but what the report says of a slot (probes, a slot left out or exchanged, texts
without emotion) is said of the wrong thing.
"""

from __future__ import annotations

import sys
from pathlib import Path

from features.backbones.imported import IMPORTED
from features.cache.reader import CacheReader
from features.errors import HeronryError
from pipeline.params.file import ModelEntry, Params

_WORDS = {"text": "words", "asr": "recognised words", "audio": "audio"}


def odd_slots(params: Params, model: ModelEntry, corpus: str) -> list[str]:
    """A line for each slot whose backbone reads what the slot is not for; `none` reads nothing."""
    told = []
    for slot, name in model.slots.items():
        reads = _reads(params, name, corpus)
        if reads in _WORDS and (reads == "audio") == (slot == "text"):
            read, meant = _WORDS[reads], "words" if slot == "text" else "audio"
            told.append(
                f"models.{model.name}.{slot}: backbone {name!r} reads {read}, and the slot {slot} "
                f"is for {meant}: what the report says of {slot} will be of {read}"
            )
    return told


def tell_odd_slots(params: Params, model: ModelEntry, corpus: str) -> dict[str, list[str]]:
    """Say so on standard error; the lines for run.json, under `warnings`, if there are any."""
    told = odd_slots(params, model, corpus)
    for line in told:
        sys.stderr.write(f"  warning: {line}\n")
    return {"warnings": told} if told else {}


def _reads(params: Params, name: str, corpus: str) -> str:
    """What a backbone reads; of imported features what their cache says, where it is there."""
    entry = params.backbone(name)
    if entry.kind != "imported":
        return entry.reads
    try:
        source = CacheReader(Path("cache", corpus, name)).provenance.get(IMPORTED)
    except HeronryError:
        return "nothing"
    return str(source.get("reads")) if isinstance(source, dict) else "nothing"
