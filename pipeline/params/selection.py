"""Checks what params.yaml selects: regime, corpus, model or ensemble, and a model's backbones.

Imports no torch, since every DVC command that runs something runs this first: stages/selection.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from features.arguments import one_of, problems, quoted, refuse
from features.files.yaml_text import read_params_file
from features.settings.entry_names import BACKBONES, all_name_problems
from features.transcription.settings import Transcription
from pipeline.params.catalogue.entries import expected_entry
from pipeline.tracking import tracker_problems

SLOTS = ("text", "speech", "nonverbal", "prosody", "spectral")
SECTION_OF = {
    "cached": "models",
    "e2e": "models",
    "ensemble": "ensembles",
    "speech_llm": "speech_llms",
}
"""Section of params.yaml that `fusion` is an entry of, by regime."""
REGIMES = tuple(SECTION_OF)
RUNS = tuple(dict.fromkeys(SECTION_OF.values()))  # sections whose entries make run folders
MAY_LACK = ("asr_backbones", *RUNS[1:])  # sections without which all works where DVC does not run


def selection_problems(raw: Mapping[str, Any]) -> list[str]:
    """Entries with unusable names, or else selected names without an entry, one line each.

    Args:
        raw: params.yaml as it was read, or its fields.
    """
    found = section_problems(raw)
    if found:
        return found
    found = all_name_problems(raw)
    if found:
        return found
    found = choice_problems(raw) + transcribe_problems(raw)
    if found or selected_section(raw) != "models":
        return found
    model = raw["models"].get(raw.get("fusion"))
    if isinstance(model, Mapping):
        slots = {slot: model.get(slot, "none") for slot in (*SLOTS, "asr")}
        present = [name for section in BACKBONES for name in raw.get(section) or ()]
        found += backbone_name_problems(f"models.{raw['fusion']}", slots, present)
    return found


def read_corpora(path: Path) -> Mapping[str, Any]:
    """The raw entries of `corpora` in params.yaml, which also belong to unions of them.

    Raises:
        ParamsError: If the file cannot be read, or sections or names of entries are unusable.
    """
    raw = read_params_file(path)
    refuse(section_problems(raw) or all_name_problems(raw))
    corpora: Mapping[str, Any] = raw["corpora"]
    return corpora


def section_problems(raw: Mapping[str, Any]) -> list[str]:
    """Sections of entries that are missing or not a mapping, one line each."""
    return [
        f"{section}: given {quoted(raw.get(section))}; expected entries by name"
        for section in ("models", "corpora", "backbones")
        if not isinstance(raw.get(section), Mapping)
    ] + [
        f"{section}: given {quoted(raw[section])}; expected entries by name, or {{}}"
        for section in (*MAY_LACK, "registry")
        if not isinstance(raw.get(section, {}), Mapping)
        # DVC has a default for the latter, and so refuses a null; what lacks of the others is told
        # by `unwritten`.
        and (section == "registry" or raw[section] is not None)
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
    found += [
        f"{section}: given nothing; expected entries, since DVC's stages name it: write "
        f"`{section}: {{}}`"
        for section in MAY_LACK
        if raw.get(section) is None
    ]
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
    for key, section in (("fusion", selected_section(raw)), ("corpus", "corpora")):
        present = raw.get(section) or ({} if section in MAY_LACK else None)
        if key in raw and isinstance(present, Mapping):
            wrong = _name_problem(key, raw[key], section, present)
            found += [f"{line}{_elsewhere(raw, raw[key])}" for line in wrong]
    regime = raw.get("regime", REGIMES[0])
    if not (isinstance(regime, str) and regime in REGIMES):
        found.append(f"regime: given {quoted(regime)}; expected {one_of(regime, REGIMES)}")
    return found + tracker_problems(raw.get("trackers", []))


def selected_section(raw: Mapping[str, Any]) -> str:
    """Section that `fusion` is an entry of; `models` where `regime` is none.

    >>> selected_section({"regime": "ensemble"}), selected_section({})
    ('ensembles', 'models')
    """
    regime = raw.get("regime")
    return SECTION_OF.get(regime, RUNS[0]) if isinstance(regime, str) else RUNS[0]


def regime_of(raw: Mapping[str, Any], name: object) -> str | None:
    """A regime in which `fusion` can be that name: the selected one if it can; None: no entry.

    >>> regime_of({"regime": "e2e", "models": {}, "ensembles": {"votes": {}}}, "votes")
    'ensemble'
    """
    own = raw.get("regime")
    regimes = (own, *REGIMES) if isinstance(own, str) and own in REGIMES else REGIMES
    fitting = (each for each in regimes if name in (raw.get(SECTION_OF[each]) or {}))
    return next(fitting, None) if isinstance(name, str) else None


def _elsewhere(raw: Mapping[str, Any], name: object) -> str:
    """What to add about a name that another section than the selected one has."""
    regime = regime_of(raw, name)
    return "" if regime is None else f"; `{SECTION_OF[regime]}` has it: set `regime: {regime}`"


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
