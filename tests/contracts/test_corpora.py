"""Every kind of corpus, found by its file, held to the contract of `features.corpus.adapter`.

`tests/features/corpora/test_<kind>.py` makes the smallest release of a kind by `miniature(root)`.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from features.audio.recordings import SOUNDS
from features.corpus.adapter import Corpus
from features.corpus.entry import PACKAGE, CorpusEntry, corpus_entry
from features.corpus.sources import take_record
from features.errors import ManifestError
from features.settings.plugins import kinds
from tests.support.markdown import blocks_of

KINDS = [kind for kind in kinds(PACKAGE) if not CorpusEntry(kind, kind).generated]
_opened: list[str] | None = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str):
        _opened.append(arguments[0])


sys.addaudithook(_hear)


@pytest.fixture
def entry(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CorpusEntry:
    """The entry of the smallest release, which is below `tmp_path / "root"`."""
    options = importlib.import_module(f"tests.features.corpora.test_{kind}").miniature(
        tmp_path / "root"
    )
    monkeypatch.setenv(f"HERONRY_{kind.upper()}_ROOT", str(tmp_path / "root"))
    return corpus_entry(kind, options)


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_that_an_adapter_reads_is_in_the_record(
    entry: CorpusEntry, tmp_path: Path
) -> None:
    """Otherwise an edit of it would go unnoticed: files opened below the root, except audio."""
    global _opened
    root = tmp_path / "root"
    named = set(take_record(entry)["tables"])
    _opened = []
    try:
        assert list(entry.adapter(root).items())
        opened = [Path(path) for path in _opened if Path(path).is_relative_to(root)]
    finally:
        _opened = None
    read = {path.relative_to(root).as_posix() for path in opened}
    read = {name for name in read if not name.startswith("heronry_audio")}
    assert {name for name in read if not name.endswith(SOUNDS)} <= named
    assert bool(named) == hasattr(entry.adapter(root), "tables")


@pytest.mark.parametrize("kind", KINDS)
def test_items_are_complete_and_the_same_each_time(entry: CorpusEntry, tmp_path: Path) -> None:
    corpus: Corpus = entry.adapter(tmp_path / "root")
    items = list(corpus.items())
    assert items == list(entry.adapter(tmp_path / "root").items())
    assert len({item.id for item in items}) == len(items)
    for item in items:
        assert item.label in corpus.classes or item.fault or item.excluded
        assert item.label is None or (item.speaker and (item.audio or item.text is not None))
        assert item.audio is None or not item.audio.startswith("/")
    assert len(set(corpus.classes)) == len(corpus.classes)
    assert all(dataclasses.asdict(corpus.source).values())


def test_the_corpus_of_the_guide_is_one(tmp_path: Path) -> None:
    """docs/adding/corpus.md shows a complete adapter."""
    (code,) = (b.code for b in blocks_of("docs/adding/corpus.md") if b.language == "python")
    module: dict[str, Any] = {"__name__": "studio"}
    exec(compile(code, "studio.py", "exec", dont_inherit=True), module)
    with pytest.raises(ManifestError, match=r"no folder clips but \[\]; .*root of Studio"):
        list(module["build"](tmp_path).items())
    (tmp_path / "clips").mkdir()
    for name in ("a_sad_1.wav", "a_other_1.wav", "b_x_1.flac", "b_angry_1.txt"):
        (tmp_path / "clips" / name).touch()
    found = {item.id: item for item in module["build"](tmp_path).items()}
    assert list(found) == ["clips/a_other_1.wav", "a_sad_1", "clips/b_x_1.flac"]
    assert (found["a_sad_1"].label, found["a_sad_1"].audio) == ("sad", "clips/a_sad_1.wav")
    assert found["clips/a_other_1.wav"].excluded
    assert found["clips/b_x_1.flac"].fault
