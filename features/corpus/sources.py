"""Record the files below a corpus root for DVC: SHA-256 of tables, a listing of audio files.

`prepare` reads a root outside of the project, where DVC does not look. DVC sees it through
`sources/<corpus>.json`: small, without times and paths of the machine, so that equal copies give
equal records. Where a team member has no root, the committed record stays. Layout: docs/design.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from features.arguments import Record
from features.audio.recordings import SOUNDS
from features.corpus.adapter import UNPACKED, Corpus
from features.corpus.entry import CorpusEntry
from features.corpus.labels_folder import AGAIN, read_card
from features.corpus.utterance import without_usual_bytes
from features.errors import ManifestError, ParamsError
from features.files.json_text import parse_json
from features.files.reading import file_sha256, identity, read_regular, settled
from features.files.records import read_json, read_record, write_json
from features.files.writing import replacing
from features.settings.locations import corpus_root, hashes_file

READING = 2  # to be raised when `prepare` makes other rows or labels of the same files than before
FORMAT = {"format": "heronry-sources", "version": 1, "reading": READING}
FEW = 20  # tables of one folder and suffix; more are one entry of the record
REMEMBERED_BYTES = 2**24  # size from which the hash of a table is remembered


@dataclass(frozen=True)
class Listing(Record):
    """Number and bytes of the audio files below a root, and a hash of their names and sizes."""

    files: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Sources:
    """Fields of a record; `generated` alone for a generated corpus.

    Attributes:
        members: SHA-256 of the record and the entry of each member of a union, whose tables and
            audio files are those of all members.
    """

    format: Literal["heronry-sources"]
    version: Literal[1]
    reading: int = READING
    generated: bool = False
    tables: Mapping[str, str] | None = None
    audio: Listing | None = None
    members: Mapping[str, str] | None = None


def record_path(name: str) -> Path:
    """Path of the record of a corpus in the project."""
    return Path("sources", f"{name}.json")


def take_record(entry: CorpusEntry) -> dict[str, Any]:
    """Record a corpus as it is now; the record of a generated one is always the same.

    That of a union holds the tables and audio files of its members, and a hash of each member's
    record and entry of params.yaml, since these decide the union's utterances, labels and splits.

    Raises:
        ParamsError: If the root is not set, missing or empty.
        ManifestError: If something below it cannot be read, or a table is missing.
    """
    if entry.members:
        return _record_of_members(entry.members)
    if entry.generated:
        return {**FORMAT, "generated": True}
    root = corpus_root(entry.name)
    tables = tables_sha256(entry.name, entry.adapter(root), root)
    return {**FORMAT, "tables": tables, "audio": _listing(root)}


def _record_of_members(members: Sequence[CorpusEntry]) -> dict[str, Any]:
    tables: dict[str, str] = {}
    hashes: dict[str, str] = {}
    files = size = 0
    digest = hashlib.sha256()
    for member in members:
        record = take_record(member)
        for name, sha256 in record.get("tables", {}).items():
            tables[f"{member.name}/{name}"] = sha256
        if "audio" in record:
            files += record["audio"]["files"]
            size += record["audio"]["bytes"]
            digest.update(f"{member.name}\0{record['audio']['sha256']}\n".encode())
        settings = without_usual_bytes(dataclasses.asdict(member))
        whole = json.dumps([record, settings], sort_keys=True, default=dict)
        hashes[member.name] = _sha256(whole)
    audio = {"files": files, "bytes": size, "sha256": digest.hexdigest()}
    return {**FORMAT, "tables": tables, "audio": audio, "members": hashes}


def renew_record(entry: CorpusEntry) -> tuple[dict[str, Any], str | None]:
    """Update `sources/<corpus>.json`.

    Returns:
        The record, and None or why it was not updated: there is no root on this machine.

    Raises:
        ParamsError: If there is neither a root nor a record.
        ManifestError: As from `take_record`.
    """
    path = record_path(entry.name)
    try:
        for each in entry.members or (entry,):
            if not each.generated:
                corpus_root(each.name)
    except ParamsError as error:
        if not path.is_file():
            raise
        return read_record(path, Sources, "restore it from Git"), str(error)
    record = take_record(entry)
    write_record(path, record)
    return record, None


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record, unless the file holds it already."""
    with contextlib.suppress(ManifestError):
        if path.is_file() and read_json(path) == record:
            return
    with replacing(path) as temporary:
        write_json(temporary, record)


def tables_sha256(name: str, corpus: Corpus, root: Path) -> dict[str, str]:
    """SHA-256 of the tables that an adapter reads, by path below the root.

    Where a folder holds more than `FEW` of one suffix, they are one entry such as `texts/*.txt`.

    Args:
        name: Name of the corpus, under which hashes of large tables are remembered.
        corpus: Adapter of the corpus.
        root: Folder that it was made with.
    """
    # `tables` is optional; `tuple()` is empty.
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
    """Differences between two records, one line each; old records may lack parts."""
    lines = []
    now: Mapping[str, str] = new.get("tables") or {}
    before: Mapping[str, str] = now if old.get("tables") is None else old["tables"]
    for name in sorted(before.keys() | now.keys()):
        if name not in now:
            lines.append(f"{name} is gone")
        elif name not in before:
            lines.append(f"{name} is new")
        elif now[name] != before[name]:
            lines.append(f"{name} was edited (SHA-256 {before[name][:12]}, now {now[name][:12]})")
    had, has = old.get("audio"), new.get("audio")
    if had and has and had != has:
        lines.append(
            f"{has['files']:,} audio files of {has['bytes']:,} bytes lie below the root, formerly "
            f"{had['files']:,} of {had['bytes']:,}"
            if (had["files"], had["bytes"]) != (has["files"], has["bytes"])
            else "audio files below the root have other names or sizes"
        )
    had, has = (record.get("members") or {} for record in (old, new))
    lines += [
        f"the entry corpora.{name} or what it makes was changed"
        for name in has
        if not lines and name in had and had[name] != has[name]
    ]
    return lines


def changes_since(entry: CorpusEntry, labels: Path) -> list[str]:
    """Changes below a root since `prepare` ran, one line each.

    Tables are compared with those that the labels came from (card.json), the listing with the last
    record. Empty for a corpus that an older release prepared.

    Args:
        entry: The corpus; its root must exist.
        labels: `data/<corpus>/labels`.
    """
    card, path = labels / "card.json", record_path(entry.name)
    if not card.is_file():
        return []
    old = {"tables": read_card(card).get("tables")}
    if path.is_file():
        record = read_record(path, Sources, AGAIN)
        old |= {name: record.get(name) for name in ("audio", "members")}
    return differences(old, take_record(entry))


def _listing(root: Path) -> dict[str, Any]:
    """Number, bytes and a hash of the names and sizes of the audio files below a folder."""
    digest, files, size = hashlib.sha256(), 0, 0
    with _reading(root):
        for name, length in _sounds(root, "", frozenset()):
            # Python reads bytes of names that are not UTF-8 as lone surrogates.
            digest.update(f"{name}\0{length}\n".encode(errors="surrogateescape"))
            files, size = files + 1, size + length
    return {"files": files, "bytes": size, "sha256": digest.hexdigest()}


def _sounds(
    folder: Path, place: str, above: frozenset[tuple[int, int]]
) -> Iterator[tuple[str, int]]:
    """Names and sizes of audio files, sorted by name; links are followed, but not in circles."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        # macOS decomposes letters with accents in names, Linux keeps them composed.
        found = sorted((unicodedata.normalize("NFC", entry.name), entry) for entry in entries)
    for name, entry in found:
        # Hidden files are not recordings, and unpacked audio follows from the tables.
        if name.startswith(".") or (not place and name == UNPACKED):
            continue
        if entry.is_dir():
            yield from _sounds(Path(entry.path), f"{place}{name}/", above | {here})
        elif name.lower().endswith(SOUNDS) and entry.is_file():
            yield place + name, entry.stat().st_size


def _hashes(paths: Iterable[Path], memory: Path) -> dict[Path, str]:
    """SHA-256 of files; for large ones it is remembered while the file is unchanged."""
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
        # A failure here only costs time on the next run.
        with contextlib.suppress(OSError), replacing(memory) as temporary:
            temporary.write_text(json.dumps(kept), encoding="utf-8")
    return found


def _name(path: Path, root: Path) -> str:
    """Path below the root; bytes that are not UTF-8 are written as escapes."""
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
