"""Tables as Hugging Face `datasets` writes them, in miniature, without that package."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
Rows = Sequence[Mapping[str, Any]]


def clip(hz: float = 200.0, *, rate_hz: int = 16_000, kind: str = "WAV") -> bytes:
    """An audio file of a tenth of a second."""
    time = np.arange(rate_hz // 10) / rate_hz
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * hz * time), rate_hz, format=kind)
    return file.getvalue()


def audio(content: bytes | None, path: str | None = None) -> dict[str, Any]:
    """A cell of the feature `Audio`."""
    return {"bytes": content, "path": path}


def table(rows: Rows, *, names: Mapping[str, Sequence[str]] | None = None) -> Any:
    """An Arrow table; `names` are those of `ClassLabel` columns, kept in the schema."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    arrays = {}
    for column in columns:
        cells = [row.get(column) for row in rows]
        held = [cell for cell in cells if cell is not None]
        struct = held and isinstance(held[0], dict) and "bytes" in held[0]
        arrays[column] = pa.array(cells, type=AUDIO if struct else None)
    made = pa.table(arrays)
    if names is None:
        return made
    return made.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features(names)}})}
    )


def features(names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The `features` of a dataset's info."""
    return {
        column: {"names": list(labels), "_type": "ClassLabel"} for column, labels in names.items()
    }


def write_parquet(
    path: Path,
    rows: Rows,
    *,
    names: Mapping[str, Sequence[str]] | None = None,
    group_rows: int | None = None,
) -> Path:
    """One Parquet file, in row groups of so many rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(rows, names=names), path, row_group_size=group_rows)
    return path


def save_to_disk(
    folder: Path, *shards: Rows, names: Mapping[str, Sequence[str]] | None = None
) -> None:
    """What `Dataset.save_to_disk` writes, in as many files as there are shards of rows."""
    folder.mkdir(parents=True)
    files = []
    for number, rows in enumerate(shards):
        made = table(rows)
        files.append({"filename": f"data-{number:05d}-of-{len(shards):05d}.arrow"})
        with (
            pa.OSFile(str(folder / files[-1]["filename"]), "wb") as sink,
            pa.ipc.new_stream(sink, made.schema) as writer,
        ):
            writer.write_table(made, max_chunksize=2)
    state = {"_data_files": files, "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features(names or {})}))
