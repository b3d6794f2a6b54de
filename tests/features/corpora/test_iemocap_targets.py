"""Raters' lines of IEMOCAP: votes, attributes, the speakers' own views, lines of other shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from features.corpora.iemocap import Iemocap
from features.corpus.adapter import Item, Target
from features.corpus.entry import corpus_entry
from features.corpus.labels_folder import read_labelled
from features.corpus.prepare import prepare
from features.corpus.ratings import Rating, read_ratings
from features.errors import ParamsError
from tests.support.corpora.small_corpus import set_root, write_level

ALL: tuple[Target, ...] = ("classes", "votes", "attributes")
IMPRO = "Ses01F_impro01"
# The published example, and F019, whose header leaves the speaker's own view out.
F000 = (
    ("F000", "neu", "2.5000, 2.5000, 2.5000"),
    "C-E2:\tNeutral;\t()",
    "C-E3:\tneutral state; Anger;\t(not (sure): val; act)",
    "C-E4: Frustration; (no (really); why: so)",  # spaces in place of the tabs
    "C-F1:\tNeutral; Anger;\t(curious)",
    "A-E3:\tval 3; act 2; dom  2;\t()",
    "A-E4: val 2; act 3; dom 3; (not (sure); act 1)",
    "A-F1:\tval 3; act 2; dom  1;\t()",
)
F019 = (
    ("F019", "xxx", "1.5000, 4.0000, 4.5000"),
    "C-E2:\tAnger;\t()",
    "C-E4:\tSadness;\t()",
    "A-E3:\tval 2; act 4; dom 4;\t()",
    "A-E4:\tval 1; act 4; dom  5;\t()",
    "A-F1:\tval 1; act 5; dom 5;\t()",
)
Block = tuple[Any, ...]


def release(root: Path, *blocks: Block, dialogue: str = IMPRO) -> Path:
    lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
    for start, ((name, code, header), *said) in enumerate(blocks):
        lines.append(f"[{start}.0 - {start}.9]\t{dialogue}_{name}\t{code}\t[{header}]")
        lines += [*said, ""]
    path = root / f"Session{dialogue[4]}/dialog/EmoEvaluation/{dialogue}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")
    return root


def items(root: Path, **options: Any) -> dict[str, Item]:
    return {item.id.removeprefix(f"{IMPRO}_"): item for item in Iemocap(root, **options).items()}


def test_votes_are_those_of_external_raters_and_values_the_means_in_the_header(
    tmp_path: Path,
) -> None:
    found = items(release(tmp_path, F000, F019), targets=ALL, no_agreement="keep")
    assert (found["F000"].label, found["F000"].votes) == ("neutral", {"neutral": 2, "angry": 1})
    assert list(found["F000"].votes or ()) == ["neutral", "angry"]  # in the order of the classes
    assert found["F000"].votes_outside == 1
    assert found["F000"].values == {"arousal": 2.5, "valence": 2.5, "dominance": 2.5}
    assert found["F019"].votes == {"sad": 1, "angry": 1}
    assert found["F019"].values == {"arousal": 4, "valence": 1.5, "dominance": 4.5}
    assert found["F019"].label is None


def test_with_the_speakers_own_views_the_numbers_are_those_of_emo_superb(tmp_path: Path) -> None:
    root = release(tmp_path, (F000[0], *F000[1:2], *F000[4:]), F019)
    options = {"no_agreement": "keep", "self_evaluation": "include"}
    found = items(root, targets=ALL, **options)
    # It publishes [1.333, 4.333, 4.667], in the order of the header.
    values = {name: round(value, 3) for name, value in (found["F019"].values or {}).items()}
    assert values == {"arousal": 4.333, "valence": 1.333, "dominance": 4.667}
    # One who names two categories gives two votes.
    assert found["F000"].votes == {"neutral": 2, "angry": 1}


def test_ratings_by_rater_and_the_speakers_own_are_marked(tmp_path: Path) -> None:
    corpus = Iemocap(release(tmp_path, F000), targets=("classes", "votes"))
    list(corpus.items())
    id = f"{IMPRO}_F000"
    assert {rating.rater: rating for rating in corpus.ratings()} == {
        "E2": Rating(id, "E2", False, "neutral"),
        "E3": Rating(
            *(id, "E3", False, "neutral", ("angry",)),
            values={"arousal": 2, "valence": 3, "dominance": 2},
        ),
        "E4": Rating(
            *(id, "E4", False, "frustration"),
            values={"arousal": 3, "valence": 2, "dominance": 3},
        ),
        "Ses01_F1": Rating(
            *(id, "Ses01_F1", True, "neutral", ("angry",)),
            values={"arousal": 2, "valence": 3, "dominance": 1},
        ),
    }


def test_an_empty_number_is_unknown_for_that_rater_alone(tmp_path: Path) -> None:
    said = ("A-E3:\tval 3; act ; dom 2;\t()", "A-E4:\tdom 4; val 1; act 5\t()")
    root = release(tmp_path, (("F000", "neu", "2.0, 5.0, 3.0"), *said))
    corpus = Iemocap(root, targets=ALL, self_evaluation="include")
    (item,) = corpus.items()
    assert [rating.values for rating in corpus.ratings()] == [
        {"valence": 3, "dominance": 2},
        {"arousal": 5, "valence": 1, "dominance": 4},
    ]
    assert item.values == {"arousal": 5, "valence": 2, "dominance": 3}
    assert item.votes is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("C-E2:\tJoyous;\t()", "'Joyous'; expected one of anger, disgust"),
        ("A-E3:\tval 3; act 2;\t()", "expected `val 3; act 2; dom 2;`"),
        ("A-E3:\tval 3; act 2; dom 6;\t()", "dom 6; expected a number from 1 to 5"),
        ("B-E3:\tval 3; act 2; dom 2;\t()", "it is not C-<rater>: categories"),
        ("C-E4:\tNeutral;\t()", "C-E4 occurs twice for this utterance"),
    ],
)
def test_a_line_of_unknown_shape_is_listed_and_loses_nothing_else(
    tmp_path: Path, line: str, reason: str
) -> None:
    root = release(tmp_path, (F000[0], "C-E4:\tNeutral;\t()", line))
    first, second = Iemocap(root, targets=ALL).items()
    assert (first.votes, first.fault) == ({"neutral": 1}, None)
    assert second.id == f"Session1/dialog/EmoEvaluation/{IMPRO}.txt:5"
    assert f"{line!r}: {reason}" in str(second.fault)
    # Classes alone do not need the line.
    assert len(list(Iemocap(root).items())) == 1


@pytest.mark.parametrize("header", ["2.5", "0.5, 2.5, 2.5", "2.5, x, 2.5"])
def test_a_header_without_three_numbers_is_a_fault_where_they_are_asked_for(
    tmp_path: Path, header: str
) -> None:
    root = release(tmp_path, (("F000", "neu", header),))
    (item,) = Iemocap(root, targets=ALL).items()
    assert "expected" in str(item.fault)
    (item,) = Iemocap(root).items()
    assert (item.fault, item.label) == (None, "neutral")


@pytest.mark.parametrize(
    ("options", "fate"),
    [
        ({}, {"xxx": (False, False), "fru": (False, False)}),
        ({"no_agreement": "train"}, {"xxx": (True, True), "fru": (False, False)}),
        ({"no_agreement": "keep"}, {"xxx": (True, False), "fru": (False, False)}),
        ({"other": "outside"}, {"xxx": (False, False), "fru": (True, False)}),
    ],
)
def test_policies(
    tmp_path: Path, options: Mapping[str, Any], fate: Mapping[str, tuple[bool, bool]]
) -> None:
    blocks = [((code, code, "2.0, 2.0, 2.0"), "C-E2:\tAnger;\t()") for code in ("xxx", "fru")]
    blocks = [((f"F00{n}", *head[1:]), said) for n, (head, said) in enumerate(blocks)]
    found = Iemocap(release(tmp_path, *blocks), targets=ALL, **options).items()
    held = {code: (i.excluded is None, i.train_only) for code, i in zip(fate, found, strict=True)}
    assert held == fate
    if options:
        with pytest.raises(ParamsError, match="expected votes or attributes among the targets"):
            Iemocap(tmp_path, **options)


def test_the_whole_of_it_through_prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "iemocap"
    for session in (1, 2, 3):
        dialogue = f"Ses0{session}F_impro01"
        blocks = [
            ((f"F00{n}", code, f"{n + 1}.0, {n + session - 1 or 1}.0, {5 - n}.0"), *F000[1:])
            for n, code in enumerate(("neu", "ang", "xxx"))
        ]
        release(root, *blocks, dialogue=dialogue)
        for n in range(3):
            path = root / f"Session{session}/sentences/wav/{dialogue}/{dialogue}_F00{n}.wav"
            write_level(path, 4000)
    set_root(monkeypatch, "iemocap", root)
    settings = {"targets": list(ALL), "no_agreement": "train"}
    entry = corpus_entry("iemocap", settings | {"protocol": "leave_one_session_out"})
    out = tmp_path / "data" / "iemocap"
    prepare(entry, out)
    card, labels = read_labelled(out / "labels")
    kept = [label for label in labels if label.label is None]
    assert [sorted(label.splits) for label in kept] == [["train", "unused", "unused"]] * 3
    assert card["targets"]["policies"]["self_evaluation"] == "exclude"
    # Three external raters, one of whom named two categories.
    assert card["targets"]["votes"]["raters_max"] == 4
    assert card["targets"]["alpha"].keys() == {"classes", "arousal", "valence", "dominance"}
    assert len(read_ratings(out / "ratings")) == 9 * 4
