"""Checkpoints of real architecture and size with random weights, which do not change speed.

Written where transformers (or the native loader) would find those from the hub, so that all
contenders read the same file. Texts are cut into letters, since a vocabulary of real size cannot be
made up; the table of embeddings is as large as the real one.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from features.audio import torchaudio_cpu  # noqa: F401  transformers imports torchaudio
from features.networks import emotion2vec

WHISPER = {
    "smallest": {"d_model": 32, "layers": 2, "heads": 2, "ffn": 48, "bands": 80},
    "tiny": {"d_model": 384, "layers": 4, "heads": 6, "ffn": 1536, "bands": 80},
    "large-v3": {"d_model": 1280, "layers": 32, "heads": 20, "ffn": 5120, "bands": 128},
}


@dataclass(frozen=True)
class Network:
    """What can be measured.

    Attributes:
        kind: Backbone plug-in.
        write: From an empty folder to the options of the backbone's entry.
        dependency: A package that may be absent, without which there is nothing to measure.
    """

    kind: str
    write: Callable[[Path], dict[str, Any]]
    dependency: str | None = None


def write_speech(folder: Path, model: str, *, normalize: bool, **settings: Any) -> dict[str, Any]:
    """A model of transformers' wav2vec 2.0 family: a base one, unless `settings` say otherwise."""
    import transformers

    config = getattr(transformers, f"{model}Config")(**settings)
    with quiet():
        _save(getattr(transformers, f"{model}Model")(config), folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)
    return {"checkpoint": str(folder)}


def whisper_config(size: str) -> Any:
    """Of an encoder of real size; the decoder beside it is a token one, since nobody runs it."""
    import transformers

    sizes = WHISPER[size]
    return transformers.WhisperConfig(
        d_model=sizes["d_model"],
        encoder_layers=sizes["layers"],
        encoder_attention_heads=sizes["heads"],
        encoder_ffn_dim=sizes["ffn"],
        num_mel_bins=sizes["bands"],
        decoder_layers=1,
        decoder_attention_heads=sizes["heads"],
        decoder_ffn_dim=16,
    )


def _whisper(folder: Path, size: str) -> dict[str, Any]:
    import transformers

    config = whisper_config(size)
    with quiet():
        _save(transformers.WhisperModel(config), folder)
    transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(folder)
    return {"checkpoint": str(folder)}


def _roberta(folder: Path, **settings: Any) -> dict[str, Any]:
    import transformers
    from tokenizers.pre_tokenizers import ByteLevel

    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet())]
    vocabulary = {word: index for index, word in enumerate(words)}
    transformers.RobertaTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    config = transformers.RobertaConfig(
        vocab_size=50_265,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        **settings,
    )
    with quiet():
        _save(transformers.RobertaModel(config, add_pooling_layer=False), folder)
    return {"checkpoint": str(folder)}


def _native(folder: Path, module: str, file: str, **sizes: Any) -> dict[str, Any]:
    """A network of `features.networks`, in the sizes that it has by default, or in others."""
    from features.settings.plugins import load

    folder.mkdir(parents=True, exist_ok=True)
    torch.save(load("features.networks", module)(**sizes).state_dict(), folder / file)
    return {"checkpoint": str(folder)}


_ced = partial(_native, module="ced", file="pytorch_model.bin")
_emotion2vec = partial(_native, module="emotion2vec", file="emotion2vec_base.pt")


def _rmvpe(folder: Path) -> dict[str, Any]:
    return {"method": "rmvpe", **_native(folder, "rmvpe", "rmvpe.pt")}


# HuBERT-large and WavLM-large differ from the base models in their norms, too.
LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
NETWORKS: dict[str, Network] = {
    "hubert-base": Network("speech_encoder", partial(write_speech, model="Hubert", normalize=True)),
    "hubert-large": Network(
        "speech_encoder",
        partial(write_speech, model="Hubert", normalize=True, conv_bias=True, **LARGE),
    ),
    "wavlm-base": Network("speech_encoder", partial(write_speech, model="WavLM", normalize=False)),
    "wavlm-large": Network(
        "speech_encoder", partial(write_speech, model="WavLM", normalize=True, **LARGE)
    ),
    "whisper-tiny": Network("whisper", partial(_whisper, size="tiny")),
    "whisper-large-v3": Network("whisper", partial(_whisper, size="large-v3")),
    "roberta-base": Network("text_encoder", _roberta),
    "emotion2vec": Network("emotion2vec", _emotion2vec),
    "ced-tiny": Network("ced", partial(_ced, width=192, heads=3)),
    "ced-small": Network("ced", _ced),
    "ced-base": Network("ced", partial(_ced, width=768, heads=12)),
    "rmvpe": Network("f0", _rmvpe),
    "f0-harvest": Network("f0", lambda _: {"method": "harvest"}, dependency="pyworld"),
}

# The same kinds of network, so small that a run on a CPU takes no time.
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
SMALL_SPEECH = {**SMALL, "conv_dim": (16,) * 7}


def small(name: str) -> Network:
    """A small network of the kind and layout of the named one (RMVPE has a single size)."""
    network = NETWORKS[name]
    if network.kind == "speech_encoder":
        return Network(network.kind, partial(network.write, **SMALL_SPEECH))
    if network.kind == "whisper":
        return Network(network.kind, partial(_whisper, size="smallest"))
    if network.kind == "text_encoder":
        return Network(network.kind, partial(_roberta, **SMALL))
    if network.kind == "emotion2vec":
        sizes = emotion2vec.Sizes(32, 2, 48, 16, 2, 2, 4, 1, 1)
        return Network(network.kind, partial(_emotion2vec, sizes=sizes))
    if network.kind == "ced":
        return Network(network.kind, partial(_ced, width=64, depth=2, heads=1))
    return network


def _save(network: nn.Module, folder: Path) -> None:
    network.save_pretrained(folder)  # type: ignore[operator]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Equal weights in all runs; no bars, and no remarks about what is not trained."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        yield
