"""The transfer matrix: which rows and classes are scored, and what is said of those that differ."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from features.corpus.manifest import Label
from features.errors import RunError
from pipeline.transfer.ground import Ground, TargetCorpus
from pipeline.transfer.matrix import Column, column
from pipeline.transfer.page import Transfer, as_text, write
from pipeline.transfer.predictions import Row, kept_rows, write_rows

CLASSES = ("happy", "sad", "calm")


def corpus_of(corpus: str, names: dict[str, str | None], per_speaker: list[str]) -> TargetCorpus:
    """Six speakers with an utterance of each given class of the corpus's own."""
    labels, truth = [], {}
    for speaker in range(6):
        for place, name in enumerate(per_speaker):
            id = f"{speaker}_{place}"
            labels.append(Label(id, name, f"s{speaker}", splits=("test",)))
            if names[name] is not None:
                truth[id] = Label(f"{corpus}/{id}", names[name], f"{corpus}/s{speaker}")
    return TargetCorpus(corpus, tuple(names), names, tuple(labels), truth)


A = corpus_of("a", {"happy": "happy", "sad": "sad"}, ["happy", "sad"])
B = corpus_of(
    "b", {"joy": "happy", "calm": "calm", "noise": None}, ["joy", "calm", "calm", "noise"]
)
GROUND = Ground("all", CLASSES, {"a": A, "b": B}, ())


def rows(of: TargetCorpus, guess: dict[str, str], *, seeds: int = 2, folds: int = 1) -> list[Row]:
    """Predictions of models that answer each class of the corpus with one of their own."""
    return [
        (label.id, seed, fold, guess[str(label.label)])
        for seed in range(seeds)
        for fold in range(folds)
        for label in of.labels
    ]


def of_b(**changes: list[Row]) -> Column:
    """Trained on a: happy is known there, calm is not; on b and the union all is right."""
    right = {"joy": "joy", "calm": "calm", "noise": "noise"}
    found = {
        "a": rows(B, {"joy": "happy", "calm": "sad", "noise": "sad"}, folds=3),
        "b": rows(B, right),
        "all": rows(B, {"joy": "happy", "calm": "calm", "noise": "sad"}),
    }
    return column(GROUND, B, found | changes)


def test_scores_are_those_of_the_classes_that_the_union_keeps() -> None:
    found = of_b()
    assert (found.utterances, found.unit, found.clusters) == (18, "speaker", 6)
    assert found.counts == {"happy": 6, "sad": 0, "calm": 12}
    assert found.lacks == ("sad",)
    assert found.left_out == {"its class 'noise' is left out of the union": 6}
    assert found.models == {"a": 6, "b": 2, "all": 2}
    a, b = found.cells["a"], found.cells["b"]
    assert b.scores["uar"] == found.cells["all"].scores["uar"] == 1
    assert a.scores["uar"] == 0.5
    assert a.scores["accuracy"] == pytest.approx(1 / 3)
    assert a.change["uar"][0] == -0.5
    interval = a.change["uar"][1]
    assert interval is not None
    assert interval.high <= 0


def test_what_a_model_was_never_taught_and_what_a_corpus_lacks_are_told() -> None:
    found = of_b()
    a, b = found.cells["a"], found.cells["b"]
    assert a.unseen == {"calm": 12}
    assert a.known_uar == 1  # of happy, which it knows
    assert a.foreign == pytest.approx(12 / 18)  # answers `sad`, which b lacks
    assert (b.unseen, b.known_uar, b.foreign) == ({}, None, 0)


def test_a_class_without_a_tested_utterance_is_not_one_that_the_corpus_lacks() -> None:
    tested = corpus_of("a", {"happy": "happy", "sad": "sad"}, ["happy"])
    found = rows(tested, {"happy": "sad"})
    ground = Ground("all", CLASSES, {"a": tested, "b": B}, ())
    of = column(ground, tested, {"a": found, "all": found})
    assert (of.lacks, of.counts["sad"]) == (("calm",), 0)
    assert (of.cells["all"].scores["uar"], of.cells["all"].foreign) == (0, 0)


def test_an_answer_that_the_union_leaves_out_is_wrong() -> None:
    loud = rows(A, {"happy": "noise", "sad": "joy"})
    whole = rows(A, {"happy": "happy", "sad": "sad"})
    found = column(GROUND, A, {"a": whole, "b": loud, "all": whole})
    assert found.cells["b"].scores["accuracy"] == 0
    assert found.cells["b"].foreign == 0.5
    assert found.cells["b"].unseen == {"sad": 6}


def test_a_column_has_the_rows_that_all_models_predicted() -> None:
    some = [
        row for row in rows(B, {"joy": "joy", "calm": "joy", "noise": "joy"}) if row[0] != "0_0"
    ]
    found = of_b(b=some)
    assert found.utterances == 17
    assert sum(found.left_out.values()) == 7
    with pytest.raises(RunError, match="no test utterance of b was predicted by the models of all"):
        of_b(b=[])


def test_speakers_are_drawn_and_seeds_averaged() -> None:
    """Against the definition: the mean over seeds of each seed's own recall."""
    rng = np.random.default_rng(0)
    guessed = [
        (label.id, seed, 0, str(rng.choice(["joy", "calm"])))
        for seed in (0, 1)
        for label in B.labels
    ]
    cell = of_b(b=guessed).cells["b"]
    own = {label.id: str(label.label) for label in B.labels if label.label != "noise"}
    recalls = [
        np.mean([guess == name for id, s, _, guess in guessed if s == seed and own.get(id) == name])
        for seed in (0, 1)
        for name in ("joy", "calm")
    ]
    assert cell.scores["uar"] == pytest.approx(np.mean(recalls))
    assert cell.intervals["uar"].low < cell.scores["uar"] < cell.intervals["uar"].high


def test_page_and_json_say_the_same(tmp_path: Path) -> None:
    whole = rows(A, {"happy": "happy", "sad": "sad"})
    of_a = column(
        GROUND, A, {"a": whole, "b": rows(A, {"happy": "joy", "sad": "calm"}), "all": whole}
    )
    found = Transfer("concat<b>", GROUND, [of_a, of_b()], seeds=2)
    page = write(found, tmp_path).read_text(encoding="utf-8")
    assert "concat&lt;b&gt;" in page
    assert "calm (12)" in page
    assert "b: 6 test utterances not scored: its class &#39;noise&#39; is left out" in page
    record = json.loads((tmp_path / "transfer.json").read_text(encoding="utf-8"))
    cell = record["columns"][1]["cells"]["a"]
    assert cell["scores"]["uar"] == 0.5
    assert cell["unseen"] == {"calm": 12}
    line = next(line for line in as_text(found).splitlines() if line.startswith("a "))
    assert "0.500" in line
    assert line.endswith("−0.500*")


def test_predictions_are_kept_as_long_as_what_they_are_made_of(tmp_path: Path) -> None:
    path = tmp_path / "a_on_b.csv"
    assert kept_rows(path, "key") is None
    held = rows(B, {"joy": "=happy", "calm": "sad", "noise": "sad"})
    write_rows(path, "key", held)
    assert kept_rows(path, "key") == held
    assert kept_rows(path, "other") is None
    path.write_text(path.read_text().replace("sad", "sadly", 1))
    assert kept_rows(path, "key") is None
