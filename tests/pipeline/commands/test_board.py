"""`heronry board`: rows, ranks, groups by test set, notes and experiments left out."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from features.errors import ParamsError
from pipeline.board.details import read_details
from pipeline.board.output import as_json, as_text
from pipeline.board.rows import Row, Shown, ascends, read_shown, with_details
from pipeline.board.run_folders import with_run_folders
from pipeline.board.ties import Group, Verdict, groups
from pipeline.command_line.app import app
from pipeline.compare.sources import read_run
from pipeline.evaluation.identity import RunIdentity
from pipeline.report.evaluate import evaluate, write_report
from pipeline.report.metrics_json import read_metrics
from tests.support.runs.fake_run import FakeRun

PARAMS: dict[str, Any] = {
    "fusion": "speech",
    "regime": "cached",
    "corpus": "tones",
    "train": {"lr": None},
    "corpora": {"tones": {"protocol": "official", "shard_seconds": 5.0}, "more": {}},
    "backbones": {"tone": {"dim": 8}, "mel": {"n_mels": 16}},
    "models": {"speech": {"speech": "tone"}, "both": {"speech": "tone", "spectral": "mel"}},
}


def changed(**changes: Any) -> dict[str, Any]:
    """Parameters with some of them set, by their dotted name with `__` for dots."""
    content = copy.deepcopy(PARAMS)
    for name, value in changes.items():
        *parents, last = name.split("__")
        place = content
        for key in parents:
            place = place[key]
        place[last] = value
    return content


def numbers(value: float, width: float = 0.05, **more: float) -> dict[str, float]:
    scores = {"uar": value, "uar_low": value - width, "uar_high": value + width}
    return scores | {"seeds": 2, "train_seconds": 10.0 * value, "nll": 1 - value, **more}


def named(metrics: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The content of metrics.json, which says that `params` were selected when it was made."""
    scored = {k: v for k, v in params["corpora"][params["corpus"]].items() if k == "protocol"}
    test = hashlib.sha256(f"{params['corpus']} {scored}".encode()).hexdigest()
    whose = RunIdentity(params["regime"], params["corpus"], params["fusion"], test, "0" * 64)
    return whose.to_dict() | metrics


def state(rev: str, params: Any, metrics: Any, name: str | None = None) -> dict[str, Any]:
    return {
        "rev": rev,
        "name": name,
        "data": {
            "rev": rev,
            "params": {"params.yaml": {"data": params}},
            "metrics": {"reports/metrics.json": metrics},
        },
        "error": None,
        "experiments": None,
    }


def experiment(name: str, value: float, doing: str | None = None, **changes: Any) -> dict[str, Any]:
    params = changed(**changes)
    found = state(name * 8, params, {"data": named(numbers(value), params)}, name)
    executor = None if doing is None else {"state": doing, "name": "dvc-task", "local": None}
    return {"revs": [found], "executor": executor, "name": name}


def shown(*experiments: dict[str, Any], workspace: float = 0.1) -> Shown:
    """What DVC shows: a workspace, a commit without results, and its experiments."""
    base = state("0" * 40, PARAMS, {"error": {"msg": "no file", "type": "FileNotFound"}}, "main")
    here = state("workspace", PARAMS, {"data": named(numbers(workspace), PARAMS)})
    return read_shown([here, {**base, "experiments": list(experiments)}])


def names(group: Group) -> list[str]:
    return [row.name for row in group.rows]


def test_best_comes_first_and_less_is_better_where_it_is() -> None:
    rows = shown(experiment("a", 0.5), experiment("b", 0.7), experiment("c", 0.6))
    (group,) = groups(rows, "uar", tests=False)
    assert names(group) == ["b", "c", "a", "workspace"]
    (group,) = groups(rows, "train_seconds", tests=False)
    assert names(group) == ["workspace", "a", "c", "b"]
    (group,) = groups(rows, "uar", sort="name", tests=False)
    assert names(group) == ["a", "b", "c", "workspace"]
    assert [verdict.best for verdict in group.verdicts] == [False, True, False, False]
    assert all(map(ascends, ("nll_scaled", "ece", "uar_sd", "uar_gap_gender")))
    assert not any(map(ascends, ("uar", "f1_neutral", "probe_text_uar")))


def test_an_experiment_replaces_the_workspace_it_was_applied_to() -> None:
    rows = shown(experiment("a", 0.5), workspace=0.5).rows
    assert [row.name for row in rows] == ["a"]


def test_rows_are_named_by_their_results_not_by_what_params_select_now() -> None:
    """The workspace after an edit, a commit of one, and an experiment that was saved with one."""
    params = changed(fusion="both", corpus="more")
    results = named(numbers(0.4), PARAMS)
    here, commit = (state(rev, params, {"data": results}) for rev in ("workspace", "1" * 40))
    saved = state("a" * 8, params, {"data": named(numbers(0.5), PARAMS)}, "a")
    experiments = [{"revs": [saved], "executor": None, "name": "a"}, experiment("b", 0.6)]
    rows = read_shown([here, {**commit, "experiments": experiments}])
    (group,) = groups(rows, "uar", tests=False)
    assert [row.name for row in group.rows] == ["b", "a", "1111111"]
    assert {(row.fusion, row.regime, row.corpus) for row in group.rows} == {
        ("speech", "cached", "tones")
    }
    assert {row.name: dict(row.differing) for row in group.rows}["a"] == {}
    text = as_text([group], rows, "uar")
    note = "a: of speech on tones (cached); params.yaml selects both on more (cached)"
    assert note in text
    content = json.loads(as_json([group], rows, "uar"))["groups"][0]
    assert content["rows"][1]["note"] == note.removeprefix("a: ")


def test_old_results_without_a_run_are_attributed_to_none() -> None:
    """Only the params.yaml of an experiment that DVC ran says what its results are of."""
    here, commit = (
        state(rev, PARAMS, {"data": numbers(value)})
        for rev, value in (("workspace", 0.4), ("1" * 40, 0.5))
    )
    ran = state("a" * 8, changed(fusion="both"), {"data": numbers(0.4)}, "a")
    experiments = [{"revs": [ran], "executor": None, "name": "a"}]
    rows = read_shown([here, {**commit, "experiments": experiments}]).rows
    # the workspace is what `dvc exp apply a` left there
    assert [(row.name, row.fusion, row.corpus) for row in rows] == [
        ("a", "both", "tones"),
        ("1111111", "?", "?"),
    ]
    assert "`dvc repro`" in rows[1].note


def test_validation_ranks_and_the_test_split_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    experiments = [experiment("a", 0.5), experiment("b", 0.7), experiment("c", 0.52)]
    validated = {"a": 0.8, "b": 0.6, "c": 0.7}
    for each in experiments:
        data = each["revs"][0]["data"]["metrics"]["reports/metrics.json"]["data"]
        scores = {k.replace("uar", "macro_f1"): v for k, v in data.items() if "uar" in k}
        data |= {**scores, "valid_macro_f1": validated[each["name"]], "shared_speakers": 3}
    base = state("0" * 40, PARAMS, {"error": {"msg": "no file", "type": "FileNotFound"}})
    content = [{**base, "experiments": experiments}]
    monkeypatch.setattr("pipeline.commands.board.dvc_output", lambda _: json.dumps(content))
    monkeypatch.setattr("pipeline.commands.board.read_details", lambda _: {})
    text = CliRunner().invoke(app, ["board", "--quick"], catch_exceptions=False).output
    header, *lines = text.splitlines()[1:]
    assert "valid. Macro F1  test Macro F1  95 % interval" in header
    assert [line.split()[:7] for line in lines[:3]] == [
        ["*", "a", "speech", "cached", "tones", "0.800", "0.500"],
        ["~", "c", "speech", "cached", "tones", "0.700", "0.520"],
        ["+", "b", "speech", "cached", "tones", "0.600", "0.700"],
    ]
    assert "Ranked by valid_macro_f1; marks and intervals are of macro_f1" in text
    assert "+ better than * on the test split, though it ranks lower" in text
    assert "3 speakers occur in several dialogues: intervals are too narrow for" in text
    printed = json.loads(CliRunner().invoke(app, ["board", "--quick", "--json"]).output)
    assert printed["of_split"] == "valid"
    found = printed["groups"][0]
    assert found["rows"][2]["against_best"]["ahead"] is True
    assert found["rows"][0]["valid_macro_f1"] == 0.8
    assert found["rows"][0]["interval"] == pytest.approx([0.45, 0.55])
    assert any("3 speakers occur" in note for note in found["notes"])
    text = CliRunner().invoke(app, ["board", "--quick", "--metric", "macro_f1"]).output
    assert text.splitlines()[2].split()[:2] == ["*", "b"]
    assert "RANKED BY TEST: Macro F1  95 % interval" in text.splitlines()[1]
    assert "RANKED BY TEST: the best of many" in text
    assert "--metric valid_macro_f1" in text
    done = CliRunner().invoke(app, ["board", "--quick", "--metric", "macro_f1", "--json"])
    printed = json.loads(done.output)
    assert printed["of_split"] == "test"
    assert any("RANKED BY TEST" in note for note in printed["groups"][0]["notes"])
    text = CliRunner().invoke(app, ["board", "--quick", "--metric", "train_seconds"]).output
    assert "RANKED BY TEST" not in text
    for words in (("--unit", "people"), ("--sort", "hash")):
        done = CliRunner().invoke(app, ["board", *words])
        assert (done.exit_code, words[1] in done.output) == (2, True)


def test_details_are_read_where_the_metric_needs_them() -> None:
    """Not for the numbers of metrics.json, nor for an older release, which has them all there."""
    old = experiment("b", 0.6)
    old["revs"][0]["data"]["metrics"]["reports/metrics.json"]["data"]["folds"] = 1
    rows = shown(experiment("a", 0.5), old)
    asked: list[str] = []

    def read(rev: str) -> dict[str, Any]:
        asked.append(rev)
        return {"valid_nll": 2.0, "uar": -1.0, "run_fusion": "speech"}

    assert with_details(rows, "uar", read) == rows
    assert asked == []
    found = with_details(rows, "valid_nll", read).rows
    assert asked == ["a" * 8, "workspace"]
    assert {row.name: row.metrics.get("valid_nll") for row in found} == {
        "a": 2.0,
        "b": None,
        "workspace": 2.0,
    }
    assert found[0].metrics["uar"] == 0.5


def test_details_that_are_missing_or_damaged_are_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_details("workspace") == {}
    assert read_details("no-such-revision") == {}
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/details.json").write_text('{"uar_sd": 0.5}', encoding="utf-8")
    assert read_details("workspace") == {"uar_sd": 0.5}
    (tmp_path / "reports/details.json").write_text("[", encoding="utf-8")
    assert read_details("workspace") == {}


def test_only_what_an_experiment_changed_and_reads_is_shown() -> None:
    changes: dict[str, Any] = {
        "fusion": "both",
        "train__lr": 0.01,
        "models__both__spectral": "tone",
        "models__speech__speech": "mel",
        "backbones__mel__n_mels": 64,
        "backbones__tone__dim": 4,
    }
    rows = shown(experiment("a", 0.5, **changes)).rows
    assert rows[0].differing == {
        "train.lr": 0.01,
        "models.both.spectral": "tone",
        "backbones.tone.dim": 4,
    }
    assert rows[0].fusion == "both"


def test_scores_of_other_test_sets_are_not_compared() -> None:
    other: dict[str, Any] = {"corpora__tones__protocol": "speaker_folds"}
    rows = shown(
        experiment("a", 0.5),
        experiment("b", 0.9, **other),
        experiment("c", 0.9, corpora__tones__shard_seconds=9.0),
        experiment("d", 0.8, corpus="more"),
    )
    found = groups(rows, "uar", tests=False)
    assert [names(group) for group in found] == [["c", "a", "workspace"], ["d"], ["b"]]
    assert [group.settings for group in found] == [
        {"protocol": "official"},
        {},
        {"protocol": "speaker_folds"},
    ]
    text = as_text(found, rows, "uar")
    assert "tones (protocol=speaker_folds)" in text


def test_experiments_without_results_are_listed_with_the_reason() -> None:
    """A queued experiment carries the numbers of its base commit, which are not its own."""
    broken = experiment("c", 0.9)
    broken["revs"][0]["data"]["metrics"]["reports/metrics.json"] = {
        "error": {"type": "FileNotFoundError", "msg": "not in the cache\nat all"}
    }
    rows = shown(
        experiment("a", 0.5, doing="success"),
        experiment("b", 0.9, doing="queued"),
        experiment("d", 0.9, doing="Failed"),
        broken,
    )
    assert [row.name for row in rows.rows] == ["a", "workspace"]
    assert rows.without[:2] == ("b: queued", "d: failed")
    assert rows.without[2].startswith("c: metrics not available (not in the cache); `dvc exp pull")
    assert "no results: b: queued" in as_text(groups(rows, "uar", tests=False), rows, "uar")


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ParamsError, match=r"'uarr'.*'valid_weighted_f1'.*did you mean uar"):
        groups(shown(experiment("a", 0.5)), "uarr")
    nothing = Shown((), ("b: queued",))
    assert "no experiment has results" in as_text(groups(nothing, "uar"), nothing, "uar")


def test_the_command_prints_a_table_without_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    base = state("0123456789" * 4, PARAMS, {"data": named(numbers(0.3), PARAMS)})
    content = [{**base, "experiments": [experiment("a", 0.6, train__lr=0.1)]}]

    def output(words: list[str]) -> str:
        called.append(words)
        return json.dumps(content)

    monkeypatch.setattr("pipeline.commands.board.dvc_output", output)
    words = ("--metric", "uar", "--quick")
    done = CliRunner().invoke(app, ["board", *words], catch_exceptions=False)
    assert done.exit_code == 0
    header, first, second, *_ = done.output.splitlines()[1:]
    assert header.split()[:5] == ["name", "fusion", "regime", "corpus", "RANKED"]
    assert first.split() == [
        *("*", "a", "speech", "cached", "tones", "0.600", "0.550", "–", "0.650"),
        *("2", "6", "train.lr=0.1"),
    ]
    assert second.split()[0] == "0123456"
    assert "a" * 8 not in done.output
    done = CliRunner().invoke(
        app, ["board", *words, "--json", "--all-commits"], catch_exceptions=False
    )
    (group,) = json.loads(done.output)["groups"]
    assert group["rows"][0]["interval"] == pytest.approx([0.55, 0.65])
    why = {"basis": "interval", "why": "not asked for"}
    assert group["rows"][1]["against_best"] == {"best": False, "tie": False, **why}
    assert called == [["exp", "show", "--json"], ["exp", "show", "--json", "--all-commits"]]


def test_json_states_whether_lower_is_better() -> None:
    found = Row("a", "a", "speech", "cached", "tones", numbers(0.5), {}, ())
    rows = Shown((found,), ())
    group = Group("tones", {}, rows.rows, [Verdict(best=True, tie=None, basis="none")])
    assert json.loads(as_json([group], rows, "nll"))["better"] == "lower"
    assert json.loads(as_json([group], rows, "uar"))["better"] == "higher"


def test_a_run_that_the_run_cache_had_is_named_beside_the_first_one() -> None:
    """DVC restores its results, to the last digit, for an experiment of another name."""
    newest_first = [experiment("c", 0.5), experiment("b", 0.7), experiment("a", 0.5)]
    for day, each in enumerate(reversed(newest_first)):
        each["revs"][0]["data"]["timestamp"] = f"2026-11-0{day + 1}T00:00:00"
    rows = shown(*newest_first, workspace=0.7)
    assert [row.name for row in rows.rows] == ["a", "b"]
    assert rows.same == ("c: the same run as a",)  # the workspace is no experiment
    found = groups(rows, "uar", tests=False)
    assert "\nc: the same run as a" in as_text(found, rows, "uar")
    assert json.loads(as_json(found, rows, "uar"))["same_results"] == ["c: the same run as a"]


def test_a_run_folder_without_a_report_is_scored_as_its_report_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make run` trains `blend`; an experiment with another model then overwrites its report."""
    monkeypatch.chdir(tmp_path)
    fake = FakeRun(tmp_path)
    folder = fake.write().run.relative_to(tmp_path)
    (tmp_path / "runs/cached/fake/unfinished").mkdir()
    report = evaluate(folder, Path("data/fake/labels"))
    write_report(report, Path("reports"))
    numbers, params = read_metrics(Path("reports/metrics.json")), changed(fusion="blend")
    here = state("workspace", params, {"data": numbers})
    other = experiment("a", 0.7, fusion="both")
    base = state("0" * 40, PARAMS, {"error": {"msg": "no file", "type": "FileNotFound"}})
    overwritten = read_shown([{**base, "experiments": [other]}])
    reported = read_shown([here, {**base, "experiments": [other]}])
    assert with_run_folders(reported, Path("runs"), score=True) == reported
    found = with_run_folders(overwritten, Path("runs"), score=True)
    row, before = found.rows[-1], next(row for row in reported.rows if row.name == "workspace")
    assert row.name == "runs/cached/fake/blend"
    assert (row.test, row.fusion, row.regime) == (before.test, before.fusion, before.regime)
    assert {name: row.metrics[name] for name in before.metrics} == before.metrics
    assert "no report any more; `heronry run blend --corpus fake` makes one" in row.note
    assert read_run(row.rev).classes == report.run.classes
    # Named only, where its scores are not asked for or cannot be had.
    named = with_run_folders(overwritten, Path("runs"), score=False)
    assert named.rows == overwritten.rows
    (line,) = named.unreported
    assert line.startswith("runs/cached/fake/blend is trained and has no report here; `heronry run")
    assert line in as_text(groups(named, "uar", tests=False), named, "uar")
    (tmp_path / "data/fake/labels/labels.jsonl").unlink()
    (line,) = with_run_folders(overwritten, Path("runs"), score=True).unreported
    assert "cannot be scored: " in line


def test_experiments_below_other_commits_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("fusion: [m\n")
    with pytest.raises(ParamsError, match=r"params\.yaml is no YAML"):
        CliRunner().invoke(app, ["board"], catch_exceptions=False)
    (tmp_path / "params.yaml").write_text("fusion: m\n")
    (tmp_path / "dvc.lock").write_text("<<<<<<< HEAD\n")
    with pytest.raises(ParamsError, match=r"dvc\.lock: Git could not merge"):
        CliRunner().invoke(app, ["board"], catch_exceptions=False)
    (tmp_path / "dvc.lock").unlink()
    monkeypatch.setattr("pipeline.commands.board.below_other_commits", lambda: 11)
    monkeypatch.setattr("pipeline.commands.board.dvc_output", lambda _: "[]")
    text = CliRunner().invoke(app, ["board"], catch_exceptions=False).output
    assert "11 more below other commits: --all-commits" in text
    found = json.loads(CliRunner().invoke(app, ["board", "--json"]).output)
    assert found["below_other_commits"] == 11
    assert "below" not in CliRunner().invoke(app, ["board", "--all-commits"]).output
