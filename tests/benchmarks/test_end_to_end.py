"""The fine-tuning benchmark runs on a tiny network; speed is not tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import end_to_end
from benchmarks.end_to_end import measure, padded_seconds, peak_of, table
from benchmarks.shared.clips import between, make_clips
from benchmarks.shared.networks import write_speech
from benchmarks.shared.our_tuning import TuneTask, settings, train_ours
from benchmarks.shared.peer_tuning import train_peer
from features.backbone.entry import BackboneEntry

TINY: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY |= {"intermediate_size": 48, "conv_dim": (16,) * 7}


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TuneTask:
    monkeypatch.setattr("benchmarks.shared.rounds.TRIES", 1)
    monkeypatch.setattr(end_to_end, "memory", lambda *_: {"memory": {}, "peak_mib": {"ours": 1}})
    sizes = settings("small") | TINY
    options = write_speech(tmp_path / "hubert", "Hubert", normalize=True, **sizes)
    entry = BackboneEntry("hubert", "speech_encoder", options=options)
    clips = make_clips(tmp_path / "clips", between(0.3, 1.0, 16), shard_seconds=3600)
    return TuneTask(entry, clips, "cpu", "float32", 4)


@pytest.mark.slow
def test_both_train_the_same_network_on_all_clips(task: TuneTask) -> None:
    result = measure(task, 1)
    assert result["loss_difference"] <= 1e-5
    for name in ("same_batches", "epoch", "fraction_of_peak"):
        assert result[name]["median"] > 0
    assert "peak MiB, ours" in table(result)
    trained = [id for ids in train_ours(task).steps for id in ids]
    assert len(set(trained)) == len(trained) == 14  # two clips are validated
    assert train_peer(task).steps == 4
    assert 4 * 0.3 <= padded_seconds(task) <= 4 * 1.0
    assert peak_of(train_ours, task) > 0


def test_other_networks_are_not_compared(task: TuneTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(end_to_end, "peer_loss", lambda *_: 0.5)
    with pytest.raises(SystemExit, match="not the same network"):
        measure(task, 1)
