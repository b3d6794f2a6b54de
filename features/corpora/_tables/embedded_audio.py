"""Extract audio files from the cells of a table to files below the corpus root.

The rest of heronry reads audio from files. So the bytes of a cell are written, unchanged, to
`heronry_audio/<split>/<id>.<suffix>` below the root: atomically, and only where no file of that
content exists yet. All characters of an id but letters, digits, `_`, `.`, `-` and `~` are
percent-encoded in the file name, so that it cannot leave its folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from features.corpora._tables.parquet import Shard
from features.corpora._tables.rows import DECODED
from features.corpus.adapter import UNPACKED, Item
from features.corpus.utterance import leaves_root
from features.errors import ManifestError, UtteranceError
from features.files.reading import file_sha256
from features.files.root_paths import RootPaths
from features.files.writing import replacing
from features.process.terminal import progress

MAX_NAME = 150  # characters: a file system takes 255 bytes, some of them for the temporary name
_SUFFIXES = (
    (b"RIFF", ".wav"),
    (b"RIFX", ".wav"),
    (b"RF64", ".wav"),
    (b"BW64", ".wav"),
    (b"FORM", ".aiff"),
    (b"fLaC", ".flac"),
    (b"OggS", ".ogg"),
    (b"ID3", ".mp3"),
    (b"caff", ".caf"),
)


def unpack(items: Sequence[Item], shard: Shard, column: str, root: Path) -> Iterator[Item]:
    """Extract the audio of all rows; an item with an empty cell is faulty.

    Whether a file can be decoded is found out by `prepare`, as for all audio.

    Args:
        items: One for each row of the shard, in order.
        shard: File of the table.
        column: Column of audio: bytes, or a struct of `bytes` and `path`.
        root: Folder of the corpus.

    Yields:
        The items with the paths of their audio.

    Raises:
        ManifestError: If the shard cannot be read or a file cannot be written.
    """
    cells = (row[column] for row in shard.rows([column]))
    paths = RootPaths(root)
    pairs = zip(items, cells, strict=True)
    for item, cell in progress(pairs, total=len(items), what="unpack", unit="clip"):
        try:
            yield dataclasses.replace(item, audio=_file(item, cell, root, paths))
        except UtteranceError as error:
            # With neither audio nor text nothing can be extracted of it, and it is only listed.
            without: dict[str, Any] = dict.fromkeys(("label", "audio", "text", "excluded"))
            yield dataclasses.replace(item, **without, fault=error.reason)


def _file(item: Item, cell: Any, root: Path, paths: RootPaths) -> str:
    content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, "")
    if not isinstance(content, bytes | None) or not isinstance(path, str | None):
        raise UtteranceError(item.id, f"its cell holds {DECODED}")
    if content:
        return _store(content, item, root)
    if not path:
        raise UtteranceError(item.id, "its cell holds no audio")
    for folder in (root, root.resolve()):  # links that lead out are found later, for all paths
        place = folder / path
        if place.is_relative_to(folder) and not leaves_root(str(place.relative_to(folder))):
            return place.relative_to(folder).as_posix()
    raise UtteranceError(
        item.id,
        f"its cell holds no audio but the path {path!r}, which is not below the root"
        f"{paths.hint(path)}",
    )


def _store(content: bytes, item: Item, root: Path) -> str:
    name = safe_name(item.id) + suffix_of(content)
    place = PurePosixPath(UNPACKED, item.split or "all", name)
    path = root / place
    real = root.resolve() / place.parent
    # Equal unless a folder below the root is a link.
    if real.resolve() != real:
        raise ManifestError(
            f"{UNPACKED} below the corpus root {root}, or a folder in it, is a link to "
            f"{real.resolve()}; expected a folder of its own, since audio is written there: remove "
            "the link, or point the root to a copy elsewhere"
        )
    try:
        if path.is_symlink() or not _holds(path, content):
            with replacing(path) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise ManifestError(
            f"the audio of {item.id!r} is inside its table and cannot be written to {path} "
            f"({error.strerror}); expected a corpus root with room and leave for {UNPACKED}/: "
            "allow it, or point the root to a copy elsewhere"
        ) from error
    return str(place)


def _holds(path: Path, content: bytes) -> bool:
    if not path.is_file() or path.stat().st_size != len(content):
        return False
    return file_sha256(path) == hashlib.sha256(content).hexdigest()


def safe_name(id: str) -> str:
    """File name for an id; different ids have different names.

    >>> safe_name("../a b")
    '%2E.%2Fa%20b'
    """
    name = quote(id, safe="")
    if name.startswith("."):
        # `quote` keeps dots: `..` would leave the folder, and others hide the file.
        name = "%2E" + name[1:]
    if len(name) > MAX_NAME:
        digest = hashlib.sha256(id.encode()).hexdigest()[:16]
        name = f"{name[: MAX_NAME - len(digest) - 1]}-{digest}"
    return name


def suffix_of(content: bytes) -> str:
    """Suffix of an audio file by its first bytes; `.bin` if they are not recognised."""
    for magic, suffix in _SUFFIXES:
        if content.startswith(magic):
            return suffix
    if content[4:8] == b"ftyp":
        return ".m4a"
    # An MPEG frame begins with eleven set bits; layer 0 is AAC.
    if len(content) > 1 and content[0] == 0xFF and content[1] & 0xE0 == 0xE0:
        return ".mp3" if content[1] & 0x06 else ".aac"
    return ".bin"
