"""RMVPE: pitch from samples: log-mel spectrogram, network, decoding of its salience.

Wei et al. 2023, "RMVPE: A Robust Model for Vocal Pitch Estimation in Polyphonic Music" (arXiv
2306.15412). A residual U-Net over time and mel bands, then a bidirectional GRU over time, gives the
salience of 360 pitch bins each 10 ms. 90,423,165 parameters in 741 named tensors, whose names are
those of the two public checkpoints: `rmvpe.pt` of RVC (MIT; float16, 181 MB) and `model.pt` of
yxlllc/RMVPE (licence not checked). A clip costs as much as its length rounded up to 0.32 s: 11
times faster than real time on one core.

For inference only: norms use their running statistics. Weights have channels last in memory, for
which a CPU has convolutions twice as fast.

Shapes: B batch, L samples, F frames of 10 ms, M mel bands, C channels.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from features.audio.pitch import Floats
from features.audio.spectrogram import spectra
from features.audio.torchaudio_cpu import functional
from features.weights.tensors import load_strictly

# Spectrogram: constants of the public code (RVC and yxlllc/RMVPE).
SAMPLE_RATE_HZ = 16_000
HOP = 160  # samples: 10 ms
N_FFT = 1024  # samples, and the window's length
N_MELS = 128  # M
F_MIN, F_MAX = 30.0, 8000.0  # Hz, range of the mel bands
FLOOR = 1e-5  # magnitude below which the logarithm is cut off

# Network.
CHANNELS = (16, 32, 64, 128, 256)  # of the encoder's stages, from the outermost one inwards
BOTTOM_CHANNELS = 512
BOTTOM_STAGES = 4
BLOCKS = 4  # residual blocks a stage
CNN_CHANNELS = 3  # between U-Net and GRU, for each frame and band
GRU_WIDTH = 256
STRIDE = 1 << len(CHANNELS)  # frames: each stage of the encoder halves the time axis
BN_MOMENTUM = 0.01
UNUSED = "unet.tf."  # 50 tensors of the yxlllc checkpoint that its own forward pass never reads

# Salience. Cents are a logarithmic scale of 1200 an octave, here above 10 Hz.
N_BINS = 360
CENTS_HZ = 10.0
CENTS_A_BIN = 20.0  # a fifth of a semitone, so that 360 bins are 6 octaves
FIRST_CENTS = 1997.3794084376191  # centre of bin 0, 31.7 Hz
REACH = 4  # bins on either side of the highest one that are averaged
CENTS = FIRST_CENTS + CENTS_A_BIN * np.arange(N_BINS)


def log_mel(samples: NDArray[np.float32]) -> Tensor:
    """Log-mel spectrogram `[128, F]` float32 of samples `[L]` in [-1, 1]; F = 1 + floor(L / 160).

    The first and last frame look beyond the clip by reflection, so L must exceed 512.
    """
    window, bank = _window_and_bank()
    blocks = spectra(torch.from_numpy(samples), window, n_fft=N_FFT, hop=HOP)
    return torch.cat([(bank @ block.abs()).clamp(min=FLOOR).log() for block in blocks], 1)


@functools.cache
def _window_and_bank() -> tuple[Tensor, Tensor]:
    bank: Tensor = functional.melscale_fbanks(
        N_FFT // 2 + 1, F_MIN, F_MAX, N_MELS, SAMPLE_RATE_HZ, norm="slaney", mel_scale="htk"
    )
    return torch.hann_window(N_FFT), bank.T.contiguous()


def normed(x: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
    """A convolution, its batch norm (with running statistics) and ReLU, in few passes over memory.

    The passes cost time, since a CPU waits for memory: 5 s of audio are 4 MB in each layer of the
    outermost stage, and the inner stages have 300 MB of weights.

    Args:
        x: `[B, C_in, F, M]`.
        conv: 3 x 3 without bias, or the same transposed, of stride 2.
        norm: Batch norm of its C channels.

    Returns:
        `[B, C, F, M]`, after a transposed convolution `[B, C, 2F, 2M]`.
    """
    assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    # norm(W * x) = gamma (W * x - mean) / sqrt(variance + eps) + beta = s (W * x) + beta - s mean,
    # with s = gamma / sqrt(variance + eps). As s (W * x) = (s W) * x, multiply by s where there is
    # less to multiply: into the weights where many frames share them, into the result in the
    # innermost stages, whose weights are most of the network.
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    if isinstance(conv, nn.ConvTranspose2d):
        weight = conv.weight * scale[:, None, None]  # [C_in, C, 3, 3]
        return F.conv_transpose2d(x, weight, shift, 2, 1, output_padding=1).relu_()
    places = x.shape[0] * x.shape[2] * x.shape[3]
    if places >= conv.weight[0].numel():
        return F.conv2d(x, conv.weight * scale[:, None, None, None], shift, padding=1).relu_()
    # oneDNN reorders weights at each call, which is most of the work where they are applied to few
    # places; there a matrix product is faster.
    few = places <= conv.out_channels and x.device.type == "cpu"
    out = as_product(x, conv.weight) if few else F.conv2d(x, conv.weight, padding=1)
    return torch.addcmul(shift[:, None, None], out, scale[:, None, None]).relu_()


def as_product(x: Tensor, weight: Tensor) -> Tensor:
    """A padded 3 x 3 convolution as one matrix product, with a place and its neighbours in a row.

    Args:
        x: `[B, C_in, F, M]`, channels last in memory or else copied.
        weight: `[C, C_in, 3, 3]`, the same.

    Returns:
        `[B, C, F, M]`, channels last in memory.
    """
    batch, _, frames, bands = x.shape
    around = F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).permute(0, 2, 3, 4, 5, 1)
    rows = around.reshape(batch * frames * bands, -1)
    out = F.linear(rows, weight.permute(0, 2, 3, 1).flatten(1))
    return out.view(batch, frames, bands, -1).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Twice convolution, norm and ReLU, plus the input: `[B, C_in, F, M]` to `[B, C, F, M]`.

    The ReLU precedes the sum. Only blocks that change the number of channels project the input.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels, momentum=BN_MOMENTUM),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels, momentum=BN_MOMENTUM),
            nn.ReLU(),
        )
        if in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1)
        self.projects = in_channels != channels

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C_in, F, M]` to `[B, C, F, M]`."""
        shortcut: Tensor = self.shortcut(x) if self.projects else x
        inner = normed(x, self.conv[0], self.conv[1])
        return normed(inner, self.conv[3], self.conv[4]).add_(shortcut)


def _blocks(in_channels: int, channels: int) -> nn.Sequential:
    first = ResidualBlock(in_channels, channels)
    return nn.Sequential(first, *(ResidualBlock(channels, channels) for _ in range(BLOCKS - 1)))


class Stage(nn.Module):
    """Residual blocks at one resolution."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = _blocks(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C_in, F, M]` to `[B, C, F, M]`."""
        return self.conv(x)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Five stages, each followed by average pooling of 2 x 2."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(1, momentum=BN_MOMENTUM)
        self.layers = nn.ModuleList(Stage(a, b) for a, b in pairwise((1, *CHANNELS)))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`[B, 1, F, M]` to `[B, 256, F / 32, M / 32]`, and each stage's output before pooling."""
        x = self.bn(x)
        before_pooling = []
        for stage in self.layers:
            x = stage(x)
            before_pooling.append(x)
            x = F.avg_pool2d(x, 2)
        return x, before_pooling


class Intermediate(nn.Module):
    """Four stages at the lowest resolution."""

    def __init__(self) -> None:
        super().__init__()
        widths = (CHANNELS[-1], *[BOTTOM_CHANNELS] * BOTTOM_STAGES)
        self.layers = nn.Sequential(*(Stage(a, b) for a, b in pairwise(widths)))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 256, F / 32, M / 32]` to `[B, 512, F / 32, M / 32]`."""
        return self.layers(x)  # type: ignore[no-any-return]


class UpStage(nn.Module):
    """Doubles the resolution, then residual blocks over the result and the encoder's stage."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.ConvTranspose2d(
                in_channels, channels, 3, stride=2, padding=1, output_padding=1, bias=False
            ),
            nn.BatchNorm2d(channels, momentum=BN_MOMENTUM),
            nn.ReLU(),
        )
        self.conv2 = _blocks(2 * channels, channels)

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        """`[B, C_in, F, M]` and `[B, C, 2F, 2M]` to `[B, C, 2F, 2M]`."""
        x = torch.cat((normed(x, self.conv1[0], self.conv1[1]), beside), dim=1)
        return self.conv2(x)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Five stages, mirroring the encoder's."""

    def __init__(self) -> None:
        super().__init__()
        widths = (BOTTOM_CHANNELS, *reversed(CHANNELS))
        self.layers = nn.ModuleList(UpStage(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor, encoded: list[Tensor]) -> Tensor:
        """`[B, 512, F / 32, M / 32]` to `[B, 16, F, M]`."""
        for stage, beside in zip(self.layers, reversed(encoded), strict=True):
            x = stage(x, beside)
        return x


class UNet(nn.Module):
    """Encoder, intermediate stages and decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.intermediate = Intermediate()
        self.decoder = Decoder()

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 1, F, M]` to `[B, 16, F, M]`; F and M are multiples of 32."""
        x, encoded = self.encoder(x)
        return self.decoder(self.intermediate(x), encoded)  # type: ignore[no-any-return]


class BiGRU(nn.Module):
    """A bidirectional GRU over time, without mask: padding changes the frames before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, GRU_WIDTH, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, F, width]` to `[B, F, 512]`."""
        return self.gru(x)[0]  # type: ignore[no-any-return]


class RMVPE(nn.Module):
    """The network, from log-mel to salience."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet()
        self.cnn = nn.Conv2d(CHANNELS[0], CNN_CHANNELS, 3, padding=1)
        self.fc = nn.Sequential(
            BiGRU(CNN_CHANNELS * N_MELS),
            nn.Linear(2 * GRU_WIDTH, N_BINS),
            nn.Dropout(0.25),
            nn.Sigmoid(),
        )

    def forward(self, mel: Tensor) -> Tensor:
        """Salience `[B, F, 360]` in [0, 1] of a log-mel spectrogram `[B, 128, F]`.

        As in the public code, frames of value 0 are appended up to a multiple of 32; their results
        are cut off.
        """
        frames = mel.shape[-1]
        x = F.pad(mel, (0, padded_frames(frames) - frames)).transpose(1, 2).unsqueeze(1)
        x = self.cnn(self.unet(x)).transpose(1, 2).flatten(2)  # [B, F, 3 * M]
        return self.fc(x)[:, :frames]  # type: ignore[no-any-return]


def padded_frames(frames: int) -> int:
    """The number of frames that the network computes for a clip of `frames`.

    >>> [padded_frames(n) for n in (1, 32, 33)]
    [32, 32, 64]
    """
    return -(-frames // STRIDE) * STRIDE


def build(weights: Mapping[str, Tensor] | None = None, *, source: str = "rmvpe") -> RMVPE:
    """The network in eval mode, float32.

    Args:
        weights: Named tensors of a public checkpoint; None leaves random ones.
        source: Name of the checkpoint in errors.

    Raises:
        CheckpointError: If the tensors are not those of this network.
    """
    if weights is None:
        return RMVPE().eval()
    with torch.device("meta"):  # drawing random weights, to be overwritten, would take seconds
        network = RMVPE()
    network.to_empty(device="cpu")
    used = {name: tensor for name, tensor in weights.items() if not name.startswith(UNUSED)}
    load_strictly(network, used, source)
    # torch's annotations of `to` lack the keyword.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval()


def cents_to_hz(cents: Floats) -> Floats:
    """Frequency of cents above 10 Hz."""
    return np.asarray(CENTS_HZ * np.exp2(np.asarray(cents, np.float64) / 1200.0))


def salience_to_cents(salience: NDArray[np.float32]) -> Floats:
    """Cents `[F]` of the highest bin of `[F, 360]` and its neighbours, averaged by their salience.

    Bins beyond either end have weight 0. A frame of zeros gives 0.
    """
    near = salience.argmax(1)[:, None] + np.arange(-REACH, REACH + 1)
    exists = (near >= 0) & (near < N_BINS)
    near = near.clip(0, N_BINS - 1)
    weights = np.take_along_axis(salience, near, 1).astype(np.float64) * exists
    total = weights.sum(1)
    return np.asarray((weights * CENTS[near]).sum(1) / np.where(total > 0, total, 1.0))


def salience_to_hz(salience: NDArray[np.float32], *, threshold: float) -> Floats:
    """Frequency `[F]` of each frame; 0 Hz (unvoiced) where no bin is above `threshold`.

    The threshold is compared in float32, so that a salience written as 0.05 is not above 0.05.
    """
    voiced = salience.max(1) > np.float32(threshold)
    return np.where(voiced, cents_to_hz(salience_to_cents(salience)), 0.0)
