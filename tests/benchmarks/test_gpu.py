"""The proof of GPU claims runs on a CPU, outlives its parts, and resumes. No timing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from html import escape
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.__main__ import chosen, main
from benchmarks.gpu.child import Child
from benchmarks.gpu.page import page
from benchmarks.gpu.part import Bench, Bound, Report, SkippedError
from benchmarks.gpu.parts import PARTS, Part
from benchmarks.gpu.record import Record
from tests.support.paths import ROOT

# What a machine with a GPU, lent for minutes and without a network, may lack.
HIDDEN = ("dvc", "jinja2", "pydantic", "pyworld", "rich", "typer")
SITE = """
import sys
from importlib.machinery import PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.partition(".")[0] in {hidden!r}
        return None if hidden else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
"""
PATIENCE = 540.0  # seconds, on a busy machine; alone it takes less than a minute
FACTS: dict[str, Any] = {
    "device": "cuda",
    "gpus": ["NVIDIA H200, 140 GiB", "NVIDIA H200, 140 GiB"],
    "processor": "16 cores, 128 GiB",
    "python": "3.12.3",
    "versions": {"torch": "2.11.0"},
    "cuda": "13.0",
}
BOUND = {"what": "largest <error>", "found": 0.5, "sense": "<=", "limit": 0.1, "holds": False}


def part(name: str, work: str = "works") -> Part:
    return Part(name, f"Part {name}", f"{__name__}:{work}", 10)


def works(bench: Bench, report: Report) -> None:
    report.check("budget that is left", bench.left, at_least=0.0)
    report.add(devices=list(bench.devices))


def raises(_: Bench, report: Report) -> None:
    report.check("fault", 0.5, at_most=0.1)
    raise RuntimeError("an illegal memory access was encountered")


def misses(_: Bench, report: Report) -> None:
    report.check("error", float("nan"), at_most=0.1)
    report.goal("speed", 0.3, at_least=0.5)


def skips(_: Bench, _report: Report) -> None:
    raise SkippedError("two GPUs are needed")


def dies(_: Bench, report: Report) -> None:
    report.add(reached=1)
    os._exit(7)


def hangs(_: Bench, report: Report) -> None:
    report.add(process=os.getpid())
    time.sleep(PATIENCE)


@pytest.mark.slow
def test_quick_run_passes_without_packages_that_a_lent_machine_lacks(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITE.format(hidden=HIDDEN))
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *words]
        return subprocess.run(
            command,
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    for name in HIDDEN:
        assert f"No module named '{name}'" in run("-c", f"import {name}").stderr
    words = ("-m", "benchmarks.gpu", "--quick", "--out", str(tmp_path / "out"))
    done = run(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tmp_path / "out").glob("*-gpu-cpu-quick.json")
    content = json.loads(path.read_text())
    states = {name: found["state"] for name, found in content["parts"].items()}
    assert list(states) == [each.name for each in PARTS]
    assert {name for name, state in states.items() if state != "passed"} == {"several-devices"}
    assert all(found["seconds"] >= 0 for found in content["parts"].values())
    memory = {check["what"]: check for check in content["parts"]["memory"]["checks"]}
    assert memory["batches that did not fit"]["found"] >= 1
    speed = content["parts"]["speed-hubert-base"]["figures"]
    assert speed["factor_over_loop"]["median"] > 0
    assert speed["fraction_of_peak"]["median"] >= 0
    html = path.with_suffix(".html").read_text()
    assert all(escape(each.title) in html for each in PARTS if each.name != "several-devices")
    before = path.read_bytes()
    again = run(*words)
    assert (again.returncode, path.read_bytes()) == (0, before)
    assert "0 parts to run" in again.stdout


@pytest.mark.slow
def test_other_parts_run_after_one_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [part(name, name) for name in ("dies", "raises", "misses", "skips", "works")]
    words = ["--quick", "--out", str(tmp_path)]
    assert main(words, parts) == 1
    (path,) = tmp_path.glob("*.json")
    found = json.loads(path.read_text())["parts"]
    states = {name: each["state"] for name, each in found.items()}
    failed = dict.fromkeys(("dies", "raises", "misses"), "failed")
    assert states == failed | {"skips": "skipped", "works": "passed"}
    assert "with 7" in found["dies"]["message"]
    assert found["dies"]["figures"] == {"reached": 1}
    assert "illegal memory access" in found["raises"]["message"]
    assert any("in raises" in line for line in found["raises"]["log"])
    assert found["works"]["figures"] == {"devices": ["cpu"]}
    out = capsys.readouterr().out
    assert "failed: dies, raises, misses" in out
    assert "error: nan, expected <= 0.1" in out
    mended = [*parts[3:], part("dies"), part("raises"), part("misses")]
    assert main(words, mended) == 0  # what failed is run again, and nothing else
    assert "3 parts to run" in capsys.readouterr().out


@pytest.mark.slow
def test_part_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    child = Child("cpu", quick=True, scratch=tmp_path)
    try:
        child.start()
        outcome = child.run(part("hangs", "hangs"), 2.0)
        assert (outcome["state"], outcome["message"]) == (
            "failed",
            "it took longer than 2 s and was ended",
        )
        with pytest.raises(ProcessLookupError):
            os.kill(outcome["figures"]["process"], 0)
        assert child.run(part("works"), 60.0)["state"] == "passed"
        assert {path.name for path in tmp_path.iterdir()} == {"log.txt", "shared"}
    finally:
        child.stop()


def test_results_are_resumed_for_the_same_sources(tmp_path: Path) -> None:
    parts = [part("a"), part("b"), part("c")]

    def record() -> Record:
        return Record(tmp_path, FACTS, quick=False, parts=parts)

    first = record()
    assert first.path.name.endswith("-gpu-nvidia-h200-x2.json")
    assert (first.status(), first.resumes) == (3, False)
    first.add(parts[0], {"state": "failed"})
    assert first.status() == 1
    first.add(parts[1], {"state": "passed"})
    second = record()
    assert (second.resumes, second.path) == (True, first.path)
    assert [each.name for each in second.missing()] == ["c", "a"]  # what failed comes last
    second.add(parts[0], {"state": "passed"})
    second.add(parts[2], {"state": "skipped", "message": "one GPU"})
    assert second.status() == record().status() == 0
    text = json.loads(first.path.read_text()) | {"sources": "others"}
    first.path.write_text(json.dumps(text))
    assert [each.name for each in record().missing()] == ["a", "b", "c"]


def test_parts_are_chosen_by_name(tmp_path: Path) -> None:
    record = Record(tmp_path, FACTS, quick=False, parts=PARTS)
    assert [each.name for each in chosen(record, ["speed-ced*", "resumed"])] == [
        "resumed",
        "speed-ced-small",
    ]
    assert chosen(record, None) == list(PARTS)
    with pytest.raises(SystemExit, match=r"--only speeds: expected some of features-hubert-base"):
        chosen(record, ["speeds"])


def test_names_of_parts_and_their_time(tmp_path: Path) -> None:
    assert len({each.name for each in PARTS}) == len(PARTS)
    assert sum(each.seconds for each in PARTS) < 13 * 60  # upper bounds, for nine minutes
    assert not list(tmp_path.iterdir())


def test_bounds() -> None:
    assert Bound.of("error", 0.1234, at_most=0.2) == Bound("error", 0.123, "<=", 0.2, True)
    assert not Bound.of("factor", 1.9, at_least=2.0).holds
    assert not Bound.of("error", float("nan"), at_most=0.2).holds
    assert not Bound.of("factor", float("nan"), at_least=2.0).holds


def test_page_shows_failures_goals_and_what_was_not_run(tmp_path: Path) -> None:
    record = Record(tmp_path, FACTS, quick=False, parts=PARTS)
    goal = {"what": "fraction", "found": 0.4, "sense": ">=", "limit": 0.5, "holds": False}
    figures = {"peak": 790.0, "factor": {"median": 21.0, "range": [20.0, 22.0]}, "names": ["a"]}
    outcome = {"checks": [BOUND], "goals": [goal], "figures": figures, "seconds": 12.0}
    record.content["parts"] = {
        "heron": {"title": "HERON", "state": "failed", "log": ["a <trace>"], **outcome},
        "several-devices": {"title": "All", "state": "skipped", "message": "one GPU", "seconds": 0},
    }
    html = page(record.content, PARTS)
    for text in (
        "heronry on NVIDIA H200",
        "0 of 25 parts passed",
        "out of tolerance: largest &lt;error&gt;",
        "a &lt;trace&gt;",
        "21 (20 to 22)",
        "missed",
        "several-devices: one GPU",
        "resumed: not run yet",
    ):
        assert text in html
    assert "<trace>" not in html
