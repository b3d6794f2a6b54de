"""Long grouped convolutions over time by Fourier transforms, differentiable in all they take.

The positional convolutions of wav2vec 2.0's family have kernels of 128 frames; on a CPU they and
their gradients take a third of a training step. Overlap-save (Stockham 1966): blocks of twice the
kernel's length are transformed, multiplied by the transformed kernels (a product of small complex
matrices a frequency), and transformed back; what wrapped around is dropped. In single precision the
result is the convolution's to 1e-6 of its size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WORTH_IT = 800  # frames of a batch; with fewer, transforming the kernels takes longer than is won


def fourier_convolution(
    frames: Tensor, weight: Tensor, bias: Tensor | None = None, *, groups: int = 1, padding: int = 0
) -> Tensor:
    """What `F.conv1d` makes of `[B, C, T]`: `[B, O, T + 2 * padding - K + 1]`.

    Args:
        frames: Input.
        weight: Kernels `[O, C / groups, K]`.
        bias: `[O]`.
        groups: Of channels; group g of the output sees group g of the input.
        padding: Zeros ahead of and behind the input.
    """
    batch, channels, time = frames.shape
    outputs, inputs, kernel = weight.shape
    wanted = time + 2 * padding - kernel + 1
    size, step = 2 * kernel, kernel + 1  # of a block; of what is whole in it
    blocks = -(-wanted // step)
    behind = (blocks - 1) * step + size - padding - time
    parts = F.pad(frames, (padding, behind)).unfold(-1, size, step)  # [B, C, blocks, size]
    heard = torch.fft.rfft(parts).view(batch, groups, channels // groups, blocks, -1)
    count = heard.shape[-1]  # of frequencies
    rows = heard.permute(1, 4, 0, 3, 2).reshape(groups * count, batch * blocks, inputs)
    # Networks correlate: the kernel is not turned around, its spectrum is conjugated.
    kernels = torch.fft.rfft(weight, n=size).conj().view(groups, outputs // groups, inputs, count)
    products = rows @ kernels.permute(0, 3, 2, 1).reshape(groups * count, inputs, -1)
    spectra = products.view(groups, count, batch, blocks, -1).permute(2, 0, 4, 3, 1)
    whole = torch.fft.irfft(spectra, n=size)[..., :step]  # [B, groups, O / groups, blocks, step]
    made: Tensor = whole.reshape(batch, outputs, blocks * step)[..., :wanted]
    return made if bias is None else made + bias[:, None]
