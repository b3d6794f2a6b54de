"""The search sees no test speaker, and its averages stand for frames."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from benchmarks.protocol_search import CHOOSERS, Averages, chosen, speaker_folds
from pipeline.data.examples import join
from pipeline.model.checkpoint import make_model
from pipeline.model.inputs import PreparedFusion
from pipeline.training.predict import fit_inputs
from pipeline.training.state import Epoch
from tests.pipeline.training.test_loop import CLASSES, labels_of, write_cache


@pytest.mark.parametrize("folds", [1, 3])
def test_no_test_speaker_is_seen_and_none_both_chooses_and_scores(folds: int) -> None:
    labels = labels_of(folds=folds)
    found = list(speaker_folds(labels))
    assert len(found) == (5 if folds == 1 else folds)
    scored: set[str] = set()
    for number, rows in enumerate(found):
        fold = 0 if folds == 1 else number
        hidden = {each.speaker for each in labels if each.splits[fold] == "test"}
        of = {
            split: {each.speaker for each in rows if each.splits == (split,)}
            for split in ("train", "valid", "test")
        }
        assert not hidden & set().union(*of.values())
        assert sum(map(len, of.values())) == len(set().union(*of.values()))
        assert len(of["valid"]) == CHOOSERS
        scored |= of["test"]
    if folds == 1:
        assert scored == {each.speaker for each in labels if each.splits[0] != "test"}


@pytest.mark.parametrize("name", ["standardize", "whiten"])
def test_averages_give_the_numbers_of_frames(tmp_path: Path, name: str) -> None:
    labels = labels_of(30)
    write_cache(tmp_path / "speech", labels, 5.0, 0)
    frames = join({"speech": tmp_path / "speech"}, labels, CLASSES)
    averages = Averages(frames.readers["speech"], frames.labels, products=name == "whiten")
    short = dataclasses.replace(frames, readers={"speech": averages})  # type: ignore[dict-item]
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        settings = {"d_model": 8}, frames.specs, len(CLASSES)
        models.append(make_model("concat", *settings, inputs={name: ["speech"]}).eval())
    one, other = models
    assert isinstance(one, PreparedFusion)
    assert isinstance(other, PreparedFusion)
    train = frames.split(0, "train")
    fit_inputs(one, frames, train)
    averages.fit(other.inputs, train)
    found = one(frames.batch(labels)).logits
    assert torch.allclose(found, other(short.batch(labels)).logits, atol=1e-5)


def test_the_chosen_epoch_is_the_one_that_patience_would_keep() -> None:
    losses = [3.0, 1.0, *[2.0] * 10, 0.5]
    history = [Epoch(n + 1, 0.1, 1.0, loss, {"uar": -loss}) for n, loss in enumerate(losses)]
    assert chosen(history, "loss") == chosen(history, "uar") == 1
    assert chosen(history[:1] + history[3:], "loss") == 10
