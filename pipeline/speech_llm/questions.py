"""Plans the questions of a run: what is asked, about which rows, and in which batches.

A question is known by its key, a hash of all that is sent: instructions, messages, recordings and
the answers of exemplars. Equal questions, such as those of one utterance in several folds without
exemplars, are asked once. Batches are made of the keys and durations alone, longest first, and do
not depend on what has been answered before: a run that goes on asks what is left in the batches in
which it would have been asked, since an answer may depend, in rare ties, on what is computed
beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from features.audio.read import Samples, read_audio
from features.corpus.manifest import Label
from features.corpus.utterance import Utterance
from features.errors import ManifestError, ParamsError
from pipeline.runs.layout import SCORED
from pipeline.speech_llm.exemplars import choose
from pipeline.speech_llm.models.base import Question, Turn
from pipeline.speech_llm.prompt import Prompt

_DECODED = 64  # recordings kept in memory: the exemplars of all folds


@dataclass(frozen=True)
class Asked:
    """A question before its recordings are read.

    Attributes:
        key: Hash of all that is sent.
        utterance: Utterance that it is about, with the path of its recording.
        message: Message about it.
        exemplars: Utterance, message and answer of each exemplar.
        seconds: Seconds of all recordings.
    """

    key: str
    utterance: Utterance
    message: str
    exemplars: tuple[tuple[Utterance, str, str], ...]
    seconds: float

    def question(self, system: str) -> Question:
        """The question, with its recordings.

        Raises:
            ManifestError: If a recording is gone, or is another one.
            UtteranceError: If one cannot be decoded.
        """
        turns = [Turn(text, _heard(each), answer) for each, text, answer in self.exemplars]
        own = self.utterance
        last = Turn(self.message, _read(own))
        return Question(own.id, system, (*turns, last))


@dataclass(frozen=True)
class Plan:
    """What a run asks.

    Attributes:
        prompt: The prompt.
        rows: Key of the question about each scored row, by fold and id.
        asked: Questions by key.
        exemplars: Ids of the exemplars of each fold.
        dropped: Reasons by id of utterances that nothing can be asked about.
        wordless: Ids of the others without words, though the prompt has a place for them.
    """

    prompt: Prompt
    rows: Mapping[tuple[int, str], str]
    asked: Mapping[str, Asked]
    exemplars: tuple[tuple[str, ...], ...]
    dropped: Mapping[str, str]
    wordless: frozenset[str]

    def batches(self, seconds: float) -> list[list[Asked]]:
        """Questions of similar length, whose padded audio is at most `seconds` long, or one each.

        Args:
            seconds: Length of the longest question of a batch times their number; 0: one each.
        """
        order = sorted(self.asked.values(), key=lambda each: (-each.seconds, each.key))
        found: list[list[Asked]] = []
        for each in order:
            # The first of a batch is its longest.
            if found and found[-1][0].seconds * (len(found[-1]) + 1) <= seconds:
                found[-1].append(each)
            else:
                found.append([each])
        return found


def plan(
    labels: Sequence[Label],
    utterances: Mapping[str, Utterance],
    prompt: Prompt,
    folds: int,
    *,
    shots: int,
    seed: int,
) -> Plan:
    """Plan the questions about all scored rows.

    Args:
        labels: Labels with a class.
        utterances: Utterances by id, with the paths of their recordings.
        prompt: The prompt.
        folds: Number of folds.
        shots: Number of exemplars.
        seed: Random seed of the exemplars.

    Raises:
        ParamsError: If there are too few exemplars, or no utterance has the words that the prompt
            has a place for.
        ManifestError: If no scored utterance has audio.
    """
    scored = [label for label in labels if not set(SCORED).isdisjoint(label.splits)]
    dropped = {label.id: "has no audio" for label in labels if utterances[label.id].audio is None}
    if prompt.needs_words and not any(label.text for label in labels):
        raise ParamsError(
            f"the prompt {prompt.path} has a place for the words of an utterance, and this corpus "
            "has none; expected a prompt without <transcription> (docs/speech-llm.md)"
        )
    recordings = {id: each.sha256 for id, each in utterances.items()}
    rows: dict[tuple[int, str], str] = {}
    asked: dict[str, Asked] = {}
    shown: list[tuple[str, ...]] = []
    for fold in range(folds):
        chosen = choose(
            labels,
            fold,
            shots,
            seed=seed,
            with_words=prompt.needs_words,
            unusable=dropped,
            recordings=recordings,
        )
        shown.append(tuple(label.id for label in chosen))
        before = tuple(
            (utterances[each.id], prompt.message(each.text), each.class_name) for each in chosen
        )
        for label in scored:
            if label.splits[fold] in SCORED and label.id not in dropped:
                each = _asked(utterances[label.id], prompt.message(label.text), before, prompt)
                rows[fold, label.id] = asked.setdefault(each.key, each).key
    if not asked:
        # Before a model is loaded, which may take minutes.
        raise ManifestError(
            f"nothing can be asked about: of {len(scored)} validation and test utterances with a "
            "class none has audio; expected recordings"
        )
    wordless = (label.id for label in scored if not label.text and label.id not in dropped)
    return Plan(
        prompt,
        rows,
        asked,
        tuple(shown),
        dropped,
        frozenset(wordless if prompt.needs_words else ()),
    )


def _asked(
    utterance: Utterance,
    message: str,
    before: tuple[tuple[Utterance, str, str], ...],
    prompt: Prompt,
) -> Asked:
    turns = [(each.audio_content, text, answer) for each, text, answer in before]
    sent = [prompt.system, *turns, (utterance.audio_content, message, None)]
    key = hashlib.sha256(json.dumps(sent).encode()).hexdigest()
    heard = (utterance, *(each for each, _, _ in before))
    seconds = sum(each.seconds or 0.0 for each in heard)
    return Asked(key, utterance, message, before, seconds)


def fingerprint(facts: Mapping[str, object], keys: Iterable[str]) -> str:
    """Name of the answers to a plan's questions in the work store.

    Args:
        facts: All that decides the answers besides the questions.
        keys: Keys of the questions.
    """
    text = json.dumps([dict(facts), sorted(keys)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(_DECODED)
def _heard(utterance: Utterance) -> Samples:
    """The recording of an exemplar, which many questions share."""
    return _read(utterance)


def _read(utterance: Utterance) -> Samples:
    return read_audio(
        Path(utterance.audio or ""),
        id=utterance.id,
        start=utterance.start,
        stop=utterance.stop,
        sha256=utterance.sha256,
    )
