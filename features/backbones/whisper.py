"""Whisper's encoder: one hidden state each 20 ms (Radford et al. 2022, arXiv 2212.04356).

MIT licence. The network was trained on windows of exactly 30 s, so clips are padded (trimmed input
changes the states by half their size), and only frames that overlap speech are kept:
min(1500, floor(L / 320)), at least 1. Longer audio is cut into windows of 30 s whose states are
joined. Sizes (encoder): tiny 8 M parameters, 384 wide; large-v3 637 M, 1280 wide. Every clip costs
30 s of compute, however short: tiny takes 0.25 s of two CPU cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from features.backbones._audio import HOP, SAMPLE_RATE, waveform
from features.backbones._backbone import BackboneFactory, Inputs, Reads
from features.backbones.text_encoder import resolve_layer
from features.checkpoints import Checkpoint, weights_sha256
from features.manifest import Utterance
from features.stream import Stream, StreamSpec

WINDOW = 30 * SAMPLE_RATE  # samples
MIN_SAMPLES = 400  # one window of the mel front end


class Whisper:
    """Hidden states of Whisper's encoder.

    Args:
        checkpoint: Hub id or folder.
        revision: Commit of the hub repository.
        package: Package that carries the same weights.
        layer: Which hidden state; -1 is the last, after the final layer norm; 0 the input of the
            first layer.
    """

    def __init__(
        self,
        *,
        checkpoint: str,
        revision: str | None = None,
        package: str | None = None,
        layer: int = -1,
    ) -> None:
        from transformers import WhisperFeatureExtractor
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        self.source = Checkpoint(checkpoint, revision, package)
        self.front_end = self.source.load(WhisperFeatureExtractor)
        self.network = self.source.network(
            WhisperEncoder, key_mapping={r"^(model\.)?encoder\.": ""}
        )
        encoder: Any = self.network
        self.layer = resolve_layer(layer, len(encoder.layers), checkpoint)
        if self.layer < len(encoder.layers):
            encoder.layers = nn.ModuleList(list(encoder.layers)[: self.layer])
            encoder.layer_norm = nn.Identity()
        self.network.requires_grad_(requires_grad=False)
        self.spec = StreamSpec(dim=encoder.config.d_model, hop_seconds=HOP / SAMPLE_RATE)
        self.reads: Reads = "audio"
        self.trainable = True

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Log-mel windows `[B, W, M, 3000]` and the number of valid frames `[B]`."""
        clips = [waveform(u, min_samples=MIN_SAMPLES) for u in utterances]
        windows = max(-(-len(clip) // WINDOW) for clip in clips)
        mel = torch.zeros(len(clips), windows, self.front_end.feature_size, 3000)
        for index, clip in enumerate(clips):
            pieces = [clip[start : start + WINDOW] for start in range(0, len(clip), WINDOW)]
            features = self.front_end(pieces, sampling_rate=SAMPLE_RATE, return_tensors="pt")
            mel[index, : len(pieces)] = features.input_features
        frames = torch.tensor([max(1, len(clip) // HOP) for clip in clips])
        return Inputs(tuple(u.id for u in utterances), {"mel": mel, "frames": frames})

    def __call__(self, inputs: Inputs) -> Stream:
        """Values `[B, T, D]`, T the number of valid frames."""
        mel, frames = inputs.tensors["mel"], inputs.tensors["frames"]
        longest = int(frames.max())
        states: Tensor = self.network(mel.flatten(0, 1)).last_hidden_state
        values = states.reshape(len(mel), -1, states.shape[-1])[:, :longest]
        mask = torch.arange(longest, device=mel.device) < frames[:, None]
        return Stream(values * mask[..., None], mask)

    def provenance(self) -> dict[str, Any]:
        """Checkpoint, revision, layer and hash of the encoder's weights."""
        return {
            "checkpoint": self.source.name,
            "revision": self.source.revision,
            "layer": self.layer,
            "pad": "30s",
            "weights_sha256": weights_sha256(self.network),
        }


build: BackboneFactory = Whisper
