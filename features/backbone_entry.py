"""An entry of `backbones` in params.yaml: checked, fingerprinted, built."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from features.backbones._backbone import Backbone, Pooled, Reads
from features.entries import entry_problems, split_entry
from features.errors import ParamsError
from features.plugins import load
from features.resampling import IDENTITY as RESAMPLING

PACKAGE = "features.backbones"
# Options that say where weights are; the backbone's own provenance says which they are.
LOCATING = ("checkpoint", "revision", "package")


@dataclass(frozen=True)
class BackboneEntry:
    """What every backbone entry holds, whatever its kind.

    Attributes:
        name: Key in params.yaml.
        kind: Plug-in.
        pooling: `frames` keeps all, `mean` and `first` reduce an utterance to one vector.
        compute_dtype: Precision of the network on the device.
        store_dtype: Precision in the cache; bins are always int16.
        version: Raised when the numbers of the backbone's code change.
        options: Keywords of the plug-in's constructor.
    """

    name: str
    kind: str
    pooling: Literal["frames", "mean", "first"] = "frames"
    compute_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    store_dtype: Literal["float16", "float32"] = "float16"
    version: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reads(self) -> Reads:
        """What its kind reads, known without loading weights."""
        reads: Reads = load(PACKAGE, self.kind).reads
        return reads

    def build(self) -> Backbone:
        """Make the backbone, weights loaded, on the CPU."""
        backbone: Backbone = load(PACKAGE, self.kind)(**self.options)
        if self.pooling == "frames":
            return backbone
        if backbone.spec.bins is not None:
            raise ParamsError(
                f"backbones.{self.name}: bins cannot be pooled; set `pooling: frames`, given "
                f"{self.pooling!r}"
            )
        return Pooled(backbone, self.pooling)

    def settings(self) -> dict[str, Any]:
        """What decides the numbers beside the weights: params.yaml, and how audio is resampled."""
        return {
            **({"resampling": RESAMPLING} if self.reads == "audio" else {}),
            "kind": self.kind,
            "options": {k: v for k, v in self.options.items() if k not in LOCATING},
            "pooling": self.pooling,
            "compute_dtype": self.compute_dtype,
            "version": self.version,
        }

    def provenance(self, backbone: Backbone) -> dict[str, Any]:
        """All that decides the numbers: goes into each shard and into the fingerprint."""
        return {
            **self.settings(),
            "store_dtype": self.stored_as(backbone),
            **backbone.provenance(),
        }

    def stored_as(self, backbone: Backbone) -> str:
        """The dtype of the frames in the cache."""
        return self.store_dtype if backbone.spec.bins is None else "int16"


def fingerprint(provenance: Mapping[str, Any]) -> str:
    """Folder name of a backbone's shards in the work store."""
    text = json.dumps(provenance, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def backbone_entry(name: str, mapping: Mapping[str, Any]) -> BackboneEntry:
    """The entry of that name.

    Raises:
        ParamsError: Listing everything that is wrong with it.
    """
    found = backbone_problems(name, mapping)
    if found:
        raise ParamsError("\n".join(found))
    common, options = split_entry(BackboneEntry, mapping)
    return BackboneEntry(name, kind=mapping.get("kind", name), options=options, **common)


def backbone_problems(name: str, mapping: Any) -> list[str]:
    """What is wrong with an entry, one line each; empty if nothing is."""
    return entry_problems(BackboneEntry, PACKAGE, "backbones", name, mapping)
