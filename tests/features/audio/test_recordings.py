"""Recordings by file, folder and pattern."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.audio.recordings import find_recordings
from features.errors import ManifestError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b/2.FLAC", "b/1.wav", "b/._1.wav", "b/notes.txt", "a.wav", ".hidden/x.wav"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["."], ["a.wav", "b/1.wav", "b/2.FLAC"]),
        (["b", "a.wav"], ["b/1.wav", "b/2.FLAC", "a.wav"]),
        (["b/1.wav", "b"], ["b/1.wav", "b/2.FLAC"]),
        (["b/notes.txt"], ["b/notes.txt"]),
        (["b/*.wav", "**/*.wav"], ["b/1.wav", "a.wav"]),
        (["?"], ["b/1.wav", "b/2.FLAC"]),
    ],
)
@pytest.mark.usefixtures("folder")
def test_each_once_in_the_order_given(given: list[str], found: list[str]) -> None:
    assert [path.as_posix() for path in find_recordings(given)] == found


def test_a_file_named_like_a_pattern_is_that_file(folder: Path) -> None:
    (folder / "a[1].wav").touch()
    assert find_recordings(["a[1].wav"]) == [Path("a[1].wav")]


def test_all_that_is_not_there_is_named_at_once(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(ManifestError) as caught:
        find_recordings(["a.wav", "A.flac", "empty", "*.mp3"])
    first, second, third = str(caught.value).splitlines()
    assert "there is no A.flac" in first
    assert "'a.wav'" in first
    assert "below the folder empty, which is empty; expected" in second
    assert ".wav" in second
    assert "nothing matches *.mp3" in third
    with pytest.raises(ManifestError, match="no recordings are named"):
        find_recordings([])
