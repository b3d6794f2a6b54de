"""A corpus of the kind `manifest` in a temporary folder, for tests of `prepare` and after."""

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


class SmallCorpus:
    """The corpus `mine`, below the current folder: its files, and what `prepare` makes of them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("HERONRY_MINE_ROOT", str(folder / "corpus"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
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
