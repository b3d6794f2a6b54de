"""Divides rows into parts of bounded size, and computes those that are not finished.

Which rows share a part depends on the rows and the kind of device alone, so that a command that was
killed ends with the numbers that it would have had. Several devices take parts as they become free.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path

from features.backbone.base import CHARACTERS_A_SECOND
from features.process.workers import WorkerPool
from features.transcription.settings import Transcription
from pipeline.data.dialogues import places_by_dialogue
from pipeline.predict.predictor import Answer, Predictor
from pipeline.predict.rows import Row, with_words
from pipeline.predict.trained import TrainedRun
from pipeline.predict.work import Work

PART_BYTES = 256 << 20  # of features that are held at one time
PART_SECONDS = 600.0  # of audio on a CPU: minutes of work that a killed process loses
DEVICE_SECONDS = 3600.0  # of audio on another device, which is many times faster
PART_ROWS = 4096
TOKEN_SECONDS = 0.25  # a frame of a stream that is not even in time
QUEUED = 2  # parts for each device, so that none waits


@dataclass(frozen=True)
class Parts:
    """Rows of a prediction, and which of them share a part.

    Attributes:
        rows: All rows, in the order of the result.
        places: Places in `rows` of each part.
    """

    rows: Sequence[Row]
    places: Sequence[Sequence[int]]

    def of(self, part: int) -> list[Row]:
        """Rows of a part."""
        return [self.rows[place] for place in self.places[part]]


def divided(rows: Sequence[Row], run: TrainedRun, device: str) -> Parts:
    """Rows in parts; a dialogue is never divided."""
    units = [[place] for place in range(len(rows))]
    if run.unit == "dialogue":
        units = places_by_dialogue([row.label for row in rows])
    limit = part_seconds(run, device)
    parts: list[list[int]] = []
    load = 0.0
    for unit in units:
        seconds = sum(_load(rows[place]) for place in unit)
        full = parts and (load + seconds > limit or len(parts[-1]) + len(unit) > PART_ROWS)
        if not parts or full:
            parts.append([])
            load = 0.0
        parts[-1] += unit
        load += seconds
    return Parts(rows, parts)


def part_seconds(run: TrainedRun, device: str) -> float:
    """Seconds of audio of a part at most, by what its features take."""
    rate = 0.0
    for slot in run.groups[0].slots.values():
        rate += 4 * slot.spec.dim / (slot.spec.hop_seconds or TOKEN_SECONDS)
    most = PART_SECONDS if device.startswith("cpu") else DEVICE_SECONDS
    return min(most, PART_BYTES / rate)


def _load(row: Row) -> float:
    """Seconds of a row, or those that its words would take."""
    words = "" if row.utterance is None else row.utterance.text or row.utterance.asr or ""
    return row.seconds or len(words) / CHARACTERS_A_SECOND


@dataclass(frozen=True)
class Machine:
    """What computes.

    Attributes:
        devices: Devices; several take parts as they become free.
        transcription: Recogniser of words where a row has none; None: they stay unknown.
    """

    devices: Sequence[str]
    transcription: Transcription | None = None


def compute(run: TrainedRun, parts: Parts, work: Work, machine: Machine) -> Iterator[int]:
    """Finish all parts, yielding once for each of the `steps` that are done.

    Raises:
        HeronryError: If a backbone is missing, or another one than the run was trained on.
    """
    for group in range(len(run.groups)):
        todo = [part for part in range(len(parts.places)) if not work.has(group, part)]
        if not todo:
            continue
        # Words are recognised once, for all groups.
        spoken = None if group else machine.transcription
        given = ((part, _rows(parts, part, work, group)) for part in todo)
        if len(machine.devices) > 1 and len(todo) > 1:
            yield from _in_processes(run, group, given, work, machine.devices, spoken)
            continue
        yield from _in_process(run, group, given, work, machine.devices[0], spoken)


def steps(run: TrainedRun, parts: Parts, work: Work, machine: Machine) -> int:
    """Number of steps that are not done: a row in a backbone, or in the recogniser."""
    total = 0
    for group, of in enumerate(run.groups):
        each = len(of.entries) + (machine.transcription is not None and not group)
        for part, places in enumerate(parts.places):
            total += 0 if work.has(group, part) else each * len(places)
    return total


def _rows(parts: Parts, part: int, work: Work, group: int) -> list[Row]:
    """Rows of a part, with the words that the first group recognised."""
    rows = parts.of(part)
    if not group:
        return rows
    heard = [answer.words for answer in work.read(0, part)]
    return [
        row if words is None else with_words(row, words)
        for row, words in zip(rows, heard, strict=True)
    ]


def _in_process(
    run: TrainedRun,
    group: int,
    given: Iterable[tuple[int, list[Row]]],
    work: Work,
    device: str,
    transcription: Transcription | None,
) -> Iterator[int]:
    # Its end frees the networks, before those of the next group are loaded.
    predictor = Predictor(run, group, device, work.scratch("0"), transcription)
    for part, rows in given:
        yield from (1 for _ in predictor.answers(rows))
        work.add(group, part, predictor.found)


def _in_processes(
    run: TrainedRun,
    group: int,
    given: Iterable[tuple[int, list[Row]]],
    work: Work,
    devices: Sequence[str],
    transcription: Transcription | None,
) -> Iterator[int]:
    names: Queue[tuple[str, Path]] = multiprocessing.get_context("spawn").Queue()
    for number, device in enumerate(devices):
        names.put((device, work.scratch(str(number))))
    left = iter(given)
    running: dict[Future[tuple[int, list[Answer]]], int] = {}
    with WorkerPool(len(devices), _start, (run, group, names, transcription)) as pool:
        while True:
            for part, rows in itertools.islice(left, len(devices) * QUEUED - len(running)):
                running[pool.submit(_finish, rows)] = part
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                count, answers = future.result()
                work.add(group, running.pop(future), answers)
                yield from (1 for _ in range(count))


# Of a worker process, which loads weights once.
_predictor: Predictor | None = None
_given: tuple[TrainedRun, int, str, Path, Transcription | None] | None = None


def _start(
    run: TrainedRun,
    group: int,
    devices: Queue[tuple[str, Path]],
    transcription: Transcription | None,
) -> None:
    global _given
    _given = (run, group, *devices.get(), transcription)


def _finish(rows: Sequence[Row]) -> tuple[int, list[Answer]]:
    global _predictor
    assert _given is not None
    if _predictor is None:  # not when the process starts, where its errors would be a traceback
        _predictor = Predictor(*_given)
    count = sum(1 for _ in _predictor.answers(rows))
    return count, _predictor.found
