"""Exported files hold the values of the cache, readable by other programs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from safetensors import safe_open
from typer.testing import CliRunner

from features.cache.reader import CacheReader
from features.cache.shard import shard_name
from features.cache.writer import CacheWriter
from features.corpus.manifest import Label
from features.errors import CacheError, ParamsError
from features.exchange import export as cache_export
from features.exchange.export import Form, export, file_name
from features.files.records import write_rows
from features.stream import StreamSpec
from pipeline.command_line.app import app

HERE = Path("cache/mine/words")
IDS = ["a/b", "A.wav", "a.wav", "../../etc/passwd", "__metadata__", "x" * 300, "ü ?", "plain_1"]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(*, bins: int | None = None, dtype: str = "float16") -> CacheReader:
    """Two shards of utterances whose names are as odd as the format allows."""
    random = np.random.default_rng(0)
    spec = StreamSpec(dim=3 if bins is None else 1, bins=bins)
    writer = CacheWriter(spec=spec, provenance={"kind": "words"}, dtype=dtype)
    for number, ids in enumerate((IDS[:5], IDS[5:])):
        rows = []
        for length, id in enumerate(ids, 1):
            real = random.normal(size=(length, 3)).astype(np.float32)
            values = real if bins is None else random.integers(0, bins, length)
            rows.append(writer.round(id, f"content of {id}", values))
        writer.write(HERE / shard_name(number), rows)
    return CacheReader(HERE)


def index() -> dict[str, dict[str, str]]:
    with Path("out/index.csv").open(newline="", encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("bins", [None, 9])
def test_npy(bins: int | None) -> None:
    reader = make(bins=bins, dtype="float16" if bins is None else "int16")
    assert export("mine", "words", "npy", Path("out")) == len(IDS)
    rows = index()
    assert list(rows) == IDS
    for id in IDS:
        values = np.load(Path("out") / rows[id]["file"], allow_pickle=False)
        assert values.dtype == reader[id].dtype
        assert values.tobytes() == reader[id].tobytes()


def test_file_names_are_legal_and_unique() -> None:
    make()
    export("mine", "words", "npy", Path("out"))
    names = [row["file"] for row in index().values()]
    assert len({name.lower() for name in names}) == len(IDS)
    assert {path.name for path in Path("out").iterdir()} == {*names, "index.csv"}
    assert all(len(name) < 130 and name.isascii() for name in names)
    assert "plain_1.npy" in names
    assert file_name(".hidden", set()).startswith("hidden-")


def test_safetensors() -> None:
    reader = make()
    export("mine", "words", "safetensors", Path("out"))
    for id, row in index().items():
        with safe_open(Path("out") / row["file"], "np") as file:
            assert np.array_equal(file.get_tensor(row["key"]), reader[id])
            about = file.metadata()
    assert (about["corpus"], about["backbone"]) == ("mine", "words")
    assert json.loads(about["spec"])["dim"] == 3
    assert json.loads(about["provenance"]) == {"kind": "words"}


@pytest.mark.parametrize("bins", [None, 9])
def test_parquet(bins: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_export, "GROUP_BYTES", 8)
    reader = make(bins=bins, dtype="float16" if bins is None else "int16")
    labels = Path("data/mine/labels")
    labels.mkdir(parents=True)
    write_rows(labels / "labels.jsonl", [Label(IDS[0], "angry", "s1"), Label(IDS[6], "sad", "s2")])
    export("mine", "words", "arrow", Path("out"))
    files = sorted(Path("out").glob("*.parquet"))
    assert parquet.ParquetFile(files[0]).num_row_groups > 1
    rows = [row for path in files for row in parquet.read_table(path).to_pylist()]
    assert [row["id"] for row in rows] == IDS
    for row in rows:
        assert np.array_equal(np.array(row["frames"], reader[row["id"]].dtype), reader[row["id"]])
        assert row["length"] == len(reader[row["id"]])
    found = {row["id"]: row["label"] for row in rows if row["label"] is not None}
    assert found == {IDS[0]: "angry", IDS[6]: "sad"}
    about = json.loads(parquet.read_schema(files[0]).metadata[b"heronry"])
    assert about["spec"] == reader.spec.to_dict()


def test_parquet_without_labels_has_no_such_column() -> None:
    make()
    export("mine", "words", "arrow", Path("out"))
    schema = parquet.read_schema(Path("out/shard-00000.parquet"))
    assert schema.names == ["id", "frames", "length"]


@pytest.mark.parametrize("form", ["npy", "safetensors", "arrow"])
def test_a_damaged_shard_is_not_exported(form: Form) -> None:
    make()
    path = HERE / shard_name(1)
    whole = bytearray(path.read_bytes())
    place = bytes(whole).index(CacheReader(HERE)["plain_1"].tobytes())
    whole[place] ^= 1
    path.unlink()
    path.write_bytes(whole)
    with pytest.raises(CacheError, match=r"damaged \(frames of \['plain_1'\]\)"):
        export("mine", "words", form, Path("out"))
    assert not Path("out/index.csv").exists()


def test_existing_files_are_not_overwritten() -> None:
    make()
    Path("out").mkdir()
    Path("out/theirs").touch()
    with pytest.raises(ParamsError, match="out is not empty"):
        export("mine", "words", "npy", Path("out"))


def test_the_command() -> None:
    make()
    result = CliRunner().invoke(app, ["cache", "export", "mine", "words", "out", "--to", "arrow"])
    assert result.exit_code == 0, result.output
    assert "out: 8 utterances of mine under words as arrow" in result.output
