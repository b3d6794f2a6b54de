"""What a speech language model is: settings, questions, answers; and how one is loaded by its kind.

A question is a conversation. Its last turn is asked; earlier turns are exemplars, each with its
answer. How turns become the tokens of a checkpoint is the affair of each kind.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, get_args

import numpy as np

from features.audio.read import SAMPLE_RATE_HZ, Samples
from features.ranges import Count
from pipeline.params import speech_llm

Kind = speech_llm.LocalKind
Precision = speech_llm.Precision
Quantisation = speech_llm.Quantisation
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class ModelSettings:
    """Settings of a checkpoint that answers questions.

    Attributes:
        name: Key of the entry in `speech_llms`, for messages.
        kind: Family of the checkpoint, a file of this folder.
        checkpoint: Hub id or folder.
        revision: Commit of the hub repository, or `sha256:` and the hash of the weights.
        max_new_tokens: Largest number of tokens of an answer.
        dtype: Precision of weights and computation; `auto` is bfloat16 on a GPU, else float32.
        quantise: Precision in which the weights of the language model are kept: `none` as `dtype`;
            `int8` and `nf4` by bitsandbytes; `int8wo` and `int4wo` (weights alone) by torchao.
        trust_remote_code: Whether Python code of the checkpoint may run on this machine.
    """

    name: str
    kind: Kind
    checkpoint: str
    revision: str | None = None
    max_new_tokens: Count = 10
    dtype: Precision = "auto"
    quantise: Quantisation = "none"
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Turn:
    """One message of the user, and the answer to it.

    Attributes:
        text: What the user writes.
        audio: What the user lets hear: `[L]` float32 at 16 kHz, mono, in [-1, 1]; None for nothing.
        answer: The answer; None in the turn that is asked.
    """

    text: str
    audio: Samples | None = None
    answer: str | None = None

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return 0.0 if self.audio is None else len(self.audio) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Question:
    """A conversation whose last turn is asked.

    Attributes:
        id: Id of the utterance that it is about.
        system: Instructions; "" for none.
        turns: Exemplars with answers, then the turn without one.
    """

    id: str
    system: str
    turns: tuple[Turn, ...]

    def __post_init__(self) -> None:
        *exemplars, last = self.turns
        if last.answer is not None or any(turn.answer is None for turn in exemplars):
            raise ValueError(f"question {self.id!r}: expected answers in all turns but the last")

    @property
    def seconds(self) -> float:
        """Length of all audio, by which questions are put into batches."""
        return sum(turn.seconds for turn in self.turns)


_HEARD = np.zeros(SAMPLE_RATE_HZ // 10, np.float32)
EXAMPLE = Question("", "a\n\nb:  {'c'}.", (Turn("d\n", _HEARD, "c"), Turn("<e>", _HEARD)))
"""A question with all that there may be. What a model makes of it is part of its provenance, so
that answers are asked for again once other code writes questions in another way."""


class SpeechModel(Protocol):
    """Answers questions about speech.

    Attributes:
        longest_seconds: Longest audio of a turn that is heard; the rest of longer audio is left
            out. None: any length.
        hears_exemplars: Whether the audio of earlier turns is heard; otherwise their text and
            answers alone are given.
        failed: Reasons by id of the questions that had no answer.
    """

    longest_seconds: float | None
    hears_exemplars: bool
    failed: dict[str, str]

    def answers(self, questions: Sequence[Question]) -> list[str | None]:
        """Raw answers in order: the text of the new tokens, decoded greedily.

        The questions are one batch, cut in halves where it does not fit the device. None is the
        answer of a question that does not fit by itself; `failed` has the reason.
        """
        ...

    @property
    def provenance(self) -> dict[str, Any]:
        """All that decides the answers: checkpoint, SHA-256 of files, precision, versions."""
        ...


def load(settings: ModelSettings, device: str = "cpu") -> SpeechModel:
    """Load the checkpoint of an entry onto a device.

    Raises:
        CheckpointError: If weights, tokenizer or adapter are missing, damaged or others than named.
        ParamsError: If a setting asks for what the entry does not allow, or this machine lacks.
    """
    module = importlib.import_module(f"pipeline.speech_llm.models.{settings.kind}")
    model: SpeechModel = module.build(settings, device)
    return model


def unheard_seconds(model: SpeechModel, question: Question) -> float:
    """Seconds of a question's audio beyond what the model hears of each turn."""
    longest = model.longest_seconds
    heard = question.turns if model.hears_exemplars else question.turns[-1:]
    return 0.0 if longest is None else sum(max(0.0, turn.seconds - longest) for turn in heard)
