"""MSP-Podcast beyond its classes: attributes, raters' tables in their shapes, policies, Test3."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from features.corpora._tables.text import LFS_BEGIN
from features.corpora._votes.msp import split_detail
from features.corpora.msp_podcast import MspPodcast
from features.corpus.adapter import Item, Target
from features.corpus.entry import corpus_entry
from features.corpus.labels_folder import read_labelled
from features.corpus.prepare import prepare
from features.corpus.ratings import Rating, read_ratings
from features.errors import ManifestError, ParamsError
from pipeline.commands.check import find_problems
from pipeline.params.file import Params
from tests.support.corpora.small_corpus import set_root, write_level

ALL: tuple[Target, ...] = ("classes", "votes", "attributes")
HEAD = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
CLIP = "MSP-PODCAST_0001_000"
SPLITS = ("Train", "Train", "Development", "Development", "Test1", "Test1")
# Worker, primary, secondary, arousal, valence, dominance.
SAID = {
    1: [
        ("01", "Happy", "Happy,Concerned,Dissapointed", "5", "6", "4"),
        ("02", "Sad", "", "2", "2", "3"),
    ],
    2: [("01", 'Other-"well", so; hm', "Angry", "4", "4", "4")],
}


def detail(*said: str) -> str:
    worker, primary, secondary, arousal, valence, dominance = said
    second = f" {secondary};" if secondary else ""
    return f"WORKER{worker}; {primary};{second} A:{arousal}; V:{valence}; D:{dominance};"


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def rows_of_text(head: str = "FileName,EmoDetail") -> str:
    """1.7 to 1.12, and the challenge."""
    rows = [f"{CLIP}{n}.wav,{quoted(detail(*one))}" for n, said in SAID.items() for one in said]
    return "\n".join([head, *rows]) + "\n"


def columns(worker: str, *order: str) -> str:
    """1.6 (Workers) and 2.0 (WorkerID): a column each, in an order of the file's own."""
    names = (worker, "EmoClass_Major", "EmoClass_Second", "EmoAct", "EmoVal", "EmoDom")
    rows = [",".join(["FileName", *(order or names)])]
    for n, said in SAID.items():
        for one in said:
            cells = dict(zip(names, (f"WORKER{one[0]}", *one[1:]), strict=True))
            rows.append(",".join([f"{CLIP}{n}.wav", *(quoted(cells[c]) for c in order or names)]))
    return "\n".join(rows) + "\n"


def objects(*, listed: bool) -> str:
    """`labels_detailed.json`, of MSP-Podcast and of MSP-Face."""
    names = ("EmoClass_Major", "EmoClass_Second", "EmoAct", "EmoVal", "EmoDom")
    found: dict[str, Any] = {}
    for n, said in SAID.items():
        by_worker = {f"WORKER{one[0]}": dict(zip(names, one[1:], strict=True)) for one in said}
        workers = [{"Name": name, **of} for name, of in by_worker.items()]
        found[f"{CLIP}{n}.wav"] = {"Workers": workers} if listed else by_worker
    return json.dumps(found)


def release(root: Path, rows: Mapping[int, str], table: str | None, suffix: str = "csv") -> Path:
    """A release of clips by number, each with its letter, and a raters' table."""
    lines = [HEAD]
    for n, letter in rows.items():
        write_level(root / "Audios" / f"{CLIP}{n}.wav")
        split = SPLITS[(n - 1) % 6]
        lines.append(f"{CLIP}{n}.wav,{letter},{n / 2 + 1},4.{n},3.{n}33333,{n},Female,{split}")
    (root / "Labels").mkdir(exist_ok=True)
    (root / "Labels" / "labels_consensus.csv").write_text("\n".join(lines) + "\n")
    if table is not None:
        (root / "Labels" / f"labels_detailed.{suffix}").write_text(table)
    return root


@pytest.mark.parametrize(
    ("table", "suffix"),
    [
        (rows_of_text(), "csv"),
        (rows_of_text("FileName,Annotation"), "csv"),
        (columns("Workers"), "csv"),
        (
            columns(
                *("WorkerID", "EmoDom", "EmoVal", "EmoAct"),
                *("EmoClass_Second", "WorkerID", "EmoClass_Major"),
            ),
            "csv",
        ),
        (objects(listed=False), "json"),
        (objects(listed=True), "json"),
    ],
)
def test_all_shapes_of_the_raters_table_say_the_same(
    tmp_path: Path, table: str, suffix: str
) -> None:
    corpus = MspPodcast(release(tmp_path, {1: "X", 2: "O"}, table, suffix), targets=ALL)
    assert list(corpus.ratings()) == [
        Rating(
            *(f"{CLIP}1", "01"),
            label="happy",
            secondary=("concerned", "disappointed"),
            values={"arousal": 5, "valence": 6, "dominance": 4},
        ),
        Rating(
            *(f"{CLIP}1", "02"),
            label="sad",
            values={"arousal": 2, "valence": 2, "dominance": 3},
        ),
        Rating(
            *(f"{CLIP}2", "01"),
            label="other",
            secondary=("angry",),
            values={"arousal": 4, "valence": 4, "dominance": 4},
        ),
    ]
    first, second = corpus.items()
    assert (first.votes, first.votes_outside, first.secondary) == ({"sad": 1, "happy": 1}, 0, None)
    assert list(first.votes or ()) == ["sad", "happy"]  # in the order of the classes
    assert (second.votes, second.votes_outside) == (None, 1)
    assert first.values == {"arousal": 1.5, "valence": 4.1, "dominance": 3.133333}
    assert list(corpus.warnings) == []


@pytest.mark.parametrize(
    ("cell", "primary", "secondary"),
    [
        ("WORKER1; Happy; Happy,Amused; A:1; V:2; D:3;", "Happy", "Happy,Amused"),
        ("WORKER1; Happy; A:1; V:2; D:3", "Happy", ""),
        (
            'WORKER1; Other-a; b, "c/d" (e); Sad; A:1; V:2; D:3;',
            'Other-a; b, "c/d" (e)',
            "Sad",
        ),
        ("WORKER1; Other-A:7; ; D:3; A:1; V:2;", "Other-A:7", ""),
    ],
)
def test_a_cell_of_a_rater_is_read_from_both_ends(cell: str, primary: str, secondary: str) -> None:
    found = {name: part.strip() for name, part in split_detail(cell).items()}
    assert found == {
        "WorkerID": "WORKER1",
        "EmoClass_Major": primary,
        "EmoClass_Second": secondary,
        "EmoAct": "1",
        "EmoVal": "2",
        "EmoDom": "3",
    }


@pytest.mark.parametrize("cell", ["", "WORKER1", "WORKER1; Happy; A:1; V:2;", "A:1; V:2; D:3;"])
def test_a_cell_that_is_no_rating_is_refused_with_its_line(tmp_path: Path, cell: str) -> None:
    root = release(tmp_path, {1: "H"}, f"FileName,EmoDetail\n{CLIP}1.wav,{cell}\n")
    with pytest.raises(ManifestError, match=r"labels_detailed.csv, line 2: .* is no rating"):
        list(MspPodcast(root, targets=ALL).items())


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (f"{LFS_BEGIN}.github.com/spec/v1\n", "is a git-LFS pointer, not a table"),
        (json.dumps({CLIP: [1]}), f"'{CLIP}': expected an object with one object for each worker"),
        (json.dumps({CLIP: {"Workers": [1]}}), "expected an object with one object for each"),
        (json.dumps({CLIP: {"Workers": [{"EmoAct": 1}]}}), "worker ''; expected both"),
    ],
)
def test_another_shape_of_the_json_is_refused(tmp_path: Path, table: str, reason: str) -> None:
    root = release(tmp_path, {1: "H"}, table, "json")
    with pytest.raises(ManifestError, match=rf"labels_detailed.json.*{reason}"):
        list(MspPodcast(root, targets=ALL).items())


def test_a_rater_who_is_listed_twice_for_a_clip_is_counted_once(tmp_path: Path) -> None:
    said = [{"Name": "WORKER1", "EmoClass_Major": name} for name in ("Sad", "Happy")]
    table = json.dumps({f"{CLIP}1.wav": {"Workers": said}})
    corpus = MspPodcast(release(tmp_path, {1: "H"}, table, "json"), targets=ALL)
    (item,) = corpus.items()
    assert item.votes == {"sad": 1}
    assert [line.split(",")[0] for line in corpus.warnings] == [
        "1 ratings are the second of a rater for a clip"
    ]


@pytest.mark.parametrize(
    ("primary", "second", "tags"),
    [
        ("Happy", "Happy,Amused", ("amused",)),
        ("Happy", "Happy", None),
        ("Other", "Other-well,Sad", ("sad",)),
        ("Other-well, sad", "Other-well, sad,Angry", ("angry",)),
        ("Sad", "Amused,Sad,Dissapointed,Amused", ("amused", "disappointed")),
    ],
)
def test_a_secondary_emotion_is_not_the_primary_again(
    tmp_path: Path, primary: str, second: str, tags: tuple[str, ...] | None
) -> None:
    cell = quoted(detail("1", primary, second, "4", "4", "4"))
    root = release(tmp_path, {1: "H"}, f"FileName,EmoDetail\n{CLIP}1.wav,{cell}\n")
    (rating,) = MspPodcast(root, targets=ALL).ratings()
    assert rating.secondary == tags


def fates(tmp_path: Path, **options: Any) -> dict[str, Item]:
    letters = dict(enumerate("HSXOU", 1))
    rows = "".join(
        f"{CLIP}{n}.wav,{quoted(detail(worker, emotion, '', '4', '4', '4'))}\n"
        for n in letters
        for worker, emotion in (("1", "Happy"), ("2", "Surprise"), ("3", "Other-eager"))
    )
    root = release(tmp_path, letters, f"FileName,EmoDetail\n{rows}")
    corpus = MspPodcast(root, targets=ALL, **options)
    return {str(letters[int(item.id[-1])]): item for item in corpus.items()}


@pytest.mark.parametrize(
    ("policy", "excluded", "train_only"),
    [("drop", True, False), ("train", False, True), ("keep", False, False)],
)
def test_policies_without_agreement(
    tmp_path: Path, policy: str, excluded: bool, train_only: bool
) -> None:
    found = fates(tmp_path, no_agreement=policy)
    assert (found["X"].excluded is not None, found["X"].train_only) == (excluded, train_only)
    # Two of three raters named other things, so that a class could be made up: none is.
    assert found["X"].label is None
    assert found["X"].votes == {"happy": 1, "surprise": 1}
    assert found["O"].excluded is not None


def test_policies_for_another_emotion(tmp_path: Path) -> None:
    dropped = fates(tmp_path)
    assert dropped["O"].excluded == "label O (other) is not among the classes of eight_class"
    kept = fates(tmp_path, other="outside")["O"]
    assert (kept.excluded, kept.label, kept.votes_outside) == (None, None, 1)
    ninth = fates(tmp_path, other="class")["O"]
    assert (ninth.label, ninth.votes_outside) == ("other", 0)
    assert ninth.votes == {"happy": 1, "surprise": 1, "other": 1}
    four = fates(tmp_path, labels="four_class", other="outside")
    assert (four["U"].label, four["U"].votes, four["U"].votes_outside) == (None, {"happy": 1}, 2)


@pytest.mark.parametrize("options", [{"no_agreement": "keep"}, {"other": "outside"}])
def test_a_policy_needs_a_target_that_such_rows_have(
    tmp_path: Path, options: Mapping[str, Any]
) -> None:
    with pytest.raises(ParamsError, match="expected votes or attributes among the targets"):
        MspPodcast(tmp_path, **options)


def test_clips_in_one_table_alone_are_counted_and_two_releases_refused(tmp_path: Path) -> None:
    rows = [
        f"{CLIP}{n}.wav,{quoted(detail('1', 'Happy', '', '4', '4', '4'))}" for n in range(2, 31)
    ]
    table = "\n".join(["FileName,EmoDetail", *rows, rows[0]]) + "\n"
    letters = dict.fromkeys(range(1, 30), "H")
    corpus = MspPodcast(release(tmp_path, letters, table), targets=("classes", "votes"))
    found = {item.id: item for item in corpus.items()}
    assert found[f"{CLIP}1"].votes is None  # its class stays
    assert found[f"{CLIP}2"].votes == {"happy": 1}
    assert [line.partition(",")[0] for line in corpus.warnings] == [
        "1 clips are in the raters' table and not in the consensus one",
        "1 clips are in the consensus table and not in the raters' one",
        "1 ratings are the second of a rater for a clip",
    ]
    release(tmp_path, dict.fromkeys(range(20, 40), "H"), table)
    with pytest.raises(ManifestError, match="expected at most 10%, as tables of one release"):
        list(MspPodcast(tmp_path, targets=("classes", "votes")).items())


def test_a_value_off_the_scale_is_a_fault_of_its_row(tmp_path: Path) -> None:
    root = release(tmp_path, {1: "H", 13: "H", 14: "H"}, None)
    path = root / "Labels" / "labels_consensus.csv"
    path.write_text(path.read_text().replace(",1.5,4.1,", ",,nan,"))
    corpus = MspPodcast(root, targets=("classes", "attributes"))
    one, other, _ = corpus.items()
    assert (one.fault, one.values) == (None, {"dominance": 3.133333})  # the others are unknown
    assert other.fault == "EmoAct is '7.5'; expected a number from 1 to 7"
    # Classes alone ask for none of these columns.
    assert all(item.fault is None and item.values is None for item in MspPodcast(root).items())
    with pytest.raises(ManifestError, match="expected the raters' table, since votes are asked"):
        list(MspPodcast(root, targets=ALL).items())


def test_a_release_with_test3_through_prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = release(tmp_path / "msp", dict(enumerate("HSHSHSX", 1)), rows_of_text())
    write_level(root / "Audios" / "MSP-PODCAST_test3_0001.wav")
    set_root(monkeypatch, "msp_podcast", root)
    # Of seven clips two are rated: the tables are of one release all the same.
    monkeypatch.setattr("features.corpora.msp_podcast.UNMATCHED", 0.8)
    settings = {"targets": list(ALL), "no_agreement": "train", "predict_unlabelled": True}
    entry = corpus_entry("msp_podcast", settings | {"kind": "msp_podcast"})
    done = prepare(entry, tmp_path / "data" / "msp_podcast")
    card, labels = read_labelled(tmp_path / "data" / "msp_podcast" / "labels")
    assert "Labels/labels_detailed.csv" in card["tables"]
    splits = [label.splits[0] for label in labels]
    assert splits == [*["train"] * 2, *["valid"] * 2, *["test"] * 2, "train", "unlabelled"]
    assert labels[-2].label is None
    assert (labels[-1].id, labels[-1].label, labels[-1].values) == (
        *("MSP-PODCAST_test3_0001", None),
        None,
    )
    assert card["targets"]["policies"] == {"no_agreement": "train", "other": "drop"}
    assert card["targets"]["attributes"]["arousal"]["known"] == [
        {"train": 3, "valid": 2, "test": 2}
    ]
    assert len(read_ratings(tmp_path / "data" / "msp_podcast" / "ratings")) == done.ratings == 3


def test_tables_of_the_corpus_in_the_projects_git_are_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = release(tmp_path / "msp", dict(enumerate("HSHSHS", 1)), None)
    set_root(monkeypatch, "msp_podcast", root)
    models = {"m": {"kind": "concat", "speech": "tone"}}

    def problems(**settings: Any) -> list[str]:
        corpora = {"msp_podcast": settings}
        backbones: dict[str, Any] = {"tone": {}, "none": {}}
        params = Params("m", "cached", "msp_podcast", None, {}, corpora, backbones, models)
        return [line for line in find_problems(params) if "Git" in line]

    rated = {"targets": ["classes", "attributes"]}
    subprocess.run(["git", "init", "-q"], check=True)
    assert problems(**rated) == []
    subprocess.run(["git", "add", "msp/Labels"], check=True)
    (line,) = problems(**rated)
    assert "Git tracks 1 tables of it, such as msp/Labels/labels_consensus.csv" in line
    assert problems() == []  # classes alone were always so
