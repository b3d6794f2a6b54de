"""Read tables of Hugging Face `datasets`: Parquet files and the Arrow streams of `save_to_disk`.

Columns are read separately: labels and speakers first, the audio only once those are valid. However
large the corpus, memory holds one row group of a Parquet file at a time (those of `datasets` have
100 rows of audio), and of an Arrow stream only the pages that the system keeps mapped. pyarrow is
imported on first use. Nothing here is unpickled or executed.

Formats: parquet.apache.org, arrow.apache.org (IPC streams). `datasets` keeps the names of its
`ClassLabel` integers as JSON in the schema's metadata (key `huggingface`) and in
`dataset_info.json`; -1 stands for no label.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.corpora._tables.rows import (
    CLASSES_ALONE,
    DECODED,
    Beyond,
    Reading,
    Row,
    choose_columns,
    lacking_columns,
    with_split,
)
from features.corpora._tables.text import LFS_BEGIN
from features.errors import ManifestError
from features.files.json_text import parse_json
from features.files.reading import check_regular, open_regular, read_regular

BATCH_ROWS = 16  # rows of Parquet decoded at once; an audio cell is about a megabyte
BUFFER_BYTES = 2**20  # bytes of a column read at once
_METADATA = b"huggingface"


@dataclass(frozen=True)
class Shard:
    """One file of a table.

    Attributes:
        path: A `.parquet` file, or an Arrow stream by any other name.
        name: Path below the root, for messages.
        split: Split of rows that name none.
        info: `dataset_info.json` beside it, if it exists.
    """

    path: Path
    name: str
    split: str | None = None
    info: Path | None = None

    @functools.cached_property
    def names(self) -> list[str]:
        """Names of its columns."""
        return list(self._schema.names)

    def embeds(self, column: str) -> bool:
        """Whether a column contains files themselves: bytes, or a struct of `bytes` and `path`."""
        from pyarrow import types

        kind = self._schema.field(column).type
        kinds = (types.is_struct, types.is_binary, types.is_large_binary, types.is_nested)
        return any(holds(kind) for holds in kinds)

    def _decoded(self, column: str) -> bool:
        """Whether a column contains samples or the like: neither files nor their paths."""
        from pyarrow import types

        kind = self._schema.field(column).type
        if not types.is_struct(kind):
            return bool(types.is_nested(kind))
        names = {kind.field(number).name for number in range(kind.num_fields)}
        return "bytes" not in names and ("array" in names or "path" not in names)

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Read the cells of some columns, row by row, as they are stored.

        Raises:
            ManifestError: Naming the file, if it cannot be read to its end.
        """
        with self._named_errors():
            for batch in self._batches(columns):
                cells = [batch.column(name) for name in columns]
                for number in range(batch.num_rows):
                    values = (column[number].as_py() for column in cells)
                    yield dict(zip(columns, values, strict=True))

    def read(self, columns: Mapping[str, str] | None, beyond: Beyond = CLASSES_ALONE) -> Reading:
        """Read all rows, without embedded audio.

        Args:
            columns: Our column names to the table's.
            beyond: Columns that it may have beside ours.
        """
        reading = Reading()
        try:
            chosen, faults = choose_columns(columns, self.names, beyond)
            faults += lacking_columns(chosen, self.names, beyond)
            if faults:
                reading.faults = [f"{self.name}: {fault}" for fault in faults]
                return reading
            if "audio" in chosen and self.embeds(chosen["audio"]):
                reading.embedded = chosen.pop("audio")
                if self._decoded(reading.embedded):
                    reading.faults = [f"{self.name}: {reading.embedded} holds {DECODED}"]
                    return reading
            for number, row in enumerate(self.rows(list(dict.fromkeys(chosen.values())))):
                place = f"{self.name} row {number}"
                try:
                    cells = {ours: self._plain(theirs, row) for ours, theirs in chosen.items()}
                except ManifestError as error:
                    reading.faults.append(f"{place}: {error}")
                else:
                    reading.rows.append(Row(place, with_split(cells, self.split)))
        except ManifestError as error:
            reading.faults.append(str(error))
        return reading

    def _plain(self, column: str, row: Mapping[str, Any]) -> Any:
        """A cell with the name of its class in place of an integer of a `ClassLabel`."""
        cell = row[column]
        names = self._class_names.get(column)
        if names is None or not isinstance(cell, int) or cell == -1:
            # -1 of a ClassLabel means no label.
            return None if names and cell == -1 else cell
        if not 0 <= cell < len(names):
            raise ManifestError(f"{column} is {cell}; expected 0 to {len(names) - 1} for {names}")
        return names[cell]

    @functools.cached_property
    def _schema(self) -> Any:
        import pyarrow
        from pyarrow import ipc, parquet

        with self._named_errors():
            check_regular(self.path)
            if self.path.suffix == ".parquet":
                return parquet.read_schema(self.path)
            with pyarrow.OSFile(str(self.path)) as file:
                return ipc.open_stream(file).schema

    @functools.cached_property
    def _class_names(self) -> dict[str, list[str]]:
        stored = (self._schema.metadata or {}).get(_METADATA)
        if stored is not None:
            return _class_names(_json(stored, self.path).get("info"))
        if self.info is not None:
            return _class_names(_json(read_regular(self.info), self.info))
        return {}

    def _batches(self, columns: Sequence[str]) -> Iterator[Any]:
        import pyarrow
        from pyarrow import ipc, parquet

        if self.path.suffix == ".parquet":
            # By default pyarrow would buffer the whole file in memory.
            options = {"buffer_size": BUFFER_BYTES, "pre_buffer": False}
            check_regular(self.path)
            with parquet.ParquetFile(self.path, **options) as file:
                yield from file.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False)
        else:
            check_regular(self.path)
            # Memory-mapped, so that other columns are not read.
            with pyarrow.memory_map(str(self.path)) as file:
                for batch in ipc.open_stream(file):
                    yield batch.select(list(columns))

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Raise `ManifestError` naming the file for what pyarrow raises."""
        import pyarrow

        try:
            yield
        # Cells without a Python value, such as some times, raise ValueError or OverflowError.
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
            what = "Parquet" if self.path.suffix == ".parquet" else "an Arrow stream"
            reason, remedy = str(error).partition("\n")[0], "fetch it again"
            if _begins(self.path, LFS_BEGIN.encode()):
                reason, remedy = "it is a git-LFS pointer", "run `git lfs pull` where it came from"
            raise ManifestError(
                f"{self.name} cannot be read as {what} ({reason}); expected a whole file: {remedy}"
            ) from error


def _json(content: bytes, path: Path) -> dict[str, Any]:
    try:
        value = parse_json(content)
    except ValueError as error:
        raise ManifestError(f"the JSON that describes {path} cannot be read ({error})") from error
    return value if isinstance(value, dict) else {}


def _class_names(info: Any) -> dict[str, list[str]]:
    """Names of the classes by column, from the `info` that `datasets` writes."""
    features = info.get("features") if isinstance(info, dict) else None
    if not isinstance(features, dict):
        return {}
    return {
        column: list(map(str, feature["names"]))
        for column, feature in features.items()
        if isinstance(feature, dict) and isinstance(feature.get("names"), list)
    }


def _begins(path: Path, magic: bytes) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False
