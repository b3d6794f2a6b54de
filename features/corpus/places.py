"""Finds the audio of a corpus on this machine: its root, that of each member, or what it made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from features.corpus.entry import CorpusEntry
from features.corpus.manifest import Manifest
from features.corpus.utterance import Member
from features.files.records import read_json
from features.settings.locations import corpus_root


def root_of(entry: CorpusEntry, utterances: Path) -> Path:
    """Folder that the audio paths of a corpus are relative to.

    Args:
        entry: The corpus; no union.
        utterances: Where its audio lies if it is generated.

    Raises:
        ParamsError: If it needs a root that is not set, missing or empty.
    """
    return utterances if entry.generated else corpus_root(entry.name)


def with_audio(manifest: Manifest, utterances: Path) -> Manifest:
    """A manifest with the absolute paths of its audio files on this machine.

    Args:
        manifest: The manifest of `utterances`.
        utterances: `data/<corpus>/utterances`.

    Raises:
        ParamsError: If a root is not set, missing or empty.
        ManifestError: If a path leaves its root.
    """
    beside = utterances.resolve()
    if manifest.members:
        return manifest.located(member_roots(manifest.members, beside))
    return manifest.located(beside if manifest.generated else corpus_root(manifest.corpus))


def members_in(utterances: Path) -> tuple[Member, ...]:
    """Members of a prepared union, without reading its rows; none of what is no union, or not here.

    Raises:
        ManifestError: If corpus.json is malformed.
    """
    head = utterances / "corpus.json"
    if not head.is_file():
        return ()
    return tuple(Member(**member) for member in read_json(head).get("members", ()))


def member_roots(members: Sequence[Member], utterances: Path) -> dict[str, Path]:
    """Folder by member of a union that its audio paths are relative to.

    Raises:
        ParamsError: If a root is not set, missing or empty.
    """
    return {
        member.name: utterances / member.name if member.generated else corpus_root(member.name)
        for member in members
    }
