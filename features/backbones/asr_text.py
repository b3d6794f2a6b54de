"""A text encoder over recognised words: reads an utterance's `asr` in place of `text`.

Everything else is `text_encoder`'s: checkpoints, licences, sizes, numbers. An entry of this kind in
`models.<name>.asr` scores a model that was trained on reference transcripts on recognised words
too. In the slot `text` the model is trained on them. Entries of `asr_backbones` read what the stage
`transcribe` recognised, where a corpus has no words of its own in `asr`; entries of `backbones`
read a corpus's own alone. Utterances without recognised words are rejected, as those without text
are by `text_encoder`; empty ones are the encoder's special tokens.
"""

from __future__ import annotations

from typing import Annotated, Literal

from features.backbone.base import BackboneFactory, Reads
from features.backbone.layers import LayerChoice
from features.backbones.text_encoder import TextEncoder
from features.ranges import Interval


class AsrText(TextEncoder):
    """Hidden states of a text encoder that reads recognised words.

    Args:
        checkpoint: Hub id or folder.
        revision: Commit of the hub repository.
        package: Package that carries the same weights.
        layer: As for `text_encoder`.
        max_tokens: As for `text_encoder`.
        trust_remote_code: Whether code from the hub may run.
        where: `always`, or `missing`: only where there is no reference, which is read elsewhere.
    """

    reads: Reads = "asr"

    def __init__(
        self,
        *,
        checkpoint: str,
        revision: str | None = None,
        package: str | None = None,
        layer: LayerChoice = -1,
        max_tokens: Annotated[int, Interval(ge=3, le=1_000_000)] | None = None,
        trust_remote_code: bool = False,
        where: Literal["always", "missing"] = "always",  # for `features.transcription.transcripts`
    ) -> None:
        super().__init__(
            checkpoint=checkpoint,
            revision=revision,
            package=package,
            layer=layer,
            max_tokens=max_tokens,
            trust_remote_code=trust_remote_code,
        )
        self.where = where


build: BackboneFactory = AsrText
