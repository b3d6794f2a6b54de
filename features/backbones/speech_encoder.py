"""Speech networks of the wav2vec 2.0 family: hidden states each 20 ms of the waveform.

HuBERT (Hsu et al. 2021, arXiv 2106.07447), voc2vec (a HuBERT trained on non-verbal sounds), wav2vec
2.0 (Baevski et al. 2020, arXiv 2006.11477), WavLM (Chen et al. 2022, arXiv 2110.13900) or the audio
network of data2vec, by the checkpoint's `model_type`. Base models have 95 M parameters and are 768
wide, large ones 317 M and 1024. T = floor((L - 400) / 320) + 1.

Batched equals single, which it does not in transformers itself: the group norm of the base models
takes its statistics over each clip's own frames, and an attention mask is passed for all models.
transformers advises against masks for group-norm models, since those were trained on padded batches
without one; here no stored number may depend on its batch. w2v-BERT 2.0, which reads spectra, is
the kind `wav2vec2_bert`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from features.backbone.base import BackboneFactory, Inputs
from features.backbone.layers import LayerChoice, Layers, choose_layers, freeze, keep_first
from features.backbones._audio import SAMPLE_RATE, padded, waveform
from features.backbones._hidden_states import (
    FRONT_ENDS,
    SIMILAR,
    HiddenStates,
    States,
    clips_in_parts,
    feature_extractor,
    hidden_states,
    speech_network,
)
from features.backbones._wav2vec2 import FrontConvolutions
from features.corpus.utterance import Utterance
from features.errors import CheckpointError
from features.stream import Stream
from features.weights.checkpoint import Checkpoint
from features.weights.identity import extractor_settings, network_settings

FAMILY = ("hubert", "wav2vec2", "wavlm", "data2vec-audio")  # model types of transformers
OTHERS = "wav2vec2_bert, whisper, text_encoder, emotion2vec, xeus, ced"  # kinds of backbones


class SpeechEncoder(HiddenStates):
    """Hidden states of a speech network.

    Args:
        checkpoint: Hub id or folder.
        revision: Commit of the hub repository.
        package: Package that carries the same weights.
        layer: Hidden states: a number, a list of numbers, or `all`; -1 is the last (after the final
            norm, if any), 0 the input of the first layer.
    """

    def __init__(
        self,
        *,
        checkpoint: str,
        revision: str | None = None,
        package: str | None = None,
        layer: LayerChoice = -1,
    ) -> None:
        self.source = Checkpoint(checkpoint, revision, package)
        network: Any = speech_network(self.source, FAMILY, OTHERS)
        self.network, config = network, network.config
        self.front_end = _front_end(self.source)
        self.layers = choose_layers(layer, config.num_hidden_layers, checkpoint)
        if not self.layers.whole:
            network.encoder.layers = keep_first(network.encoder.layers, self.layers.deepest)
            if getattr(config, "do_stable_layer_norm", False):
                network.encoder.layer_norm = nn.Identity()  # it follows the last layer only
        network.feature_extractor = FrontConvolutions(network.feature_extractor.conv_layers)
        freeze(network)
        # The positional convolutions of others turn zeros of padding into other values.
        self.maskable = config.model_type != "data2vec-audio" and not getattr(
            config, "conv_pos_batch_norm", False
        )
        self.min_samples, hop = _reach(config.conv_kernel, config.conv_stride)
        self.spec = self.layers.spec(config.hidden_size, hop_seconds=hop / SAMPLE_RATE)

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Waveforms `[B, L]`, normalised if the checkpoint says so, and their lengths `[B]`."""
        clips = [waveform(u, min_samples=self.min_samples) for u in utterances]
        # Clip by clip, since each is normalised by its own statistics.
        scaled = [self.front_end(c, sampling_rate=SAMPLE_RATE).input_values[0] for c in clips]
        samples, lengths = padded(scaled)
        return Inputs.of(utterances, samples=samples, lengths=lengths)

    def __call__(self, inputs: Inputs) -> Stream:
        """Values `[B, T, L * D]`."""
        samples, lengths = inputs.tensors["samples"], inputs.tensors["lengths"]

        def compute(samples: Tensor, lengths: Tensor) -> Tensor:
            return self.chosen(inputs, lambda layers: self._states(samples, lengths, layers))

        if self.maskable and samples.device.type != "cpu":
            values = compute(samples, lengths)
        else:
            differing = SIMILAR if self.maskable else 0
            values = clips_in_parts(samples, lengths, compute, differing=differing)
        return Stream.masked(values, self._convolutions().frames(lengths))

    def settings(self) -> dict[str, Any]:
        """Front end and network."""
        return {
            "front_end": extractor_settings(self.front_end),
            "network": network_settings(self.network),
        }

    def _states(self, samples: Tensor, lengths: Tensor, layers: Layers) -> States:
        """Hidden states of clips by number; those of padding have no meaning."""
        if bool((lengths == samples.shape[1]).all()):
            return self._of(samples, layers)
        mask = torch.arange(samples.shape[1], device=samples.device) < lengths[:, None]
        with self._convolutions().given(lengths), warnings.catch_warnings():
            # transformers' WavLM passes torch a boolean mask beside its real-valued position bias.
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            return self._of(samples, layers, mask.long())

    def _of(self, samples: Tensor, layers: Layers, mask: Tensor | None = None) -> States:
        return hidden_states(
            self.network, layers, ends=True, input_values=samples, attention_mask=mask
        )

    def _convolutions(self) -> FrontConvolutions:
        network: Any = self.network
        return network.feature_extractor  # type: ignore[no-any-return]


def _front_end(source: Checkpoint) -> Any:
    """The feature extractor, which works on waveforms."""
    front_end = feature_extractor(source)
    if not hasattr(front_end, "do_normalize") or front_end.sampling_rate != SAMPLE_RATE:
        raise CheckpointError(
            f"the front end of {source.name!r} ({' or '.join(FRONT_ENDS)}) is a "
            f"{type(front_end).__name__}; expected a Wav2Vec2FeatureExtractor of {SAMPLE_RATE} Hz"
        )
    with source.reading():
        front_end(np.zeros(SAMPLE_RATE, np.float32), sampling_rate=SAMPLE_RATE)
    return front_end


def _reach(kernels: Sequence[int], strides: Sequence[int]) -> tuple[int, int]:
    """Samples that one frame depends on, and samples from one frame to the next."""
    samples, hop = 1, 1
    for kernel, stride in reversed(list(zip(kernels, strides, strict=True))):
        samples, hop = (samples - 1) * stride + kernel, hop * stride
    return samples, hop


build: BackboneFactory = SpeechEncoder
