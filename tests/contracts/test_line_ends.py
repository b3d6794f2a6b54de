"""DVC hashes files byte for byte, so that they must be the same on every machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.paths import ROOT

SOURCE = ROOT
FILES = ("dvc.yaml", "features/cache/reader.py", "sources/mine.json", "stages/train/dvc.lock")
TEXT, SHARD = b"a\nb\n", b"\x89HDF\r\n\x1a\n\0\r\n"


def test_windows_line_ends_do_not_reach_what_dvc_hashes(tmp_path: Path) -> None:
    """core.autocrlf retrained everything: 37 source files of `train` had changed."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-c", "core.autocrlf=true", *words],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    git("init", "-q")
    shutil.copy(SOURCE / ".gitattributes", tmp_path)
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(TEXT)
    (tmp_path / "shard.h5").write_bytes(SHARD)
    git("add", "-A")
    git("-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "Start")
    for name in (*FILES, "shard.h5"):
        (tmp_path / name).unlink()
    git("checkout", "--", ".")
    assert {(tmp_path / name).read_bytes() for name in FILES} == {TEXT}
    assert (tmp_path / "shard.h5").read_bytes() == SHARD
