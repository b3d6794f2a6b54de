"""Identity of the run whose results reports/ holds, stored in the files themselves.

params.yaml may have been edited since, so that readers of reports/ take the run from metrics.json
and predictions.parquet. Keys, all text:

- `run_regime`, `run_corpus`, `run_fusion`: as in run.json;
- `test_sha256`: SHA-256 of the sorted lines `fold<TAB>id<TAB>label` of all test utterances (those
  without features too): equal hashes mean scores on the same test set. Of a run that learns more
  than classes a line goes on with the votes, and the values of its attributes, and there is a line
  with the targets, so that runs with others are no table;
- `predictions_sha256`: SHA-256 of predictions.csv beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from features.corpus.manifest import Label
from pipeline.evaluation.run_folder import RunFolder


@dataclass(frozen=True)
class RunIdentity:
    """A run, its test set and its predictions."""

    run_regime: str
    run_corpus: str
    run_fusion: str
    test_sha256: str
    predictions_sha256: str

    @classmethod
    def of_run(cls, run: RunFolder, labels: Iterable[Label], predictions_sha256: str) -> Self:
        """Identity of a run.

        Args:
            run: Run folder.
            labels: Labels of the whole corpus.
            predictions_sha256: SHA-256 of the report's predictions.csv.
        """
        lines = sorted(
            f"{fold}\t{label.id}\t{truth}\n"
            for label in labels
            for truth in [_truth(run, label)]
            for fold, split in enumerate(label.splits)
            if split == "test" and truth is not None
        )
        if not run.targets.classes_alone:
            names = (*run.targets.tasks, *run.targets.scales)
            lines.append(f"targets\t{' '.join(names)}\n")
        test = hashlib.sha256("".join(lines).encode()).hexdigest()
        return cls(run.regime, run.corpus, run.fusion, test, predictions_sha256)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self | None:
        """Identity in metrics.json or details.json; None in those of older releases."""
        found = [content.get(name) for name in KEYS]
        named = [each for each in found if isinstance(each, str)]
        return cls(*named) if len(named) == len(found) else None

    def to_dict(self) -> dict[str, str]:
        """Keys and values for a file."""
        return asdict(self)

    def line(self) -> str:
        """Fusion, corpus and regime in one line."""
        return f"{self.run_fusion} on {self.run_corpus} ({self.run_regime})"


def _truth(run: RunFolder, label: Label) -> str | None:
    """What a test utterance is scored by; None if a run of classes alone does not score it."""
    tasks, scales = run.targets.tasks, run.targets.scales
    if run.targets.classes_alone:
        return label.label
    found: list[Any] = [label.label if run.classes else None]
    found += [label.votes and dict(label.votes)] if "votes" in tasks else []
    found += [(label.values or {}).get(name) for name in scales]
    return json.dumps(found, ensure_ascii=False)


KEYS = tuple(field.name for field in fields(RunIdentity))
