"""The sections on data, leaks, features and machine."""

from __future__ import annotations

from pathlib import Path

from features.backbone.entry import fingerprint
from features.files.records import write_json
from pipeline.evaluation.run_folder import RunFolder
from pipeline.report.corpus import Leaks
from pipeline.report.evaluate import evaluate
from pipeline.report.page import section
from pipeline.report.records import Report
from pipeline.report.sources import cache_hash
from tests.support.runs.fake_run import FakeRun, edit_json
from tests.support.runs.pages import section_words, words


def report_of(fake: FakeRun) -> Report:
    return evaluate(fake.run, fake.data)


def test_the_runs_own_leaks_come_before_those_of_the_card(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).write()
    run, card = RunFolder.read(fake.run), {"leaks": [], "allow_leak": ["dialogue"]}
    line = "speaker: 6 of 12 occur in more than one split (fold 0), such as Ross (train, test)"
    sentence = "sentence: 1 of 2 occur in more than one split"
    of_card = Leaks.of(run, card)
    assert (of_card.allowed, of_card.lines) == (("dialogue",), ())
    note = section("leak_warning", leaks=of_card)
    assert "None was found" in note
    assert "warning" not in note
    head = {"format": "heronry-leaks", "version": 1, "found": []}
    own = {**head, "allowed": ["speaker"], "lines": [line, sentence]}
    write_json(fake.run / "leaks.json", own)
    leaks = Leaks.of(run, card)
    red = section("leak_warning", leaks=leaks)
    assert 'class="warning"' in red
    assert line in words(red)
    assert sentence not in words(red)
    shown = words(section("data", card=card, leaks=leaks))
    assert "2 found, when training began" in shown
    assert (shown.count(line), shown.count(sentence)) == (1, 1)


def test_nothing_allowed_warns_of_nothing(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).write()
    leaks = Leaks.of(RunFolder.read(fake.run), {"leaks": ["sentence: 1 of 2"], "allow_leak": []})
    assert section("leak_warning", leaks=leaks).strip() == ""


def test_the_corpus_section_says_what_differs_from_the_published(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).write()
    card = {
        **fake.card(fake.labels()),
        "variant": "four classes",
        "label_map": {"exc": "happy", "xxx": None},
        "published": {"utterances": 5531, "by": {}, "source": "Table 1", "notes": ["a note"]},
        "differences": [f"speaker {k}: 1 of 2" for k in range(22)],
        "splits_sha256": "5e" * 32,
        "durations": {"total": 7200.0, "min": 0.5, "median": 2.0, "max": 30.0},
        "sample_rates_hz": {"16000": 3, "44100": 1},
        "hours": [{"train": 1.5, "valid": 0.25, "test": 0.25}],
        "genders": [{"train": {"female": 2, "male": 1}, "valid": {"female": 0, "male": 3}}],
        "rejected_reasons": {"the file is empty": 4},
        "tables": {"labels.csv": "7a" * 32, "texts/*.txt": "b3" * 32},
    }
    leaks = Leaks.of(RunFolder.read(fake.run), card)
    found = words(section("data", card=card, leaks=leaks))
    for part in (
        *("four classes", "exc happy", "xxx left out", "5,531 utterances, Table 1", "a note"),
        *(
            "speaker 19: 1 of 2",
            "and 2 more",
            "5e" * 32,
            "2.0 h; shortest",
            "0.50 / 2.00 / 30.00 s",
        ),
        *(
            "16000 Hz (3 files), 44100 Hz (1 file)",
            "audio 1.5 h 15.0 min 15.0 min",
            "speakers, female 2 0 0",
        ),
        "the file is empty 4",
        *(f"labels.csv {'7a' * 32}", f"texts/*.txt {'b3' * 32}"),
    ):
        assert part in found
    assert "speaker 20" not in found
    same = words(section("data", card=card | {"differences": []}, leaks=leaks))
    assert "All counts are the published ones" in same


def test_the_cache_is_named_as_in_the_work_store(tmp_path: Path) -> None:
    provenance = {"kind": "tone", "layer": [4, 8], "checkpoint": "ü/x", "version": 1}
    assert cache_hash(provenance) == fingerprint(provenance)
    assert cache_hash({**provenance, "compute_deviation": 0.1}) == fingerprint(provenance)
    report = report_of(FakeRun(tmp_path).write())
    slot = report.run.slots["text"]
    assert slot is not None
    assert cache_hash(slot["provenance"])[:12] in section_words("slots", report)


def test_machine_and_commit_are_shown_where_recorded(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).write()
    report = report_of(fake)
    assert "training again records them" in section_words("machine", report)
    facts = {"commit": "abc", "dirty": True, "cpu": "a <fast> one", "memory_gib": 8.5, "cores": 2}
    facts |= {"packages": {"torch": "2.13"}, "device": None, "odd": "kept"}
    edit_json(fake.run / "run.json", environment=facts, inputs={"speech": {"pool": 2}})
    found = section_words("machine", report)
    for part in ("git commit abc", "uncommitted changes", "a <fast> one", "8.5 GiB"):
        assert part in found
    for part in ("packages torch 2.13", "device unknown", "odd kept"):
        assert part in found
    edit_json(fake.run / "run.json", environment=facts | {"dirty": False})
    assert "uncommitted" not in section_words("machine", report)
    assert "models.blend.inputs.speech.pool 2 none" in section_words("settings", report)
    (fake.run / "model_card.md").write_text("# x", encoding="utf-8")
    assert "model_card.md in the run folder" in section_words("settings", report)
