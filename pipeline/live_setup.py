"""What end-to-end training starts from: which slots are live, what they read, and what leaks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from features.backbone_entry import BackboneEntry
from features.errors import ParamsError
from features.labels_folder import read_labelled
from features.leaks import find_seen_leak, gate, lines
from features.locations import corpus_root
from features.manifest import Manifest
from features.pins import check_pinned, leaves_weights_open
from features.seen import find_seen, trained_on
from pipeline.data import Examples
from pipeline.leak_gate import check_leaks
from pipeline.live import LiveExamples
from pipeline.params import ModelEntry, Params
from pipeline.train import filled_slots
from pipeline.tune_params import LIVE


def live_entries(params: Params, model: ModelEntry) -> dict[str, BackboneEntry]:
    """Backbone by slot, of the live slots that are filled.

    Raises:
        ParamsError: If none is.
    """
    entries = {slot: params.backbone(model.slots[slot]) for slot in LIVE}
    filled = {slot: entry for slot, entry in entries.items() if entry.kind != "none"}
    if not filled:
        raise ParamsError(
            f"models.{model.name}: given none of {', '.join(LIVE)}, whose backbones end-to-end "
            "training is about; fill one of them, or set `regime: cached`"
        )
    return filled


def cached_slots(params: Params, model: ModelEntry, corpus: str) -> dict[str, Path]:
    """Cache folder by slot, of the other slots that are filled."""
    slots = filled_slots(params, model, corpus)
    return {slot: folder for slot, folder in slots.items() if slot not in LIVE}


def protocol_problems(params: Params, model: ModelEntry) -> list[str]:
    """What of the protocol is not defined where features are made anew in each step."""
    protocol = params.training(model)
    return [
        f"train.{name}: given {given} in the regime e2e; expected 0, since it is an augmentation "
        "of cached features (`e2e.specaugment` masks inside the networks)"
        for name, given in (("seqaug", protocol.seqaug), ("mixup", protocol.mixup))
        if given
    ]


def read_manifest(corpus: str) -> Manifest:
    """The manifest of a corpus, its audio located."""
    folder = Path("data", corpus, "utterances")
    manifest = Manifest.read(folder)
    if all(utterance.audio is None for utterance in manifest):
        return manifest
    return manifest.located(folder.resolve() if manifest.generated else corpus_root(corpus))


def live_examples(
    params: Params,
    model: ModelEntry,
    cached: Examples,
    manifest: Manifest,
    entries: Mapping[str, BackboneEntry],
) -> LiveExamples:
    """All labelled utterances as the backbones read them; not yet tried whether they can.

    Args:
        params: params.yaml.
        model: Whose batches are to be formed.
        cached: Labels, and the streams of the other slots.
        manifest: With located audio.
        entries: Backbones of the live slots; they are built.
    """
    backbones = {slot: entry.build() for slot, entry in entries.items()}
    for slot, entry in entries.items():
        if leaves_weights_open(entry):
            check_pinned(entry, backbones[slot].provenance())
    return LiveExamples(
        cached=cached,
        backbones=backbones,
        utterances={utterance.id: utterance for utterance in manifest},
        batch_size=params.training(model).batch_size,
        batch_seconds=params.tuning().batch_seconds,
    )


def check_live_leaks(params: Params, model: ModelEntry, corpus: str) -> dict[str, Any]:
    """The leak gate: as for training on caches, and for the checkpoints that training begins with.

    Returns:
        Content of `leaks.json`: `pipeline.leak_gate`.

    Raises:
        ManifestError: If something leaks that is not allowed.
    """
    folder = Path("data", corpus, "labels")
    told = check_leaks(folder, cached_slots(params, model, corpus))
    manifest = Manifest.read(Path("data", corpus, "utterances"))
    card, labels = read_labelled(folder)
    leaks = []
    for slot, entry in live_entries(params, model).items():
        rows = trained_on(entry)
        if rows is not None:
            source = f"slot {slot}, backbone {entry.name}"
            leak = find_seen_leak(labels, find_seen(manifest, rows), source)
            leaks += [] if leak is None else [leak]
    gate(leaks, told["allowed"], corpus=str(card.get("corpus", corpus)))
    return {
        **told,
        "found": told["found"] + [leak.to_dict() for leak in leaks],
        "lines": told["lines"] + lines(leaks),
    }
