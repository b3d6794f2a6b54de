"""The whole of `prepare` on small corpora: what it writes, what it refuses, and what it keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, BinaryIO

import pytest

from features.audio.read import inspect_audio
from features.corpus.manifest import Manifest, read_labels
from features.errors import ManifestError, ParamsError
from tests.support.corpora.small_corpus import SmallCorpus


def test_what_is_written(mine: SmallCorpus) -> None:
    mine.four()
    done = mine.prepare(shard_seconds=9, classes=["sad", "happy"])
    assert sorted(mine.written()) == [
        "labels/card.json",
        "labels/labels.jsonl",
        "labels/noticed.csv",
        "labels/rejected.csv",
        "ratings/ratings.jsonl",
        "utterances/corpus.json",
        "utterances/manifest.jsonl",
    ]
    assert mine.written()["ratings/ratings.jsonl"] == b""
    manifest = Manifest.read(mine.out / "utterances")
    assert (manifest.corpus, manifest.kind, manifest.generated) == ("mine", "manifest", False)
    assert (manifest.shard_seconds, manifest.shard_characters) == (9, 500_000)
    first = manifest[0]
    assert (first.id, first.audio, first.text, first.seconds) == ("0", "0.wav", "hm 0", 0.25)
    assert first.bytes == 8044
    assert len(first.sha256) == 64
    labels = read_labels(mine.out / "labels")
    assert [(row.id, row.label, row.speaker, row.splits) for row in labels] == [
        ("0", "happy", "s0", ("train",)),
        ("1", "sad", "s1", ("train",)),
        ("2", "happy", "s2", ("valid",)),
        ("3", "sad", "s3", ("test",)),
    ]
    assert [(row.seconds, row.text, row.audio) for row in labels[:2]] == [
        (0.25, "hm 0", "0.wav"),
        (0.25, "hm 1", "1.wav"),
    ]
    assert (done.utterances, done.hours, done.rejected) == (4, 1 / 3600, {})
    assert json.loads((mine.out / "labels" / "card.json").read_text()) == done.card


def test_preparing_twice_writes_the_same_bytes(mine: SmallCorpus) -> None:
    mine.four()
    mine.prepare()
    first = mine.written()
    (mine.out / "labels" / "stale.txt").touch()
    mine.prepare()
    assert mine.written() == first


def test_relabelling_and_another_protocol_leave_the_utterances_alone(mine: SmallCorpus) -> None:
    mine.four()
    mine.prepare()
    before = mine.written()
    rows = [row.replace("sad", "angry") for row in mine.rows()]
    rows[0] = rows[0].replace("happy", "")
    mine.table(*rows)
    mine.prepare(protocol="speaker_folds", folds=3)
    after = mine.written()
    assert mine.rejected() == {"0": "it has no label"}
    assert [row.id for row in read_labels(mine.out / "labels")] == ["1", "2", "3"]
    for name in ("utterances/corpus.json", "utterances/manifest.jsonl"):
        assert after[name] == before[name]


def test_files_that_have_not_changed_are_not_hashed_again(
    mine: SmallCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.files.reading.SETTLED_NS", -(10**12))  # as if they were old
    mine.four()
    mine.prepare()
    first = mine.written()
    heard: list[str] = []

    def count(file: BinaryIO, id: str) -> Any:
        heard.append(id)
        return inspect_audio(file, id)

    monkeypatch.setattr("features.corpus.inspection.inspect_audio", count)
    mine.prepare()
    assert heard == []
    assert mine.written() == first
    mine.audio("1.wav", seconds=0.5)
    mine.prepare()
    assert heard == ["1.wav"]
    assert Manifest.read(mine.out / "utterances")[1].seconds == 0.5


def test_spans_of_one_recording(mine: SmallCorpus) -> None:
    mine.audio("long.wav", seconds=3)
    mine.table(
        "long.wav,,0,1,sad,a,d,train,u0",
        "long.wav,,1,2.5,happy,b,d,valid,u1",
        "long.wav,,2.5,3.4,happy,c,d,test,u2",
        "long.wav,,2.5,3.6,happy,c,d,test,u3",
        "long.wav,,3,,happy,c,d,test,u4",
    )
    allowed = {"allow_leak": ["dialogue", "recording"], "allow_rejected": 2}
    done = mine.prepare(**allowed)
    assert [row.seconds for row in Manifest.read(mine.out / "utterances")] == [1.0, 1.5, 0.5]
    spans = [(row.start, row.stop, row.seconds) for row in read_labels(mine.out / "labels")]
    assert spans == [(0.0, 1.0, 1.0), (1.0, 2.5, 1.5), (2.5, 3.4, 0.5)]
    assert mine.rejected() == {
        "u3": "long.wav: the span 2.5 to 3.6 s is not within 3.000 s",
        "u4": "long.wav: the span 3.0 to 3.0 s is not within 3.000 s",
    }
    assert [leak.partition(":")[0] for leak in done.card["leaks"]] == ["dialogue", "recording"]
    assert done.card["allow_leak"] == ["dialogue", "recording"]


def spoil(mine: SmallCorpus, name: str, content: bytes | None) -> None:
    path = mine.root / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def test_unusable_audio_is_listed_whole_and_loses_nothing_else(mine: SmallCorpus) -> None:
    mine.four()
    for n in (4, 5, 6):
        mine.audio(f"{n}.wav")
    extra = [f"{n}.wav,,,,sad,s1,,train," for n in (4, 5, 6)]
    mine.table(*mine.rows(), *extra)
    spoil(mine, "4.wav", None)
    spoil(mine, "5.wav", b"no audio")
    spoil(mine, "6.wav", b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ManifestError) as caught:
        mine.prepare(allow_rejected=2)
    message = str(caught.value)
    assert "corpus 'mine': 3 of 7 utterances cannot be used" in message
    assert "4: 4.wav: there is no such file below the corpus root" in message
    assert "HERONRY_MINE_ROOT" in message
    assert "corpora.mine.allow_rejected: 3" in message
    assert list(mine.rejected()) == ["4", "5", "6"]
    assert "cannot be decoded" in mine.rejected()["5"]
    assert "git lfs pull" in mine.rejected()["6"]
    kept = mine.written()
    assert len(Manifest.read(mine.out / "utterances")) == 4
    assert len(read_labels(mine.out / "labels")) == 4
    done = mine.prepare(allow_rejected=3)
    assert mine.written() == kept
    assert list(done.rejected) == ["4", "5", "6"]
    assert done.card["rejected"] == 3


def test_only_twenty_are_quoted(mine: SmallCorpus) -> None:
    mine.four()
    mine.table(*mine.rows(), *(f"x{n}.wav,,,,sad,s1,,train," for n in range(25)))
    with pytest.raises(ManifestError, match=r"x19: x19\.wav.*\n  and 5 more\n") as caught:
        mine.prepare()
    assert "x20" not in str(caught.value)
    assert len(mine.rejected()) == 25


def test_a_wrong_root_whose_files_are_all_missing(mine: SmallCorpus) -> None:
    mine.table(*mine.rows())
    with pytest.raises(ManifestError, match="4 of 4 utterances cannot be used") as caught:
        mine.prepare(allow_rejected=4)
    assert "allow_rejected" not in str(caught.value)
    assert len(mine.rejected()) == 4


def test_roots_that_are_missing_or_empty(
    mine: SmallCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ParamsError, match=r"HERONRY_MINE_ROOT\), is empty"):
        mine.prepare()
    mine.root.rmdir()
    with pytest.raises(ParamsError, match=r"HERONRY_MINE_ROOT\), does not exist"):
        mine.prepare()
    monkeypatch.delenv("HERONRY_MINE_ROOT")
    with pytest.raises(ParamsError, match="HERONRY_MINE_ROOT is not set"):
        mine.prepare()


def refuse_empty(mine: SmallCorpus) -> None:
    mine.table()


def refuse_ids(mine: SmallCorpus) -> None:
    mine.table(*mine.rows(), "0.wav,,,,sad,s0,,train,")


def refuse_one_class(mine: SmallCorpus) -> None:
    mine.table(*(row.replace("sad", "happy") for row in mine.rows()))


def refuse_speaker(mine: SmallCorpus) -> None:
    mine.table(*(row.replace("s3", "s0") for row in mine.rows()))


def refuse_dialogue(mine: SmallCorpus) -> None:
    mine.table(*(row.replace("d3", "d0") for row in mine.rows()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (refuse_empty, r"'mine' is empty: nothing .*corpus; .*set HERONRY_MINE_ROOT"),
        (refuse_ids, r"id '0' occurs in lines \[2, 6\]; expected each id once"),
        (refuse_one_class, r"has the classes \['happy'\]; expected two or more"),
        (refuse_speaker, r"speaker: 1 of 3 .* s0 \(train, test\)[^$]*allow_leak: \[speaker\]"),
        (refuse_dialogue, r"dialogue: 1 of 3 .* d0 \(train, test\)[^$]*allow_leak: \[dialogue\]"),
    ],
)
def test_refusals(mine: SmallCorpus, change: Callable[[SmallCorpus], None], message: str) -> None:
    mine.four()
    change(mine)
    with pytest.raises(ManifestError, match=message):
        mine.prepare()
    assert not (mine.out / "labels" / "labels.jsonl").exists()


def test_a_speaker_in_two_splits_if_the_params_say_so(mine: SmallCorpus) -> None:
    mine.four()
    refuse_speaker(mine)
    card = mine.prepare(allow_leak=["speaker"]).card
    assert card["allow_leak"] == ["speaker"]
    assert card["leaks"] == [
        "speaker: 1 of 3 occur in more than one split (fold 0), such as s0 (train, test)"
    ]


def test_a_label_outside_the_classes(mine: SmallCorpus) -> None:
    mine.four()
    with pytest.raises(ManifestError, match=r"label 'sad' in lines \[3, 5\].*\['happy', 'fear'\]"):
        mine.prepare(classes=["happy", "fear"])


def test_ids_and_labels_of_any_adapter_are_checked(
    mine: SmallCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.four()
    monkeypatch.setattr("features.corpora.manifest._repeated", lambda *_: [])
    monkeypatch.setattr("features.corpora.manifest._outside", lambda *_: [])
    with pytest.raises(ManifestError, match=r"2 labels are not among .*1: 'sad', 3: 'sad'; exp"):
        mine.prepare(classes=["happy", "fear"])
    refuse_ids(mine)
    with pytest.raises(ManifestError, match=r"corpus 'mine': 1 ids occur more than once.*'0'"):
        mine.prepare()
