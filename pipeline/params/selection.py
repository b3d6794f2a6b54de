"""What params.yaml selects: model, corpus, regime, and the backbones of the model's slots.

Without torch, since DVC waits for it: see stages/selection.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from features.arguments import one_of, quoted
from features.settings.entry_names import all_name_problems

SLOTS = ("text", "speech", "nonverbal", "prosody", "spectral")
REGIMES = ("cached", "e2e")


def selection_problems(raw: Mapping[str, Any]) -> list[str]:
    """Names of entries that DVC could not use, or what of the selection is no entry, a line each.

    Args:
        raw: params.yaml as it was read, or its fields.
    """
    found = [
        f"{section}: given {quoted(raw.get(section))}; expected entries by name"
        for section in ("models", "corpora", "backbones")
        if not isinstance(raw.get(section), Mapping)
    ]
    found = found or all_name_problems(raw["corpora"], raw["backbones"], raw["models"])
    if found:
        return found
    found = choice_problems(raw)
    model = raw["models"].get(raw.get("fusion")) if not found else None
    if isinstance(model, Mapping):
        slots = {slot: model.get(slot, "none") for slot in (*SLOTS, "asr")}
        found += backbone_name_problems(f"models.{raw['fusion']}", slots, raw["backbones"])
    return found


def choice_problems(raw: Mapping[str, Any]) -> list[str]:
    """What is wrong with `fusion`, `corpus` and `regime`, but not that they are missing."""
    entries = {"fusion": raw.get("models"), "corpus": raw.get("corpora")}
    expected: dict[str, Collection[str]] = {
        key: names for key, names in entries.items() if isinstance(names, Mapping)
    }
    expected["regime"] = REGIMES
    return [
        line
        for key, names in expected.items()
        if key in raw
        for line in _name_problem(key, raw[key], names)
    ]


def backbone_name_problems(
    where: str, slots: Mapping[str, object], backbones: Collection[str]
) -> list[str]:
    """Slots of a model that name no entry of `backbones`, a line each."""
    return [
        line
        for slot, name in slots.items()
        for line in _name_problem(f"{where}.{slot}", name, backbones)
    ]


def _name_problem(where: str, given: object, names: Collection[str]) -> list[str]:
    if isinstance(given, str) and given in names:
        return []
    return [f"{where}: given {quoted(given)}; expected {one_of(given, names)}"]
