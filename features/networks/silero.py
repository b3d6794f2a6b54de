"""Silero VAD 6 at 16 kHz (Silero Team, MIT), under the key names of its safetensors file.

The probability of speech in windows of 512 samples (32 ms): the magnitude of a Fourier transform as
a convolution, four convolutions that end in one vector a window, and an LSTM over the windows.
309,633 parameters in 15 tensors. The public code calls one window after another; here all windows
of a block go through the convolutions at once, and the LSTM carries its state from block to block.

Shapes: T windows of a block, W = 512 samples, C = 64 samples before each window.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from features.weights.tensors import load_strictly

SAMPLE_RATE_HZ = 16_000
WINDOW = 512  # samples W
CONTEXT = 64  # samples C of the window before, and as many mirrored ones at its end
BINS = 129
State = tuple[Tensor, Tensor]


class SileroVAD(nn.Module):
    """The network; its weights come from `build`."""

    def __init__(self) -> None:
        super().__init__()
        # The kernels are cosines, then sines, in a Hann window: real and imaginary parts.
        self.stft_conv = nn.Conv1d(1, 2 * BINS, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(BINS, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128, batch_first=True)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, samples: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Probabilities `[T]` that the windows are speech, and the state for the next block.

        Args:
            samples: `[C + T W]`: the last samples before the block (zeros at the beginning of a
                recording), then its windows.
            state: What the call for the block before returned; None at the beginning.
        """
        windows = samples.unfold(0, CONTEXT + WINDOW, WINDOW)
        padded = F.pad(windows, (0, CONTEXT), mode="reflect")
        parts = self.stft_conv(padded[:, None])
        hidden = (parts[:, :BINS] ** 2 + parts[:, BINS:] ** 2).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            hidden = layer(hidden).relu()
        out, state = self.lstm(hidden.transpose(0, 2).transpose(1, 2), state)
        probability = self.final_conv(out.relu().transpose(1, 2)).sigmoid()
        assert state is not None
        return probability[0, 0], state


def build(tensors: Mapping[str, Tensor], source: str) -> SileroVAD:
    """The network with its weights, for inference.

    Args:
        tensors: Tensors of `silero_vad_16k.safetensors`.
        source: Where they come from, for messages.

    Raises:
        CheckpointError: If they are of another network.
    """
    network = SileroVAD()
    renamed = {
        f"lstm.{name.removeprefix('lstm_cell.')}_l0"
        if name.startswith("lstm_cell.")
        else name: value
        for name, value in tensors.items()
    }
    load_strictly(network, renamed, source)
    network.requires_grad_(requires_grad=False)
    return network.eval()
