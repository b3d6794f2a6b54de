"""Small random Whisper networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from features.audio import torchaudio_cpu  # noqa: F401  transformers imports torchaudio


def write(folder: Path, *, bands: int = 80, **options: Any) -> dict[str, Any]:
    """A checkpoint with that many mel bands; `options` go into the entry."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 3, "decoder_layers": 1, "vocab_size": 60}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ffn = {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 1)
    config = WhisperConfig(
        **sizes, **heads, **ffn, **tokens, decoder_start_token_id=1, num_mel_bins=bands
    )
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=bands).save_pretrained(folder)
    return {"checkpoint": str(folder), **options}


VARIANTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "mel80": write,
    "mel128": partial(write, bands=128),
    "trim": partial(write, pad="trim"),
}
