"""The run that end-to-end training starts from is found from anywhere, and checked by its hash."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.errors import ParamsError
from pipeline.commands.check import beginning_problems
from pipeline.e2e.setup import fusions_sha256, init_folder
from pipeline.params.file import Params
from pipeline.params.tuning import InitRun, TuneParams, tune_problems

RUN = "runs/cached/mine/m"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two folds, seen from the project's folder."""
    monkeypatch.chdir(tmp_path)
    for fold in range(2):
        folder = tmp_path / RUN / "seed_0" / f"fold_{fold}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights %d" % fold)
        (folder / "model.json").write_text("{}")
        (folder / "history.csv").write_text("no part of it")
    return tmp_path / RUN


def test_initial_run_is_identified_by_its_fusions(run: Path) -> None:
    hash = fusions_sha256(run)
    assert init_folder(InitRun(RUN, hash)) == run == init_folder(InitRun(str(run), hash))
    (run / "seed_0/fold_1/history.csv").write_text("trained again, with the same result")
    init_folder(InitRun(RUN, hash))
    first, second = (run / "seed_0" / fold / "model.safetensors" for fold in ("fold_0", "fold_1"))
    content = first.read_bytes(), second.read_bytes()
    for path, other in ((first, content[1]), (second, content[0])):
        path.write_bytes(other)  # each file is there still, in the other's place
    with pytest.raises(
        ParamsError, match=f"write `init: .run: {RUN}, sha256: {fusions_sha256(run)}"
    ):
        init_folder(InitRun(RUN, hash))


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("hash", [None, "0" * 64, ""])
def test_a_hash_that_is_missing_or_wrong_is_refused_with_the_one_to_write(
    hash: str | None, run: Path
) -> None:
    params = Params("m", "e2e", "mine", 1, {}, {}, {}, {}, {"init": {"run": RUN, "sha256": hash}})
    (problem,) = beginning_problems(params)
    assert f"e2e.init.sha256: given {hash}" in problem
    assert f"sha256: {fusions_sha256(run)}}}`" in problem


@pytest.mark.parametrize("given", ["elsewhere", "runs"])
def test_a_folder_without_fusions_is_refused(given: str, run: Path) -> None:
    with pytest.raises(ParamsError, match=rf"e2e.init.run: given '{given}', and {run.parents[3]}/"):
        init_folder(InitRun(given, None))


def test_dvcs_copy_of_the_project_begins_with_the_projects_run(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = run.parents[3] / ".dvc/tmp/exps/tmpxyz"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert init_folder(InitRun(RUN, fusions_sha256(run))) == run


def test_the_earlier_spelling_says_how_it_is_written_now() -> None:
    (problem,) = tune_problems({"init": RUN})
    assert f"given '{RUN}'; expected {{run: {RUN}, sha256: ...}}" in problem
    assert tune_problems({"init": {"run": ""}})[0].startswith("e2e.init.run: given '';")
    assert "e2e.init.rnu: given an unknown key" in tune_problems({"init": {"rnu": RUN}})[0]
    assert TuneParams().beginning is None
