"""Writes runs of several models on the same labels, as members of ensembles."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from features.corpus.leak_gate import FORMAT, VERSION, write_leaks
from pipeline.ensemble.run import combine
from pipeline.params.ensembles import EnsembleEntry
from pipeline.report.evaluate import evaluate
from pipeline.report.records import Report
from tests.support.runs.fake_run import FakeRun

LABELS = Path("data/fake/labels")
NO_LEAKS = {"format": FORMAT, "version": VERSION, "allowed": [], "found": [], "lines": []}


@dataclass
class Members:
    """Members below the current folder, which is to be an empty one."""

    of: Any = FakeRun
    names: list[str] = field(default_factory=list)

    def add(self, name: str, **facts: Any) -> Path:
        """Write the run of a member; other seeds are wrong about other utterances."""
        fake = self.of(Path("made", name), **facts).write(fusion=name)
        shutil.copytree(fake.data.parent, LABELS.parent, dirs_exist_ok=True)
        target = Path("runs/cached/fake", name)
        shutil.copytree(fake.run, target)
        self.names.append(f"cached/{name}")
        return target

    def combine(self, **settings: Any) -> Path:
        """Combine all members; returns the ensemble's run folder."""
        entry = EnsembleEntry("mix", **{"members": self.names, **settings})
        out, leaks = combine(entry, "fake", NO_LEAKS)
        write_leaks(out, leaks)
        return out

    def report(self, **settings: Any) -> Report:
        """The report of such an ensemble."""
        return evaluate(self.combine(**settings), LABELS)
