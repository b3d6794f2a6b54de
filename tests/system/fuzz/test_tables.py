"""Five hundred seeded tables of odd cells and damaged bytes, each prepared in this process.

Whatever a table holds, `prepare` ends in bounded time, with a message if it refuses; and what it
does not refuse it uses as given, rejects, or notices.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import random
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from features.corpus.entry import corpus_entry
from features.corpus.manifest import Manifest, read_labels
from features.corpus.prepare import prepare
from features.errors import HeronryError
from features.files.reasons import read_reasons
from tests.support.corpora.hub_tables import clip
from tests.support.corpora.small_corpus import SmallCorpus
from tests.support.paths import ROOT

ALL, FAST = 500, 60  # tables, and those of the fast run
SECONDS = 60  # a first use of a library imports it, on a busy machine
LONGEST = 20_000  # characters of a message
CLIPS = 8
ENTRY = {
    "kind": "manifest",
    "protocol": "speaker_folds",
    "folds": 3,
    "allow_rejected": 99,
    "allow_leak": ["speaker", "dialogue", "recording"],
}
TEXTS = (
    "", " ", "NaN", "nan", "None", "null", "N/A", "NA", "0.0", "7.0", "1e+20", "a,b", 'say "hi"',
    "=1+1", "@x", "line\nbreak", "tab\tin", "Zo\u00eb", "Zoe\u0308", "\u05e9\u05dc", "\U0001f600",
    "Well\x85", "it\x92s", "a\x81b", "don\u00e2\u20ac\u2122t", "caf\u00c3\u00a9", "lost \ufffd",
    "\ufeffx", "a\u200bb", "a\0b", "x\x07", "\r", "very " * 300, "x" * 140_000, "True", "happy ",
)  # fmt: skip
OTHERS: tuple[Any, ...] = (
    None,
    0,
    1,
    -1,
    0.0,
    1.0,
    1.5,
    2**70,
    1e300,
    math.nan,
    math.inf,
    True,
    [],
    [1],
    {},
    {"a": 1},
)
PATHS = (
    "../x.wav", "/etc/hostname", "c0.WAV", "wav\\c0.wav", "gone.wav", ".", "wav", "", "a\0.wav",
    "link.wav", "x" * 300, "pipe", "c0.wav/", "./c0.wav", "C:\\c0.wav",
)  # fmt: skip
TIMES = (
    "1:02",
    "00:00:01.5",
    "1,5",
    "-1",
    "0.02",
    "0.05",
    "99",
    "200",
    "soon",
    "1_0",
    "50 ms",
    "inf",
)
SPLITS = ("train", "Train", "dev", "Validation", "test", "unused", "holdout", "TEST ")
WORDS = ("text", "asr", "sentence", "gender")
PLAIN = ("label", "speaker", "text", "dialogue", "gender", "sentence", "asr", "id")


@dataclass(frozen=True)
class Made:
    """A table: its file, and its rows where no byte of it was damaged."""

    file: str
    rows: list[dict[str, Any]] | None
    numbered: bool


def odd(chance: random.Random, column: str) -> Any:
    pool: tuple[Any, ...] = {
        "audio": PATHS, "start": TIMES, "stop": TIMES, "turn": TIMES, "split": SPLITS,
    }.get(column, TEXTS)  # fmt: skip
    return chance.choice(OTHERS if chance.random() < 0.2 else pool)


def rows_of(chance: random.Random) -> list[dict[str, Any]]:
    columns = {"start", "stop", "turn", "split", "dialogue", "gender", "sentence", "asr"}
    columns = {name for name in sorted(columns) if chance.random() < 0.3}
    with_audio, with_id = chance.random() < 0.6, chance.random() < 0.7
    rate = chance.choice((0.0, 0.01, 0.03, 0.1, 0.4))
    mild = chance.random() < 0.5  # odd only where nothing is refused for it
    rows = []
    for number in range(chance.randint(4, 10)):
        row: dict[str, Any] = {"label": ("happy", "sad")[number % 2], "speaker": f"s{number % 4}"}
        row |= {"text": f"words {number}"}
        row |= {"audio": f"c{number % CLIPS}.wav"} if with_audio else {}
        row |= {"id": f"u{number}"} if with_id or not with_audio else {}
        row |= dict.fromkeys(sorted(columns))
        for name in row:
            if chance.random() < rate and (name in WORDS or not mild):
                row[name] = odd(chance, name)
        rows.append(row)
    return rows


def as_text(chance: random.Random, rows: list[dict[str, Any]], kind: str) -> bytes:
    if kind == "jsonl":
        half = chance.random() < 0.1
        lines = [json.dumps(row, ensure_ascii=chance.random() < 0.5) for row in rows]
        if half:
            lines[0] = lines[0].replace("words", "w\\ud83d")
        return ("\n".join(lines) + "\n").encode()
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator=chance.choice(("\n", "\r\n")))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode(chance.choice(("utf-8", "utf-8-sig", "utf-8", "utf-8")))


def as_parquet(chance: random.Random, rows: list[dict[str, Any]], root: Path) -> bytes:
    inside = "audio" in rows[0] and chance.random() < 0.3
    columns: dict[str, Any] = {}
    for name in rows[0]:
        cells = [row[name] for row in rows]
        if name == "audio" and inside:
            contents = [(root / f"c{n % CLIPS}.wav").read_bytes() for n in range(len(rows))]
            files = [None if chance.random() < 0.1 else content for content in contents]
            columns[name] = pa.array([{"bytes": f, "path": p if isinstance(p, str) else None}
                                      for f, p in zip(files, cells, strict=True)])  # fmt: skip
            continue
        try:
            columns[name] = pa.array(cells)
            pq.write_table(pa.table([columns[name]], [name]), io.BytesIO())
        except (pa.ArrowException, OverflowError):  # of several types, or of none
            columns[name] = pa.array([None if c is None else str(c) for c in cells], pa.string())
            for row in rows:
                row[name] = None if row[name] is None else str(row[name])
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def damaged(chance: random.Random, content: bytes) -> bytes:
    held, place = bytearray(content), chance.randrange(max(1, len(content)))
    match chance.randrange(6):
        case 0:
            return content[:place]
        case 1:
            for _ in range(chance.randint(1, 8)):
                held[chance.randrange(len(held))] = chance.randrange(256)
        case 2:
            held[place:place] = chance.choice(
                (b"\0", b"\xff", b"\xed\xa0\xbd", b"\x92", b'"', b"\n")
            )
        case 3:
            return content.replace(b",", chance.choice((b";", b"\t")))
        case 4:
            held[place:place] = held[: place // 2]
        case _:
            return content.decode("latin-1").encode("utf-16")
    return bytes(held)


def make(seed: int, root: Path) -> Made:
    """Write the table of a seed."""
    chance = random.Random(seed)
    rows, kind = rows_of(chance), chance.choice(("csv", "jsonl", "parquet"))
    content = as_parquet(chance, rows, root) if kind == "parquet" else as_text(chance, rows, kind)
    whole = chance.random() < 0.7
    (root / f"t{seed}.{kind}").write_bytes(content if whole else damaged(chance, content))
    return Made(f"t{seed}.{kind}", rows if whole else None, kind == "parquet")


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """An end to what would hang."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallCorpus:
    corpus = SmallCorpus(tmp_path, monkeypatch)
    for number in range(CLIPS):
        (corpus.root / f"c{number}.wav").write_bytes(clip(200 + 20 * number))
    (tmp_path / "secret.wav").write_bytes(clip(900))
    (corpus.root / "link.wav").symlink_to("../secret.wav")
    (corpus.root / "wav").mkdir()
    return corpus


def check(made: Made, out: Path) -> None:
    """Every row is used as given, noticed or rejected."""
    utterances = list(Manifest.read(out / "utterances"))
    labels = {label.id: label for label in read_labels(out / "labels")}
    rejected, noticed = (
        read_reasons(out / "labels/rejected.csv"),
        read_reasons(out / "labels/noticed.csv"),
    )
    assert {u.id for u in utterances} | rejected.keys() >= labels.keys()
    assert not labels.keys() & rejected.keys()
    if made.rows is None:
        return
    assert len(labels) + len(rejected) == len(made.rows)
    for row in made.rows:
        known = [label for label in labels.values() if alike(row.get("id"), label.id)]
        for label in known:
            for name in PLAIN:
                as_given = alike(row.get(name), getattr(label, name), words=name in ("text", "asr"))
                assert as_given or label.id in noticed, (name, row.get(name), getattr(label, name))


def alike(given: Any, read: str | None, *, words: bool = False) -> bool:
    """Whether a cell was read as it is written, but for what all tables share."""
    missing = {"", "nan", "none", "null", "n/a", "na"}
    if given is None or given != given or (not words and str(given).strip().lower() in missing):
        return read is None
    text = str(given).strip()
    if words:
        return (read or "") in (text, text.removesuffix(".0"))
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    return read in (text, text.removesuffix(".0"))


@pytest.mark.parametrize("first", [0, pytest.param(FAST, marks=pytest.mark.slow)])
def test_five_hundred_tables(mine: SmallCorpus, first: int) -> None:
    done, told = 0, [0]
    for seed in range(first, ALL if first else FAST):
        made = make(seed, mine.root)
        try:
            with bounded():
                prepare(corpus_entry("mine", ENTRY | {"file": made.file}), mine.out)
        except HeronryError as error:
            told.append(len(str(error).encode()))
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}: {made}") from error
        finally:
            (mine.root / made.file).unlink()
        try:
            check(made, mine.out)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {made}") from error
        done += 1
    assert max(told) < LONGEST
    assert done > 20  # else the test would hold of a program that refuses everything


STAGE = """
import sys
from stages.prepare.__main__ import main
from stages._run import run
for name in sys.argv[1:]:
    sys.argv = ["prepare", name]
    try:
        run(main)
    except SystemExit as end:
        print(name, "ends with", end.code or 0, flush=True)
"""


@pytest.mark.slow
def test_twenty_tables_by_the_command(mine: SmallCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    params = yaml.safe_load(ROOT.joinpath("params.yaml").read_text())
    names = [f"m{seed}" for seed in range(20)]
    for seed, name in enumerate(names):
        params["corpora"][name] = ENTRY | {"file": make(seed, mine.root).file}
        monkeypatch.setenv(f"HERONRY_{name.upper()}_ROOT", str(mine.root))
    Path("params.yaml").write_text(yaml.safe_dump(params))
    command = [sys.executable, "-c", STAGE, *names]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert "Traceback" not in told.stderr
    ends = [line.split()[-1] for line in told.stdout.splitlines() if "ends with" in line]
    assert len(ends) == 20
    assert set(ends) == {"0", "1"}
