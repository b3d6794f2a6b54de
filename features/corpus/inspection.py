"""Facts about the audio files of a corpus: hash, duration, sample rate, damage.

Facts are remembered in the work store and reused while path, size, inode and both times of a file
are unchanged (a copy that keeps the time of modification still changes the time of the inode).
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
from pathlib import Path, PurePosixPath

from features.audio.read import inspect_audio
from features.audio.silence import Stretch
from features.errors import ManifestError, UtteranceError
from features.files.json_text import parse_json
from features.files.reading import identity, open_regular, settled
from features.files.writing import replacing
from features.process.ahead import in_order
from features.process.terminal import progress

MISSING = "there is no such file below the corpus root"
UNOPENED_SECONDS = 1e9  # stands for the duration of a file that was not opened
AHEAD = 8  # files under way for each thread, so that none waits for the slowest
_Key = tuple[str, int, int, int, int]  # the first fields of FileFacts


@dataclass(frozen=True)
class FileFacts:
    """Properties of one audio file.

    Attributes:
        path: Absolute path.
        bytes: Size.
        inode: Inode number.
        modified_ns: Time of the last change of content, in nanoseconds.
        changed_ns: Time of the last change of content, name or rights, in nanoseconds.
        sha256: Hexadecimal SHA-256.
        seconds: Duration.
        sample_rate_hz: Samples per second and channel.
        channels: Number of channels.
        notices: Oddities that do not prevent its use, such as a header that states a wrong length.
        stretches: Stretches without sound, or without usable sound.
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

    @property
    def key(self) -> _Key:
        """Identity of the file and its content, without opening it."""
        return self.path, self.bytes, self.inode, self.modified_ns, self.changed_ns


def inspect_files(
    root: Path, names: Sequence[str], *, memory: Path | None = None
) -> dict[str, FileFacts | str]:
    """Hash and decode audio files.

    Args:
        root: Folder that the names are relative to.
        names: POSIX paths.
        memory: JSON Lines file of facts from earlier calls, updated by this one; files with
            unchanged size, inode and times are not read again.

    Returns:
        Facts by name, or the reason why a file cannot be used.
    """
    known = {} if memory is None else _recall(memory)
    # By path, so that new facts about a file replace those of its earlier content.
    kept = {fact.path: fact for fact in known.values()}
    facts: dict[str, FileFacts | str] = {}
    # More threads than cores, as they wait for the disk; hashing and decoding run in parallel.
    workers = 2 * (os.cpu_count() or 1)
    pool = ThreadPoolExecutor(max_workers=workers)
    try:
        found = in_order(
            pool, lambda name: (name, *_inspect(root / name, known)), names, AHEAD * workers
        )
        for name, fact, lasting in progress(found, total=len(names), what="prepare", unit="file"):
            facts[name] = fact
            if lasting and isinstance(fact, FileFacts):
                kept[fact.path] = fact
    finally:
        pool.shutdown(cancel_futures=True)
        # Written after an interruption too, with all that was known before: the next run resumes.
        if memory is not None:
            _remember(memory, kept.values())
    return facts


def list_files(root: Path, names: Iterable[str]) -> dict[str, FileFacts | str]:
    """Check that audio files exist, without opening them.

    Each folder is listed once: asking for each file takes long on network disks.

    Returns:
        For an existing file, facts under which every span lies within it and no other file equals
        it; else the reason.
    """
    listed: dict[str, frozenset[str]] = {}
    found: dict[str, FileFacts | str] = {}
    for name in names:
        place = PurePosixPath(name)
        folder = str(place.parent)
        if folder not in listed:
            listed[folder] = _listing(root / folder)
        unopened = FileFacts(name, 0, 0, 0, 0, name, UNOPENED_SECONDS, 0, 0)
        found[name] = unopened if place.name in listed[folder] else MISSING
    return found


def _listing(folder: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in folder.iterdir())
    except OSError:
        return frozenset()  # the folder is missing or unreadable, and with it all its files


def _inspect(path: Path, known: Mapping[_Key, FileFacts]) -> tuple[FileFacts | str, bool]:
    """Facts or a reason, and whether they may be remembered."""
    try:
        key = _key(path, path.stat())
        return (known[key], True) if key in known else _read(path)
    except UtteranceError as error:
        return error.reason, False
    except FileNotFoundError:
        return MISSING, False
    except (OSError, ManifestError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        return f"the file cannot be read ({getattr(cause, 'strerror', cause)})", False


def _read(path: Path) -> tuple[FileFacts | str, bool]:
    with open_regular(path) as file:
        before = os.fstat(file.fileno())
        # A file written just before this may change again within the same tick of the file
        # system's clock, after it was read here.
        lasting = settled(before.st_mtime_ns, before.st_ctime_ns)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        heard = inspect_audio(file, path.name)
        if identity(os.fstat(file.fileno())) != identity(before):
            return "the file changes while it is read: start again once it is written", False
    facts = FileFacts(
        *_key(path, before),
        sha256=sha256,
        seconds=heard.seconds,
        sample_rate_hz=heard.sample_rate_hz,
        channels=heard.channels,
        notices=heard.notices,
        stretches=heard.stretches,
    )
    return facts, lasting


def _key(path: Path, status: os.stat_result) -> _Key:
    _, inode, size, modified_ns, changed_ns = identity(status)
    return str(path), size, inode, modified_ns, changed_ns


def _recall(memory: Path) -> dict[_Key, FileFacts]:
    known: dict[_Key, FileFacts] = {}
    with contextlib.suppress(OSError), open_regular(memory) as file:
        for line in file:
            try:
                row = parse_json(line)
                stretches = tuple(Stretch(*stretch) for stretch in row.pop("stretches"))
                fact = FileFacts(**row | {"notices": tuple(row["notices"])}, stretches=stretches)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # written by another version: the file is read again
            known[fact.key] = fact
    return known


def _remember(memory: Path, facts: Iterable[FileFacts]) -> None:
    # A failure here only costs time on the next run.
    with (
        contextlib.suppress(OSError),
        replacing(memory) as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        file.writelines(json.dumps(dataclasses.asdict(fact)) + "\n" for fact in facts)
