"""Equal audio is one recording, whatever it is called; spans of a file are one recording, too."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from features.corpora._adapter import Item
from features.errors import ManifestError
from features.leaks import find_leaks
from features.preparation import Prepared, corpus_entry, prepare

ITEMS = [
    Item("1", "sad", "anna", audio="a.wav"),
    Item("2", "sad", "bert", audio="copies/a.wav"),
    Item("3", "happy", "cleo", audio="c.wav"),
]
SPLITS = [("train",), ("test",), ("valid",)]


def test_equal_content_under_two_names_is_one_recording() -> None:
    contents = {"a.wav": "f00", "copies/a.wav": "f00", "c.wav": "ba5"}
    assert [str(leak) for leak in find_leaks(ITEMS, SPLITS, contents)] == [
        "recording: 1 of 2 occur in more than one split (fold 0), "
        "such as a.wav = copies/a.wav (train, test)"
    ]
    assert find_leaks(ITEMS, SPLITS, contents | {"copies/a.wav": "f01"}) == []
    assert find_leaks(ITEMS, SPLITS) == []


def test_equal_content_within_a_split_or_unused_leaks_nothing() -> None:
    contents = dict.fromkeys(("a.wav", "copies/a.wav"), "f00")
    assert find_leaks(ITEMS, [("train",), ("train",), ("test",)], contents) == []
    assert find_leaks(ITEMS, [("train",), ("unused",), ("test",)], contents) == []


def test_spans_of_one_file_are_one_recording_apart_or_not() -> None:
    for start in (0.5, 1.0):
        items = [
            Item("1", "sad", "anna", audio="a.wav", start=0.0, stop=1.0),
            Item("2", "sad", "bert", audio="a.wav", start=start, stop=2.0),
        ]
        (leak,) = find_leaks(items, [("train",), ("test",)], {"a.wav": "f00"})
        assert (leak.kind, leak.examples) == ("recording", ("a.wav (train, test)",))


def test_many_names_are_not_all_quoted() -> None:
    items = [Item(str(n), "sad", f"s{n}", audio=f"{n}.wav") for n in range(9)]
    splits = [("train",)] * 8 + [("test",)]
    (leak,) = find_leaks(items, splits, {f"{n}.wav": "f00" for n in range(9)})
    assert leak.examples == ("0.wav = 1.wav = 2.wav = 6 more (train, test)",)


def prepared(folder: Path, **settings: object) -> Prepared:
    entry = corpus_entry("mine", {"kind": "manifest", **settings})
    return prepare("mine", entry, folder / "data")


def test_prepare_refuses_a_copy_in_another_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERONRY_MINE_ROOT", str(tmp_path / "audio"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "memory"))
    (tmp_path / "audio").mkdir()
    rows = ["audio,label,speaker,split"]
    for number, split in enumerate(("train", "train", "valid", "test")):
        path = tmp_path / "audio" / f"{number}.wav"
        soundfile.write(path, np.full(4_000, number / 10), 16_000)
        rows.append(f"{path.name},{('sad', 'happy')[number % 2]},s{number},{split}")
    (tmp_path / "audio/manifest.csv").write_text("\n".join(rows) + "\n")
    assert prepared(tmp_path).card["leaks"] == []
    shutil.copy(tmp_path / "audio/1.wav", tmp_path / "audio/3.wav")
    with pytest.raises(ManifestError, match=r"recording: 1 of 3 .* 1\.wav = 3\.wav \(train, test"):
        prepared(tmp_path)
    card = prepared(tmp_path, allow_leak=["recording"]).card
    assert len(card["leaks"]) == 1
