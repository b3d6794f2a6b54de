"""The file of results: written after each part, and gone on with by a later call."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.child import Outcome
from benchmarks.gpu.parts import Part

ROOT = Path(__file__).parent.parent.parent
SOURCES = ("features", "pipeline", "benchmarks")


class Record:
    """Results of a machine.

    Args:
        folder: Where the file is, or will be: DATE-gpu-NAME.json.
        facts: What the machine is (`child.start`).
        quick: Whether networks and corpora were tiny.
        parts: All parts there are.
    """

    def __init__(self, folder: Path, facts: Outcome, *, quick: bool, parts: Sequence[Part]) -> None:
        self.parts = parts
        name = facts["gpus"][0].split(",")[0] if facts["gpus"] else "cpu"
        count = len(facts["gpus"])
        ending = f"{_slug(name)}{f'-x{count}' * (count > 1)}{'-quick' * quick}"
        self.content: dict[str, Any] = {
            "date": datetime.date.today().isoformat(),
            "commit": _commit(),
            "sources": _digest(),
            "quick": quick,
            "machine": facts,
            "weights": "random, of real architecture and size; synthetic audio"
            if not quick
            else "random and tiny: the times say nothing",
            "parts": {},
        }
        earlier = self._unfinished(folder, ending)
        self.resumes = earlier is not None
        self.path = earlier or folder / f"{self.content['date']}-gpu-{ending}.json"

    def missing(self) -> list[Part]:
        """Parts that have not passed, nor been skipped: those that failed come last."""
        found = self.content["parts"]
        return [part for part in self.parts if part.name not in found] + [
            part for part in self.parts if found.get(part.name, {}).get("state") == "failed"
        ]

    def add(self, part: Part, outcome: Outcome) -> None:
        """Add the outcome of a part, and write the file."""
        self.content["parts"][part.name] = {"title": part.title, **outcome}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".part")
        temporary.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.path)

    def status(self) -> int:
        """0: all parts passed; 1: one failed; 3: none did, and some are missing."""
        states = {each["state"] for each in self.content["parts"].values()}
        if "failed" in states:
            return 1
        return 3 if self.missing() else 0

    def _unfinished(self, folder: Path, ending: str) -> Path | None:
        """The newest file of this machine, if it is of the same sources and not complete."""
        for path in sorted(folder.glob(f"*-gpu-{ending}.json"), reverse=True)[:1]:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found.get("sources") == self.content["sources"]:
                self.content["parts"] = found["parts"]
                self.content["date"] = found["date"]
                return path
        return None


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _commit() -> str | None:
    """The commit of the sources; None where there is no Git, or it does not know them."""
    if shutil.which("git") is None:
        return None
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _digest() -> str:
    """Hash of the sources, since a machine may have them without their history."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]
