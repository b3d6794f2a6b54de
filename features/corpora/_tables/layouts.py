"""Find the tables and clips of a corpus below its root, in the layouts of people and hubs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from features.corpora._tables.parquet import Shard
from features.corpora._tables.rows import check_relative, split_of
from features.corpora._tables.text import TextTable
from features.corpus.adapter import Source
from features.errors import ManifestError
from features.files.records import read_json
from features.files.root_paths import held

METADATA = ("metadata.csv", "metadata.jsonl")
_EXPECTED = (
    "expected a CSV, .jsonl or .parquet file with a row for each utterance, a folder or pattern "
    "(data/train-*.parquet) of such .parquet files, a dataset written by `save_to_disk`, or an "
    "audiofolder with metadata.csv or metadata.jsonl: name it by `file`, or correct the root"
)


def find_tables(root: Path, file: str) -> list[TextTable | Shard]:
    """Find the tables that `file` names, in the order of their paths.

    Args:
        root: Folder of the corpus.
        file: A file, a folder or a pattern below it.

    Raises:
        ManifestError: If there are none.
    """
    check_relative(file)
    path = root / file
    tables: list[TextTable | Shard]
    if path.is_file():
        tables = [_table(root, path)]
        # A single table: its rows need no file name in messages, nor a split from that name.
        alone = isinstance(tables[0], TextTable) and tables[0].folder is None
        return [TextTable(path)] if alone else tables
    if path.is_dir():
        tables = [*_saved(root, path)]
        described = sorted(each for name in METADATA for each in _visible(path, name))
        tables = tables or [_table(root, each) for each in described]
        tables = tables or [*shards_below(root, path)]
    else:
        found = _matching(root, file) if any(sign in file for sign in "*?[") else ()
        tables = [_table(root, path) for path in sorted(found) if path.is_file()]
    if tables:
        return tables
    if path.is_dir():
        raise ManifestError(
            f"there is no table in the folder {path}, which holds {held(path)}; {_EXPECTED}"
        )
    raise ManifestError(
        f"there is no table {file!r} in {root}, which holds {held(root, file)}; {_EXPECTED}"
    )


def _matching(root: Path, pattern: str) -> Iterator[Path]:
    """Paths that match a pattern, without hidden ones such as the `._` files of macOS."""
    try:
        found = list(root.glob(pattern))
    except ValueError as error:
        raise ManifestError(f"file: the pattern {pattern!r} is none ({error})") from error
    for path in found:
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if not hidden or any(part.startswith(".") for part in PurePosixPath(pattern).parts):
            yield path


def clips_in(folder: Path, suffixes: Sequence[str] = (".flac", ".wav")) -> list[Path]:
    """Audio files of a folder, in the order of their names."""
    return sorted(
        path
        for path in folder.iterdir()
        # macOS leaves a `._` file beside each file that it copies.
        if path.suffix.lower() in suffixes and not path.name.startswith("._")
    )


def wrong_root(root: Path, lacks: str, *wanted: str, corpus: str, source: Source) -> ManifestError:
    """Error for a folder that is not the root of a published corpus.

    Args:
        root: The folder.
        lacks: Missing part, such as `no folder wav`.
        wanted: Names of which one should be there, to suggest similar ones.
        corpus: Name of the corpus.
        source: Description of the corpus; the message says how to obtain it.
    """
    return ManifestError(
        f"{root} holds {lacks} but {held(root, *wanted)}; expected the root of {corpus}: "
        f"{source.obtain}"
    )


def shards_below(root: Path, folder: Path) -> list[Shard]:
    """The Parquet files in a folder and in those within it, in the order of their paths."""
    return [_shard(root, path) for path in _visible(folder, "*.parquet")]


def _table(root: Path, path: Path) -> TextTable | Shard:
    name = _name(root, path)
    if path.suffix in (".parquet", ".arrow"):
        return _shard(root, path)
    if path.name in METADATA:
        folder = _name(root, path.parent)
        return TextTable(path, name=name, folder=folder, split=split_of(folder))
    return TextTable(path, name=name, split=split_of(name))


def _shard(root: Path, path: Path) -> Shard:
    name = _name(root, path)
    return Shard(path, name=name, split=split_of(name))


def _saved(root: Path, folder: Path) -> Iterator[Shard]:
    """Tables that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote into a folder."""
    listing = folder / "dataset_dict.json"
    if listing.is_file():
        for split in _list(read_json(listing), "splits", listing):
            check_relative(str(split))
            yield from _saved(root, folder / str(split))
        return
    state = folder / "state.json"
    if not state.is_file():
        return
    content = read_json(state)
    if content.get("_indices_data_files"):
        raise ManifestError(
            f"{state} selects rows of its table, as old versions of `datasets` wrote it; expected "
            "the rows themselves: load it and call save_to_disk again"
        )
    info = folder / "dataset_info.json"
    split = split_of(str(content.get("_split") or "")) or split_of(_name(root, folder))
    for entry in _list(content, "_data_files", state):
        file = str(entry.get("filename") if isinstance(entry, dict) else entry)
        check_relative(file)
        path = folder / file
        yield Shard(path, _name(root, path), split, info if info.is_file() else None)


def _list(content: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    value = content.get(key) or []
    if not isinstance(value, list):
        raise ManifestError(f"{path}: {key} is {value!r}; expected a list, as `datasets` writes it")
    return value


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _visible(folder: Path, pattern: str) -> list[Path]:
    """Files below a folder by pattern, without hidden ones such as those of a download cache."""
    return [
        path
        for path in sorted(folder.rglob(pattern))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
