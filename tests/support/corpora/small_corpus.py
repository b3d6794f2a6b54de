"""Corpora in a temporary folder, for tests of adapters, of `prepare` and after."""

from __future__ import annotations

import csv
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from features.corpus.entry import corpus_entry
from features.corpus.prepare import Prepared, prepare

HEAD = "audio,text,start,stop,label,speaker,dialogue,split,id"
SPLITS = ("train", "train", "valid", "test")


def set_root(monkeypatch: pytest.MonkeyPatch, corpus: str, root: Path) -> None:
    """Set the root of a corpus; the folder above it becomes the current one and holds caches."""
    monkeypatch.chdir(root.parent)
    monkeypatch.setenv(f"HERONRY_{corpus.upper()}_ROOT", str(root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "cache"))


def write_level(path: Path, samples: int = 1600, rate_hz: int = 16_000, channels: int = 1) -> None:
    """Write an audio file of constant level. It depends on the path: equal files would leak."""
    path.parent.mkdir(parents=True, exist_ok=True)
    level = zlib.crc32(f"{path.parent.name}/{path.name}".encode()) / 2**33
    wave = np.full((samples, channels), level) * np.arange(1, channels + 1) / channels
    kind = "FLAC" if path.suffix == ".flac" else "WAV"
    soundfile.write(path, wave, rate_hz, format=kind, subtype="PCM_16")


class SmallCorpus:
    """The corpus `mine`, below the current folder, and the output of `prepare` for it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        set_root(monkeypatch, "mine", folder / "corpus")
        self.root, self.out = folder / "corpus", folder / "data" / "mine"
        self.root.mkdir()

    def audio(self, name: str, seconds: float = 0.25) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True, parents=True)
        # A pitch of its own: equal files would be one recording.
        hz = 200 + 200 * zlib.crc32(name.encode()) / 2**32
        time_s = np.arange(round(16_000 * seconds)) / 16_000
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * hz * time_s), 16_000)

    def table(self, *rows: str) -> None:
        (self.root / "manifest.csv").write_text("\n".join([HEAD, *rows]) + "\n", encoding="utf-8")

    def four(self) -> None:
        """Four speakers with an utterance each, happy and sad in turn."""
        for number in range(4):
            self.audio(f"{number}.wav")
        self.table(*self.rows())

    def rows(self) -> list[str]:
        return [
            f"{n}.wav,hm {n},,,{('happy', 'sad')[n % 2]},s{n},d{n},{split},"
            for n, split in enumerate(SPLITS)
        ]

    def prepare(self, **settings: Any) -> Prepared:
        entry = corpus_entry("mine", {"kind": "manifest", **settings})
        return prepare(entry, self.out)

    def rejected(self) -> dict[str, str]:
        with (self.out / "labels" / "rejected.csv").open(newline="") as file:
            return {row["id"]: row["reason"] for row in csv.DictReader(file)}

    def written(self) -> dict[str, bytes]:
        files = sorted(path for path in self.out.rglob("*") if path.is_file())
        return {path.relative_to(self.out).as_posix(): path.read_bytes() for path in files}
