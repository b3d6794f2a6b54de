"""Converts Whisper weights from the CTranslate2 format (binary version 6) to transformers.

The file holds a header, then variables (name, shape, dtype, little-endian data), then aliases.
CTranslate2 fuses the query, key and value projections of self-attention, and the key and value ones
of cross-attention; Whisper's key projections have no bias, so that part of a fused bias must be
zero.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from features.errors import CheckpointError
from features.files.reading import open_regular
from features.files.writing import follow_umask

Arrays = dict[str, NDArray[np.generic]]
VERSION = 6
DTYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
# Names of CTranslate2 and of transformers, within a layer and outside of layers.
_LAYER = {
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),  # these four in the decoder alone
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/layer_norm": ("final_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
_EVERYWHERE = {"layer_norm": ("layer_norm",), "position_encodings": ("embed_positions",)}
_OUTSIDE: dict[str, dict[str, tuple[str, ...]]] = {
    "encoder": {**_EVERYWHERE, "conv1": ("conv1",), "conv2": ("conv2",)},
    "decoder": {**_EVERYWHERE, "embeddings": ("embed_tokens",)},
}


def read_ctranslate2(path: Path) -> Arrays:
    """Read all variables of a CTranslate2 `model.bin`, by name.

    Raises:
        CheckpointError: If the file is of another version or ends early.
    """
    with open_regular(path) as file:
        try:
            version = _number(file, "<I")
            if version != VERSION:
                raise CheckpointError(f"{path} has binary version {version}; expected {VERSION}")
            _text(file)  # name of the specification, and its revision
            _number(file, "<I")
            # The aliases after the variables are not needed.
            return dict(_variable(file) for _ in range(_number(file, "<I")))
        except (struct.error, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{path} is truncated or no CTranslate2 model: {error}"
            ) from error


def convert_whisper(source: Path, target: Path) -> None:
    """Write the transformers folder of a CTranslate2 Whisper folder: network and tokenizer.

    Raises:
        CheckpointError: If a variable is missing or unexpected.
    """
    variables = read_ctranslate2(source / "model.bin")
    heads = {side: int(variables.pop(f"{side}/num_heads")) for side in ("encoder", "decoder")}
    # The other variables without a shape are switches of CTranslate2's own inference.
    weights = {name: value for name, value in variables.items() if value.ndim > 0}
    layers = {side: _count_layers(weights, side) for side in ("encoder", "decoder")}
    state: dict[str, NDArray[np.float32]] = {}
    for side in ("encoder", "decoder"):
        for name, value in _rename(weights, side, layers[side]).items():
            state[f"model.{side}.{name}"] = value.astype(np.float32)
    if weights:
        raise CheckpointError(f"{source}: unexpected variables {sorted(weights)[:5]}")
    save_file(state, target / "model.safetensors", metadata={"format": "pt"})
    follow_umask(target / "model.safetensors")
    config = _config(state, heads, layers)
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    front_end = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": config["num_mel_bins"],
        "sampling_rate": 16000,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": 30,
    }
    (target / "preprocessor_config.json").write_text(json.dumps(front_end, indent=2) + "\n")
    _convert_decoding(source, target)


def _convert_decoding(source: Path, target: Path) -> None:
    """Write the tokenizer, and the tokens that the decoder must not choose."""
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
    tokenizer = {"tokenizer_class": "WhisperTokenizer"}
    (target / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2) + "\n")
    known = json.loads((source / "config.json").read_text(encoding="utf-8"))
    generation = {
        "suppress_tokens": known["suppress_ids"],
        "begin_suppress_tokens": known["suppress_ids_begin"],
    }
    (target / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def _count_layers(weights: Arrays, side: str) -> int:
    layers = {name.split("/")[1] for name in weights if name.startswith(f"{side}/layer_")}
    return len(layers - {"layer_norm"})


def _rename(weights: Arrays, side: str, layers: int) -> Arrays:
    """Take the variables of one side out of `weights`, under the names of transformers."""
    names = dict(_OUTSIDE[side])
    for index in range(layers):
        for old, new in _LAYER.items():
            if side == "decoder" or not old.startswith("attention/"):
                names[f"layer_{index}/{old}"] = tuple(f"layers.{index}.{name}" for name in new)
    state: Arrays = {}
    for old, new in names.items():
        for part, renamed in _parts(old).items():
            variable = f"{side}/{old}/{part}"
            if variable not in weights:
                raise CheckpointError(f"variable {variable} is missing")
            # Several new names: layers that were fused along the output axis.
            for name, piece in zip(new, np.split(weights.pop(variable), len(new)), strict=True):
                if not (name.endswith("k_proj") and part == "bias"):
                    state[f"{name}.{renamed}"] = piece
                elif piece.any():
                    raise CheckpointError(f"{side}/{old}: the key bias is not zero")
    return state


def _parts(old: str) -> dict[str, str]:
    """Parts of a variable, and their names in transformers."""
    if old.endswith("layer_norm"):
        return {"gamma": "weight", "beta": "bias"}
    if old == "position_encodings":
        return {"encodings": "weight"}
    return {"weight": "weight"} if old == "embeddings" else {"weight": "weight", "bias": "bias"}


def _config(
    state: Mapping[str, NDArray[np.float32]], heads: dict[str, int], layers: dict[str, int]
) -> dict[str, object]:
    vocabulary, width = state["model.decoder.embed_tokens.weight"].shape
    ffn = len(state["model.encoder.layers.0.fc1.bias"])
    config: dict[str, object] = {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "d_model": width,
        "vocab_size": vocabulary,
        "num_mel_bins": state["model.encoder.conv1.weight"].shape[1],
        "max_source_positions": len(state["model.encoder.embed_positions.weight"]),
        "max_target_positions": len(state["model.decoder.embed_positions.weight"]),
        "tie_word_embeddings": True,
    }
    for side in ("encoder", "decoder"):
        config |= {f"{side}_layers": layers[side], f"{side}_attention_heads": heads[side]}
        config[f"{side}_ffn_dim"] = ffn
    # The English-only vocabulary has 51,864 tokens, and special tokens of other ids.
    english = vocabulary == 51864
    end = 50256 if english else 50257  # <|endoftext|>
    ids = {"pad_token_id": end, "eos_token_id": end, "bos_token_id": end}
    # The decoder starts with <|startoftranscript|>.
    return config | ids | {"decoder_start_token_id": 50257 if english else 50258}


def _variable(file: BinaryIO) -> tuple[str, NDArray[np.generic]]:
    name = _text(file)
    rank = _number(file, "<B")
    shape = struct.unpack(f"<{rank}I", file.read(4 * rank))
    dtype = np.dtype(DTYPES[_number(file, "<B")])
    data = file.read(_number(file, "<I"))
    return name, np.frombuffer(data, dtype).reshape(shape)


def _text(file: BinaryIO) -> str:
    # The length includes a NUL at the end.
    return file.read(_number(file, "<H")).rstrip(b"\0").decode()


def _number(file: BinaryIO, layout: str) -> int:
    return int(struct.unpack(layout, file.read(struct.calcsize(layout)))[0])
