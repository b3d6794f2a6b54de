"""The numbers of a backbone change only together with the `version` of its entry.

tests/data/golden/numbers.json holds, for the entries that need no model hub, their version
and some of their numbers. After a change that is meant: raise `version` in params.yaml, say so in
CHANGELOG.md (`Features:`), and run `python -m tests.contracts.test_versions`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from features.backbone.entry import BackboneEntry, backbone_entry
from features.corpus.utterance import Utterance
from features.weights import packages
from tests.conftest import RATE, tone
from tests.support.known_params import known_params
from tests.support.paths import DATA

FILE = DATA / "golden" / "numbers.json"
SHIPPED = ("f0", "logmel", "minilm", "tone", "whisper_tiny_en", "whisper_tiny_en_mid")
# What is measured: an entry of params.yaml, and what is changed of it.
ENTRIES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in SHIPPED},
    "whisper_tiny_en, 30s": ("whisper_tiny_en", {"pad": "30s"}),
    "whisper_tiny_en_mid, 30s": ("whisper_tiny_en_mid", {"pad": "30s"}),
}


def entry_of(name: str) -> BackboneEntry:
    shipped, changed = ENTRIES[name]
    return backbone_entry(shipped, {**known_params().backbones[shipped], **changed})


def measured(entry: BackboneEntry, folder: Path) -> dict[str, Any]:
    """Length of a second of a gliding tone (or of a sentence), and a few of its values."""
    glide = tone(150.0, 1.0) * np.linspace(0.2, 1.0, RATE)
    soundfile.write(folder / "glide.wav", glide, RATE, subtype="PCM_16")
    utterance = Utterance(
        "u", audio=str(folder / "glide.wav"), text="I did not expect that!", seconds=1.0
    )
    backbone = entry.build()
    with torch.inference_mode():
        (frames,) = backbone(backbone.prepare([utterance])).unpad()
    columns = frames.double().reshape(len(frames), -1)[:, :6]
    return {
        "version": entry.version,
        "frames": len(frames),
        "mean": [float(f"{value:.6g}") for value in columns.mean(0)],
        "middle": [float(f"{value:.6g}") for value in columns[len(frames) // 2]],
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ENTRIES)
def test_numbers_change_only_with_the_version(name: str, tmp_path: Path) -> None:
    entry = entry_of(name)
    package = entry.options.get("package")
    if package is not None and not packages.installed(package):
        pytest.skip(f"{package} is not installed (requirements/packages.txt)")
    recorded = json.loads(FILE.read_text(encoding="utf-8"))[name]
    found = measured(entry, tmp_path)
    advice = f"raise the version of {name}, then run `python -m tests.contracts.test_versions`"
    assert found["version"] == recorded["version"], (
        f"run `python -m tests.contracts.test_versions` ({name})"
    )
    assert found["frames"] == recorded["frames"], advice
    for key in ("mean", "middle"):
        scale = max(map(abs, recorded[key]))
        assert found[key] == pytest.approx(recorded[key], rel=1e-3, abs=1e-3 * scale), advice


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        numbers = {name: measured(entry_of(name), Path(temporary)) for name in ENTRIES}
    FILE.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
