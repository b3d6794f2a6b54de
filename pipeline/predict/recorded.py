"""The backbones of a run, found again by what run.json records of them, and checked against it.

Features that other weights or settings compute look as good as the right ones, and predictions on
them mean nothing. So a backbone is used only if everything that it says of itself, the hash of its
weights included, is what the run was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from features.arguments import parameter_types
from features.backbone.base import Backbone
from features.backbone.entry import (
    PACKAGE,
    BackboneEntry,
    backbone_entry,
    provenance_differences,
)
from features.errors import ParamsError, RunError
from features.files.yaml_text import read_params_file
from features.settings.plugins import kinds, load
from features.weights.identity import CONTENT
from pipeline.e2e.export import BACKBONES
from pipeline.params.catalogue.entries import catalogue_entry, catalogued
from pipeline.params.tuning import LIVE, TuneParams

PARAMS = Path("params.yaml")
LISTED = 10  # differences that a message quotes
# Of a provenance: which weights they are, and the tokenizer that is saved with them.
OF_WEIGHTS = ("checkpoint", "revision", "weights_sha256", "tokenizer_sha256")


def known_entries(params: Path | None = PARAMS) -> dict[str, BackboneEntry]:
    """Entries of params.yaml (none where there is no such file), then those of the catalogue.

    Without `params` the catalogue's alone. Entries with a problem are left out: they are of other
    models, or the recorded one is rebuilt.
    """
    raw = {name: catalogue_entry("backbones", name) for name in catalogued("backbones")}
    if params is not None:
        for section in ("backbones", "asr_backbones"):
            raw |= own_section(section, params)
    found = {}
    for name, mapping in raw.items():
        try:
            found[name] = backbone_entry(name, mapping)
        except ParamsError:
            continue
    return found


def own_section(section: str, params: Path = PARAMS) -> Mapping[str, Any]:
    """A section of params.yaml, unchecked; empty where there is none."""
    raw = read_params_file(params).get(section) if params.is_file() else None
    return raw if isinstance(raw, Mapping) else {}


def newest_versions(known: Mapping[str, BackboneEntry]) -> dict[str, int]:
    """The highest version of each kind of backbone."""
    found: dict[str, int] = {}
    for each in known.values():
        found[each.kind] = max(each.version, found.get(each.kind, 0))
    return found


def recorded_entry(
    slot: str,
    head: Mapping[str, Any],
    known: Mapping[str, BackboneEntry],
    then: Mapping[str, int] | None = None,
) -> BackboneEntry:
    """The entry that computes what a slot of a run was trained on.

    It is that of params.yaml (or the catalogue) by the recorded name, if its settings are the
    recorded ones; else one made of the record.

    Args:
        slot: Name of the slot.
        head: Its object in run.json: backbone, spec, provenance.
        known: Result of `known_entries`.
        then: `newest_versions` of the catalogue when the run could be computed. Where it is the
            same today, numbers are, whatever version the entry had, which a user may leave out.

    Raises:
        RunError: If features of this slot cannot be computed here: they were imported, their kind
            is not here, or this release computes other numbers.
    """
    name, recorded = str(head["backbone"]), head["provenance"]
    kind = recorded.get("kind")
    if kind == "imported" or "imported" in recorded:
        raise RunError(
            f"the {slot} slot was trained on features that were imported (backbone {name}), which "
            "nothing here computes for new recordings; expected a backbone: train a model with "
            f"another one in the slot {slot}, or `{slot}: none`"
        )
    if kind not in kinds(PACKAGE):
        raise RunError(
            f"the {slot} slot was trained on the kind {kind!r} (backbone {name}), which is not "
            f"among {list(kinds(PACKAGE))}; expected its file in features/backbones"
        )
    own = known.get(name)
    if own is not None and own.kind == kind and not own.differences(recorded):
        return own
    versions = {each.version for each in known.values() if each.kind == kind}
    version = recorded.get("version")
    unchanged = bool(versions) and (then or {}).get(kind) == max(versions)
    if versions and version not in versions and not unchanged:
        raise RunError(
            f"the {slot} slot was trained on version {version} of {kind} (backbone {name}); this "
            f"heronry computes version {max(versions)}, whose numbers are others: train it again"
        )
    return _rebuilt(name, recorded, known)


def _rebuilt(
    name: str, recorded: Mapping[str, Any], known: Mapping[str, BackboneEntry]
) -> BackboneEntry:
    common = {
        each.name: recorded[each.name]
        for each in fields(BackboneEntry)
        if each.name in recorded and each.name not in ("name", "options")
    }
    if common.get("store_dtype") == "int16":  # of bins, whatever the entry said
        del common["store_dtype"]
    keywords = parameter_types(load(PACKAGE, recorded["kind"]))
    options = dict(recorded.get("options") or {})
    options |= {key: recorded[key] for key in keywords if key in recorded and key not in common}
    if str(options.get("revision")).startswith(CONTENT):
        del options["revision"]  # of what is there: `check_same` says more about other weights
    for each in known.values():  # a record does not say which package carries its weights
        same = each.options.get("checkpoint") == options.get("checkpoint")
        if same and each.options.get("package") and "package" in keywords:
            options["package"] = each.options["package"]
    return backbone_entry(name, {**common, **options})


def tuned_entry(
    slot: str, entry: BackboneEntry, job: Path, e2e: Mapping[str, Any]
) -> BackboneEntry | None:
    """The entry of a backbone that was part of its model in training; None if it was not.

    Args:
        slot: Name of the slot.
        entry: The backbone that training began with.
        job: Folder of a seed and fold.
        e2e: Field `e2e` of run.json.

    Raises:
        RunError: If its weights were not kept.
    """
    params = TuneParams(**e2e)
    if slot not in LIVE:
        return None
    # As in training: its frames go to the fusion as they are.
    live = replace(entry, compute_dtype=params.precision, store_dtype="float32")
    if params.of(slot).tune == "frozen":
        return live
    folder = job / BACKBONES / slot
    if not folder.is_dir():
        raise RunError(
            f"{folder} is not there: the {slot} slot was trained with the model, and its weights "
            "were not kept; expected them beside model.safetensors: pull or train the run again"
        )
    options = {**entry.options, "checkpoint": str(folder.resolve())}
    options = {key: value for key, value in options.items() if key not in ("revision", "package")}
    return replace(live, options=options)


def check_same(
    slot: str, head: Mapping[str, Any], entry: BackboneEntry, backbone: Backbone, *, tuned: bool
) -> None:
    """Refuse a backbone that is not the one that a slot was trained on.

    Args:
        slot: Name of the slot.
        head: Its object in run.json.
        entry: Result of `recorded_entry`.
        backbone: The backbone that is to compute.
        tuned: Whether its weights are those of the run folder, which run.json has no hash of.

    Raises:
        RunError: Listing the differences.
    """
    found = provenance_differences(head["provenance"], entry.provenance(backbone))
    if tuned:
        found = {key: pair for key, pair in found.items() if key not in OF_WEIGHTS}
    if not found:
        return
    lines = [f"{key}: recorded {was!r}, found {now!r}" for key, (was, now) in found.items()]
    more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    listed = "\n  ".join([*lines[:LISTED], *more])
    raise RunError(
        f"the {slot} slot: backbone {head['backbone']} is not the one that the run was trained on; "
        f"expected the same weights and settings:\n  {listed}\n"
        "put the recorded weights where `checkpoint` or HERONRY_CHECKPOINTS leads, or train again"
    )
