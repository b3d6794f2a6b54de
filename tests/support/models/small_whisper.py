"""A small random Whisper checkpoint with its tokenizer, which hears letters in any sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from features.audio import torchaudio_cpu  # noqa: F401  transformers imports torchaudio

LETTERS = ["Ġ", *"abcdefghijklmnopqrstuvwxyz"]  # the first is a space
SPECIAL = [
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>"),
    *("<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
]


def write_whisper(folder: Path, *, multilingual: bool = False) -> dict[str, Any]:
    """Write the checkpoint; returns the keys of `transcribe` that name it."""
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )

    names = {token: id for id, token in enumerate([*LETTERS, *SPECIAL])}
    end, start = names["<|endoftext|>"], names["<|startoftranscript|>"]
    torch.manual_seed(3)
    config = WhisperConfig(
        vocab_size=len(names) + 4,  # and four timestamps
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_target_positions=48,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        init_std=0.6,
    )
    network = WhisperForConditionalGeneration(config).eval()
    network.generation_config = GenerationConfig(
        is_multilingual=multilingual,
        decoder_start_token_id=start,
        eos_token_id=end,
        pad_token_id=end,
        bos_token_id=end,
        no_timestamps_token_id=names["<|notimestamps|>"],
        suppress_tokens=[names["q"]],
        begin_suppress_tokens=[names["Ġ"], end],
        lang_to_id={f"<|{code}|>": names[f"<|{code}|>"] for code in ("en", "de")},
        task_to_id={task: names[f"<|{task}|>"] for task in ("translate", "transcribe")},
        max_length=48,
    )
    network.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    tokenizer = WhisperTokenizer(vocab={x: names[x] for x in names}, merges=[])
    tokenizer.save_pretrained(folder)
    return {"checkpoint": str(folder), "revision": None, "package": None}
