"""The benchmark of several devices measures what it says; speed is not tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.extractions.devices import HERE, measured
from benchmarks.shared.clips import make_clips


@pytest.mark.slow
def test_checkouts_take_turns_and_make_the_same_cache(tmp_path: Path) -> None:
    clips = make_clips(tmp_path / "audio", [0.3] * 4, shard_seconds=0.3)
    clips.write(tmp_path / "manifest")
    found = measured(tmp_path, 0.05, {"this": HERE, "against": HERE}, [1], rounds=1)
    assert found.keys() == {"this", "against"}
    for row in found.values():
        (seconds, _), (altogether, _) = row["1"]["seconds_a_shard"], row["1"]["seconds"]
        assert 0.05 * 3 / 4 < seconds < altogether
