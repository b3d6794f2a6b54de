"""Reads and validates run.json, the head of a run folder (`pipeline.runs.record` writes it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from features.arguments import Record
from features.errors import RunError
from features.files.records import read_record
from features.ranges import Amount, Count, Interval, MinLen
from pipeline.runs.answers import AnswersHead
from pipeline.runs.tables import AGAIN

Name = Annotated[str, MinLen(1)]


@dataclass(frozen=True)
class SlotHead(Record):
    """A filled slot in run.json."""

    backbone: str
    spec: Mapping[str, Any]
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class AsrHead(Record):
    """Recognised words of the condition `asr_text` in run.json (`pipeline.runs.recognised`)."""

    backbone: str = ""
    tested: int = 0
    recognised: int = 0
    words: int = 0
    word_errors: int = 0
    noticed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TargetsHead(Record):
    """What a run learns, in run.json, where that is more than classes.

    Attributes:
        tasks: Its targets: classes, votes, attributes, gender.
        attributes: Lowest and highest value on the corpus's scale by attribute.
        genders: Genders that are predicted.
        losses: Name of the loss by target.
        weights: Factor of the loss by target, if `weighting` is `fixed`.
        weighting: Whether factors were fixed, or trained.
        estimator: How training values were made of what each rater said.
        lacking: Utterances of the corpus that have no target and were left out.
        skipped_batches: Training batches, of all jobs, that had nothing to learn from.
        clipped: Predictions by attribute, of all jobs, that were clipped to the scale.
    """

    tasks: Annotated[Sequence[str], MinLen(1)]
    attributes: Mapping[str, tuple[float, float]]
    genders: Sequence[str]
    losses: Mapping[str, str]
    weights: Mapping[str, float]
    weighting: str = "fixed"
    estimator: str = "mean"
    lacking: Amount = 0
    skipped_batches: Amount = 0
    clipped: Mapping[str, Amount] = field(default_factory=dict)


@dataclass(frozen=True)
class MemberHead(Record):
    """A member of an ensemble in run.json.

    Attributes:
        seeds: Its seeds, whose probabilities were averaged.
        parameters: Trainable parameters of one of its models.
        weights: How often it counts, in each fold; 0: the search left it out.
        valid: Its own score of the validation rows, mean over folds, by the metric that chooses
            members; None without classes.
    """

    seeds: Sequence[int]
    parameters: Amount
    weights: Sequence[Amount]
    valid: float | None = None


@dataclass(frozen=True)
class RunHead:
    """The fields of run.json; runs of older releases may lack those that have a default."""

    format: Literal["heronry-run"]
    version: Literal[1, 2]
    regime: Literal["cached", "e2e", "ensemble", "speech_llm"]
    corpus: str
    fusion: str
    kind: str
    classes: Sequence[Name]
    slots: Mapping[str, SlotHead | None]
    seeds: Annotated[Sequence[int], MinLen(1)]
    folds: Count
    args: Mapping[str, Any]
    train: Mapping[str, Any]
    parameters: Annotated[int, Interval(ge=0, le=10**15)]
    utterances: Amount
    dropped: Mapping[str, str]
    train_seconds: Annotated[float, Interval(ge=0, le=10**10)]
    warnings: Sequence[str] = ()
    noticed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    stand_ins: Mapping[str, Sequence[str]] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    asr: AsrHead | None = None
    e2e: Mapping[str, Any] = field(default_factory=dict)
    parameters_total: int = 0
    processes: int = 1
    files: Mapping[str, str] = field(default_factory=dict)
    targets: TargetsHead | None = None
    answers: AnswersHead | None = None
    members: Mapping[str, MemberHead] = field(default_factory=dict)


def read_head(run: Path) -> dict[str, Any]:
    """Read run.json of a run folder; missing fields are not filled in.

    Raises:
        ManifestError: If it is missing or is no JSON object.
        RunError: If a field is missing, of another type, or out of its range.
    """
    path = run / "run.json"
    head = read_record(path, RunHead, AGAIN, RunError)
    for name in ("classes", "seeds"):
        if len(set(head[name])) < len(head[name]):
            raise RunError(f"{path}: {name}: given {head[name]}; expected each once: {AGAIN}")
    targets = head.get("targets")
    if (targets is None) != (head["version"] == 1):
        raise RunError(
            f"{path}: version {head['version']} with{'out' if targets is None else ''} targets; "
            f"expected version 2 with them, or 1 without: {AGAIN}"
        )
    without = targets is not None and not {"classes", "votes"} & set(targets["tasks"])
    if without != (not head["classes"]) or len(head["classes"]) == 1:
        raise RunError(
            f"{path}: classes: given {head['classes']}; expected two or more, or none of a run "
            f"that learns no classes: {AGAIN}"
        )
    return head


def stand_ins(head: Mapping[str, Any]) -> str:
    """Which backbones of a run stand for others, in words; empty if none does.

    >>> slots = {"text": {"backbone": "minilm"}, "speech": {"backbone": "whisper_tiny_en"}}
    >>> stand_ins({"stand_ins": {"text": ["roberta"]}, "slots": slots})
    'minilm for roberta (text)'
    """
    named = head.get("stand_ins", {})
    return ", ".join(
        f"{filled['backbone']} for {' and '.join(named[slot])} ({slot})"
        for slot, filled in head["slots"].items()
        if slot in named
    )
