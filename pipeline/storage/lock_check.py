"""Compare the inputs of training with the lock files in Git, where DVC did not verify a pull.

DVC compares pulled objects with their MD5 only for remotes with `verify`, which `heronry
share setup` sets. Shards carry a checksum of their own, which finds damage but not forgery, and
labels carry none. So where a project has a remote without `verify`, training reads its inputs once
more and compares them with dvc.lock, which came by Git.

MD5 is what DVC addresses content by. Collisions of MD5 can be made, but do not help here: to forge
an output that somebody else has locked takes a second preimage, which nobody can compute.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from features.errors import CacheError
from features.files.yaml_text import read_yaml_file
from pipeline.storage.remote import unverified

LOCK_BYTES = 1 << 26  # largest lock file that is read


def check_locked(folders: Iterable[Path]) -> None:
    """Compare output folders with the lock files, if some remote is not verified.

    Folders that are in no lock file are skipped.

    Args:
        folders: Paths relative to the project, which is the current folder.

    Raises:
        CacheError: If a folder differs from its lock file.
    """
    remotes = unverified()
    if not remotes:
        return
    locked = _locked()
    for folder in dict.fromkeys(folders):
        expected = locked.get(folder.as_posix())
        if expected is None or (found := directory_md5(folder)) == expected:
            continue
        raise CacheError(
            f"{folder} is not what dvc.lock says: MD5 {found}, expected {expected}"
            f"{_changed(folder, expected)}. It was changed here, or by a remote that DVC does not "
            f"verify ({', '.join(remotes)}): remove the folder and these objects, set the remote "
            "up by `heronry share setup`, and pull again"
        )


def directory_md5(folder: Path) -> str:
    """DVC's hash of a folder: the MD5 of the sorted JSON list of its files and their MD5."""
    files = _files(folder)
    entries = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    # Byte for byte what DVC hashes, with the separators that json has by default.
    content = json.dumps(entries, sort_keys=True).encode()
    return f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}.dir"


def _changed(folder: Path, expected: str) -> str:
    """Files that differ, with the objects of DVC's default cache folder to be removed."""
    objects = Path(".dvc", "cache", "files", "md5")
    listed = objects / expected[:2] / expected[2:]
    # The list itself may be damaged, and is trusted only under the expected hash.
    if not listed.is_file() or _file_md5(listed) + ".dir" != expected:
        return ""
    files = _files(folder)
    wanted = {each["relpath"]: each["md5"] for each in json.loads(listed.read_bytes())}
    wrong = [
        f"{name} ({objects / md5[:2] / md5[2:]})"
        for name, md5 in wanted.items()
        if files.get(name) != md5
    ]
    return f", in {', '.join(wrong[:5])}" if wrong else ""


def _files(folder: Path) -> dict[str, str]:
    """MD5 of all files in a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): _file_md5(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


def _file_md5(path: Path) -> str:
    with path.open("rb") as file:
        # Systems in FIPS mode allow MD5 only where it is declared to protect nothing.
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _locked() -> dict[str, str]:
    """MD5 of the outputs of `prepare` and `extract`, by path, from their lock files."""
    found: dict[str, str] = {}
    for stage in ("prepare", "extract"):
        path = Path("stages", stage, "dvc.lock")
        if path.is_file():
            content: Any = read_yaml_file(path, most=LOCK_BYTES)
            entries = (content or {}).get("stages", {}).values()
            found |= {out["path"]: out["md5"] for entry in entries for out in entry["outs"]}
    return found
