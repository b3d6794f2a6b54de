"""Means by speaker: each utterance counts once, failed ones not, and none is lost."""

from __future__ import annotations

from typing import Any

from pipeline.model.outputs import Outputs
from pipeline.predict.groups import means_table
from pipeline.predict.records import Columns

OUTPUTS = Outputs(("calm", "sad"), ("arousal",), scales={"arousal": (1, 7)})


def row(speaker: str | None, start: float, calm: float | None, arousal: float) -> dict[str, Any]:
    found = {"speaker": speaker, "start": start, "stop": 9.0, "error": None, "v_arousal": arousal}
    if calm is None:
        return found | {"p_calm": None, "p_sad": None, "error": "it is too large"}
    return found | {"p_calm": calm, "p_sad": 1 - calm}


def test_means_of_each_speaker_in_order_of_rows() -> None:
    rows = [
        row("bo", 5.0, 0.25, 2.0),
        row(None, 0.0, 0.5, 3.0),
        row("bo", 8.0, 0.5, 5.0),
        row("bo", 0.0, None, 0.0),
        row("cy", 0.0, None, 0.0),
    ]
    lines = [line.split() for line in means_table(Columns(OUTPUTS, (), False), rows, "speaker")]
    head = ["speaker", "utterances", "time", "class", "p_calm", "p_sad", "v_arousal", "failed"]
    assert lines == [
        head,
        ["bo", "2", "0:00:05", "sad", "0.38", "0.62", "3.50", "1"],
        ["?", "1", "0:00:09", "calm", "0.50", "0.50", "3.00", "0"],
        ["cy", "0", "0:00:00", "1"],
    ]
    assert "failed" not in next(means_table(Columns(OUTPUTS, (), False), rows[:3], "speaker"))
