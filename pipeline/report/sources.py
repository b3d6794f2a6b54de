"""The report's sections on what a score rests on: features, settings, machine and commit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from features.files.reasons import count_reasons
from pipeline.data.left_out import count_by_reason, decode
from pipeline.evaluation.run_folder import RunFolder
from pipeline.html.format import NONE
from pipeline.html.markup import Markup, block, element, facts, folded, quiet, table
from pipeline.report.model_card import NAME as MODEL_CARD
from pipeline.runs.head import read_head

LISTED = 20
"""Dropped utterances that are named."""
_HASH = 12  # letters of a hash that are shown
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


def slots_of(run: RunFolder) -> Iterator[Markup]:
    """The backbone of each slot, with its revision and hashes."""
    rows: list[list[object]] = []
    origins: list[Markup] = []
    for slot, entry in run.slots.items():
        if entry is None:
            rows.append([slot, "none", *[NONE] * 6])
            continue
        origin = entry.get("provenance") or {}
        checkpoint, layer = (_or_dash(origin.get(key)) for key in ("checkpoint", "layer"))
        revision, weights = (_short(origin.get(key)) for key in ("revision", "weights_sha256"))
        name, features = entry.get("backbone", NONE), _features(entry.get("spec") or {})
        cache = _short(cache_hash(origin) if origin else None)
        rows.append([slot, name, features, checkpoint, revision, layer, weights, cache])
        text = json.dumps(origin, ensure_ascii=False, indent=2)
        origins.append(folded(f"Provenance of {slot}: {name}", block(text)))
    header = ["Slot", "Backbone", "Features", "Checkpoint", "Revision", "Layer"]
    caption = "Backbones; hashes are cut, and whole on pointing at them and below"
    yield table([*header, "Weights", "Cache"], rows, style="words", caption=caption)
    warnings = read_head(run.path).get("warnings") or []
    if warnings:
        yield element("ul", *(element("li", line) for line in warnings), style="note")
    yield quiet("Cache: hash of all that decides the features, which names them in the work store.")
    yield from origins


def cache_hash(provenance: Mapping[str, Any]) -> str:
    """What names a backbone's features in the work store.

    It is `features.backbone.entry.fingerprint`, which would bring torch along.
    """
    decisive = {name: value for name, value in provenance.items() if name != _VARYING}
    text = json.dumps(decisive, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def dropped_of(run: RunFolder) -> Iterator[Markup]:
    """What has no features in some slot, and why; and what is used in part."""
    if run.dropped:
        yield from _left_out(run)
    else:
        yield element("p", "None: every labelled utterance has features in all slots.")
    yield from _in_part(run)


def _left_out(run: RunFolder) -> Iterator[Markup]:
    dropped = run.dropped
    yield element(
        "p",
        f"{len(dropped)} without features in some slot, of "
        f"{run.utterances + len(dropped)}: left out alike for all slots, neither trained on nor "
        "scored. One that several slots lack is counted in each.",
    )
    counts = count_by_reason({id: decode(text, run.slots) for id, text in dropped.items()})
    rows = [[count.slot or NONE, count.reason, count.utterances] for count in counts]
    yield table(["Slot", "Reason", "Utterances"], rows[:LISTED], style="words", caption="By reason")
    named = list(dropped.items())[:LISTED]
    yield table(["Utterance", "Reason"], named, style="words", caption="One by one")
    if len(dropped) > LISTED:
        yield quiet(f"and {len(dropped) - LISTED} more, in run.json")


def _in_part(run: RunFolder) -> Iterator[Markup]:
    head = read_head(run.path)
    told: dict[str, dict[str, str]] = dict(head.get("noticed") or {})
    heard = (head.get("asr") or {}).get("noticed")
    told |= {"asr": heard} if heard else {}
    if not told:
        return
    count = len({id for noticed in told.values() for id in noticed})
    yield element(
        "p", f"{count} used though not wholly: a slot's features leave out a part of them."
    )
    reasons = {slot: count_reasons(noticed.values()) for slot, noticed in told.items()}
    rows = [[slot, what, many] for slot, counts in reasons.items() for what, many in counts.items()]
    yield table(["Slot", "Notice", "Utterances"], rows[:LISTED], style="words", caption="In part")
    named = [[id, slot, what] for slot, noticed in told.items() for id, what in noticed.items()]
    yield table(
        ["Utterance", "Slot", "Notice"], named[:LISTED], style="words", caption="One by one"
    )
    if len(named) > LISTED:
        yield quiet(f"and {len(named) - LISTED} more, in run.json")


def settings_of(run: RunFolder) -> Iterator[Markup]:
    """Size, time, and every parameter."""
    told = {
        "trainable parameters": f"{run.parameters:,}",
        "training time": f"{run.train_seconds:g} s for all seeds and folds",
        "utterances": f"{run.utterances:,} in all splits",
        "seeds": ", ".join(map(str, run.seeds)),
    }
    if (run.path / MODEL_CARD).exists():
        told["model card"] = f"{MODEL_CARD} in the run folder"
    yield facts(told)
    inputs = read_head(run.path).get("inputs")
    settings = {"Constructor": run.args, "Protocol": run.train}
    settings |= {"Before the model": inputs} if inputs else {}
    blocks = []
    for title, values in settings.items():
        shown = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
        body = facts(shown) if shown else quiet("defaults")
        blocks.append(element("div", element("h3", title), body))
    yield element("div", *blocks, style="pair")


def machine_of(run: RunFolder) -> Iterator[Markup]:
    """Machine, time and commit of the training, as `pipeline.runtime.environment` recorded them."""
    found = read_head(run.path).get("environment")
    if not found:
        yield quiet("run.json does not say where and from which commit; training again records it.")
        return
    names = [*(name for name in _TITLES if name in found), *(n for n in found if n not in _TITLES)]
    shown = {_TITLES.get(name, name): _fact(name, found[name]) for name in names if name != "dirty"}
    yield facts(shown)
    if found.get("dirty"):
        yield element(
            "p",
            "Trained from a working tree with changes that were not committed: the commit alone "
            "does not say what was run.",
            style="note",
        )


def _fact(name: str, value: object) -> object:
    if value is None or value == "":
        return "unknown"
    if name in ("command", "commit"):
        return element("code", value)
    if name == "memory_gib":
        return f"{value} GiB"
    if isinstance(value, dict):
        return ", ".join(f"{key} {of}" for key, of in value.items())
    return value


def _features(spec: Mapping[str, Any]) -> str:
    bins, hop = spec.get("bins"), spec.get("hop_seconds")
    width = f"{bins} bins" if bins else f"{spec.get('dim', '?')} wide"
    return width + (f", every {1000 * hop:g} ms" if isinstance(hop, int | float) else "")


def _short(hash: object) -> object:
    return element("code", str(hash)[:_HASH], label=str(hash)) if hash else NONE


def _or_dash(value: object) -> object:
    return NONE if value is None or value == "" else value
