"""Which other entries of a network extraction computes in the same pass: `features.backbone`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from features.arguments import quoted
from features.backbone.entry import BackboneEntry
from features.backbone.siblings import settings_apart
from features.errors import ParamsError
from pipeline.params.file import Params
from pipeline.params.selection import SLOTS


def siblings_of(params: Params, name: str, also: Sequence[str] = ()) -> list[BackboneEntry]:
    """Siblings of an entry that some model has in a slot, and those that are named.

    Args:
        params: params.yaml.
        name: Entry of `backbones` or `asr_backbones`.
        also: Names of entries that no model needs to use.

    Raises:
        ParamsError: If one of `also` is no sibling, with the settings in which it differs.
    """
    entry, section = params.backbone(name), _section(params, name)
    for other in also:
        apart = settings_apart(entry, params.backbone(other))
        if apart or other not in section or other == name:
            differing = [f"{key} ({a!s}, not {b!s})" for key, (b, a) in apart.items()]
            raise ParamsError(
                f"--with {quoted(other)}: expected another entry than {name!r} of the same "
                "section that differs from it in `layer`, `pooling` and `store_dtype` alone; it "
                f"differs in {', '.join(differing) or 'nothing else'}: extract it by itself"
            )
    used = {
        filled
        for model in params.models.values()
        if isinstance(model, Mapping)
        for slot in (*SLOTS, "asr")
        if isinstance(filled := model.get(slot), str)
    }
    wanted = [other for other in section if other != name and other in {*used, *also}]
    entries = (_readable(params, other, entry.kind, section[other]) for other in wanted)
    return [each for each in entries if each is not None and not settings_apart(entry, each)]


def _section(params: Params, name: str) -> Mapping[str, Any]:
    # Those of `asr_backbones` read other words, and of `registry` nothing is computed.
    apart = (params.asr_backbones or {}, params.registry)
    return next((each for each in apart if name in each), params.backbones)


def _readable(params: Params, name: str, kind: str, raw: Any) -> BackboneEntry | None:
    """An entry of a kind; None if it is of another one, or wrong, which its own stage says."""
    if not isinstance(raw, Mapping) or raw.get("kind", name) != kind:
        return None
    try:
        return params.backbone(name)
    except ParamsError:
        return None
