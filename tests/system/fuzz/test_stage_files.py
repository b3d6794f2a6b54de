"""Files between the stages, damaged at random: told of as what they are, or without any effect.

Three hundred damages, each of one file of a small project, and then all that reads it. It must end
in a `HeronryError`, or with the same labels, examples, leaks, scores and predictions as before.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from features.corpus.labels_folder import read_labelled
from features.corpus.leak_gate import check_leaks, read_leaks, write_leaks
from features.corpus.manifest import Manifest
from features.corpus.split_counts import count_classes, splits_sha256
from features.corpus.utterance import Utterance
from features.errors import HeronryError
from features.extraction.trained_on import TRAINED_ON, TrainedOn
from features.files.reading import file_sha256
from features.files.reasons import NOTICED, REJECTED, SEEN, write_reasons
from features.files.records import read_json, read_rows, write_json, write_rows
from pipeline.cached.run import train_model
from pipeline.compare.sources import read_run
from pipeline.data.examples import join
from pipeline.model.checkpoint import load_model
from pipeline.report.evaluate import evaluate, write_report
from pipeline.report.metrics_json import headline, read_all
from pipeline.report.page import page
from tests.pipeline.training.test_loop import CLASSES, labels_of, project

TIMES = 300
LABELS, CACHE, RUN = Path("data/c/labels"), Path("cache/c/tone"), Path("runs/cached/c/m")
UTTERANCES = Path("data/c/utterances")
JOB = RUN / "seed_0/fold_0"
FILES = (
    *(LABELS / "card.json", LABELS / "labels.jsonl"),
    *(UTTERANCES / "corpus.json", UTTERANCES / "manifest.jsonl"),
    *(CACHE / REJECTED, CACHE / NOTICED, CACHE / SEEN, Path(TRAINED_ON)),
    *(RUN / "run.json", RUN / "leaks.json"),
    *(JOB / name for name in ("predictions.csv", "history.csv", "probes.csv", "conditions.csv")),
    JOB / "model.json",
    *(Path("reports", name) for name in ("metrics.json", "details.json", "predictions.csv")),
)
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 7, 1e308, 10**30, "", "zzz", "\ud800", "a\0b", "<b>", "=1+1"),
    *([], {}, [[]], {"a": 1}, [None], "nan", "test", "1e999", "../x"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that is trained and evaluated, with every file there may be."""
    root = tmp_path_factory.mktemp("stages")
    with pytest.MonkeyPatch.context() as patch:
        params = project(root, patch, folds=2)
        labels = labels_of(folds=2)
        splits = [label.splits for label in labels]
        card = {
            "corpus": "c",
            "classes": CLASSES,
            "folds": 2,
            "utterances": len(labels),
            "title": "Tones",
            "protocol": "official",
            "published": None,
            "allow_leak": [],
            "counts": count_classes(labels, splits, CLASSES),
            "speakers": [{"train": 6, "valid": 2, "test": 2}] * 2,
            "durations": {"total": 9.0, "min": 0.1, "median": 0.5, "max": 2.0},
            "rejected": 1,
            "rejected_reasons": {"gone": 1},
            "rejected_ids": {"gone": ["x"]},
            "warnings": ["odd"],
            "leaks": [],
            "leak_verdict": [],
            "splits_sha256": splits_sha256(labels, splits),
            "labels_sha256": file_sha256(LABELS / "labels.jsonl"),
        }
        write_json(LABELS / "card.json", card)
        utterances = tuple(Utterance(id=label.id, text=f"word {label.id}") for label in labels)
        Manifest("c", utterances).write(UTTERANCES)
        write_reasons(CACHE / REJECTED, {"x": "gone", "y": "cut, and silent"})
        write_reasons(CACHE / NOTICED, {"u1": "cut", "u2": "silent"})
        write_reasons(CACHE / SEEN, {"elsewhere": "it was trained on"})
        write_rows(Path(TRAINED_ON), [TrainedOn("d", "v1"), TrainedOn("d", "v2", "ab" * 32)])
        leaks = check_leaks(LABELS, {"speech": CACHE})
        write_leaks(train_model(params, "m", "c", device="cpu", workers=1), leaks)
        write_report(evaluate(RUN, LABELS), Path("reports"))
    return root


def outcome() -> dict[str, Any]:
    """What all readers make of the project in the current folder."""
    card, labels = read_labelled(LABELS)
    examples = join({"speech": CACHE}, labels, card["classes"], verify=False)
    leaks = check_leaks(LABELS, {"speech": CACHE})
    list(Manifest.read(UTTERANCES))
    list(read_rows(Path(TRAINED_ON), TrainedOn))
    load_model(JOB)
    report = evaluate(RUN, LABELS)
    read_leaks(RUN)
    headline(read_all(Path("reports")))
    told = read_run("reports")
    facts = ("parameters", "train_seconds")  # of run.json alone, for people
    return {
        "labels": labels,
        "classes": card["classes"],
        "kept": [label.id for label in examples.labels],
        "leaks": leaks["found"],
        "scores": {name: v for name, v in report.metrics.items() if name not in facts},
        "predictions": (told.classes, told.seeds, list(told.items), told.predictions.tolist()),
        "probabilities": told.probabilities.tolist(),
    }


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to all that is in a JSON value."""
    if not isinstance(value, dict | list):
        return [at]
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return [*([at] if at else []), *(p for key, of in inner for p in places(of, (*at, key)))]


def json_damage(rng: np.random.Generator, content: bytes) -> bytes:
    """Another value, key or type in a JSON object, or in one of a line."""
    lines = [content] if content.startswith(b"{\n") else content.splitlines(keepends=True)
    number = int(rng.integers(len(lines)))
    value = json.loads(lines[number])
    found = places(value)
    *way, last = found[int(rng.integers(len(found)))]
    holder = value
    for key in way:
        holder = holder[key]
    kind = rng.integers(4)
    if kind == 0:
        del holder[last]
    elif kind == 1 and isinstance(holder, dict):
        holder[f"{last}s"] = holder.pop(last)
    else:
        holder[last] = ODD[int(rng.integers(len(ODD)))]
    lines[number] = json.dumps(value).encode() + b"\n"
    return b"".join(lines)


def csv_damage(rng: np.random.Generator, content: bytes) -> bytes:
    """Another cell, or two that are exchanged."""
    rows = [line.split(b",") for line in content.splitlines()]
    row = rows[int(rng.integers(len(rows)))]
    one, other = (int(rng.integers(len(row))) for _ in range(2))
    if rng.random() < 0.5:
        row[one], row[other] = row[other], row[one]
    else:
        row[one] = str(ODD[int(rng.integers(len(ODD)))]).encode("utf-8", "surrogatepass")
    return b"\n".join(b",".join(row) for row in rows) + b"\n"


def byte_damage(rng: np.random.Generator, content: bytes) -> bytes:
    """A flipped byte, a cut, lines that are lost, doubled or exchanged, an alien beginning."""
    lines = content.splitlines(keepends=True)
    one, other = (int(rng.integers(len(lines))) for _ in range(2))
    at = int(rng.integers(len(content)))
    kind = int(rng.integers(8))
    if kind == 0:
        return content[:at] + bytes([int(rng.integers(256))]) + content[at + 1 :]
    if kind == 1:
        return content[:at]
    if kind == 2:
        return b"".join([*lines[:one], *lines[one + 1 :]])
    if kind == 3:
        return b"".join([*lines[:one], lines[one], *lines[one:]])
    if kind == 4:
        lines[one], lines[other] = lines[other], lines[one]
        return b"".join(lines)
    if kind == 5:
        return content.replace(b"\n", b"\r\n")
    starts = (b"\xef\xbb\xbf", b"\xff\xfe\x00", b"[" * 2000, b"\0" * 50)
    return b"" if kind == 6 else starts[one % len(starts)] + content


def damaged(seed: int) -> tuple[Path, bytes]:
    """A file, and what it holds then."""
    rng = np.random.default_rng(seed)
    path = FILES[int(rng.integers(len(FILES)))]
    own: Callable[[np.random.Generator, bytes], bytes]
    own = csv_damage if path.suffix == ".csv" else json_damage
    content = path.read_bytes()
    return path, own(rng, content) if rng.random() < 0.6 else byte_damage(rng, content)


@pytest.mark.slow
def test_damage_is_told_of_or_changes_nothing(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    expected, refused, wrong = outcome(), 0, []
    for seed in range(TIMES):
        path, content = damaged(seed)
        before = path.read_bytes()
        path.write_bytes(content)
        try:
            found = outcome()
            if path.name in ("card.json", "run.json", "leaks.json"):
                page(evaluate(RUN, LABELS))
        except HeronryError:
            refused += 1
        except Exception as error:
            wrong.append((seed, str(path), repr(error)))
        else:
            wrong += [(seed, str(path), "another result")] if found != expected else []
        finally:
            path.write_bytes(before)
    assert wrong == []
    assert refused > TIMES // 2
    assert outcome() == expected


@pytest.mark.slow
def test_the_commands_end_in_one_message(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty damages that are refused, by the commands themselves."""
    monkeypatch.chdir(made)
    model = {"kind": "concat", "speech": "tone", "args": {"d_model": 8}, "train": {"epochs": 1}}
    params = {"fusion": "m", "regime": "cached", "corpus": "c", "seeds": 1, "train": {}}
    params |= {"corpora": {"c": {}}, "backbones": {"tone": {}, "none": {}}, "models": {"m": model}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    evaluating = [sys.executable, "-m", "stages.evaluate", "cached", "c", "m"]
    training = [sys.executable, "-m", "stages.train", "c", "m", "--workers", "1"]
    done, seed = 0, 1000
    while done < 20:
        path, content = damaged(seed)
        seed += 1
        if path.parent not in (LABELS, RUN, JOB) or path.name == "model.json":
            continue
        before = path.read_bytes()
        path.write_bytes(content)
        try:
            outcome()
            continue  # harmless
        except HeronryError:
            command = training if path.parent == LABELS and done % 4 == 0 else evaluating
            told = subprocess.run(command, capture_output=True, text=True, check=False)
        finally:
            path.write_bytes(before)
        done += 1
        assert (told.returncode, "Traceback" in told.stderr) == (1, False), told.stderr
        assert told.stderr.startswith("error: ")
        assert path.name in told.stderr
    assert read_json(RUN / "run.json")["fusion"] == "m"
