"""Run folders of ensembles: what they hold, what they are never told, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from features.corpus.leak_gate import read_leaks
from features.errors import HeronryError, ParamsError, RunError
from pipeline.ensemble.members import member_problems, record_path, renew_members
from pipeline.ensemble.run import combine
from pipeline.params.ensembles import EnsembleEntry
from pipeline.predict.trained import open_run
from pipeline.report.evaluate import evaluate_any
from pipeline.report.model_card import write_model_card
from pipeline.report.page import page
from pipeline.runs.head import read_head
from tests.support.runs.fake_members import LABELS, Members
from tests.support.runs.fake_run import CLASSES, edit_json, edit_lines
from tests.support.runs.fake_targets import FakeTargets
from tests.support.runs.pages import section_words, words

SEARCHES = [
    ("vote", "none"),
    ("mean", "greedy"),
    ("mean", "exhaustive"),
    ("stacking", "none"),
    ("stacking", "greedy"),
]


@pytest.fixture
def members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Members:
    monkeypatch.chdir(tmp_path)
    made = Members()
    made.add("a", seeds=(0, 1), speakers=18)
    made.add("b", seeds=(2,), speakers=18, skill=0.5)
    made.add("c", seeds=(3, 4, 5), speakers=18, skill=0.2)
    return made


def rows(run: Path, fold: int = 0, seed: int = 0) -> list[dict[str, str]]:
    with (run / f"seed_{seed}/fold_{fold}/predictions.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def shares(found: list[dict[str, str]]) -> Any:
    return np.array([[float(row[f"p_{name}"]) for name in CLASSES] for row in found])


def test_an_ensemble_of_one_is_that_member(members: Members) -> None:
    out = members.combine(members=["cached/b"])
    own = rows(Path("runs/cached/fake/b"), seed=2)
    assert [{**row, "seed": "2"} for row in rows(out)] == own


@pytest.mark.parametrize("method", ["vote", "mean"])
def test_a_vote_of_even_members_keeps_what_it_predicts_as_a_member(
    members: Members, method: str
) -> None:
    """Half of its rows may have equal shares, of which the likelier class was predicted."""
    own = members.combine(members=["cached/a", "cached/b"], method="vote")
    other = own.with_name("other")
    shutil.move(own, other)
    edit_json(other / "run.json", fusion="other")
    predicted = [row["prediction"] for row in rows(other)]
    assert predicted != [CLASSES[k] for k in shares(rows(other)).argmax(1)]  # the first of equals
    report = members.report(members=["ensemble/other"], method=method)
    assert [row["prediction"] for row in rows(report.run.path)] == predicted
    for name in ("accuracy", "macro_f1"):
        assert report.metrics[f"member_ensemble_other_{name}"] == report.metrics[name]


def test_seeds_are_averaged_before_members(members: Members) -> None:
    found = rows(members.combine())
    of = {"a": (0, 1), "b": (2,), "c": (3, 4, 5)}
    each = [
        np.mean([shares(rows(Path("runs/cached/fake", name), seed=s)) for s in seeds], axis=0)
        for name, seeds in of.items()
    ]
    np.testing.assert_allclose(shares(found), np.mean(each, axis=0), atol=1e-8)
    assert [row["prediction"] for row in found] == [CLASSES[k] for k in shares(found).argmax(1)]


@pytest.mark.parametrize(("method", "search"), [("mean", "none"), ("stacking", "exhaustive")])
def test_scores_and_gain_are_those_of_scikit_learn(
    members: Members, method: str, search: str
) -> None:
    report = members.report(method=method, search=search)

    def scored(truth: list[str], guess: list[str]) -> dict[str, float]:
        return {
            "accuracy": accuracy_score(truth, guess),
            "uar": balanced_accuracy_score(truth, guess),
            "macro_f1": f1_score(truth, guess, average="macro"),
            "weighted_f1": f1_score(truth, guess, average="weighted"),
        }

    def tested(run: Path, seed: int) -> list[dict[str, str]]:
        return [row for row in rows(run, seed=seed) if row["split"] == "test"]

    test, a = tested(report.run.path, 0), Path("runs/cached/fake/a")
    truth = [row["label"] for row in test]
    ours = scored(truth, [row["prediction"] for row in test])
    averaged = shares(tested(a, 0)) + shares(tested(a, 1))
    alone = scored(truth, [CLASSES[k] for k in averaged.argmax(1)])
    assert report.best_member is not None
    assert report.best_member.name == "cached/a"
    for name, value in ours.items():
        assert report.metrics[name] == pytest.approx(value, abs=1e-6)
        assert report.metrics[f"member_cached_a_{name}"] == pytest.approx(alone[name], abs=1e-6)
        assert report.metrics[f"gain_{name}"] == pytest.approx(value - alone[name], abs=1e-6)
        assert report.metrics[f"gain_{name}_low"] <= report.metrics[f"gain_{name}_high"]


@pytest.mark.parametrize(("method", "search"), SEARCHES)
def test_labels_of_test_rows_change_nothing(members: Members, method: str, search: str) -> None:
    """Permuted alike in all members: weights and predictions stay as they are."""
    before = members.combine(method=method, search=search)
    kept, head = rows(before), read_head(before)["members"]
    for path in Path("runs/cached/fake").glob("*/seed_*/fold_0/predictions.csv"):
        edit_lines(path, permuted)
    after = members.combine(method=method, search=search)
    assert read_head(after)["members"] == head
    found = rows(after)
    assert [row["label"] for row in found] != [row["label"] for row in kept]
    assert [{**row, "label": ""} for row in found] == [{**row, "label": ""} for row in kept]


def permuted(lines: list[str]) -> list[str]:
    header, *given = lines
    at = header.split(",").index("label")
    cells = [line.split(",") for line in given]
    test = [row for row in cells if row[3] == "test"]
    labels = [row[at] for row in test]
    for row, label in zip(test, np.roll(labels, 7), strict=True):
        row[at] = str(label)
    return [header, *(",".join(row) for row in cells)]


def test_each_fold_is_searched_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that is right in the validation rows of one fold alone counts in that fold alone."""
    monkeypatch.chdir(tmp_path)
    made = Members()
    for name, seed in (("a", 0), ("b", 1)):
        run = made.add(name, seeds=(seed,), folds=3, skill=0.3)
        for fold in range(3):
            right = (name == "b") == (fold == 1)
            if right:
                edit_lines(run / f"seed_{seed}/fold_{fold}/predictions.csv", all_right)
    head = read_head(made.combine(search="greedy"))
    assert [bool(w) for w in head["members"]["cached/a"]["weights"]] == [True, False, True]
    assert [bool(w) for w in head["members"]["cached/b"]["weights"]] == [False, True, False]
    assert made.report(search="greedy").metrics["folds"] == 3


def all_right(lines: list[str]) -> list[str]:
    """Validation rows predicted without an error."""
    header, *given = lines
    names = header.split(",")
    first, found = names.index(f"p_{CLASSES[0]}"), [header]
    for line in given:
        cells = line.split(",")
        if cells[3] == "valid":
            cells[7] = cells[6]
            cells[first:] = [str(float(name == cells[6])) for name in CLASSES]
        found.append(",".join(cells))
    return found


def test_dropped_rows_and_leaks_are_inherited(members: Members) -> None:
    run = Path("runs/cached/fake/b")
    gone = next(row["id"] for row in rows(run, seed=2))
    edit_lines(run / "seed_2/fold_0/predictions.csv", lambda lines: [lines[0], *lines[2:]])
    head = read_head(run)
    dropped = head["dropped"] | {gone: "speech: too short"}
    edit_json(run / "run.json", dropped=dropped, utterances=head["utterances"] - 1)
    write_leak(Path("runs/cached/fake/c"))
    report = members.report()
    assert report.run.dropped[gone] == "cached/b: speech: too short"
    assert report.run.utterances == head["utterances"] - 1
    assert gone not in {row["id"] for row in rows(report.run.path)}
    leaks = read_leaks(report.run.path)
    assert leaks is not None
    assert leaks["lines"] == ["speaker: one in two splits"]


def write_leak(run: Path) -> None:
    found = {"format": "heronry-leaks", "version": 1, "allowed": ["speaker"], "found": []}
    (run / "leaks.json").write_text(json.dumps(found | {"lines": ["speaker: one in two splits"]}))


def without_a_row(run: Path) -> None:
    for path in run.glob("seed_*/fold_0/predictions.csv"):
        edit_lines(path, lambda lines: [lines[0], *lines[2:]])


def seed_without_a_row(run: Path) -> None:
    """Of another member, by an older release, whose run.json has no hashes of the files."""
    path = run.with_name("a") / "seed_1/fold_0/predictions.csv"
    edit_lines(path, lambda lines: [lines[0], *lines[2:]])


def another_label(run: Path) -> None:
    def change(lines: list[str]) -> list[str]:
        cells = lines[-1].split(",")
        cells[6] = next(name for name in CLASSES if name != cells[6])
        return [*lines[:-1], ",".join(cells)]

    for path in run.glob("seed_*/fold_0/predictions.csv"):
        edit_lines(path, change)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            without_a_row,
            r"cached/b lacks 1 of the rows of fold 0 that cached/a predicts, such as",
        ),
        (
            seed_without_a_row,
            r"cached/a, seed 1, lacks 1 of the rows of fold 0 that cached/a predicts, such as",
        ),
        (another_label, r"1 rows of fold 0 differ in speaker, dialogue, split, label: 'u"),
    ],
)
def test_members_with_other_rows_or_labels_are_refused(
    members: Members, change: Any, told: str
) -> None:
    change(Path("runs/cached/fake/b"))
    with pytest.raises(RunError, match=told):
        members.combine()


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (
            {"classes": CLASSES[:3]},
            r"cached/a has the classes \('angry', .* cached/other \('an",
        ),
        ({"folds": 2}, "cached/a has the folds 1, cached/other 2; expected the same"),
    ],
)
def test_members_of_other_classes_or_folds_are_refused(
    members: Members, facts: dict[str, Any], told: str
) -> None:
    members.add("other", speakers=18, **facts)
    with pytest.raises(RunError, match=told):
        members.combine()


def test_other_targets_are_averaged_and_not_voted_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = Members(FakeTargets)
    made.add("a", seeds=(0,))
    made.add("b", seeds=(1, 2))
    out = made.combine()
    one, two, three = (
        float(rows(Path("runs/cached/fake", name), seed=seed)[0]["v_valence"])
        for name, seed in (("a", 0), ("b", 1), ("b", 2))
    )
    expected = (one + (two + three) / 2) / 2
    assert float(rows(out)[0]["v_valence"]) == pytest.approx(expected, abs=1e-8)
    report = evaluate_any(out, LABELS)
    assert report.metrics["ccc"] > 0.5
    for settings in ({"method": "vote"}, {"search": "greedy"}):
        with pytest.raises(RunError, match="expected method mean and search none"):
            made.combine(**settings)


def in_words(lines: list[str]) -> list[str]:
    """As of a model that answers in words: no probabilities, and no class in every third row."""
    names = lines[0].split(",")
    at, first = names.index("prediction"), names.index(f"p_{CLASSES[0]}")
    found = [lines[0]]
    for number, line in enumerate(lines[1:]):
        cells = line.split(",")
        cells[at] = "" if number % 3 == 0 else cells[at]
        found.append(",".join(cells[:first] + [""] * len(CLASSES)))
    return found


def test_a_member_without_probabilities_votes_for_its_answer(members: Members) -> None:
    run = Path("runs/cached/fake/b/seed_2/fold_0/predictions.csv")
    edit_lines(run, in_words)
    with pytest.raises(RunError, match="cached/b give no probabilities; expected method vote"):
        members.combine()
    report = members.report(members=["cached/a", "cached/b"], method="vote")
    answers = [row["prediction"] for row in rows(Path("runs/cached/fake/b"), seed=2)]
    a = Path("runs/cached/fake/a")
    others = (shares(rows(a)) + shares(rows(a, seed=1))).argmax(1)
    for row, answer, other in zip(rows(report.run.path), answers, others, strict=True):
        if answer in ("", CLASSES[other]):
            assert row["prediction"] == CLASSES[other]
            assert float(row[f"p_{CLASSES[other]}"]) == 1.0
        else:  # a vote each; the answer counts as a probability of 1
            assert float(row[f"p_{answer}"]) == 0.5
            assert row["prediction"] == answer
    # Alone it is wrong where it names no class.
    tested = [row for row in rows(Path("runs/cached/fake/b"), seed=2) if row["split"] == "test"]
    right = np.mean([row["prediction"] == row["label"] for row in tested])
    assert report.metrics["member_cached_b_accuracy"] == pytest.approx(right, abs=1e-6)


def test_the_page_and_the_card_say_members_in_place_of_slots(members: Members) -> None:
    report = members.report(method="vote")
    shown = page(report)
    assert 'id="members"' in shown
    for gone in ("slots", "curves", "robustness"):
        assert f'id="{gone}"' not in shown
    said = section_words("members", report)
    assert "This ensemble minus each member, paired, with 95 % intervals" in said
    assert "cached/ a (best on validation)" in said
    assert "ensembles.mix.method" in words(shown)
    write_model_card(report.run.path, report.card)
    card = (report.run.path / "model_card.md").read_text(encoding="utf-8")
    assert "| cached/b | 1 | 12,345 | 1 |" in card
    with pytest.raises(RunError, match="is an ensemble, which has no weights"):
        open_run(report.run.path)


def test_no_gain_is_said_in_words(members: Members) -> None:
    """Of one member there is none; the interval of the difference is 0 to 0."""
    said = section_words("summary", members.report(members=["cached/a"]))
    assert "The best single member on the validation split, cached/a, reaches" in said
    assert "no gain shown by combining" in said


def test_the_record_names_what_members_predict(members: Members) -> None:
    entry = EnsembleEntry("mix", members.names)
    assert renew_members(entry, "fake") is None
    path = record_path("fake", "mix")
    before = path.read_bytes()
    assert renew_members(entry, "fake") is None
    assert path.read_bytes() == before
    edit_lines(Path("runs/cached/fake/b/seed_2/fold_0/predictions.csv"), permuted)
    renew_members(entry, "fake")
    one, two = json.loads(before)["members"], json.loads(path.read_text())["members"]
    assert {name for name in one if one[name] != two[name]} == {"cached/b"}


def test_a_clone_without_a_member_keeps_the_record(members: Members) -> None:
    """That of other members is of no use to it."""
    entry = EnsembleEntry("mix", members.names)
    renew_members(entry, "fake")
    before = record_path("fake", "mix").read_bytes()
    shutil.rmtree("runs/cached/fake/b")
    kept = renew_members(entry, "fake")
    assert kept is not None
    assert "`dvc repro stages/train/dvc.yaml:train@b` makes it" in kept
    assert record_path("fake", "mix").read_bytes() == before
    with pytest.raises(ParamsError, match="'cached/b'"):
        renew_members(EnsembleEntry("mix", ["cached/b"]), "fake")
    assert member_problems(entry, "fake") == []
    (found,) = member_problems(EnsembleEntry("other", members.names), "fake")
    assert "runs/cached/fake/b is not there" in found


@pytest.mark.parametrize("name", ["cached/../b", "cachd/a", "cached/a/b", "no-experiment", "/etc"])
def test_names_that_are_no_member(members: Members, name: str) -> None:
    with pytest.raises(HeronryError, match="member '"):
        combine(EnsembleEntry("mix", [*members.names, name]), "fake", {})
