"""A text encoder over what a speech recogniser heard: `asr` of an utterance in place of `text`.

Everything but the words is `text_encoder`'s: checkpoints, licences, sizes, keywords, numbers. An
entry of this kind fills `models.<name>.asr`: a model that was trained on reference transcripts is
then scored on recognised words too. In the slot `text` it trains on them. Utterances of which no
recognised words are given are rejected, as those without text are by `text_encoder`.
"""

from __future__ import annotations

from features.backbone.base import BackboneFactory, Reads
from features.backbones.text_encoder import TextEncoder


class AsrText(TextEncoder):
    """Hidden states of a text encoder that reads recognised words."""

    reads: Reads = "asr"


build: BackboneFactory = AsrText
