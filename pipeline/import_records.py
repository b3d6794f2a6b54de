"""What an import is told, and what it finds out."""

from __future__ import annotations

from dataclasses import dataclass, field

from features.backbones._backbone import Reads
from pipeline.import_rows import RowFacts


@dataclass(frozen=True)
class ImportSettings:
    """What arrays do not say of themselves.

    Attributes:
        corpus: Name of the corpus.
        source: Where they come from, in words; goes into the provenance.
        reads: Whether the features follow from the audio or from the text; None: from the audio,
            where every utterance has some.
        hop_seconds: Seconds from one frame to the next; None: no grid in time.
        bins: Number of values of integer bins; None: frames are real-valued.
        layers: Number of hidden states side by side in a frame.
    """

    corpus: str
    source: str
    reads: Reads | None = None
    hop_seconds: float | None = None
    bins: int | None = None
    layers: int = 1


@dataclass
class Parity:
    """How the arrays and the corpus fit.

    Attributes:
        imported: What was taken, by id, in manifest order.
        rejected: Reason by id of the utterances without a usable array.
        extra: Arrays of no utterance of the corpus.
        refused: Reason by file of what was not looked into.
        hop: Seconds of audio a frame, the median of the utterances; None where unknown.
        dtype: Of the shards.
        revision: Identity of their content.
    """

    imported: dict[str, RowFacts] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    hop: float | None = None
    dtype: str = "float32"
    revision: str = ""
