"""What may stand in `asr` of a model: the backbone of its text slot, reading recognised words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from features.arguments import one_of, quoted, shown_key
from features.backbone_entry import PACKAGE, BackboneEntry
from features.backbones._backbone import Reads
from features.errors import ParamsError
from features.plugins import kinds, load

if TYPE_CHECKING:
    from pipeline.params import ModelEntry, Params

SHARED = ("pooling", "compute_dtype", "store_dtype", "version")


def asr_problems(params: Params, model: ModelEntry) -> list[str]:
    """What is wrong with `asr` of a model, one line each.

    Nothing is where its text slot is `none`: such a model has no test on recognised words.
    """
    where = f"models.{model.name}.asr"
    if _reads(params, model.asr) not in ("asr", "nothing"):
        fitting = [name for name in params.backbones if _kind_reads(params, name) == "asr"]
        return [
            f"{where}: given {quoted(model.asr)}; expected `none` or an entry of `backbones` that "
            f"reads recognised words, here {one_of(model.asr, fitting)}"
        ]
    try:
        heard, text = params.backbone(model.asr), params.backbone(model.text)
    except ParamsError:
        return []  # told of the entry itself, or of the slot
    if "nothing" in (heard.reads, text.reads):
        return []
    differing = differences(_settings(heard), _settings(text))
    if not differing:
        return []
    return [
        f"{where}: {model.asr!r} differs from {model.text!r} of the text slot in {differing}; "
        "expected the same settings, since the trained model reads recognised words in place of "
        "the text: make them equal, or set `none`"
    ]


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Keys whose values differ, such as `layer (4, not -1)`; empty if none does."""
    keys = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
    pairs = [(key, shown_key(str(found.get(key))), shown_key(str(wanted.get(key)))) for key in keys]
    return ", ".join(f"{key} ({one}, not {other})" for key, one, other in pairs)


def _kind_reads(params: Params, name: str) -> Reads | None:
    """What the kind of an entry reads, however wrong the entry: asked of all, it must be quick."""
    entry = params.backbones[name]
    kind = entry.get("kind", name) if isinstance(entry, Mapping) else None
    return load(PACKAGE, kind).reads if kind in kinds(PACKAGE) else None


def _reads(params: Params, name: str) -> Reads | None:
    """What an entry reads; None where there is no such entry, or a wrong one."""
    try:
        return params.backbone(name).reads
    except ParamsError:
        return None


def _settings(entry: BackboneEntry) -> dict[str, Any]:
    """Every setting of an entry, defaults included, but for its kind."""
    return {**entry.keywords(), **{name: getattr(entry, name) for name in SHARED}}
