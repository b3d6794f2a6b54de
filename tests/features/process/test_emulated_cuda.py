"""What runs on GPUs, run on emulated ones; and that these refuse what a real one would."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.gpu.parts import PARTS
from tests.support.emulated_cuda import environment, lacking
from tests.support.paths import ROOT

PATIENCE = 900.0  # seconds, on a busy machine; alone it takes a tenth of it
CASES = ROOT / "tests" / "support" / "emulated_cuda" / "cases.py"


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    if lacking():
        pytest.skip(lacking())
    return environment(tmp_path_factory.mktemp("emulated"))


def run(words: list[str], environment: Mapping[str, str], cwd: Path = ROOT) -> str:
    """Output of a Python program that succeeds."""
    done = subprocess.run(
        [sys.executable, *words],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_tests_that_need_a_gpu_pass(emulated: Mapping[str, str]) -> None:
    """All of them, and the emulation's own."""
    marked = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if "mark.gpu" in path.read_text(encoding="utf-8") and path.name != Path(__file__).name
    ]
    assert len(marked) > 4
    without = ("no:randomly", "no:xdist", "no:cacheprovider")
    options = ["-q", *(word for each in without for word in ("-p", each)), "-m", "gpu"]
    said = run(["-m", "pytest", *options, str(CASES), *marked], emulated)
    passed = re.search(r"^(\d+) passed, \d+ deselected", said, re.MULTILINE)
    assert passed is not None, said[-2000:]  # and none was skipped
    assert int(passed[1]) > 50


@pytest.mark.slow
def test_the_proof_of_gpu_claims_passes(emulated: Mapping[str, str], tmp_path: Path) -> None:
    """Every part, those for several GPUs too: of a GPU this proves nothing but that they run."""
    words = ["--quick", "--device", "cuda", "--out", str(tmp_path), "--minutes", "60"]
    run(["-m", "benchmarks.gpu", *words], emulated, tmp_path)
    (path,) = tmp_path.glob("*-gpu-emulated-x2-quick.json")
    parts = json.loads(path.read_text())["parts"]
    assert {name: each["state"] for name, each in parts.items()} == {
        part.name: "passed" for part in PARTS
    }
    memory = {check["what"]: check["found"] for check in parts["memory"]["checks"]}
    assert memory["batches that did not fit"] >= 1  # of the emulated memory, not pretended
    assert parts["steps-memory"]["figures"]["gib_left"] > 0
