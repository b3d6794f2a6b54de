"""Recognised words beside the reference: read from a table, encoded in its place, and checked."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features.backbone.base import content_of, padded_seconds
from features.backbone.entry import backbone_entry
from features.backbones.asr_text import AsrText
from features.backbones.text_encoder import TextEncoder
from features.cache.reader import CacheReader
from features.corpora.manifest import ManifestCorpus
from features.corpus.adapter import Item
from features.corpus.entry import corpus_entry
from features.corpus.manifest import Manifest, read_labels
from features.corpus.prepare import prepare
from features.corpus.utterance import Utterance
from features.doctor.folder import check_against, check_cache, reads_of
from features.errors import UtteranceError
from features.extraction.extract import extract
from features.extraction.plan import plan_shards
from features.files.reasons import NOTICED, REJECTED, read_reasons
from tests.contracts.checkpoints import text_encoder

WORDS = ["this is", "number number is", "utterance"]
SAID = (
    Utterance("a", text=WORDS[0], asr=WORDS[1]),
    Utterance("b", text=WORDS[1], asr=WORDS[2]),
    Utterance("c", text=WORDS[2]),
)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return text_encoder.write(tmp_path_factory.mktemp("bert"), **text_encoder.SIZES)


def test_recognised_words_are_encoded_like_text(options: dict[str, Any]) -> None:
    ours, theirs = AsrText(**options), TextEncoder(**options)
    assert ours.provenance() == theirs.provenance()
    assert ours.spec == theirs.spec
    referred = [Utterance(u.id, text=u.asr) for u in SAID[:2]]
    with torch.inference_mode():
        found, expected = ours(ours.prepare(SAID[:2])), theirs(theirs.prepare(referred))
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.mask, expected.mask)
    with pytest.raises(UtteranceError, match="has no asr"):
        ours.prepare(SAID)


def test_an_empty_text_is_the_special_tokens(options: dict[str, Any], tmp_path: Path) -> None:
    """It is no missing one: the utterance stays, alone and beside others."""
    rows = (Utterance("e", text="", asr=""), *SAID)
    for kind, count in (("text_encoder", 4), ("asr_text", 3)):
        entry = backbone_entry("x", {"kind": kind, **options})
        out = tmp_path / kind
        extract(Manifest("c", rows), entry, out, store=tmp_path / "store")
        reader = CacheReader(out)
        assert len(reader) == count
        encoder = TextEncoder(**options)
        tokens = encoder.tokenizer
        ids = torch.tensor([[tokens.cls_token_id, tokens.sep_token_id]])
        with torch.inference_mode():
            states = encoder.network(ids).last_hidden_state[0]
        np.testing.assert_allclose(reader["e"], states.numpy(), atol=2e-3)  # stored in float16
        assert padded_seconds(encoder, rows[0]) == 0.0
        facts = check_cache(out)
        assert [*facts.faults, *check_against(facts, Manifest("c", rows))] == []


def test_shards_are_divided_and_identified_by_recognised_words() -> None:
    manifest = Manifest("c", SAID, shard_characters=len(WORDS[1]))
    plan = list(plan_shards(manifest, "asr", None))
    assert [[u.id for u in shard.utterances] for shard in plan] == [["a"], ["b"]]
    assert plan[0].contents == (content_of(SAID[1], "text"),)
    assert content_of(SAID[2], "asr") is None
    edited = dataclasses.replace(SAID[0], asr="number")
    assert content_of(edited, "text") == content_of(SAID[0], "text")
    assert content_of(edited, "asr") != content_of(SAID[0], "asr")


def test_utterances_without_recognised_words_are_rejected(
    options: dict[str, Any], tmp_path: Path
) -> None:
    manifest, store = Manifest("c", SAID), tmp_path / "store"
    entry = backbone_entry("x", {"kind": "asr_text", **options})
    done = extract(manifest, entry, tmp_path / "x", store=store)
    assert done.rejected == read_reasons(tmp_path / "x" / "rejected.csv") == {"c": "has no asr"}
    assert list(CacheReader(tmp_path / "x")) == ["a", "b"]
    again = dataclasses.replace(
        manifest, utterances=(*SAID[:2], dataclasses.replace(SAID[2], text="other"))
    )
    assert extract(again, entry, tmp_path / "x", store=store).linked == 1
    text = backbone_entry("y", {"kind": "text_encoder", **options})
    extract(manifest, text, tmp_path / "y", store=store)
    for name, reads in (("x", "asr"), ("y", "text")):
        facts = check_cache(tmp_path / name)
        assert reads_of(facts, manifest) == reads
        assert [*facts.faults, *check_against(facts, manifest)] == []


def test_words_equal_to_the_reference_are_still_recognised_words(
    options: dict[str, Any], tmp_path: Path
) -> None:
    """Equal words have equal hashes; the utterance without words has the text of another."""
    said = (*(Utterance(id, text=WORDS[0], asr=WORDS[0]) for id in "ab"), Utterance("c", text="is"))
    manifest = Manifest("c", (*said, Utterance("d", text=WORDS[0])))
    entry = backbone_entry("x", {"kind": "asr_text", **options})
    extract(manifest, entry, tmp_path / "x", store=tmp_path / "store")
    facts = check_cache(tmp_path / "x")
    assert [*facts.faults, *check_against(facts, manifest)] == []


def test_a_corpus_without_recognised_words_gives_a_sound_empty_cache(
    options: dict[str, Any], tmp_path: Path
) -> None:
    manifest = Manifest("c", tuple(dataclasses.replace(u, asr=None) for u in SAID))
    entry = backbone_entry("x", {"kind": "asr_text", **options})
    extract(manifest, entry, tmp_path / "x", store=tmp_path / "store")
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [NOTICED, REJECTED]
    facts = check_cache(tmp_path / "x")
    assert [*facts.faults, *check_against(facts, manifest)] == []


def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, **entry: Any) -> Path:
    root = tmp_path / "corpus"
    root.mkdir(exist_ok=True)
    (root / "manifest.csv").write_text(table)
    monkeypatch.setenv("HERONRY_MINE_ROOT", str(root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    given = {"kind": "manifest", "protocol": "official", **entry}
    prepare(corpus_entry("mine", given), tmp_path / "data")
    return tmp_path / "data"


HEAD = "id,text,label,speaker,split"
ROWS = ["a,one,sad,s0,train", "b,two,happy,s1,valid", "c,three,sad,s2,test"]


def test_a_column_of_recognised_words_reaches_manifest_and_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = prepared(tmp_path, monkeypatch, "\n".join([HEAD, *ROWS]))
    before = {path.name: path.read_text() for path in bare.rglob("*.jsonl")}
    heard = [f"{ROWS[0]},won", f"{ROWS[1]},", f"{ROWS[2]},tree"]
    table = "\n".join([f"{HEAD},whisper", *heard])
    data = prepared(tmp_path, monkeypatch, table, columns={"asr": "whisper"})
    expected = ["won", None, "tree"]
    assert [u.asr for u in Manifest.read(data / "utterances")] == expected
    assert [label.asr for label in read_labels(data / "labels")] == expected
    for path in (data / "utterances" / "manifest.jsonl", data / "labels" / "labels.jsonl"):
        rows, old = path.read_text().splitlines(), before[path.name].splitlines()
        assert rows[1] == old[1]  # a row without the words keeps its bytes
        added = {key: json.loads(rows[0])[key] for key in json.loads(rows[0]) if key != "asr"}
        assert added == json.loads(old[0])


def test_the_column_may_be_hidden(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("id,text,label,speaker,asr\na,one,sad,s0,won\n")
    (item,) = ManifestCorpus(tmp_path, columns={"asr": ""}).items()
    assert item == Item("a", "sad", "s0", text="one")
    (item,) = ManifestCorpus(tmp_path).items()
    assert item.asr == "won"
