"""The real DAG, by DVC, on a small corpus of tones: what runs, what does not, what comes out."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import soundfile
import yaml

from features.transcription.settings import Transcription
from pipeline.evaluation.identity import KEYS
from pipeline.report.metrics_json import HEADLINE, read_all
from tests.conftest import RATE, tone
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.dvc]
SOURCE = ROOT
# Lock files are those of `make run` in the checkout under test.
IGNORED = shutil.ignore_patterns("__pycache__", "dvc.lock")
COPIED = ("docs", "features", "pipeline", "stages", "dvc.yaml", ".dvcignore", ".gitignore")
PREPARE = "stages/prepare/dvc.yaml:prepare@tones"
KEPT = "refs/tests/kept"  # no branch and no tag, which commands would show
CLASSES = {"low": 150.0, "middle": 600.0, "high": 2400.0}


class Project:
    """A copy of the project with a corpus of its own."""

    def __init__(self, root: Path, store: Path) -> None:
        self.root = root
        for name in COPIED:
            source, target = SOURCE / name, root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=IGNORED)
            else:
                shutil.copy(source, target)
        self.corpus = root.parent / "corpus"
        self.environment = os.environ | {
            "HERONRY_TONES_ROOT": str(self.corpus),
            "HERONRY_STORE": str(store),
            "HERONRY_DEVICE": "cpu",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "PYTHONPATH": "",
        }
        self.git("init", "-q")
        self.git("config", "user.email", "test@example.org")
        self.git("config", "user.name", "test")

    def git(self, *words: str) -> None:
        subprocess.run(["git", *words], cwd=self.root, check=True, capture_output=True)

    def run(self, *words: str, fails: bool = False) -> str:
        """Standard output and error of a command; its exit status must be as expected."""
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said
        return said

    def metrics(self) -> dict[str, Any]:
        """All numbers of the report in the workspace."""
        return read_all(self.root / "reports")

    def commit(self, message: str) -> None:
        """Commit everything."""
        self.git("add", "-A")
        self.git("commit", "-qm", message)

    def keep(self, message: str) -> None:
        """Commit everything as the state that `again` comes back to."""
        self.commit(message)
        self.git("update-ref", KEPT, "HEAD")

    def again(self) -> Self:
        """The project with the files that were kept, whatever another test has changed in it.

        What Git ignores stays: outputs of stages, which `dvc repro` brings back, and DVC's cache.
        """
        self.git("reset", "-q", "--hard", KEPT)
        self.git("clean", "-fdq")
        return self

    def restore(self) -> None:
        """Outputs of the kept files as well."""
        self.again()
        self.run("dvc", "repro", "-q")

    def params(self, **changes: Any) -> None:
        path = self.root / "params.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def computed(said: str) -> list[str]:
    """Stages that DVC ran, but for those that look before anything is done."""
    ran = re.findall(r"> python -m stages\.(\w+)", said)
    return [stage for stage in ran if stage not in ("look", "members", "selection")]


def write_corpus(folder: Path, per_speaker: int = 2, *, higher: float = 1.0) -> None:
    """Nine speakers with `per_speaker` tones of each class, so many times as high."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for speaker in range(9):
        for name, hz in CLASSES.items():
            for take in range(per_speaker):
                path = folder / f"s{speaker}_{name}_{take}.wav"
                wave = tone(hz * higher * (1 + 0.02 * speaker), 0.4 + 0.1 * take)
                soundfile.write(path, wave.astype(np.float32), RATE)
                rows.append([path.stem, path.name, f"take {take}", name, f"s{speaker}"])
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "audio", "text", "label", "speaker"])
        writer.writerows(rows)


def params() -> dict[str, Any]:
    slots = dict.fromkeys(("text", "speech", "nonverbal", "prosody", "spectral", "asr"), "none")
    train = {"epochs": 8, "batch_size": 8, "lr": 0.01, "weight_decay": 0.001}
    small = {"kind": "concat", "seeds": 2, "args": {"d_model": 16, "dropout": 0.1}, "train": train}
    corpus = {"kind": "manifest", "protocol": "speaker_split", "shard_seconds": 5.0}
    return {
        "fusion": "speech",
        "regime": "cached",
        "corpus": "tones",
        "seeds": None,
        "train": {"epochs": None, "lr": None},
        "corpora": {"tones": {**corpus, "allow_rejected": 0}},
        "backbones": {
            "tone": {"kind": "tone", "dim": 12, "version": 1},
            "mel": {"kind": "logmel", "n_mels": 16, "version": 1},
            "none": {},
        },
        "asr_backbones": {},
        "ensembles": {},
        "speech_llms": {},
        "transcribe": vars(Transcription()),
        "models": {
            "speech": {**slots, **small, "speech": "tone"},
            "both": {**slots, **small, "speech": "tone", "spectral": "mel"},
        },
    }


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project on which `dvc repro` ran once."""
    root = tmp_path_factory.mktemp("dag")
    made = Project(root / "project", root / "store")
    write_corpus(made.corpus)
    (made.root / "params.yaml").write_text(yaml.safe_dump(params()))
    made.run("dvc", "init", "-q", "-f")
    shutil.copy(SOURCE / ".dvc" / "config", made.root / ".dvc" / "config")
    shutil.copytree(SOURCE / ".dvc" / "plots", made.root / ".dvc" / "plots")
    made.commit("Start")
    said = made.run("dvc", "repro")
    assert "extract@tones-tone" in said
    assert "extract@tones-mel" not in said
    made.keep("Reproduce")
    return made


@pytest.fixture
def project(reproduced: Project) -> Project:
    """That project, with its settings and lock files as committed."""
    return reproduced.again()


def test_report_is_complete_and_right(project: Project) -> None:
    project.restore()
    metrics = project.metrics()
    assert metrics["accuracy"] > 0.9
    assert "accuracy_low" not in metrics  # two speakers of the test split are too few
    assert metrics["seeds"] == 2
    with (project.root / "reports/predictions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    right = np.mean([row["label"] == row["prediction"] for row in rows])
    assert metrics["accuracy"] == pytest.approx(right, abs=1e-6)
    assert "<html" in (project.root / "reports/index.html").read_text().lower()


def test_nothing_changed_nothing_runs(project: Project) -> None:
    """But for the looks at the selection and at the corpus root, which DVC itself cannot see."""
    project.restore()
    said = project.run("dvc", "repro")
    assert re.findall(r"> python -m (\S+)", said) == ["stages.selection", "stages.look"]
    assert "always changed" in project.run("dvc", "status", "stages/look/dvc.yaml:look@tones")


def test_edits_train_again_what_they_can_change_and_nothing_else(project: Project) -> None:
    """An edit is a comment at the end of a file; `dvc status` says which stages it made stale."""
    project.restore()

    def stale(*edited: str) -> set[str]:
        for name in edited:
            with (project.root / name).open("a") as file:
                file.write("# edited\n")
        try:
            said = project.run("dvc", "status", "--json", "--with-deps", "evaluate")
        finally:
            project.git("checkout", *edited)
        stages = json.loads(said)
        changed = {n for n, facts in stages.items() if any("changed deps" in f for f in facts)}
        return {re.sub(r".*:|@.*", "", name) for name in changed}

    assert stale("pipeline/report/page.py", "pipeline/evaluation/statistics.py") == {"evaluate"}
    assert not stale(
        "pipeline/compare/comparison.py",
        "pipeline/commands/board.py",
        "pipeline/storage/lock_check.py",
        "pipeline/runtime/environment.py",
        "features/process/terminal.py",
        "features/backbones/tone.py",
        "pipeline/fusion/heron.py",
        "docs/design.md",
    )
    for name in (
        "pipeline/training/loop.py",
        "pipeline/fusion/concat.py",
        "pipeline/fusion/_parts/layers.py",
        "features/cache/reader.py",
    ):
        assert "train" in stale(name), name


def test_dvc_shows_metrics_plots_and_experiments(project: Project) -> None:
    project.restore()
    # Experiments of other tests belong to another commit, and are not shown.
    project.git("commit", "-q", "--allow-empty", "-m", "Go on")
    shown = json.loads(project.run("dvc", "metrics", "show", "--json").partition("\n")[0])
    found = shown[""]["data"]["reports/metrics.json"]["data"]
    assert set(found) == {*KEYS, *HEADLINE} - {"macro_f1_low", "macro_f1_high"}
    project.run(
        "dvc", "exp", "run", "--temp", "-n", "other", "-S", "seeds=1", "-S", "train.lr=2e-3"
    )
    header, *rows = project.run("dvc", "exp", "show", "--only-changed", "--csv").splitlines()
    assert {"train.lr", "train_seconds"} < set(header.split(","))
    assert sum("/" not in name for name in header.split(",")) <= 30, header
    assert any("other" in row.split(",")[:2] for row in rows)
    said = project.run("dvc", "plots", "diff", "HEAD", "other", "--json").partition("\n")[0]
    plots = json.loads(said)["data"]
    titles = ("Training loss", "Validation loss", "Validation weighted F1", "Confusion")
    assert tuple(plots) == titles  # no plot of each column of a file
    for title in titles[:3]:
        (curves,) = plots[title]
        assert set(curves["revisions"]) == {"HEAD", "other"}
        content = curves["content"]
        content = content if isinstance(content, dict) else json.loads(content)
        assert content["encoding"]["color"]["field"] == "rev"
        assert {row["rev"] for row in content["data"]["values"]} == {"HEAD", "other"}
    ignored = project.run("dvc", "plots", "diff", "HEAD", "other")
    assert "dvc_plots" in ignored
    assert (
        "dvc_plots"
        not in subprocess.run(
            ["git", "status", "--short"],
            cwd=project.root,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )


def test_a_registered_model_is_the_selected_run(project: Project, tmp_path: Path) -> None:
    """The command of docs/remotes.md."""
    project.restore()
    project.git("tag", "-a", "model@v1.0.0", "-m", "Register it")
    out = tmp_path / "model"
    project.run("dvc", "artifacts", "get", ".", "model", "--rev", "v1.0.0", "-o", str(out))
    run = project.root / "runs/cached/tones/speech"
    assert (out / "run.json").read_bytes() == (run / "run.json").read_bytes()
    assert {path.name for path in out.glob("seed_*")} == {"seed_0", "seed_1"}


def test_switching_runs_what_is_missing_and_back_runs_nothing(project: Project) -> None:
    project.restore()
    before = project.metrics()
    said = project.run("dvc", "exp", "run", "--name", "switched", "-S", "fusion=both")
    page = (project.root / "reports/index.html").read_text(encoding="utf-8")
    assert "First made by experiment <b>switched</b>" in page
    assert "extract@tones-mel" in said
    assert "> python -m stages.extract tones tone" not in said
    assert "train@both" in said
    said = project.run("dvc", "exp", "run", "-S", "fusion=speech")
    assert "> python -m stages.train" not in said
    assert "> python -m stages.extract" not in said
    assert {**project.metrics(), "train_seconds": 0} == {**before, "train_seconds": 0}


def test_an_ensemble_follows_its_members(project: Project) -> None:
    """Runs of the workspace, an experiment by name, and a member that changes."""
    project.restore()
    model = "stages/train/dvc.yaml:train@"
    project.run("dvc", "repro", "-q", f"{model}both")
    pair = {"members": ["cached/speech", "cached/both"], "method": "mean"}
    project.params(regime="ensemble", fusion="pair", ensembles={"pair": pair})
    project.git("commit", "-qam", "Add an ensemble")
    assert computed(project.run("dvc", "repro")) == ["ensemble", "evaluate"]
    assert computed(project.run("dvc", "repro")) == []
    assert {"gain_uar", "member_cached_both_uar"} <= set(project.metrics())

    quick = ("-S", "regime=cached", "-S", "fusion=speech", "-S", "train.epochs=1")
    project.run("dvc", "exp", "run", "-n", "quick", *quick)
    project.git("checkout", "-q", "params.yaml")
    assert computed(project.run("dvc", "repro")) == ["ensemble", "evaluate"]
    record = project.root / "sources/ensembles/tones/pair.json"
    member = json.loads(record.read_text())["members"]["cached/speech"]

    # The model as it was before, and what the experiment keeps of the other.
    project.run("dvc", "repro", "-q", f"{model}speech")
    chosen = ("-S", "ensembles.pair.members=[cached/both,quick]")
    said = project.run("dvc", "exp", "run", "-n", "mixed", *chosen)
    assert computed(said) == ["ensemble", "evaluate"]
    assert json.loads(record.read_text())["members"]["quick"] == member
    missing = ("-S", "ensembles.pair.members=[cached/both,quikc]")
    said = project.run("dvc", "exp", "run", "-n", "wrong", *missing, fails=True)
    assert "member 'quikc': no experiment of that name; expected one of" in said
    assert "Traceback" not in said


def test_another_protocol_touches_no_cache(project: Project) -> None:
    said = project.run("dvc", "exp", "run", "-S", "corpora.tones.protocol=speaker_folds")
    assert "> python -m stages.prepare" in said
    assert "> python -m stages.extract" not in said
    assert project.metrics()["folds"] == 5


def test_temporary_runs_find_the_corpus_and_leave_the_workspace(project: Project) -> None:
    before = (project.root / "params.yaml").read_bytes()
    said = project.run("dvc", "exp", "run", "--temp", "-S", "seeds=1", "-S", "train.lr=5e-3")
    assert "train@speech" in said
    assert (project.root / "params.yaml").read_bytes() == before


def test_a_bad_file_is_named_and_finished_work_is_kept(project: Project) -> None:
    bad = project.corpus / "s0_low_0.wav"
    whole = bad.read_bytes()
    bad.write_bytes(b"this is no sound")
    try:
        said = project.run("dvc", "repro", PREPARE, fails=True)
        assert "s0_low_0" in said
        assert "allow_rejected" in said
        assert "Traceback" not in said
    finally:
        bad.write_bytes(whole)
    project.run("dvc", "repro", PREPARE)


def test_the_corpus_of_today_is_prepared_whatever_was_before(project: Project) -> None:
    """Settings A; the corpus grows and a label is corrected under B; back to A, and an edit."""
    table = project.corpus / "manifest.csv"
    before = table.read_bytes()
    project.run("dvc", "repro", "-q", PREPARE)
    assert len(labels(project)) == 54

    lines = before.decode().splitlines()
    lines[1] = lines[1].replace("take 0,low,", "take 0,high,")
    grown = "\n".join([*lines, "more,,a text,low,s8", ""])
    try:
        table.write_text(grown)
        entry = yaml.safe_load((project.root / "params.yaml").read_text())["corpora"]["tones"]
        project.params(corpora={"tones": entry | {"allow_rejected": 1}})
        project.run("dvc", "repro", "-q", PREPARE)
        project.params(corpora={"tones": entry})
        project.run("dvc", "repro", "-q", PREPARE)
        assert labels(project)["s0_low_0"] == "high"
        assert labels(project)["more"] == "low"
        table.write_text(grown.replace("more,,a text,low", "more,,a text,high"))
        assert "manifest.csv was edited" in project.run("pipeline", "check", fails=True)
        project.run("dvc", "repro", "-q", PREPARE)
        assert labels(project)["more"] == "high"
    finally:
        table.write_bytes(before)
    said = project.run("dvc", "repro", PREPARE)
    # What is as it was comes from the run-cache, as it should.
    assert "is cached - skipping run" in said
    assert labels(project)["s0_low_0"] == "low"


def labels(project: Project) -> dict[str, str]:
    path = project.root / "data/tones/labels/labels.jsonl"
    rows = map(json.loads, path.read_text().splitlines())
    return {row["id"]: row["label"] for row in rows}


def test_a_misspelt_name_is_told_before_anything_runs(project: Project) -> None:
    for change, told in (
        ("fusion=bth", "fusion: given 'bth'; expected one of ['both', 'speech'] (did you mean"),
        ("models.speech.speech=tne", "models.speech.speech: given 'tne'; expected one of"),
    ):
        said = project.run("dvc", "exp", "run", "-S", change, fails=True)
        assert told in said
        assert re.findall(r"> python -m (\S+)", said) == ["stages.selection"]
        project.again()


def test_wrong_params_stop_the_check(project: Project) -> None:
    project.params(fusion="heroin", seeds=0)
    said = project.run("pipeline", "check", fails=True)
    assert "fusion: given 'heroin'" in said
    assert "seeds: given 0" in said
    project.again()
    assert "in order" in project.run("pipeline", "check")


def test_a_team_mate_trains_without_corpus_or_extraction(project: Project) -> None:
    """Publisher: push with the run-cache. Consumer: a clone, no corpus, another setting."""
    remote, clone = project.root.parent / "remote", project.root.parent / "clone"
    project.restore()
    project.run("dvc", "remote", "add", "-f", "-d", "store", str(remote))
    project.git("commit", "-qam", "Name the remote")
    project.run("dvc", "push", "-q", "--run-cache")
    subprocess.run(["git", "clone", "-q", str(project.root), str(clone)], check=True)
    environment = {k: v for k, v in project.environment.items() if k != "HERONRY_TONES_ROOT"}
    environment["HERONRY_STORE"] = str(project.root.parent / "empty store")
    words = ["exp", "run", "-S", "train.epochs=2", "--pull", "--allow-missing"]
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "> python -m stages.train tones speech" in done.stdout
    assert "> python -m stages.extract" not in done.stdout
    assert "> python -m stages.prepare" not in done.stdout
    # The record of the corpus came by Git, and whoever has none goes on with it.
    assert "sources/tones.json stays as it is" in done.stdout + done.stderr
    assert (clone / "reports" / "metrics.json").is_file()
