"""RMVPE's convolutions, each with its norm and ReLU, as few passes over memory as there can be.

For inference, and for a CPU first of all, which waits for its memory: 5 s of audio are 4 MB in each
layer of the outermost stage, and the inner stages have 300 MB of weights.

Legend: B batch, F frames, M mel bands, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def normed(x: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
    """A convolution, its batch norm (with the running statistics) and ReLU, in as few passes.

    With s = gamma / sqrt(variance + eps), norm(W * x) = (s W) * x + beta - s mean. The factor goes
    where there is less to multiply: into the weights where many frames share them, into the result
    of the innermost stages, whose weights are most of the network.

    Args:
        x: `[B, C_in, F, M]`.
        conv: 3 x 3 without bias, or the same transposed, of stride 2.
        norm: Of its C channels.

    Returns:
        `[B, C, F, M]`, after a transposed convolution `[B, C, 2F, 2M]`.
    """
    assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    if isinstance(conv, nn.ConvTranspose2d):
        weight = conv.weight * scale[:, None, None]  # [C_in, C, 3, 3]
        return F.conv_transpose2d(x, weight, shift, 2, 1, output_padding=1).relu_()
    places = x.shape[0] * x.shape[2] * x.shape[3]
    if places >= conv.weight[0].numel():
        return F.conv2d(x, conv.weight * scale[:, None, None, None], shift, padding=1).relu_()
    # oneDNN lays weights out anew at each call, which is most of the work where they meet few
    # places; there a matrix product is faster.
    few = places <= conv.out_channels and x.device.type == "cpu"
    out = as_product(x, conv.weight) if few else F.conv2d(x, conv.weight, padding=1)
    return torch.addcmul(shift[:, None, None], out, scale[:, None, None]).relu_()


def as_product(x: Tensor, weight: Tensor) -> Tensor:
    """A padded 3 x 3 convolution as one matrix product: each place with its neighbours in a row.

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
