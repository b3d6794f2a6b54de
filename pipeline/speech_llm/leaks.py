"""Leak gate of speech language models: the splits, and corpora that the model was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from features.corpus.labels_folder import read_labelled
from features.corpus.leak_gate import check_leaks
from features.corpus.leaks import find_seen_leak, gate, leak_lines
from pipeline.params.speech_llm import SpeechLlmEntry


def check_asked_leaks(entry: SpeechLlmEntry, corpus: str) -> dict[str, Any]:
    """Check leaks: as for training on caches, and of the model, by its list `trained_on`.

    Of no model it is published which utterances of a corpus it was trained on, so that all of a
    corpus in the list count.

    Args:
        entry: Entry of `speech_llms`.
        corpus: Entry of `corpora`.

    Returns:
        Content of `leaks.json`: `features.corpus.leak_gate`.

    Raises:
        ManifestError: If there is a leak that is not allowed.
    """
    folder = Path("data", corpus, "labels")
    found = check_leaks(folder, {})
    card, labels = read_labelled(folder)
    named = {corpus, str(card.get("corpus")), str(card.get("kind"))} & set(entry.trained_on)
    if not named:
        return found
    why = (
        f"{entry.checkpoint} was trained on {sorted(named)[0]}, by `trained_on`; which of its "
        "utterances it saw is not published"
    )
    leak = find_seen_leak(labels, {label.id: why for label in labels}, f"the model {entry.name}")
    leaks = [] if leak is None else [leak]
    gate(leaks, found["allowed"], corpus=corpus)
    return {
        **found,
        "found": found["found"] + [each.to_dict() for each in leaks],
        "lines": found["lines"] + leak_lines(leaks),
    }
