"""What `prepare`, training and the report say of classes, splits and contradicting labels."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.corpus.adapter import Corpus, Item
from features.corpus.label_checks import (
    class_lines,
    contradictions,
    label_faults,
    lacking_classes,
    lacking_lines,
    similar_classes,
)
from features.corpus.manifest import Label
from features.errors import ManifestError
from features.files.reasons import NOTICED, read_reasons
from features.settings.plugins import kinds, load
from pipeline.commands.corpora import describe
from pipeline.params.file import Params
from pipeline.report.corpus import Leaks
from pipeline.report.page import section
from pipeline.runs.record import report_labels
from stages.prepare.__main__ import main as prepare_stage
from tests.support.corpora.small_corpus import SmallCorpus

PARAMS = """
fusion: none
regime: cached
corpus: mine
seeds: null
train: {}
corpora: {mine: {kind: manifest, protocol: PROTOCOL}}
backbones: {}
models: {}
"""
VARIANTS: dict[str, list[dict[str, str]]] = {
    "iemocap": [{"labels": x} for x in ("four_class", "four_class_without_excited", "six_class")],
    "meld": [{"labels": x} for x in ("emotion", "sentiment")],
    "msp_podcast": [{"labels": x} for x in ("eight_class", "four_class")],
    "crema_d": [{"labels": x} for x in ("intended", "voice_vote")],
}


def stage(capsys: pytest.CaptureFixture[str], protocol: str) -> str:
    Path("params.yaml").write_text(PARAMS.replace("PROTOCOL", protocol))
    prepare_stage("mine")
    told = capsys.readouterr()
    return told.out + told.err


def card_lines(card: Mapping[str, Any]) -> str:
    return section("data", card=card, leaks=Leaks((), (), ""))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Fear", "fear"),
        ("happy ", "happy"),
        ("pleasant surprise", "Pleasant_surprise"),
        ("pleasant-surprise", "pleasantsurprise"),
        ("caf\u00e9", "cafe\u0301"),  # composed and decomposed
        ("\uff53ad", "sad"),  # a full-width letter
        ("sad\u00a0", "sad"),  # a no-break space
        ("surprise", "surprised"),
        ("sad", "Sadness"),
        ("surprise", "suprise"),
        ("angry", "anrgy"),
        ("happy voice", "happy-voices"),
    ],
)
def test_classes_that_may_be_one(one: str, other: str) -> None:
    assert similar_classes(["other thing", one, "x", other]) == [(one, other)]
    (line,) = class_lines([{"train": {one: 5, other: 5}}])
    assert f"{one!r} and {other!r}" in line


@pytest.mark.parametrize(
    "classes",
    [
        ["sad", "mad", "bad", "glad"],
        ["-1", "0", "1", "10", "+"],
        ["class a", "class b", "class_1", "class_2"],
        ["neutral", "neutral calm", "happily surprised", "happily disgusted"],
        ["positive", "negative", "neutral"],
        ["high", "low", "no", "not"],
    ],
)
def test_classes_that_are_not_alike(classes: list[str]) -> None:
    assert similar_classes(classes) == []


OF_OTHERS = ("manifest", "union")  # their classes are those of a table, or of their members


def shipped() -> Iterator[tuple[str, Corpus]]:
    for kind in kinds("features.corpora"):
        if kind not in OF_OTHERS:
            for options in VARIANTS.get(kind, [{}]):
                yield kind, load("features.corpora", kind)(Path(), **options)


def test_no_class_list_that_is_shipped_is_called_odd() -> None:
    seen = []
    for kind, corpus in shipped():
        assert class_lines([{"train": dict.fromkeys(corpus.classes, 9)}]) == [], kind
        seen.append(kind)
    assert len(set(seen)) == len(kinds("features.corpora")) - len(OF_OTHERS)


@given(st.lists(st.text(min_size=1, max_size=8), max_size=8, unique=True))
def test_similar_pairs_are_listed_once_and_in_the_order_of_the_classes(classes: list[str]) -> None:
    pairs = similar_classes(classes)
    assert len(pairs) == len({frozenset(pair) for pair in pairs})
    assert all(classes.index(one) < classes.index(other) for one, other in pairs)
    backwards = {frozenset(pair) for pair in similar_classes(classes[::-1])}
    assert backwards == {frozenset(pair) for pair in pairs}


def counted(*folds: Sequence[str]) -> list[dict[str, dict[str, int]]]:
    """Counts of folds, each the classes of train, valid and test in a word of letters."""
    return [
        {
            split: {name: held.count(name) for name in "abc"}
            for split, held in zip(("train", "valid", "test"), fold, strict=True)
        }
        for fold in folds
    ]


def test_splits_that_lack_a_class() -> None:
    assert lacking_classes(counted(["abc", "abc", "abc"])) == [{}]
    counts = counted(["abc", "ab", "abc"], ["ab", "abc", "abc"], ["abc", "ab", "abc"])
    lacking = lacking_classes(counts)
    assert lacking == [{"valid": ["c"]}, {"train": ["c"]}, {"valid": ["c"]}]
    train, valid = lacking_lines(lacking)
    assert train.startswith("train has no utterance of the class 'c' in 1 of 3 folds (1): a model")
    assert valid.startswith("valid has no utterance of the class 'c' in 2 of 3 folds (0, 2): the")
    (line,) = lacking_lines(lacking_classes(counted(["ab", "ab", "ab"])))
    assert line == "no utterance has the class 'c'"
    (line,) = lacking_lines(lacking_classes(counted(["b", "b", "b"])))
    assert line == "no utterance has the class 'a', 'c'"  # in the order of the classes
    # All utterances have votes in place of a class.
    assert lacking_classes(counted(["", "", ""])) == [{}]
    (line,) = lacking_lines(lacking_classes(counted(["abc", "abc", "a"])))
    assert line == "test has no utterance of the class 'b', 'c': it is not tested"
    many = lacking_lines(lacking_classes(counted(*[["abc", "abc", "ab"]] * 24)))
    assert many == [
        "test has no utterance of the class 'c' in any of the 24 folds: it is not tested"
    ]


def test_unused_utterances_fill_no_split() -> None:
    (counts,) = counted(["ab", "abc", "abc"])
    assert lacking_classes([counts | {"unused": {"c": 4}}]) == [{"train": ["c"]}]


def test_a_class_that_is_tested_alone(
    mine: SmallCorpus, capsys: pytest.CaptureFixture[str]
) -> None:
    mine.four()
    mine.table(*(row.replace("sad,s1", "happy,s1") for row in mine.rows()))
    told = stage(capsys, "official")
    assert "classes: 'happy', 'sad'" in told
    assert "warning: train has no utterance of the class 'sad': a model cannot learn it" in told
    assert "warning: one utterance alone has the class 'sad'" in told
    card = mine.prepare().card
    assert card["lacking"] == [{"train": ["sad"], "valid": ["sad"], "test": ["happy"]}]
    shown = card_lines(card)
    assert "train has no utterance of the class &#39;sad&#39;" in shown
    params = Params("m", "cached", "mine", None, {}, {"mine": {"kind": "manifest"}}, {}, {})
    assert f"  {card['warnings'][0]}" in describe(params, "mine")


def test_one_recording_under_two_labels(
    mine: SmallCorpus, capsys: pytest.CaptureFixture[str]
) -> None:
    mine.four()
    for name in ("copy", "same"):
        shutil.copy(mine.root / "0.wav", mine.root / f"{name}.wav")
    rows = ["copy.wav,hm,,,sad,s0,d0,train,", "same.wav,hm,,,happy,s0,d0,train,"]
    mine.table(*mine.rows(), *rows)
    told = stage(capsys, "official")
    line = "recordings (without audio: turns) under more than one label: 1, in 3 utterances"
    assert f"warning: {line}, such as 0 (happy) = copy (sad) = same (happy)" in told
    assert "noticed copy: the same recording (or turn) stands under another label too" in told
    assert "0 rejected, 3 noticed" in told
    assert list(read_reasons(mine.out / "labels" / NOTICED)) == ["0", "copy", "same"]
    assert mine.prepare().card["contradictions"] == 1


def test_what_is_the_same_speech() -> None:
    base = Item("a", "happy", "s", audio="x.wav")
    other = replace(base, id="b", label="sad")
    whole, span = ("sha", 0.0, 2.0), ("sha", 1.0, 1.0)
    assert contradictions([base, other], {"a": whole, "b": whole}) == [(base, other)]
    assert contradictions([base, other], {"a": whole, "b": span}) == []
    agreed = replace(other, label="happy")
    assert contradictions([base, agreed], {"a": whole, "b": whole}) == []
    said = Item("c", "happy", "s", text="Okay.")
    again = replace(said, id="d", label="sad")
    assert contradictions([said, again], {}) == []  # who says so twice may mean two things
    turn = replace(said, dialogue="d", turn=3)
    assert contradictions([turn, replace(turn, id="d", label="sad")], {}) != []
    assert contradictions([turn, replace(turn, id="d", label="sad", turn=4)], {}) == []


def test_splits_of_the_table_that_the_protocol_ignores(
    mine: SmallCorpus, capsys: pytest.CaptureFixture[str]
) -> None:
    mine.four()
    told = stage(capsys, "speaker_split")
    assert (
        "warning: the split that 4 of 4 utterances name (train 2, valid 1, test 1) is ignored: "
        "protocol speaker_split makes its own, and `protocol: official` would use it" in told
    )
    mine.table(*(row.replace(",train,", ",,") for row in mine.rows()))
    assert "the split that 2 of 4 utterances" in stage(capsys, "speaker_split")
    mine.four()
    assert "is ignored" not in stage(capsys, "official")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([f"{1 + n / 4:.2f}" for n in range(8)] * 4, "numbers with fractions"),
        (["2,5", "3", "1e-1"] * 9, "numbers with fractions"),
        ([f"said {n}" for n in range(20)], "20 utterances have the 20 labels"),
        ([str(n) for n in range(60)] + ["1"] * 59, "119 utterances have the 60 labels"),
    ],
)
def test_labels_that_cannot_be_classes(labels: list[str], message: str) -> None:
    counts = {label: labels.count(label) for label in labels}
    (fault,) = label_faults(counts, listed=False)
    assert message in fault
    assert "columns: {label: ...}" in fault
    assert label_faults(counts, listed=True) == []


@pytest.mark.parametrize(
    "labels", [["1", "2", "3", "4", "5"], ["0", "1"], ["a", "b", "c"], [*"abcdefghij"] * 2, ["1.0"]]
)
def test_labels_that_can(labels: list[str]) -> None:
    assert label_faults({label: labels.count(label) for label in labels}, listed=False) == []


def test_ratings_are_refused_by_prepare(mine: SmallCorpus) -> None:
    mine.four()
    ratings = {"happy": "3.5", "sad": "2"}
    rows = [
        row.replace(old, new) for row in mine.rows() for old, new in ratings.items() if old in row
    ]
    mine.table(*rows)
    with pytest.raises(ManifestError, match=r"corpus 'mine': .*'3\.5'.* numbers with fractions"):
        mine.prepare()
    assert mine.prepare(classes=["2", "3.5"]).card["classes"] == ["2", "3.5"]


def test_whole_numbers_are_warned_about() -> None:
    assert class_lines([{"train": {"0": 9, "1": 9}}]) == []
    assert class_lines([{"train": {"0": 9, "1": 9, "two": 9}}]) == []
    (line,) = class_lines([{"train": {"-1": 9, "0": 9, "1": 9}}])
    assert line.startswith("all 3 classes are numbers, '-1', '0', '1': if these are ratings,")


class Examples:
    """Of an `ExampleSource` what the log's first lines read."""

    classes = ("happy", "sad", "Sad")
    targets = None

    def __init__(self, *labels: str) -> None:
        self.labels = [
            Label(str(number), label, speaker="s", splits=(split,))
            for number, (label, split) in enumerate(
                zip(labels, ["train"] * (len(labels) - 2) + ["valid", "test"], strict=True)
            )
        ]


def test_training_says_what_it_learns(capsys: pytest.CaptureFixture[str]) -> None:
    report_labels("train m on mine", Examples("happy", "sad", "sad", "happy"))  # type: ignore[arg-type]
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "train m on mine: 3 classes, 'happy', 'sad', 'Sad'"
    assert told[1].startswith("  warning: classes that differ in spelling alone")
    assert "'sad' and 'Sad'" in told[1]
    assert told[2] == "  warning: no utterance has the class 'Sad'"
    assert [line.split(":")[1] for line in told[3:]] == [
        " valid has no utterance of the class 'happy'",
        " test has no utterance of the class 'sad'",
    ]


def test_notices_reach_the_file_the_card_the_log_and_the_report(
    mine: SmallCorpus, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sets `Item.notices` or `Corpus.warnings` is heard everywhere."""
    from features.corpora.manifest import ManifestCorpus

    items = ManifestCorpus.items
    notices = {"0": ("cut to 3 words",), "1": ("cut to 4 words", "it is silent")}

    def noticed(self: ManifestCorpus) -> Iterator[Item]:
        for item in items(self):
            yield replace(item, notices=notices.get(item.id, ()))

    monkeypatch.setattr(ManifestCorpus, "items", noticed)
    monkeypatch.setattr(ManifestCorpus, "warnings", ("a column <b> was ignored",), raising=False)
    mine.four()
    told = stage(capsys, "official")
    assert "  noticed 0: cut to 3 words\n  noticed 1: cut to 4 words; it is silent\n" in told
    assert "0 rejected, 2 noticed" in told
    assert "  warning: a column <b> was ignored\n" in told
    listed = {id: "; ".join(lines) for id, lines in notices.items()}
    assert read_reasons(mine.out / "labels" / NOTICED) == listed
    card = mine.prepare().card
    assert card["noticed"] == 2
    assert card["noticed_reasons"] == {"cut to … words": 2, "it is silent": 1}
    assert card["noticed_ids"] == {"cut to … words": ["0", "1"], "it is silent": ["1"]}
    assert card["warnings"][0] == "a column <b> was ignored"
    shown = card_lines(card)
    assert "a column &lt;b&gt; was ignored" in shown
    assert re.search(r"cut to … words(</?\w[^>]*>)+2(</?\w[^>]*>)+0, 1<", shown)
    params = Params("m", "cached", "mine", None, {}, {"mine": {"kind": "manifest"}}, {}, {})
    text = "\n".join(describe(params, "mine"))
    assert "Used with a notice\n  2: cut to … words (0, 1)\n  1: it is silent (1)\n" in text
    assert "Warnings\n  a column <b> was ignored\n" in text
    assert "0 rejected, 2 noticed" in text
