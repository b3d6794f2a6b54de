"""Small random text encoders."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from features.audio import torchaudio_cpu  # noqa: F401  transformers imports torchaudio

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "this", "is", "utterance", "number"]
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def write(folder: Path, model: str = "Bert", **sizes: Any) -> dict[str, Any]:
    """A network with BERT's tokenizer."""
    import transformers

    torch.manual_seed(0)
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    config = getattr(transformers, f"{model}Config")(vocab_size=len(WORDS), **sizes)
    network = getattr(transformers, f"{model}Model")(config)
    network.save_pretrained(folder)
    return {"checkpoint": str(folder)}


def roberta(folder: Path) -> dict[str, Any]:
    """RoBERTa, without a pooler's weights as on the hub; its positions start behind the padding."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    torch.manual_seed(0)
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet())]
    vocabulary = {word: index for index, word in enumerate(words)}
    RobertaTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    config = RobertaConfig(vocab_size=len(words), max_position_embeddings=66, **SIZES)
    RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    return {"checkpoint": str(folder)}


VARIANTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "bert": partial(write, **SIZES),
    "roberta": roberta,
    "distilbert": partial(write, model="DistilBert", dim=16, n_layers=3, n_heads=2, hidden_dim=32),
    "albert": partial(write, model="Albert", embedding_size=8, **SIZES),
    "convbert": partial(write, model="ConvBert", embedding_size=16, **SIZES),
}
