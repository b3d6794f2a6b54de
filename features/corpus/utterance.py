"""One utterance of a corpus: its audio and words, and hashes of what backbones read of it.

And one member of a union of corpora: whose utterances they are, and how shards of them are cut.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.arguments import Record, quoted
from features.errors import ManifestError
from features.files.records import check_text

SHARD_LIMITS = ("shard_seconds", "shard_characters", "shard_bytes")
SHARD_BYTES = 1_000_000_000  # of a shard's features, by default


@dataclass(frozen=True)
class Utterance:
    """One stretch of speech and/or its words.

    Attributes:
        id: Unique in the corpus; no control characters.
        audio: POSIX path relative to the corpus root (absolute after `Manifest.located`), or None.
        sha256: Hexadecimal SHA-256 of the audio file, or None without audio.
        text: Transcript, or None.
        start: Seconds into the file at which the utterance begins; None for its beginning.
        stop: Seconds into the file at which it ends; None for its end.
        seconds: Duration in seconds, or None without audio.
        bytes: Size of the file, for `heronry check`.
        asr: Words from a speech recogniser, beside the reference in `text`, or None.
    """

    id: str
    audio: str | None = None
    sha256: str | None = None
    text: str | None = None
    start: float | None = None
    stop: float | None = None
    seconds: float | None = None
    bytes: int | None = None
    asr: str | None = None

    def __post_init__(self) -> None:
        check_id(self.id)
        for name in ("audio", "sha256", "text", "asr"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ManifestError(f"utterance {self.id!r}: {name} is {value!r}; expected text")
            if value is not None:
                check_text(f"utterance {self.id!r}: {name}", value)
        if self.audio is None and self.text is None:
            raise ManifestError(f"utterance {self.id!r} has neither audio nor text; expected one")
        for name in ("start", "stop", "seconds"):
            check_time(self.id, name, getattr(self, name))
        if self.start is not None and self.stop is not None and not self.start < self.stop:
            raise ManifestError(
                f"utterance {self.id!r}: start {self.start} and stop {self.stop}; "
                "expected 0 <= start < stop, in seconds"
            )

    @property
    def audio_content(self) -> str | None:
        """Hash of what an audio backbone reads: file and span; None without audio.

        Raises:
            ManifestError: If there is audio without its SHA-256.
        """
        if self.audio is None:
            return None
        self.check_hashed()
        return _digest([self.sha256, self.start, self.stop])

    def check_hashed(self) -> None:
        """Refuse audio without a hash: all such utterances would share the features of the first.

        Raises:
            ManifestError: If there is audio without its SHA-256.
        """
        if self.audio is not None and not self.sha256:
            raise ManifestError(
                f"utterance {self.id!r}: audio {self.audio!r} without sha256; expected the "
                "SHA-256 of the file, by which its features are known: run `prepare` again"
            )

    @property
    def text_content(self) -> str | None:
        """Hash of what a text backbone reads; None without text."""
        return None if self.text is None else _digest([self.text])

    @property
    def asr_content(self) -> str | None:
        """Hash of what a backbone reads that encodes recognised words; None without them."""
        return None if self.asr is None else _digest([self.asr])

    def words(self, reads: str) -> str | None:
        """Words that a text backbone encodes: `asr` if it reads those, else the reference."""
        return self.asr if reads == "asr" else self.text


def leaves_root(audio: str) -> bool:
    """Whether an audio path of a manifest is absolute or has a part `..`."""
    # The first test for `..` saves the split for nearly every row.
    return audio.startswith("/") or (".." in audio and ".." in audio.split("/"))


def path_under(root: Path | Mapping[str, Path], utterance: Utterance) -> str | None:
    """Absolute path of an utterance's audio under `root`, of a union by member; None without audio.

    Raises:
        ManifestError: If the path leaves the root.
    """
    if utterance.audio is None:
        return None
    if leaves_root(utterance.audio):
        raise ManifestError(
            f"utterance {utterance.id!r}: audio path {utterance.audio!r}; "
            "expected a relative one below the corpus root"
        )
    if isinstance(root, Mapping):
        member, _, rest = utterance.audio.partition("/")
        return f"{root[member]}/{rest}"
    # Called for every row of a manifest; joining with pathlib takes longer than parsing the row.
    return f"{root}/{utterance.audio}"


def check_id(id: str) -> None:
    """Raise `ManifestError` unless `id` is printable text without spaces at its ends."""
    if not isinstance(id, str) or not id or not id.isprintable() or id != id.strip():
        raise ManifestError(
            f"utterance id {quoted(id)}; expected printable text without spaces at its ends"
        )


def check_time(id: str, name: str, value: Any) -> None:
    """Raise `ManifestError` unless a field of an utterance is None or seconds from 0."""
    # Not isinstance, since True is an int.
    if value is not None and (type(value) not in (float, int) or not 0 <= value < math.inf):
        raise ManifestError(
            f"utterance {id!r}: {name} is {value!r}; expected a number of seconds of at least 0"
        )


# Features are looked up by this hash: it must never change.
_encode = json.JSONEncoder(ensure_ascii=False).encode


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(_encode(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Member(Record):
    """A stretch of a manifest that is cut into shards by itself: a member of a union, or all of it.

    In a union, ids are `<name>/<id>` and audio paths `<name>/<path>`, of the member's own.

    Attributes:
        name: Entry of `corpora`; empty where it is all of the manifest.
        kind: Plug-in.
        generated: Whether its audio lies beside the manifest, in a folder of its name.
        rows: Number of rows.
        shard_seconds: A shard of an audio backbone closes once it holds this many seconds.
        shard_characters: A shard of a text backbone closes once it holds this many characters.
        shard_bytes: A shard closes, too, once its features have about so many bytes.
    """

    name: str
    kind: str
    generated: bool
    rows: int
    shard_seconds: float
    shard_characters: int
    shard_bytes: int = SHARD_BYTES

    @property
    def prefix(self) -> str:
        """Beginning of its ids in the manifest."""
        return f"{self.name}/" if self.name else ""


def without_usual_bytes(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields without `shard_bytes` where that is the default: then files are as they ever were."""
    usual = ("shard_bytes", SHARD_BYTES)
    return {name: value for name, value in fields.items() if (name, value) != usual}
