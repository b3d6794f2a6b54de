"""What the parts of a checkpoint are, in the record of features: weights, tokenizer, settings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from features.files.reading import file_sha256

CONTENT = "sha256:"  # begins a revision that is a hash of content
_PINNED = re.compile(rf"[0-9a-f]{{7,40}}|{CONTENT}[0-9a-f]{{64}}")
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


def pinned(revision: str | None) -> bool:
    """Whether a revision says which weights are meant: a commit or a hash, not a branch or None.

    >>> pinned("c9745ed1d9f207416be6d2e6f8de32d1f16199bf"), pinned("main"), pinned(None)
    (True, False, False)
    """
    return revision is not None and _PINNED.fullmatch(revision) is not None


def content_of(files: Sequence[Path]) -> str:
    """What a revision names weights by: the SHA-256 of their file, or of the list of several."""
    hashes = [file_sha256(path) for path in files]
    if len(files) == 1:
        return CONTENT + hashes[0]
    lines = sorted(f"{hash}  {path.name}\n" for hash, path in zip(hashes, files, strict=True))
    return CONTENT + hashlib.sha256("".join(lines).encode()).hexdigest()


def weights_sha256(network: nn.Module) -> str:
    """Hexadecimal SHA-256 of a network's weights: names, dtypes, shapes, values, sorted by name.

    Equal for equal weights, wherever they were loaded from and in whatever file format.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        array = np.ascontiguousarray(tensor.cpu().numpy())
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


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
