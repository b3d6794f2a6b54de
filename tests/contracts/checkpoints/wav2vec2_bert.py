"""Small random networks of the kind of w2v-BERT 2.0, which read the real front end's spectra."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from features.audio import torchaudio_cpu  # noqa: F401  transformers imports torchaudio

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "layerdrop": 0.1,
}


def write(folder: Path, **settings: Any) -> dict[str, Any]:
    """A checkpoint in which every part of the network has an effect."""
    import transformers

    torch.manual_seed(0)
    config = transformers.Wav2Vec2BertConfig(**SIZES, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = transformers.Wav2Vec2BertModel(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape))
            elif "distance_embedding" in name:
                parameter.copy_(torch.randn(parameter.shape))
    network.save_pretrained(folder)
    transformers.SeamlessM4TFeatureExtractor(padding_value=1).save_pretrained(folder)
    return {"checkpoint": str(folder)}


VARIANTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "public": write,
    "tuned": partial(write, add_adapter=True, use_intermediate_ffn_before_adapter=True),
}
