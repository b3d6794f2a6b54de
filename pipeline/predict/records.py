"""Rows of the result: what the models of a run say of each row, as named values.

Columns, in this order; those that a run does not have are left out:

    id, audio, start, stop         the recording, or the piece of one, in seconds
    speaker, dialogue, turn        as a table gives them
    prediction, p_<class>          likeliest class, and probabilities
    v_<attribute>                  attributes on the corpus's own scale
    g_<gender>                     probabilities of the speaker's gender
    m_<class>                      probability of each class by itself, of a multi-label model
    without_<slot>                 the class without that slot, then its `_p_<class>` and
                                   `_v_<attribute>`; unknown where no slot is left
    missing                        slots that the row lacks
    notices                        what backbones left out of it, and a stop behind its end
    asr                            words that `--transcribe` recognised
    models, temperatures           seeds and folds that were averaged, and the temperature of each
    error                          why there is no prediction; then all of them are unknown
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.model.outputs import Outputs
from pipeline.predict.parts import Parts
from pipeline.predict.predictor import Answer
from pipeline.predict.rows import Row
from pipeline.predict.trained import TrainedRun
from pipeline.predict.work import Work

LISTS = ("missing", "notices", "models", "temperatures")
TEXTS = ("id", "audio", "speaker", "dialogue", "prediction", "asr", "error")
Record = dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """Columns of a result.

    Attributes:
        outputs: What the models predict.
        slots: Slots of a model that has several; none otherwise.
        recognised: Whether there are recognised words.
    """

    outputs: Outputs
    slots: tuple[str, ...]
    recognised: bool

    @classmethod
    def of(cls, run: TrainedRun, *, recognised: bool) -> Columns:
        """Columns of the result of a run."""
        slots = tuple(run.slots) if len(run.slots) > 1 else ()
        return cls(run.outputs, slots, recognised)

    @property
    def names(self) -> list[str]:
        """All of them, in order."""
        return [
            *("id", "audio", "start", "stop", "speaker", "dialogue", "turn"),
            *self.predicted,
            *(name for slot in self.slots for name in self.without(slot)),
            *("missing", "notices", *(("asr",) if self.recognised else ())),
            *("models", "temperatures", "error"),
        ]

    @property
    def predicted(self) -> list[str]:
        """Those of the prediction itself."""
        of = self.outputs
        return [
            *(["prediction"] if of.classes else []),
            *(f"p_{name}" for name in of.classes),
            *(f"v_{name}" for name in of.attributes),
            *(f"g_{name}" for name in of.genders),
            *(f"m_{name}" for name in (of.classes if of.binary else ())),
        ]

    def without(self, slot: str) -> list[str]:
        """Those of the prediction without a slot."""
        of, name = self.outputs, f"without_{slot}"
        return [
            *([name] if of.classes else []),
            *(f"{name}_p_{each}" for each in of.classes),
            *(f"{name}_v_{each}" for each in of.attributes),
        ]


def records(run: TrainedRun, parts: Parts, work: Work, columns: Columns) -> Iterator[Record]:
    """The result, row by row in the order that was given; parts are read as they are needed."""
    where = {
        place: (part, number)
        for part, places in enumerate(parts.places)
        for number, place in enumerate(places)
    }
    for place, row in enumerate(parts.rows):
        part, number = where[place]
        answers = [work.read(group, part)[number] for group in range(len(run.groups))]
        yield record_of(run, row, answers, columns)


def record_of(run: TrainedRun, row: Row, answers: Sequence[Answer], columns: Columns) -> Record:
    """One row of the result, of the answers of each group of the run."""
    record: Record = dict.fromkeys(columns.names) | {
        "id": row.id,
        "audio": row.audio or None,
        "start": row.start,
        "stop": row.stop,
        "speaker": row.speaker or None,
        "dialogue": row.dialogue,
        "turn": row.turn,
    }
    error = next((each.error for each in answers if each.error), "")
    if error:
        return record | {"error": error}
    record["models"] = [model.name for model in run.models]
    record["temperatures"] = [m.temperature for m in run.models if m.temperature is not None]
    record |= _predicted(columns, answers, len(run.models))
    record["notices"] = [*([row.notice] if row.notice else []), *record["notices"]]
    return record


def _predicted(columns: Columns, answers: Sequence[Answer], count: int) -> Record:
    of, first = columns.outputs, answers[0]

    def mean(name: str) -> list[float]:
        rows = [getattr(each, name) for each in answers]
        return [sum(column) / count for column in zip(*rows, strict=True)]

    found = _named(of, "", mean("probabilities"), mean("values"))
    found |= _prefixed("g_", of.genders, mean("genders"))
    found |= _prefixed("m_", of.classes if of.binary else (), mean("several"))
    for slot in columns.slots:
        pairs = [each.without[slot] for each in answers if slot in each.without]
        if pairs:
            means = [np.sum(column, axis=0) / count for column in zip(*pairs, strict=True)]
            found |= _named(of, f"without_{slot}", *(each.tolist() for each in means))
    found |= {"missing": first.missing, "notices": first.notices}
    return found | ({"asr": first.words} if columns.recognised else {})


def _named(
    of: Outputs, name: str, probabilities: Sequence[float], values: Sequence[float]
) -> Record:
    """Class, probabilities and attributes by column; `name` is that of a condition, or empty."""
    stem = f"{name}_" if name else ""
    found: Record = {}
    if of.classes:
        found[name or "prediction"] = of.classes[int(np.argmax(probabilities))]
    found |= _prefixed(f"{stem}p_", of.classes, probabilities)
    return found | _prefixed(f"{stem}v_", of.attributes, values)


def _prefixed(prefix: str, names: Sequence[str], values: Sequence[float]) -> Record:
    return {f"{prefix}{name}": value for name, value in zip(names, values, strict=True)}
