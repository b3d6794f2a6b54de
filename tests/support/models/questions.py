"""Questions about noise of given lengths."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.speech_llm.models.base import Question, Turn


def noise(samples: int, seed: int = 0, loudness: float = 0.1) -> NDArray[np.float32]:
    """Samples of white noise."""
    values = np.random.default_rng(seed).standard_normal(samples) * loudness
    return values.astype(np.float32)


def question(id: str, samples: int, *exemplars: int, seed: int = 0) -> Question:
    """A question about a clip of `samples`, after exemplars of other lengths."""
    earlier = tuple(
        Turn(f"Heard: word {number}.", noise(length, seed + 10 + number), "sad")
        for number, length in enumerate(exemplars)
    )
    asked = Turn(f"Heard: the words of {id}.", noise(samples, seed))
    return Question(id, "Name the emotion.", (*earlier, asked))
