"""What is heard of an audio file, as `prepare` hears it, or why it is rejected."""

from __future__ import annotations

from pathlib import Path

from features.audio.read import AudioFacts, inspect_audio
from features.audio.silence import NOTICES
from features.errors import UtteranceError


def heard(path: Path, *, id: str | None = None) -> AudioFacts:
    """Decode a whole file; `UtteranceError` also for what spoils a part of it alone."""
    id = id or path.name
    with path.open("rb") as file:
        found = inspect_audio(file, id)
    for stretch in found.stretches:
        if stretch.what not in NOTICES:
            raise UtteranceError(id, stretch.what)
    return found
