"""Hashing and hearing the files of a corpus, remembering what did not change.

What is remembered lies in the work store and is believed only while path, size, inode and both
times of a file stay as they were: a copy that keeps its time of modification changes the other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from features.audio.read import inspect_audio
from features.audio.silence import Stretch
from features.errors import ManifestError, UtteranceError
from features.files.json_text import parse_json
from features.files.reading import identity, open_regular, read_regular, settled
from features.files.writing import replacing
from features.process.terminal import progress

MISSING = "there is no such file below the corpus root"
_Key = tuple[str, int, int, int, int]  # of FileFacts, its first fields


@dataclass(frozen=True)
class FileFacts:
    """What `prepare` writes down of an audio file.

    Attributes:
        path: Absolute path.
        bytes: Size.
        inode: Its number in the file system.
        modified_ns: When its content changed, in nanoseconds.
        changed_ns: When its content, name or rights changed.
        sha256: Hexadecimal SHA-256.
        seconds: Duration.
        sample_rate_hz: Samples per second and channel.
        channels: Number of channels.
        notices: What is to be known of it, such as that it holds more than its header says.
        stretches: Where it has no sound, or none that can be used.
    """

    path: str
    bytes: int
    inode: int
    modified_ns: int
    changed_ns: int
    sha256: str
    seconds: float
    sample_rate_hz: int
    channels: int
    notices: tuple[str, ...] = ()
    stretches: tuple[Stretch, ...] = ()


def inspect_files(
    root: Path, names: Sequence[str], *, memory: Path | None = None
) -> dict[str, FileFacts | str]:
    """Hash and decode files; a file that cannot be used has the reason in place of its facts.

    Args:
        root: Folder that the names are relative to.
        names: POSIX paths.
        memory: JSON Lines of the facts of an earlier call. A file whose path, size and time are
            there is not read again. The lines of these files replace what it holds.
    """
    known = {} if memory is None else _recall(memory)
    facts: dict[str, FileFacts | str] = {}
    pool = ThreadPoolExecutor(max_workers=2 * (os.cpu_count() or 1))
    try:
        found = pool.map(lambda name: (name, _inspect(root / name, known)), names)
        facts.update(progress(found, total=len(names), what="prepare", unit="file"))
    finally:
        pool.shutdown(cancel_futures=True)
        if memory is not None:
            _remember(memory, known, facts.values())
    return facts


def _inspect(path: Path, known: Mapping[_Key, FileFacts]) -> FileFacts | str:
    try:
        status = path.stat()
        key = _key(path, status)
        if key in known:
            return known[key]
        return _read(path)
    except UtteranceError as error:
        return error.reason
    except FileNotFoundError:
        return MISSING
    except (OSError, ManifestError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        return f"the file cannot be read ({getattr(cause, 'strerror', cause)})"


def _read(path: Path) -> FileFacts | str:
    with open_regular(path) as file:
        before = os.fstat(file.fileno())
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        heard = inspect_audio(file, path.name)
        if identity(os.fstat(file.fileno())) != identity(before):
            return "the file changes while it is read: start again once it is written"
    return FileFacts(
        *_key(path, before),
        sha256=sha256,
        seconds=heard.seconds,
        sample_rate_hz=heard.sample_rate_hz,
        channels=heard.channels,
        notices=heard.notices,
        stretches=heard.stretches,
    )


def _key(path: Path, status: os.stat_result) -> _Key:
    _, inode, size, modified_ns, changed_ns = identity(status)
    return str(path), size, inode, modified_ns, changed_ns


def _recall(memory: Path) -> dict[_Key, FileFacts]:
    known = {}
    try:
        lines = read_regular(memory).decode().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    for line in lines:
        try:
            row = parse_json(line)
            stretches = tuple(Stretch(*stretch) for stretch in row.pop("stretches"))
            fact = FileFacts(**row | {"notices": tuple(row["notices"])}, stretches=stretches)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue  # of another version: the file is read again
        known[fact.path, fact.bytes, fact.inode, fact.modified_ns, fact.changed_ns] = fact
    return known


def _remember(
    memory: Path, known: Mapping[_Key, FileFacts], facts: Iterable[FileFacts | str]
) -> None:
    # Those already known stay, so that an interrupted run goes on from where the last one was.
    latest = {fact.path: fact for fact in [*known.values(), *facts] if isinstance(fact, FileFacts)}
    lines = [
        json.dumps(dataclasses.asdict(fact)) + "\n"
        for fact in latest.values()
        if settled(fact.modified_ns, fact.changed_ns)
    ]
    # What cannot be remembered costs time on the next run, and nothing else.
    with contextlib.suppress(OSError), replacing(memory) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
