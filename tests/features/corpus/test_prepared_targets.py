"""`prepare` of corpora that offer more than classes: which rows stay, splits, card and refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from features.corpus.adapter import Item, Published, Source, Target
from features.corpus.entry import CorpusEntry, corpus_entry, corpus_problems
from features.corpus.labels_folder import read_labelled
from features.corpus.manifest import read_labels
from features.corpus.prepare import Prepared, prepare, rehearse
from features.corpus.ratings import Rating, read_ratings
from features.errors import ManifestError
from tests.support.corpora.small_corpus import SmallCorpus

SPLITS = ("train", "train", "valid", "valid", "test", "test")


def item(number: int, **fields: Any) -> Item:
    given = {"label": "sad", "split": SPLITS[number % 6], "values": {"arousal": 1 + number % 5}}
    return Item(**{"id": f"u{number}", "speaker": f"s{number}", "text": "hm"} | given | fields)


class Rated:
    """Six utterances with a class, votes and arousal; tests replace them."""

    source = Source("Rated", "MIT", "none", "It is made up.")
    offers: ClassVar[tuple[Target, ...]] = ("classes", "votes", "attributes")
    classes = ("happy", "sad")
    scales: ClassVar[Mapping[str, tuple[float, float]]] = {"arousal": (1, 5)}
    policies: ClassVar[Mapping[str, str]] = {"no_agreement": "train", "self_evaluation": "exclude"}
    rows: ClassVar[Sequence[Item]] = [
        item(n, votes={("sad", "happy")[n % 2]: 2 + n}, votes_outside=1) for n in range(6)
    ]
    said: ClassVar[Sequence[Rating]] = ()

    def __init__(self, root: Path, *, targets: Sequence[Target] = ("classes",)) -> None:
        self.root, self.targets = root, targets

    def items(self) -> Iterator[Item]:
        yield from self.rows

    def ratings(self) -> Iterator[Rating]:
        yield from self.said


@pytest.fixture
def rated(mine: SmallCorpus, monkeypatch: pytest.MonkeyPatch) -> SmallCorpus:
    monkeypatch.setattr("features.corpus.entry.load", lambda *_: Rated)
    (mine.root / "file").touch()
    return mine


def made(
    corpus: SmallCorpus, *targets: Target, rows: Sequence[Item] | None = None, **settings: Any
) -> Prepared:
    kept, Rated.rows = Rated.rows, Rated.rows if rows is None else rows
    try:
        return prepare(CorpusEntry("mine", "rated", targets=targets, **settings), corpus.out)
    finally:
        Rated.rows = kept


def test_a_row_holds_the_targets_that_are_asked_for_and_no_others(rated: SmallCorpus) -> None:
    held = {}
    for targets in (("classes",), ("votes",), ("attributes",), Rated.offers):
        made(rated, *targets)
        first = json.loads(rated.written()["labels/labels.jsonl"].splitlines()[0])
        held["+".join(targets)] = sorted(first.keys() & {"label", "votes", "values"})
    assert held == {
        "classes": ["label"],
        "votes": ["label", "votes"],
        "attributes": ["values"],
        "classes+votes+attributes": ["label", "values", "votes"],
    }


def test_a_row_without_a_class_stays_for_its_other_targets(rated: SmallCorpus) -> None:
    rows = [*Rated.rows, item(6, label=None), item(7, label=None, values=None)]
    done = made(rated, "classes", "attributes", rows=rows)
    card, labels = read_labelled(rated.out / "labels")
    assert (labels[-1].id, labels[-1].label, labels[-1].values) == ("u6", None, {"arousal": 2})
    assert rated.rejected() == {"u7": "it has no class and no value of an attribute"}
    assert card["counts"][0]["train"] == {"happy": 0, "sad": 2}
    assert done.card["targets"]["attributes"]["arousal"]["known"] == [
        {"train": 3, "valid": 2, "test": 2}
    ]
    made(rated, "classes", rows=rows)
    assert rated.rejected() == {"u6": "it has no label", "u7": "it has no label"}


def test_counts_are_compared_with_the_published_ones_by_class(
    rated: SmallCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that a policy keeps without a class are not among those that were published."""
    monkeypatch.setattr(Rated, "published", Published(6), raising=False)
    rows = [*Rated.rows, item(6, label=None), Item("u9", None, "s9", text="", split="unlabelled")]
    assert made(rated, "classes", "attributes", rows=rows).card["differences"] == []
    assert made(rated, "attributes", rows=rows).card["differences"] == []
    # Nor is a split that every protocol keeps one that it ignores.
    card = made(rated, "classes", rows=rows, protocol="speaker_folds", folds=3).card
    assert not any("unlabelled" in line for line in card["warnings"])


def test_the_card_describes_the_targets(
    rated: SmallCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [
        *(
            Rating(f"u{n}", rater, label="sad", values={"arousal": n})
            for n in (1, 2)
            for rater in "ab"
        ),
        Rating("u1", "F1", self=True, label="happy", values={"arousal": 5}),
        Rating("u9", "a", label="sad"),
    ]
    monkeypatch.setattr(Rated, "said", said)
    card = made(rated, *Rated.offers).card
    assert card["targets"] == {
        "tasks": ["classes", "votes", "attributes"],
        "attributes": {
            "arousal": {
                "low": 1,
                "high": 5,
                "known": [{"train": 2, "valid": 2, "test": 2}],
                "mean": 2.666667,
                "sd": 1.490712,
            }
        },
        "votes": {"raters_min": 3, "raters_mean": 5.5, "raters_max": 8, "outside": 0.181818},
        "policies": {"no_agreement": "train", "self_evaluation": "exclude"},
        # All but the speaker's own agree: of classes nothing else occurs, of arousal it is perfect.
        "alpha": {"classes": None, "arousal": 1.0},
    }
    # Of an utterance that is not there no rating is kept.
    assert read_ratings(rated.out / "ratings") == said[:-1]
    assert "targets" not in made(rated, "classes").card


def test_what_only_training_may_use_is_neither_validated_nor_tested(rated: SmallCorpus) -> None:
    rows = [*Rated.rows, *(item(n, label=None, train_only=True) for n in (6, 8, 10))]
    made(rated, "classes", "attributes", rows=rows)
    found = {row.id: row.splits for row in read_labels(rated.out / "labels")}
    assert [found[f"u{n}"] for n in (0, 6, 8, 10)] == [
        ("train",),
        ("train",),
        ("unused",),
        ("unused",),
    ]


def test_what_is_never_scored_is_unlabelled_under_any_protocol(rated: SmallCorpus) -> None:
    rows = [*Rated.rows, Item("u9", None, "s9", text="hm", split="unlabelled")]
    for settings in ({}, {"protocol": "speaker_folds", "folds": 3}):
        made(rated, "classes", rows=rows, **settings)
        card, labels = read_labelled(rated.out / "labels")
        assert set(labels[-1].splits) == {"unlabelled"}
        assert all("unlabelled" not in label.splits for label in labels[:-1])
        assert sum(card["counts"][0]["unlabelled"].values()) == 0


@pytest.mark.parametrize(
    ("number", "fields", "message"),
    [
        (
            0,
            {"values": {"arousal": 6}},
            "off its scale, such as u0: 6; expected 1 to 5",
        ),
        (
            0,
            {"values": {"anger": 1}},
            "values of 'anger' in 1 ('u0'); expected some of",
        ),
        (
            0,
            {"votes": {"calm": 1}},
            "votes for 'calm' in 1 ('u0'); expected some of",
        ),
        (
            5,
            {"values": None},
            "known values by split are test 1; expected 2 or more",
        ),
        (
            1,
            {"values": {"arousal": 1}},
            "known values of the training split are 1; expected",
        ),
    ],
)
def test_targets_that_cannot_be_right_are_refused(
    rated: SmallCorpus, number: int, fields: Mapping[str, Any], message: str
) -> None:
    rows = [*Rated.rows]
    rows[number] = item(number, **fields)
    with pytest.raises(ManifestError) as error:
        made(rated, *Rated.offers, rows=rows)
    assert message in str(error.value)


@pytest.mark.parametrize(("target", "what"), [("votes", "votes"), ("attributes", "values")])
def test_a_target_that_no_utterance_has_is_refused(
    rated: SmallCorpus, target: Target, what: str
) -> None:
    rows = [item(n, **{what: None}) for n in range(6)]
    with pytest.raises(ManifestError, match=f"{target} are asked for, and no utterance has any"):
        made(rated, "classes", target, rows=rows)


def test_a_target_that_the_corpus_does_not_offer_is_refused() -> None:
    (line,) = corpus_problems("emodb", {"targets": ["classes", "votes"]})
    assert line == (
        "corpora.emodb.targets: given 'votes'; expected some of ['classes'], which kind 'emodb' "
        "offers"
    )
    assert "expected a list" in corpus_problems("emodb", {"targets": []})[0]
    (line,) = corpus_problems("demo", {"targets": ["clases"]})  # whose adapter is given them too
    assert line.startswith("corpora.demo.targets: given ['clases']; expected a list, each one of")
    assert corpus_entry("emodb", {"targets": ["classes", "classes"]}).targets == ("classes",)


def test_an_edit_of_one_file_is_refused(rated: SmallCorpus) -> None:
    made(rated, *Rated.offers)
    path = rated.out / "labels" / "labels.jsonl"
    path.write_text(path.read_text().replace('"arousal": 1', '"arousal": 9', 1))
    with pytest.raises(ManifestError, match="1 values of 'arousal' are off its scale"):
        read_labelled(rated.out / "labels")


def test_check_says_what_a_corpus_offers(rated: SmallCorpus) -> None:
    found = rehearse(CorpusEntry("mine", "rated", targets=("classes", "votes")), rated.root)
    assert found.problems == ()
    assert found.targets == (
        "offers classes, votes, attributes (arousal 1 to 5); asked for: classes, votes"
    )
