"""The part of the report's page that says what a score rests on: features, data, settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.left_out import groups
from pipeline.report_html import Markup, element, facts, folded, section, table
from pipeline.runs import RunFolder

LISTED = 20
"""Dropped utterances that are named."""
_NONE = "–"
_HASH = 12  # letters of a hash that are shown


def sources(run: RunFolder, card: Mapping[str, Any]) -> Iterator[Markup]:
    """All sections."""
    yield section("Slots", *_slots(run))
    yield section("Data", *_data(card))
    yield section("Dropped utterances", *_dropped(run))
    yield section("Model and training", *_settings(run))


def leak_warning(card: Mapping[str, Any]) -> Markup:
    """What params.yaml allows to be shared between splits, in red."""
    allowed = ", ".join(map(str, card["allow_leak"]))
    return element(
        "p", f"Leaks between the splits are allowed by params.yaml: {allowed}.", style="warning"
    )


def _slots(run: RunFolder) -> Iterator[Markup]:
    rows: list[list[object]] = []
    origins: list[Markup] = []
    for slot, entry in run.slots.items():
        if entry is None:
            rows.append([slot, "none", *[_NONE] * 5])
            continue
        origin = entry.get("provenance") or {}
        checkpoint, layer = (_or_dash(origin.get(key)) for key in ("checkpoint", "layer"))
        revision, weights = (_short(origin.get(key)) for key in ("revision", "weights_sha256"))
        name, features = entry.get("backbone", _NONE), _features(entry.get("spec") or {})
        rows.append([slot, name, features, checkpoint, revision, layer, weights])
        text = json.dumps(origin, ensure_ascii=False, indent=2)
        origins.append(folded(f"Provenance of {slot}: {name}", element("pre", text)))
    header = ["Slot", "Backbone", "Features", "Checkpoint", "Revision", "Layer", "Weights"]
    yield table(header, rows, style="words")
    yield from origins


def _features(spec: Mapping[str, Any]) -> str:
    bins, hop = spec.get("bins"), spec.get("hop_seconds")
    width = f"{bins} bins" if bins else f"{spec.get('dim', '?')} wide"
    return width + (f", every {1000 * hop:g} ms" if isinstance(hop, int | float) else "")


def _data(card: Mapping[str, Any]) -> Iterator[Markup]:
    keys = ("title", "licence", "citation", "obtain", "kind", "protocol", "folds", "rejected")
    leaks = card.get("leaks")
    verdict = "not stated" if leaks is None else f"{len(leaks)} found" if leaks else "none found"
    shown = {key: _or_dash(card.get(key)) for key in ("corpus", *keys)}
    yield facts(shown | {"leaks between splits": verdict})
    if card.get("allow_leak"):
        yield leak_warning(card)
    if leaks:
        yield element("ul", *(element("li", leak) for leak in leaks[:LISTED]))
        if len(leaks) > LISTED:
            yield element("p", f"and {len(leaks) - LISTED} more", style="quiet")
    counts, speakers = card.get("counts") or [], card.get("speakers") or []
    for fold, by_split in enumerate(counts):
        of_fold = speakers[fold] if fold < len(speakers) else {}
        whole = _counts(card["classes"], by_split, of_fold)
        yield whole if len(counts) == 1 else folded(f"Utterances of fold {fold}", whole)


def _counts(
    classes: list[str], by_split: Mapping[str, Mapping[str, int]], speakers: Mapping[str, int]
) -> Markup:
    splits = list(by_split)
    rows = [[name, *(by_split[split].get(name, 0) for split in splits)] for name in classes]
    rows.append(["all utterances", *(sum(by_split[split].values()) for split in splits)])
    if speakers:
        rows.append(["speakers", *(speakers.get(split, _NONE) for split in splits)])
    return table(["Class", *splits], rows)


def _dropped(run: RunFolder) -> Iterator[Markup]:
    dropped = run.dropped
    if not dropped:
        yield element("p", "None: every labelled utterance has features in all slots.")
        return
    yield element(
        "p",
        f"{len(dropped)} without features in some slot, of "
        f"{run.utterances + len(dropped)}: left out alike for all slots, neither trained on nor "
        "scored. One that several slots lack is counted in each.",
    )
    found = groups(dropped, run.slots)
    rows = [[group.slot or _NONE, group.reason, group.utterances] for group in found]
    yield table(["Slot", "Reason", "Utterances"], rows[:LISTED], style="words")
    yield table(["Utterance", "Reason"], list(dropped.items())[:LISTED], style="words")
    if len(dropped) > LISTED:
        yield element("p", f"and {len(dropped) - LISTED} more, in run.json", style="quiet")


def _settings(run: RunFolder) -> Iterator[Markup]:
    yield facts(
        {
            "trainable parameters": f"{run.parameters:,}",
            "training time": f"{run.train_seconds:g} s for all seeds and folds",
            "utterances": f"{run.utterances:,} in all splits",
        }
    )
    blocks = []
    for title, values in (("Constructor", run.args), ("Protocol", run.train)):
        shown = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
        body = facts(shown) if shown else element("p", "defaults", style="quiet")
        blocks.append(element("div", element("h3", title), body))
    yield element("div", *blocks, style="pair")


def _short(hash: object) -> object:
    return element("code", str(hash)[:_HASH], label=str(hash)) if hash else _NONE


def _or_dash(value: object) -> object:
    return _NONE if value is None or value == "" else value
