"""End to end from audio files to a report: it learns, repeats itself, and starts from a run."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from features.backbone.base import module_of
from features.backbone.entry import backbone_entry
from features.corpus.entry import corpus_entry
from features.corpus.leak_gate import LEAKS
from features.corpus.prepare import prepare
from features.errors import ManifestError, ParamsError
from features.extraction.trained_on import TRAINED_ON, TrainedOn
from features.files.records import read_rows
from pipeline.cached.run import train_model
from pipeline.command_line.app import app
from pipeline.e2e.run import finetune_model
from pipeline.e2e.setup import check_live_leaks, fusions_sha256
from pipeline.model.checkpoint import load_model
from pipeline.params.file import all_problems, read_params
from pipeline.report.evaluate import evaluate
from stages.e2e.__main__ import main
from tests.conftest import tone
from tests.contracts.checkpoints import ced
from tests.support.models.tuned_tones import RUN, Tones, cached, params_of, results

FILES = {"history.csv", "predictions.csv", "model.safetensors", "model.json"}
FILES |= {"conditions.csv", "probes.csv"}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tones:
    made = Tones(tmp_path, monkeypatch)
    made.write()
    made.prepare()
    return made


def accuracy(run: Path) -> float:
    with (run / "seed_0/fold_0/predictions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return float(np.mean([row["label"] == row["prediction"] for row in rows]))


@pytest.mark.slow
@pytest.mark.usefixtures("corpus")
def test_it_learns_repeats_itself_and_ends_in_a_report(tmp_path: Path, private_store: Path) -> None:
    params = params_of(tmp_path, slots={"text": {"tune": "lora"}})
    cached(params, private_store, "tone")
    assert finetune_model(params, "m", "mine", device="cpu") == RUN
    assert accuracy(RUN) > 0.8
    first = results()
    folder = RUN / "seed_0" / "fold_0"
    assert {path.name for path in folder.iterdir()} == FILES | {"backbones"}
    assert {path.name for path in (folder / "backbones").iterdir()} == {"text", "speech"}
    finetune_model(params, "m", "mine", device="cpu", threads=2)
    assert results() == first

    run = json.loads((RUN / "run.json").read_text())
    assert (run["regime"], run["fusion"], run["seeds"], run["folds"]) == ("e2e", "m", [0], 1)
    assert run["parameters"] < run["parameters_total"]
    assert run["slots"]["prosody"]["provenance"]["kind"] == "tone"
    assert run["slots"]["speech"]["provenance"]["weights_sha256"]
    assert run["slots"]["nonverbal"] is None
    report = evaluate(RUN, Path("data/mine/labels"))
    assert report.run.regime == "e2e"

    rows = list(read_rows(folder / "backbones/speech" / TRAINED_ON, TrainedOn))
    assert {row.id for row in rows} == {f"{s}_{n}" for s in range(4) for n in range(8)}
    fusion, classes = load_model(folder)
    assert classes == list(report.run.classes)
    assert set(load_file(folder / "model.safetensors")) == set(fusion.state_dict())


@pytest.mark.slow
@pytest.mark.usefixtures("corpus")
def test_ced_in_the_spectral_slot_is_tuned_and_read_by_the_same_settings(tmp_path: Path) -> None:
    params = params_of(tmp_path, spectrogram_masks=0.5)
    entry = {"kind": "ced", **ced.tiny(tmp_path / "ced"), "pooling": "mean"}
    nothing = dict.fromkeys(("text", "speech", "nonverbal", "prosody"), "none")
    params = dataclasses.replace(
        params,
        backbones={**params.backbones, "ced": entry},
        models={"m": {**params.models["m"], **nothing, "spectral": "ced"}},
        train={"epochs": 2},
    )
    finetune_model(params, "m", "mine", device="cpu")
    folder = RUN / "seed_0" / "fold_0" / "backbones" / "spectral"
    before, after = (
        module_of(backbone_entry("ced", {**entry, "checkpoint": str(place)}).build())
        for place in (entry["checkpoint"], folder)
    )
    assert before is not None
    assert after is not None
    weights = dict(after.named_parameters())
    still = {n for n, value in before.named_parameters() if torch.equal(value, weights[n])}
    assert still == {"patch_embed.proj.weight", "patch_embed.proj.bias"}  # the front end


@pytest.mark.slow
def test_a_view_of_a_stack_begins_and_goes_on_with_the_state_alone(
    corpus: Tones, tmp_path: Path, private_store: Path
) -> None:
    """A run on caches reads one state of the stack; end to end the network ends at that state."""
    init: dict[str, str | None] = {"run": "runs/cached/mine/m", "sha256": None}
    params = params_of(tmp_path, init=init, slots={"speech": {"tune": "full"}})
    stack = {**params.backbones["voice"], "layer": "all"}
    # The prosody slot is read from its cache end to end too.
    layers = {"speech": 2, "prosody": 1}
    view = {**params.models["m"], "prosody": "voice", "inputs": {"layer": layers}}
    params = dataclasses.replace(
        params,
        backbones={**params.backbones, "voice": stack},
        models={"m": view},
        train={"epochs": 1},
    )
    cached(params, private_store, "words", "voice", "tone")
    before = train_model(params, "m", "mine", device="cpu", workers=1)
    recorded = json.loads((before / "run.json").read_text())["slots"]["speech"]
    assert recorded["provenance"]["layer"] == [0, 1, 2, 3]
    init["sha256"] = fusions_sha256(before)
    finetune_model(params, "m", "mine", device="cpu")
    tuned = json.loads((RUN / "run.json").read_text())["slots"]["speech"]
    assert tuned["spec"] == recorded["spec"]
    assert tuned["provenance"]["layer"] == 2
    Path("params.yaml").write_text(yaml.safe_dump({"backbones": params.backbones}))
    found = {}
    for run in (before, RUN):
        words = ["predict", str(run), str(corpus.root / "manifest.csv"), "--jsonl", "out.jsonl"]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        found[run] = Path("out.jsonl").read_text().splitlines()
    assert len(found[before]) == len(found[RUN]) == 48
    assert found[before] != found[RUN]


@pytest.mark.slow
@pytest.mark.usefixtures("corpus")
def test_unsuitable_initial_runs_are_refused(tmp_path: Path, private_store: Path) -> None:
    init: dict[str, str | None] = {"run": "runs/cached/mine/m", "sha256": None}
    params = params_of(tmp_path, init=init)
    cached(params, private_store, "words", "voice", "tone")
    short = dataclasses.replace(params, train={"epochs": 1})
    before = train_model(short, "m", "mine", device="cpu", workers=1)

    hash = fusions_sha256(before)
    with pytest.raises(ParamsError, match=rf"write `init: .run: {init['run']}, sha256: {hash}.`"):
        finetune_model(short, "m", "mine", device="cpu")
    init["sha256"] = hash
    with pytest.raises(ParamsError, match=r"e2e.init: given .* no seed 1, fold 0"):
        finetune_model(dataclasses.replace(short, seeds=2), "m", "mine", device="cpu")

    wider = {"m": {**params.models["m"], "args": {"d_model": 32}}}
    with pytest.raises(ParamsError, match=r"e2e.init: .*model.json has args .*'d_model': 32"):
        finetune_model(dataclasses.replace(short, models=wider), "m", "mine", device="cpu")

    path = before / "seed_0/fold_0/predictions.csv"
    kept = [line for line in path.read_text().splitlines() if not line.startswith("5_0,")]
    path.write_text("\n".join(kept) + "\n")
    with pytest.raises(
        ManifestError, match=r"trained on 1 utterances .* fold 0, such as \['5_0'\]"
    ):
        finetune_model(short, "m", "mine", device="cpu")


@pytest.mark.slow
@pytest.mark.usefixtures("corpus")
def test_leak_gate_checks_the_pretrained_checkpoints(
    tmp_path: Path, private_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By way of the stage: an encoder of this fold may go on, one that heard the test may not."""
    params = params_of(tmp_path, batch_seconds=2.0)
    params = dataclasses.replace(params, train={"epochs": 1})
    cached(params, private_store, "tone")
    Path("params.yaml").write_text(yaml.safe_dump(vars(params)))
    main("mine", "m")
    assert "trained" in capsys.readouterr().out
    assert json.loads((RUN / LEAKS).read_text())["found"] == []

    tuned = tmp_path / "tuned"
    shutil.copytree(RUN / "seed_0/fold_0/backbones/speech", tuned)
    params.backbones["voice"]["checkpoint"] = str(tuned)
    assert check_live_leaks(params, params.model("m"), "mine")["found"] == []
    line = json.dumps({"corpus": "mine", "id": "5_3"})
    with (tuned / TRAINED_ON).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ManifestError, match=r"checkpoint: 1 of 16 .* slot speech, backbone voice"):
        check_live_leaks(params, params.model("m"), "mine")


@pytest.mark.slow
@pytest.mark.usefixtures("private_store")
def test_a_union_is_read_from_its_members_roots_and_listed_by_their_own_names(
    corpus: Tones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(corpus.root, tmp_path / "other")
    monkeypatch.setenv("HERONRY_OTHER_ROOT", str(tmp_path / "other"))
    params = params_of(tmp_path, text="none")
    own = {"kind": "manifest", "protocol": "official"}
    corpora: dict[str, Any] = {"mine": own, "other": own}
    corpora["both"] = {"kind": "union", "of": ["mine", "other"]}
    small = params.models["m"] | {"prosody": "none"}
    params = dataclasses.replace(params, corpora=corpora, models={"m": small}, train={"epochs": 1})
    prepare(corpus_entry("both", corpora["both"], corpora), Path("data/both"))
    run = finetune_model(params, "m", "both", device="cpu")
    rows = list(read_rows(run / "seed_0/fold_0/backbones/speech" / TRAINED_ON, TrainedOn))
    names = {f"{speaker}_{number}" for speaker in range(4) for number in range(8)}
    assert {(row.corpus, row.id) for row in rows} == {
        (name, id) for name in ("mine", "other") for id in names
    }


def test_clips_that_cannot_be_read_are_left_out(
    corpus: Tones, tmp_path: Path, private_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is too short for the convolutions of its network."""
    path = corpus.root / "0_0.wav"
    soundfile.write(path, tone(700.0, 0.02), 16_000)
    corpus.prepare()
    params = dataclasses.replace(params_of(tmp_path), train={"epochs": 1})
    cached(params, private_store, "tone")
    finetune_model(params, "m", "mine", device="cpu")
    run = json.loads((RUN / "run.json").read_text())
    assert list(run["dropped"]) == ["0_0"]
    assert run["dropped"]["0_0"].startswith("speech: has 320 samples")
    assert run["utterances"] == 47
    printed = capsys.readouterr().err
    assert "1 of 48 utterances are left out" in printed
    assert "fine-tune m on mine: 2 classes, " in printed
    rows = read_rows(RUN / "seed_0/fold_0/backbones/text" / TRAINED_ON, TrainedOn)
    assert "0_0" not in {row.id for row in rows}


@pytest.mark.usefixtures("corpus")
def test_what_is_not_defined_here_is_refused(tmp_path: Path) -> None:
    params = params_of(tmp_path)
    for name in ("seqaug", "mixup"):
        given = dataclasses.replace(params, train={name: 0.5})
        with pytest.raises(ParamsError, match=rf"train\.{name}: given 0.5 in the regime e2e"):
            finetune_model(given, "m", "mine", device="cpu")
    nothing = {"m": {**params.models["m"], "text": "none", "speech": "none"}}
    with pytest.raises(ParamsError, match="given none of text, speech, nonverbal, spectral"):
        finetune_model(dataclasses.replace(params, models=nothing), "m", "mine", device="cpu")
    wrong = dataclasses.replace(params, e2e={"keep": 0, "slots": {"text": {"tune": "no"}}})
    assert len([line for line in all_problems(wrong) if line.startswith("e2e.")]) == 2


def test_files_without_the_section_are_read(tmp_path: Path) -> None:
    old = {key: value for key, value in vars(params_of(tmp_path)).items() if key != "e2e"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(old))
    params = read_params(tmp_path / "params.yaml")
    assert params.tuning(params.model("m")).precision == "float32"
    assert [line for line in all_problems(params) if "e2e" in line] == []
