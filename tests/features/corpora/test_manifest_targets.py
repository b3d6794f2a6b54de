"""Votes, attributes and ratings in a user's own tables, and each fault with its line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from features.corpora.manifest import ManifestCorpus
from features.corpus.adapter import Item, Target
from features.corpus.entry import corpus_entry
from features.corpus.labels_folder import read_labelled
from features.corpus.ratings import Rating, read_ratings
from features.errors import ManifestError, ParamsError
from features.files.yaml_text import read_yaml
from tests.support.corpora.hub_tables import write_parquet
from tests.support.corpora.small_corpus import SmallCorpus
from tests.support.markdown import blocks_of

ALL: tuple[Target, ...] = ("classes", "votes", "attributes")
SCALES = {"arousal": [1, 5], "valence": [-1, 1]}
AROUSAL = {"arousal": [1, 5]}
HEAD = "id,text,speaker,label"


def corpus(root: Path, table: str, **options: Any) -> ManifestCorpus:
    (root / "manifest.csv").write_text(table, encoding="utf-8")
    return ManifestCorpus(root, **{"targets": ALL, "attributes": SCALES} | options)


def items(root: Path, table: str, **options: Any) -> list[Item]:
    return list(corpus(root, table, **options).items())


def faults(root: Path, table: str, **options: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        items(root, table, **options)
    return str(caught.value).split("\n  ")[1:]


def row_of(cells: str, head: str) -> str:
    return f"{HEAD},{head}\nu1,hm,s1,sad,{cells}\n"


def test_columns_of_votes_and_attributes(tmp_path: Path) -> None:
    table = (
        f"{HEAD},valence,arousal,votes_sad,votes_happy,votes_outside\n"
        "u1,hm,s1,sad,-0.25,2,3,1,2\n"
        "u2,hm,s2,,N/A,4.5,0,2,\n"
        "u3,hm,s3,happy,,,,,\n"
        "u4,hm,s4,,,,0,0,5\n"
    )
    first, second, third, fourth = items(tmp_path, table, classes=["sad", "happy"])
    assert (first.votes, first.votes_outside) == ({"sad": 3, "happy": 1}, 2)
    assert list(first.votes or ()) == ["sad", "happy"]
    assert first.values == {"arousal": 2, "valence": -0.25}
    # Without a class, which nobody makes of its votes.
    assert (second.label, second.excluded, second.votes) == (None, None, {"happy": 2})
    assert second.values == {"arousal": 4.5}
    assert (third.votes, third.votes_outside, third.values) == (None, None, None)
    # All its raters chose something else: that is known, and nothing to learn.
    assert (fourth.votes, fourth.votes_outside, fourth.excluded) == (None, 5, "it has no label")


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_votes_in_one_column(tmp_path: Path, form: str) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "u1", "text": "hm", "speaker": "s1", "votes": {"sad": 3, "happy": 0}},
        {"id": "u2", "text": "hm", "speaker": "s2", "votes": {"sad": None, "happy": 1}},
    ]
    path = tmp_path / f"table.{form}"
    if form == "csv":
        cells = [json.dumps(row["votes"]).replace('"', '""') for row in rows]
        lines = [f'u{n},hm,s{n},"{cell}"' for n, cell in enumerate(cells, 1)]
        path.write_text("\n".join(["id,text,speaker,votes", *lines]) + "\n")
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        write_parquet(path, rows)
    found = ManifestCorpus(tmp_path, file=path.name, targets=("votes",))
    assert [item.votes for item in found.items()] == [{"sad": 3}, {"happy": 1}]
    assert found.classes == ("happy", "sad")


def test_columns_under_other_names(tmp_path: Path) -> None:
    table = "clip,words,who,act,wut\nu1,hm,s1,3,2\n"
    names = {
        "id": "clip",
        "text": "words",
        "speaker": "who",
        "arousal": "act",
        "votes_anger": "wut",
    }
    (item,) = items(tmp_path, table, columns=names, attributes=AROUSAL)
    assert (item.values, item.votes) == ({"arousal": 3}, {"anger": 2})
    with pytest.raises(ParamsError, match=r"columns: given \['dominance'\]; expected some of"):
        items(tmp_path, table, columns=names | {"dominance": "x"})


@pytest.mark.parametrize(
    ("head", "cells", "fault"),
    [
        ("arousal", "6", "arousal is '6'; expected a number from 1 to 5"),
        ("arousal", "high", "arousal is 'high'; expected a number from 1 to 5"),
        ("arousal", "inf", "arousal is 'inf'; expected a number from 1 to 5"),
        ("votes_sad", "-1", "votes for 'sad' is '-1'; expected a number of raters"),
        ("votes_sad", "0.5", "votes for 'sad' is '0.5'; expected a number of raters"),
        ("votes_outside", "many", "votes_outside is 'many'; expected a number of raters"),
        ("votes_sad", "0", "all votes are 0; expected one or more, or empty cells"),
        ("votes_calm", "1", "votes for 'calm'; expected one of ['sad', 'happy']"),
        ("votes", "sad", "votes 'sad' is not JSON"),
        ("votes", "3", "votes is 3; expected an object such as"),
        ("votes", '"{""sad"": 1, ""sad"": 2}"', 'votes \'{"sad": 1, "sad": 2}\' is not JSON'),
        ("votes", '"{""calm"": 1}"', "votes for 'calm'; expected one of ['sad', 'happy']"),
        ("votes,votes_sad", '"{""sad"": 1}",1', "votes and votes_sad are both given"),
    ],
)
def test_a_wrong_cell_names_its_line(tmp_path: Path, head: str, cells: str, fault: str) -> None:
    (found,) = faults(tmp_path, row_of(cells, head), classes=["sad", "happy"])
    assert found.startswith(f"line 2: {fault}")
    assert found.endswith("(id 'u1')")


def test_an_attribute_that_no_table_has_is_refused(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, row_of("2,1", "arousal,votes_sad"))
    assert fault.startswith("attributes.valence: no table has a column 'valence'; expected one")
    # Ratings are a table as well.
    said = rate(tmp_path, "u1,a,1", head="id,rater,valence")
    (item,) = items(tmp_path, row_of("2,1", "arousal,votes_sad"), ratings=said)
    assert item.values == {"arousal": 2, "valence": 1}


def test_columns_that_nobody_asks_for_are_unknown(tmp_path: Path) -> None:
    table = row_of("2,1", "arousal,votes_sad")
    (fault,) = faults(tmp_path, table, targets=("classes",), attributes=None)
    assert fault.startswith("unknown columns ['arousal', 'votes_sad']; expected some of ['id',")
    (fault,) = faults(tmp_path, table, targets=("classes", "attributes"))
    assert fault.startswith("unknown columns ['votes_sad']")
    assert "'arousal', 'valence']: name those in use by `columns`, or ask for" in fault


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attributes": None}, r"expected the scale of each, such as \{arousal: \[1, 5\]\}"),
        ({"targets": ("classes", "votes")}, "if attributes are among the targets, and only then"),
        (
            {"attributes": {"arousal": [5, 1]}},
            "attributes.arousal: given .* its lowest and highest",
        ),
        ({"attributes": {"arousal": [1, float("inf")]}}, "expected its lowest and highest value"),
        (
            {"attributes": {"turn": [1, 5]}},
            "attributes: given 'turn'; expected the name of no other",
        ),
        ({"attributes": {"votes_x": [1, 5]}}, "expected the name of no other column"),
        (
            {"targets": ("classes",), "attributes": None, "ratings": "r.csv"},
            "expected votes or attributes among the targets, which ratings are of",
        ),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        corpus(tmp_path, HEAD, **options)


RATED = f"{HEAD}\nu1,hm,s1,sad\nu2,hm,s2,\n"


def rate(root: Path, *lines: str, head: str = "id,rater,label,secondary,arousal,self") -> str:
    (root / "ratings.csv").write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return "ratings.csv"


def test_a_table_of_ratings_gives_votes_and_means(tmp_path: Path) -> None:
    said = rate(
        tmp_path,
        'u1,a,sad,"happy, sad",2,',
        "u1,b,happy,,5,false",
        "u1,c,other,,,",
        "u1,s1,happy,,1,true",  # the speaker's own view does not count
        "u2,a,,,4,",
    )
    found = corpus(tmp_path, RATED, ratings=said, classes=["sad", "happy"], attributes=AROUSAL)
    first, second = found.items()
    assert (first.votes, first.votes_outside) == ({"sad": 1, "happy": 1}, 1)
    assert first.secondary == {"happy": 1}
    assert first.values == {"arousal": 3.5}
    assert (second.votes, second.values, second.excluded) == (None, {"arousal": 4}, None)
    said_first = next(iter(found.ratings()))
    assert said_first == Rating("u1", "a", None, "sad", ("happy",), {"arousal": 2})
    assert tmp_path / "ratings.csv" in set(found.tables())


def test_other_counts_as_a_class_where_an_utterance_has_it(tmp_path: Path) -> None:
    said = rate(tmp_path, "u1,a,other", "u1,b,sad", "u2,a,other", head="id,rater,label")
    asked: dict[str, Any] = {"ratings": said, "targets": ("classes", "votes"), "attributes": None}
    found = corpus(tmp_path, f"{HEAD}\nu1,hm,s1,other\nu2,hm,s2,sad\n", **asked)
    first, second = found.items()
    assert found.classes == ("other", "sad")
    assert (first.votes, first.votes_outside) == ({"other": 1, "sad": 1}, 0)
    assert (second.votes, second.votes_outside) == ({"other": 1}, 0)
    first, _ = items(tmp_path, f"{HEAD}\nu1,hm,s1,sad\nu2,hm,s2,happy\n", **asked)
    assert (first.votes, first.votes_outside) == ({"sad": 1}, 1)


def test_what_the_manifest_states_is_not_counted_again(tmp_path: Path) -> None:
    said = rate(tmp_path, "u1,a,happy,,5,", "u2,a,happy,,5,")
    table = f"{HEAD},arousal,votes_sad\nu1,hm,s1,sad,2,4\nu2,hm,s2,sad,,\n"
    first, second = items(tmp_path, table, ratings=said, attributes=AROUSAL)
    assert (first.votes, first.values) == ({"sad": 4}, {"arousal": 2})
    assert (second.votes, second.values) == (None, None)  # unknown there stays unknown


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("u1,a,sad,,2,", "rater 'a' has rated 'u1' in ratings.csv line 2 already"),
        ("u9,b,sad,,2,", "id 'u9' is not in the manifest"),
        ("u1,,sad,,2,", "id or rater is empty; expected both"),
        ("u1,b,calm,,2,", "label 'calm'; expected one of ['sad', 'happy'], or 'other'"),
        ("u1,b,sad,calm,2,", "secondary 'calm'; expected one of ['sad', 'happy'], or 'other'"),
        ("u1,b,sad,,9,", "arousal is '9'; expected a number from 1 to 5"),
        ("u1,b,sad,,2,perhaps", "self is 'perhaps'; expected true or false"),
        ("u1,b,,happy,,", "it has neither a label nor a value of an attribute"),
        ("u1,b,sad", "3 cells; expected 6 as in the header"),
    ],
)
def test_a_wrong_rating_names_its_line(tmp_path: Path, line: str, fault: str) -> None:
    said = rate(tmp_path, "u1,a,sad,,2,", line)
    (found,) = faults(tmp_path, RATED, ratings=said, classes=["sad", "happy"])
    assert found.startswith(f"ratings.csv line 3: {fault}")


def test_a_ratings_table_that_is_missing_or_has_other_columns(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, RATED, ratings="none.csv")
    assert fault.startswith("there is no table 'none.csv' of ratings")
    said = rate(tmp_path, "u1,a,sad,x", head="id,rater,label,mood")
    (fault,) = faults(tmp_path, RATED, ratings=said)
    assert fault.startswith("ratings.csv: unknown columns ['mood']; expected ['id', 'rater',")
    with pytest.raises(ManifestError, match="expected a relative one below the corpus root"):
        corpus(tmp_path, RATED, ratings="../ratings.csv")


@pytest.mark.parametrize("targets", [["attributes"], ["votes"], ["classes", "attributes"]])
def test_the_whole_of_it_through_prepare(mine: SmallCorpus, targets: Sequence[str]) -> None:
    splits = ["train"] * 3 + ["valid"] * 2 + ["test"] * 2 + ["unlabelled"]
    lines = [
        f"u{n},hm,s{n},{('sad', 'happy')[n % 2]},{split},{1 + n % 4}"
        for n, split in enumerate(splits)
    ]
    lines[-1] = "u7,hm,s7,,unlabelled,"
    head = "id,text,speaker,label,split" + (",arousal" if "attributes" in targets else "")
    if "attributes" not in targets:
        lines = [line.rpartition(",")[0] for line in lines]
    (mine.root / "manifest.csv").write_text("\n".join([head, *lines]) + "\n")
    said = [f"u{n},r{r},sad,,{1 + r},," for n in range(7) for r in (0, 1)]
    columns = "id,rater,label,secondary,arousal,self"
    if "attributes" not in targets:
        said, columns = [f"u{n},r{r},sad" for n in range(7) for r in (0, 1)], "id,rater,label"
    else:
        said = [line.removesuffix(",") for line in said]
    rate(mine.root, *said, head=columns)
    scales = {"attributes": {"arousal": [1, 5]}} if "attributes" in targets else {}
    classes = {} if targets == ["attributes"] else {"classes": ["happy", "sad"]}
    done = mine.prepare(
        targets=targets, ratings="ratings.csv", protocol="official", **scales, **classes
    )
    card, labels = read_labelled(mine.out / "labels")
    assert [label.splits[0] for label in labels] == splits
    assert card["classes"] == ([] if targets == ["attributes"] else ["happy", "sad"])
    assert card["targets"]["tasks"] == targets
    assert done.card["targets"]["alpha"].keys() >= {"classes"}
    assert len(read_ratings(mine.out / "ratings")) == done.ratings == 14
    assert "ratings.csv" in card["tables"]


def test_the_tables_of_the_guide_are_read_as_it_says(tmp_path: Path) -> None:
    manifest, ratings = (b.code for b in blocks_of("docs/own-data.md") if b.language == "text")
    entries = [b.code for b in blocks_of("docs/own-data.md") if b.language == "yaml"]
    (entry,) = (e["corpora"]["mine"] for e in map(read_yaml, entries) if "targets" in str(e))
    (tmp_path / "ratings.csv").write_text(ratings)
    (tmp_path / "manifest.csv").write_text(manifest)
    made = corpus_entry("mine", entry).adapter(tmp_path)
    first, second = made.items()
    assert (first.label, first.votes, first.votes_outside) == ("sad", {"sad": 4}, 1)
    assert (second.label, second.votes) == (None, {"happy": 2, "sad": 2})
    assert (first.values, second.values) == ({"arousal": 2.5, "valence": -0.5}, {"arousal": 3})
    assert [rating.self for rating in made.ratings()] == [None, None, True]  # type: ignore[attr-defined]
