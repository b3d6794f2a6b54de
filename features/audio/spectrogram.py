"""Short-time Fourier transform in blocks of frames, since two hours at once would take gigabytes.

The frames are those of `torch.stft` with `center=True` and reflection at both ends of the clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

BLOCK = 4096  # frames, at most


def equal_parts(count: int, most: int = BLOCK) -> Iterator[tuple[int, int]]:
    """Split `count` frames into spans of almost equal length, at most `most` frames each."""
    # Of equal length, since a matrix product with few rows may be rounded in another way.
    parts = -(-count // most)
    return pairwise(count * part // parts for part in range(parts + 1))


def spectra(clip: Tensor, window: Tensor, *, n_fft: int, hop: int) -> Iterator[Tensor]:
    """Complex spectra `[n_fft / 2 + 1, frames]` of a clip `[L]`, 1 + floor(L / hop) frames in all.

    L must be greater than `n_fft / 2`, which reflection needs.
    """
    end = len(clip) - 1
    for first, last in equal_parts(1 + len(clip) // hop):
        begin = first * hop - n_fft // 2
        # Indices of samples, reflected at the beginning by `abs` and at the end below.
        places = torch.arange(begin, begin + (last - first - 1) * hop + n_fft).abs()
        yield torch.stft(
            clip[end - (end - places).abs()],
            n_fft,
            hop,
            len(window),
            window,
            center=False,
            return_complex=True,
        )
