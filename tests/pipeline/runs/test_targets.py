"""What a run learns is checked against the corpus; estimates rest on training rows alone."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from features.corpus.manifest import UNLABELLED, Label
from features.corpus.ratings import Rating, write_ratings
from features.errors import ParamsError, RunError
from features.files.records import write_json
from pipeline.cached.run import train_model
from pipeline.data.examples import Examples
from pipeline.data.targets import TargetReader
from pipeline.model.outputs import GENDERS, Outputs
from pipeline.params.training import TrainParams
from pipeline.runs.estimates import estimated
from pipeline.runs.head import read_head
from pipeline.runs.layout import Columns
from pipeline.runs.probes import write_probes
from pipeline.runs.targets import check_splits, reader_for, usable
from tests.pipeline.training.test_loop import CLASSES, labels_of, project
from tests.support.corpora.rated import SCALES, rate

ATTRIBUTES: dict[str, Any] = {"targets": ("attributes",), "monitor": "ccc"}
CARD: dict[str, Any] = {
    "classes": CLASSES,
    "targets": {
        "tasks": ["classes", "votes", "attributes"],
        "attributes": {name: {"low": low, "high": high} for name, (low, high) in SCALES.items()},
    },
}
PLAIN = labels_of(20)


@pytest.mark.parametrize(
    ("train", "card", "said"),
    [
        (ATTRIBUTES, {"classes": CLASSES}, r"'attributes', .*'c' does not offer; .*corpora.c.targ"),
        ({"targets": ("votes",), "monitor": "jsd"}, {"classes": CLASSES}, r"one of \['classes'\]"),
        ({"targets": ("classes", "gender")}, CARD, "given 'gender', which the corpus 'c' does not"),
        (
            ATTRIBUTES | {"attributes": ("arousel",), "monitor": "ccc_arousel"},
            CARD,
            "train.attributes: given 'arousel'; .*did you mean 'arousal'",
        ),
        (ATTRIBUTES | {"monitor": "ccc_dominance"}, CARD, "monitor: given 'ccc_dominance'; expec"),
    ],
)
def test_what_a_corpus_does_not_offer_is_refused(
    train: dict[str, Any], card: Mapping[str, Any], said: str
) -> None:
    with pytest.raises(ParamsError, match=said):
        reader_for(TrainParams(**train), card, PLAIN, "c")


def test_attributes_are_all_of_the_corpus_or_those_named() -> None:
    found = reader_for(TrainParams(**ATTRIBUTES), CARD, PLAIN, "c")
    assert found is not None
    assert found.outputs == Outputs((), tuple(SCALES), (), SCALES)
    named = TrainParams(**ATTRIBUTES | {"attributes": ("valence",), "attribute_link": "sigmoid"})
    found = reader_for(named, CARD, PLAIN, "c")
    assert found is not None
    assert found.outputs.attributes == ("valence",)
    assert found.outputs.link == "sigmoid"
    assert reader_for(TrainParams(), CARD, PLAIN, "c") is None


def test_rows_without_a_target_are_left_out_and_unlabelled_ones_kept() -> None:
    rows = [
        PLAIN[0],
        Label("v", None, "s", splits=("test",), values={"arousal": 3}),
        Label("x", None, "s", splits=(UNLABELLED,)),
    ]
    assert [row.id for row in usable(rows, None)] == ["u0", "x"]
    reader = TargetReader(("attributes",), Outputs((), ("arousal",), (), {"arousal": (1, 7)}))
    assert [row.id for row in usable(rows, reader)] == ["v", "x"]


def checked(labels: Sequence[Label], *tasks: Any, **train: Any) -> None:
    attributes = ("arousal",) if "attributes" in tasks else ()
    classes = tuple(CLASSES) if {"classes", "votes"} & set(tasks) else ()
    reader = TargetReader(tasks, Outputs(classes, attributes, (), {"arousal": (1.0, 7.0)}))
    examples = Examples({}, labels, CLASSES, {}, targets=reader)
    check_splits(reader, TrainParams(targets=tasks, **train), examples, 1)


def with_values(*values: float | None) -> list[Label]:
    """By row; rows of the training split come first in each ten."""
    return [
        dataclasses.replace(label, values=None if value is None else {"arousal": value})
        for label, value in zip(PLAIN, [*values, *(2.0 + k % 2 for k in range(20))], strict=False)
    ]


def test_splits_with_too_little_of_an_attribute_are_refused() -> None:
    known = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.0, 2.0, 3.0, 4.0]
    checked(with_values(*known), "attributes", monitor="ccc")
    constant = [
        dataclasses.replace(row, values={"arousal": 3.0}) if row.splits == ("train",) else row
        for row in with_values()
    ]
    with pytest.raises(ParamsError, match=r"all 12 values of 'arousal' in the split train, fold 0"):
        checked(constant, "attributes", monitor="ccc")
    few = [
        dataclasses.replace(row, values=None) if row.splits == ("test",) and row.id != "u8" else row
        for row in with_values()
    ]
    with pytest.raises(
        ParamsError, match=r"the split test, fold 0 has 1 known values of 'arousal'"
    ):
        checked(few, "attributes", monitor="ccc")
    with pytest.raises(
        ParamsError, match=r"value 8 of 'arousal'; expected values of its scale, 1 t"
    ):
        checked(with_values(8.0), "attributes", monitor="ccc")


def test_splits_without_votes_or_classes_are_refused() -> None:
    with pytest.raises(ParamsError, match=r"the split train, fold 0 has no votes"):
        checked(PLAIN, "votes", monitor="jsd")
    blank = [dataclasses.replace(row, label=None, votes={"calm": 2}) for row in PLAIN]
    checked(blank, "votes", monitor="jsd")
    with pytest.raises(ParamsError, match=r"the split valid, fold 0 has no classes"):
        checked(blank, "classes", "votes", monitor="jsd")
    some = [*blank[:1], *PLAIN[1:]]
    with pytest.raises(
        ParamsError, match=r"sampler: given 'balanced', and 1 utterances of the spl"
    ):
        checked(some, "classes", sampler="balanced")


RATED = {
    # utterance: ratings of r0, r1, r2, who agree, and r3, who is contrary
    f"t{k}": (float(k % 5 + 1), float(k % 5 + 1), float(k % 5 + 2), 6.0 - k % 5)
    for k in range(12)
}


def ratings(folder: Path, **more: tuple[float, ...]) -> Path:
    write_ratings(
        folder,
        [
            Rating(id, f"r{number}", values={"arousal": value})
            for id, values in {**RATED, **more}.items()
            for number, value in enumerate(values)
        ],
    )
    return folder


READER = TargetReader(("attributes",), Outputs((), ("arousal",), (), {"arousal": (1.0, 7.0)}))
TRAIN = [Label(id, None, "s", splits=("train",), values={"arousal": 4.0}) for id in RATED]


def arousals(labels: Sequence[Label]) -> list[float]:
    return [(label.values or {})["arousal"] for label in labels]


def test_estimates_are_medians_or_weighted_by_rater(tmp_path: Path) -> None:
    medians = arousals(estimated(TRAIN, READER, "median", ratings(tmp_path)))
    assert medians == [float(np.median(each)) for each in RATED.values()]
    weighted = arousals(estimated(TRAIN, READER, "ewe", ratings(tmp_path)))
    # The contrary rater follows the others negatively, which counts 0; the others alike.
    assert weighted == pytest.approx([np.mean(each[:3]) for each in RATED.values()], abs=0.01)


def test_ratings_of_other_splits_change_no_estimate(tmp_path: Path) -> None:
    """There the contrary rater would be the one who is followed."""
    alone = estimated(TRAIN, READER, "ewe", ratings(tmp_path / "a"))
    others = {f"x{k}": (1.0, 7.0, float(k % 7 + 1), float(k % 7 + 1)) for k in range(40)}
    assert estimated(TRAIN, READER, "ewe", ratings(tmp_path / "b", **others)) == alone


def test_speakers_own_ratings_count_where_the_corpus_says_so(tmp_path: Path) -> None:
    own = [Rating(id, "me", self=True, values={"arousal": 7.0}) for id in RATED]
    others = [Rating(id, "r", self=False, values={"arousal": 1.0}) for id in RATED]
    write_ratings(tmp_path, [*own, *others])
    included = dataclasses.replace(READER, with_self=True)
    assert set(arousals(estimated(TRAIN, READER, "median", tmp_path))) == {1.0}
    assert set(arousals(estimated(TRAIN, included, "median", tmp_path))) == {4.0}
    card = {**CARD, "targets": {**CARD["targets"], "policies": {"self_evaluation": "include"}}}
    found = reader_for(TrainParams(**ATTRIBUTES), card, PLAIN, "c")
    assert found is not None
    assert found.with_self


def test_utterances_without_ratings_keep_the_corpus_value_and_none_at_all_is_refused(
    tmp_path: Path,
) -> None:
    other = Label("t99", None, "s", splits=("train",), values={"arousal": 2.5})
    assert arousals(estimated([*TRAIN, other], READER, "ewe", ratings(tmp_path)))[-1] == 2.5
    with pytest.raises(ParamsError, match=r"estimator: given 'median', and .* no rating of 'arous"):
        estimated([other], READER, "median", ratings(tmp_path))


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_probes_are_ridge_regressions_and_vote_weighted(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 5))
    truth = 4 + vectors @ [1.0, -1.0, 0.5, 0, 0]
    votes = [{"calm": 3, "angry": 1} if row[0] > 0 else {"sad": 4} for row in vectors]
    labels = [
        Label(f"u{k}", None, "s", votes=votes[k], values={"arousal": float(truth[k])})
        for k in range(60)
    ]
    outputs = Outputs(tuple(CLASSES), ("arousal",), (), {"arousal": (1.0, 7.0)})
    reader = TargetReader(("votes", "attributes"), outputs)
    given = {"text": (vectors[:40], vectors[40:])}
    write_probes(tmp_path / "probes.csv", reader, labels[:40], labels[40:], given)
    rows = table(tmp_path / "probes.csv")
    assert tuple(rows[0]) == Columns(("votes", "attributes"), tuple(CLASSES), ("arousal",)).probes
    scaler = StandardScaler().fit(vectors[:40])
    model = Ridge(alpha=1.0).fit(scaler.transform(vectors[:40]), truth[:40])
    expected = np.clip(model.predict(scaler.transform(vectors[40:])), 1, 7)
    assert [float(row["v_arousal"]) for row in rows] == pytest.approx(expected, rel=1e-8)
    shares = np.array([[float(row[f"p_{name}"]) for name in CLASSES] for row in rows])
    assert shares.sum(1) == pytest.approx(1)
    calm = shares[vectors[40:, 0] > 0.5]
    assert calm[:, 0].mean() == pytest.approx(0.75, abs=0.1)


@pytest.mark.usefixtures("private_store")
def test_a_run_tells_what_it_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """run.json of version 2, model.json with outputs, files in the columns it says."""
    params = project(tmp_path, monkeypatch)
    rate(Path("data/c"), gaps=6)
    train = {
        "batch_size": 32,
        "targets": ["attributes", "gender"],
        "monitor": "ccc_valence",
        "estimator": "ewe",
        "task_weights": {"gender": 0.5},
    }
    run = train_model(dataclasses.replace(params, train=train), "m", "c", device="cpu", workers=1)
    head = read_head(run)
    assert head["version"] == 2
    assert head["classes"] == []
    targets = head["targets"]
    assert targets["attributes"] == {name: list(scale) for name, scale in SCALES.items()}
    assert targets["losses"] == {"attributes": "ccc", "gender": "ce"}
    assert targets["weights"] == {"attributes": 1.0, "gender": 0.5}
    assert targets["lacking"] == 15
    assert targets["clipped"].keys() == SCALES.keys()
    columns = Columns.of(head)
    job = run / "seed_1" / "fold_0"
    for name in ("predictions", "history", "probes", "conditions"):
        path = (job if name != "probes" else job.parents[1] / "seed_0" / "fold_0") / f"{name}.csv"
        assert tuple(path.read_text().splitlines()[0].split(",")) == getattr(columns, name), name
    described = json.loads((job / "model.json").read_text())
    assert Outputs.of(described["classes"], described["outputs"]) == Outputs(
        (), tuple(SCALES), GENDERS, SCALES
    )
    # Other training values give other weights; the truth of what is scored stays the corpus's.
    predictions = table(job / "predictions.csv")
    params = dataclasses.replace(params, train=train | {"estimator": "median"})
    train_model(params, "m", "c", device="cpu", workers=1)
    again = table(job / "predictions.csv")
    assert [row["y_valence"] for row in again] == [row["y_valence"] for row in predictions]
    assert [row["v_valence"] for row in again] != [row["v_valence"] for row in predictions]


def test_heads_of_runs_say_the_same_thing_twice(tmp_path: Path) -> None:
    head: dict[str, Any] = {
        "format": "heronry-run",
        "version": 1,
        "regime": "cached",
        "corpus": "c",
        "fusion": "m",
        "kind": "concat",
        "classes": ["a", "b"],
        "slots": {},
        "seeds": [0],
        "folds": 1,
        "args": {},
        "train": {},
        "parameters": 1,
        "utterances": 1,
        "dropped": {},
        "train_seconds": 1.0,
    }
    targets = {"tasks": ["attributes"], "attributes": {"x": [0, 1]}, "genders": []}
    targets |= {"losses": {"attributes": "ccc"}, "weights": {"attributes": 1.0}}
    for change, said in (
        ({"classes": ["a"]}, "expected two or more"),
        ({"classes": []}, "expected two or more, or none of a run that learns no classes"),
        ({"version": 2}, "version 2 without targets"),
        ({"targets": targets}, "version 1 with targets"),
        ({"targets": targets, "version": 2}, r"given \['a', 'b'\]; expected two or more, or none"),
    ):
        write_json(tmp_path / "run.json", head | change)
        with pytest.raises(RunError, match=said):
            read_head(tmp_path)
    write_json(tmp_path / "run.json", head | {"targets": targets, "version": 2, "classes": []})
    assert read_head(tmp_path)["classes"] == []
