"""The two DVC projects of benchmarks.sharing: a copy of this one, and one with a large folder."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.shared.clips import make_clips
from features.transcription.settings import Transcription

SOURCE = Path(__file__).parents[2]
COPIED = ("features", "pipeline", "stages", "dvc.yaml", ".dvcignore", ".gitignore")
MIB = 2**20
CLIP_SECONDS = 2.0
SPEAKERS = 10
WRITER = """
import os, pathlib, sys
folder, files, size = pathlib.Path("cache"), int(sys.argv[1]), int(sys.argv[2])
folder.mkdir(exist_ok=True)
for number in range(files):
    (folder / f"shard-{number:05d}.h5").write_bytes(os.urandom(size))
"""


class Project:
    """A Git and DVC repository in a folder, with another folder as its remote."""

    def __init__(self, root: Path) -> None:
        self.root, self.remote = root, root.parent / "remote"
        root.mkdir(parents=True, exist_ok=True)
        self.environment = os.environ | {"DVC_NO_ANALYTICS": "1", "PYTHONPATH": ""}
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._run("git", "init", "-q")
        self.dvc("init", "-q")
        self.dvc("remote", "add", "-d", "here", str(self.remote))

    def dvc(self, *words: str) -> float:
        """Wall-clock seconds of a DVC command."""
        return self._run(sys.executable, "-m", "dvc", *words)

    def _run(self, *words: str) -> float:
        start = time.perf_counter()
        done = subprocess.run(
            words,
            cwd=self.root,
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
        return time.perf_counter() - start


class SmallProject(Project):
    """A copy of this project, a corpus of synthetic clips, `tone` and `logmel`.

    Args:
        root: To be made.
        clips: How many.
    """

    def __init__(self, root: Path, clips: int) -> None:
        root.mkdir(parents=True)
        for name in COPIED:
            source = SOURCE / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.lock")
                shutil.copytree(source, root / name, ignore=ignored)
            else:
                shutil.copy(source, root / name)
        super().__init__(root)
        self.corpus, self.clips = root.parent / "corpus", 0
        store = root.parent / "store"
        self.environment |= {"HERONRY_MADE_ROOT": str(self.corpus), "HERONRY_STORE": str(store)}
        self.content = _params()
        self.add_clips(clips)

    def add_clips(self, count: int) -> None:
        """Write so many more clips, and a manifest of all."""
        made = make_clips(
            self.corpus / str(self.clips),
            [CLIP_SECONDS + 1e-4 * (self.clips + n) for n in range(count)],
        )
        table = self.corpus / "manifest.csv"
        is_new = not table.exists()
        with table.open("a", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(["id", "audio", "label", "speaker"])
            for number, utterance in enumerate(made, self.clips):
                path = Path(str(utterance.audio)).relative_to(self.corpus)
                label, speaker = "ab"[number % 2], f"s{number // 2 % SPEAKERS}"
                writer.writerow([f"u{number:06d}", path.as_posix(), label, speaker])
        self.clips += count

    def change(self, changes: Mapping[str, Any]) -> None:
        """Write params.yaml with other values at its top."""
        self.content |= changes
        (self.root / "params.yaml").write_text(yaml.safe_dump(self.content, sort_keys=False))

    def shards(self) -> int:
        """Files of the first backbone's cache."""
        return len(list((self.root / "cache/made/tone").glob("*.h5")))


class LargeProject(Project):
    """A stage whose output is a folder of files of random bytes.

    Args:
        root: To be made.
        size: Bytes in all.
        shards: Files.
    """

    def __init__(self, root: Path, size: int, shards: int) -> None:
        super().__init__(root / "project")
        self.size, self.shards = size, shards
        (self.root / "write.py").write_text(WRITER)
        command = f"python write.py {shards} {size // shards}"
        stage = {"cmd": command, "deps": ["write.py"], "outs": ["cache"]}
        (self.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"extract": stage}}))
        self.dvc("config", "cache.type", "hardlink")

    def listing_bytes(self) -> int:
        """Size of the list of the folder's files that DVC keeps."""
        return sum(p.stat().st_size for p in (self.root / ".dvc/cache").rglob("*.dir"))

    def checkout(self, kind: str) -> dict[str, Any] | str:
        """Seconds and growth of the disk when the folder is checked out by a kind of link."""
        self.dvc("config", "cache.type", kind)
        shutil.rmtree(self.root / "cache", ignore_errors=True)
        os.sync()
        before = shutil.disk_usage(self.root).used
        try:
            seconds = self.dvc("checkout")
        except SystemExit:
            return "not supported by this file system"
        os.sync()
        grown = shutil.disk_usage(self.root).used - before
        return {"seconds": round(seconds, 1), "grown_gib": round(grown / 2**30, 2)}

    def forget(self) -> None:
        """Remove the folder and DVC's cache, as in a fresh clone."""
        shutil.rmtree(self.root / "cache", ignore_errors=True)
        shutil.rmtree(self.root / ".dvc/cache")
        self.dvc("config", "cache.type", "hardlink")


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def _params() -> dict[str, Any]:
    names = ("text", "speech", "nonverbal", "prosody", "spectral", "asr")
    train = {"epochs": 2, "batch_size": 64, "lr": 0.01}
    small = {**dict.fromkeys(names, "none"), "kind": "concat", "seeds": 1, "train": train}
    both = {**small, "speech": "tone", "spectral": "mel"}
    corpus = {"kind": "manifest", "protocol": "speaker_split", "shard_seconds": 20.0}
    return {
        "fusion": "speech",
        "regime": "cached",
        "corpus": "made",
        "seeds": None,
        "train": {"epochs": None},
        "corpora": {"made": corpus},
        "backbones": {
            "tone": {"kind": "tone", "dim": 64, "version": 1},
            "mel": {"kind": "logmel", "n_mels": 32, "version": 1},
            "none": {},
        },
        "asr_backbones": {},
        "transcribe": vars(Transcription()),
        "models": {
            "speech": {**small, "speech": "tone", "args": {"d_model": 16}},
            "both": {**both, "args": {"d_model": 16}},
            "wider": {**both, "args": {"d_model": 32}},
        },
    }
