"""Qwen2.5-Omni (Xu et al. 2025, arXiv 2503.20215), such as Qwen/Qwen2.5-Omni-7B.

Apache 2.0 (the 7 B checkpoint). Only the part that hears and writes is loaded (the thinker), not
the one that speaks. It hears 300 s of each audio, and its encoder works in blocks of 2 s.
"""

from __future__ import annotations

from typing import Any

from pipeline.speech_llm.models._qwen import Qwen


class Qwen25Omni(Qwen):
    """Qwen2.5-Omni, which answers in text alone."""

    numbered = False
    whole_windows = False
    unquantised = ("audio_tower", "visual")

    def _class(self) -> Any:
        from transformers import Qwen2_5OmniThinkerForConditionalGeneration

        return Qwen2_5OmniThinkerForConditionalGeneration


build = Qwen25Omni
