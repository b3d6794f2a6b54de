"""Features that were made elsewhere, read instead of computed.

`python -m pipeline cache import` checks arrays of any maker and writes them as sealed shards
(docs/format.md) into a folder, which `checkpoint` names: by its path, or by its name below
HERONRY_CHECKPOINTS. From there they go the way of all features: shards cut as the corpus says, the
work store, DVC, doctor. Nothing is trained here, no licence is known, and the cost is that of
copying.

Features belong to what an utterance was when they were imported: if its audio (or text) has changed
since, it is rejected. Utterances of equal audio (or text) have equal features, as everywhere.
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

IMPORTED = "imported"  # key of provenance: where the arrays came from


class Imported:
    """Rows of imported shards.

    Args:
        checkpoint: Folder of the shards.
        revision: `sha256:` and the identity of their content, as the import printed it; None: not
            compared.
        bins: Number of values that an integer bin can take; None where frames are real-valued.
    """

    reads: Reads = "nothing"  # of the kind: no audio has to be at hand; an object says what it is
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
                "  import them: python -m pipeline cache import CORPUS BACKBONE FROM; or put the "
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
        self.ids: dict[str, str] = {}  # by content; of equal ones the first
        for shard in self.reader.shards:
            for id, content in zip(shard.ids, shard.contents, strict=True):
                self.ids.setdefault(content, id)
        self.rejected = self.reader.rejected

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """The stored frames `[B, T, D]` (bins: `[B, T]`) and their mask."""
        stream = self.reader.batch([self._row(utterance) for utterance in utterances])
        return Inputs(
            tuple(u.id for u in utterances), {"values": stream.values, "mask": stream.mask}
        )

    def __call__(self, inputs: Inputs) -> Stream:
        """What `prepare` read."""
        return Stream(inputs.tensors["values"], inputs.tensors["mask"])

    def provenance(self) -> dict[str, Any]:
        """What the import recorded, and the identity of everything that is in the shards."""
        return {IMPORTED: self.source, "revision": self.revision}

    def _row(self, utterance: Utterance) -> str:
        """Id of the row that holds the features of an utterance."""
        content = content_of(utterance, self.reads)
        if content is None:
            raise UtteranceError(utterance.id, f"has no {self.reads}")
        if content not in self.ids:
            reason = f"no features were imported for its {self.reads}"
            raise UtteranceError(utterance.id, self.rejected.get(utterance.id, reason))
        return self.ids[content]


def content_sha256(reader: CacheReader) -> str:
    """Identity of everything in a folder of shards: of their checksums, in order."""
    checksums = [shard.checksum for shard in reader.shards]
    return hashlib.sha256(json.dumps(checksums).encode()).hexdigest()


build: BackboneFactory = Imported
