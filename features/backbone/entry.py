"""Entries of `backbones` in params.yaml: checks, builds and fingerprints them.

An entry should pin its weights. DVC runs a stage again when params.yaml or a dependency changes; of
weights in a folder or on a hub it sees only what params.yaml says of them. A `revision` that is a
commit or a hash identifies weights; null or a branch does not, so that DVC misses an exchange.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from features.arguments import completed, refuse
from features.audio.resampling import IDENTITY as RESAMPLING
from features.backbone.base import Backbone, Pooled, Pooling, Reads, Streaming, innermost
from features.backbone.layers import DEPTH, choose_layers
from features.backbone.windows import Windowed
from features.cache.shard import DEVIATION
from features.errors import ParamsError
from features.ranges import Amount, Interval
from features.settings.plugins import entry_problems, load, split_entry
from features.weights.identity import left_open, pinned, report_left_open

PACKAGE = "features.backbones"
REGISTRY = "registry"  # section of params.yaml, and folder, of caches of other projects
# Options that say where weights are; the backbone's own provenance says which they are.
LOCATING = ("checkpoint", "revision", "package")
# Options that say which words are read; the content hash of a row says which they were.
CHOOSING = ("where",)
SETTINGS = ("kind", "pooling", "compute_dtype", "version")  # of an entry, besides its options
WINDOW_SETTINGS = ("long", "window_seconds", "window_hop_seconds", "window_pooling")
Seconds = Annotated[float, Interval(ge=1, le=3600)]
HopSeconds = Annotated[float, Interval(ge=0.1, le=3600)]


@dataclass(frozen=True)
class BackboneEntry:
    """An entry of `backbones`, of any kind.

    Attributes:
        name: Key in params.yaml.
        kind: Name of the plug-in.
        pooling: `frames` keeps all frames; `mean`, `first`, `std` and `mean_std` reduce an
            utterance to one vector (`Pooled`).
        compute_dtype: Precision of the network on the device.
        store_dtype: Precision in the cache; bins are always int16.
        version: Number that is raised when the backbone's code computes other numbers.
        long: `whole` computes recordings of any length at once; `window` those longer than a window
            window by window (`Windowed`), for kinds that read audio.
        window_seconds: Length of a window.
        window_hop_seconds: From the beginning of one window to that of the next.
        window_pooling: `frames` joins the frames of the windows, `mean` keeps the mean of each.
        options: Keywords of the plug-in's constructor.
    """

    name: str
    kind: str
    pooling: Pooling = "frames"
    compute_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    store_dtype: Literal["float16", "float32"] = "float16"
    version: Amount = 1
    long: Literal["whole", "window"] = "whole"
    window_seconds: Seconds = 30.0
    window_hop_seconds: HopSeconds = 20.0
    window_pooling: Literal["frames", "mean"] = "frames"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reads(self) -> Reads:
        """Modality that the kind reads; no weights are loaded."""
        reads: Reads = load(PACKAGE, self.kind).reads
        return reads

    @property
    def windows(self) -> dict[str, Any]:
        """Settings of the windows; none of them where recordings are computed whole."""
        if self.long != "window":
            return {}  # keys of features without windows are those of before there were any
        return {
            "long": self.long,
            "window_seconds": float(self.window_seconds),
            "window_hop_seconds": float(self.window_hop_seconds),
            "window_pooling": self.window_pooling,
        }

    def build(self) -> Backbone:
        """Build the backbone with its weights, on the CPU."""
        backbone: Backbone = load(PACKAGE, self.kind)(**self.options)
        recorded = recorded_by(backbone)
        if recorded is not None:
            refuse(list(self._changes(recorded)))
            return backbone
        if self.long == "window":
            # A published mean (CED's) is that of each window.
            published = self.pooling == "mean" and hasattr(backbone, "pooled")
            means = self.window_pooling == "mean" or published
            part = self._pooled(backbone, "mean", "window_pooling") if means else backbone
            try:
                backbone = Windowed(part, self.window_seconds, self.window_hop_seconds)
            except ParamsError as error:
                raise ParamsError(f"backbones.{self.name}: {error}") from error
        return self._pooled(backbone, self.pooling, "pooling")

    def _pooled(self, backbone: Backbone, how: Pooling, setting: str) -> Backbone:
        if how == "frames":
            return backbone
        if backbone.spec.bins is not None:
            raise ParamsError(
                f"backbones.{self.name}: bins cannot be pooled; set `{setting}: frames`, given "
                f"{how!r}"
            )
        return Pooled(backbone, how)

    def _changes(self, recorded: Mapping[str, Any]) -> Iterator[str]:
        """Settings that would make other features of those of another project, a line each."""
        for each in fields(self):
            if each.name not in (*SETTINGS, "store_dtype") or each.name == "kind":
                continue
            given, own = getattr(self, each.name), recorded.get(each.name, each.default)
            if given not in (each.default, own):
                yield (
                    f"backbones.{self.name}.{each.name}: given {given!r}; expected {own!r}, which "
                    "the cache of the other project has, since it is used as it is: leave it out"
                )

    def keywords(self) -> dict[str, Any]:
        """Options with defaults filled in, so that equal settings compare equal.

        A kind's attribute `added` holds options that older releases lacked, each with the value
        that computes what they did. Those are left out, so that older caches keep their keys.
        """
        kind = load(PACKAGE, self.kind)
        added = getattr(kind, "added", {})
        options = completed(kind, self.options)
        return {k: v for k, v in options.items() if k not in added or v != added[k]}

    def settings(self) -> dict[str, Any]:
        """Settings other than options and weights that decide the numbers, and the resampling."""
        resampling = {"resampling": RESAMPLING} if self.reads == "audio" else {}
        return {**resampling, **{name: getattr(self, name) for name in SETTINGS}, **self.windows}

    def provenance(self, backbone: Backbone) -> dict[str, Any]:
        """All that decides the numbers: recorded in each shard and hashed to the fingerprint.

        A value that the backbone gives under the name of an option replaces that option: `layer:
        -1` and `layer: 12` of twelve layers are the same. That of a cache of another project is
        the one it has there.
        """
        recorded = recorded_by(backbone)
        if recorded is not None:
            return dict(recorded)
        own = {**backbone.provenance(), **self.windows}  # instead of a kind's own `long`
        options = self.keywords()
        return {
            **self.settings(),
            "options": {k: v for k, v in options.items() if k not in (*LOCATING, *CHOOSING, *own)},
            "store_dtype": self.stored_as(backbone),
            **own,
        }

    def differences(self, recorded: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Settings in which recorded features differ from this entry, without loading weights.

        Settings that only the weights decide (`revision: null` or a branch, an option without a
        value) count as equal.

        Returns:
            Recorded and present value by name.
        """
        cache_of = getattr(load(PACKAGE, self.kind), "cache_of", None)
        theirs = None if cache_of is None else cache_of(self.options)
        if theirs is not None:
            return provenance_differences(recorded, theirs.provenance)
        if in_registry(self.options.get("checkpoint")):
            return {}  # not on this machine, which may well have pulled what was extracted of it
        # Bins are int16 whatever the entry says, see `stored_as`.
        stored = "int16" if recorded.get("store_dtype") == "int16" else self.store_dtype
        found = recorded.get("options")
        recorded_options = found if isinstance(found, Mapping) else {}
        pairs = {name: (recorded.get(name), now) for name, now in self.settings().items()}
        pairs["store_dtype"] = recorded.get("store_dtype"), stored
        options = self.keywords()
        if "window_seconds" in recorded:
            present = {**options, **self.windows}
            pairs |= {name: (recorded.get(name), present.get(name)) for name in WINDOW_SETTINGS}
        for name in sorted({*options, *recorded_options} - {*LOCATING, *CHOOSING, *pairs}):
            was, now = recorded_options.get(name), options.get(name)
            # The backbone resolved this option: it stands beside the options, not among them.
            if name in recorded and name not in recorded_options:
                was, now = recorded[name], self._resolved(name, now, recorded)
            pairs[name] = was, now
        if "checkpoint" in recorded:
            name = str(options.get("checkpoint"))
            # A local folder is recorded by its name alone: features.weights.checkpoint.
            named = recorded["checkpoint"] in (name, Path(name).name)
            pairs["checkpoint"] = recorded["checkpoint"], recorded["checkpoint"] if named else name
        if pinned(options.get("revision")) and "revision" in recorded:
            pairs["revision"] = recorded["revision"], options["revision"]
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def _resolved(self, name: str, value: Any, recorded: Mapping[str, Any]) -> Any:
        """Value that an option has with the recorded weights."""
        if name != "layer" or not isinstance(recorded.get(DEPTH), int):
            # None was left to the weights, so that any recorded value fits.
            return recorded[name] if value is None else value
        first = getattr(load(PACKAGE, self.kind), "first_layer", 0)
        try:
            return choose_layers(value, recorded[DEPTH], "", first=first).provenance()[name]
        except ParamsError:  # no such layer: `build` raises it
            return value

    def stored_as(self, backbone: Streaming) -> str:
        """Dtype of the frames in the cache."""
        recorded = recorded_by(backbone)
        if recorded is not None:
            return str(recorded["store_dtype"])
        return self.store_dtype if backbone.spec.bins is None else "int16"


def recorded_by(backbone: Streaming) -> Mapping[str, Any] | None:
    """Provenance that a cache of another project has already; None of any other backbone."""
    recorded: Mapping[str, Any] | None = getattr(backbone, "recorded", None)
    return recorded


def in_registry(checkpoint: object) -> bool:
    """Whether a folder is `registry/<entry>`, which a stage of DVC depends on."""
    return isinstance(checkpoint, str) and Path(checkpoint).parts[:1] == (REGISTRY,)


def fingerprint(provenance: Mapping[str, Any]) -> str:
    """Folder name of a backbone's shards in the work store."""
    text = json.dumps(provenance, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def store_key(backbone: Backbone, provenance: Mapping[str, Any]) -> str:
    """Folder name of a loaded backbone's shards in the work store.

    Features of another project are kept apart from those that are extracted here.
    """
    origin = getattr(innermost(backbone), "origin", None)
    return fingerprint(provenance if origin is None else {**provenance, "origin": origin})


def provenance_differences(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Values by dotted name in which two provenances differ, without those measured by shard."""
    # JSON makes lists of tuples, as in shards.
    left, right = _flat(old), _flat(json.loads(json.dumps(new)))
    names = (left.keys() | right.keys()) - {DEVIATION}
    pairs = {name: (left.get(name), right.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        inner = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return flat


def backbone_entry(
    name: str, mapping: Mapping[str, Any], section: str = "backbones"
) -> BackboneEntry:
    """Parse an entry; a ParamsError lists everything that is wrong with it."""
    refuse(backbone_problems(name, mapping, section))
    kind = mapping.get("kind", name)
    common, options = split_entry(BackboneEntry, mapping, load(PACKAGE, kind))
    return BackboneEntry(name, kind=kind, options=options, **common)


def backbone_problems(name: str, mapping: Any, section: str = "backbones") -> list[str]:
    """Problems of an entry, one line each."""
    found = entry_problems(BackboneEntry, PACKAGE, section, name, mapping)
    return found or list(_window_problems(f"{section}.{name}", mapping))


def _window_problems(where: str, mapping: Mapping[str, Any]) -> Iterator[str]:
    """Problems of `long: window` and its settings in an entry without others."""
    kind = mapping.get("kind", where.split(".")[-1])
    given = [each for each in WINDOW_SETTINGS[1:] if each in mapping]
    if mapping.get("long") != "window":
        for each in given:
            yield f"{where}.{each}: given without `long: window`; expected both, or neither"
        return
    build = load(PACKAGE, kind)
    if build.reads != "audio":
        yield f"{where}.long: given 'window' for kind {kind!r}; expected a kind that reads audio"
        return
    common, _ = split_entry(BackboneEntry, mapping, build)
    entry = BackboneEntry(where, kind, **common)
    if entry.window_hop_seconds > entry.window_seconds:
        yield (
            f"{where}.window_hop_seconds: given {entry.window_hop_seconds:g} for windows of "
            f"{entry.window_seconds:g} s; expected at most that, as what lies between windows is "
            "not heard"
        )
    # CED and Whisper would cut a longer window in chunks of their own.
    most = getattr(build, "longest_seconds", math.inf)
    if entry.window_seconds > most:
        yield (
            f"{where}.window_seconds: given {entry.window_seconds:g} (30 by default); expected at "
            f"most {most:g}, which is what {kind} computes at once"
        )


def leaves_weights_open(entry: BackboneEntry) -> bool:
    """Whether an entry names a checkpoint, but not which version of it."""
    named = entry.options.get("checkpoint")
    if named is None or in_registry(named):  # of the latter DVC knows the content
        return False
    return not pinned(entry.options.get("revision"))


def open_weights(entry: BackboneEntry, found: str | None) -> str:
    """Message about an entry that does not pin its weights.

    Args:
        entry: Entry of params.yaml.
        found: Present identity of its weights, as `revision` would name them, if known.
    """
    write = "the commit, or sha256: and the hash of the file" if found is None else found
    return left_open(f"backbones.{entry.name}.revision", entry.options.get("revision"), write)


def check_pinned(entry: BackboneEntry, provenance: Mapping[str, Any]) -> None:
    """Warn about an entry that does not pin its weights; under DVC, refuse it.

    Args:
        entry: Entry of params.yaml.
        provenance: Provenance of its backbone; `revision` identifies the weights.

    Raises:
        CheckpointError: If DVC runs this: it would restore features of other weights later.
    """
    if not leaves_weights_open(entry) or "revision" not in provenance:
        return
    report_left_open(open_weights(entry, str(provenance["revision"])))
