"""What Qwen's speech models share: ChatML, Whisper's spectra, and the number of audio tokens.

ChatML sets `<|im_start|>ROLE`, a line end, a message and `<|im_end|>` for each message. An audio is
a placeholder for each of its vectors, of 40 ms, between `<|audio_bos|>` and `<|audio_eos|>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from features.audio.read import SAMPLE_RATE_HZ
from features.weights.identity import extractor_settings
from pipeline.speech_llm.models._local import LocalModel
from pipeline.speech_llm.models.base import Question

HOP = 160  # samples of a frame of the spectrum
START, END = "<|im_start|>", "<|im_end|>"
AUDIO, AUDIO_BEGINS, AUDIO_ENDS = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"


def audio_tokens(samples: int) -> int:
    """Vectors of a clip: frames of 10 ms through a convolution and a mean, each of stride 2.

    >>> [audio_tokens(n) for n in (1600, 16_000, 16_001, 480_000)]
    [2, 25, 25, 750]
    """
    frames = -(-samples // HOP)
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


class Qwen(LocalModel):
    """A model of the Qwen family that hears speech.

    Attributes:
        numbered: Whether `Audio 1: ` stands before the first audio of a conversation, and so on.
    """

    tokens = (END, START, AUDIO, AUDIO_BEGINS, AUDIO_ENDS)
    numbered: ClassVar[bool]

    def _tokenizer(self) -> Any:
        from transformers import WhisperFeatureExtractor

        self.front_end = self.source.load(WhisperFeatureExtractor)
        self.longest_seconds = self.front_end.n_samples / SAMPLE_RATE_HZ
        return super()._tokenizer()

    def prompt(self, question: Question) -> str:
        """Instructions, and each turn as its text, its audio and its answer.

        The text precedes the audio, as the published prompt says ("the following audio clip").
        """
        messages = [("system", self._plain(question.system))] if question.system else []
        heard = 0
        for turn in question.turns:
            text, clip = self._plain(turn.text), self._heard(turn)
            if clip is not None:
                heard += 1
                number = f"Audio {heard}: " if self.numbered else ""
                placeholders = AUDIO * audio_tokens(len(clip))
                end = "\n" if self.numbered else ""
                text += f"\n{number}{AUDIO_BEGINS}{placeholders}{AUDIO_ENDS}{end}"
            messages.append(("user", text))
            if turn.answer is not None:
                messages.append(("assistant", self._plain(turn.answer)))
        written = [f"{START}{role}\n{text}{END}\n" for role, text in messages]
        return "".join(written) + f"{START}assistant\n"

    def inputs(self, questions: Sequence[Question]) -> Mapping[str, Tensor]:
        """Tokens and masks `[B, T]`; spectra `[A, M, F]` and masks `[A, F]` of all A clips."""
        rows = self._padded([self.prompt(question) for question in questions])
        heard = [self._heard(turn) for question in questions for turn in question.turns]
        clips = [clip for clip in heard if clip is not None]
        if not clips:
            return rows
        spectra = self.front_end(
            clips,
            sampling_rate=SAMPLE_RATE_HZ,
            padding="max_length",
            max_length=self._padded_samples(max(map(len, clips))),
            return_attention_mask=True,
            return_tensors="pt",
        )
        return {
            **rows,
            "input_features": spectra.input_features,
            "feature_attention_mask": spectra.attention_mask.to(torch.long),
        }

    def _padded_samples(self, longest: int) -> int:
        """Samples that spectra are computed of, of clips of which the longest has so many."""
        del longest
        return int(self.front_end.n_samples)

    @property
    def provenance(self) -> dict[str, Any]:
        """As of any model, and the settings of the spectra."""
        return {**super().provenance, "front_end": extractor_settings(self.front_end)}
