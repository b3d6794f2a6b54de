"""emotion2vec and emotion2vec+: speech representations trained on emotional speech.

Ma et al. 2023, arXiv 2312.15185. One state each 20 ms. emotion2vec, emotion2vec+ seed and base: 768
wide, 93 M parameters; emotion2vec+ large: 1024 wide, 162 M. Weights under the FunASR model licence
("other"): see the repository's card before use. Each clip is normalised to zero mean and unit
variance as a whole, then batched with exact masks. The public `frames` are layer 12, the last; the
public utterance vector is `pooling: mean` of them.

emotion2vec was pretrained without labels. emotion2vec+ was fine-tuned on labels of other people's
corpora, EmoBox's 32 first: its scores on those say little, and `features.extraction.trained_on`
knows it. Its classifier of nine emotions is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from features.backbone.base import BackboneFactory, Inputs
from features.backbone.layers import LayerChoice, choose_layers, freeze
from features.backbones._audio import HOP, SAMPLE_RATE, padded, waveform
from features.backbones._hidden_states import HiddenStates, clips_in_parts
from features.corpus.utterance import Utterance
from features.networks.emotion2vec import build as build_network
from features.networks.emotion2vec import frame_count
from features.stream import Stream
from features.weights.checkpoint import Checkpoint

FILES = ("emotion2vec_base.pt", "model.pt", "model.safetensors")
MIN_SAMPLES = 400  # samples of one frame
EPSILON = 1e-5  # added to a clip's variance


class Emotion2vec(HiddenStates):
    """Hidden states of emotion2vec.

    Args:
        checkpoint: Hub id, folder or file.
        revision: Commit of the hub repository.
        layer: Hidden states: a number, a list of numbers, or `all`. 0 is the input of the first
            prenet block (after its layer norm), 4 the output of the prenet, 12 or -1 the last.
    """

    files = FILES

    def __init__(
        self,
        *,
        checkpoint: str,
        revision: str | None = None,
        layer: LayerChoice = -1,
    ) -> None:
        self.source = Checkpoint(checkpoint, revision)
        network = build_network(weights=self.source.tensors(FILES), source=checkpoint)
        sizes = network.sizes
        self.layers = choose_layers(layer, sizes.prenet_depth + sizes.depth, checkpoint)
        network.keep(self.layers.deepest)
        freeze(network)
        self.network = network
        self.spec = self.layers.spec(sizes.dim, hop_seconds=HOP / SAMPLE_RATE)

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Normalised waveforms `[B, L]` and their lengths `[B]`."""
        clips = [normalized(waveform(u, min_samples=MIN_SAMPLES)) for u in utterances]
        samples, lengths = padded(clips)
        return Inputs.of(utterances, samples=samples, lengths=lengths)

    def __call__(self, inputs: Inputs) -> Stream:
        """Values `[B, T, D]`: 49 frames of the first second, 50 of each further one."""
        samples, lengths = inputs.tensors["samples"], inputs.tensors["lengths"]

        def compute(samples: Tensor, lengths: Tensor) -> Tensor:
            return self.chosen(inputs, lambda _: self.network(samples, lengths)[0])

        if samples.device.type != "cpu":
            values = compute(samples, lengths)
        else:
            values = clips_in_parts(samples, lengths, compute)
        return Stream.masked(values, frame_count(lengths))

    def settings(self) -> dict[str, Any]:
        """Normalisation of the waveform."""
        return {"normalize": "clip"}


def normalized(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """A clip normalised to zero mean and unit variance; silence stays silent."""
    clip = torch.from_numpy(samples)
    return F.layer_norm(clip, clip.shape, eps=EPSILON).numpy()


build: BackboneFactory = Emotion2vec
