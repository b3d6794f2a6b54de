"""Identity of weights, tokenizers and settings: hashes and values for the provenance of features.

Two features are equal if these are, whichever folder, file format or machine the weights came from.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from features.errors import CheckpointError
from features.files.reading import file_sha256

CONTENT = "sha256:"  # begins a revision that is a hash of content
# A commit, perhaps abbreviated, or a hash of content.
_PINNED = re.compile(rf"[0-9a-f]{{7,40}}|{CONTENT}[0-9a-f]{{64}}")
# Touches casing, accents, contractions, punctuation and digits, in which tokenizers differ.
PROBE = "I can't believe it's 5 o'clock \u2014 Na\u00efve CAF\u00c9s, laughing: ha-ha!!"
# Parts of the names of settings that change the numbers and not the shapes of the weights.
NETWORK_SETTINGS = (
    *("act", "bucket", "conv", "eps", "group", "heads", "norm", "position", "relative", "rope"),
    *("rotary", "scal", "window"),
)
EXTRACTOR_SETTINGS = (
    *("feature_size", "sampling_rate", "hop_length", "n_fft", "chunk_length", "do_normalize"),
    "padding_value",
)


def pinned(revision: str | None) -> bool:
    """Whether a revision says which weights are meant: a commit or a hash, not a branch or None.

    >>> pinned("c9745ed1d9f207416be6d2e6f8de32d1f16199bf"), pinned("main"), pinned(None)
    (True, False, False)
    """
    return revision is not None and _PINNED.fullmatch(revision) is not None


def left_open(setting: str, given: str | None, found: str) -> str:
    """Message about a setting of params.yaml that does not say which weights are meant.

    Args:
        setting: Dotted name of the `revision`.
        given: Its value.
        found: What to write there, as `revision` names weights.
    """
    return (
        f"{setting}: given {given or 'null'}, which leaves open which weights are meant, so that "
        "DVC does not see when they are exchanged; expected what they are: write "
        f"`revision: {found}`"
    )


def report_left_open(message: str) -> None:
    """Warn of weights that params.yaml leaves open.

    Raises:
        CheckpointError: If DVC runs this: it would restore results of other weights later.
    """
    # DVC sets it for the commands of its stages.
    if os.environ.get("DVC_STAGE"):
        raise CheckpointError(message)
    sys.stderr.write(f"warning: {message}\n")


def content_revision(files: Sequence[Path]) -> str:
    """The revision that names weights by content: `sha256:` and the hash of their files."""
    hashes = [file_sha256(path) for path in files]
    if len(files) == 1:
        return CONTENT + hashes[0]
    # As `sha256sum` lists them, so that the hash of several files can be checked by hand.
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
    """Hexadecimal SHA-256 of a tokenizer's vocabulary and of its tokens of a probe sentence."""
    # Not of its files: each version of transformers writes an equal tokenizer in another way.
    probe = tokenizer(PROBE)["input_ids"]
    settings = json.dumps([sorted(tokenizer.get_vocab().items()), probe])
    return hashlib.sha256(settings.encode()).hexdigest()


def network_settings(network: Any) -> dict[str, Any]:
    """Settings of config.json that change the numbers and do not show in the weights."""
    config = network.config.to_dict()
    return {
        name: config[name] for name in sorted(config) if any(p in name for p in NETWORK_SETTINGS)
    }


def extractor_settings(extractor: Any) -> dict[str, Any]:
    """Settings that change the numbers of a speech feature extractor of transformers."""
    found = {name: getattr(extractor, name, None) for name in EXTRACTOR_SETTINGS}
    return {name: value for name, value in found.items() if value is not None}
