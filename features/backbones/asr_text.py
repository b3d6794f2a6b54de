"""A text encoder over recognised words: reads an utterance's `asr` in place of `text`.

Everything else is `text_encoder`'s: checkpoints, licences, sizes, keywords, numbers. An entry of
this kind in `models.<name>.asr` scores a model that was trained on reference transcripts on
recognised words too. In the slot `text` the model is trained on them. Utterances without recognised
words are rejected, as those without text are by `text_encoder`.
"""

from __future__ import annotations

from features.backbone.base import BackboneFactory, Reads
from features.backbones.text_encoder import TextEncoder


class AsrText(TextEncoder):
    """Hidden states of a text encoder that reads recognised words."""

    reads: Reads = "asr"


build: BackboneFactory = AsrText
