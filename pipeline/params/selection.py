"""Checks what params.yaml selects: model, corpus, regime, and the backbones of the model's slots.

Imports no torch, since every DVC command that runs something runs this first: stages/selection.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from features.arguments import one_of, problems, quoted
from features.settings.entry_names import all_name_problems
from features.transcription.settings import Transcription
from pipeline.params.catalogue.entries import expected_entry
from pipeline.tracking import tracker_problems

SLOTS = ("text", "speech", "nonverbal", "prosody", "spectral")
REGIMES = ("cached", "e2e")


def selection_problems(raw: Mapping[str, Any]) -> list[str]:
    """Entries with unusable names, or else selected names without an entry, one line each.

    Args:
        raw: params.yaml as it was read, or its fields.
    """
    found = section_problems(raw)
    if found:
        return found
    asr = raw.get("asr_backbones") or {}
    found = all_name_problems(raw["corpora"], raw["backbones"], raw["models"], asr)
    if found:
        return found
    found = choice_problems(raw) + transcribe_problems(raw)
    model = raw["models"].get(raw.get("fusion")) if not found else None
    if isinstance(model, Mapping):
        slots = {slot: model.get(slot, "none") for slot in (*SLOTS, "asr")}
        present = {**raw["backbones"], **asr}
        found += backbone_name_problems(f"models.{raw['fusion']}", slots, present)
    return found


def section_problems(raw: Mapping[str, Any]) -> list[str]:
    """Sections of entries that are missing or not a mapping, one line each."""
    return [
        f"{section}: given {quoted(raw.get(section))}; expected entries by name"
        for section in ("models", "corpora", "backbones")
        if not isinstance(raw.get(section), Mapping)
    ] + [
        f"asr_backbones: given {quoted(raw[section])}; expected entries by name, or {{}}"
        for section in ("asr_backbones",)
        if not isinstance(raw.get(section) or {}, Mapping)
    ]


def transcribe_problems(raw: Mapping[str, Any]) -> list[str]:
    """Problems with the section `transcribe`, one line each; none where it is left out."""
    given = raw.get("transcribe")
    if given is None:
        return []
    if not isinstance(given, Mapping):
        return [f"transcribe: given {quoted(given)}; expected settings such as {{corpora: [mine]}}"]
    return problems(Transcription, given, "transcribe") or [
        f"transcribe.corpora: given {quoted(name)}; expected "
        f"{expected_entry('corpora', name, raw['corpora'])}"
        for name in given.get("corpora", ())
        if name not in raw["corpora"]
    ]


def unwritten(raw: Mapping[str, Any]) -> list[str]:
    """What DVC's stages name and params.yaml leaves out, one line each: they have no defaults."""
    found = unwritten_slots(raw["models"])
    if raw.get("asr_backbones") is None:
        found.append(
            "asr_backbones: given nothing; expected entries that read transcripts, since DVC's "
            "stages name it: write `asr_backbones: {}`"
        )
    given = raw.get("transcribe") or {}
    defaults = {each.name: each for each in fields(Transcription)}
    lacking = [name for name in defaults if name not in given]
    if lacking:
        found.append(
            f"transcribe: given no {', '.join(lacking)}; expected all of {', '.join(defaults)}, "
            f"since DVC's stage `transcribe` names them: write "
            f"`transcribe: {json.dumps(vars(Transcription()))}`"
        )
    return found


def unwritten_slots(models: Mapping[str, Any]) -> list[str]:
    """Models without all six slots, one line each: DVC's templates have no defaults."""
    found = []
    for name, entry in models.items():
        slots = (*SLOTS, "asr") if isinstance(entry, Mapping) else ()
        lacking = [slot for slot in slots if slot not in entry]
        if lacking:
            found.append(
                f"models.{name}: given no {', '.join(lacking)}; expected all six slots, since "
                f"DVC's stages name them: write `{lacking[0]}: none`"
            )
    return found


def choice_problems(raw: Mapping[str, Any]) -> list[str]:
    """Problems with `fusion`, `corpus`, `regime` and `trackers`, unless missing, one line each."""
    found = []
    for key, section in (("fusion", "models"), ("corpus", "corpora")):
        if key in raw and isinstance(raw.get(section), Mapping):
            found += _name_problem(key, raw[key], section, raw[section])
    regime = raw.get("regime", REGIMES[0])
    if not (isinstance(regime, str) and regime in REGIMES):
        found.append(f"regime: given {quoted(regime)}; expected {one_of(regime, REGIMES)}")
    return found + tracker_problems(raw.get("trackers", []))


def backbone_name_problems(
    where: str, slots: Mapping[str, object], backbones: Collection[str]
) -> list[str]:
    """Slots of a model that name no entry of `backbones`, one line each."""
    return [
        line
        for slot, name in slots.items()
        for line in _name_problem(f"{where}.{slot}", name, "backbones", backbones)
    ]


def _name_problem(where: str, given: object, section: str, present: Collection[str]) -> list[str]:
    if isinstance(given, str) and given in present:
        return []
    return [f"{where}: given {quoted(given)}; expected {expected_entry(section, given, present)}"]
