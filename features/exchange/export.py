"""Exports a cache to files of other formats: `heronry cache export`.

npy:          a file for each utterance, and index.csv (id, file).
safetensors:  a file for each shard, with a tensor for each utterance under its id; index.csv (id,
              file, key); spec and provenance are in each file's metadata.
arrow:        a Parquet file for each shard with the columns id, frames, length, and label if the
              corpus is prepared; `datasets.load_dataset("parquet", data_files="OUT/*.parquet")`,
              pandas and polars read it. Frames are float32 there, which holds float16 exactly.

Values equal those of the cache, bit by bit. Each shard is verified before it is exported, and at
most one is in memory.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from features.cache.reader import CacheReader
from features.cache.shard import Shard
from features.corpus.manifest import read_labels
from features.exchange.places import INDEX
from features.files.csv_text import write_csv
from features.files.writing import check_new, follow_umask
from features.process.terminal import progress

Form = Literal["npy", "safetensors", "arrow"]
HEADER = ("id", "file", "key")
GROUP_BYTES = 64 << 20  # frames in a row group, the unit that readers of Parquet load
RESERVED = "__metadata__"  # a key that safetensors reserves
LONGEST = 100  # characters of an id in a file name


def export(corpus: str, backbone: str, form: Form, out: Path) -> int:
    """Write a cache into a folder.

    Args:
        corpus: Corpus of the cache.
        backbone: Backbone of the cache.
        form: File format.
        out: New or empty folder.

    Returns:
        Number of utterances.

    Raises:
        ParamsError: If `out` is not empty.
        CacheError: If the cache is missing or damaged; shards before the damaged one are exported.
    """
    check_new(out)
    reader = CacheReader(Path("cache", corpus, backbone), access="read")
    out.mkdir(parents=True, exist_ok=True)
    about = {"corpus": corpus, "backbone": backbone, "spec": reader.spec.to_dict()}
    about["provenance"] = dict(reader.provenance)
    labels = _labels(Path("data", corpus, "labels"))
    rows = list[tuple[str, str, str]]()
    write = _writers(out, about, labels)[form]
    steps = progress(reader.shards, total=len(reader.shards), what=f"export {out}", unit="shard")
    for shard in steps:
        shard.verify()
        rows += write(shard, reader)
    if form != "arrow":
        keyed = form == "safetensors"
        write_csv(
            out / INDEX, HEADER if keyed else HEADER[:2], (r if keyed else r[:2] for r in rows)
        )
    return len(rows)


def file_name(id: str, taken: set[str]) -> str:
    """A file name for an utterance that is legal and unique on every system.

    Args:
        id: Utterance.
        taken: Names so far in lower case, since some systems ignore case; added to.

    >>> file_name("a/b?", set())[:5]
    'a_b_-'
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", id)[:LONGEST].lstrip(".")
    if name != id or name.lower() in taken:
        name = f"{name}-{hashlib.sha256(id.encode()).hexdigest()[:12]}"
    taken.add(name.lower())
    return name


Rows = Iterator[tuple[str, str, str]]
Writer = Callable[[Shard, CacheReader], Rows]


def _writers(out: Path, about: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Writer]:
    taken = {INDEX.removesuffix(".csv")}

    def npy(shard: Shard, reader: CacheReader) -> Rows:
        for id in shard.named:
            name = f"{file_name(id, taken)}.npy"
            np.save(out / name, reader[id], allow_pickle=False)
            yield id, name, ""

    def safetensors(shard: Shard, reader: CacheReader) -> Rows:
        name = f"{shard.path.stem}.safetensors"
        # All ids that begin so are lengthened, so that they stay distinct.
        keys = {id: f"{id}-" if id.startswith(RESERVED) else id for id in shard.named}
        tensors: dict[str, NDArray[Any]] = {keys[id]: reader[id] for id in shard.named}
        save_file(tensors, out / name, {key: _text(value) for key, value in about.items()})
        follow_umask(out / name)
        yield from ((id, name, keys[id]) for id in shard.named)

    def arrow(shard: Shard, reader: CacheReader) -> Rows:
        name = f"{shard.path.stem}.parquet"
        _write_parquet(out / name, shard, reader, about, labels)
        yield from ((id, name, "") for id in shard.named)

    return {"npy": npy, "safetensors": safetensors, "arrow": arrow}


def _write_parquet(
    path: Path,
    shard: Shard,
    reader: CacheReader,
    about: Mapping[str, Any],
    labels: Mapping[str, str],
) -> None:
    import pyarrow
    from pyarrow import parquet

    bins = reader.spec.bins is not None
    value = pyarrow.int16() if bins else pyarrow.list_(pyarrow.float32(), reader.spec.dim)
    fields = [("id", pyarrow.string()), ("frames", pyarrow.list_(value))]
    fields.append(("length", pyarrow.int64()))
    if labels:
        fields.append(("label", pyarrow.string()))
    schema = pyarrow.schema(fields, metadata={"heronry": _text(about)})
    with parquet.ParquetWriter(path, schema, compression="zstd") as file:
        for ids in _groups(shard):
            frames = [reader[id] for id in ids]
            lengths = [len(row) for row in frames]
            flat = np.concatenate([row.reshape(-1) for row in frames])
            values = pyarrow.array(flat if bins else flat.astype(np.float32))
            if not bins:
                values = pyarrow.FixedSizeListArray.from_arrays(values, reader.spec.dim)
            # Lists have offsets of 32 bits, which `GROUP_BYTES` of frames do not exceed.
            offsets = pyarrow.array(np.cumsum([0, *lengths]), pyarrow.int32())
            columns = [ids, pyarrow.ListArray.from_arrays(offsets, values), lengths]
            if labels:
                columns.append([labels.get(id) for id in ids])
            file.write_table(pyarrow.table(columns, schema=schema))


def _groups(shard: Shard) -> Iterator[list[str]]:
    """Ids of consecutive utterances whose frames take about `GROUP_BYTES`."""
    width = int(np.prod(shard.stored.shape[1:], dtype=np.int64)) * shard.stored.dtype.itemsize
    group: list[str] = []
    load = 0
    for id, length in zip(shard.named, np.diff(shard.offsets).tolist(), strict=True):
        if group and load + length * width > GROUP_BYTES:
            yield group
            group, load = [], 0
        group.append(id)
        load += length * width
    if group:
        yield group


def _labels(folder: Path) -> dict[str, str]:
    if not (folder / "labels.jsonl").exists():
        return {}
    known = ((label.id, label.label) for label in read_labels(folder))
    return {id: name for id, name in known if name is not None}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
