"""Recordings as rows to predict: opened, measured, and divided where they are long.

A recording that is longer than a window is divided evenly, so that no short piece is left at its
end: 70 s in windows of at most 30 s are three of 23.3 s. One whose words are known stays whole,
since nobody knows which of them fall into which piece.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from features.audio.read import audio_seconds
from features.corpus.manifest import UNLABELLED, Label
from features.corpus.utterance import Utterance
from features.errors import HeronryError, UtteranceError
from features.files.reading import file_sha256
from pipeline.predict.recordings import Given, Recording

WINDOW_SECONDS = 30.0  # of a piece, at most; speech encoders were trained on less
SHORTEST_SECONDS = 1.0  # of a window
ROUNDED_SECONDS = 0.01  # by which a table may round the end of a recording up
ALL = "recordings"  # the dialogue of recordings that no table gives one


@dataclass(frozen=True)
class Row:
    """One row of the result.

    Attributes:
        id: Id of the recording, with `#start-stop` for a piece of one.
        audio: Path as it was given; empty for words alone.
        start: Seconds into the file at which it begins; None for words alone.
        stop: Seconds at which it ends.
        speaker: Who speaks; empty where that is not known.
        dialogue: Conversation; None: it stands alone.
        turn: Position in the dialogue; None: as the rows come.
        utterance: What backbones read; None if there is nothing to read.
        fault: Why there is nothing; empty otherwise.
        notice: What of the given span is not there; empty otherwise.
    """

    id: str
    audio: str
    start: float | None
    stop: float | None
    speaker: str
    dialogue: str | None
    turn: int | None
    utterance: Utterance | None = None
    fault: str = ""
    notice: str = ""

    @property
    def seconds(self) -> float:
        """Duration; 0 for words alone."""
        return 0.0 if self.start is None or self.stop is None else self.stop - self.start

    @property
    def label(self) -> Label:
        """The row as models take it: it has no class and belongs to no split."""
        return Label(
            self.id,
            None,
            self.speaker or "?",
            dialogue=self.dialogue,
            turn=self.turn,
            splits=(UNLABELLED,),
        )


def needs_words(row: Row, *, asr: bool) -> bool:
    """Whether a row has audio and no recognised words and, unless `asr` asks for them, no text."""
    of = row.utterance
    if of is None or of.audio is None or of.asr is not None:
        return False
    return asr or of.text is None


def with_words(row: Row, words: str) -> Row:
    """A row with recognised words, which stand for its text as well if it has none."""
    of = row.utterance
    assert of is not None
    text = words if of.text is None else of.text
    return replace(row, utterance=replace(of, text=text, asr=words))


def rows_of(given: Given, *, window: float, dialogues: bool) -> Iterator[list[Row]]:
    """The rows of each recording, in order; one that cannot be opened is a row with the reason.

    Args:
        given: The recordings.
        window: Seconds of a piece at most; 0: none is divided.
        dialogues: Whether the model takes dialogues: then recordings without a table are the turns
            of one, and so are the pieces of one recording.
    """
    measured = functools.lru_cache(maxsize=1024)(_measured)  # of a file with many segments
    for each in given.recordings:
        dialogue = each.dialogue
        if dialogues and dialogue is None:
            dialogue = each.id if given.table else ALL
        try:
            yield _rows(each, measured, window, dialogue)
        except HeronryError as error:
            reason = error.reason if isinstance(error, UtteranceError) else str(error)
            yield [_row(each, each.start, each.stop, dialogue, fault=reason)]


def _measured(path: Path) -> tuple[str, float]:
    """SHA-256 and seconds of a file."""
    try:
        return file_sha256(path), audio_seconds(path)
    except OSError as error:
        raise UtteranceError(path.name, f"cannot be read ({error.strerror})") from error


def _rows(
    recording: Recording,
    measured: Callable[[Path], tuple[str, float]],
    window: float,
    dialogue: str | None,
) -> list[Row]:
    if recording.audio is None:
        words = Utterance(recording.id, text=recording.text, asr=recording.asr)
        return [_row(recording, None, None, dialogue, words)]
    sha256, seconds = measured(recording.audio)
    start, stop = recording.start or 0.0, min(recording.stop or seconds, seconds)
    if start >= stop:
        raise UtteranceError(
            recording.id, f"begins at {start:g} s, and its audio ends at {seconds:.3f} s"
        )
    beyond = (recording.stop or 0.0) - seconds > ROUNDED_SECONDS
    notice = f"its stop, {recording.stop} s, lies behind the end of the audio" if beyond else ""
    known = recording.text is not None or recording.asr is not None
    # A thousandth more does not make two pieces of one.
    count = 1 if known or not window else max(1, math.ceil((stop - start) / window - 1e-3))
    edges = [start + (stop - start) * k / count for k in range(count)] + [stop]
    rows = []
    for first, last in pairwise(edges):
        id = recording.id if count == 1 else f"{recording.id}#{first:.2f}-{last:.2f}"
        whole = count == 1 and recording.start is None and recording.stop is None
        utterance = Utterance(
            id,
            audio=str(recording.audio),
            sha256=sha256,
            text=recording.text,
            # None: then the whole file is checked for damage as well.
            start=None if whole else first,
            stop=None if whole else last,
            seconds=last - first,
            asr=recording.asr,
        )
        rows.append(_row(recording, first, last, dialogue, utterance))
    return [*rows[:-1], replace(rows[-1], notice=notice)]


def _row(
    recording: Recording,
    start: float | None,
    stop: float | None,
    dialogue: str | None,
    utterance: Utterance | None = None,
    *,
    fault: str = "",
) -> Row:
    return Row(
        id=recording.id if utterance is None else utterance.id,
        audio="" if recording.audio is None else _printable(recording.audio),
        start=start,
        stop=stop,
        speaker=recording.speaker,
        dialogue=dialogue,
        turn=recording.turn,
        utterance=utterance,
        fault=fault,
    )


def _printable(path: Path) -> str:
    """A path that can be written, whatever bytes its name is of."""
    return str(path).encode(errors="backslashreplace").decode()
