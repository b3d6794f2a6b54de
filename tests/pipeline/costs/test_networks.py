"""The table of networks, held against the networks themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.shared.networks import LARGE, whisper_config
from features.networks import ced, emotion2vec, rmvpe
from pipeline.costs.corpora import CorpusSize
from pipeline.costs.networks import NETWORKS, network_of, of_config
from pipeline.params.catalogue.entries import catalogue_entry, catalogued
from tests.pipeline.commands.test_check import params

SECONDS = 5.0
CLIP = CorpusSize(1, SECONDS, 28 * 4.5)  # 28 tokens between two special ones
SAMPLES, TOKENS, FRAMES = 80_000, 30, 501
TEXT = {"vocab_size": 50_265, "max_position_embeddings": 514, "type_vocab_size": 1}
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
BIG = {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096}


def counted(network: nn.Module, *inputs: torch.Tensor) -> int:
    network.eval()
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        torch.backends.cudnn.flags(enabled=False),
        FlopCounterMode(display=False) as counter,
    ):
        network(*inputs)
    return int(counter.get_total_flops())


def speech(kind: str, **settings: Any) -> tuple[Any, nn.Module, torch.Tensor]:
    config = getattr(transformers, f"{kind}Config")(**settings)
    return config, getattr(transformers, f"{kind}Model")(config), torch.zeros(1, SAMPLES)


def spectra() -> tuple[Any, nn.Module, torch.Tensor]:
    config = transformers.Wav2Vec2BertConfig()
    return config, transformers.Wav2Vec2BertModel(config), torch.zeros(1, SAMPLES // 320, 160)


def words(kind: str, **settings: Any) -> tuple[Any, nn.Module, torch.Tensor]:
    config = getattr(transformers, f"{kind}Config")(**settings)
    network = getattr(transformers, f"{kind}Model")(config, add_pooling_layer=False)
    return config, network, torch.zeros(1, TOKENS, dtype=torch.long)


def whisper(size: str) -> tuple[Any, nn.Module, torch.Tensor]:
    config = whisper_config(size)
    inputs = torch.zeros(1, config.num_mel_bins, 3000)
    return config, transformers.WhisperModel(config).encoder, inputs


Case = tuple[Callable[..., tuple[Any, nn.Module, torch.Tensor]], tuple[str, ...], dict[str, Any]]
OF_TRANSFORMERS: dict[str, Case] = {
    "facebook/hubert-base-ls960": (speech, ("Hubert",), {}),
    "facebook/wav2vec2-large": (speech, ("Wav2Vec2",), LARGE),
    "microsoft/wavlm-large": (speech, ("WavLM",), LARGE),
    "facebook/w2v-bert-2.0": (spectra, (), {}),
    "openai/whisper-tiny.en": (whisper, ("tiny",), {}),
    "openai/whisper-large-v3": (whisper, ("large-v3",), {}),
    "FacebookAI/roberta-base": (words, ("Roberta",), TEXT),
    "FacebookAI/roberta-large": (words, ("Roberta",), TEXT | BIG | {"num_attention_heads": 16}),
    "google-bert/bert-base-uncased": (words, ("Bert",), {}),
    "sentence-transformers/all-MiniLM-L6-v2": (words, ("Bert",), MINILM),
}
SAME = {  # checkpoints of one architecture
    "alkiskoudounas/voc2vec-hubert-ls-pt": "facebook/hubert-base-ls960",
    "facebook/wav2vec2-base": "facebook/hubert-base-ls960",
    "microsoft/wavlm-base-plus": "facebook/hubert-base-ls960",
    "facebook/hubert-large-ls960-ft": "facebook/wav2vec2-large",
    "emotion2vec/emotion2vec_plus_seed": "emotion2vec/emotion2vec_base",
    "emotion2vec/emotion2vec_plus_base": "emotion2vec/emotion2vec_base",
}


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_operations_are_those_of_the_class_of_transformers(name: str) -> None:
    """Built on shapes alone. WavLM's gates are not counted, nor half a frame at the edge."""
    make, names, settings = OF_TRANSFORMERS[name]
    with torch.device("meta"):
        config, network, inputs = make(*names, **settings)
        found = counted(network, inputs)
    sizes = NETWORKS[name]
    assert of_config(config) == sizes
    assert sizes.operations(CLIP, sizes.depth) == pytest.approx(found, rel=0.01)


def test_operations_are_those_of_our_own_networks() -> None:
    with torch.device("meta"):
        found = {
            "lj1995/VoiceConversionWebUI": counted(rmvpe.RMVPE(), torch.zeros(1, 128, 512)),
        }
    lengths = torch.tensor([SAMPLES])
    emotion = emotion2vec.Emotion2vec(emotion2vec.Sizes())
    found["emotion2vec/emotion2vec_base"] = counted(emotion, torch.zeros(1, SAMPLES), lengths)
    mel, frames = torch.zeros(1, 64, FRAMES), torch.tensor([FRAMES])
    found["mispeech/ced-small"] = counted(ced.CED(ced.Sizes()), mel, frames, frames // 16)
    for name, operations in found.items():
        sizes = NETWORKS[name]
        assert sizes.operations(CLIP, sizes.depth) == pytest.approx(operations, rel=0.03)


def test_operations_of_emotion2vec_plus_large_are_those_of_two_of_its_blocks() -> None:
    """All twelve are alike, and two are six times as fast."""
    two = dataclasses.replace(emotion2vec.LARGE, prenet_depth=1, depth=1)
    inputs = torch.zeros(1, SAMPLES), torch.tensor([SAMPLES])
    operations = counted(emotion2vec.Emotion2vec(two), *inputs)
    sizes = NETWORKS["emotion2vec/emotion2vec_plus_large"]
    assert sizes.operations(CLIP, 2) == pytest.approx(operations, rel=0.03)
    assert sizes.depth == emotion2vec.LARGE.prenet_depth + emotion2vec.LARGE.depth


def test_xeus_has_the_weights_that_are_published_of_it() -> None:
    """577 M; ESPnet is not needed. Two operations a weight and position."""
    sizes = NETWORKS["espnet/xeus"]
    assert sizes.depth * sizes.block / 2 == pytest.approx(577e6, rel=0.04)


def test_checkpoints_of_one_architecture_cost_the_same() -> None:
    for name, like in SAME.items():
        assert NETWORKS[name] == NETWORKS[like]


def test_every_checkpoint_of_the_catalogue_is_known() -> None:
    entries = {name: catalogue_entry("backbones", name) for name in catalogued("backbones")}
    known = params(backbones=entries)
    for name, entry in entries.items():
        assert (network_of(known.backbone(name)) is None) == (entry.get("checkpoint") is None), name


def test_short_clips_cost_whisper_a_window_each_and_long_ones_as_many_as_they_fill() -> None:
    whisper_tiny = NETWORKS["openai/whisper-tiny.en"]
    one = whisper_tiny.operations(CorpusSize(1, 30.0, 0), 4)
    assert whisper_tiny.operations(CorpusSize(7, 7.0, 0), 4) == pytest.approx(7 * one)
    assert whisper_tiny.operations(CorpusSize(1, 300.0, 0), 4) == pytest.approx(10 * one)


def test_attention_sees_no_more_than_what_is_computed_at_once() -> None:
    tagger = NETWORKS["mispeech/ced-small"]
    short, long = (CorpusSize(n, 10.12 * 6, 0) for n in (6, 1))
    assert tagger.operations(long, 12) == pytest.approx(tagger.operations(short, 12))
