"""Unions: whose rows they hold under which names, classes that are declared, features shared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.backbone.entry import backbone_entry
from features.cache.members import MEMBERS
from features.cache.reader import CacheReader
from features.corpora.union import _spread
from features.corpus.entry import CorpusEntry, corpus_entry
from features.corpus.labels_folder import read_labelled
from features.corpus.manifest import Manifest
from features.corpus.places import with_audio
from features.corpus.prepare import prepare, rehearse
from features.corpus.sources import renew_record, take_record
from features.doctor.folder import check_against, check_cache
from features.errors import ManifestError, ParamsError
from features.extraction.extract import Extraction, extract
from features.files.reasons import read_reasons
from features.files.yaml_text import read_yaml
from tests.support.corpora.small_corpus import write_level
from tests.support.markdown import blocks_of

HEAD = "id,audio,text,label,speaker,dialogue,split"
JOYFUL = {"b": {"joyful": "happy", "calm": None}}


def write_member(name: str, classes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Five speakers with an utterance of each class, and one row without audio."""
    root = Path(name).absolute()
    rows = []
    for speaker in range(5):
        split = ("train", "train", "train", "valid", "test")[speaker]
        for label in classes:
            id = f"{speaker}_{label}"
            write_level(root / f"{id}.wav")
            rows.append(f"{id},{id}.wav,words of {label},{label},s{speaker},,{split}")
    rows.append(f"silent,,nothing but words,{classes[0]},s0,,train")
    (root / "manifest.csv").write_text("\n".join([HEAD, *rows]) + "\n", encoding="utf-8")
    monkeypatch.setenv(f"HERONRY_{name.upper()}_ROOT", str(root))


@pytest.fixture
def corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Entries of two corpora that exist, and of their union."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERONRY_STORE", str(tmp_path / "store"))
    write_member("a", ("happy", "sad"), monkeypatch)
    write_member("b", ("sad", "joyful", "calm"), monkeypatch)
    own = {"kind": "manifest", "shard_seconds": 0.5, "shard_characters": 60}
    return {
        "a": own | {"protocol": "official"},
        "b": own | {"protocol": "speaker_split"},
        "both": {"kind": "union", "of": ["a", "b"], "labels": JOYFUL},
    }


def entry(corpora: dict[str, Any], name: str, **changes: Any) -> CorpusEntry:
    return corpus_entry(name, corpora[name] | changes, corpora)


def prepared(corpora: dict[str, Any], name: str, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """Card and labels by id of a corpus that is prepared now."""
    prepare(entry(corpora, name, **changes), Path("data", name))
    card, labels = read_labelled(Path("data", name, "labels"))
    return card, {label.id: label for label in labels}


def extracted(corpus: str, backbone: str = "tone", **settings: Any) -> Extraction:
    folder = Path("data", corpus, "utterances")
    manifest = with_audio(Manifest.read(folder), folder)
    entry = backbone_entry(backbone, {"kind": backbone, **settings})
    return extract(manifest, entry, Path("cache", corpus, backbone), store=Path("store"))


def test_rows_are_those_of_the_members_under_names_of_their_own(corpora: dict[str, Any]) -> None:
    _, a = prepared(corpora, "a")
    _, b = prepared(corpora, "b")
    card, both = prepared(corpora, "both")
    assert card["classes"] == ["happy", "sad"]
    calm = {id for id, label in b.items() if label.label == "calm"}
    assert list(both) == [f"a/{id}" for id in a] + [f"b/{id}" for id in b if id not in calm]
    for name, own in (("a", a), ("b", b)):
        for id, label in own.items():
            if id in calm and name == "b":
                continue
            found = both[f"{name}/{id}"]
            assert found.speaker == f"{name}/{label.speaker}"
            assert found.splits == label.splits  # each member's own protocol
            wanted = "happy" if label.label == "joyful" else label.label
            assert (found.label, found.text, found.seconds) == (wanted, label.text, label.seconds)
    rejected = read_reasons(Path("data/both/labels/rejected.csv"))
    assert set(rejected) == {f"b/{id}" for id in calm}
    assert set(rejected.values()) == {"its class 'calm' is left out of the union"}


def test_another_protocol_divides_the_speakers_of_all_members(corpora: dict[str, Any]) -> None:
    card, both = prepared(corpora, "both", protocol="speaker_folds", folds=5)
    assert card["folds"] == 5
    speakers: dict[str, set[tuple[str, ...]]] = {}
    for label in both.values():
        speakers.setdefault(label.speaker, set()).add(label.splits)
    assert len(speakers) == 10
    assert all(len(splits) == 1 for splits in speakers.values())


def test_a_member_of_one_fold_is_tested_once(corpora: dict[str, Any]) -> None:
    corpora["b"] |= {"protocol": "speaker_folds", "folds": 5}
    _, both = prepared(corpora, "both")
    a = {label.splits for id, label in both.items() if id.startswith("a/")}
    assert a == {
        ("train",) * 5,
        ("valid",) * 5,
        ("test", "unused", "unused", "unused", "unused"),
    }
    assert _spread(("unlabelled",), 3) == ("unlabelled",) * 3
    _, first = prepared(corpora, "both", fold=1)
    assert {label.splits for label in first.values()} <= {
        (s,) for s in ("train", "valid", "test", "unused")
    }
    corpora["a"] |= {"protocol": "speaker_folds", "folds": 3}
    with pytest.raises(ManifestError, match="numbers of folds of the members: a 3, b 5; expected"):
        prepared(corpora, "both")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"labels": None},
            r"class 'joyful' of b \(5 utterances\) is not in a; expected what it is",
        ),
        ({"labels": {"b": {"joyful": "happy"}}}, r"\{b: \{calm: null\}\} to leave these out"),
        ({"labels": JOYFUL | {"c": {}}}, r"corpora.both.labels: given 'c'; expected one of"),
        ({"labels": {"b": JOYFUL["b"] | {"clam": None}}}, "labels.b: given 'clam'; expected one"),
        (
            {"labels": {"b": {"joyful": "happy", "calm": "sda"}}},
            "labels.b.calm: given 'sda', to which nothing else belongs; .*'sad'",
        ),
        ({"same_speakers": [["a/s0", "b/s9"]]}, "same_speakers: given 'b/s9'; expected one of"),
        (
            {"same_speakers": [["a/s0", "b/s0"], ["b/s0", "a/s1"]]},
            "same_speakers: given 'b/s0' 2 times; expected it once",
        ),
        ({"targets": ["votes"]}, r"no utterance of its members can be used \(.*it has no votes"),
    ],
)
def test_what_is_not_declared_is_refused_by_check_as_well(
    corpora: dict[str, Any], changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ManifestError, match=told):
        prepared(corpora, "both", **changes)
    (problem,) = rehearse(entry(corpora, "both", **changes), Path("nothing")).problems
    assert problem
    found = rehearse(entry(corpora, "both"), Path("nothing"))
    assert (found.problems, found.classes) == ((), ("happy", "sad"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"of": ["a"]}, r"given \['a'\]; expected two or more, each once"),
        ({"of": ["a", "a"]}, "expected two or more, each once"),
        ({"of": ["a", "c"]}, "corpora.both.of: given 'c'; expected one of"),
        ({"of": ["a", "both"]}, "that is no union itself"),
        ({"members": []}, "members: given an unknown key"),
    ],
)
def test_members_are_other_entries(
    corpora: dict[str, Any], changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ParamsError, match=told):
        entry(corpora, "both", **changes)


def test_a_person_or_a_recording_of_two_members_may_not_cross_splits(
    corpora: dict[str, Any],
) -> None:
    _, both = prepared(corpora, "both")
    splits = {label.speaker: label.splits[0] for label in both.values()}
    trained = next(name for name in splits if name[0] == "b" and splits[name] == "train")
    with pytest.raises(ManifestError, match=r"splits leak:\n  speaker: 1 of 9 .* a/s4"):
        prepared(corpora, "both", same_speakers=[["a/s4", trained]])
    _, one = prepared(corpora, "both", same_speakers=[["a/s0", trained]])
    assert trained not in {label.speaker for label in one.values()}
    tested = next(
        label for label in both.values() if label.id[0] == "a" and label.splits == ("test",)
    )
    other = next(label for label in both.values() if label.speaker == trained and label.audio)
    assert tested.audio is not None
    assert other.audio is not None
    Path(other.audio).write_bytes(Path(tested.audio).read_bytes())
    with pytest.raises(ManifestError, match="recording: 1 of"):
        prepared(corpora, "both")


@pytest.mark.parametrize("backbone", ["tone", "logmel"])
def test_nothing_is_extracted_or_stored_twice(corpora: dict[str, Any], backbone: str) -> None:
    for name in corpora:
        prepared(corpora, name)
    assert extracted("a", backbone).computed == 10
    done = extracted("both", backbone)
    assert (done.computed, done.copied) == (15, 0)  # of b, which is linked now
    again = extracted("b", backbone)
    assert (again.computed, again.copied, again.linked) == (0, 0, 3)
    files = [
        path for name in ("a", "b") for path in sorted(Path("cache", name, backbone).glob("*.h5"))
    ]
    joined = sorted(Path("cache", "both", backbone).glob("*.h5"))
    assert [path.stat().st_ino for path in joined] == [path.stat().st_ino for path in files]
    whole = CacheReader(Path("cache", "both", backbone), verify=True)
    for name in ("a", "b"):
        own = CacheReader(Path("cache", name, backbone))
        for id in own:
            assert np.array_equal(own[id], whole[f"{name}/{id}"])
    assert set(whole.rejected) == {"a/silent", "b/silent"}
    manifest = Manifest.read(Path("data/both/utterances"))
    found = check_cache(Path("cache", "both", backbone))
    assert [*found.faults, *check_against(found, manifest)] == []


def test_shards_of_pulled_caches_are_used_where_the_store_lacks_them(
    corpora: dict[str, Any], tmp_path: Path
) -> None:
    for name in corpora:
        prepared(corpora, name)
    extracted("a")
    extracted("b")
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    done = extracted("both")
    assert (done.computed, done.copied, done.linked) == (0, 0, 5)
    assert len(list(Path("cache/both/tone").glob("*.h5"))) == 5


def test_a_member_that_lacks_a_modality_is_left_out_of_that_cache(
    corpora: dict[str, Any],
) -> None:
    table = Path("a/manifest.csv")
    table.write_text(re.sub(r",[^,]*\.wav,", ",,", table.read_text()))
    prepared(corpora, "both")
    assert extracted("both").computed == 15
    whole = CacheReader(Path("cache/both/tone"))
    assert {id[0] for id in whole} == {"b"}
    assert sum(id.startswith("a/") for id in whole.rejected) == 11
    assert Path("cache/both/tone", MEMBERS).read_text().split() == ["member,shards", "a,0", "b,3"]


def test_the_record_names_each_member_and_changes_with_its_tables_audio_and_entry(
    corpora: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = take_record(entry(corpora, "both"))
    assert set(first["members"]) == {"a", "b"}
    assert set(first["tables"]) == {"a/manifest.csv", "b/manifest.csv"}
    corpora["a"] |= {"protocol": "speaker_split"}
    second = take_record(entry(corpora, "both"))
    assert second["members"]["a"] != first["members"]["a"]
    assert second["members"]["b"] == first["members"]["b"]
    write_level(Path("b/more.wav").absolute())
    third = take_record(entry(corpora, "both"))
    assert third["members"]["b"] != first["members"]["b"]
    assert third["audio"]["files"] == first["audio"]["files"] + 1
    _, kept = renew_record(entry(corpora, "both"))
    assert kept is None
    monkeypatch.delenv("HERONRY_A_ROOT")
    record, kept = renew_record(entry(corpora, "both"))
    assert "corpus 'a' has no root" in str(kept)
    assert record == third


def test_votes_follow_the_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two demo corpora of another seed each, whose audio is generated below the union."""
    monkeypatch.chdir(tmp_path)
    asked = ["classes", "votes", "attributes"]
    small = {"kind": "demo", "utterances": 104, "targets": asked}
    corpora: dict[str, Any] = {"one": small, "two": small | {"seed": 1}}
    labels = {name: {"other": None, "sad": "low"} for name in ("one", "two")}
    corpora["both"] = {"kind": "union", "of": ["one", "two"], "targets": asked, "labels": labels}
    found = rehearse(entry(corpora, "both"), tmp_path / "nothing")
    assert found.problems == ()
    assert found.targets is not None
    assert "arousal 1 to 7" in found.targets
    assert "low" in found.classes
    assert not {"other", "sad"} & set(found.classes)


def test_an_attribute_has_one_scale(corpora: dict[str, Any]) -> None:
    for name, high in (("a", 7), ("b", 5)):
        table = Path(name, "manifest.csv")
        head, *rows = table.read_text().splitlines()
        table.write_text(
            "\n".join([f"{head},arousal", *(f"{row},{1 + n % 5}" for n, row in enumerate(rows))])
        )
        corpora[name] |= {
            "targets": ["classes", "attributes"],
            "attributes": {"arousal": [1, high]},
        }
    assert rehearse(entry(corpora, "both"), Path("nothing")).problems == ()
    asked = entry(corpora, "both", targets=["classes", "attributes"])
    (problem,) = rehearse(asked, Path("nothing")).problems
    assert "'arousal' runs from 1 to 5 in b and from 1 to 7 in a; expected one scale" in problem
    corpora["b"]["attributes"]["arousal"] = [1, 7]
    card, both = prepared(corpora, "both", targets=["attributes"])
    assert card["targets"]["attributes"]["arousal"]["high"] == 7
    assert len(both) == 27  # with those of a class that the union leaves out
    # What one member alone has is not asked of the other, whose rows would have no truth at all.
    del corpora["b"]["targets"], corpora["b"]["attributes"]
    table = Path("b/manifest.csv")
    table.write_text(re.sub(r",[^,]*$", "", table.read_text(), flags=re.MULTILINE))
    _, both = prepared(corpora, "both", targets=["attributes"])
    assert {id[0] for id in both} == {"a"}
    reasons = read_reasons(Path("data/both/labels/rejected.csv"))
    assert set(reasons.values()) == {"it has no value of an attribute"}
    assert len(reasons) == 16


def test_the_entry_of_the_guide_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/transfer.md, with the demo and a table in which anna is trained on."""
    (block,) = (each for each in blocks_of("docs/transfer.md") if each.language == "yaml")
    monkeypatch.chdir(tmp_path)
    classes = ("angry", "joyful", "neutral", "sad")
    write_member("mine", classes, monkeypatch)
    table = Path("mine/manifest.csv")
    table.write_text(re.sub(r",s0,", ",anna,", table.read_text()))
    corpora: dict[str, Any] = {
        **read_yaml(block.code)["corpora"],
        "demo": {"kind": "demo", "protocol": "official"},
        "mine": {"kind": "manifest", "protocol": "official"},
    }
    found = rehearse(entry(corpora, "all"), tmp_path / "nothing")
    assert found.problems == ()
    assert set(found.classes) == {"sad", "neutral", "angry", "happy"}
    del corpora["all"]["labels"]["demo"]["other"]
    (problem,) = rehearse(entry(corpora, "all"), tmp_path / "nothing").problems
    assert "the class 'other' of demo (52 utterances) is not in mine" in problem
