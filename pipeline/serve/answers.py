"""Answers questions about clips with a loaded model, several together.

Rows are the records of `heronry predict --jsonl` (`pipeline.predict.records`), without what the
server's disk looks like: `id` is `clip`, with `#start-stop` for a piece of one, or `text`. Where a
row lacks something, it says what a visitor can do, in place of options of the command.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from features.transcription.recogniser import Recogniser
from pipeline.handover.loading import LoadedRun
from pipeline.predict.predictor import OR_TRAIN, REMEDIES
from pipeline.predict.recordings import Given, Recording
from pipeline.predict.records import Record
from pipeline.predict.rows import Row, needs_words, rows_of, with_words
from pipeline.serve.clips import Pitch, pitch_of


@dataclass(frozen=True)
class Question:
    """What a client asks.

    Attributes:
        audio: The clip; None: words alone.
        seconds: Its duration.
        text: Its words, where they are known.
        asr: What a recogniser heard.
        recognise: Whether to recognise words where they are not known.
        window: Seconds of a piece of a clip without words, at most.
    """

    audio: Path | None
    seconds: float
    text: str | None
    asr: str | None
    recognise: bool
    window: float


@dataclass
class Answer:
    """What the model says of a question.

    Attributes:
        rows: A record for each piece of the clip.
        pitch: Bins that the model has read; None: it reads none.
    """

    rows: list[Record] = field(default_factory=list)
    pitch: Pitch | None = None


@dataclass(frozen=True)
class _Place:
    """A row of a batch: which question it belongs to, and how the question's ids begin."""

    row: Row
    question: int
    prefix: str


class Answerer:
    """Answers questions, for one thread.

    Args:
        model: The model.
        recogniser: Recogniser of words; None: none are recognised.
    """

    def __init__(self, model: LoadedRun, recogniser: Recogniser | None = None) -> None:
        self.model, self.recogniser = model, recogniser
        words = "type its words" + (", or have them recognised" if recogniser else "")
        own = {"text": words, "asr": words, "audio": "choose or record a clip"}
        # Of what a command advises, what a visitor does instead.
        self._remedies = {REMEDIES[what]: own[what] for what in REMEDIES} | {OR_TRAIN: ""}
        slots = model.run.groups[0].slots
        # The first slot that reads bins of pitch.
        self._pitched = next(
            (slot for slot, of in slots.items() if of.entry.kind == "f0" and of.spec.bins), None
        )

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        """An answer to each question; what fails has its reason in the row's `error`."""
        places = [
            place for number, of in enumerate(questions) for place in self._places(number, of)
        ]
        heard = self._heard(places, questions)
        rows = [
            with_words(of.row, heard[of.row.id]) if of.row.id in heard else of.row for of in places
        ]
        records: dict[int, Record] = {}
        tracks: dict[int, list[int]] = {}
        recognised = self.recogniser is not None
        for part in self.model.in_parts(rows, recognised=recognised):
            records |= part
            tracks |= self._tracks(rows, part)
        answers = [Answer() for _ in questions]
        for number, of in enumerate(places):
            record = self._shown(records[number], of)
            if recognised:
                record["asr"] = heard.get(of.row.id)
            answers[of.question].rows.append(record)
        for number, answer in enumerate(answers):
            own = [n for n, of in enumerate(places) if of.question == number and n in tracks]
            answer.pitch = self._pitch([places[n] for n in own], [tracks[n] for n in own])
        return answers

    def _places(self, number: int, question: Question) -> Iterator[_Place]:
        id = f"clip {number}"  # of its own among those that are computed together
        dialogues = self.model.run.unit == "dialogue"
        recording = Recording(
            id,
            question.audio,
            text=question.text,
            asr=question.asr,
            dialogue=id if dialogues else None,  # clips of strangers are no conversation
        )
        for some in rows_of(Given((recording,)), window=question.window, dialogues=dialogues):
            yield from (_Place(row, number, id) for row in some)

    def _heard(self, places: Sequence[_Place], questions: Sequence[Question]) -> dict[str, str]:
        """Recognised words by id."""
        if self.recogniser is None:
            return {}
        silent = [
            of.row.utterance
            for of in places
            if questions[of.question].recognise
            and of.row.utterance is not None
            and needs_words(of.row, asr=self.model.reads_asr)
        ]
        self.recogniser.failed.clear()
        return dict(self.recogniser.words(silent))

    def _tracks(self, rows: Sequence[Row], part: dict[int, Record]) -> dict[int, list[int]]:
        """Bins that the model has read, by place."""
        if self._pitched is None:
            return {}
        frames = self.model.features[self._pitched].frames
        return {
            place: frames[rows[place].id].flatten().int().tolist()
            for place in part
            if rows[place].id in frames
        }

    def _pitch(self, places: Sequence[_Place], tracks: list[list[int]]) -> Pitch | None:
        if self._pitched is None or not places:
            return None
        slot = self.model.run.groups[0].slots[self._pitched]
        starts = [of.row.start or 0.0 for of in places]
        return pitch_of(self._pitched, slot.entry, slot.spec, starts, tracks)

    def _shown(self, record: Record, of: _Place) -> Record:
        """A record as a client may see it."""
        path = record["audio"]
        name = "text" if path is None else "clip"
        shown = record | {"id": name + of.row.id.removeprefix(of.prefix), "audio": None}
        shown["dialogue"] = None
        if shown["error"]:
            changes = {path or of.prefix: name, of.prefix: name, **self._remedies}
            for given, own in changes.items():
                shown["error"] = shown["error"].replace(given, own)
        return shown
