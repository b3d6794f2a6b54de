"""A run exported and loaded again, away from its project; what is refused of a folder."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from huggingface_hub import ModelCard
from typer.testing import CliRunner, Result

import pipeline
from features.backbone.entry import backbone_entry
from features.errors import HeronryError, ParamsError, RunError
from features.files.records import read_json, write_json
from pipeline.command_line.app import app
from pipeline.handover.card import exported_card
from pipeline.handover.layout import CONFIG, files_in, read_config
from pipeline.handover.loading import LoadedRun
from tests.conftest import RATE, ManifestMaker, tone
from tests.contracts.checkpoints import text_encoder
from tests.contracts.test_predict import check_equal, predicted
from tests.support.paths import ROOT
from tests.support.runs.random_run import CLASSES, RandomRun

SECONDS = [0.9, 0.5, 1.3, 0.7, 0.6, 1.1]


class Project:
    """A project with a run of words and tones, in the current folder."""

    def __init__(self, folder: Path, manifest: Any, words: dict[str, Any], store: Path) -> None:
        self.folder, self.manifest, self.store = folder, manifest, store
        self.entries = {
            "text": backbone_entry("words", words),
            "speech": backbone_entry("voice", {"kind": "tone", "version": 3}),
        }

    def run(self, kind: str = "heron", **more: Any) -> RandomRun:
        run = RandomRun(self.folder, self.manifest, self.entries, kind, **more)
        run.write(self.store)
        run.prepare()
        return run


@pytest.fixture
def project(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_manifest: ManifestMaker,
    private_store: Path,
) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    # Found below HERONRY_CHECKPOINTS, as weights are that no hub has.
    monkeypatch.setenv("HERONRY_CHECKPOINTS", str(tmp_path / "checkpoints"))
    options = text_encoder.VARIANTS["bert"](tmp_path / "checkpoints/bert")
    words = {"kind": "text_encoder", "version": 2, **options, "checkpoint": "some/bert"}
    return Project(folder, make_manifest(SECONDS), words, private_store)


def export(*words: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, words)])


def exported(run: RandomRun, *words: object) -> Path:
    out = run.folder.parent / "out"
    result = export(run.path, out, *words)
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    return out


def given(run: RandomRun) -> dict[str, Any]:
    """Arguments of `predict` for all utterances of a run."""
    return {
        "files": [u.audio for u in run.manifest],
        "texts": [u.text for u in run.manifest],
        "window": 0,
    }


def test_it_predicts_elsewhere_what_the_run_predicts(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """To 1e-6, with the wrong params.yaml around, by two seeds, their temperatures averaged."""
    run = project.run(seeds=(0, 1))
    out, before = exported(run), predicted(run)
    check_equal(run, before)
    shutil.rmtree(project.folder / "runs")
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    Path("params.yaml").write_text(yaml.safe_dump({"backbones": {"voice": {"kind": "logmel"}}}))
    model = pipeline.load_run(out)
    assert (model.classes, model.attributes, model.slots) == ([*CLASSES], {}, ["text", "speech"])
    rows = model.predict(**given(run))
    for u, row in zip(run.manifest, rows, strict=True):
        expected = before[u.id]
        assert list(row) == list(expected)
        assert row["id"] == row["audio"] == u.audio
        for name, value in expected.items():
            if name not in ("id", "audio", "dialogue", "turn"):
                close = pytest.approx(value, abs=1e-6) if isinstance(value, float) else value
                assert row[name] == close, name


def test_other_targets_and_a_single_seed(project: Project) -> None:
    run = project.run(seeds=(0, 1), tasks=("classes", "attributes"))
    out = exported(run, "--seed", 1)
    assert [each.folder for each in read_config(out).models] == ["seed_1/fold_0"]
    model = pipeline.load_run(out)
    assert model.attributes == {"arousal": (1.0, 5.0), "valence": (1.0, 5.0)}
    (row, *_) = model.predict(**given(run))
    assert 1 <= row["v_arousal"] <= 5
    assert row["models"] == ["seed_1/fold_0"]
    with pytest.raises(RunError, match="expected one of seed_1/fold_0"):
        pipeline.load_run(out, seed=0)


def test_dialogues_go_by_their_turns(project: Project) -> None:
    pooled = {"pooling": "mean"}
    project.entries = {
        slot: backbone_entry(e.name, {"kind": e.kind, "version": e.version, **e.options, **pooled})
        for slot, e in project.entries.items()
    }
    run = project.run("lpgnet")
    before, model = predicted(run), pipeline.load_run(exported(run))
    labels = sorted(run.labels, key=lambda label: (label.dialogue or "", label.turn or 0))
    place = {u.id: u for u in run.manifest}
    rows = model.predict(
        [place[label.id].audio for label in labels],
        texts=[place[label.id].text for label in labels],
        dialogues=[label.dialogue for label in labels],
        window=0,
    )
    for label, row in zip(labels, rows, strict=True):
        assert row["p_sad"] == pytest.approx(before[label.id]["p_sad"], abs=1e-6)


@pytest.fixture
def model(project: Project) -> LoadedRun:
    return pipeline.load_run(project.run().path)


def test_lists_windows_and_faults(model: LoadedRun) -> None:
    """A run folder loads as well; a row that fails is no reason to stop."""
    soundfile.write("long.wav", tone(200.0, 5.0), RATE)
    files = ["long.wav", None, "gone.wav"]
    rows = model.predict(files, texts=[None, "words alone", None], window=2.0)
    assert [row["id"] for row in rows] == [
        *("long.wav#0.00-1.67", "long.wav#1.67-3.33", "long.wav#3.33-5.00"),
        *("text 1", "gone.wav"),
    ]
    assert [row["missing"] for row in rows[:4]] == [["text"]] * 3 + [["speech"]]
    assert rows[-1]["prediction"] is None
    assert "No such file" in rows[-1]["error"]
    assert model.predict([]) == []
    (whole,) = model.predict(["long.wav"], texts=["what is said in all of it"], window=2.0)
    assert (whole["start"], whole["stop"]) == (0.0, 5.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"files": "a.wav"}, r"files: given 'a.wav'; expected a list"),
        ({"files": ["a.wav"], "texts": "words"}, r"texts: given 'words'; expected a list"),
        ({"files": ["a.wav"], "texts": ["a", "b"]}, "texts: given 2 for 1 files"),
        ({"files": ["a.wav", "a.wav"]}, "twice"),
        ({"files": ["a.wav"], "window": 0.1}, "window: given 0.1"),
        ({"files": ["a.wav"], "window": -1.0}, "window: given -1"),
        ({"files": ["a.wav"], "window": math.nan}, "window: given nan"),
    ],
)
def test_arguments_that_do_not_fit(
    arguments: dict[str, Any], message: str, model: LoadedRun
) -> None:
    with pytest.raises(ParamsError, match=message):
        model.predict(**arguments)


def test_threads_take_turns(model: LoadedRun) -> None:
    """Each gets its own answers, whatever the others ask for."""
    words = ["this is " * (number + 1) for number in range(6)]
    alone = [model.predict([None], texts=[text])[0]["p_sad"] for text in words]
    assert len(set(alone)) == len(words)
    found: dict[int, float] = {}

    def ask(number: int) -> None:
        found[number] = model.predict([None], texts=[words[number]])[0]["p_sad"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(words))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(len(words))] == pytest.approx(alone, abs=1e-6)


def test_the_card_is_what_a_hub_reads(project: Project) -> None:
    run = project.run()
    out = exported(run)
    card = ModelCard.load(out / "README.md")
    assert card.data.license == "other"  # a user's own corpus
    assert card.data.tags == ["speech-emotion-recognition", "heronry", "heron", "text", "speech"]
    assert card.data.datasets == ["tones"]
    (result, *_) = card.data.eval_results
    assert (result.dataset_name, result.dataset_split) == ("Tones", "test")
    assert 0 <= result.metric_value <= 1
    for line in ("## Test", "## Gaps between groups", "not meant for decisions about people"):
        assert line in card.text
    assert str(ROOT) not in json.dumps(read_json(out / "run.json"))


def damaged(change: Callable[[Path, dict[str, Any]], object], out: Path) -> str:
    """What `load_run` says once a folder and its config.json were changed."""
    config = read_json(out / CONFIG)
    change(out, config)
    write_json(out / CONFIG, config)
    with pytest.raises(HeronryError) as refused:
        pipeline.load_run(out)
    return str(refused.value)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


WEIGHTS = "seed_0/fold_0/model.safetensors"
DAMAGES: dict[str, Callable[[Path, dict[str, Any]], object]] = {
    "is not the file that was exported": lambda out, _: flip(out / WEIGHTS),
    "cannot be read": lambda out, _: (out / WEIGHTS).unlink(),
    "bytes; expected": lambda out, _: (out / WEIGHTS).write_bytes(b"x"),
    "names no seed_0/fold_0/model.json": lambda _, c: c["files"].pop("seed_0/fold_0/model.json"),
    "expected a path within": lambda _, c: c["files"].update({"../x": {"bytes": 1, "sha256": "0"}}),
    "given '/etc/hosts'": lambda _, c: c["files"].update(
        {"/etc/hosts": {"bytes": 1, "sha256": "0"}}
    ),
    "given 'a\\x00b'": lambda _, c: c["files"].update({"a\0b": {"bytes": 1, "sha256": "0"}}),
    "tasks: given ['x']": lambda _, c: c.update({"tasks": ["x"]}),
    "not named in `files`": lambda out, _: (out / "seed_0/code.py").write_text("1"),
    "expected each seed and fold once": lambda _, c: c["models"].append(c["models"][0]),
    "version: given 2": lambda _, c: c.update({"version": 2}),
    "temperature": lambda _, c: c["models"][0].update({"temperature": 0}),
}


def test_a_folder_that_was_changed_is_refused(project: Project, tmp_path: Path) -> None:
    out = exported(project.run())
    for number, (message, change) in enumerate(DAMAGES.items()):
        copy = shutil.copytree(out, tmp_path / str(number))
        assert message in damaged(change, copy), message
    copy = shutil.copytree(out, tmp_path / "pipe")
    (copy / WEIGHTS).unlink()
    os.mkfifo(copy / WEIGHTS)
    assert "cannot be read" in damaged(lambda *_: None, copy)
    with pytest.raises(RunError, match="there is no folder"):
        pipeline.load_run(tmp_path / "nowhere")


def test_other_weights_and_code_of_a_checkpoint_are_refused(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = exported(project.run())

    def trust(folder: Path, config: dict[str, Any]) -> None:
        head = read_json(folder / "run.json")
        head["slots"]["text"]["provenance"]["options"]["trust_remote_code"] = True
        write_json(folder / "run.json", head)
        config["files"] |= {"run.json": files_in(folder)["run.json"]}

    assert "expected `trust_remote_code=True`" in damaged(
        trust, shutil.copytree(out, tmp_path / "trusting")
    )
    text_encoder.VARIANTS["bert"](tmp_path / "others/bert")
    flip(tmp_path / "others/bert/model.safetensors")
    monkeypatch.setenv("HERONRY_CHECKPOINTS", str(tmp_path / "others"))
    with pytest.raises(RunError, match="revision: recorded"):
        pipeline.load_run(out)


def test_a_corpus_that_may_not_be_passed_on_is_refused(project: Project) -> None:
    """Before anything is written; a note where nothing is uploaded."""
    run = project.run()
    path = project.folder / "params.yaml"
    path.write_text(path.read_text().replace("kind: manifest", "kind: msp_podcast"))
    result = export(run.path, "new", "--push", "someone/heron")
    assert "--push someone/heron: it was made of tones (by agreement" in str(result.exception)
    assert not Path("new").exists()
    result = export(run.path, "new")
    assert "note: the licence of tones does not let this be passed on" in result.output
    assert ModelCard.load(Path("new") / "README.md").data.license == "other"


def other_export() -> str:
    Path("both").mkdir()
    Path("both/config.json").write_text("of another")
    return ""


def test_what_export_refuses(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    run = project.run()
    out = exported(run)
    result = export(run.path, out)
    assert "is not empty; expected a new folder" in str(result.exception)
    assert not list(out.parent.glob(".out-*"))
    with monkeypatch.context() as meanwhile:
        name = "pipeline.handover.exporting.exported_card"
        meanwhile.setattr(name, lambda *of: exported_card(*of) + other_export())
        assert "is not empty" in str(export(run.path, "both").exception)
    assert [path.name for path in Path("both").iterdir()] == ["config.json"]
    assert not list(Path().glob(".both-*"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = export(run.path, "other", "--onnx")
    assert "python -m pip install --editable '.[onnx]'" in str(result.exception)
    assert not Path("other").exists()


def test_importing_pipeline_imports_no_torch() -> None:
    code = "import sys, pipeline; print(pipeline.load_run.__name__, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "load_run False\n"


def test_probabilities_are_a_distribution(model: LoadedRun) -> None:
    (row,) = model.predict([None], texts=["some words"])
    shares = [row[f"p_{name}"] for name in CLASSES]
    assert sum(shares) == pytest.approx(1)
    assert row["prediction"] == CLASSES[int(np.argmax(shares))]
