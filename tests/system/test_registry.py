"""Features of another project by `dvc import`: two repositories, each with its own work store."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.corpus.utterance import Utterance
from features.extraction.trained_on import write_trained_on
from features.weights.checkpoint import Checkpoint
from tests.contracts.checkpoints.text_encoder import VARIANTS
from tests.support.markdown import blocks_of
from tests.system.test_dvc import SOURCE, Project, params, write_corpus

pytestmark = [pytest.mark.slow, pytest.mark.dvc]
EXTRACT = "stages/extract/dvc.yaml:extract@tones-"
ADDRESS = "git@example.org:lab/features.git"


def started(root: Path, settings: dict[str, Any]) -> Project:
    """A repository of its own, whose first commit has these params."""
    project = Project(root / "project", root / "store")
    project.environment["HERONRY_TONES_ROOT"] = str(root.parent / "corpus")
    (project.root / "params.yaml").write_text(yaml.safe_dump(settings))
    project.run("dvc", "init", "-q", "-f")
    shutil.copy(SOURCE / ".dvc" / "config", project.root / ".dvc" / "config")
    project.commit("Start")
    return project


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Another project, which has pushed its features of tones and of their words.

    Its text encoder was fine-tuned on one utterance of each speaker.
    """
    root = tmp_path_factory.mktemp("registry")
    write_corpus(root / "corpus")
    settings = params()
    encoder = VARIANTS["bert"](root / "tuned")
    pinned = {**encoder, "revision": Checkpoint(str(root / "tuned")).content()}
    settings["backbones"]["tuned"] = {"kind": "text_encoder", "version": 1, **pinned}
    project = started(root / "theirs", settings)
    trained = [Utterance(f"s{speaker}_low_0", text="take 0") for speaker in range(9)]
    write_trained_on(root / "tuned", "tones", trained)
    project.run("dvc", "repro", "-q", f"{EXTRACT}tone", f"{EXTRACT}tuned")
    project.run("dvc", "remote", "add", "-d", "store", str(root / "remote"))
    project.run("dvc", "push", "-q")
    project.keep("Extract")
    shutil.rmtree(project.root / ".dvc" / "cache")  # so that they come from the remote
    return project


@pytest.fixture(scope="module")
def importer(exporter: Project) -> Project:
    """A project with a model on features of its own, and the same one on theirs."""
    settings = params()
    model = settings["models"]["speech"]
    settings["models"]["shared"] = {**model, "speech": "wavlm"}
    settings["registry"] = {"wavlm": {}}
    root = exporter.root.parent.parent / "ours"
    project = started(root, settings | {"fusion": "shared"})
    bring(project, exporter, "tone")
    project.keep("Import")
    return project


@pytest.fixture
def theirs(exporter: Project) -> Project:
    """The project that has pushed, as committed then."""
    return exporter.again()


@pytest.fixture
def ours(importer: Project) -> Project:
    """The project that imports, as committed then."""
    return importer.again()


def bring(project: Project, theirs: Project, entry: str, name: str = "wavlm") -> None:
    """The commands of docs/sharing.md, for a repository on this machine."""
    mark = ("run by", "tests/system/test_registry.py")
    (block,) = [b for b in blocks_of("docs/sharing.md") if (b.mark, b.words) == mark]
    for line in block.code.splitlines():
        for given, here in (
            (ADDRESS, str(theirs.root)),
            ("meld/wavlm", f"tones/{entry}"),
            ("registry/wavlm", f"registry/{name}"),
        ):
            line = line.replace(given, here)
        words = shlex.split(line, comments=True)
        if words[0] == "mkdir":
            (project.root / words[-1]).mkdir(exist_ok=True)
        else:
            project.run(*words)


def read(project: Project, model: str) -> dict[str, bytes]:
    """Predictions of a model's seeds."""
    folder = project.root / "runs/cached/tones" / model
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("predictions.csv")}


def test_their_features_train_as_ours_do_and_their_changes_are_followed(
    ours: Project, theirs: Project
) -> None:
    said = ours.run("dvc", "repro", "evaluate", "stages/train/dvc.yaml:train@speech")
    line = re.search(r"cache/tones/wavlm: (\d+) utterances computed", said)
    assert line is not None
    assert line[1] == "0"
    cache, brought = ours.root / "cache/tones/wavlm", ours.root / "registry/wavlm"
    shards = sorted(path.name for path in brought.glob("*.h5"))
    assert len(shards) > 1
    for name in shards:
        assert (cache / name).read_bytes() == (brought / name).read_bytes()
    predictions = read(ours, "shared")
    assert len(predictions) == 2
    assert read(ours, "speech") == predictions
    assert "in order" in ours.run("pipeline", "check")
    # Their provenance names the backbone, so that new recordings can be predicted.
    recording = theirs.root.parent.parent / "corpus" / "s8_high_0.wav"
    ours.run(
        "pipeline", "predict", "runs/cached/tones/shared", str(recording), "--jsonl", "new.jsonl"
    )
    assert json.loads((ours.root / "new.jsonl").read_text())["error"] is None

    settings = params()
    settings["backbones"]["tone"]["dim"] = 6
    (theirs.root / "params.yaml").write_text(yaml.safe_dump(settings))
    theirs.run("dvc", "repro", "-q", f"{EXTRACT}tone")
    theirs.run("dvc", "push", "-q")
    theirs.commit("Change")
    ours.run("dvc", "update", "-q", "registry/wavlm.dvc")
    said = ours.run("dvc", "repro")
    assert re.findall(r"> python -m (stages\.(?!selection|look).*)", said) == [
        "stages.extract tones wavlm",
        "stages.train tones shared",
        "stages.evaluate cached tones shared",
    ]
    run = json.loads((ours.root / "runs/cached/tones/shared/run.json").read_text())
    assert run["slots"]["speech"]["provenance"]["options"]["dim"] == 6


def test_what_their_encoder_was_trained_on_is_not_scored(ours: Project, theirs: Project) -> None:
    bring(ours, theirs, "tuned", "words")
    path = ours.root / "params.yaml"
    settings = yaml.safe_load(path.read_text())
    slots = {"text": "words", "speech": "none"}
    settings["models"]["leaky"] = {**settings["models"]["shared"], **slots}
    settings |= {"fusion": "leaky", "registry": {**settings["registry"], "words": {}}}
    path.write_text(yaml.safe_dump(settings))
    said = ours.run("dvc", "repro", fails=True)
    assert "were in the training data of slot text, backbone words" in said
    assert "Traceback" not in said
