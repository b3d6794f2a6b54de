"""Bad audio among good: the good is in the shards, the bad in rejected.csv, and the run goes on.

Then what training makes of it: an utterance that one slot lacks is left out for all, and the
report says how many and why.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from features.backbone.entry import BackboneEntry
from features.cache.reader import CacheReader
from features.cache.shard import shard_name
from features.cache.writer import CacheWriter
from features.corpus.entry import corpus_entry
from features.corpus.manifest import Label, Manifest, read_labels
from features.corpus.prepare import prepare
from features.corpus.utterance import Utterance
from features.errors import ManifestError
from features.extraction.extract import extract
from features.files.reading import file_sha256
from features.files.reasons import REJECTED, write_reasons
from features.files.records import write_json, write_rows
from features.stream import StreamSpec
from pipeline.cached.run import train_model
from pipeline.data import layer_views
from pipeline.data.examples import join
from pipeline.params.file import Params
from pipeline.report.evaluate import evaluate
from pipeline.report.page import page
from stages._run import run
from stages.extract.__main__ import main as extract_stage
from tests.features.audio.test_formats import cut, encoded, flipped
from tests.support.paths import contents_of

TONE = BackboneEntry("tone", "tone")
FRAMES = 25  # of half a second
MONO = np.sin(np.arange(8_000) / 9)


def wav(samples: NDArray[np.float64], subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype=subtype)
    return file.getvalue()


def with_sample(value: float) -> bytes:
    samples = MONO.copy()
    samples[4_000] = value
    return wav(samples, "FLOAT")


GOOD: dict[str, Callable[[], bytes]] = {
    "clipped": lambda: wav(np.clip(5 * MONO, -1, 1)),
    "silent": lambda: wav(np.zeros(8_000)),
    "stereo": lambda: encoded("WAV", channels=2),
    "8 kHz": lambda: encoded("WAV", rate_hz=8_000),
    "44.1 kHz": lambda: encoded("WAV", rate_hz=44_100),
    "48 kHz": lambda: encoded("WAV", rate_hz=48_000),
    "24 bits": lambda: encoded("WAV", "PCM_24"),
    "floats": lambda: encoded("WAV", "FLOAT"),
    "FLAC": lambda: encoded("FLAC"),
    "OGG": lambda: encoded("OGG"),
    "MP3": lambda: encoded("MP3"),
}
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "too short": (lambda: wav(MONO[:319]), "has 319 samples at 16 kHz; expected at least 320"),
    "no bytes": (lambda: b"", "the file is empty"),
    "no samples": (lambda: wav(MONO[:0]), "the audio holds no samples"),
    "not finite": (lambda: with_sample(np.nan), "samples that are not finite"),
    "infinite": (lambda: with_sample(np.inf), "samples that are not finite"),
    "WAV cut": (lambda: cut(encoded("WAV")), "ends after 0.299 s of 0.500 s: it is truncated"),
    "FLAC cut": (lambda: cut(encoded("FLAC", seconds=2)), "cannot be decoded"),
    "OGG cut": (lambda: cut(encoded("OGG"), 0.98), "within an Ogg page: it is truncated"),
    "MP3 cut": (lambda: cut(encoded("MP3")), "of 0.500 s: it is truncated"),
    "FLAC damaged": (lambda: flipped(encoded("FLAC")), "cannot be decoded"),
    "OGG damaged": (lambda: flipped(encoded("OGG")), "it is damaged"),
    "no audio": (lambda: b"<html>404</html>" * 99, "the file is a web page, not audio"),
    "noise": (lambda: np.random.default_rng(0).bytes(9_999), "cannot be decoded"),
    "pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
}
# How much of it a backbone needs is its own affair.
SEEN_BY_PREPARE = sorted(BAD.keys() - {"too short"})


def write_clips(root: Path, clips: dict[str, bytes]) -> Manifest:
    """Files named after what they are, good and bad in turn, and their manifest."""
    root.mkdir(parents=True)
    rows = []
    for name, content in clips.items():
        path = root / name
        path.write_bytes(content)
        sha256 = file_sha256(path)
        rows.append(Utterance(name, name, sha256, seconds=0.5, text=f"this is {name}"))
    return Manifest("mixed", tuple(rows), shard_seconds=1.0)


def mixed(*bad: str) -> dict[str, bytes]:
    """The good clips, each followed by up to two of the bad ones."""
    rest = {name: BAD[name][0]() for name in bad}
    clips: dict[str, bytes] = {}
    for name, make in GOOD.items():
        clips[name] = make()
        for other in list(rest)[:2]:
            clips[other] = rest.pop(other)
    return clips


def check_cache(folder: Path, bad: list[str]) -> None:
    reader = CacheReader(folder, verify=True)
    assert list(reader) == list(GOOD)
    assert {reader.length(id) for id in reader} == {FRAMES}
    assert list(reader.rejected) == bad
    for name, reason in reader.rejected.items():
        assert re.search(re.escape(BAD[name][1]), reason), (name, reason)


@pytest.mark.parametrize("bad", BAD)
def test_each_kind_of_damage_is_rejected_alone(tmp_path: Path, bad: str) -> None:
    manifest = write_clips(tmp_path / "audio", mixed(bad)).located(tmp_path / "audio")
    done = extract(manifest, TONE, tmp_path / "out", store=tmp_path / "store")
    assert list(done.rejected) == [bad]
    check_cache(tmp_path / "out", [bad])


@pytest.fixture
def mixed_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose corpus holds every kind of damage and was prepared before it happened."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERONRY_MIXED_ROOT", str(tmp_path / "audio"))
    write_clips(tmp_path / "audio", mixed(*BAD)).write(tmp_path / "data/mixed/utterances")
    (tmp_path / "params.yaml").write_text(
        "fusion: m\nregime: cached\ncorpus: mixed\nseeds: null\ntrain: {epochs: 2}\n"
        "corpora: {mixed: {kind: manifest}}\nbackbones: {tone: {kind: tone}, none: {kind: none}}\n"
        "models: {m: {kind: concat, text: none, speech: tone, seeds: 1, args: {d_model: 8}}}\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    "words", [("--batch-seconds", "nan"), ("--batch-seconds", "-1"), ("--workers", "-1")]
)
def test_numbers_out_of_range_name_their_option(
    mixed_corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, str],
) -> None:
    assert stage(monkeypatch, *words) != 0
    assert words[0] in capsys.readouterr().err
    assert not (mixed_corpus / "cache").exists()


def stage(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["stages.extract", "mixed", "tone", *arguments])
    with pytest.raises(SystemExit) as caught:
        run(extract_stage)
    return caught.value.code


def test_the_stage_lists_rejects_and_strict_fails_after_all_is_done(
    mixed_corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = mixed_corpus / "cache/mixed/tone"
    assert stage(monkeypatch) in (0, None)
    printed = capsys.readouterr()
    assert f"{len(BAD)} rejected" in printed.out
    assert f"rejected not finite: the audio holds {BAD['not finite'][1]}" in printed.err
    check_cache(out, list(BAD))
    before = contents_of(out)
    for _ in range(2):  # from the work store, and from nothing
        assert stage(monkeypatch, "--strict") == 1
        printed = capsys.readouterr()
        assert f"{len(BAD)} utterances were rejected and --strict was given" in printed.err
        assert "rejected.csv" in printed.err
        assert all(f"rejected {name}: " in printed.err for name in BAD)
        assert contents_of(out) == before
        monkeypatch.setenv("HERONRY_STORE", str(mixed_corpus / "another store"))


def test_one_reason_for_most_is_a_warning(
    mixed_corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = mixed_corpus / "data/mixed/utterances"
    manifest = Manifest.read(folder)
    given = list(manifest)
    rows = [replace(u, audio=None) if u.id != "clipped" else u for u in given]
    replace(manifest, utterances=tuple(rows)).write(folder)
    assert stage(monkeypatch) in (0, None)
    most = f"{len(rows) - 1} of {len(rows)} utterances were rejected for one reason: has no audio"
    assert f"warning: {most}" in capsys.readouterr().err
    bad = [u for u in given if u.id in BAD]
    replace(manifest, utterances=(*(u for u in rows if u.audio), *bad)).write(folder)
    assert stage(monkeypatch) in (0, None)
    printed = capsys.readouterr().err
    assert f"none of the {len(bad)} utterances that were tried now could be used" in printed
    replace(manifest, utterances=tuple(bad)).write(folder)
    assert stage(monkeypatch) == 1
    printed = capsys.readouterr().err
    assert f"error: cache/mixed/tone: all {len(bad)} utterances were rejected" in printed
    assert not (mixed_corpus / "cache/mixed/tone").exists()


def test_prepare_lists_what_decoding_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERONRY_MIXED_ROOT", str(tmp_path / "audio"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "memory"))
    clips = mixed(*SEEN_BY_PREPARE)
    write_clips(tmp_path / "audio", clips)
    splits = ["train"] * 4 + ["valid"] + ["test"]
    rows = [
        [name, name, ("sad", "happy")[i % 2], f"s{i}", splits[i % 6]]
        for i, name in enumerate(clips)
    ]
    with (tmp_path / "audio/manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "audio", "label", "speaker", "split"], *rows])
    with pytest.raises(ManifestError, match=f"{len(SEEN_BY_PREPARE)} of {len(clips)} utterances"):
        prepare(corpus_entry("mixed", {"kind": "manifest"}), tmp_path / "data")
    with (tmp_path / "data/labels/rejected.csv").open(newline="") as file:
        rejected = {row["id"]: row["reason"] for row in csv.DictReader(file)}
    assert sorted(rejected) == SEEN_BY_PREPARE
    for name, reason in rejected.items():
        assert re.search(f"^{name}: .*{re.escape(BAD[name][1])}", reason), (name, reason)
    assert [label.id for label in read_labels(tmp_path / "data/labels")] == list(GOOD)


NO_TEXT = ("stereo", "not finite")  # what the other slot lacks; that one is lacking in both
CLASSES = ["sad", "happy"]
LEFT_OUT = sorted({*BAD, *NO_TEXT})


@pytest.fixture
def two_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A project with `tone` of the mixed corpus in one slot and made-up words in the other."""
    monkeypatch.chdir(tmp_path)
    located = write_clips(tmp_path / "audio", mixed(*BAD)).located(tmp_path / "audio")
    extract(located, TONE, tmp_path / "cache/mixed/tone", store=tmp_path / "store")
    ids = [utterance.id for utterance in located]
    writer = CacheWriter(spec=StreamSpec(3), provenance={"kind": "words"}, dtype="float32")
    rows = [writer.round(id, "c", np.ones((2, 3), np.float32)) for id in ids if id not in NO_TEXT]
    writer.write(tmp_path / "cache/mixed/words" / shard_name(0), rows)
    write_reasons(tmp_path / "cache/mixed/words" / REJECTED, dict.fromkeys(NO_TEXT, "no words"))
    order = [*GOOD, *BAD]
    labels = [
        Label(
            id=id,
            label=CLASSES[order.index(id) // 3 % 2],
            speaker=f"s{order.index(id) % 6}",
            splits=(("train", "valid", "test")[order.index(id) % 3],),
        )
        for id in ids
    ]
    folder = tmp_path / "data/mixed/labels"
    folder.mkdir(parents=True)
    write_rows(folder / "labels.jsonl", labels)
    write_json(folder / "card.json", {"classes": CLASSES, "folds": 1})
    model = {"kind": "concat", "text": "words", "speech": "tone", "args": {"d_model": 8}}
    entries: dict[str, dict[str, str]] = {"tone": {}, "words": {"kind": "tone"}, "none": {}}
    once = {"epochs": 1}
    return Params("m", "cached", "mixed", 2, once, {"mixed": {}}, entries, {"m": model})


def test_training_reports_utterances_left_out_of_all_slots(
    two_slots: Params, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = train_model(two_slots, "m", "mixed", device="cpu", workers=1)
    printed = capsys.readouterr().err
    total = len(GOOD) + len(BAD)
    assert f"train m on mixed: {len(LEFT_OUT)} of {total} utterances are left out, alike" in printed
    assert "\n  speech: the audio holds samples that are not finite (2)\n" in printed
    assert "\n  text: no words (2)\n" in printed
    run_json = json.loads((out / "run.json").read_text())
    assert sorted(run_json["dropped"]) == LEFT_OUT
    assert run_json["dropped"]["stereo"] == "text: no words"
    assert run_json["dropped"]["not finite"] == (
        "text: no words; speech: the audio holds samples that are not finite"
    )
    assert run_json["utterances"] == total - len(LEFT_OUT)
    (odd,) = run_json["warnings"]
    assert odd.startswith("models.m.text: backbone 'words' reads audio, and the slot text is for")
    assert f"  warning: {odd}\n" in printed

    labels = read_labels(tmp_path / "data/mixed/labels")
    scored = {x.id for x in labels if x.splits != ("train",)} - set(LEFT_OUT)
    for seed in range(2):
        with (out / f"seed_{seed}/fold_0/predictions.csv").open(newline="") as file:
            assert {row["id"] for row in csv.DictReader(file)} == scored
    report = evaluate(out, tmp_path / "data/mixed/labels")
    tested = [x.id for x in labels if x.splits == ("test",)]
    assert report.metrics["rejected"] == len(LEFT_OUT)
    assert report.metrics["rows"] == len([id for id in tested if id not in LEFT_OUT])
    assert report.left_out == len([id for id in tested if id in LEFT_OUT]) > 0
    shown = page(report)
    assert f"({report.left_out} left out)" in shown
    assert "models.m.text: backbone" in shown
    assert f"{len(LEFT_OUT)} of {total} utterances have no features in some slot" in shown
    assert '<th scope="row">text</th><td>no words</td><td>2</td>' in shown


def test_both_slots_of_a_batch_hold_the_same_utterances(two_slots: Params, tmp_path: Path) -> None:
    assert two_slots.corpus == "mixed"
    folders = {"text": tmp_path / "cache/mixed/words", "speech": tmp_path / "cache/mixed/tone"}
    labels = read_labels(tmp_path / "data/mixed/labels")
    examples = join(folders, labels, CLASSES)
    assert sorted(examples.dropped) == LEFT_OUT
    batch = examples.batch(examples.labels)
    assert batch.ids == tuple(label.id for label in labels if label.id not in LEFT_OUT)
    lengths = {slot: stream.mask.sum(1).tolist() for slot, stream in batch.streams.items()}
    assert lengths == {"text": [2] * len(batch.ids), "speech": [FRAMES] * len(batch.ids)}


def test_caches_are_opened_and_verified_once_and_not_by_each_job(
    two_slots: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[bool] = []

    class Counting(CacheReader):
        def __init__(self, folder: Path, *, verify: bool = False) -> None:
            verified.append(verify)
            super().__init__(folder, verify=verify)

    monkeypatch.setattr(layer_views, "CacheReader", Counting)
    train_model(two_slots, "m", "mixed", device="cpu", workers=1)
    assert verified == [True] * 2  # two slots, whose rows both jobs share
