"""Leak gate of training: refuse leaks between the splits before any job runs.

`prepare` has refused them already. Here labels.jsonl is checked again as it is on disk, since it
may have been edited, merged or pulled since then, and so are the checkpoints of the backbones, by
lists of the utterances that they were trained on (`features.extraction.trained_on`). Tolerated
leaks are recorded in the run folder, in `leaks.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from features.corpus.labels_folder import read_labelled
from features.corpus.leaks import Leak, LeakKind, find_leaks, find_seen_leak, gate, leak_lines
from features.corpus.manifest import Label
from features.errors import RunError
from features.files.reasons import SEEN, read_reasons
from features.files.records import read_record, write_json

FORMAT, VERSION = "heronry-leaks", 1
_AGAIN = "run `dvc repro` to train it again"
LEAKS = "leaks.json"


@dataclass(frozen=True)
class LeaksFile:
    """The fields of `leaks.json`."""

    format: Literal["heronry-leaks"]
    version: Literal[1]
    allowed: Sequence[LeakKind]
    found: Sequence[Leak]
    lines: Sequence[str]


def check_leaks(labels_folder: Path, slots: Mapping[str, Path]) -> dict[str, Any]:
    """Refuse splits that leak, and backbones that were trained on utterances to be scored.

    Leaks of the kinds in `allow_leak` of the corpus card are tolerated.

    Args:
        labels_folder: `data/<corpus>/labels`.
        slots: Cache folder `cache/<corpus>/<backbone>` of each filled slot.

    Returns:
        Content of `leaks.json`: `format`, `version`, `allowed` kinds, the leaks `found` (tolerated
        ones and sentences) and the same as `lines` of text.

    Raises:
        ManifestError: If something leaks that is not allowed, or labels and card do not fit.
    """
    card, labels = read_labelled(labels_folder)
    corpus, allowed = str(card.get("corpus", labels_folder.parent.name)), card.get("allow_leak", [])
    leaks = _crossing(labels, card) + _seen(labels, slots)
    gate(leaks, allowed, corpus=corpus)
    return {
        "format": FORMAT,
        "version": VERSION,
        "allowed": list(allowed),
        "found": [leak.to_dict() for leak in leaks],
        "lines": leak_lines(leaks, scripted=bool(card.get("scripted"))),
    }


def read_leaks(run_folder: Path) -> dict[str, Any] | None:
    """Read `leaks.json` of a run folder; None if an older release wrote none.

    Raises:
        RunError: If it is malformed.
    """
    path = run_folder / LEAKS
    return read_record(path, LeaksFile, _AGAIN, RunError) if path.exists() else None


def write_leaks(run_folder: Path, leaks: Mapping[str, Any]) -> None:
    """Write the result of `check_leaks` into a run folder."""
    write_json(run_folder / LEAKS, leaks)


def _crossing(labels: Sequence[Label], card: Mapping[str, Any]) -> list[Leak]:
    """Leaks between the splits."""
    found = find_leaks(labels, [label.splits for label in labels])
    if any(leak.kind == "recording" for leak in found):
        return found
    # Only `prepare` hashed the audio, and so found equal recordings under two names.
    known = [Leak.from_dict(fields) for fields in card.get("leak_verdict", [])]
    return found + [leak for leak in known if leak.kind == "recording"]


def _seen(labels: Sequence[Label], slots: Mapping[str, Path]) -> list[Leak]:
    """Leaks through the checkpoints of the backbones."""
    found = (
        find_seen_leak(labels, read_reasons(folder / SEEN), f"slot {slot}, backbone {folder.name}")
        for slot, folder in slots.items()
        if (folder / SEEN).exists()
    )
    return [leak for leak in found if leak is not None]
