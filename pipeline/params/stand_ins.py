"""Puts a recipe on the demo corpus, for machines without its corpora and weights: `--demo`.

A backbone whose checkpoint comes from a model hub gives way to one that every machine has, which
keeps what the recipe changes of its settings. The model's entry says so in `stand_ins`, and with it
run.json and the report. The corpus is a small one, and the trainings are short.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from features.arguments import quoted
from features.errors import ParamsError
from pipeline.params.recipes import Overrides, Recipe, Row, known_entry, merged
from pipeline.params.selection import SLOTS, selected_section

CORPUS, UTTERANCES = "demo", 96
EPOCHS, WARMUP_STEPS = 2, 4  # at most
FRAMES = {
    "text": "minilm",
    "speech": "whisper_tiny_en",
    "nonverbal": "whisper_tiny_en_mid",
    "prosody": "f0",
    "spectral": "logmel",
}
POOLED = FRAMES | {
    "text": "minilm_mean",
    "speech": "whisper_tiny_en_mean",
    "nonverbal": "whisper_tiny_en_mean",
}
IN_HZ = "f0_hz"
WHISPER = {"pad": "trim"}  # windows of 30 s would take most of the time


def on_demo(recipe: Recipe, raw: Mapping[str, Any]) -> Recipe:
    """The recipe on the demo corpus, with stand-ins.

    Rows that differ in nothing but the names of backbones with the same stand-in get the same
    settings, and so are one experiment.

    Args:
        recipe: A recipe.
        raw: params.yaml as it was read.

    Raises:
        ParamsError: If params.yaml has another corpus under the demo's name, or the recipe is not
            about entries of `models`.
    """
    kind = known_entry(raw, "corpora", CORPUS).get("kind", CORPUS)
    if kind != CORPUS:
        raise ParamsError(
            f"--demo: corpora.{CORPUS}.kind: given {quoted(kind)}; expected {CORPUS!r}: rename "
            "that entry, and `heronry add corpus demo`"
        )
    made = [_on_demo(recipe.name, row, raw) for row in recipe.rows]
    rows = []
    for row, (settings, slots) in zip(recipe.rows, made, strict=True):
        same = [others for each, others in made if each == settings]
        names = {slot: list(dict.fromkeys(each[slot] for each in same)) for slot in slots}
        noted = {"models": {settings["fusion"]: {"stand_ins": names}}} if names else {}
        rows.append(replace(row, settings=merged(settings, noted)))
    return replace(recipe, name=f"{recipe.name}-demo", rows=tuple(rows))


def _on_demo(recipe: str, row: Row, raw: Mapping[str, Any]) -> tuple[Overrides, dict[str, str]]:
    """Settings of an experiment on the demo corpus, and the backbones that give way, by slot."""
    given = row.settings
    if selected_section({**raw, **given}) != "models":
        raise ParamsError(f"recipe {recipe}: --demo takes recipes of entries of `models` alone")
    fusion = str(given.get("fusion", raw.get("fusion")))
    changed = given.get("models", {}).get(fusion, {})
    entry = merged(known_entry(raw, "models", fusion), changed)
    slots = {slot: str(entry.get(slot, "none")) for slot in SLOTS}
    chosen = row.demo.get("models", {}).get(fusion, {})
    backbones = given.get("backbones", {})
    filled = {
        slot: chosen.get(slot) or _stand_in(slot, name, raw, backbones)
        for slot, name in slots.items()
    }
    gone = {slot: name for slot, name in slots.items() if filled[slot] != name}
    model = {**changed, **{slot: filled[slot] for slot in gone}}
    if entry.get("asr", "none") != "none" and "text" in gone:
        model["asr"] = "none"  # it reads words as the text slot's backbone does
    own = {filled[slot]: backbones[name] for slot, name in slots.items() if name in backbones}
    short = {name: WHISPER for name in filled.values() if _kind(raw, name) == "whisper"}
    corpora = {name: each for name, each in given.get("corpora", {}).items() if name == CORPUS}
    settings = {
        **given,
        "fusion": fusion,
        "corpus": CORPUS,
        "seeds": 1,
        "corpora": merged(corpora, {CORPUS: {"utterances": UTTERANCES}}),
        "backbones": merged(short, own),
        "models": {fusion: model} if model else {},
        "train": merged(given.get("train", {}), _short(entry.get("train", {}), given)),
    }
    settings = {key: value for key, value in settings.items() if value != {}}
    return merged(settings, row.demo), gone


def _short(entry: Mapping[str, Any], given: Overrides) -> dict[str, Any]:
    """Training settings of an experiment that are lowered."""
    train = {**entry, **given.get("train", {})}
    epochs, warmup = train.get("epochs") or EPOCHS, train.get("warmup_steps") or 0
    # What is no number stays, and is refused with all other settings.
    found = {"epochs": min(EPOCHS, epochs)} if isinstance(epochs, int) else {}
    if warmup and isinstance(warmup, int):
        found["warmup_steps"] = min(WARMUP_STEPS, warmup)
    return found


def _stand_in(slot: str, name: str, raw: Mapping[str, Any], changed: Mapping[str, Any]) -> str:
    """What takes the place of a backbone in a slot; itself if every machine has it."""
    entry = merged(known_entry(raw, "backbones", name), changed.get(name, {}))
    if "checkpoint" not in entry or "package" in entry:
        return name
    if slot == "prosody" and entry.get("values", "bins") != "bins":
        return IN_HZ
    return (FRAMES if entry.get("pooling", "frames") == "frames" else POOLED)[slot]


def _kind(raw: Mapping[str, Any], name: str) -> object:
    return known_entry(raw, "backbones", name).get("kind", name)
