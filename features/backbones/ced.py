"""CED: an audio tagger for general sounds, laughter and breath among them.

Dinkel et al. 2023, arXiv 2308.11957; weights under Apache-2.0 (mispeech/ced-tiny, -mini, -small,
-base; the size is that of the checkpoint). One state each 160 ms, 192, 256, 384 or 768 wide. The
public embedding of a clip is `pooling: mean`. Audio longer than 10.12 s is divided into chunks of
that length, each computed by itself, the last one padded with zeros. Small takes 0.13 s of one CPU
core for 10 s.

Differences from the public code: it has four states at each time, one for each quarter of the mel
bands, of which a frame here is the mean; the 120 dB floor of the spectrogram is that of each clip;
a full last chunk is kept (public code drops it); each clip has its own chunks (the hub's code mixes
those of a batch).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from features.backbone.base import BackboneFactory, Inputs
from features.backbone.layers import LayerChoice, Layers, choose_layers, freeze
from features.backbones._audio import waveform
from features.backbones._hidden_states import HiddenStates, States
from features.corpus.utterance import Utterance
from features.networks.ced import CHUNK, HOP, MELS, PATCH, SAMPLE_RATE, TIMES, TOP_DB, DecibelMel
from features.networks.ced import build as build_network
from features.stream import Stream
from features.weights.checkpoint import Checkpoint

FILES = (
    "model.safetensors",
    "audiotransformer_small_mAP_4958.pt",
    "audiotransformer_base_mAP_4999.pt",
    "audiotransformer_mini_mAP_4896.pt",
    "audiotransformer_tiny_mAP_4814.pt",
    "pytorch_model.bin",
)
MIN_SAMPLES = (PATCH - 1) * HOP  # samples of one patch
# Frames computed at once, 80 s or 320 s, which bounds the memory for an hour of audio. More are
# slower on a CPU, since they outgrow its caches.
PASS = {"cpu": 8 * CHUNK}
PASS_ELSEWHERE = 32 * CHUNK


@dataclass(frozen=True)
class Chunks:
    """States of a batch's chunks. Shapes: B clips, C chunks, P patches in time, D width.

    Attributes:
        states: `[B, C, P, D]`, averaged over the mel bands; zeros where a chunk has no patch.
        computed: `[B, C]`, number of patches that were computed, the padded tail included.
        heard: `[B, C]`, number of patches with sound of the clip.
    """

    states: Tensor
    computed: Tensor
    heard: Tensor


class CED(HiddenStates):
    """Hidden states of CED, averaged over frequency.

    With `pooling: mean` a clip's vector is the public embedding: the mean over its chunks of each
    chunk's mean, the padded tail of the last one included. `pooling: frames` leaves out the tail. A
    patch that is partly beyond the end of the clip is kept, except in a clip of one chunk, where
    public code drops it. Chunks start each 10.12 s, while their 63 states span 10.08 s: frame 63 is
    at 10.12 s.

    Args:
        checkpoint: Hub id, folder or file.
        revision: Commit of the hub repository.
        layer: Hidden states: a number, a list of numbers, or `all`. 0 is the input of the first
            block, 12 or -1 the last, after the final norm.
    """

    files = FILES
    longest_seconds = CHUNK * HOP / SAMPLE_RATE
    cpu_batch_seconds = 80.0  # 25 tokens a second: a short clip alone is a small matrix

    def __init__(
        self,
        *,
        checkpoint: str,
        revision: str | None = None,
        layer: LayerChoice = -1,
    ) -> None:
        self.source = Checkpoint(checkpoint, revision)
        network = build_network(weights=self.source.tensors(FILES), source=checkpoint)
        self.layers = choose_layers(layer, network.sizes.depth, checkpoint)
        network.keep(self.layers.deepest)
        freeze(network)
        self.network = network
        self.front_end = DecibelMel()
        self.spec = self.layers.spec(network.sizes.width, hop_seconds=PATCH * HOP / SAMPLE_RATE)

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Decibels `[B, C, 64, W]` in chunks of W frames, and the frames `[B]` of each clip.

        W is 1012 if a clip has several chunks, and the longest clip's frames if none has.
        """
        clips = [waveform(u, min_samples=MIN_SAMPLES) for u in utterances]
        spectra = [self.front_end(torch.from_numpy(clip)) for clip in clips]
        return Inputs.of(utterances, **_in_chunks(spectra))

    def cropped(self, inputs: Inputs, start: Tensor, frames: Tensor) -> Inputs:
        """Inputs of a part of each clip, cut out of its spectrum.

        Args:
            inputs: What `prepare` gave.
            start: First frame of each part, `[B]`.
            frames: Number of frames of each part, `[B]`, at least 15.
        """
        # Chunks follow each other, so that those of a clip side by side are its frames.
        whole = inputs.tensors["mel"].transpose(1, 2).flatten(2)
        places = zip(whole, start.tolist(), frames.tolist(), strict=True)
        parts = [spectrum[:, first : first + count] for spectrum, first, count in places]
        return Inputs(inputs.ids, _in_chunks(parts))

    def __call__(self, inputs: Inputs) -> Stream:
        """Values `[B, T, D]`: floor(F / 16) of a clip of F frames, up to 63 a chunk."""
        chunks = self._chunks(inputs)
        lengths = chunks.heard.sum(1)
        return Stream.masked(chunks.states.flatten(1, 2)[:, : int(lengths.max())], lengths)

    def pooled(self, inputs: Inputs) -> Tensor:
        """Embedding `[B, D]` of each clip (see `Pooled`)."""
        chunks = self._chunks(inputs)
        means = chunks.states.sum(2) / chunks.computed.clamp(min=1)[..., None]
        return means.sum(1) / (chunks.computed > 0).sum(1)[:, None]

    def settings(self) -> dict[str, Any]:
        """Dynamic range of the spectrogram, and length of the chunks."""
        return {"top_db": TOP_DB, "chunk_frames": CHUNK}

    def _chunks(self, inputs: Inputs) -> Chunks:
        """Compute all existing chunks, a few at a time."""
        mel, frames = inputs.tensors["mel"], inputs.tensors["frames"]
        starts = torch.arange(mel.shape[1], device=mel.device) * CHUNK
        own = (frames[:, None] - starts).clamp(0, CHUNK)
        alone = (frames <= CHUNK)[:, None]
        exists = own > 0
        computed = torch.where(alone, own // PATCH, TIMES * exists)
        heard = torch.where(alone, computed, (-(-own // PATCH)).clamp(max=TIMES))
        size = PASS.get(mel.device.type, PASS_ELSEWHERE) // mel.shape[-1]
        parts = (torch.split(tensor[exists], size) for tensor in (mel, own, computed))
        states = torch.cat([self._pass(inputs, *part) for part in zip(*parts, strict=True)])
        takes_part = torch.arange(states.shape[1], device=mel.device) < computed[exists][:, None]
        whole = states.new_zeros(*exists.shape, *states.shape[1:])
        whole[exists] = states * takes_part[..., None]
        return Chunks(whole, computed, heard)

    def _pass(self, inputs: Inputs, mel: Tensor, frames: Tensor, patches: Tensor) -> Tensor:
        """Chosen states of a few chunks `[N, 64, W]`, averaged over the bands: `[N, P, D]`."""

        def compute(layers: Layers) -> States:
            found = layers.only(self.network(mel, frames, patches))
            return {number: state.mean(1) for number, state in found.items()}

        return self.chosen(inputs, compute)


def _in_chunks(spectra: Sequence[Tensor]) -> dict[str, Tensor]:
    """Tensors of `prepare` from the decibels `[64, F]` of each clip."""
    frames = torch.tensor([spectrum.shape[1] for spectrum in spectra])
    longest = int(frames.max())
    count, width = -(-longest // CHUNK), min(longest, CHUNK)
    chunks = spectra[0].new_zeros(len(spectra), MELS, count * width)
    for chunk, spectrum in zip(chunks, spectra, strict=True):
        chunk[:, : spectrum.shape[1]] = spectrum
    mel = chunks.reshape(len(spectra), MELS, count, width).transpose(1, 2).contiguous()
    return {"mel": mel, "frames": frames.to(mel.device)}


build: BackboneFactory = CED
