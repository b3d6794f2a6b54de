"""Qwen2-Audio (Chu et al. 2024, arXiv 2407.10759), such as Qwen/Qwen2-Audio-7B-Instruct.

Apache 2.0. An encoder of Whisper's size and a language model of 7 B parameters. It hears the first
30 s of each audio; each costs the encoder 30 s of work, however short it is.
"""

from __future__ import annotations

from typing import Any

from pipeline.speech_llm.models._qwen import Qwen


class Qwen2Audio(Qwen):
    """Qwen2-Audio: audios are numbered, and stand on lines of their own."""

    numbered = True
    whole_windows = True
    unquantised = ("audio_tower", "multi_modal_projector")

    def _class(self) -> Any:
        from transformers import Qwen2AudioForConditionalGeneration

        return Qwen2AudioForConditionalGeneration


build = Qwen2Audio
