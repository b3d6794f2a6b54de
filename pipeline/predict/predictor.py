"""Predicts rows with the models of a run on one device.

Shapes: N rows, K classes, A attributes, G genders, O outputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from features.backbone.base import Backbone
from features.errors import ManifestError
from features.files.reading import file_sha256
from features.process.devices import entered, plain_kernels
from features.process.memory import too_large
from features.transcription.recogniser import Recogniser
from features.transcription.settings import Transcription
from pipeline.data.dialogues import places_by_dialogue
from pipeline.evaluation.calibration import scale
from pipeline.predict.features import LiveBackbone, NewExamples, SlotFeatures, reads_references
from pipeline.predict.recorded import check_same
from pipeline.predict.rows import Row, needs_words, with_words
from pipeline.predict.trained import TrainedRun, load_trained
from pipeline.runs.conditions import zeroed
from pipeline.training.fitting import TooLargeError
from pipeline.training.predict import predict
from pipeline.training.scores import Floats, decoded

REMEDIES = {
    "text": "give its words (--text, --transcripts, a table's column `text`), or --transcribe",
    "asr": "give recognised words (a table's column `asr`), or --transcribe",
    "audio": "give its audio",
}
OR_TRAIN = ", or train with `modality_dropout`, which prepares a model for it"
CHANGED = "its file was changed or removed after it was listed; predict it once it stays"


@dataclass(frozen=True)
class Answer:
    """What the models of a group say of one row; sums over them, to be divided by their number.

    Attributes:
        error: Why there is nothing else; empty otherwise.
        probabilities: `[K]`, scaled by each model's temperature.
        values: `[A]` attributes on the corpus's scale.
        genders: `[G]` probabilities.
        several: `[K]` probabilities of each class by itself; empty for a softmax.
        without: Probabilities `[K]` and attributes `[A]` by slot, with that slot zeroed.
        missing: Slots that the row lacks.
        notices: What is left out of the row.
        words: Words that were recognised; None: none.
    """

    error: str = ""
    probabilities: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    genders: list[float] = field(default_factory=list)
    several: list[float] = field(default_factory=list)
    without: Mapping[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    words: str | None = None


class Predictor:
    """Predicts rows with one group of a run.

    Args:
        run: The run.
        group: Number of the group.
        device: Where backbones and models compute.
        scratch: Folder for temporary files, this process's alone.
        transcription: Recogniser of words where a row has none; None: they stay unknown.

    Raises:
        RunError: If a backbone is not the one that the run was trained on.
    """

    def __init__(
        self,
        run: TrainedRun,
        group: int,
        device: str,
        scratch: Path,
        transcription: Transcription | None = None,
    ) -> None:
        self.run, self.group, self.device = run, run.groups[group], device
        entries = self.group.entries  # one backbone for several slots with the same entry
        self.live = [
            LiveBackbone(entry, device, scratch / str(number))
            for number, entry in enumerate(entries)
        ]
        self.used = {slot: entries.index(of.used) for slot, of in self.group.slots.items()}
        for slot, of in self.group.slots.items():
            check_same(slot, of.head, of.entry, self.backbone(slot), tuned=of.tuned)
        self.recogniser = None if transcription is None else Recogniser(transcription, device)
        self.models = [(each, load_trained(each).to(device)) for each in self.group.models]

    @property
    def features(self) -> dict[str, SlotFeatures]:
        """Features by slot of the rows that were predicted last."""
        return {slot: self.live[number].found for slot, number in self.used.items()}

    @property
    def reads_asr(self) -> bool:
        """Whether a backbone reads recognised words beside others that are known."""
        backbones = [each.extractor.backbone for each in self.live]
        return any(each.reads == "asr" and not reads_references(each) for each in backbones)

    def backbone(self, slot: str) -> Backbone:
        """Backbone of a slot."""
        return self.live[self.used[slot]].extractor.backbone

    def answers(self, rows: Sequence[Row]) -> Iterator[None]:
        """Predict some rows, yielding for each as often as there are backbones and a recogniser.

        With dialogues, `rows` are whole ones. `found` holds an answer for each row in the end. Rows
        of a file that changes meanwhile, such as a recording that still runs, fail alone.
        """
        while True:
            try:
                yield from self._answers(rows)
            except ManifestError:
                before, rows = rows, [_as_measured(row) for row in rows]
                if rows == before:
                    raise
            else:
                return

    def _answers(self, rows: Sequence[Row]) -> Iterator[None]:
        heard: dict[str, str] = {}
        if self.recogniser is not None:
            rows = yield from self._heard(rows, heard)
        utterances = [row.utterance for row in rows if row.utterance is not None]
        faulty = len(rows) - len(utterances)
        yield from (None for _ in range(len(self.live) * faulty))
        for backbone in self.live:
            yield from backbone.compute(utterances)
        features = self.features
        errors = {row.id: row.fault or self._fault(row.id, features) for row in rows}
        usable = [row for row in rows if not errors[row.id]]
        predicted = self._predicted(usable, features, errors)
        found = [predicted.get(row.id) or Answer(errors[row.id]) for row in rows]
        self.found = [replace(a, words=heard.get(r.id)) for r, a in zip(rows, found, strict=True)]

    def _heard(
        self, rows: Sequence[Row], heard: dict[str, str]
    ) -> Generator[None, None, Sequence[Row]]:
        """Rows with recognised words where words are needed; `heard` gets them by id.

        One whose words cannot be recognised keeps none: its backbones say what is wrong with it.
        """
        assert self.recogniser is not None
        silent = [
            each.utterance
            for each in rows
            if each.utterance is not None and needs_words(each, asr=self.reads_asr)
        ]
        yield from (None for _ in range(len(rows) - len(silent)))
        for id, words in self.recogniser.words(silent):
            heard[id] = words
            yield
        yield from (None for _ in range(len(silent) - len(heard)))
        return [with_words(each, heard[each.id]) if each.id in heard else each for each in rows]

    def _fault(self, id: str, features: Mapping[str, SlotFeatures]) -> str:
        """Why a row cannot be predicted; empty if it can."""
        for slot, of in features.items():
            if id in of.rejected:
                return f"{slot}: {of.rejected[id]}"
        missing = [slot for slot, of in features.items() if id in of.missing]
        if not missing or (self.run.drops and len(missing) < len(features)):
            return ""
        reads = {self.backbone(slot).reads for slot in missing}
        remedies = "; ".join(REMEDIES[each] for each in sorted(reads) if each in REMEDIES)
        more = OR_TRAIN if len(missing) < len(features) else ""
        what = " and ".join(sorted(reads))
        return f"it has no {what}, which the slot {' and '.join(missing)} needs: {remedies}{more}"

    def _predicted(
        self,
        rows: Sequence[Row],
        features: Mapping[str, SlotFeatures],
        errors: dict[str, str],
    ) -> dict[str, Answer]:
        """Answers by id; a row (or dialogue) that does not fit the device gets an error instead."""
        if not rows:
            return {}
        try:
            return self._answered(rows, features)
        except TooLargeError:
            labels = [row.label for row in rows]
            units = [[place] for place in range(len(rows))]
            if self.run.unit == "dialogue":
                units = places_by_dialogue(labels)
            if len(units) == 1:
                errors |= {row.id: f"the model: {too_large(self.device)}" for row in rows}
                return {}
        found: dict[str, Answer] = {}
        for places in units:
            found |= self._predicted([rows[place] for place in places], features, errors)
        return found

    def _answered(
        self, rows: Sequence[Row], features: Mapping[str, SlotFeatures]
    ) -> dict[str, Answer]:
        specs = {slot: of.spec for slot, of in self.group.slots.items()}
        frames = {slot: self.group.slots[slot].part_of(of.frames) for slot, of in features.items()}
        examples = NewExamples([row.label for row in rows], self.run.reader, specs, frames)
        own = self._sums(examples)
        without = {slot: self._sums(examples, slot) for slot in specs if len(specs) > 1}
        found = {}
        for number, row in enumerate(rows):
            missing = [slot for slot, of in features.items() if row.id in of.missing]
            probabilities, values, genders, several = (each[number].tolist() for each in own)
            found[row.id] = Answer(
                probabilities=probabilities,
                values=values,
                genders=genders,
                several=several,
                without={
                    slot: (sums[0][number].tolist(), sums[1][number].tolist())
                    for slot, sums in without.items()
                    if len({*missing, slot}) < len(specs)  # without any slot there is no answer
                },
                missing=missing,
                notices=[
                    f"{slot}: {of.noticed[row.id]}"
                    for slot, of in features.items()
                    if row.id in of.noticed
                ],
            )
        return found

    def _sums(self, examples: NewExamples, without: str = "") -> tuple[Floats, ...]:
        """Sums over the models of what `Answer` holds, `[N, ...]` each, without a slot or with all.

        Raises:
            TooLargeError: If one row does not fit the device.
        """
        sums: list[tuple[Floats, ...]] = []
        for trained, model in self.models:
            with self._computing(), zeroed(model, without):
                found = decoded(self.run.reader, predict(model, examples, examples.labels))
            probabilities = found.probabilities
            if trained.temperature is not None:
                probabilities = scale(probabilities, trained.temperature)
            several = np.empty((len(probabilities), 0)) if found.several is None else found.several
            sums.append((probabilities, found.values, found.genders, several))
        return tuple(sum(each) for each in zip(*sums, strict=True))

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        with entered(self.device), plain_kernels():
            yield


def _as_measured(row: Row) -> Row:
    """A row, without its utterance if its file is not the one that was measured."""
    of = row.utterance
    if of is None or of.audio is None:
        return row
    try:
        same = file_sha256(Path(of.audio)) == of.sha256
    except OSError:
        same = False
    return row if same else replace(row, utterance=None, fault=CHANGED)
