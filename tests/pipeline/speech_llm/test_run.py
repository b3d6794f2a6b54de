"""A whole run in a small project: asked, killed, resumed, scored, compared, and its page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as oracle

from features.corpus.entry import corpus_entry
from features.corpus.labels_folder import read_labelled
from features.corpus.manifest import Label
from features.corpus.prepare import prepare
from features.errors import ManifestError, ParamsError, RunError
from features.settings.locations import store_root
from pipeline.compare.kinds import compare_any
from pipeline.params.speech_llm import SpeechLlmEntry
from pipeline.report.answers import facts
from pipeline.report.evaluate import evaluate, write_report
from pipeline.report.metrics_json import headline, read_all
from pipeline.runs.answers import read_answers
from pipeline.speech_llm import run as running
from pipeline.speech_llm.leaks import check_asked_leaks
from pipeline.speech_llm.models.base import Question
from pipeline.speech_llm.run import ask_corpus
from tests.support.corpora.small_corpus import SmallCorpus

CLASSES = ("angry", "happy", "sad")
SPEAKERS, EACH = 12, 6
PROMPT = "[system]\nOne of: <classes>.\n[user]\n<transcription>?\n"
DATA = Path("data/mine/labels")


class FakeModel:
    """Answers the class that an utterance's text names, but for some of them.

    Args:
        odd: Answer by id in place of that; None: it does not fit.
        stop: Called before each answer.
    """

    longest_seconds: float | None = 0.3
    hears_exemplars = True

    def __init__(
        self, odd: dict[str, str | None] | None = None, stop: Callable[[], object] = bool
    ) -> None:
        self.odd, self.stop = odd or {}, stop
        self.failed: dict[str, str] = {}
        self.asked: list[Question] = []

    def answers(self, questions: Sequence[Question]) -> list[str | None]:
        self.stop()
        self.asked += questions
        found = [self.odd.get(each.id, each.turns[-1].text.split()[0]) for each in questions]
        for each, answer in zip(questions, found, strict=True):
            if answer is None:
                self.failed[each.id] = "does not fit the memory of cpu by itself"
        return found

    @property
    def provenance(self) -> dict[str, Any]:
        return {"kind": "fake", "checkpoint": "none"}


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SpeechLlmEntry:
    """An entry for the corpus `mine`, which lies below the current folder."""
    corpus, rows = SmallCorpus(tmp_path, monkeypatch), []
    for number in range(SPEAKERS * EACH):
        speaker = number // EACH
        corpus.audio(f"{number}.wav", 0.1 + 0.01 * (number % 30))
        split = ("train", "valid", "test")[speaker % 3]
        name = CLASSES[number % 3]
        rows.append(f"{number}.wav,{name} {number},,,{name},s{speaker},d{speaker},{split},")
    corpus.table(*rows)
    corpus.prepare()
    Path("p.txt").write_text(PROMPT)
    return SpeechLlmEntry("fake", "qwen2_audio", "none", "p.txt", batch_seconds=1.0)


def asked(
    monkeypatch: pytest.MonkeyPatch, entry: SpeechLlmEntry, model: FakeModel | None = None
) -> Path:
    monkeypatch.setattr(running, "loaded", lambda *_: model or FakeModel())
    return ask_corpus(entry, "mine", store=store_root())


def labels(split: str) -> list[Label]:
    return [each for each in read_labelled(DATA)[1] if each.splits == (split,)]


def files(run: Path) -> dict[str, bytes]:
    """Content of all files, without what tells when and for how long."""
    found = {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}
    head = json.loads(found.pop("run.json"))
    for name in ("environment", "train_seconds"):
        del head[name]
    return found | {"run.json": json.dumps(head).encode()}


def odd_answers(ids: Iterable[str]) -> dict[str, str | None]:
    answers = ("I cannot tell.", "sad or happy", "It is not angry.", "Happiness")
    return dict(zip(ids, answers, strict=False))


def test_unparsed_answers_are_wrong_in_every_score(
    entry: SpeechLlmEntry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tested = labels("test")
    model = FakeModel(odd_answers(each.id for each in tested[:4]))
    run = asked(monkeypatch, entry, model)
    scored = len(tested) + len(labels("valid"))
    assert f"{scored} questions, {scored} of them asked now" in capsys.readouterr().err
    report = evaluate(run, DATA)
    truth = [str(each.label) for each in tested]
    # scikit-learn's labels hold no `none`.
    guess = ["none"] * 3 + ["happy"] + truth[4:]
    of = {"labels": CLASSES, "average": "macro", "zero_division": 0}
    numbers = report.metrics
    assert numbers["accuracy"] == pytest.approx(oracle.accuracy_score(truth, guess), abs=1e-6)
    assert numbers["uar"] == pytest.approx(oracle.recall_score(truth, guess, **of), abs=1e-6)
    assert numbers["macro_f1"] == pytest.approx(oracle.f1_score(truth, guess, **of), abs=1e-6)
    weighted = oracle.f1_score(truth, guess, **{**of, "average": "weighted"})
    assert numbers["weighted_f1"] == pytest.approx(weighted, abs=1e-6)
    assert numbers["unparsed"] == pytest.approx(3 / len(tested), abs=1e-6)
    assert sum(each.support for each in report.classes) == len(tested)
    assert not {"nll", "ece", "temperature"} & numbers.keys()
    rows = read_answers(run / "seed_0/fold_0")
    found = {each.id: each for each in rows}
    assert [found[each.id].how for each in tested[:4]] == ["none", "several", "negated", "synonym"]
    assert found[tested[0].id].answer == "I cannot tell."


def test_the_page_says_what_was_asked_and_shows_nothing_about_probabilities(
    entry: SpeechLlmEntry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tested = labels("test")
    odd = odd_answers(each.id for each in tested[:4]) | {tested[5].id: "<b>&</b>"}
    run = asked(monkeypatch, replace(entry, shots=2), FakeModel(odd))
    report = evaluate(run, DATA)
    page = write_report(report, tmp_path / "reports").read_text(encoding="utf-8")
    for said in (
        "One of: angry, happy, sad.",
        "it names several classes",
        "I cannot tell.",
        "&lt;b&gt;&amp;&lt;/b&gt;",
        "4 answers without a class",
        "as no class",
        "of the answers about the test split name no class",
        "heard in part",
    ):
        assert said in page
    exemplars = json.loads((run / "run.json").read_text())["answers"]["exemplars"]
    assert ", ".join(exemplars[0]) in page
    for absent in (
        "Temperature",
        "Reliability",
        "nan",
        'id="slots"',
        'id="curves"',
        "(probability",
    ):
        assert absent not in page
    numbers = read_all(tmp_path / "reports")
    assert "answers that name no class, which count as wrong: 16.7%" in headline(numbers)
    pairs = (tmp_path / "reports/confusion.csv").read_text()
    assert pairs.count("no class") == 4


def test_the_page_names_the_weights_of_whatever_answered() -> None:
    local = {"kind": "qwen2_audio", "weights": "sha256:ab", "quantise": "none"}
    assert ("weights", "sha256:ab") in facts({"model": local})


def test_exemplars_are_shown_before_each_question(
    entry: SpeechLlmEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FakeModel()
    run = asked(monkeypatch, replace(entry, shots=5), model)
    train = {each.id: each for each in labels("train")}
    (ids,) = json.loads((run / "run.json").read_text())["answers"]["exemplars"]
    assert len(set(ids)) == 5
    assert {train[id].label for id in ids} == set(CLASSES)
    for question in model.asked:
        *shown, last = question.turns
        assert [turn.text for turn in shown] == [f"{train[id].text}?" for id in ids]
        assert [turn.answer for turn in shown] == [train[id].label for id in ids]
        assert last.answer is None
        assert all(turn.audio is not None for turn in question.turns)


@pytest.mark.parametrize("batches", [0, 1, 7])
def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bytes(
    entry: SpeechLlmEntry, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    odd = odd_answers(each.id for each in labels("test"))
    before = FakeModel(odd)
    whole = files(asked(monkeypatch, entry, before))
    (kept,) = store_root().glob("answers/*/answers.jsonl")
    kept.unlink()
    left = iter([None] * batches)

    def stop() -> None:
        try:
            next(left)
        except StopIteration:
            raise KeyboardInterrupt from None

    with pytest.raises(KeyboardInterrupt):
        asked(monkeypatch, entry, FakeModel(odd, stop))
    lines = kept.read_bytes()
    assert 0 <= lines.count(b"\n") < len(before.asked)
    kept.write_bytes(lines + b'{"key": "ab", "answer": "ha')
    model = FakeModel(odd)
    assert files(asked(monkeypatch, entry, model)) == whole
    assert len(model.asked) + lines.count(b"\n") == len(before.asked)
    again = FakeModel(odd)
    assert files(asked(monkeypatch, entry, again)) == whole
    assert again.asked == []


def test_a_batch_that_is_half_answered_is_asked_as_a_whole(
    entry: SpeechLlmEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer may depend on what is computed beside it."""
    sizes: list[list[str]] = []
    model = FakeModel()
    ask = model.answers

    def noted(questions: Sequence[Question]) -> list[str | None]:
        sizes.append([each.id for each in questions])
        return ask(questions)

    monkeypatch.setattr(model, "answers", noted)
    whole = files(asked(monkeypatch, entry, model))
    (kept,) = store_root().glob("answers/*/answers.jsonl")
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join(lines[: len(sizes[0]) + 1]))
    again = FakeModel()
    assert files(asked(monkeypatch, entry, again)) == whole
    assert [each.id for each in again.asked] == [id for batch in sizes[1:] for id in batch]


def test_what_cannot_be_asked_about_is_left_out_and_said(
    entry: SpeechLlmEntry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tested = labels("test")
    run = asked(monkeypatch, entry, FakeModel({tested[0].id: None}))
    report = evaluate(run, DATA)
    assert report.run.dropped == {tested[0].id: "does not fit the memory of cpu by itself"}
    assert report.metrics["rows"] == len(tested) - 1
    page = write_report(report, tmp_path / "reports").read_text(encoding="utf-8")
    assert "could not be asked about" in page
    again = FakeModel()
    assert not evaluate(asked(monkeypatch, entry, again), DATA).run.dropped
    assert [each.id for each in again.asked].count(tested[0].id) == 1


def test_runs_with_and_without_answers_are_compared(
    entry: SpeechLlmEntry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tested = labels("test")
    paths = []
    for name, number in (("none", 0), ("some", 4)):
        odd = odd_answers(each.id for each in tested[:number])
        # Of other batches, so that none takes the answers of the other.
        batched = replace(entry, name=name, batch_seconds=1.0 + number)
        run = asked(monkeypatch, batched, FakeModel(odd))
        write_report(evaluate(run, DATA), tmp_path / name)
        paths += [str(run), str(tmp_path / name / "predictions.parquet")]
    found = compare_any([paths[0], paths[2]]).classes
    assert found is not None
    (pair,) = found.pairs
    assert pair.mcnemar.right_to_wrong == 4 - (tested[3].label == "happy")
    assert pair.changes["accuracy"].first == 1
    assert {flip.after for flip in pair.flips.lost} <= {"no class", "happy"}
    same = compare_any([paths[2], paths[3]]).classes
    assert same is not None
    assert same.pairs[0].changes["macro_f1"].value == 0


def test_a_corpus_that_the_model_was_trained_on_is_refused_unless_allowed(
    entry: SpeechLlmEntry, tmp_path: Path
) -> None:
    assert check_asked_leaks(replace(entry, trained_on=["another"]), "mine")["lines"] == []
    seen = replace(entry, trained_on=["another", "mine"])
    with pytest.raises(ManifestError, match=r"checkpoint: 48 of 48 .* of the model fake") as caught:
        check_asked_leaks(seen, "mine")
    assert "allow_leak: [checkpoint]" in str(caught.value)
    corpus = SmallCorpus.__new__(SmallCorpus)
    corpus.out = tmp_path / "data/mine"
    corpus.prepare(allow_leak=["checkpoint"])
    found = check_asked_leaks(seen, "mine")
    assert "none was trained on mine, by `trained_on`" in found["lines"][0]


def test_a_member_of_a_union_that_the_model_was_trained_on_is_refused(
    entry: SpeechLlmEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    (other := SmallCorpus.__new__(SmallCorpus)).root = Path("other").absolute()
    monkeypatch.setenv("HERONRY_OTHER_ROOT", str(other.root))
    rows = []
    for number, name in enumerate(CLASSES * 3):
        other.audio(f"other_{number}.wav")
        split = ("train", "valid", "test")[number // 3]
        rows.append(f"other_{number}.wav,{name},,,{name},s{split},,{split},")
    other.table(*rows)
    corpora = {name: {"kind": "manifest"} for name in ("mine", "other")}
    union = {"kind": "union", "of": ["mine", "other"]}
    prepare(corpus_entry("both", union, {**corpora, "both": union}), Path("data/both"))
    assert check_asked_leaks(replace(entry, trained_on=["another"]), "both")["lines"] == []
    # Six of the union's 54 scored rows are those of `other`; names are told whatever their case.
    for name in ("other", "Other"):
        with pytest.raises(ManifestError, match=r"checkpoint: 6 of 54 .*other/other_3"):
            check_asked_leaks(replace(entry, trained_on=[name]), "both")
    with pytest.raises(ManifestError, match="checkpoint: 54 of 54"):
        check_asked_leaks(replace(entry, trained_on=["MANIFEST"]), "both")


def test_two_processes_do_not_ask_the_same(
    entry: SpeechLlmEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        with pytest.raises(RunError, match="another process is asking these questions"):
            asked(monkeypatch, replace(entry, name="other"), FakeModel())
        model.stop = bool

    model = FakeModel(stop=stop)
    asked(monkeypatch, entry, model)


def test_a_corpus_without_classes_is_refused(
    entry: SpeechLlmEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlabelled(folder: Path) -> tuple[dict[str, Any], list[Label]]:
        card, found = read_labelled(folder)
        return card, [replace(each, label=None, values={"valence": 1.0}) for each in found]

    monkeypatch.setattr(running, "read_labelled", unlabelled)
    with pytest.raises(ParamsError, match="names no classes"):
        asked(monkeypatch, entry)


def test_a_recording_that_was_replaced_stops_the_run(
    entry: SpeechLlmEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path("corpus/8.wav")
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ManifestError):
        asked(monkeypatch, entry)


def test_scores_are_of_finite_numbers_alone(
    entry: SpeechLlmEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is answered: here nothing that is a class."""
    everything = {each.id: "?" for split in ("valid", "test") for each in labels(split)}
    report = evaluate(asked(monkeypatch, entry, FakeModel({**everything})), DATA)
    assert all(np.isfinite(value) for value in report.metrics.values())
    assert report.metrics["unparsed"] == 1
    assert report.metrics["macro_f1"] == report.metrics["uar"] == 0
