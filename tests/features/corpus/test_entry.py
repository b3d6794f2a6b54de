"""Entries of `corpora`: what is taken, and what is refused with all of its problems."""

from __future__ import annotations

from typing import Any

import pytest

from features.corpus.entry import CorpusEntry, corpus_entry, corpus_problems
from features.errors import ParamsError


def test_entries() -> None:
    assert corpus_entry("ravdess", {}) == CorpusEntry("ravdess", kind="ravdess")
    given = {"kind": "manifest", "allow_leak": ["speaker"], "folds": 3, "file": "x.csv"}
    assert corpus_entry("my-own", given) == CorpusEntry(
        "my-own", kind="manifest", allow_leak=("speaker",), folds=3, options={"file": "x.csv"}
    )


def test_all_problems_of_an_entry_are_listed() -> None:
    given = {"kind": "manifest", "protocol": "random", "foldss": 3, "file": 5}
    given["allow_leak"] = ["age"]
    listed = "\n".join(corpus_problems("mine", given))
    for line in (
        "corpora.mine.protocol: given 'random'; expected one of 'official', 'speaker_split'",
        "corpora.mine.allow_leak: given ['age']; expected a list, each one of 'speaker'",
        "corpora.mine.foldss: given an unknown key; expected one of allow_leak, allow_rejected, ",
        "shard_characters, shard_seconds, split_seed, targets (did you mean 'folds'?)",
        "corpora.mine.file: given 5; expected text",
    ):
        assert line in listed
    with pytest.raises(ParamsError) as caught:
        corpus_entry("mine", given)
    assert str(caught.value) == listed


@pytest.mark.parametrize(
    ("name", "mapping", "message"),
    [
        ("mine", None, "corpora.mine: given None; expected a mapping"),
        ("mine", {}, "corpora.mine.kind: unknown kind 'mine'; expected one of ["),
        ("a.b", {"kind": "manifest"}, "given the name 'a.b'; expected letters"),
        ("../up", {"kind": "manifest"}, "given the name '../up'; expected letters"),
        ("ravdess", {"folds": 0}, "corpora.ravdess.folds: given 0; expected an integer from 1 to"),
        ("ravdess", {"allow_rejected": -1}, "allow_rejected: given -1; expected an integer from 0"),
        ("ravdess", {"shard_seconds": 0}, "shard_seconds: given 0; expected a number above 0,"),
        ("ravdess", {"root": "/data"}, "corpora.ravdess.root: given an unknown key"),
        ("ravdess", {"folds": True}, "corpora.ravdess.folds: given True; expected an integer"),
    ],
)
def test_wrong_entries(name: str, mapping: Any, message: str) -> None:
    (found,) = corpus_problems(name, mapping)
    assert message in found
