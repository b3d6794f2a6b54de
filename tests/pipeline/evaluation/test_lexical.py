"""Lexically neutral utterances."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.corpus.manifest import Label, read_labels
from pipeline.evaluation.lexical import lexical
from pipeline.evaluation.rows import RunRows
from pipeline.runs.word_errors import normalised
from tests.support.runs.fake_run import FakeRun, rows_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Yeah.", "yeah"),
        ("  oh,   NO!!", "oh no"),
        ("don\u2019t", "dont"),
        ("don't", "dont"),
        ("Straße", "strasse"),
        ("ｆｕｌｌ ｗｉｄｔｈ", "full width"),
        ("a_b-c", "a b c"),
        ("...", ""),
    ],
)
def test_spelling_is_not_wording(text: str, words: str) -> None:
    assert normalised(text) == words


def labelled(fake: FakeRun) -> list[Label]:
    return read_labels(fake.data)


def test_words_with_several_labels_are_ambiguous(tmp_path: Path) -> None:
    """Every third utterance of the fake corpus says yes, under all labels; others are unique."""
    fake = FakeRun(tmp_path, folds=3, facts=True).write()
    rows = rows_of(fake)
    flags = lexical(rows, labelled(fake)).neutral
    said_yes = ["yes" in (label.text or "").lower() for label in rows.utterances]
    assert flags is not None
    assert flags.tolist() == said_yes
    (words,) = lexical(rows, labelled(fake)).groupings
    assert (words.field, words.unknown) == ("words", 0)
    assert [group.name for group in words.groups] == ["ambiguous", "distinct"]
    assert words.groups[0].utterances == sum(said_yes)


def test_empty_texts_with_several_labels_are_ambiguous(tmp_path: Path) -> None:
    """Laughs and sighs alone: there are no words that would decide the label."""
    fake = FakeRun(tmp_path, folds=3, facts=True).write()
    silent = [
        replace(label, text="" if "yes" in (label.text or "").lower() else label.text)
        for label in labelled(fake)
    ]
    known, rows = {label.id: label for label in silent}, rows_of(fake)
    rows = replace(rows, utterances=tuple(known[label.id] for label in rows.utterances))
    flags = lexical(rows, silent).neutral
    assert flags is not None
    assert flags.tolist() == [label.text == "" for label in rows.utterances]


def test_the_same_words_under_one_label_are_not(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, folds=3, facts=True).write()
    one = [replace(label, text=f"I am {label.label}") for label in labelled(fake)]
    known = {label.id: label for label in one}
    rows = rows_of(fake)
    rows = replace(rows, utterances=tuple(known[label.id] for label in rows.utterances))
    flags = lexical(rows, one).neutral
    assert flags is not None
    assert not flags.any()
    # one utterance in the training split under another label makes the words ambiguous
    other = replace(one[0], text="i am HAPPY", label="sad")
    flags = lexical(rows, [*one, replace(other, id="new", splits=("train",) * 3)]).neutral
    assert flags is not None
    happy = [label.label == "happy" for label in rows.utterances]
    assert flags.tolist() == happy


def test_scripted_sentences_are_all_ambiguous(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, folds=3).write()
    read = [replace(x, sentence=str(k % 2)) for k, x in enumerate(labelled(fake))]
    known = {label.id: label for label in read}
    rows = rows_of(fake)
    rows = replace(rows, utterances=tuple(known[label.id] for label in rows.utterances))
    flags = lexical(rows, read).neutral
    assert flags is not None
    assert flags.all()


def test_without_words_and_probe_nothing_is_said(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).write()
    assert lexical(rows_of(fake), labelled(fake)).neutral is None
    assert lexical(rows_of(fake), labelled(fake)).groupings == ()


def test_a_text_probe_adds_what_it_takes_for_neutral(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, folds=3, facts=True, extras=True).write()
    rows = rows_of(fake)
    words = lexical(replace_probe(rows, "happy"), labelled(fake)).neutral
    both = lexical(rows, labelled(fake)).neutral
    assert words is not None
    assert both is not None
    assert 0 < words.sum() < len(words)
    assert both.all()
    found = lexical(rows, labelled(fake)).groupings
    assert [each.field for each in found] == ["words", "text_probe", "lexical"]
    assert [len(each.groups) for each in found] == [2, 1, 1]


def replace_probe(rows: RunRows, guess: str) -> RunRows:
    """The same rows, with a text probe that always says `guess`."""
    k = rows.classes.index(guess)
    jobs = tuple(
        replace(job, probes={"text": replace(job.probes["text"], predictions=np.full(n, k))})
        for job in rows.jobs
        for n in [int(job.test.sum())]
    )
    return replace(rows, jobs=jobs)


def test_a_probe_of_a_corpus_without_neutral_says_nothing(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, classes=("happy", "sad"), extras=True).write()
    assert lexical(rows_of(fake), labelled(fake)).groupings == ()
    shouted = FakeRun(tmp_path / "b", classes=("sad", "Neutral"), extras=True).write()
    (found,) = lexical(rows_of(shouted), labelled(shouted)).groupings
    assert found.field == "text_probe"
