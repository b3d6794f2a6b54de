"""Asks the questions of a plan, and keeps each answer as soon as it is there.

Answers lie in the work store, a line each, below the fingerprint of all that decides them. A
process that is killed leaves at most a torn last line, which the next one cuts off; it then asks
only what is missing. An exclusive lock keeps two runs from asking the same twice.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from features.errors import HeronryError, RunError, UtteranceError
from features.files.writing import lock, make_folder, open_lock
from features.process.terminal import progress
from pipeline.runs.answers import ANSWERS
from pipeline.speech_llm.models.base import Question, SpeechModel
from pipeline.speech_llm.questions import Asked

_LOCK = "lock"


@dataclass
class Answers:
    """Answers to the questions of a plan.

    Attributes:
        raw: Answer by key of the question.
        failed: Reason by key of a question without an answer.
        computed: Number of questions that were asked now; the store had the other answers.
    """

    raw: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    computed: int = 0


def ask(
    model: SpeechModel,
    batches: Sequence[Sequence[Asked]],
    system: str,
    folder: Path,
    *,
    title: str,
    side_by_side: int = 1,
) -> Answers:
    """Ask all questions that have no answer yet.

    Args:
        model: What answers.
        batches: Questions that are asked together.
        system: Instructions.
        folder: Folder of the answers in the work store.
        title: Title of the progress line.
        side_by_side: Batches that are asked at the same time.

    Raises:
        RunError: If another process is asking the same.
    """
    make_folder(folder)
    with open_lock(folder / _LOCK) as held:
        if not lock(held, fcntl.LOCK_EX | fcntl.LOCK_NB):
            raise RunError(
                f"{folder}: another process is asking these questions; expected one at a time: "
                "wait until it has ended, then run this again to take its answers"
            )
        path = folder / ANSWERS
        done = Answers(kept(path))
        todo = [batch for batch in batches if any(each.key not in done.raw for each in batch)]
        total = sum(len(batch) for batch in todo)
        with path.open("a", encoding="utf-8") as file:
            steps = _answered(model, todo, system, side_by_side)
            for each, answer in progress(steps, total=total, what=title, unit="question"):
                done.computed += 1
                if not isinstance(answer, str):
                    done.failed[each.key] = answer.reason
                elif each.key not in done.raw:
                    done.raw[each.key] = answer
                    line = {"key": each.key, "answer": answer}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
                    file.flush()  # what a process has handed over survives its end
    return done


def kept(path: Path) -> dict[str, str]:
    """Answers by key in a file, of which a torn last line is cut off."""
    if not path.exists():
        return {}
    found, whole = {}, 0
    with path.open("rb+") as file:
        for line in file:
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if not (isinstance(row, dict) and {"key", "answer"} <= row.keys()):
                break
            found[str(row["key"])] = str(row["answer"])
            whole += len(line)
        file.truncate(whole)
    return found


@dataclass(frozen=True)
class _Failed:
    """Why a question has no answer."""

    reason: str


_Answered = tuple[Asked, "str | _Failed"]


def _answered(
    model: SpeechModel, batches: Sequence[Sequence[Asked]], system: str, side_by_side: int
) -> Iterator[_Answered]:
    """Questions and their answers, as they come."""
    if side_by_side == 1:
        for batch in batches:
            yield from _one_batch(model, batch, system)
        return
    left, running = list(batches)[::-1], set[Future[list[_Answered]]]()
    failed: HeronryError | None = None
    with ThreadPoolExecutor(side_by_side) as pool:
        while running or left:
            # No more than run at once, so that no recording is read long before it is sent.
            while left and len(running) < side_by_side:
                running.add(pool.submit(_one_batch, model, left.pop(), system))
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                try:
                    yield from future.result()
                except HeronryError as error:
                    failed, left = failed or error, []  # answers that are on their way still count
    if failed is not None:
        raise failed


def _one_batch(model: SpeechModel, batch: Sequence[Asked], system: str) -> list[_Answered]:
    questions: list[tuple[Asked, Question]] = []
    found: list[_Answered] = []
    for each in batch:
        try:
            questions.append((each, each.question(system)))
        except UtteranceError as error:
            found.append((each, _Failed(error.reason)))
    said = model.answers([question for _, question in questions]) if questions else []
    for (each, question), answer in zip(questions, said, strict=True):
        none = _Failed(model.failed.get(question.id, "has no answer"))
        found.append((each, none if answer is None else answer))
    return found


def reasons(answers: Answers, rows: Mapping[tuple[int, str], str]) -> dict[str, str]:
    """Reasons by id of utterances that have no answer in some fold."""
    return {id: answers.failed[key] for (_, id), key in rows.items() if key in answers.failed}
