"""A corpus without words, by DVC: transcribed once, and trained on what was recognised."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.files.reading import file_sha256
from features.transcription.settings import Transcription
from features.transcription.transcripts import WORDS, read_transcripts, read_words
from tests.contracts.checkpoints import text_encoder
from tests.support.models.small_whisper import write_whisper
from tests.system.test_dvc import SOURCE, Project, computed, params, write_corpus

pytestmark = [pytest.mark.slow, pytest.mark.dvc]
TRANSCRIBE = "stages/transcribe/dvc.yaml:transcribe@{}"


def pinned(checkpoint: dict[str, Any]) -> dict[str, Any]:
    digest = file_sha256(Path(checkpoint["checkpoint"]) / "model.safetensors")
    return {**checkpoint, "revision": f"sha256:{digest}"}


def without_words(table: Path) -> None:
    """Remove the column `text`."""
    lines = (line.split(",") for line in table.read_text().splitlines())
    table.write_text("".join(",".join([*line[:2], *line[3:]]) + "\n" for line in lines))


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose model `words` has nothing but recognised words, after `dvc repro`."""
    root = tmp_path_factory.mktemp("transcripts")
    made = Project(root / "project", root / "store")
    write_corpus(made.corpus, per_speaker=1)
    without_words(made.corpus / "manifest.csv")
    made.environment["HERONRY_OTHERS_ROOT"] = str(root / "others")
    shutil.copytree(made.corpus, root / "others")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoder = pinned(text_encoder.VARIANTS["roberta"](root / "encoder"))
        recogniser = pinned(write_whisper(root / "whisper"))
    content = params()
    words = {**content["models"]["speech"], "speech": "none", "text": "heard", "seeds": 1}
    content |= {
        "fusion": "words",
        "corpora": {**content["corpora"], "others": content["corpora"]["tones"]},
        "asr_backbones": {"heard": {"kind": "asr_text", **encoder}},
        "transcribe": {**vars(Transcription(corpora=["tones"])), **recogniser},
        "models": {"words": words},
        "e2e": {"slots": {"text": {"tune": "full"}}},
    }
    (made.root / "params.yaml").write_text(yaml.safe_dump(content))
    made.run("dvc", "init", "-q", "-f")
    shutil.copy(SOURCE / ".dvc" / "config", made.root / ".dvc" / "config")
    shutil.copytree(SOURCE / ".dvc" / "plots", made.root / ".dvc" / "plots")
    made.commit("Start")
    said = made.run("dvc", "repro")
    stages = computed(said)
    assert sorted(stages) == ["evaluate", "extract", "extract", "prepare", "train", "transcribe"]
    assert stages.index("transcribe") < len(stages) - 1 - stages[::-1].index("extract")
    made.keep("Reproduce")
    return made


@pytest.fixture
def project(reproduced: Project) -> Project:
    """That project, with its settings and lock files as committed."""
    return reproduced.again()


def test_a_corpus_without_words_is_trained_on_its_transcripts(project: Project) -> None:
    heard = read_transcripts(project.root / "data/tones/transcripts")
    assert len(heard) == 27
    assert len(set(heard.values())) > 3
    assert read_words(project.root / "cache/tones/heard" / WORDS) == heard
    head = json.loads((project.root / "data/tones/transcripts/transcripts.json").read_text())
    assert re.fullmatch("[0-9a-f]{64}", head["provenance"]["weights_sha256"])
    run = json.loads((project.root / "runs/cached/tones/words/run.json").read_text())
    assert run["slots"]["text"]["provenance"]["kind"] == "asr_text"
    assert run["dropped"] == {}


def test_nothing_changed_nothing_runs(project: Project) -> None:
    project.restore()
    assert computed(project.run("dvc", "repro")) == []
    said = project.run("dvc", "status", "--json", TRANSCRIBE.format("tones"))
    assert json.loads(said) == {}


def test_another_label_transcribes_nothing_again(project: Project) -> None:
    project.restore()
    table = project.corpus / "manifest.csv"
    before = table.read_text()
    try:
        table.write_text(before.replace(",low,s1", ",middle,s1"))
        assert computed(project.run("dvc", "repro")) == ["prepare", "train", "evaluate"]
    finally:
        table.write_text(before)


def test_another_corpus_is_transcribed_alone(project: Project) -> None:
    project.restore()
    other = TRANSCRIBE.format("others")
    said = project.run("dvc", "repro", other)
    assert "`transcribe.corpora` of params.yaml does not name it" in said
    folder = project.root / "data/others/transcripts"
    assert [path.name for path in folder.iterdir()] == ["rejected.csv"]
    assert read_transcripts(folder) == {}
    content = yaml.safe_load((project.root / "params.yaml").read_text())
    project.params(transcribe={**content["transcribe"], "corpora": ["tones", "others"]})
    # Equal recordings: the work store has their words.
    assert "27 utterances" in (said := project.run("dvc", "repro", other))
    assert "; 0 computed" in said
    tones = project.root / "data/tones/transcripts"
    assert read_transcripts(folder) == read_transcripts(tones)
    assert computed(project.run("dvc", "repro")) == []


def test_fine_tuning_reads_the_same_words(project: Project) -> None:
    project.restore()
    project.run("dvc", "exp", "run", "-S", "regime=e2e", "-S", "train.epochs=1", "evaluate")
    run = json.loads((project.root / "runs/e2e/tones/words/run.json").read_text())
    assert run["slots"]["text"]["provenance"]["kind"] == "asr_text"
    assert run["dropped"] == {}
