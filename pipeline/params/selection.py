"""Checks what params.yaml selects: model, corpus, regime, and the backbones of the model's slots.

Imports no torch, since every DVC command that runs something runs this first: stages/selection.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from features.arguments import one_of, quoted
from features.settings.entry_names import all_name_problems
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
    found = found or all_name_problems(raw["corpora"], raw["backbones"], raw["models"])
    if found:
        return found
    found = choice_problems(raw)
    model = raw["models"].get(raw.get("fusion")) if not found else None
    if isinstance(model, Mapping):
        slots = {slot: model.get(slot, "none") for slot in (*SLOTS, "asr")}
        found += backbone_name_problems(f"models.{raw['fusion']}", slots, raw["backbones"])
    return found


def section_problems(raw: Mapping[str, Any]) -> list[str]:
    """Sections of entries that are missing or not a mapping, one line each."""
    return [
        f"{section}: given {quoted(raw.get(section))}; expected entries by name"
        for section in ("models", "corpora", "backbones")
        if not isinstance(raw.get(section), Mapping)
    ]


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
