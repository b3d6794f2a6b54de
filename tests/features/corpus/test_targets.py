"""Tests of what a record holds beyond one class: votes, values of attributes, ratings."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.corpus.adapter import Item
from features.corpus.manifest import Label, read_labels
from features.corpus.ratings import Rating, read_ratings, write_ratings
from features.errors import ManifestError
from features.files.records import write_rows

NAMES = st.text("abcé ", min_size=1).filter(str.strip)
COUNTS = st.dictionaries(NAMES, st.integers(1, 50), min_size=1)
VALUES = st.dictionaries(NAMES, st.floats(-7, 7), min_size=1)
FULL = Label(
    *("a", "sad", "s"),
    splits=("train",),
    votes={"sad": 3, "happy": 1},
    votes_outside=2,
    secondary={"happy": 1},
    values={"arousal": 2.5, "valence": -1},
)


@given(COUNTS, COUNTS, VALUES)
def test_a_record_with_votes_and_values_survives_files_and_copies(
    tmp_path_factory: pytest.TempPathFactory,
    votes: dict[str, int],
    secondary: dict[str, int],
    values: dict[str, float],
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    label = Label("a", None, "s", votes=votes, secondary=secondary, values=values)
    write_rows(folder / "labels.jsonl", [label])
    assert read_labels(folder) == [label] == [copy.deepcopy(label)]
    (found,) = read_labels(folder)
    assert list(found.votes or ()) == list(votes)


def test_a_record_keeps_its_values_and_can_be_hashed() -> None:
    votes = {"sad": 3}
    item, label = Item("a", "sad", "s", votes=votes), Label("a", "sad", "s", votes=votes)
    votes["sad"] = 4
    assert item.votes == label.votes == {"sad": 3}
    assert len({item, label, hash(item)}) == 3
    with pytest.raises(TypeError):
        item.votes["sad"] = 4  # type: ignore[index]


def test_only_a_row_that_is_never_scored_needs_no_target() -> None:
    assert Label("a", None, "s", splits=("unlabelled",)).label is None
    for splits in ((), ("train",), ("unlabelled", "train")):
        with pytest.raises(ManifestError, match="neither a class, votes nor values"):
            Label("a", None, "s", splits=splits)
    assert FULL.class_name == "sad"
    with pytest.raises(ManifestError, match="'a' has no class"):
        _ = Label("a", None, "s", values={"arousal": 1}).class_name


@pytest.mark.parametrize(
    ("field", "given_value", "message"),
    [
        ("votes", {"sad": -1}, "sad is -1; expected a count of raters"),
        ("votes", {"sad": 0.5}, "sad is 0.5; expected a count of raters"),
        ("votes", {"sad": 0}, "sad is 0; expected a count of raters"),
        ("votes", {}, "votes is {}; expected a mapping of names to numbers"),
        ("votes", {"": 1}, "votes names ''; expected text"),
        ("secondary", [1], "secondary is [1]; expected a mapping"),
        ("values", {"arousal": float("nan")}, "arousal is nan; expected a finite number"),
        ("values", {"arousal": True}, "arousal is True; expected a finite number"),
        ("values", {"arousal": "2"}, "arousal is '2'; expected a finite number"),
        ("votes_outside", -1, "votes_outside is -1; expected a count"),
        ("votes_outside", 0.5, "votes_outside is 0.5; expected a count"),
        ("votes_outside", float("inf"), "votes_outside is inf; expected a count"),
    ],
)
def test_a_target_that_is_no_number_is_refused(
    field: str, given_value: object, message: str
) -> None:
    with pytest.raises(ManifestError) as error:
        Label("a", "sad", "s", **{field: given_value})  # type: ignore[arg-type]
    assert message in str(error.value)
    with pytest.raises(ManifestError, match=rf"{field} .*'a'"):
        Item("a", "sad", "s", **{field: given_value})  # type: ignore[arg-type]


def test_ratings_are_read_as_they_were_written(tmp_path: Path) -> None:
    ratings = [
        Rating("a", "1", label="sad", secondary=("happy",), values={"arousal": 2}),
        Rating("a", "2", self=True, label="frustrated"),
        Rating("b", "1", self=False, values={"arousal": 3.5}),
    ]
    write_ratings(tmp_path / "ratings", ratings)
    assert read_ratings(tmp_path / "ratings") == ratings
    write_ratings(tmp_path, [])
    assert read_ratings(tmp_path) == []
    write_ratings(tmp_path, [ratings[0], ratings[0]])
    with pytest.raises(ManifestError, match="'a by 1'"):
        read_ratings(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [{"rater": ""}, {"self": 1}, {"label": ""}, {"secondary": "sad"}, {"values": {"arousal": "x"}}],
)
def test_a_malformed_rating_is_refused_by_name(fields: dict[str, object]) -> None:
    with pytest.raises(ManifestError, match="rating of 'a'"):
        Rating(**{"id": "a", "rater": "1"} | fields)  # type: ignore[arg-type]
