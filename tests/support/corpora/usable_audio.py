"""Inspects an audio file as `prepare` does, and raises the reason if it is rejected."""

from __future__ import annotations

from pathlib import Path

from features.audio.read import AudioFacts, inspect_audio
from features.audio.silence import NOTICES
from features.errors import UtteranceError


def inspect_usable(path: Path, *, id: str | None = None) -> AudioFacts:
    """Decode a whole file; raise `UtteranceError` also if only a part of it is unusable."""
    id = id or path.name
    with path.open("rb") as file:
        found = inspect_audio(file, id)
    for stretch in found.stretches:
        if stretch.what not in NOTICES:
            raise UtteranceError(id, stretch.what)
    return found
