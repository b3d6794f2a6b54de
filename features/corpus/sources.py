"""What lies below a corpus root: SHA-256 of its tables, and a listing of its audio files.

`prepare` reads a root outside of the project, where DVC does not look. `sources/<corpus>.json` is
what DVC sees of it: small, without times and paths of the machine, so that equal copies give equal
records. A member of a team who has no root keeps the record of those who have. Layout:
docs/design.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from features.arguments import Record
from features.corpus.adapter import UNPACKED, Corpus
from features.corpus.entry import PACKAGE, CorpusEntry
from features.corpus.labels_folder import AGAIN, read_card
from features.errors import ManifestError, ParamsError
from features.files.json_text import parse_json
from features.files.reading import file_sha256, identity, read_regular, settled
from features.files.records import read_json, read_record, write_json
from features.files.writing import replacing
from features.settings.locations import corpus_root, hashes_file
from features.settings.plugins import load

READING = 1  # raised when `prepare` makes other rows or labels of the same files than before
FORMAT = {"format": "heronry-sources", "version": 1, "reading": READING}
FEW = 20  # tables of one folder and suffix that are listed one by one
REMEMBERED_BYTES = 2**24  # size from which a table is not read again while its file is the same
SOUNDS = (
    ".aac", ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".m4a", ".mp3", ".mp4", ".oga",
    ".ogg", ".opus", ".raw", ".rf64", ".sph", ".w64", ".wav", ".webm", ".wma",
)  # fmt: skip


@dataclass(frozen=True)
class Listing(Record):
    """The audio files below a root: how many, of how many bytes, and a hash of names and sizes."""

    files: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Sources:
    """The fields of a record; of a generated corpus only that it is one."""

    format: Literal["heronry-sources"]
    version: Literal[1]
    reading: int = READING
    generated: bool = False
    tables: Mapping[str, str] | None = None
    audio: Listing | None = None


def record_path(name: str) -> Path:
    """Where the record of a corpus lies in the project."""
    return Path("sources", f"{name}.json")


def take_record(entry: CorpusEntry) -> dict[str, Any]:
    """The record of a corpus as it is now; that of a generated one is always the same.

    Raises:
        ParamsError: If the root is not set, missing or empty.
        ManifestError: If something below it cannot be read, or there is no table where there must.
    """
    if _is_generated(entry):
        return {**FORMAT, "generated": True}
    root = corpus_root(entry.name)
    corpus: Corpus = load(PACKAGE, entry.kind)(root, **entry.options)
    return {
        **FORMAT,
        "tables": tables_sha256(entry.name, corpus, root),
        "audio": _listing(root),
    }


def renew_record(entry: CorpusEntry) -> tuple[dict[str, Any], str | None]:
    """Bring `sources/<corpus>.json` up to date, and return it.

    Returns:
        The record, and why it could not be renewed: there is no root here, so that it stays.

    Raises:
        ParamsError: If there is neither a root nor a record.
        ManifestError: As of `take_record`.
    """
    path = record_path(entry.name)
    try:
        if not _is_generated(entry):
            corpus_root(entry.name)
    except ParamsError as error:
        if not path.is_file():
            raise
        return read_record(path, Sources, "restore it from Git"), str(error)
    record = take_record(entry)
    write_record(path, record)
    return record, None


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record, unless it stands there already."""
    with contextlib.suppress(ManifestError):
        if path.is_file() and read_json(path) == record:
            return
    with replacing(path) as temporary:
        write_json(temporary, record)


def tables_sha256(name: str, corpus: Corpus, root: Path) -> dict[str, str]:
    """SHA-256 by path below the root of what an adapter reads as text.

    Where a folder holds more than `FEW` of one suffix, they are one entry such as `texts/*.txt`.

    Args:
        name: The corpus, by which hashes of large tables are remembered on this machine.
        corpus: Its adapter.
        root: Folder that it was made with.
    """
    found = set(getattr(corpus, "tables", tuple)())
    with _reading(root):
        # macOS leaves a `._` file beside each file that it copies.
        paths = sorted(p for p in found if p.is_file() and not p.name.startswith("."))
        hashes = _hashes(paths, hashes_file(f"{name}-tables", root))
    folders: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in paths:
        folders[path.parent, path.suffix].append(path)
    named: dict[str, str] = {}
    for (folder, suffix), held in folders.items():
        if len(held) <= FEW:
            named |= {_name(path, root): hashes[path] for path in held}
        else:
            lines = "".join(f"{_name(path, root)}\0{hashes[path]}\n" for path in held)
            named[_name(folder / f"*{suffix}", root)] = _sha256(lines)
    return dict(sorted(named.items()))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What of a corpus is no longer as it was, a line each; old records may lack parts."""
    told = []
    now: Mapping[str, str] = new.get("tables") or {}
    before: Mapping[str, str] = now if old.get("tables") is None else old["tables"]
    for name in sorted(before.keys() | now.keys()):
        if name not in now:
            told.append(f"{name} is gone")
        elif name not in before:
            told.append(f"{name} is new")
        elif now[name] != before[name]:
            told.append(f"{name} was edited (SHA-256 {before[name][:12]}, now {now[name][:12]})")
    had, has = old.get("audio"), new.get("audio")
    if had and has and had != has:
        told.append(
            f"{has['files']:,} audio files of {has['bytes']:,} bytes lie below the root, formerly "
            f"{had['files']:,} of {had['bytes']:,}"
            if (had["files"], had["bytes"]) != (has["files"], has["bytes"])
            else "audio files below the root have other names or sizes"
        )
    return told


def changes_since(entry: CorpusEntry, labels: Path) -> list[str]:
    """What differs below a root from what `prepare` saw, as `differences` says it.

    Tables are compared with those that the labels came from (card.json), the listing with the last
    record. Nothing is known of a corpus that an older release prepared.

    Args:
        entry: The corpus, whose root must be there.
        labels: `data/<corpus>/labels`.
    """
    card, path = labels / "card.json", record_path(entry.name)
    if not card.is_file():
        return []
    old = {"tables": read_card(card).get("tables")}
    if path.is_file():
        old["audio"] = read_record(path, Sources, AGAIN).get("audio")
    return differences(old, take_record(entry))


def _is_generated(entry: CorpusEntry) -> bool:
    return bool(getattr(load(PACKAGE, entry.kind), "generated", False))


def _listing(root: Path) -> dict[str, Any]:
    """Number, bytes and a hash of the names and sizes of the audio files below a folder."""
    digest, files, size = hashlib.sha256(), 0, 0
    with _reading(root):
        for name, length in _sounds(root, "", frozenset()):
            digest.update(f"{name}\0{length}\n".encode(errors="surrogateescape"))
            files, size = files + 1, size + length
    return {"files": files, "bytes": size, "sha256": digest.hexdigest()}


def _sounds(
    folder: Path, place: str, above: frozenset[tuple[int, int]]
) -> Iterator[tuple[str, int]]:
    """Names and sizes, in an order of the names alone; links are followed, but not in circles."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        # macOS and Linux spell the same name by other characters.
        found = sorted((unicodedata.normalize("NFC", entry.name), entry) for entry in entries)
    for name, entry in found:
        # Hidden files are no recordings, and unpacked ones come from the tables.
        if name.startswith(".") or (not place and name == UNPACKED):
            continue
        if entry.is_dir():
            yield from _sounds(Path(entry.path), f"{place}{name}/", above | {here})
        elif name.lower().endswith(SOUNDS) and entry.is_file():
            yield place + name, entry.stat().st_size


def _hashes(paths: Iterable[Path], memory: Path) -> dict[Path, str]:
    """SHA-256 of files; those of large ones are remembered while nothing about the file changes."""
    known: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = dict(parse_json(read_regular(memory)))
    found, kept = {}, {}
    for path in paths:
        status = path.stat()
        stamp = list(identity(status))
        held = known.get(str(path))
        if isinstance(held, list) and len(held) == 2 and held[0] == stamp:
            found[path] = held[1]
        else:
            found[path] = file_sha256(path)
        if status.st_size >= REMEMBERED_BYTES and settled(status.st_mtime_ns, status.st_ctime_ns):
            kept[str(path)] = [stamp, found[path]]
    if kept != known:
        # What cannot be remembered costs time on the next run, and nothing else.
        with contextlib.suppress(OSError), replacing(memory) as temporary:
            temporary.write_text(json.dumps(kept), encoding="utf-8")
    return found


def _name(path: Path, root: Path) -> str:
    """Path below the root; a byte that is no UTF-8 is written as an escape."""
    name = unicodedata.normalize("NFC", path.relative_to(root).as_posix())
    return os.fsencode(name).decode(errors="backslashreplace")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def _reading(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ManifestError(
            f"cannot read {error.filename or root} ({error.strerror}); expected a corpus root all "
            "of which may be read"
        ) from error
