"""Sizes of features before they are computed, by the duration of audio or the length of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from features.backbone.base import CHARACTERS_A_SECOND, Reads
from features.backbone.entry import BackboneEntry
from features.backbone.memory import Known
from features.corpus.utterance import Utterance
from features.stream import StreamSpec

# These and CHARACTERS_A_SECOND decide where shards close by bytes: others would cut them elsewhere.
CHARACTERS_A_TOKEN = 4.5  # of English, with a subword vocabulary
SPECIAL_TOKENS = 2  # at both ends of a text
BYTES = {"float16": 2, "float32": 4, "int16": 2}


@dataclass(frozen=True)
class Sizes:
    """What decides the bytes of features, beside the utterances.

    Attributes:
        frame_bytes: Bytes of a frame.
        hop_seconds: From one frame to the next; None: frames are tokens of text.
        pooled: Whether an utterance has one vector: that of its frames, or of a kind without.
    """

    frame_bytes: int
    hop_seconds: float | None
    pooled: bool

    @classmethod
    def of(cls, spec: StreamSpec, reads: Reads, provenance: Mapping[str, Any]) -> Self:
        """Sizes of features by what a shard records of them.

        Args:
            spec: Width and kind of the frames.
            reads: What the backbone reads.
            provenance: Backbone and settings; read are `store_dtype`, `pooling` and, of long
                recordings computed in windows that give a frame each, `window_hop_seconds`.
        """
        hop = spec.hop_seconds or provenance.get("window_hop_seconds") or None
        # Of texts, what has no place in time is a token.
        whole = reads not in ("text", "asr") and hop is None
        pooled = whole or provenance.get("pooling", "frames") != "frames"
        return cls(spec.dim * BYTES[provenance["store_dtype"]], hop, pooled)

    @classmethod
    def of_known(cls, known: Known) -> Self:
        """Sizes of features of a backbone that is not loaded, by what is known of it."""
        return cls.of(known.spec, known.reads, known.provenance)

    @classmethod
    def of_entry(cls, entry: BackboneEntry, spec: StreamSpec) -> Self:
        """Sizes of an entry of params.yaml whose backbone is not loaded."""
        dtype = entry.store_dtype if spec.bins is None else "int16"
        return cls.of(spec, entry.reads, {**entry.settings(), "store_dtype": dtype})

    def bytes(self, utterances: int, seconds: float, characters: int) -> float:
        """Bytes of so many utterances, of so many seconds of speech and characters of text."""
        if self.pooled:
            return float(utterances * self.frame_bytes)
        if self.hop_seconds is not None:
            return max(seconds / self.hop_seconds, utterances) * self.frame_bytes
        tokens = characters / CHARACTERS_A_TOKEN + SPECIAL_TOKENS * utterances
        return tokens * self.frame_bytes


def spoken_seconds(utterance: Utterance) -> float:
    """Seconds of speech, estimated from the words of an utterance without audio."""
    return utterance.seconds or len(utterance.text or "") / CHARACTERS_A_SECOND
