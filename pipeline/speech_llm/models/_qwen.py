"""What Qwen's speech models share: ChatML, Whisper's spectra, and the number of audio tokens.

ChatML sets `<|im_start|>ROLE`, a line end, a message and `<|im_end|>` for each message. An audio is
a placeholder for each of its vectors, of 40 ms, between `<|audio_bos|>` and `<|audio_eos|>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from features.audio.read import SAMPLE_RATE_HZ, Samples
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
        whole_windows: Whether the encoder is given silence up to the longest audio.
    """

    tokens = (END, START, AUDIO, AUDIO_BEGINS, AUDIO_ENDS)
    numbered: ClassVar[bool]
    whole_windows: ClassVar[bool]

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
                audio = AUDIO_BEGINS + AUDIO * audio_tokens(len(clip)) + AUDIO_ENDS
                text += f"\nAudio {heard}: {audio}\n" if self.numbered else f"\n{audio}"
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
        spectra, masks = self._spectra(clips)
        return {**rows, "input_features": spectra, "feature_attention_mask": masks}

    def _spectra(self, clips: list[Samples]) -> tuple[Tensor, Tensor]:
        """Spectra `[A, M, F]` of clips, and masks `[A, F]` of their frames.

        They equal those of clips that are padded to the longest audio, for a tenth of the work.
        """
        longest, whole = max(map(len, clips)), int(self.front_end.n_samples)
        # So much silence that no frame of a clip sees its end, and the last frame sees it alone.
        padded = min(-(-(longest + self.front_end.n_fft) // HOP) * HOP, whole)
        found = self.front_end(
            clips,
            sampling_rate=SAMPLE_RATE_HZ,
            padding="max_length",
            max_length=padded,
            return_attention_mask=True,
            return_tensors="pt",
        )
        spectra, masks = found.input_features, found.attention_mask.to(torch.long)
        lacking = (whole - padded) // HOP if self.whole_windows else 0
        silence = spectra[..., -1:].expand(-1, -1, lacking)
        return torch.cat([spectra, silence], dim=-1), functional.pad(masks, (0, lacking))

    @property
    def provenance(self) -> dict[str, Any]:
        """As of any model, and the settings of the spectra."""
        return {**super().provenance, "front_end": extractor_settings(self.front_end)}
