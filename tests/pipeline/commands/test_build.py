"""`heronry build`: the stages it names, and the DVC commands it runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from features.errors import HeronryError, ParamsError
from pipeline.command_line.app import app
from pipeline.commands.experiments.build import extract_targets
from pipeline.params.file import Params, read_params
from pipeline.storage.dvc_command import DvcError, dvc_output, obstacles, run_dvc
from tests.support.machines.team import small_params
from tests.system.test_dvc import SOURCE

PREFIX = "stages/extract/dvc.yaml:extract@tones-"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stage files of the project beside small parameters."""
    for stage in ("extract", "train", "e2e"):
        (tmp_path / "stages" / stage).mkdir(parents=True)
        shutil.copy(SOURCE / f"stages/{stage}/dvc.yaml", tmp_path / f"stages/{stage}/dvc.yaml")
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    write(small_params())
    return tmp_path


def write(content: dict[str, Any]) -> Params:
    Path("params.yaml").write_text(yaml.safe_dump(content))
    return read_params(Path("params.yaml"))


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands of DVC that would have run."""
    found: list[list[str]] = []
    monkeypatch.setattr(
        "pipeline.commands.experiments.build.run_dvc", lambda words: found.append(list(words))
    )
    return found


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["build", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def backbones(params: Params, *models: str) -> list[str]:
    targets = extract_targets(params, models, "tones")
    assert all(target.startswith(PREFIX) for target in targets)
    return [target.removeprefix(PREFIX) for target in targets]


def test_each_backbone_once_and_none_for_empty_slots() -> None:
    params = write(small_params())
    assert backbones(params, "speech") == ["none", "tone"]
    assert backbones(params, "both", "speech", "both") == ["mel", "none", "tone"]


def test_end_to_end_needs_prosody_and_the_slots_that_read_words() -> None:
    content = small_params() | {"regime": "e2e"}
    assert backbones(write(content), "both") == ["none"]
    content["models"]["both"]["prosody"] = "mel"
    assert backbones(write(content), "both") == ["mel", "none"]


def test_every_wrong_model_is_named() -> None:
    content = small_params()
    content["models"]["both"]["spectral"] = "nothing"
    with pytest.raises(ParamsError, match=r"(?s)spectral: given 'nothing'.*no entry 'heroin'"):
        extract_targets(write(content), ["both", "speech", "heroin"], "tones")


def test_dry_prints_the_targets_and_runs_nothing(called: list[list[str]]) -> None:
    said = run("speech", "both", "--dry")
    assert said.split() == [f"{PREFIX}{name}" for name in ("mel", "none", "tone")]
    assert called == []


def test_it_calls_dvc_with_exactly_these_stages(called: list[list[str]]) -> None:
    targets = [f"{PREFIX}none", f"{PREFIX}tone"]
    assert "> dvc repro" in run("speech")
    run("speech", "--pull", "--push")
    assert called == [
        ["repro", "--keep-going", *targets],
        ["repro", "--keep-going", "--pull", "--allow-missing", *targets],
        ["push", "--run-cache", "stages/prepare/dvc.yaml:prepare@tones", *targets],
    ]


def test_another_corpus_may_be_named(called: list[list[str]]) -> None:
    content = small_params()
    content["corpora"]["more"] = content["corpora"]["tones"]
    write(content)
    run("speech", "--corpus", "more")
    assert called[0][-1] == "stages/extract/dvc.yaml:extract@more-tone"
    with pytest.raises(ParamsError, match=r"corpus 'less'; expected one of \['more', 'tones'\]"):
        run("speech", "--corpus", "less")


def test_a_failure_of_dvc_ends_it_before_the_push(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def fail(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 255, "", "ERROR: first\nERROR: last\n")

    monkeypatch.setattr("subprocess.run", fail)
    with pytest.raises(DvcError, match=r"`dvc repro --keep-going .* exit status 255"):
        run("speech", "--push")
    assert [command[3] for command in ran] == ["repro"]
    with pytest.raises(DvcError, match=r"`dvc exp show` failed: last$"):
        dvc_output(["exp", "show"])


def test_without_a_repository_dvc_is_not_started(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / ".git").rmdir()
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("it was started"))
    with pytest.raises(DvcError, match=r"is no Git repository, without which DVC.*git init"):
        run("speech")
    with pytest.raises(DvcError, match="is no Git repository"):
        dvc_output(["exp", "show"])
    (found,) = obstacles()
    assert "is no Git repository" in found


def test_obstacles_in_git_are_listed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".git").rmdir()
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    subprocess.run(["git", "init", "-q"], check=True)
    folder, commit, identity = obstacles()
    assert "git checkout .dvc" in folder
    assert "no commit yet" in commit
    assert "Git knows no user.name and no user.email" in identity
    for key, value in (("user.name", "ann"), ("user.email", "ann@example.org")):
        subprocess.run(["git", "config", key, value], check=True)
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "Start"], check=True)
    (project / ".dvc").mkdir()
    assert obstacles() == []


def test_a_user_without_a_name_has_one_for_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC asks for it, and ends with `getpwuid(): uid not found` in a container under a number."""
    seen: dict[str, str] = {}

    def look(command: list[str], env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        seen.update(env)
        return subprocess.CompletedProcess(command, 0, "", "")

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("subprocess.run", look)
    monkeypatch.delenv("USER", raising=False)
    monkeypatch.setattr("getpass.getuser", nobody)
    run_dvc(["repro"])
    assert seen["USER"].isdecimal()


def test_stages_find_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}

    def look(command: list[str], env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        seen.update(env)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("subprocess.run", look)
    monkeypatch.setenv("PATH", "elsewhere")
    run_dvc(["repro"])
    assert seen["PATH"].startswith(str(Path(sys.executable).parent))


def test_an_unmerged_lock_file_is_refused(called: list[list[str]]) -> None:
    Path("stages/extract/dvc.lock").write_text("<<<<<<< HEAD\nstages:\n=======\n>>>>>>> theirs\n")
    with pytest.raises(HeronryError, match=r"git checkout --theirs stages/extract/dvc\.lock"):
        run("speech")
    assert called == []


def test_the_projects_own_models_are_known() -> None:
    """Whatever training of the shipped models depends on is among the stages."""
    params = read_params(SOURCE / "params.yaml")
    targets = extract_targets(params, ["heron", "lpgnet", "gat"], "demo")
    filled = {
        backbone
        for name in ("heron", "lpgnet", "gat")
        for backbone in params.model(name).slots.values()
    }
    named = {target.rpartition("@demo-")[2] for target in targets}
    assert filled <= named
    assert named <= params.backbones.keys()
