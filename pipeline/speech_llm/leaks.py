"""Leak gate of speech language models: the splits, and corpora that the model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from features.corpus.labels_folder import read_labelled
from features.corpus.leak_gate import check_leaks
from features.corpus.leaks import find_seen_leak, gate, leak_lines
from features.corpus.manifest import Label
from features.corpus.places import members_in
from pipeline.params.speech_llm import SpeechLlmEntry


def check_asked_leaks(entry: SpeechLlmEntry, corpus: str) -> dict[str, Any]:
    """Check leaks: as for training on caches, and of the model, by its list `trained_on`.

    Of no model it is published which utterances of a corpus it was trained on, so that all of a
    corpus in the list count, and in a union all of a member.

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
    seen = _seen(entry, corpus, card, labels)
    leak = find_seen_leak(labels, seen, f"the model {entry.name}")
    leaks = [] if leak is None else [leak]
    gate(leaks, found["allowed"], corpus=corpus)
    return {
        **found,
        "found": found["found"] + [each.to_dict() for each in leaks],
        "lines": found["lines"] + leak_lines(leaks),
    }


def _seen(
    entry: SpeechLlmEntry, corpus: str, card: Mapping[str, Any], labels: Sequence[Label]
) -> dict[str, str]:
    """Why utterances count as trained on, by id."""
    given = {name.casefold() for name in entry.trained_on}
    whole = (corpus, str(card.get("corpus")), str(card.get("kind")))
    members = members_in(Path("data", corpus, "utterances"))
    parts = [("", whole), *((each.prefix, (each.name, each.kind)) for each in members)]
    found: dict[str, str] = {}
    for prefix, names in parts:
        named = next((name for name in names if name.casefold() in given), None)
        if named is not None:
            why = (
                f"{entry.checkpoint} was trained on {named}, by `trained_on`; which of its "
                "utterances it saw is not published"
            )
            found |= {label.id: why for label in labels if label.id.startswith(prefix)}
    return found
