"""The work store's index of contents: what it finds, and that no state of its file matters."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.cache import rows as row_module
from features.cache.shard import Row, SpooledRow, read_shard
from features.cache.writer import CacheWriter
from features.extraction.contents import NAME, ContentIndex
from features.extraction.store import WorkStore
from features.files.writing import replacing
from features.stream import StreamSpec

WRITER = CacheWriter(spec=StreamSpec(2), provenance={"kind": "test"}, dtype="float16")


def content(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def frames_of(text: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    length = 1 + len(text) % 3
    return np.full((length, 2), int(content(text)[:3], 16), np.float16)


def write(folder: Path, name: str, texts: Sequence[str]) -> Path:
    path = folder / f"{name}.h5"
    rows = [Row(text, content(text), frames_of(text), 0.25) for text in texts]
    WRITER.write(path, rows)
    return path


def found(index: ContentIndex, texts: Sequence[str], **without: set[str]) -> set[str]:
    """Texts whose rows are found, after comparing the rows."""
    rows = {row.content: row for row in index.rows([content(text) for text in texts], **without)}
    for text in texts:
        if content(text) in rows:
            row = rows[content(text)]
            held = row.frames.array if isinstance(row, SpooledRow) else row.frames
            np.testing.assert_array_equal(held, frames_of(text))
            assert row.rounding == 0.25
    return {text for text in texts if content(text) in rows}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "one", ["a", "bb", "ccc"])
    write(tmp_path, "two", ["dd", "a"])
    return tmp_path


ALL = ["a", "bb", "ccc", "dd"]


def test_what_is_there_is_found_in_no_order(folder: Path) -> None:
    index = ContentIndex(folder)
    assert found(index, ["dd", "x", "a"]) == {"dd", "a"}
    assert index.held([content("x"), content("bb")]) == {content("bb")}
    assert found(index, ALL, without={"one"}) == {"dd", "a"}
    assert found(index, [], without={"one"}) == set()


def test_an_index_of_all_shards_is_enough(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ContentIndex(folder)

    def read(path: Path) -> None:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr("features.extraction.contents.read_shard", read)
    assert found(ContentIndex(folder), ALL) == set(ALL)


def _cut(whole: bytearray) -> None:
    del whole[-5:]


def _flip(whole: bytearray) -> None:
    whole[-9] ^= 1


def _other_form(whole: bytearray) -> None:
    whole[14] += 1


@pytest.mark.parametrize("edit", [_cut, _flip, _other_form, bytearray.clear, None])
def test_a_bad_index_is_made_again(folder: Path, edit: Callable[[bytearray], None] | None) -> None:
    ContentIndex(folder)
    path = folder / NAME
    good = path.read_bytes()
    if edit is None:
        path.unlink()
    else:
        whole = bytearray(good)
        edit(whole)
        path.write_bytes(whole)
    assert found(ContentIndex(folder), ALL) == set(ALL)
    assert path.read_bytes() == good


def test_shards_that_go_come_or_change(folder: Path) -> None:
    ContentIndex(folder)
    (folder / "one.h5").unlink()
    assert found(ContentIndex(folder), ALL) == {"dd", "a"}
    write(folder, "three", ["bb"])
    write(folder, "two", ["ccc"])  # in place of the old one
    assert found(ContentIndex(folder), ALL) == {"bb", "ccc"}
    for path in folder.glob("*.h5"):
        path.unlink()
    assert found(ContentIndex(folder), ALL) == set()
    assert not (folder / NAME).exists()


def test_shards_that_change_while_an_index_is_open(folder: Path) -> None:
    index = ContentIndex(folder)
    (folder / "one.h5").unlink()
    write(folder, "two", ["dd"])
    assert found(index, ALL) == set()
    index.add(folder / "two.h5")
    assert found(index, ALL) == {"dd"}


@pytest.mark.parametrize("dataset", ["frames", "contents", "crc32", "offsets", "rounding"])
def test_no_row_is_taken_that_is_damaged_behind_the_index(folder: Path, dataset: str) -> None:
    """Not even where the damage leaves size and time of the file as they were."""
    ContentIndex(folder)
    path = folder / "one.h5"
    status = path.stat()
    whole = bytearray(path.read_bytes())
    place = read_shard(path).places[dataset]
    whole[place] ^= 1  # of the first row
    path.chmod(0o644)
    path.write_bytes(whole)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    index = ContentIndex(folder)
    assert found(index, ALL, without={"two"}) == {"bb", "ccc"}
    assert found(index, ALL) == set(ALL)  # `a` from the other shard


def test_hashes_that_begin_alike(tmp_path: Path) -> None:
    one, other = content("a"), content("a")[:16] + content("b")[16:]
    for name, held in (("one", one), ("two", other)):
        WRITER.write(tmp_path / f"{name}.h5", [Row(name, held, frames_of(name))])
    index = ContentIndex(tmp_path)
    for name, held in (("one", one), ("two", other)):
        (row,) = index.rows([held])
        assert isinstance(row, Row)
        np.testing.assert_array_equal(row.frames, frames_of(name))
    assert not list(index.rows([one[:-1] + ("0" if one[-1] != "0" else "1")]))


def test_large_rows_stay_in_their_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_module, "HELD_BYTES", 4)
    index = ContentIndex(folder)
    assert found(index, ALL) == set(ALL)
    kinds = {row.content: type(row) for row in index.rows([content("a"), content("ccc")])}
    assert kinds == {content("a"): SpooledRow, content("ccc"): Row}
    (row,) = index.rows([content("a")], without={"two"})
    WRITER.write(folder / "copy.h5", [dataclasses.replace(row, id="a")])
    np.testing.assert_array_equal(read_shard(folder / "copy.h5").frames, frames_of("a"))


def test_a_store_that_cannot_be_written_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("features.extraction.contents.replacing", refuse)
    assert found(ContentIndex(folder), ALL) == set(ALL)
    assert not (folder / NAME).exists()


def test_a_writer_that_is_killed_leaves_the_old_index(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Path) -> None:
        raise KeyboardInterrupt

    ContentIndex(folder)
    before = (folder / NAME).read_bytes()
    write(folder, "three", ["new"])
    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        ContentIndex(folder)
    monkeypatch.undo()
    assert (folder / NAME).read_bytes() == before
    assert found(ContentIndex(folder), [*ALL, "new"]) == {*ALL, "new"}


def test_of_writers_at_once_none_loses_a_shard(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process saves its own index between this one's reading and saving."""

    def after_another(path: Path) -> object:
        monkeypatch.undo()
        write(folder, "late", ["late"])
        ContentIndex(folder)
        return replacing(path)

    monkeypatch.setattr("features.extraction.contents.replacing", after_another)
    index = ContentIndex(folder)  # saves last, without `late`
    assert found(index, ALL) == set(ALL)
    assert found(ContentIndex(folder), [*ALL, "late"]) == {*ALL, "late"}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.lists(st.sampled_from("abcdefgh")), st.booleans()), max_size=12))
def test_it_holds_what_a_dictionary_would(shards: list[tuple[list[str], bool]]) -> None:
    """Shards that come by themselves or are added, and an index that is opened anew or not."""
    with tempfile.TemporaryDirectory() as made:
        folder, expected = Path(made), set()
        index = ContentIndex(folder)
        for number, (texts, anew) in enumerate(shards):
            path = write(folder, f"{number}", list(dict.fromkeys(texts)))
            expected |= set(texts)
            if anew:
                index = ContentIndex(folder)
            else:
                index.add(path)
            assert found(index, "abcdefgh") == expected


def test_damage_in_one_shard_of_the_store_costs_no_other(folder: Path) -> None:
    store = WorkStore(folder.parent, folder.name)
    path = write(folder, "three", ["e"])
    path.chmod(0o644)
    path.write_bytes(b"no shard")
    assert {row.content for row in store.rows([content(t) for t in [*ALL, "e"]])} == {
        content(text) for text in ALL
    }
    assert not store.has("three")
    assert not path.exists()
