"""Seeded mutations of params.yaml: in order or refused by a short message, in time."""

from __future__ import annotations

import contextlib
import copy
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.errors import HeronryError, ParamsError
from pipeline.commands.check import slot_problems
from pipeline.commands.plan import plan
from pipeline.params.file import all_problems, read_params, read_unchecked
from stages.e2e.__main__ import main as e2e
from stages.extract.__main__ import main as extract
from stages.prepare.__main__ import main as prepare
from stages.selection.__main__ import main as select
from stages.train.__main__ import main as train
from tests.support.known_params import known_raw

FILES, CHUNKS = 500, 10
SECONDS = 10.0  # for one file, also on a busy machine
CHARACTERS = 60_000  # of a message
KEPT = {
    "corpora": ("demo", "ravdess"),
    "backbones": (
        *("minilm", "minilm_mean", "whisper_tiny_en", "whisper_tiny_en_mean"),
        *("f0", "logmel", "tone", "none"),
    ),
    "asr_backbones": ("minilm_asr",),
    "models": ("spectral", "lpgnet", "gat"),
}
ODD_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, -5, 10**17, 0.0, -0.5, 1.5, 1e300, 2**31, 3.0),
    *(float("inf"), float("-inf"), float("nan"), "", "none", "heron", "x" * 5000, "\x1b[31m"),
    *([], {}, [[]], [None], [1, "a"], {"kind": "tone"}, {"kind": ["tone"]}, {"a": {"b": {}}}),
    *(["text"] * 500, {f"k{i}": i for i in range(500)}, "2026-01-01", "../../up", "all", [3, 3]),
]
ODD_KEYS = [
    *("a.b", "x;y", "-x", "..", "", "None", "1", "é", "x" * 3000, "Demo", "demo-x", "my model"),
]
ODD_TEXT = [
    *("&a [*a]", "*nowhere", "!!python/object:os.system x", "!!binary aGVs", "<<: {a: 1}"),
    *("[" * 500, "{" * 500, "- " * 500, "'", '"', '"\\ud800"', '"\\UFFFFFFFF"', "\t", "---"),
    *("%YAML 9.9", "9" * 5000, "-" + "9" * 30, "\x00", "\x85", "\ufeff", "\ufffe", "#", ": ", "| "),
    "\n".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9) if n else 1}]" for n in range(12)),
    *("1: 2", "true: x", "fusion: heron", "\n- a\n", "@", "`", "a: b: c", "0x1F", "1e999", "? [a]"),
]


def small() -> dict[str, Any]:
    """The known entries, a few of them, so that hundreds of them take seconds."""
    content = known_raw()
    kept = {s: {name: content[s][name] for name in names} for s, names in KEPT.items()}
    return content | kept | {"fusion": "spectral"}


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys or indices."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    for key in keys:
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from places(tree[key])


def edited(content: dict[str, Any], draw: random.Random) -> bytes:
    """Values, keys and whole sections exchanged, removed or added."""
    tree = copy.deepcopy(content)
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        holder, key = draw.choice(list(places(tree)))
        odd = copy.deepcopy(draw.choice(ODD_VALUES))
        what = draw.randrange(4)
        if what == 0 or isinstance(holder, list):
            holder[key] = odd
        elif what == 1:
            del holder[key]
        elif what == 2:
            holder[draw.choice(ODD_KEYS)] = holder[key] if draw.random() < 0.5 else odd
        else:
            _, other = draw.choice(list(places(tree)))
            holder[str(other)] = copy.deepcopy(holder[key])
        if not tree:
            break
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode()


def spliced(text: bytes, draw: random.Random) -> bytes:
    """Bytes flipped, cut out, doubled, or odd ones put in."""
    for _ in range(draw.choice([1, 1, 2, 8])):
        at = draw.randrange(len(text) + 1)
        to = min(at + draw.choice([1, 1, 10, 300]), len(text))
        new = draw.choice(
            [
                *(b"", bytes([draw.randrange(256)]), bytes([draw.randrange(128)])),
                *(text[at:to] * 2, draw.choice(ODD_TEXT).encode(errors="surrogatepass")),
            ]
        )
        text = text[:at] + new + text[to:]
    return text


def mutation(number: int, content: dict[str, Any], text: bytes) -> bytes:
    draw = random.Random(number)
    return spliced(text, draw) if number % 2 else edited(content, draw)


def verdict(path: Path) -> list[str]:
    """What `check` and every stage do with the file first; any other error than theirs is a bug."""
    try:
        params = read_unchecked(path)
    except ParamsError as error:
        return [str(error)]
    found = all_problems(params)
    for name in (*params.models, "nowhere"):
        try:
            entry = params.model(name)
            params.seeds_of(entry)
            params.training(entry)
            found += slot_problems(params, entry)
        except ParamsError as error:
            found.append(str(error))
    for name in params.backbones:
        try:
            params.backbone(name).settings()
        except ParamsError as error:
            found.append(str(error))
    return found


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return small()


@pytest.fixture(scope="module")
def text(content: dict[str, Any]) -> bytes:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()


def test_what_is_mutated_is_in_order(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text)
    assert all_problems(read_params(path)) == []


@pytest.mark.parametrize(
    "chunk", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in range(1, CHUNKS))]
)
def test_mutated_files_end_in_short_messages(
    tmp_path: Path, content: dict[str, Any], text: bytes, chunk: int
) -> None:
    path, refused = tmp_path / "params.yaml", 0
    for number in range(chunk * FILES // CHUNKS, (chunk + 1) * FILES // CHUNKS):
        path.write_bytes(mutation(number, content, text))
        start = time.monotonic()
        found = verdict(path)
        assert time.monotonic() - start < SECONDS, number
        assert all(len(line) < CHARACTERS for line in found), number
        assert all(line.replace("\n", "").isprintable() for line in found), number
        refused += bool(found)
    assert refused > FILES / CHUNKS / 4


@pytest.mark.slow
@pytest.mark.usefixtures("private_store")
def test_every_stage_ends_in_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: dict[str, Any], text: bytes
) -> None:
    """Nothing is prepared here, so that a stage that finds the file in order has no input."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERONRY_RAVDESS_ROOT", "nowhere")
    monkeypatch.setattr(sys, "argv", ["stage"])
    stages: list[Callable[[], object]] = [
        *(lambda: prepare("ravdess"), lambda: extract("demo", "tone")),
        *(lambda: train("demo", "spectral"), lambda: e2e("demo", "gat")),
    ]
    for number in range(FILES, FILES + 40):
        (tmp_path / "params.yaml").write_bytes(mutation(number, content, text))
        for stage in stages:
            with pytest.raises(HeronryError):
                stage()
        # One looks at names alone, the other estimates what is not here.
        for command in (select, lambda: plan(None)):
            with contextlib.suppress(HeronryError):
                command()


@pytest.mark.slow
def test_twenty_files_by_the_command(tmp_path: Path, content: dict[str, Any], text: bytes) -> None:
    """All by one process, since starting costs seconds and is no file's fault."""
    for number in range(20):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "params.yaml").write_bytes(mutation(number, content, text))
    done = subprocess.run(
        [sys.executable, "-c", COMMAND], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stdout.count("exit status") == 20
    assert 20 * CHARACTERS > len(done.stderr) > 0


COMMAND = """
import os, sys
from pipeline.__main__ import main
for number in range(20):
    os.chdir(str(number))
    sys.argv = ["pipeline", "check"]
    try:
        main()
    except SystemExit as end:
        print("exit status", end.code)
    os.chdir("..")
"""
