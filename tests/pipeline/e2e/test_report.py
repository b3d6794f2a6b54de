"""A fine-tuned run reports conditions and probes as the run on caches does.

With everything frozen and the fusion at rate 0 both regimes hold the same model, so that each
difference would be one of how it is tested.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipeline.cached.run import train_model
from pipeline.e2e.run import finetune_model
from pipeline.e2e.setup import fusions_sha256
from pipeline.params.file import Params
from pipeline.report.evaluate import evaluate
from tests.support.models.tuned_tones import RUN, Tones, cached, params_of
from tests.support.runs.pages import section_words

JOB = "seed_0/fold_0"
CACHED = Path("runs/cached/mine/m")


def table(run: Path, name: str) -> list[dict[str, str]]:
    with (run / JOB / name).open() as file:
        return list(csv.DictReader(file))


def with_recognised(params: Params) -> Params:
    """The model is tested on recognised words too, read as its text slot reads."""
    heard = {**params.backbones["words"], "kind": "asr_text"}
    models = {"m": {**params.models["m"], "asr": "heard"}}
    return dataclasses.replace(
        params, backbones={**params.backbones, "heard": heard}, models=models
    )


@pytest.mark.slow
def test_a_run_that_trains_nothing_reports_what_the_cached_one_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private_store: Path
) -> None:
    """It begins with that run's fusion, which is saved as it was."""
    corpus = Tones(tmp_path, monkeypatch)
    corpus.write()
    corpus.prepare()
    frozen = {slot: {"tune": "frozen"} for slot in ("text", "speech")}
    init: dict[str, str | None] = {"run": str(CACHED)}
    params = with_recognised(params_of(tmp_path, slots=frozen, init=init))
    cached(params, private_store, "words", "voice", "tone", "heard")
    assert train_model(params, "m", "mine", device="cpu", workers=1) == CACHED
    init["sha256"] = fusions_sha256(CACHED)
    still = dataclasses.replace(params, train={"epochs": 1, "warmup_steps": 10**9})
    finetune_model(still, "m", "mine", device="cpu")

    old, new = (load_file(run / JOB / "model.safetensors") for run in (CACHED, RUN))
    assert old.keys() == new.keys()
    assert all(value.allclose(new[key], rtol=0, atol=1e-9) for key, value in old.items())
    assert not (RUN / JOB / "backbones").exists()
    before, after = (table(run, "predictions.csv") for run in (CACHED, RUN))
    assert shares(before) == pytest.approx(shares(after), abs=1e-5)

    assert table(CACHED, "conditions.csv") == table(RUN, "conditions.csv")
    probed, again = (table(run, "probes.csv") for run in (CACHED, RUN))
    assert [(row["id"], row["slot"]) for row in probed] == [(r["id"], r["slot"]) for r in again]
    assert shares(probed) == pytest.approx(shares(again), abs=1e-3)

    keys = ("tested", "recognised", "word_errors", "words")
    heard, live = (json.loads((run / "run.json").read_text())["asr"] for run in (CACHED, RUN))
    assert [heard[key] for key in keys] == [live[key] for key in keys] == [8, 5, 10, 30]
    reports = [evaluate(run, Path("data/mine/labels")) for run in (CACHED, RUN)]
    printed = [section_words("robustness", report) for report in reports]
    assert printed[0] == printed[1]
    tuned = [
        "those of the fine-tuned networks" in section_words("scores", report) for report in reports
    ]
    assert tuned == [False, True]
    for name in ("without text", "without speech", "without prosody", "shuffled text", "(ASR)"):
        assert name in printed[0]


def shares(rows: list[dict[str, str]]) -> list[float]:
    return [float(row["p_happy"]) for row in rows]
