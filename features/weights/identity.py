"""What the parts of a checkpoint are, in the record of features: weights, tokenizer, settings."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from torch import nn

from features.files.hashes import tensors_sha256

PROBE = "I can't believe it's 5 o'clock \u2014 Na\u00efve CAF\u00c9s, laughing: ha-ha!!"
NETWORK_SETTINGS = (
    *("act", "bucket", "conv", "eps", "group", "heads", "norm", "position", "relative", "rope"),
    *("rotary", "scal", "window"),
)
EXTRACTOR_SETTINGS = (
    "feature_size",
    "sampling_rate",
    "hop_length",
    "n_fft",
    "chunk_length",
    "do_normalize",
    "padding_value",
)


def weights_sha256(network: nn.Module) -> str:
    """Identity of a network's weights: the SHA-256 of its named tensors."""
    state = network.state_dict()
    return tensors_sha256({name: tensor.cpu().numpy() for name, tensor in state.items()})


def tokenizer_sha256(tokenizer: Any) -> str:
    """Identity of a tokenizer: of its vocabulary, and of what it makes of a probe sentence.

    Its files are not hashed, since equal tokenizers are written differently by each version.
    """
    probe = tokenizer(PROBE)["input_ids"]
    settings = json.dumps([sorted(tokenizer.get_vocab().items()), probe])
    return hashlib.sha256(settings.encode()).hexdigest()


def network_settings(network: Any) -> dict[str, Any]:
    """What of config.json decides the numbers and does not show in the weights.

    By parts of names, since each family has its own; sizes are those of the weights.
    """
    told = network.config.to_dict()
    return {name: told[name] for name in sorted(told) if any(p in name for p in NETWORK_SETTINGS)}


def extractor_settings(extractor: Any) -> dict[str, Any]:
    """What decides the numbers of a speech feature extractor of transformers."""
    found = {name: getattr(extractor, name, None) for name in EXTRACTOR_SETTINGS}
    return {name: value for name, value in found.items() if value is not None}
