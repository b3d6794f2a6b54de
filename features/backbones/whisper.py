"""Whisper's encoder: one hidden state each 20 ms (Radford et al. 2022, arXiv 2212.04356).

MIT licence. The network was trained on windows of exactly 30 s, so clips are padded to that, and
only states that overlap speech are kept: min(1500, floor(L / 320)), at least 1. `pad: trim`
computes the states of the clip alone, at a cost in proportion to its length; they differ from the
others by about half of their size. Sizes (encoder): tiny 8 M parameters, 384 wide; large-v3 637 M,
1280 wide, 128 mel bands instead of 80. With 30 s windows, tiny takes 0.25 s of two CPU cores for a
clip, however short.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from features.backbone.base import BackboneFactory, Inputs
from features.backbone.layers import LayerChoice, Layers, choose_layers, freeze, keep_first
from features.backbones._audio import HOP, SAMPLE_RATE, waveform
from features.backbones._hidden_states import HiddenStates, States, hidden_states
from features.corpus.utterance import Utterance
from features.errors import CheckpointError, UtteranceError
from features.stream import Stream
from features.weights.checkpoint import Checkpoint
from features.weights.identity import extractor_settings, network_settings

WINDOW_SECONDS = 30
WINDOW = WINDOW_SECONDS * SAMPLE_RATE  # samples
STATES = WINDOW // HOP  # hidden states of a window
STRIDE = 2  # mel frames of a state
MIN_SAMPLES = 400  # one window of the mel front end


class Whisper(HiddenStates):
    """Hidden states of Whisper's encoder.

    Args:
        checkpoint: Hub id or folder.
        revision: Commit of the hub repository.
        package: Package that carries the same weights.
        layer: Hidden states: a number, a list of numbers, or `all`; -1 is the last, after the final
            layer norm; 0 the input of the first layer.
        pad: `30s` fills the window with silence; `trim` computes the clip alone.
        long: Clips over 30 s: `chunk` divides them into windows whose states are joined, `reject`
            leaves them out.
    """

    longest_seconds = float(WINDOW_SECONDS)

    def __init__(
        self,
        *,
        checkpoint: str,
        revision: str | None = None,
        package: str | None = None,
        layer: LayerChoice = -1,
        pad: Literal["30s", "trim"] = "30s",
        long: Literal["chunk", "reject"] = "chunk",
    ) -> None:
        from transformers import WhisperFeatureExtractor
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        self.source = Checkpoint(checkpoint, revision, package)
        self.front_end = self.source.load(WhisperFeatureExtractor)
        self.network = self.source.network(
            WhisperEncoder, key_mapping={r"^(model\.)?encoder\.": ""}
        )
        encoder: Any = self.network
        if self.front_end.feature_size != encoder.config.num_mel_bins:
            raise CheckpointError(
                f"the front end of {checkpoint!r} (preprocessor_config.json) has feature_size "
                f"{self.front_end.feature_size}; expected {encoder.config.num_mel_bins}, the mel "
                "bands of its config.json: download both again"
            )
        with self.source.reading():
            self.front_end(np.zeros(HOP, np.float32), sampling_rate=SAMPLE_RATE)
        self.layers = choose_layers(layer, len(encoder.layers), checkpoint)
        if not self.layers.whole:
            encoder.layers = keep_first(encoder.layers, self.layers.deepest)
            encoder.layer_norm = nn.Identity()  # it follows the last layer only
        freeze(self.network)
        self.pad, self.long = pad, long
        self.window_seconds = float(WINDOW_SECONDS) if pad == "30s" else 0.0
        self.spec = self.layers.spec(encoder.config.d_model, hop_seconds=HOP / SAMPLE_RATE)

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Log-mel windows `[B, W, M, F]` and the number of valid states `[B]`.

        F is 3000, or with `pad: trim` the number of frames of the longest window.
        """
        windows = [self._windows(utterance) for utterance in utterances]
        longest = max(mel.shape[-1] for mels, _ in windows for mel in mels)
        count, bands = max(len(mels) for mels, _ in windows), self.front_end.feature_size
        mel = torch.zeros(len(windows), count, bands, longest)
        for row, (mels, _) in enumerate(windows):
            for column, piece in enumerate(mels):
                mel[row, column, :, : piece.shape[-1]] = piece
        frames = torch.tensor([states for _, states in windows])
        return Inputs.of(utterances, mel=mel, frames=frames)

    def __call__(self, inputs: Inputs) -> Stream:
        """Values `[B, T, L * D]`, T the number of valid states."""
        mel, frames = inputs.tensors["mel"], inputs.tensors["frames"]
        starts = torch.arange(mel.shape[1], device=mel.device) * STATES
        present = starts < frames[:, None]  # [B, W]: shorter clips have fewer windows
        counts = (frames[:, None] - starts).clamp(max=STATES)

        def compute(layers: Layers) -> States:
            if self.pad == "trim":
                return self._trimmed(mel[present], counts[present])
            return hidden_states(self.network, layers, ends=True, input_features=mel[present])

        states = self.chosen(inputs, compute)
        windows = states.new_zeros(*present.shape, *states.shape[1:])  # [B, W, S, L * D]
        windows[present] = states
        return Stream.masked(windows.flatten(1, 2)[:, : int(frames.max())], frames)

    def settings(self) -> dict[str, Any]:
        """Padding, long clips, front end and network."""
        return {
            "pad": self.pad,
            "long": self.long,
            "front_end": extractor_settings(self.front_end),
            "network": network_settings(self.network),
        }

    def _windows(self, utterance: Utterance) -> tuple[list[Tensor], int]:
        """Mels `[M, F]` of an utterance's windows, and its number of valid states."""
        clip = waveform(utterance, min_samples=MIN_SAMPLES)
        if self.long == "reject" and len(clip) > WINDOW:
            raise UtteranceError(
                utterance.id,
                f"lasts {len(clip) / SAMPLE_RATE:.2f} s; expected at most {WINDOW_SECONDS} s, "
                "or `long: chunk` in the backbone's entry",
            )
        states = len(clip) // HOP
        # A rest of less than one state gets no window of its own.
        starts = range(0, -(-states // STATES) * WINDOW, WINDOW)
        return [self._mel(clip[start : start + WINDOW]) for start in starts], states

    def _mel(self, window: NDArray[np.float32]) -> Tensor:
        padding = "max_length" if self.pad == "30s" else "do_not_pad"
        mel: Tensor = self.front_end(
            window, sampling_rate=SAMPLE_RATE, padding=padding, return_tensors="pt"
        ).input_features[0]
        # Whole states only: a partial last state would be attended to, though it is not kept.
        return mel[:, : mel.shape[-1] // STRIDE * STRIDE]

    def _trimmed(self, mel: Tensor, counts: Tensor) -> States:
        """States of mels `[B, M, F]` that have `counts` valid states `[B]`.

        The same modules as in the network's own forward, which refuses all but 3000 frames.
        """
        # Frames past the end are zeroed before the second convolution and masked as keys, so that
        # each clip sees the same zeros as it would alone.
        network: Any = self.network
        valid = torch.arange(mel.shape[-1], device=mel.device) < STRIDE * counts[:, None]
        state = F.gelu(network.conv1(mel)) * valid[:, None]
        state = F.gelu(network.conv2(state)).transpose(1, 2)
        state = state + network.embed_positions.weight[: state.shape[1]]
        keys = None if bool(valid.all()) else valid[:, None, None, ::STRIDE]
        states = [state]
        for layer in network.layers:
            state = layer(state, keys)
            states.append(state)
        states[-1] = network.layer_norm(states[-1])
        return states


build: BackboneFactory = Whisper
