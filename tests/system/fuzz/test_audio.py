"""Four hundred seeded damaged files: each is rejected, noticed, or used as long as it was.

What is behind a sample cannot be seen: flipped bits in WAV are other samples, and so is what an MP3
decoder makes of a frame.
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from features.audio.read import SAMPLE_RATE_HZ, inspect_audio, read_audio
from features.audio.silence import NOTICES
from features.corpus.inspection import FileFacts, inspect_files
from features.errors import UtteranceError
from features.files.reasons import NOTICED, REJECTED, read_reasons
from tests.support.corpora.damaged_audio import DAMAGES, FORMATS, damaged
from tests.support.paths import ROOT

FILES = 400
SECONDS = 10.0  # of one file, and it takes hundredths
MP3_FRAMES = 6 * 576  # an encoder's delay and padding, which a damaged header no longer tells
COMMAND_FILES = 20


def check_used(path: Path, facts: FileFacts) -> bool:
    """Whether extraction reads what prepare lets through, and nothing else."""
    faults = [stretch for stretch in facts.stretches if stretch.what not in NOTICES]
    try:
        samples = read_audio(path, sha256=facts.sha256)
    except UtteranceError:
        assert faults, path.name
        return False
    assert not faults, path.name
    assert np.isfinite(samples).all()
    slack = MP3_FRAMES / facts.sample_rate_hz
    assert abs(len(samples) / SAMPLE_RATE_HZ - facts.seconds) <= slack
    return True


@pytest.mark.parametrize("first", range(0, FILES, 100))
def test_no_damage_passes_in_silence(tmp_path: Path, first: int) -> None:
    ends = {"rejected": 0, "noticed": 0, "used": 0}
    for seed in range(first, first + 100):
        file = damaged(seed)
        (tmp_path / file.name).write_bytes(file.content)
        begin = time.perf_counter()
        facts = inspect_files(tmp_path, [file.name])[file.name]
        if isinstance(facts, str) or not check_used(tmp_path / file.name, facts):
            ends["rejected"] += 1
        elif facts.notices or facts.stretches:
            ends["noticed"] += 1
        else:
            ends["used"] += 1
            info = inspect_audio(io.BytesIO(file.whole), file.name)
            assert facts.channels == info.channels, file.name
            slack = MP3_FRAMES if file.name.endswith("mp3") else 0.02 * info.sample_rate_hz
            lost = facts.seconds * facts.sample_rate_hz - info.frames
            assert abs(lost) <= slack, (file.name, lost)
        assert time.perf_counter() - begin < SECONDS, file.name
    assert all(ends.values()), ends


def test_the_seeds_reach_every_damage_of_every_format() -> None:
    assert len(FORMATS) * len(DAMAGES) <= FILES
    names = {
        (file.name.rpartition(".")[2], file.name[3:]) for file in map(damaged, range(FILES // 2))
    }
    assert len(names) > 100


@pytest.mark.slow
def test_the_command_lists_what_it_cannot_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERONRY_MINE_ROOT", str(tmp_path / "corpus"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "corpus").mkdir()
    names = []
    for seed in range(0, FILES, FILES // COMMAND_FILES):
        file = damaged(seed)
        names += [file.name, f"whole_{seed}.wav"]
        (tmp_path / "corpus" / file.name).write_bytes(file.content)
        (tmp_path / "corpus" / f"whole_{seed}.wav").write_bytes(file.whole)
    with (tmp_path / "corpus/manifest.csv").open("w", newline="") as table:
        rows = [[name, ("sad", "glad")[n % 2], f"s{n}"] for n, name in enumerate(names)]
        csv.writer(table).writerows([["audio", "label", "speaker"], *rows])
    (tmp_path / "params.yaml").write_text(
        "fusion: m\nregime: cached\ncorpus: mine\nseeds: null\ntrain: {epochs: 2}\n"
        "corpora: {mine: {kind: manifest, protocol: speaker_folds, folds: 5}}\n"
        "backbones: {tone: {kind: tone}, none: {kind: none}}\n"
        "models: {m: {kind: concat, text: none, speech: tone, seeds: 1, args: {d_model: 8}}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "stages.prepare", "mine"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = done.stdout + done.stderr
    assert "Traceback" not in told
    assert done.returncode == 1
    labels = tmp_path / "data/mine/labels"
    rejected, noticed = read_reasons(labels / REJECTED), read_reasons(labels / NOTICED)
    assert rejected
    assert not [name for name in (*rejected, *noticed) if name.startswith("whole")]
    assert all(name in told for name in rejected)
