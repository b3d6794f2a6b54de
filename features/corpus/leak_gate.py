"""The leak gate of training: what leaks is refused before any job runs.

`prepare` has such a gate already. Here labels.jsonl is checked again as it lies on disk, since what
was edited, merged or pulled since then is what is trained on; and backbones are asked what their
checkpoints were trained on (`features.extraction.seen`). What is found, and allowed, is kept in the
run folder as `leaks.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from features.corpus.labels_folder import read_labelled
from features.corpus.leaks import Leak, LeakKind, find_leaks, find_seen_leak, gate, lines
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
    """Refuse splits that leak and backbones that were trained on what is to be scored.

    What may leak all the same is `allow_leak` of the corpus card.

    Args:
        labels_folder: `data/<corpus>/labels`.
        slots: Cache folder `cache/<corpus>/<backbone>` by slot, of the slots that are filled.

    Returns:
        Content of `leaks.json`: `format`, `version`, `allowed`, `found` (each leak as data) and
        `lines` for people. What it names under `found` is allowed, or a sentence.

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
        "lines": lines(leaks, scripted=bool(card.get("scripted"))),
    }


def read_leaks(run_folder: Path) -> dict[str, Any] | None:
    """Content of `leaks.json`; None where an older release wrote none.

    Raises:
        RunError: If it is malformed.
    """
    path = run_folder / LEAKS
    return read_record(path, LeaksFile, _AGAIN, RunError) if path.exists() else None


def write_leaks(run_folder: Path, leaks: Mapping[str, Any]) -> None:
    """Keep what `check_leaks` found beside what was trained in spite of it."""
    write_json(run_folder / LEAKS, leaks)


def _crossing(labels: Sequence[Label], card: Mapping[str, Any]) -> list[Leak]:
    """Leaks between the splits; of recordings also those that only `prepare` could see.

    It knew the content of the files, and so equal ones under two names.
    """
    found = find_leaks(labels, [label.splits for label in labels])
    told = [Leak.from_dict(fields) for fields in card.get("leak_verdict", [])]
    if any(leak.kind == "recording" for leak in found):
        return found
    return found + [leak for leak in told if leak.kind == "recording"]


def _seen(labels: Sequence[Label], slots: Mapping[str, Path]) -> list[Leak]:
    found = []
    for slot, folder in slots.items():
        if (folder / SEEN).exists():
            source = f"slot {slot}, backbone {folder.name}"
            found.append(find_seen_leak(labels, read_reasons(folder / SEEN), source))
    return [leak for leak in found if leak is not None]
