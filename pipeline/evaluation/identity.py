"""Whose results reports/ holds: the run that they are of, named in the files themselves.

What params.yaml selects says nothing of it: it may have been edited since. So metrics.json and
predictions.parquet name their run, and whoever reads reports/ takes it from there. Keys, all text:

- `run_regime`, `run_corpus`, `run_fusion`: as in run.json;
- `test_sha256`: of what was asked, the sorted lines `fold<TAB>id<TAB>label` of all test utterances
  (those without features too), so that equal ones mean scores on the same test set;
- `predictions_sha256`: of the bytes of predictions.csv beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from features.corpus.manifest import Label
from pipeline.evaluation.run_folder import RunFolder


@dataclass(frozen=True)
class RunIdentity:
    """A run, as the files of a report name it."""

    run_regime: str
    run_corpus: str
    run_fusion: str
    test_sha256: str
    predictions_sha256: str

    @classmethod
    def of_run(cls, run: RunFolder, labels: Iterable[Label], predictions_sha256: str) -> Self:
        """Name a run.

        Args:
            run: What was read.
            labels: Those of the whole corpus.
            predictions_sha256: Of predictions.csv of the report.
        """
        lines = sorted(
            f"{fold}\t{label.id}\t{label.label}\n"
            for label in labels
            for fold, split in enumerate(label.splits)
            if split == "test"
        )
        test = hashlib.sha256("".join(lines).encode()).hexdigest()
        return cls(run.regime, run.corpus, run.fusion, test, predictions_sha256)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self | None:
        """From the content of metrics.json; None if an older release wrote it, which names none."""
        found = [content.get(name) for name in KEYS]
        named = [each for each in found if isinstance(each, str)]
        return cls(*named) if len(named) == len(found) else None

    def to_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)

    def line(self) -> str:
        """For people."""
        return f"{self.run_fusion} on {self.run_corpus} ({self.run_regime})"


KEYS = tuple(field.name for field in fields(RunIdentity))
