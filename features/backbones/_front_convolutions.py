"""The convolutions of wav2vec 2.0's family, told where each clip of a batch ends."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from features.backbones._masked_norm import MaskedGroupNorm
from features.backbones._told_lengths import ToldLengths


class FrontConvolutions(ToldLengths):
    """What stands in the place of a network's `feature_extractor`, with its layers and their names.

    Without lengths its numbers are those of transformers' bit for bit.

    Args:
        conv_layers: Of transformers' feature encoder; a group norm of the first one is replaced.
    """

    def __init__(self, conv_layers: nn.ModuleList) -> None:
        super().__init__()
        self.conv_layers = conv_layers
        first: Any = conv_layers[0]
        if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
            first.layer_norm = MaskedGroupNorm.like(first.layer_norm)

    def forward(self, samples: Tensor) -> Tensor:
        """`[B, C, T]` of waveforms `[B, L]`; frames of padding come out as some finite number."""
        norm = getattr(self.conv_layers[0], "layer_norm", None)
        if self.lengths is None or not isinstance(norm, MaskedGroupNorm):
            return self._convolve(samples)
        with norm.told(self.frames(self.lengths, layers=1)):
            return self._convolve(samples)

    def frames(self, samples: Tensor, *, layers: int | None = None) -> Tensor:
        """How many frames the first layers, or all, make of so many samples `[B]`."""
        for layer in self.conv_layers[:layers]:
            convolution: Any = layer.conv
            (kernel,), (stride,) = convolution.kernel_size, convolution.stride
            samples = (samples - kernel) // stride + 1
        return samples

    def _convolve(self, samples: Tensor) -> Tensor:
        values = samples[:, None]
        for layer in self.conv_layers:
            values = layer(values)
        return values
