"""Small random networks of the wav2vec 2.0 family, with the real convolutions' reach."""

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
    "conv_dim": (16,) * 7,
}
GROUP: dict[str, Any] = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
LAYER: dict[str, Any] = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}


def write(folder: Path, model: str, *, normalize: bool = True, **settings: Any) -> dict[str, Any]:
    """A checkpoint with weights so large that every part of the network has an effect."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{model}Config")(**SIZES, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = getattr(transformers, f"{model}Model")(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1 and "bias" not in name:
                parameter.add_(0.1 * torch.randn(parameter.shape))
            elif parameter.ndim == 1:
                parameter.copy_(0.1 * torch.randn(parameter.shape))
    network.save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize)
    extractor.save_pretrained(folder)
    return {"checkpoint": str(folder)}


VARIANTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "hubert_group": partial(write, model="Hubert", **GROUP),
    "hubert_layer": partial(write, model="Hubert", **LAYER),
    "hubert_batch_norm": partial(write, model="Hubert", conv_pos_batch_norm=True, **GROUP),
    "wav2vec2_group": partial(write, model="Wav2Vec2", normalize=False, **GROUP),
    "wav2vec2_layer": partial(write, model="Wav2Vec2", **LAYER),
    "wavlm_group": partial(write, model="WavLM", normalize=False, **GROUP),
    "wavlm_layer": partial(write, model="WavLM", **LAYER),
    "data2vec": partial(write, model="Data2VecAudio"),
}
