"""Modality dropout: its probabilities, and that it drops whole modalities."""

from __future__ import annotations

import pytest
import torch

from pipeline.model.base import ModalityDropout
from tests.support.models.small_fusions import batch_of, specs_of


@pytest.mark.parametrize("probability", [0.2, 0.9])
def test_modality_dropout_never_drops_all(probability: float) -> None:
    torch.manual_seed(0)
    keep = ModalityDropout(probability).draw(20_000, 3)
    assert bool(keep.any(1).all())
    # Conditioned on not losing all three: P(kept) = (1 - p) / (1 - p^3).
    expected = (1 - probability) / (1 - probability**3)
    assert float(keep.float().mean()) == pytest.approx(expected, abs=0.01)


def test_modality_dropout_zeroes_whole_utterances_and_only_in_training() -> None:
    dropout, batch = ModalityDropout(0.5), batch_of(specs_of("heron"), size=64)
    torch.manual_seed(0)
    for slot, stream in dropout(batch.streams).items():
        kept = stream.values.abs().sum((1, 2)) > 0
        assert 0 < int(kept.sum()) < 64
        assert torch.equal(stream.values[kept], batch.streams[slot].values[kept])
        assert torch.equal(stream.mask, batch.streams[slot].mask)
    silent = dropout.eval()(batch.streams)
    assert all(torch.equal(silent[slot].values, batch.streams[slot].values) for slot in silent)
