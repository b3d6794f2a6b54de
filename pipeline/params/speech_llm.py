"""Settings of a speech language model: an entry of the section `speech_llms` of params.yaml.

An entry of a local kind runs a checkpoint on this machine. One of kind `endpoint` asks a server
that speaks OpenAI's chat protocol, such as vLLM, whose address comes from the environment.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from features.arguments import problems, quoted
from features.ranges import Count, Interval, MinLen, Positive, Seed
from features.settings.entry_names import form_problems

ENDPOINT = "endpoint"
LocalKind = Literal["meralion", "phi4_multimodal", "qwen2_5_omni", "qwen2_audio"]
Kind = Literal["endpoint", "meralion", "phi4_multimodal", "qwen2_5_omni", "qwen2_audio"]
Precision = Literal["auto", "bfloat16", "float16", "float32"]
Quantisation = Literal["none", "int8", "nf4", "int8wo", "int4wo"]
Words = Annotated[Sequence[str], MinLen(1)]


@dataclass(frozen=True)
class SpeechLlmEntry:
    """An entry of `speech_llms`.

    Attributes:
        name: Key in params.yaml.
        kind: Family of the checkpoint, or `endpoint`.
        checkpoint: Hub id or folder; of an endpoint the name of its model.
        prompt: File with the prompt (docs/speech-llm.md).
        revision: Commit or `sha256:` and hash of the weights; of an endpoint what its user knows.
        shots: Number of exemplars before each question, from training rows of the fold.
        seed: Random seed of the exemplars.
        max_new_tokens: Largest number of tokens of an answer.
        batch_seconds: Padded seconds of audio that are computed together.
        dtype: Precision of weights and computation; `auto` is bfloat16 on a GPU, else float32.
        quantise: Precision in which the weights of the language model are kept.
        trust_remote_code: Whether Python code of the checkpoint may run on this machine.
        requests: Questions that an endpoint is asked at a time.
        attempts: Requests for one question before giving up.
        timeout_seconds: Longest wait for an answer of an endpoint.
        trained_on: Names or kinds of corpora that the model was trained on: they are no test of it.
        synonyms: Further words by class that answers may name it by.
    """

    name: str
    kind: Kind
    checkpoint: Annotated[str, MinLen(1)]
    prompt: Annotated[str, MinLen(1)]
    revision: str | None = None
    shots: Annotated[int, Interval(ge=0, le=64)] = 0
    seed: Seed = 0
    max_new_tokens: Count = 10
    batch_seconds: Positive = 60.0
    dtype: Precision = "auto"
    quantise: Quantisation = "none"
    trust_remote_code: bool = False
    requests: Annotated[int, Interval(ge=1, le=256)] = 4
    attempts: Annotated[int, Interval(ge=1, le=100)] = 6
    timeout_seconds: Positive = 120.0
    trained_on: Sequence[str] = ()
    synonyms: Mapping[str, Words] = field(default_factory=dict)


def speech_llm_problems(name: str, mapping: Any) -> list[str]:
    """Problems with an entry of `speech_llms`, one line each."""
    where = f"speech_llms.{name}"
    found = form_problems("speech_llms", name, mapping, "{kind: endpoint}")
    found = found or problems(SpeechLlmEntry, mapping, where, skip=("name",))
    return found or [
        f"{where}.synonyms.{label}: given {quoted(word)}; expected a word with letters, since "
        "signs around an answer do not count"
        for label, words in mapping.get("synonyms", {}).items()
        for word in words
        if not any(unicodedata.category(sign)[0] in "LN" for sign in word)
    ]
