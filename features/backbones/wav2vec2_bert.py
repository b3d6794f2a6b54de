"""w2v-BERT 2.0: a Conformer over log-mel spectra, one state each 20 ms (arXiv 2312.05187).

Seamless Communication et al. 2023; Conformer: Gulati et al. 2020, arXiv 2005.08100. MIT licence;
pretrained without labels on 4.5 million hours of 143 languages. 580 M parameters (2.3 GB), 24
layers, 1024 wide. T = floor((floor((L - 400) / 160) + 1) / 2): two frames of the spectrum a state.

The front end is SeamlessM4T's: 80 mel bands each 10 ms, as Kaldi computes them, each band
normalised over the clip to zero mean and unit variance, two frames side by side. A last odd frame
is dropped, which transformers masks. Batched equals single: the convolutions see the past alone,
and padding is masked. What checkpoints that were tuned for recognition have after the last layer,
an FFN and an adapter, is removed.

Memory grows with the square of a recording's length, since transformers makes an embedding of each
pair of frames: 0.6 GB for 30 s, 2.3 GB for a minute. `long: window` bounds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.backbone.base import BackboneFactory, Inputs
from features.backbone.layers import LayerChoice, Layers, choose_layers, freeze, keep_first
from features.backbones._audio import HOP, SAMPLE_RATE, waveform
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
from features.corpus.utterance import Utterance
from features.errors import CheckpointError
from features.stream import Stream
from features.weights.checkpoint import Checkpoint
from features.weights.identity import extractor_settings, network_settings

FAMILY = ("wav2vec2-bert",)  # model type of transformers
OTHERS = "speech_encoder, whisper, emotion2vec, xeus, ced"  # kinds of backbones
MEL_WINDOW, MEL_HOP = 400, 160  # samples of a frame of the spectrum, and from one to the next


class Wav2Vec2Bert(HiddenStates):
    """Hidden states of w2v-BERT 2.0.

    Args:
        checkpoint: Hub id or folder.
        revision: Commit of the hub repository.
        layer: Hidden states: a number, a list of numbers, or `all`; -1 is the last, 0 the input of
            the first layer.
    """

    def __init__(
        self,
        *,
        checkpoint: str,
        revision: str | None = None,
        layer: LayerChoice = -1,
    ) -> None:
        self.source = Checkpoint(checkpoint, revision)
        network: Any = speech_network(self.source, FAMILY, OTHERS)
        network.intermediate_ffn = None  # after the last layer, as the adapter
        self.network, config = network, network.config
        self.front_end = _front_end(self.source, config.feature_projection_input_dim)
        self.layers = choose_layers(layer, config.num_hidden_layers, checkpoint)
        network.encoder.layers = keep_first(network.encoder.layers, self.layers.deepest)
        freeze(network)
        stride: int = self.front_end.stride
        self.min_samples = MEL_WINDOW + (stride - 1) * MEL_HOP
        self.spec = self.layers.spec(config.hidden_size, hop_seconds=stride * MEL_HOP / SAMPLE_RATE)

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Spectra `[B, T, 160]`, normalised clip by clip, and their lengths `[B]` in frames."""
        spectra = [self._spectrum(waveform(u, min_samples=self.min_samples)) for u in utterances]
        lengths = torch.tensor([len(spectrum) for spectrum in spectra])
        mel = torch.nn.utils.rnn.pad_sequence(spectra, batch_first=True)
        return Inputs.of(utterances, mel=mel, lengths=lengths)

    def __call__(self, inputs: Inputs) -> Stream:
        """Values `[B, T, L * D]`: 49 frames of the first second, 50 of each further one."""
        mel, lengths = inputs.tensors["mel"], inputs.tensors["lengths"]

        def compute(mel: Tensor, lengths: Tensor) -> Tensor:
            return self.chosen(inputs, lambda layers: self._states(mel, lengths, layers))

        if mel.device.type != "cpu":
            values = compute(mel, lengths)
        else:
            values = clips_in_parts(mel, lengths, compute, differing=SIMILAR // HOP)
        return Stream.masked(values, lengths)

    def settings(self) -> dict[str, Any]:
        """Front end and network."""
        spectrum = {name: getattr(self.front_end, name) for name in ("num_mel_bins", "stride")}
        return {
            "front_end": {**extractor_settings(self.front_end), **spectrum, "normalize": "bands"},
            "network": network_settings(self.network),
        }

    def _spectrum(self, samples: NDArray[np.float32]) -> Tensor:
        """Spectrum `[T, 160]` of a waveform."""
        spectrum: Tensor = self.front_end(
            samples,
            sampling_rate=SAMPLE_RATE,
            padding=False,
            pad_to_multiple_of=None,  # else an odd frame is padded, and masked
            return_tensors="pt",
        ).input_features[0]
        return spectrum

    def _states(self, mel: Tensor, lengths: Tensor, layers: Layers) -> States:
        """Hidden states of spectra by number; those of padding have no meaning."""
        mask = torch.arange(mel.shape[1], device=mel.device) < lengths[:, None]
        whole = bool(mask.all())
        return hidden_states(
            self.network,
            layers,
            ends=True,
            input_features=mel,
            attention_mask=None if whole else mask.long(),
        )


def _front_end(source: Checkpoint, width: int) -> Any:
    """The feature extractor, which gives spectra of the network's width."""
    front_end = feature_extractor(source)
    given = getattr(front_end, "num_mel_bins", 0) * getattr(front_end, "stride", 0)
    if given != width or front_end.sampling_rate != SAMPLE_RATE:
        raise CheckpointError(
            f"the front end of {source.name!r} ({' or '.join(FRONT_ENDS)}) is a "
            f"{type(front_end).__name__} of {front_end.sampling_rate} Hz that gives {given} values "
            f"a frame; expected a SeamlessM4TFeatureExtractor of {SAMPLE_RATE} Hz and {width}, as "
            "config.json says: download both again"
        )
    with source.reading():
        front_end(np.zeros(SAMPLE_RATE, np.float32), sampling_rate=SAMPLE_RATE)
    return front_end


build: BackboneFactory = Wav2Vec2Bert
