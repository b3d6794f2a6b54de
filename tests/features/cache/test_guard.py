"""Untrusted shards and manifests: no link is followed, nothing is executed, memory stays small."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from features.cache.reader import CacheReader
from features.cache.shard import read_shard, shard_name
from features.cache.writer import CacheWriter
from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance
from features.doctor.folder import check_cache
from features.doctor.shards import check_shard
from features.errors import CacheError, DamagedShardError, ManifestError
from features.files.reasons import REJECTED, write_reasons
from features.files.records import read_json
from features.stream import StreamSpec

HUGE = 1 << 40  # bytes that no machine here has
Edit = Callable[[h5py.File], object]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    folder = tmp_path / "cache/mine/words"
    writer = CacheWriter(spec=StreamSpec(3), provenance={"kind": "words"}, dtype="float16")
    rows = [writer.round(id, f"content of {id}", np.ones((4, 3), np.float32)) for id in "abc"]
    path = folder / shard_name(0)
    writer.write(path, rows)
    write_reasons(folder / REJECTED, {})
    path.chmod(0o644)
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["ids"] = np.array([b"s", b"e", b"c"])
        file["frames"] = np.full((12, 3), 7, np.float16)
    (tmp_path / "secret.bin").write_bytes(b"\x07" * 4096)
    return path


def put(name: str, make: Callable[[h5py.File], object]) -> Edit:
    """Replace a dataset."""

    def edit(file: h5py.File) -> None:
        del file[name]
        make(file)

    return edit


def external(name: str) -> Edit:
    return put(name, lambda f: f.__setitem__(name, h5py.ExternalLink("../../../secret.h5", name)))


def outside(name: str, shape: tuple[int, ...], dtype: str) -> Edit:
    place = [("../../../secret.bin", 0, 4096)]
    return put(name, lambda f: f.create_dataset(name, shape, dtype, external=place))


def virtual(name: str, shape: tuple[int, ...], dtype: str) -> Edit:
    layout = h5py.VirtualLayout(shape, dtype)
    layout[:] = h5py.VirtualSource("../../../secret.h5", name, shape)
    return put(name, lambda f: f.create_virtual_dataset(name, layout))


def declared(name: str, shape: tuple[int, ...], dtype: str, **how: object) -> Edit:
    """Values that were never written, which take no space in the file."""
    return put(name, lambda f: f.create_dataset(name, shape, dtype, **how))


def packed(name: str) -> Edit:
    zeros = np.zeros(1 << 22, "S1")
    return put(name, lambda f: f.create_dataset(name, data=zeros, compression="gzip"))


def pointers(file: h5py.File) -> None:
    """One text that many pointers refer to, which would be read as many texts."""
    file.create_dataset("ids", data=["x" * 1000] * 3, dtype=h5py.string_dtype())


def attribute(name: str, text: str) -> Edit:
    return lambda f: f.attrs.__setitem__(name, np.bytes_(text))


EDITS: dict[str, tuple[Edit, str]] = {
    "external link to frames": (external("frames"), "ExternalLink"),
    "external link to ids": (external("ids"), "ExternalLink"),
    "soft link": (
        put("ids", lambda f: f.__setitem__("ids", h5py.SoftLink("/contents"))),
        "SoftLink",
    ),
    "frames in another file": (outside("frames", (12, 3), "f2"), "in another file"),
    "ids in another file": (outside("ids", (3,), "S1"), "in another file"),
    "virtual frames": (virtual("frames", (12, 3), "f2"), "in another file"),
    "virtual ids": (virtual("ids", (3,), "S1"), "in another file"),
    "huge ids": (declared("ids", (HUGE,), "S1", chunks=(1 << 20,)), "declares 1,099,511,627,776"),
    "huge offsets": (declared("offsets", (HUGE,), "i8"), "declares"),
    "huge frames": (declared("frames", (HUGE, 3), "f2"), "declares"),
    "a size that wraps around": (declared("frames", (1 << 62, 4), "f2"), "declares"),
    "packed ids": (packed("ids"), "declares|not contiguous"),
    "small and packed": (
        declared("rounding", (3,), "f8", chunks=(3,), compression="gzip"),
        "not contiguous",
    ),
    "pointers": (put("ids", pointers), "expected numbers or fixed texts"),
    "a group": (put("crc32", lambda f: f.create_group("crc32")), "expected a dataset"),
    "offsets beyond the frames": (
        lambda f: f["offsets"].__setitem__(-1, HUGE),
        "expected 0 to 12 frames",
    ),
    "offsets that fall": (lambda f: f["offsets"].__setitem__(1, HUGE), "falls at utterance"),
    "offsets below zero": (lambda f: f["offsets"].__setitem__(1, -HUGE), "falls at utterance"),
    "a width of its own": (attribute("spec", f'{{"dim": {HUGE}}}'), "expected \\[T, 1099"),
    "a width that is text": (attribute("spec", '{"dim": "3"}'), "expected an integer"),
    "layers without number": (attribute("spec", '{"dim": 3, "layers": null}'), "an integer"),
    "a spec that is a list": (attribute("spec", "[3]"), "expected a JSON object"),
    "deep JSON": (attribute("provenance", "[" * 30_000), "no readable shard"),
    "an array of attributes": (
        lambda f: f.attrs.__setitem__("rejected", ["{}"] * 3),
        "expected one value",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_malformed_shards_are_refused(name: str, shard: Path) -> None:
    """By the reader without checksums, in little memory, and by the doctor."""
    edit, reason = EDITS[name]
    with h5py.File(shard, "r+") as file:
        edit(file)
    tracemalloc.start()
    with pytest.raises(DamagedShardError, match=reason):
        CacheReader(shard.parent)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    faults = check_shard(shard)
    assert isinstance(faults, list)
    assert {fault.remedy for fault in faults} == {"quarantine"}


@pytest.mark.parametrize("name", ["external link to ids", "huge ids", "pointers"])
def test_the_doctor_lists_a_malformed_shard(name: str, shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        EDITS[name][0](file)
    faults = check_cache(shard.parent).faults
    assert any(fault.path == shard and fault.remedy == "quarantine" for fault in faults)


def test_compressed_frames_are_refused(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        values = file["frames"][:]
        del file["frames"]
        file.create_dataset("frames", data=values, compression="gzip")
    with pytest.raises(CacheError, match="not contiguous"):
        read_shard(shard)


def test_unknown_attributes_are_not_read(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        file.attrs["greeting"] = ["x" * 1000] * 50
    assert list(CacheReader(shard.parent, verify=True)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "audio", ["/etc/passwd", "../secret.wav", "a/../../secret.wav", "a/b/../../../../secret.wav"]
)
def test_audio_outside_of_the_corpus_is_refused(audio: str, tmp_path: Path) -> None:
    folder = tmp_path / "data/mine/utterances"
    Manifest("mine", (Utterance("u", audio=audio, sha256="0" * 64),)).write(folder)
    with pytest.raises(ManifestError, match="below the corpus root"):
        Manifest.read(folder).located(tmp_path / "root")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": "u", "text": "x", "__class__": "os"}', "unknown field"),
        ('{"id": "../\\u0000", "text": "x"}', "NUL"),
        ('{"id": "../\\u0007", "text": "x"}', "printable"),
        ("[" * 100_000, "line 1"),
        ('"text"', "line 1"),
        ('{"id": ["u"], "text": "x"}', "printable"),
    ],
)
def test_malformed_lines_of_a_manifest_are_refused(line: str, reason: str, tmp_path: Path) -> None:
    Manifest("mine", (Utterance("u", text="x"),)).write(tmp_path)
    (tmp_path / "manifest.jsonl").write_text(line + "\n")
    with pytest.raises(ManifestError, match=reason):
        Manifest.read(tmp_path)


def test_malformed_heads_of_a_manifest_are_refused(tmp_path: Path) -> None:
    Manifest("mine", (Utterance("u", text="x"),)).write(tmp_path)
    head = json.loads((tmp_path / "corpus.json").read_text())
    (tmp_path / "corpus.json").write_text(json.dumps({**head, "root": "/"}))
    with pytest.raises(ManifestError, match="root"):
        Manifest.read(tmp_path)
    (tmp_path / "corpus.json").write_text("[" * 100_000)
    with pytest.raises(ManifestError, match="is not JSON"):
        read_json(tmp_path / "corpus.json")
    assert dataclasses.is_dataclass(Manifest)


@pytest.mark.parametrize(
    "content",
    [b"", b"id,why\n", b"id,reason\nu0\n", b"id,reason\nu0,a,b\n", b"id,reason\n\xff,x\n"],
)
def test_malformed_tables_of_rejects_are_refused(content: bytes, shard: Path) -> None:
    reader = CacheReader(shard.parent)
    assert reader.rejected == {}
    (shard.parent / REJECTED).write_bytes(content)
    with pytest.raises(ManifestError, match=r"rejected\.csv is no table .*or pull it again"):
        _ = reader.rejected
