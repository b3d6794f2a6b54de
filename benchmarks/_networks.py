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

WHISPER = {
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


def _roberta(folder: Path) -> dict[str, Any]:
    import transformers
    from tokenizers.pre_tokenizers import ByteLevel

    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet())]
    vocabulary = {word: index for index, word in enumerate(words)}
    transformers.RobertaTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    config = transformers.RobertaConfig(
        vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
    )
    with quiet():
        _save(transformers.RobertaModel(config, add_pooling_layer=False), folder)
    return {"checkpoint": str(folder)}


def _native(folder: Path, module: str, file: str, **sizes: int) -> dict[str, Any]:
    """A network of `features.networks`, in the sizes that it has by default, or in others."""
    from features.settings.plugins import load

    folder.mkdir(parents=True, exist_ok=True)
    torch.save(load("features.networks", module)(**sizes).state_dict(), folder / file)
    return {"checkpoint": str(folder)}


_ced = partial(_native, module="ced", file="pytorch_model.bin")


def _rmvpe(folder: Path) -> dict[str, Any]:
    return {"method": "rmvpe", **_native(folder, "rmvpe", "rmvpe.pt")}


NETWORKS: dict[str, Network] = {
    "hubert-base": Network("speech_encoder", partial(write_speech, model="Hubert", normalize=True)),
    "wavlm-base": Network("speech_encoder", partial(write_speech, model="WavLM", normalize=False)),
    "whisper-tiny": Network("whisper", partial(_whisper, size="tiny")),
    "whisper-large-v3": Network("whisper", partial(_whisper, size="large-v3")),
    "roberta-base": Network("text_encoder", _roberta),
    "emotion2vec": Network(
        "emotion2vec", partial(_native, module="emotion2vec", file="emotion2vec_base.pt")
    ),
    "ced-tiny": Network("ced", partial(_ced, width=192, heads=3)),
    "ced-small": Network("ced", _ced),
    "ced-base": Network("ced", partial(_ced, width=768, heads=12)),
    "rmvpe": Network("f0", _rmvpe),
    "f0-harvest": Network("f0", lambda _: {"method": "harvest"}, dependency="pyworld"),
}


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
