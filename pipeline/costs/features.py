"""Bytes and operations of the features of a corpus, before anything is extracted."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from features.backbone.entry import PACKAGE, BackboneEntry
from features.backbone.layers import Layers, choose_layers
from features.cache.reader import CacheReader
from features.errors import HeronryError
from features.extraction.forecast import cache_bytes
from features.extraction.plan import Cut
from features.extraction.sizes import Sizes
from features.process.terminal import size as bytes_text
from features.settings.plugins import load
from features.stream import StreamSpec
from pipeline.costs.cards import Speed
from pipeline.costs.corpora import CorpusSize
from pipeline.costs.networks import Network, network_of

RMVPE_ONLY = ("checkpoint", "revision", "threshold")  # options of F0 with a network


@dataclass(frozen=True)
class Features:
    """Features of a corpus under a backbone.

    Attributes:
        corpus: Entry of `corpora`.
        entry: Entry of `backbones`.
        size: Size of the corpus; None: not known.
    """

    corpus: str
    entry: BackboneEntry
    size: CorpusSize | None

    @property
    def folder(self) -> Path:
        """Where they are once they are extracted."""
        return Path("cache", self.corpus, self.entry.name)

    @property
    def key(self) -> str:
        """Equal for equal features of one corpus."""
        settings = [self.corpus, self.entry.name, self.entry.settings(), self.entry.keywords()]
        return json.dumps([*settings, self.entry.store_dtype], sort_keys=True, default=str)

    @property
    def here(self) -> bool:
        """Whether the folder holds features with the settings of the entry."""
        try:
            return not self.entry.differences(CacheReader(self.folder).provenance)
        except HeronryError:
            return False

    @property
    def bytes(self) -> int | None:
        """Size of the cache; None if it is not known without the weights."""
        network = network_of(self.entry)
        spec = stream_of(self.entry, network)
        if self.size is None or spec is None:
            return None
        count, seconds = self.size.utterances, self.size.seconds
        cut = Cut(0, (0, count), "", count, seconds, seconds, round(self.size.characters))
        return cache_bytes([cut], Sizes.of_entry(self.entry, spec))

    @property
    def operations(self) -> float | None:
        """Operations of the network; 0 without one, None if its sizes are not known."""
        network = network_of(self.entry)
        if network is None:
            return None if self.entry.options.get("checkpoint") else 0.0
        return None if self.size is None else operations_of(self.entry, network, self.size)

    def line(self, speed: Speed) -> str:
        """What they are and cost, for a terminal."""
        state = "there" if self.here else "missing"
        return f"{self.folder}: {state}; {self._stored()}, {self._computed(speed)}"

    def hours(self, speed: Speed) -> float | None:
        """GPU-hours of the extraction; None if the network's sizes are not known."""
        done = self.operations
        return None if done is None else speed.hours(done, self.entry.compute_dtype)

    def _stored(self) -> str:
        return "bytes not known" if self.bytes is None else f"about {bytes_text(self.bytes)}"

    def _computed(self, speed: Speed) -> str:
        hours = self.hours(speed)
        if hours is None:
            return "GPU-hours not known"
        return hours_text(hours) if hours else "no network"


def hours_text(hours: float) -> str:
    """GPU-hours as text.

    >>> [hours_text(h) for h in (0.0004, 0.04, 1.23, 45.6)]
    ['less than 0.01 GPU-hours', '0.04 GPU-hours', '1.2 GPU-hours', '46 GPU-hours']
    """
    if hours < 0.01:
        return "less than 0.01 GPU-hours"
    digits = 2 if hours < 1 else 1 if hours < 10 else 0
    return f"{hours:.{digits}f} GPU-hours"


def stream_of(entry: BackboneEntry, network: Network | None) -> StreamSpec | None:
    """What an entry stores of a frame, without its weights; None if that is not known."""
    if network is not None and network.depth:
        spec = _layers(entry, network).spec(network.width, hop_seconds=network.hop_seconds)
    elif entry.kind == "f0":
        # What it stores does not depend on the estimator, and this one needs no weights.
        own = {k: v for k, v in entry.options.items() if k not in RMVPE_ONLY}
        spec = load(PACKAGE, "f0")(**own | {"method": "dio"}).spec
    elif entry.options.get("checkpoint") is None:
        kind = load(PACKAGE, entry.kind)
        # Of a kind whose package may be missing, the class has it.
        spec = getattr(kind, "spec", None) or kind(**entry.options).spec
    else:
        return None
    if entry.windows.get("window_pooling") == "mean":
        spec = dataclasses.replace(spec, hop_seconds=None)  # a vector for each window
    return dataclasses.replace(spec, dim=2 * spec.dim) if entry.pooling == "mean_std" else spec


def operations_of(entry: BackboneEntry, network: Network, size: CorpusSize) -> float:
    """Operations that an entry's network takes for a corpus, or for the clips of an epoch."""
    blocks = _layers(entry, network).deepest if network.depth else 0
    windows = entry.windows
    if windows and size.seconds > windows["window_seconds"] * size.utterances:
        # Windows overlap; each is computed by itself.
        count = round(size.seconds / windows["window_hop_seconds"])
        size = dataclasses.replace(
            size, utterances=count, seconds=count * float(windows["window_seconds"])
        )
    return network.operations(size, blocks)


def _layers(entry: BackboneEntry, network: Network) -> Layers:
    first = getattr(load(PACKAGE, entry.kind), "first_layer", 0)
    return choose_layers(entry.options.get("layer", -1), network.depth, entry.name, first=first)


def distinct(features: Iterable[Features]) -> list[Features]:
    """Each of some features once, in their order: what several experiments share is made once."""
    return list({each.key: each for each in features}.values())
