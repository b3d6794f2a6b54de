"""No backbone: the kind of an empty slot, whose extraction writes no shards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from features.backbone.base import BackboneFactory, Inputs, Reads
from features.corpus.utterance import Utterance
from features.errors import ParamsError
from features.stream import Stream, StreamSpec


class Nothing:
    """Reads nothing and returns nothing."""

    reads: Reads = "nothing"

    def __init__(self) -> None:
        self.spec = StreamSpec(dim=0)
        self.trainable = False

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Refuse: an empty slot is left out before anything is prepared."""
        raise ParamsError(f"backbone `none` got {len(utterances)} utterances; leave the slot out")

    def __call__(self, inputs: Inputs) -> Stream:
        """Refuse, as `prepare`."""
        raise ParamsError(f"backbone `none` got {len(inputs.ids)} utterances; leave the slot out")

    def provenance(self) -> dict[str, Any]:
        """No settings."""
        return {}


build: BackboneFactory = Nothing
