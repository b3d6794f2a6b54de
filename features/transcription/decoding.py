"""Greedy decoding of Whisper: windows of speech to tokens (Radford et al. 2022, arXiv 2212.04356).

The prompt, the suppressed tokens and the rule for windows without speech are those of the paper's
section 4.5 and of the authors' code, without timestamps, beams and temperatures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from features.errors import CheckpointError, ParamsError

NO_SPEECH = 0.6  # probability of silence above which a window may be empty ...
DOUBTFUL = -1.0  # ... if the mean log probability of its tokens is below this as well
ENGLISH_VOCABULARY = 51_864  # entries of the published checkpoints for English alone


@dataclass(frozen=True)
class Tokens:
    """Special tokens of a checkpoint.

    Attributes:
        start: `<|startoftranscript|>`.
        end: `<|endoftext|>`.
        task: Tokens of the prompt behind `start` and the language.
        languages: Tokens of languages by code; empty for a checkpoint for English alone.
        no_speech: Token whose probability at `start` is that of silence; None if there is none.
        suppressed: Tokens that are never recognised.
        suppressed_first: Tokens that are not recognised at the beginning.
        most: Largest number of tokens of a window.
    """

    start: int
    end: int
    task: tuple[int, ...]
    languages: dict[str, int]
    no_speech: int | None
    suppressed: tuple[int, ...]
    suppressed_first: tuple[int, ...]
    most: int

    @classmethod
    def of(cls, network: Any, tokenizer: Any) -> Self:
        """The tokens of a `WhisperForConditionalGeneration` and its tokenizer.

        Raises:
            CheckpointError: If the tokenizer is not one of Whisper.
        """
        known: dict[str, int] = tokenizer.get_vocab()
        names = ("<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>", "<|transcribe|>")
        lacking = [name for name in names if name not in known]
        if lacking:
            raise CheckpointError(
                f"the tokenizer has no {lacking[0]}; expected the one of a Whisper checkpoint"
            )
        start, end, no_timestamps, transcribe = (known[name] for name in names)
        config, generation = network.config, network.generation_config
        multilingual = getattr(generation, "is_multilingual", None)
        if multilingual is None:
            multilingual = config.vocab_size > ENGLISH_VOCABULARY
        # Languages lie between the start and the tasks: <|en|>, <|zh|>, ...
        between = range(start + 1, min(transcribe, known.get("<|translate|>", transcribe)))
        codes = {name[2:-2]: id for name, id in known.items() if id in between}
        silent = known.get("<|nospeech|>", known.get("<|nocaptions|>"))
        # Whatever a configuration says: special tokens and timestamps, which follow the words.
        special = range(end + 1, config.vocab_size)
        return cls(
            start=start,
            end=end,
            task=(transcribe, no_timestamps) if multilingual else (no_timestamps,),
            languages=codes if multilingual else {},
            no_speech=silent,
            suppressed=tuple(sorted({*(generation.suppress_tokens or ()), *special} - {end})),
            suppressed_first=tuple(generation.begin_suppress_tokens or ()),
            most=config.max_target_positions // 2,
        )

    def language(self, code: str | None) -> int | None:
        """Token of a language; None if the checkpoint detects it, or knows English alone.

        Raises:
            ParamsError: If the checkpoint does not know the language.
        """
        if code is None or (not self.languages and code == "en"):
            return None
        if code not in self.languages:
            known = ", ".join(sorted(self.languages)) or "en"
            raise ParamsError(
                f"language {code!r}: the checkpoint does not know it; expected one of {known}, "
                "or null"
            )
        return self.languages[code]


@torch.inference_mode()
def greedy(network: Any, mel: Tensor, tokens: Tokens, language: int | None) -> list[list[int]]:
    """The most probable token at each step, until the end of each window's text.

    Args:
        network: `WhisperForConditionalGeneration` in eval mode, on the device of `mel`.
        mel: `[B, M, 3000]`, windows of 30 s.
        tokens: Special tokens of the checkpoint.
        language: Token of the language; None: detected for each window if there are several.

    Returns:
        Tokens of each window, without special ones; none where it holds no speech.
    """
    states = network.model.encoder(mel).last_hidden_state
    prompt = _prompt(network, states, tokens, language)
    step, cache = prompt, None
    found = prompt.new_empty(len(prompt), 0)
    ended = torch.zeros(len(prompt), dtype=torch.bool, device=mel.device)
    total, silence = torch.zeros(2, len(prompt), device=mel.device)
    while found.shape[1] < tokens.most and not bool(ended.all()):
        out = network(
            encoder_outputs=(states,),
            decoder_input_ids=step,
            past_key_values=cache,
            use_cache=True,
        )
        cache, logits = out.past_key_values, out.logits[:, -1].float()
        if not found.shape[1]:
            logits[:, list(tokens.suppressed_first)] = -math.inf
            if tokens.no_speech is not None:
                silence = out.logits[:, 0].float().softmax(-1)[:, tokens.no_speech]
        logits[:, list(tokens.suppressed)] = -math.inf
        best, step = logits.log_softmax(-1).max(-1, keepdim=True)
        total = total + best[:, 0] * ~ended
        step[ended] = tokens.end
        found = torch.cat([found, step], 1)
        ended |= step[:, 0] == tokens.end
    counts = (found != tokens.end).sum(1)
    empty = (silence > NO_SPEECH) & (total / (counts + 1) < DOUBTFUL)
    rows = zip(found.tolist(), counts.tolist(), empty.tolist(), strict=True)
    return [[] if silent else row[:count] for row, count, silent in rows]


def _prompt(network: Any, states: Tensor, tokens: Tokens, language: int | None) -> Tensor:
    """Tokens `[B, P]` with which each window's text begins."""
    start = torch.full((len(states), 1), tokens.start, device=states.device)
    task = torch.tensor(tokens.task, device=states.device).expand(len(states), -1)
    if not tokens.languages:
        return torch.cat([start, task], 1)
    spoken = torch.full_like(start, language or 0)
    if language is None:
        logits = network(encoder_outputs=(states,), decoder_input_ids=start).logits[:, -1]
        ids = torch.tensor(sorted(tokens.languages.values()), device=states.device)
        spoken = ids[logits[:, ids].argmax(-1, keepdim=True)]
    return torch.cat([start, spoken, task], 1)
