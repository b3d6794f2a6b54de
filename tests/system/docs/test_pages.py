"""Pages of docs/ run as they are written, in a checkout with small features."""

from __future__ import annotations

import csv
import io
import json
import shlex
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import soundfile
import yaml

from features.exchange.torch_dataset import CachedBatch
from features.files.yaml_text import read_yaml
from features.transcription.settings import Transcription
from tests.conftest import RATE, tone
from tests.support.markdown import blocks_of
from tests.support.paths import ROOT
from tests.system.test_dvc import Project

pytestmark = [pytest.mark.slow, pytest.mark.dvc]
FIRST, OWN = "docs/first-experiment.md", "docs/own-data.md"
FUSION, BACKBONE, CORPUS = (f"docs/adding/{kind}.md" for kind in ("fusion", "backbone", "corpus"))
NOTEBOOK, SHARING, FORMAT = "docs/notebooks.md", "docs/sharing.md", "docs/format.md"
TARGETS, ENSEMBLES = "docs/targets.md", "docs/ensembles.md"
RUN = (FIRST, OWN, FUSION, BACKBONE, CORPUS, NOTEBOOK, SHARING, FORMAT, TARGETS, ENSEMBLES)
CLASSES = {"angry": 600.0, "neutral": 150.0, "sad": 2400.0}
SPEAKERS = 9


def write_corpus(folder: Path) -> None:
    """Speakers who say a thing in each class, in the columns of the page on own data."""
    (table,) = (block for block in blocks_of(OWN) if block.language == "csv")
    columns = next(csv.reader(io.StringIO(table.code)))
    folder.mkdir()
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for speaker in range(SPEAKERS):
            for turn, (label, hz) in enumerate(CLASSES.items()):
                id = f"d{speaker:03}_t{turn:02}"
                write_tone(folder / f"{id}.wav", hz * (1 + 0.02 * speaker))
                facts: dict[str, Any] = {"id": id, "audio": f"{id}.wav", "label": label}
                facts |= {"text": f"take {turn}", "speaker": f"s{speaker}", "turn": turn}
                facts |= {"dialogue": f"d{speaker}", "gender": "female" if speaker % 2 else "male"}
                writer.writerow(facts)


def write_rated_corpus(folder: Path) -> None:
    """The same with raters, in the columns of the page on targets; one turn of each is unrated."""
    manifest, ratings = (
        next(csv.reader(io.StringIO(block.code)))
        for block in blocks_of(TARGETS)
        if block.language == "csv"
    )
    folder.mkdir()
    values = {"angry": (6, 2, 6), "neutral": (4, 4, 4), "sad": (2, 2, 3)}
    rng = np.random.default_rng(0)
    utterances, rated = [], []
    for speaker in range(SPEAKERS):
        for label, hz in {**CLASSES, "": 300.0}.items():
            id = f"s{speaker}_{label or 'unrated'}"
            write_tone(folder / f"{id}.wav", hz * (1 + 0.02 * speaker))
            row = {"id": id, "audio": f"{id}.wav", "text": "words", "speaker": f"s{speaker}"}
            if label:
                said = np.clip(values[label] + rng.integers(-1, 2, (3, 3)), 1, 7)
                rated += [[id, f"r{n}", label, *each.tolist()] for n, each in enumerate(said)]
                row |= {"label": label, **dict(zip(manifest[-3:], said.mean(0), strict=True))}
            utterances.append(row if label else row | {"split": "unlabelled"})
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, manifest)
        writer.writeheader()
        writer.writerows(utterances)
    with (folder / "ratings.csv").open("w", newline="") as file:
        csv.writer(file).writerows([ratings, *rated])


def write_tone(path: Path, hz: float) -> None:
    soundfile.write(path, tone(hz, 0.4).astype(np.float32), RATE)


def small_params() -> dict[str, Any]:
    """The names that the pages use, with tones behind them."""
    slots = dict.fromkeys(("text", "speech", "nonverbal", "prosody", "spectral", "asr"), "none")
    slots |= {"text": "minilm", "speech": "whisper_tiny_en"}
    train = {"epochs": 2, "batch_size": 8, "lr": 0.01}
    concat = {"kind": "concat", "seeds": 1, "args": {"d_model": 8}, "train": train}
    heron = {"d_model": 8, "heads": 2, "hidden": 8}
    corpus = {"kind": "manifest", "protocol": "speaker_split", "shard_seconds": 5.0}
    return {
        "fusion": "heron",
        "regime": "cached",
        "corpus": "demo",
        "seeds": None,
        "train": {"epochs": None, "targets": None, "monitor": None},
        "corpora": {"demo": corpus, "mine": corpus},
        "backbones": {
            "minilm": {"kind": "tone", "dim": 6, "version": 1},
            "whisper_tiny_en": {"kind": "tone", "dim": 12, "version": 1},
            "none": {},
        },
        "asr_backbones": {},
        "ensembles": {},
        "speech_llms": {},
        "transcribe": vars(Transcription()),
        "models": {
            "concat": {**slots, **concat},
            "heron": {**slots, **concat, "kind": "heron", "args": heron},
        },
    }


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A checkout after the commands of the first experiment."""
    root = tmp_path_factory.mktemp("docs")
    made = Project(root / "project", root / "store")
    write_corpus(made.corpus)
    ignored = shutil.ignore_patterns("__pycache__", "data", "system")
    shutil.copytree(ROOT / "tests", made.root / "tests", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", made.root)
    (made.root / "params.yaml").write_text(yaml.safe_dump(small_params(), sort_keys=False))
    made.environment["HERONRY_DEMO_ROOT"] = str(made.corpus)
    made.environment["PYTHONPATH"] = str(made.root)  # where `heronry` of this environment looks
    made.run("dvc", "init", "-q", "-f")
    shutil.copy(ROOT / ".dvc" / "config", made.root / ".dvc" / "config")
    shutil.copytree(ROOT / ".dvc" / "plots", made.root / ".dvc" / "plots")
    made.commit("Start")
    said = run_shell(made, FIRST)
    assert "concat-demo-seeds=1" in said
    made.keep("Run")
    return made


@pytest.fixture
def project(begun: Project) -> Project:
    """That checkout, without what other pages have written into it."""
    return begun.again()


def run_shell(project: Project, page: str, places: dict[str, Path] | None = None) -> str:
    """Write the files and entries of a page, then run its shell blocks as one script.

    Args:
        project: Where to.
        page: Path of the page.
        places: Folders of this machine by those that the page names.
    """
    script = ["set -euo pipefail"]
    for block in blocks_of(page):
        if block.mark == "file":
            (project.root / block.words).write_text(block.code, encoding="utf-8")
        elif block.mark == "entry":
            params = project.root / "params.yaml"
            content = read_yaml(params.read_text(encoding="utf-8"))
            content[block.words] |= read_yaml(textwrap.dedent(block.code))
            params.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        elif block.mark is None and block.language == "bash":
            script += [f"echo '# {block.place}'", block.code]
    text = "\n".join(script)
    for theirs, ours in (places or {}).items():
        assert theirs in text
        text = text.replace(theirs, shlex.quote(str(ours)))
    done = subprocess.run(
        ["bash", "-c", text],
        cwd=project.root,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def run_python(page: str) -> dict[str, Any]:
    """Run the Python blocks of a page in the working directory; returns their variables."""
    scope: dict[str, Any] = {}
    for block in blocks_of(page):
        if block.language == "python" and block.mark is None:
            exec(compile(block.code, block.place, "exec"), scope)
    return scope


def test_a_fusion_passes_its_contract_and_trains_at_the_first_try(project: Project) -> None:
    said = run_shell(project, FUSION)
    assert " passed" in said
    assert "attention_pooling on demo (cached)" in said
    run = json.loads((project.root / "runs/cached/demo/attention_pooling/run.json").read_text())
    assert run["args"] == {"d_model": 128}


def test_a_backbone_passes_its_contract_and_extracts(project: Project) -> None:
    said = run_shell(project, BACKBONE)
    assert " passed" in said
    assert f"cache/demo/loudness: {SPEAKERS * len(CLASSES)} utterances computed" in said


def test_a_corpus_is_prepared(project: Project, tmp_path: Path) -> None:
    clips = tmp_path / "studio" / "clips"
    clips.mkdir(parents=True)
    for speaker in range(SPEAKERS):
        for number, emotion in enumerate((*CLASSES, "other")):
            write_tone(clips / f"s{speaker}_{emotion}_1.wav", 100.0 + 10 * speaker + number)
    said = run_shell(project, CORPUS, {"/data/studio": clips.parent})
    assert "Studio" in said
    assert "CC BY 4.0" in said


def test_own_recordings_become_an_experiment(project: Project) -> None:
    said = run_shell(project, OWN, {"/path/to/folder": project.corpus})
    assert "heron on mine (cached)" in said


def test_ratings_become_an_experiment_and_a_file_of_the_challenge(
    project: Project, tmp_path: Path
) -> None:
    write_rated_corpus(tmp_path / "rated")
    said = run_shell(project, TARGETS, {"/path/to/rated": tmp_path / "rated"})
    assert "heron on rated (cached)" in said
    lines = (project.root / "task2.csv").read_text().splitlines()
    assert lines[0] == "FileName,EmoAct,EmoVal,EmoDom"
    assert [line.split(",")[0] for line in lines[1:]] == [
        f"s{speaker}_unrated.wav" for speaker in range(SPEAKERS)
    ]


def test_finished_runs_become_an_ensemble(project: Project) -> None:
    said = run_shell(project, ENSEMBLES)
    assert "params.yaml: added ensembles.votes" in said
    assert "votes on demo (ensemble)" in said


def test_caches_are_read_in_python(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    assert isinstance(run_python(SHARING)["batch"], CachedBatch)
    assert run_python(FORMAT)["frames"].shape[1] == 12


def test_a_trained_model_predicts_in_python(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("HERONRY_DEMO_ROOT", str(project.corpus))
    predicted = run_python(NOTEBOOK)["predicted"]
    table = project.root / "runs/cached/demo/concat/seed_0/fold_0/predictions.csv"
    with table.open(newline="", encoding="utf-8") as file:
        written = {r["id"]: r["prediction"] for r in csv.DictReader(file) if r["split"] == "test"}
    assert predicted == written


def test_the_notebook_runs(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the small run; its cells hold no outputs, so that a diff shows code."""
    notebook = json.loads((ROOT / "docs/notebooks/read_a_run.ipynb").read_text(encoding="utf-8"))
    monkeypatch.chdir(project.root)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    plt.close("all")  # whatever other tests have left open
    scope: dict[str, Any] = {}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], number
            code = "".join(cell["source"]).replace("demo/heron", "demo/concat")
            exec(compile(code, f"cell {number}", "exec"), scope)
    assert scope["matrix"].sum() == len(scope["ids"])
    assert len(plt.get_fignums()) == 2
    plt.close("all")
