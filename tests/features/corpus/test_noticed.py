"""What a backbone leaves out of an utterance that it does use is listed, counted and reported."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from features.backbone.base import notices
from features.backbone.entry import backbone_entry
from features.cache.reader import CacheReader
from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance
from features.doctor.folder import check_cache
from features.extraction.extract import extract
from features.files.reasons import NOTICED, write_reasons
from pipeline.cached.run import train_model
from pipeline.report.evaluate import evaluate
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints import text_encoder
from tests.pipeline.runs.test_recognised import BOTH, params_of, project  # noqa: F401  a fixture
from tests.support.runs.fake_run import FakeRun
from tests.support.runs.pages import section_words

KNOWN = "this is utterance number"
CUT = "the 14 tokens of its text are cut to the 8 that the encoder takes"


def corpus(make_manifest: ManifestMaker) -> Manifest:
    """One text that fits, two that differ behind the limit alone, and one of unknown words."""
    texts = (
        KNOWN,
        f"{KNOWN} {KNOWN} {KNOWN}",
        f"{KNOWN} {KNOWN} this this this this",
        "Käse is Käse",
    )
    manifest = make_manifest([0.2] * len(texts))
    rows = zip(manifest, texts, strict=True)
    return dataclasses.replace(
        manifest, utterances=tuple(dataclasses.replace(u, text=t, asr=None) for u, t in rows)
    )


def test_long_and_unknown_texts_are_listed_also_where_features_are_there_already(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    manifest = corpus(make_manifest)
    folder = text_encoder.VARIANTS["bert"](tmp_path / "bert")
    entry = backbone_entry("t", {"kind": "text_encoder", "max_tokens": 8, **folder})
    told = extract(manifest, entry, tmp_path / "one", store=tmp_path / "store").noticed
    assert told == {
        "u1": CUT,
        "u2": CUT,
        "u3": "2 tokens of its text are unknown to the tokenizer",
    }
    again = extract(manifest, entry, tmp_path / "two", store=tmp_path / "store")
    assert again.computed == 0
    assert again.noticed == told == CacheReader(tmp_path / "two").noticed
    assert check_cache(tmp_path / "two").faults == []
    write_reasons(tmp_path / "two" / NOTICED, {})
    (tmp_path / "one" / NOTICED).unlink()  # as of an older release
    assert CacheReader(tmp_path / "one").noticed == CacheReader(tmp_path / "two").noticed == {}


def test_recognised_words_are_named_so_and_pooling_hides_nothing(tmp_path: Path) -> None:
    folder = text_encoder.VARIANTS["bert"](tmp_path / "bert")
    given = {"kind": "asr_text", "max_tokens": 4, "pooling": "mean", **folder}
    rows = [Utterance(i, text=t, asr=a) for i, t, a in (("a", "", KNOWN), ("b", KNOWN, None))]
    told = dict(notices(backbone_entry("t", given).build(), rows))
    assert told == {
        "a": "the 6 tokens of its recognised words are cut to the 4 that the encoder takes"
    }


def test_telling_does_not_change_what_is_prepared(tmp_path: Path) -> None:
    folder = text_encoder.VARIANTS["roberta"](tmp_path / "roberta")
    backbone = backbone_entry("t", {"kind": "text_encoder", "max_tokens": 9, **folder}).build()
    rows = [Utterance("a", text="over nine bytes"), Utterance("b", text="two")]
    before = backbone.prepare(rows).tensors["input_ids"]
    assert [id for id, _ in notices(backbone, rows)] == ["a"]
    assert torch.equal(backbone.prepare(rows).tensors["input_ids"], before)


def test_a_run_says_what_its_slots_use_in_part(
    project: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = (project / "data/c/labels/labels.jsonl").read_text().splitlines()
    rows = [json.loads(line)["id"] for line in labels]
    write_reasons(project / "cache/c/bert" / NOTICED, {rows[0]: CUT, "no label": CUT})
    write_reasons(project / "cache/c/bert_asr" / NOTICED, dict.fromkeys(rows, CUT))
    out = train_model(params_of(BOTH), "m", "c", device="cpu", workers=1)
    run = json.loads((out / "run.json").read_text())
    assert run["noticed"] == {"text": {rows[0]: CUT}}
    assert len(run["asr"]["noticed"]) == run["asr"]["recognised"]
    assert f"1 used in part by text: {CUT} (1)" in capsys.readouterr().err


@pytest.mark.usefixtures("project")
def test_frames_that_a_model_does_not_use_are_counted_with_those_of_its_backbones() -> None:
    args = {"d_model": 8, "level": "frame", "frames_max": 1}
    model = {"kind": "lpgnet", "text": "bert", "speech": "tone", "args": args}
    cut = CacheReader(Path("cache/c/bert"))
    long = {id: f"the model uses 1 of its {n} frames" for id in cut if (n := cut.length(id)) > 1}
    assert long
    first = next(iter(long))
    write_reasons(Path("cache/c/bert", NOTICED), {first: CUT})
    out = train_model(params_of(model), "m", "c", device="cpu", workers=1)
    told = json.loads((out / "run.json").read_text())["noticed"]["text"]
    assert told == long | {first: f"{CUT}; {long[first]}"}


def test_the_report_counts_them(tmp_path: Path) -> None:
    told = {f"u{n:04}": CUT.replace("14", str(14 + n)) for n in range(24)}
    fake = FakeRun(tmp_path, dropped=0).write(
        noticed={"text": told}, asr={"noticed": {"u0000": CUT}}
    )
    found = section_words("dropped", evaluate(fake.run, fake.data))
    assert "No utterance is left out: every labelled utterance has features in all slots." in found
    assert "24 utterances are used in part" in found
    assert "text the … tokens of its text are cut to the … that the encoder takes 24" in found
    assert f"asr {CUT} 1" in found
    assert "and 5 more, in run.json" in found
    plain = FakeRun(tmp_path / "plain", dropped=0).write()
    assert "in part" not in section_words("dropped", evaluate(plain.run, plain.data))
