"""Imported features, which are read instead of computed.

`heronry cache import` checks arrays of any origin and writes them as sealed shards
(docs/format.md) into a folder, which `checkpoint` names: by its path, or by its name below
HERONRY_CHECKPOINTS. Extraction copies them like all features, through the work store into the
shards of the corpus. Their licence is unknown to heronry, and they cannot be tuned.

Features belong to the audio (or text) of an utterance at the time of import: if that has changed
since, the utterance is rejected. Utterances of equal audio (or text) have equal features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any

from features.backbone.base import BackboneFactory, Inputs, Reads, content_of
from features.cache.reader import CacheReader
from features.cache.shard import shard_name
from features.corpus.utterance import Utterance
from features.errors import CheckpointError, ParamsError, UtteranceError
from features.ranges import Interval
from features.stream import Stream
from features.weights.checkpoint import Checkpoint
from features.weights.identity import CONTENT

IMPORTED = "imported"  # key of provenance: origin of the arrays


class Imported:
    """Rows of imported shards.

    Args:
        checkpoint: Folder of the shards.
        revision: `sha256:` and the hash of their content, as the import printed it; None: not
            compared.
        bins: Number of values of an integer bin; None where frames are real-valued.
    """

    reads: Reads = "nothing"  # of the class: no audio is needed; an instance has its own value
    files = (shard_name(0),)

    def __init__(
        self,
        *,
        checkpoint: str,
        revision: str | None = None,
        bins: Annotated[int, Interval(ge=1, le=32_767)] | None = None,
    ) -> None:
        first = Checkpoint(checkpoint, revision).beside(shard_name(0), self.files)
        if first is None:
            raise CheckpointError(
                f"imported features {checkpoint!r} are not here; expected a folder of shards\n"
                "  import them: heronry cache import CORPUS BACKBONE FROM; or put the "
                "folder below the one that HERONRY_CHECKPOINTS names"
            )
        self.reader = CacheReader(first.parent, verify=True)
        self.spec, self.trainable = self.reader.spec, False
        source = self.reader.provenance.get(IMPORTED)
        if not isinstance(source, dict) or source.get("reads") not in ("audio", "text"):
            raise CheckpointError(
                f"{first.parent} holds features that were not imported; expected what `python -m "
                "pipeline cache import` wrote: of a cache, use the cache itself"
            )
        self.source, self.reads = source, source["reads"]
        self.revision = CONTENT + content_sha256(self.reader)
        if revision is not None and revision != self.revision:
            raise CheckpointError(
                f"imported features {checkpoint!r} have revision {self.revision}; expected "
                f"{revision}: correct `revision` in params.yaml, or import the others again"
            )
        if bins != self.spec.bins:
            raise ParamsError(
                f"imported features {checkpoint!r}: given bins {bins}; they have {self.spec.bins}: "
                "correct `bins` in params.yaml"
            )
        self.ids: dict[str, str] = {}  # by content hash; of equal contents the first
        for shard in self.reader.shards:
            for id, content in zip(shard.ids, shard.contents, strict=True):
                self.ids.setdefault(content, id)
        self.rejected = self.reader.rejected

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """The stored frames `[B, T, D]` (bins: `[B, T]`) and their mask."""
        stream = self.reader.batch([self._row(utterance) for utterance in utterances])
        return Inputs.of(utterances, values=stream.values, mask=stream.mask)

    def __call__(self, inputs: Inputs) -> Stream:
        """Frames that `prepare` read."""
        return Stream(inputs.tensors["values"], inputs.tensors["mask"])

    def provenance(self) -> dict[str, Any]:
        """Record of the import, and the hash of the shards' content."""
        return {IMPORTED: self.source, "revision": self.revision}

    def _row(self, utterance: Utterance) -> str:
        """Id of the imported row with the features of an utterance."""
        content = content_of(utterance, self.reads)
        if content is None:
            raise UtteranceError(utterance.id, f"has no {self.reads}")
        if content not in self.ids:
            reason = f"no features were imported for its {self.reads}"
            raise UtteranceError(utterance.id, self.rejected.get(utterance.id, reason))
        return self.ids[content]


def content_sha256(reader: CacheReader) -> str:
    """Hash of everything in a folder of shards, by their checksums in order."""
    checksums = [shard.checksum for shard in reader.shards]
    return hashlib.sha256(json.dumps(checksums).encode()).hexdigest()


build: BackboneFactory = Imported
