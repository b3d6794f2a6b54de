"""Commands import no large library that they can do without: each takes up to seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from features.backbone.entry import BackboneEntry
from features.extraction.extract import Options, extract
from features.files import reading
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints.whisper import write as write_whisper
from tests.support.paths import ROOT

LARGE = (
    *("torch", "transformers", "scipy", "sklearn", "pandas", "matplotlib", "statsmodels"),
    *("pyarrow", "pydantic", "dvc", "fastapi", "uvicorn"),
)
# What each module needs of them when it is imported.
NEEDED = {
    "stages.selection.__main__": (),
    "stages.look.__main__": (),
    "stages.prepare.__main__": (),
    "stages.extract.__main__": ("torch",),
    "stages.train.__main__": ("torch",),
    "stages.evaluate.__main__": ("scipy", "matplotlib", "pyarrow"),
    "pipeline.command_line.app": (),
    "pipeline.commands.check": ("torch",),
    "pipeline.commands.plan": ("torch",),
    "pipeline.commands.show": ("scipy",),
    "pipeline.commands.serve": ("scipy", "torch"),
}
IDLE = """
from pathlib import Path
from features.backbone.entry import BackboneEntry
from features.corpus.manifest import Manifest
from features.extraction.extract import extract
entry = BackboneEntry("w", "whisper", options={"checkpoint": "whisper", "pad": "trim"})
manifest = Manifest.read(Path("utterances"))
assert extract(manifest, entry, Path("out"), store=Path("store")).linked
"""


def imported(program: str, folder: Path) -> set[str]:
    """Large libraries that a program imports, in a process of its own."""
    report = f"import sys; print(*(name for name in {LARGE} if name in sys.modules))"
    command = [sys.executable, "-c", f"{program}\n{report}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", NEEDED)
def test_a_command_imports_what_it_needs(module: str, tmp_path: Path) -> None:
    assert imported(f"import {module}", tmp_path) <= set(NEEDED[module])


def test_an_extraction_with_nothing_to_do_imports_no_network(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reading, "SETTLED_NS", -(10**12))  # as if the files were old
    write_whisper(tmp_path / "whisper")
    manifest = make_manifest([0.4, 0.5])
    manifest.write(tmp_path / "utterances")
    entry = BackboneEntry("w", "whisper", options={"checkpoint": "whisper", "pad": "trim"})
    extract(manifest, entry, Path("out"), store=Path("store"), options=Options(workers=0))
    assert imported(IDLE, tmp_path) == {"torch"}
