"""What a speech language model was asked and answered: `answers.jsonl`, and its field of run.json.

`answers.jsonl` lies beside predictions.csv of each seed and fold, with a row for each of its rows,
in their order: the raw answer, the class that was read in it, and how it was read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from features.arguments import Record
from features.files.records import read_rows, write_rows
from features.ranges import Amount

ANSWERS = "answers.jsonl"
STORE = "answers"  # folder of the work store
How = Literal["exact", "word", "synonym", "several", "negated", "none"]
"""How a class was read in an answer (the first three), or why none was (the others)."""
READ_AS: Mapping[How, str] = {
    "exact": "the answer is a class",
    "word": "it holds the name of one class",
    "synonym": "it holds another word for one class",
    "several": "it names several classes",
    "negated": "it only says which class it is not",
    "none": "it names no class",
}


@dataclass(frozen=True)
class Answer:
    """A row of answers.jsonl.

    Attributes:
        id: Id of the utterance.
        split: Its split in this fold.
        answer: What the model said, unchanged.
        how: How it was read.
        label: Class that was read in it; None if none was, which counts as wrong.
    """

    id: str
    split: str
    answer: str
    how: How
    label: str | None = None


@dataclass(frozen=True)
class PromptHead(Record):
    """The prompt of a run.

    Attributes:
        path: Its file.
        sha256: SHA-256 of the file.
        system: Instructions as they were sent, with the classes of the corpus.
        user: Message to each clip, before the words of the clip were put into it.
        classes_replaced: Whether the corpus's classes took the place of others that the file names.
    """

    path: str
    sha256: str
    system: str
    user: str
    classes_replaced: bool = False


@dataclass(frozen=True)
class AnswersHead(Record):
    """Field `answers` of run.json.

    Attributes:
        prompt: The prompt.
        shots: Number of exemplars before each question.
        exemplars: Ids of the exemplars of each fold, in the order in which they are shown.
        model: All that decides the answers: checkpoint, hashes, precision, versions.
        how: Number of rows by how their answer was read, of all folds and splits.
        wordless: Utterances asked about without their words, which the corpus lacks.
        cut: Utterances of which the model heard a part only.
        trained_on: Corpora whose recordings the model was trained on, as far as its entry says.
    """

    prompt: PromptHead
    shots: Amount
    exemplars: Sequence[Sequence[str]]
    model: Mapping[str, Any]
    how: Mapping[str, Amount]
    wordless: Amount = 0
    cut: Amount = 0
    trained_on: Sequence[str] = field(default=())


def write_answers(folder: Path, answers: Iterable[Answer]) -> None:
    """Write answers.jsonl of a seed and fold."""
    write_rows(folder / ANSWERS, answers)


def read_answers(folder: Path) -> list[Answer]:
    """Read answers.jsonl of a seed and fold.

    Raises:
        ManifestError: If it is missing or malformed, naming the line.
    """
    return list(read_rows(folder / ANSWERS, Answer))


def counts(answers: Iterable[Answer]) -> dict[str, int]:
    """Number of answers by how they were read, in the order of `READ_AS`."""
    found = Counter(answer.how for answer in answers)
    return {str(how): found[how] for how in READ_AS if found[how]}
