"""Speech language models through DVC: a tiny checkpoint, and a server that is asked, killed for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.weights.checkpoint import Checkpoint
from pipeline.report.evaluate import evaluate, write_report
from pipeline.report.metrics_json import UNPARSED
from pipeline.runs.answers import ANSWERS
from pipeline.speech_llm.models.base import KINDS
from pipeline.speech_llm.models.meralion import _WithCode
from pipeline.speech_llm.models.phi4_multimodal import _WithAdapter
from tests.support.machines.chat_server import ChatServer, Reply, by_recording, serving
from tests.support.markdown import blocks_of
from tests.support.models.small_speech_llms import SMALL
from tests.system.test_dvc import SOURCE, Project, computed, params, write_corpus

pytestmark = [pytest.mark.slow, pytest.mark.dvc]
SECRET = "sk-a-key-that-nobody-may-see"
PAGE, LOCAL, NAME = "docs/speech-llm.md", "http://127.0.0.1:8000/v1", "speech_endpoint"
PROMPTS = Path("stages/speech_llm/prompts")
RUN = "runs/speech_llm/tones"
SAYS = by_recording(["low", "It is high.", "middle", "low or high", "I cannot tell."])
SOURCES = {"meralion": _WithCode, "phi4_multimodal": _WithAdapter}  # more than weights decide
DEADLINE = 240  # seconds
ASKED = 24  # valid and test rows: four of nine speakers, six tones each


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("asked")
    made = Project(root / "project", root / "store")
    write_corpus(made.corpus)
    prompt = {"prompt": str(PROMPTS / "heron.txt")}
    entries: dict[str, Any] = {}
    for kind in KINDS:
        trusted = kind == "meralion"
        weights = str(SMALL[kind](root / kind))
        source = SOURCES.get(kind, Checkpoint)
        revision = source(weights, trust_remote_code=trusted).content()
        pinned = {"checkpoint": weights, "revision": revision, "trust_remote_code": trusted}
        entries[kind] = {"kind": kind, **pinned, **prompt, "shots": 1}
    remote = {"kind": "endpoint", "checkpoint": "some-model", "requests": 3, **prompt}
    selected = {"regime": "speech_llm", "fusion": "qwen2_audio"}
    entries["remote"] = {**remote, "attempts": 2}
    content: dict[str, Any] = params() | selected | {"speech_llms": entries}
    (made.root / "params.yaml").write_text(yaml.safe_dump(content))
    made.environment["HF_MODULES_CACHE"] = str(root / "modules")
    made.run("dvc", "init", "-q", "-f")
    shutil.copy(SOURCE / ".dvc" / "config", made.root / ".dvc" / "config")
    shutil.copytree(SOURCE / ".dvc" / "plots", made.root / ".dvc" / "plots")
    made.keep("Start")
    return made


@pytest.fixture
def project(started: Project) -> Project:
    """That project, with its settings as committed, before any answer."""
    return started.again()


@pytest.fixture
def server(project: Project) -> Iterator[ChatServer]:
    with serving(ChatServer(SAYS)) as server:
        mine = {"HERONRY_ENDPOINT": server.address, "HERONRY_ENDPOINT_KEY": SECRET}
        project.environment |= mine
        yield server
        for name in mine:
            del project.environment[name]


def test_a_tiny_model_of_each_class_from_audio_to_report(project: Project, tmp_path: Path) -> None:
    stages = (f"stages/speech_llm/dvc.yaml:speech_llm@{kind}" for kind in KINDS)
    said = project.run("dvc", "repro", *stages)
    # The corpus may have been prepared by a test before this one.
    assert [stage for stage in computed(said) if stage != "prepare"] == ["speech_llm"] * len(KINDS)
    for kind in KINDS:
        assert f"ask {kind} about tones: {ASKED} questions" in said
        report = evaluate(project.root / RUN / kind, project.root / "data/tones/labels")
        assert report.metrics["rows"] == ASKED / 2
        answers = json.loads((project.root / RUN / kind / "run.json").read_text())["answers"]
        assert answers["model"]["kind"] == kind
        page = write_report(report, tmp_path / kind).read_text()
        assert answers["exemplars"][0][0] in page
    assert computed(project.run("dvc", "repro")) == ["evaluate"]
    assert 0 <= project.metrics()[UNPARSED] <= 1
    page = (project.root / "reports/index.html").read_text()
    assert "Questions and answers" in page
    assert "answers that name no class" in project.run("pipeline", "show")
    project.commit("Answer")
    assert computed(project.run("dvc", "repro")) == []


def test_a_run_on_a_server_is_killed_and_goes_on(project: Project, server: ChatServer) -> None:
    project.run("pipeline", "check")  # the checkpoint and the corpus are there
    project.params(fusion="remote")

    killed = threading.Event()

    def held(number: int, request: dict[str, Any]) -> Reply:
        """A few answers, and no more until the run has been killed."""
        if number > 8:
            killed.wait(DEADLINE)
        return SAYS(number, request)

    server.reply = held
    store = Path(project.environment["HERONRY_STORE"])
    before = set(store.glob(f"answers/*/{ANSWERS}"))
    with (project.root.parent / "log").open("w") as log:
        repro = subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", "-q"],
            cwd=project.root,
            env=project.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + DEADLINE
        while sum(len(p.read_bytes().splitlines()) for p in new(store, before)) < 5:
            assert time.monotonic() < deadline
            assert repro.poll() is None, (project.root.parent / "log").read_text()
            time.sleep(0.02)
        os.killpg(repro.pid, signal.SIGKILL)
        repro.wait()
        killed.set()
    (kept,) = new(store, before)
    lines = kept.read_bytes().count(b"\n")
    assert lines < ASKED
    with kept.open("ab") as file:
        file.write(b'{"key": "torn')
    first, server.reply = len(server.asked), SAYS
    said = project.run("dvc", "repro")
    assert f"{ASKED} questions, {ASKED - lines} of them asked now" in said
    # Requests of the killed process may have been on their way.
    assert ASKED - lines <= len(server.asked) - first <= ASKED - lines + 3
    assert server.at_once <= 3
    rows = [json.loads(row) for row in (fold(project, "remote") / ANSWERS).read_text().splitlines()]
    assert len(rows) == ASKED
    assert {row["answer"]: (row.get("label"), row["how"]) for row in rows} == {
        "low": ("low", "exact"),
        "It is high.": ("high", "word"),
        "middle": ("middle", "exact"),
        "low or high": (None, "several"),
        "I cannot tell.": (None, "none"),
    }
    unparsed = [row for row in rows if row["split"] == "test" and "label" not in row]
    assert project.metrics()[UNPARSED] == pytest.approx(len(unparsed) / (ASKED / 2), abs=1e-6)
    whole = {path: path.read_bytes() for path in fold(project, "remote").iterdir()}
    kept.unlink()
    project.run("dvc", "repro", "-q", "-f", "-s", "stages/speech_llm/dvc.yaml:speech_llm@remote")
    assert {path: path.read_bytes() for path in fold(project, "remote").iterdir()} == whole
    assert set(server.keys) == {f"Bearer {SECRET}"}
    assert SECRET not in said
    for path in (*(project.root / RUN).rglob("*"), *(project.root / "reports").iterdir()):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path


def new(store: Path, before: set[Path]) -> set[Path]:
    return set(store.glob(f"answers/*/{ANSWERS}")) - before


def fold(project: Project, name: str) -> Path:
    return project.root / RUN / name / "seed_0/fold_0"


def test_the_spread_over_prompts(project: Project, server: ChatServer) -> None:
    """In the commands of the page, on another port."""
    (page,) = (block.code for block in blocks_of(PAGE) if block.mark == "run by")
    commands = page.replace(LOCAL, server.address)
    assert commands != page
    of = (SAYS, by_recording(["low"]), by_recording(["?"]))

    def reply(number: int, request: dict[str, Any]) -> Reply:
        system = request["messages"][0]["content"]
        return of[0 if "ROLE" in system else 1 if "opposite" in system else 2](number, request)

    server.reply = reply
    project.params(fusion="remote")
    shell = f'heronry() {{ "{sys.executable}" -m pipeline "$@"; }}\n{commands}'
    done = subprocess.run(
        ["bash", "-euc", shell],
        cwd=project.root,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    assert yaml.safe_load((project.root / "params.yaml").read_text())["fusion"] == "remote"
    lines = (project.root / f"reports/prompts/{NAME}-tones.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [
        str(PROMPTS / f"{name}.txt") for name in ("brief", "heron", "listener")
    ]
    header = lines[0].split(",")
    scores = [dict(zip(header, line.split(","), strict=True)) for line in lines[1:]]
    assert [float(each["unparsed"]) for each in scores][::2] == [1, 0]
    assert float(scores[2]["accuracy"]) == pytest.approx(1 / 3, abs=1e-6)
    values = [float(each["accuracy"]) for each in scores]
    spread = next(line for line in said.splitlines() if line.startswith("spread, points"))
    assert f"{100 * (max(values) - min(values)):.1f}" in spread
    board = project.run("pipeline", "board", "--quick")
    for name in ("brief", "heron", "listener"):
        assert f"{NAME}-tones-prompt-{name}" in board
    runs = (f"{NAME}-tones-prompt-heron", f"{NAME}-tones-prompt-brief")
    assert "no class" in project.run("pipeline", "compare", *runs)
