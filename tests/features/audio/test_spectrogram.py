"""Spectra in blocks are those of the whole clip, and no block is larger than it may be."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from features.audio.spectrogram import BLOCK, equal_parts, spectra


@given(st.integers(1, 10_000), st.integers(1, 500))
def test_parts_are_all_frames_in_order_and_of_almost_equal_length(count: int, most: int) -> None:
    parts = list(equal_parts(count, most))
    assert list(chain.from_iterable(range(*part) for part in parts)) == list(range(count))
    lengths = {last - first for first, last in parts}
    assert max(lengths) <= most
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(("n_fft", "hop"), [(512, 160), (1024, 100), (400, 333)])
@pytest.mark.parametrize("frames", [7, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_blocks_are_the_spectrum_of_the_clip(n_fft: int, hop: int, frames: int) -> None:
    window = torch.hann_window(400)
    clip = torch.randn((frames - 1) * hop + hop // 2, generator=torch.Generator().manual_seed(0))
    blocks = list(spectra(clip, window, n_fft=n_fft, hop=hop))
    assert max(block.shape[1] for block in blocks) <= BLOCK
    expected = torch.stft(
        clip, n_fft, hop, 400, window, center=True, pad_mode="reflect", return_complex=True
    )
    torch.testing.assert_close(torch.cat(blocks, 1), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("n_fft", [512, 1024])
def test_the_shortest_clip_that_can_be_reflected(n_fft: int) -> None:
    clip, window = torch.randn(n_fft // 2 + 1), torch.ones(n_fft)
    (block,) = spectra(clip, window, n_fft=n_fft, hop=160)
    assert torch.equal(block, torch.stft(clip, n_fft, 160, n_fft, window, return_complex=True))
