"""`heronry run`: what it checks, the command it gives to DVC, and params.yaml afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from features.errors import ParamsError
from pipeline.command_line.app import app
from pipeline.commands.run import Asked
from pipeline.params.file import Params
from pipeline.storage.dvc_command import DvcError
from pipeline.storage.experiments import below_other_commits, finished, taken_names
from pipeline.storage.set_params import params_with
from tests.pipeline.commands.test_check import params as small
from tests.support.corpora.small_corpus import SmallCorpus
from tests.system.test_dvc import SOURCE, Project, params, write_corpus

# In place of DVC: notes its arguments, and does to params.yaml what DVC does; then `HOW` happens.
CLI = """
import json, logging, os, pathlib, signal, sys, time

def main(words):
    here = pathlib.Path("called.json")
    here.write_text(json.dumps([*(json.loads(here.read_text()) if here.exists() else []), words]))
    if "--queue" in words:
        return 0
    with open("params.yaml", "a") as file:
        file.write("# edited by DVC\\n")
    how = os.environ.get("HOW")
    if how == "waits":
        signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path("ended").touch(), sys.exit(3)))
        pathlib.Path("waiting").touch()
        time.sleep(60)
    os.makedirs("reports", exist_ok=True)
    scores = dict.fromkeys(("accuracy", "uar", "macro_f1", "weighted_f1"), 0.75)
    pathlib.Path("reports/metrics.json").write_text(json.dumps(scores))
    pathlib.Path("reports/details.json").write_text(json.dumps({"folds": 1}))
    return 5 if how == "fails" else 0
"""
MAIN = "import sys; from dvc.cli import main; sys.exit(main(sys.argv[1:]))"
UI = "class ui:\n    enable = staticmethod(lambda: None)\n"
COMMENTED = "# a comment that must stay\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus, a model, a Git repository, and a DVC that only notes what it is asked."""
    monkeypatch.setenv("HERONRY_STORE", str(tmp_path / "store"))
    SmallCorpus(tmp_path, monkeypatch).four()
    slots = dict.fromkeys(("text", "speech", "nonverbal", "prosody", "spectral", "asr"), "none")
    models = {name: {"kind": "concat", **slots, "speech": "tone"} for name in ("m", "other")}
    write({"models": models, "train": {"lr": None, "epochs": 3}})
    (tmp_path / ".dvc").mkdir()
    fake = tmp_path / "dvc"
    fake.mkdir()
    for name, text in (("cli", CLI), ("__main__", MAIN), ("ui", UI), ("__init__", "")):
        (fake / f"{name}.py").write_text(text)
    for key, value in (("NAME", "test"), ("EMAIL", "test@example.org")):
        monkeypatch.setenv(f"GIT_AUTHOR_{key}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{key}", value)
    for words in (
        ("init", "-q"),
        ("config", "user.name", "test"),
        ("config", "user.email", "test@example.org"),
        ("add", "params.yaml"),
        ("commit", "-qm", "Start"),
    ):
        subprocess.run(["git", *words], check=True)
    return tmp_path


def write(changes: dict[str, Any]) -> None:
    text = COMMENTED + yaml.safe_dump({**vars(small()), **changes}, sort_keys=False)
    Path("params.yaml").write_text(text)


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["run", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def called() -> list[list[str]]:
    """Arguments that DVC was called with."""
    path = Path("called.json")
    return json.loads(path.read_text()) if path.exists() else []


@pytest.mark.usefixtures("project")
def test_it_runs_the_command_that_it_prints_and_ends_with_the_scores() -> None:
    before = Path("params.yaml").read_bytes()
    said = run("other", "--corpus", "mine", "--seeds", "1", "-S", "train.lr=1e-4")
    settings = ["-S", "fusion=other", "-S", "corpus=mine", "-S", "seeds=1", "-S", "train.lr=1e-4"]
    name = "other-mine-seeds=1-lr=1e-4"
    words = ["exp", "run", "--name", name, *settings, "evaluate"]
    assert called() == [words]
    assert f"> dvc {' '.join(words)}\n" in said
    assert Path("params.yaml").read_bytes() == before
    *_, restored, experiment, _, _, _, _, score, page = said.splitlines()
    assert restored == "params.yaml is restored: it holds what it held before"
    assert experiment == f"experiment {name}"
    assert score.split()[:2] == ["weighted_f1", "0.750"]
    assert page == f"report: {Path('reports/index.html').resolve()}"


def test_a_name_brings_its_regime() -> None:
    """Names are unique over the sections, so that one says which regime is meant."""
    raw = {"regime": "cached", "models": {"m": {}}, "ensembles": {"votes": {}}}
    assert Asked("m").overrides(raw) == ["fusion=m"]
    assert Asked("votes").overrides(raw) == ["fusion=votes", "regime=ensemble"]
    assert Asked("m").overrides(raw | {"regime": "ensemble"}) == ["fusion=m", "regime=cached"]
    given = Asked("m", settings=("regime=e2e",)).overrides(raw)
    assert given == ["fusion=m", "regime=e2e"]
    assert Asked("unknown").overrides(raw) == ["fusion=unknown"]


@pytest.mark.usefixtures("project")
def test_without_arguments_it_runs_what_params_select() -> None:
    run()
    assert called() == [["exp", "run", "--name", "m-mine", "evaluate"]]


@pytest.mark.usefixtures("project")
def test_params_are_restored_after_a_failure(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write({**yaml.safe_load(Path("params.yaml").read_text()), "seeds": 2})  # not committed
    before = Path("params.yaml").read_bytes()
    monkeypatch.setenv("HOW", "fails")
    with pytest.raises(DvcError, match="the message above says why"):
        run("m")
    assert Path("params.yaml").read_bytes() == before
    capfd.readouterr()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_params_are_restored_after_a_signal_once_dvc_has_ended(
    project: Path, number: signal.Signals
) -> None:
    before = (project / "params.yaml").read_bytes()
    environment = {**os.environ, "HOW": "waits", "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline", "run"],  # no -S, which would import DVC here
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        while not (project / "waiting").exists():
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        assert (project / "params.yaml").read_bytes() != before
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does; the fake ends by it
        else:
            process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "what was finished is kept; run the same command again" in said
    assert "params.yaml is restored" in said
    assert (project / "params.yaml").read_bytes() == before
    assert (project / "ended").exists() == (number == signal.SIGTERM)


@pytest.mark.usefixtures("project")
def test_an_ensemble_is_not_queued() -> None:
    """DVC's queue works in a copy of the repository that has neither members nor experiments."""
    ensembles = {"mix": {"members": ["cached/m", "an-experiment"]}}
    write({**yaml.safe_load(Path("params.yaml").read_text()), "ensembles": ensembles})
    record = Path("sources/ensembles/mine/mix.json")  # its members are elsewhere
    record.parent.mkdir(parents=True)
    record.touch()
    with pytest.raises(ParamsError, match="--queue: given the ensemble mix, whose members DVC's"):
        run("mix", "--queue")
    run("mix")
    words = ["-S", "fusion=mix", "-S", "regime=ensemble", "evaluate"]
    assert called() == [["exp", "run", "--name", "mix-mine", *words]]


@pytest.mark.usefixtures("project")
def test_the_queue_is_left_to_dvc_and_takes_lists_of_values() -> None:
    before = Path("params.yaml").read_bytes()
    said = run("m", "--queue", "--name", "grid", "-S", "train.lr=1e-4,1e-3")
    words = ["--name", "grid", "-S", "fusion=m", "-S", "train.lr=1e-4,1e-3", "evaluate"]
    assert called() == [["exp", "run", "--queue", *words]]
    assert Path("params.yaml").read_bytes() == before
    assert "`dvc queue start`" in said
    with pytest.raises(ParamsError, match="settings for 2 experiments; expected one, or --queue"):
        run("m", "-S", "train.lr=1e-4,1e-3")


@pytest.mark.usefixtures("project")
def test_a_pull_needs_no_weights_and_is_part_of_the_printed_command() -> None:
    absent = {"kind": "text_encoder", "checkpoint": "nobody/nothing", "revision": "0" * 40}
    backbones = {**small().backbones, "words": absent | {"version": 1}}
    model = yaml.safe_load(Path("params.yaml").read_text())["models"]["m"] | {"text": "words"}
    write({"models": {"m": model}, "backbones": backbones, "fusion": "m"})
    with pytest.raises(ParamsError, match=r"1 problem, nothing was run:\n- backbones\.words: "):
        run("m")
    said = run("m", "--pull")
    assert "if its features are not on the remote: backbones.words: " in said
    words = ["exp", "run", "--pull", "--name", "m-mine", "-S", "fusion=m", "evaluate"]
    assert called() == [words]
    assert f"> dvc {' '.join(words)}\n" in said


@pytest.mark.usefixtures("project")
def test_faults_of_the_project_are_told_before_any_setting_is_blamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("dvc.lock").write_text("<<<<<<< HEAD\n")
    Path(".dvc").rmdir()
    with pytest.raises(ParamsError) as found:
        run("m", "--seeds", "1")
    assert "dvc.lock: Git could not merge" in str(found.value)
    assert "the folder .dvc is not there" in str(found.value)
    Path("params.yaml").write_text("fusion: [m\n")
    with pytest.raises(ParamsError, match=r"params\.yaml is no YAML: line 2"):
        run("m", "--seeds", "1")
    Path("params.yaml").unlink()
    with pytest.raises(ParamsError, match=r"run this in the project's folder"):
        run("m", "--seeds", "1")
    write({})
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ParamsError, match="no program `git` on PATH"):
        run("m", "--seeds", "1")
    assert called() == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("n", "--corpus", "minne"), r"2 problems, nothing was run:\n- fusion: .*'n'.*\n- corpus:"),
        (("m", "-S", "models.m.speech=tonne"), r"models\.m\.speech: given 'tonne'"),
        (("m", "-S", "trane.lr=1"), r"trane\.lr=1; expected settings .*did you mean train\.lr\?"),
        (("m", "-S", "lr=1"), r"Could not override 'lr'.*did you mean train\.lr\?"),
        (("m", "-S", "fusion=other"), r"fusion: given fusion=m and fusion=other; expected it once"),
        (("m", "-S", "train.lr"), r"-S: given .*train\.lr; expected settings of params"),
        (("m", "-S", "train.lr=-1"), r"train\.lr: given -1"),
        (("m", "--name", "a/b"), r"--name: given 'a/b'; expected letters"),
    ],
)
@pytest.mark.usefixtures("project")
def test_what_is_wrong_is_refused_before_dvc_is_called(
    words: tuple[str, ...], message: str
) -> None:
    before = Path("params.yaml").read_bytes()
    with pytest.raises(ParamsError, match=message):
        run(*words)
    assert called() == []
    assert Path("params.yaml").read_bytes() == before


def test_git_the_root_and_the_store_are_checked_too(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("user.name", "user.email"):
        subprocess.run(["git", "config", "--unset", key], check=True)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.delenv("HERONRY_MINE_ROOT")
    (project / "file").touch()
    monkeypatch.setenv("HERONRY_STORE", str(project / "file" / "store"))
    with pytest.raises(ParamsError) as found:
        run("m")
    assert "3 problems" in str(found.value)
    for text in ("Git knows no user.name and no user.email", "HERONRY_MINE_ROOT", "work store"):
        assert text in str(found.value)
    assert called() == []


def test_an_edited_table_is_reported_and_no_obstacle(project: Path) -> None:
    from stages.look.__main__ import main as look
    from stages.prepare.__main__ import main as prepare

    look("mine")
    prepare("mine")
    assert "has changed" not in run("m")
    table = project / "corpus" / "manifest.csv"
    table.write_text(table.read_text().replace("hello", "good-bye") + "\n")
    said = run("m")
    assert "manifest.csv was edited" in said
    assert "It is prepared again" in said
    assert len(called()) == 2


def test_a_member_without_the_root_works_with_its_record(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HERONRY_MINE_ROOT")
    (project / "sources").mkdir()
    (project / "sources" / "mine.json").write_text("{}")
    assert "corpus 'mine' has no root" in run("m")
    assert len(called()) == 1


@pytest.mark.usefixtures("project")
def test_names_of_experiments_are_free_and_come_from_git() -> None:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    head = git("rev-parse", "HEAD")
    git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/m-mine", head)
    git("update-ref", "refs/exps/exec/EXEC_HEAD", head)
    assert {found.name for found in finished()} == {"m-mine"}
    assert below_other_commits() == 0
    message = f"commit: dvc-exp:{head}:{head}:m-mine-2"
    git("update-ref", "--create-reflog", "-m", message, "refs/exps/celery/stash", head)
    assert taken_names() == {"m-mine", "m-mine-2"}
    run()
    assert called()[0][3] == "m-mine-3"
    with pytest.raises(ParamsError, match=r"'m-mine-2', which an experiment has.*m-mine-2-2"):
        run("--name", "m-mine-2")
    git("commit", "-q", "--allow-empty", "-m", "Another commit")
    assert below_other_commits() == 1


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (("train.lr=1e-4",), "heron-demo-lr=1e-4"),
        (("+backbones.tone.pad=trim", "fusion=heron"), "heron-demo-pad=trim"),
        (("models.heron.args.betas=[0.9, 0.98]",), "heron-demo-betas=_0.9_0.98_"),
        (("train.loss=..lock.lock",), "heron-demo-loss="),
        (("train.loss=" + "x" * 200,), ("heron-demo-loss=" + "x" * 200)[:80]),
    ],
)
def test_an_experiment_is_named_after_what_was_asked(settings: tuple[str, ...], name: str) -> None:
    selected = Params(**{**vars(small()), "fusion": "heron", "corpus": "demo"})
    assert Asked(settings=settings).name(selected) == name
    subprocess.run(["git", "check-ref-format", f"refs/exps/{name}"], check=True)


@pytest.mark.usefixtures("project")
def test_settings_are_read_as_dvc_reads_them() -> None:
    (found,) = params_with(["train.lr=5e-5", "+backbones.tone.pad=trim", "~models.other"])
    assert found.train["lr"] == 5e-5
    assert found.backbones["tone"] == {"pad": "trim"}
    assert list(found.models) == ["m"]
    grid = params_with(["fusion=m,other", "seeds=range(1,3)"])
    assert {(each.fusion, each.seeds) for each in grid} == {
        *(("m", 1), ("m", 2)),
        *(("other", 1), ("other", 2)),
    }
    assert COMMENTED in Path("params.yaml").read_text()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tone project, committed before anything has run."""
    root = tmp_path_factory.mktemp("run")
    made = Project(root / "project", root / "store")
    write_corpus(made.corpus)
    content = params()
    (made.root / "params.yaml").write_text(COMMENTED + yaml.safe_dump(content))
    made.run("dvc", "init", "-q", "-f")
    shutil.copy(SOURCE / ".dvc" / "config", made.root / ".dvc" / "config")
    made.keep("Start")
    return made


@pytest.fixture
def tones(started: Project) -> Project:
    """That project, as committed."""
    return started.again()


@pytest.mark.slow
@pytest.mark.dvc
def test_the_printed_command_alone_gives_the_same_results(tones: Project) -> None:
    before = (tones.root / "params.yaml").read_bytes()
    said = tones.run("pipeline", "run", "both", "--seeds", "1", "-S", "train.epochs=2")
    assert "No file hash info found" not in said
    assert "Reproducing" not in said
    assert "lock file" not in said
    assert "== train@both ..." in said
    assert (tones.root / "params.yaml").read_bytes() == before
    first = tones.metrics()
    (command,) = (line[2:] for line in said.splitlines() if line.startswith("> dvc "))
    name = "both-tones-seeds=1-epochs=2"
    assert f"experiment {name}" in said
    board = tones.run("pipeline", "board", "--quick")
    assert name in board
    # Neither outputs nor the run-cache, so that all of it is computed again.
    tones.run("dvc", "exp", "remove", name)
    for made in ("runs", "reports", ".dvc/cache"):
        shutil.rmtree(tones.root / made)
    plain = tones.run(*command.split())
    assert "> python -m stages.train tones both" in plain
    assert {**tones.metrics(), "train_seconds": 0} == {**first, "train_seconds": 0}
    assert (tones.root / "params.yaml").read_bytes() != before  # as DVC leaves it


@pytest.mark.slow
@pytest.mark.dvc
def test_a_stage_that_fails_has_the_word(tones: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tones.environment, "HERONRY_DEVICE", "cuda:99")
    before = (tones.root / "params.yaml").read_bytes()
    said = tones.run("pipeline", "run", "speech", "--name", "fails", fails=True)
    assert "error: HERONRY_DEVICE is 'cuda:99'" in said
    assert "exited with" not in said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: the experiment failed; the message above says")
    assert (tones.root / "params.yaml").read_bytes() == before
