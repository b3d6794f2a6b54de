"""A manifest that stays in its file is the manifest in memory: rows, shards, errors, features."""

from __future__ import annotations

import dataclasses
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.backbone.base import Reads
from features.backbone.entry import BackboneEntry
from features.backbones.tone import Tone
from features.cache.reader import CacheReader
from features.corpus.manifest import Manifest, ManifestRows
from features.corpus.utterance import Utterance
from features.errors import ManifestError
from features.extraction.extract import Options, extract
from features.extraction.forecast import forecast
from features.extraction.plan import ShardPlan, plan_shards
from features.extraction.sizes import Sizes
from features.extraction.store import WorkStore
from features.files.reading import file_sha256
from tests.conftest import ManifestMaker

TONE = BackboneEntry("tone", "tone")
CUT: dict[str, Any] = {"shard_seconds": 5.0, "shard_characters": 12}


@pytest.fixture(autouse=True)
def few_known_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.corpus.manifest.STRIDE", 3)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Utterances with audio, words or both; some of equal content."""
    rows = []
    for number in range(draw(st.integers(0, 20))):
        kind, same = draw(st.sampled_from(["audio", "text", "both"])), draw(st.integers(0, 9))
        heard = {"audio": f"ä/{number}.wav", "sha256": f"{same}", "seconds": 0.5 + same / 3}
        said = {"text": "hm\u2028 " * same, "asr": draw(st.none() | st.just("uh"))}
        fields: dict[str, Any] = {**(heard if kind != "text" else {})}
        fields |= said if kind != "audio" else {}
        rows.append(Utterance(id=f"u{number}", **fields))
    return Manifest("c", tuple(rows), **CUT)


@given(manifests(), st.slices(20))
def test_its_rows_are_those_in_memory(manifest: Manifest, part: slice) -> None:
    with TemporaryDirectory() as folder:
        manifest.write(Path(folder))
        lazy = Manifest.read(Path(folder))
        assert isinstance(lazy.utterances, ManifestRows)
        assert lazy == manifest
        assert [lazy[n] for n in range(-len(lazy), len(lazy))] == [*manifest, *manifest]
        assert lazy[part] == manifest[part]
        root = Path("/corpus")
        assert list(lazy.located(root)) == list(manifest.located(root))
        with pytest.raises(IndexError):
            lazy[len(lazy)]


@given(manifests(), st.sampled_from(["audio", "text", "asr"]))
def test_its_shards_are_those_in_memory(manifest: Manifest, reads: Reads) -> None:
    expected = list(plan_shards(manifest, reads, None))
    with TemporaryDirectory() as folder:
        manifest.write(Path(folder))
        for each in (manifest, Manifest.read(Path(folder))):
            plan = ShardPlan.of(each, reads, None)
            assert list(plan) == expected
            assert [cut.fingerprint for cut in plan.cuts] == [p.fingerprint for p in expected]
            assert list(plan[1::2]) == expected[1::2]
            assert list(plan.only(lambda cut: cut.number != 1)) == expected[:1] + expected[2:]
            for cut, shard in zip(plan.cuts, expected, strict=True):
                assert cut.utterances == len(shard.utterances)
                assert cut.seconds == sum(u.seconds or 0.0 for u in shard.utterances)


@given(manifests())
def test_the_forecast_counts_equal_contents_once(manifest: Manifest) -> None:
    plan = ShardPlan.of(manifest, "audio", None)
    new = {c: u for p in plan for u, c in zip(p.utterances, p.contents, strict=True)}
    told = forecast(plan, WorkStore(Path("nowhere"), "x"), Sizes.of_entry(TONE, Tone().spec))
    assert (told.compute, told.shards) == (len(new), len(plan))
    assert told.compute + told.copy == sum(len(p.utterances) for p in plan)
    assert told.seconds == pytest.approx(sum(u.seconds or 0.0 for u in new.values()))


@pytest.mark.parametrize("bits", [1, 62])
def test_ids_that_occur_twice_are_distinguished_from_equal_hashes(
    bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.corpus.manifest._hash", lambda id: hash(id) % 2**bits)
    rows = [Utterance(f"u{n}", text="hm") for n in range(50)]
    Manifest("c", tuple(rows)).write(tmp_path)
    lazy = Manifest.read(tmp_path)
    assert lazy.located(tmp_path) == Manifest("c", tuple(rows))
    lines = (tmp_path / "manifest.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "manifest.jsonl").write_text("".join([*lines, lines[7], lines[30], lines[7]]))
    with pytest.raises(ManifestError) as found:
        Manifest.read(tmp_path)
    with pytest.raises(ManifestError) as expected:
        Manifest("c", (*rows, rows[7], rows[30], rows[7]))
    assert str(found.value) == str(expected.value)
    assert "2 ids occur more than once, such as ['u7', 'u30']" in str(found.value)


@pytest.mark.parametrize(
    "line", [b"{\n", b'{"id": "\xff", "text": "hm"}\n', b"\n", b'{"id": "v", "audio": 5}\n']
)
def test_a_malformed_line_is_named_before_anything_is_done(line: bytes, tmp_path: Path) -> None:
    Manifest("c", tuple(Utterance(f"u{n}", text="hm") for n in range(10))).write(tmp_path)
    path = tmp_path / "manifest.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:7], line, *lines[7:]]))
    with pytest.raises(ManifestError, match=r"manifest.jsonl, line 8: "):
        Manifest.read(tmp_path)


def test_a_manifest_that_changes_under_an_extraction_stops_it(tmp_path: Path) -> None:
    rows = tuple(Utterance(f"u{n}", f"{n}.wav", f"{n}", seconds=2.0) for n in range(10))
    Manifest("c", rows, **CUT).write(tmp_path)
    lazy = Manifest.read(tmp_path)
    plan = ShardPlan.of(lazy, "audio", None)
    other = (*rows[:4], dataclasses.replace(rows[4], sha256="other"), *rows[5:])
    Manifest("c", other, **CUT).write(tmp_path)
    assert plan[0].utterances == rows[:3]
    with pytest.raises(ManifestError, match=r"rows 4 to 6 .* others than when it was read"):
        list(plan)
    Manifest("c", rows[:8], **CUT).write(tmp_path)
    with pytest.raises(ManifestError, match=r"ends after 8 lines and had 10 when it was read"):
        list(lazy)


def test_it_may_be_written_over_itself(tmp_path: Path) -> None:
    rows = tuple(Utterance(f"u{n}", text="hm") for n in range(10))
    Manifest("c", rows).write(tmp_path)
    dataclasses.replace(Manifest.read(tmp_path), shard_seconds=7.0).write(tmp_path)
    assert Manifest.read(tmp_path) == Manifest("c", rows, shard_seconds=7.0)


def test_features_are_those_of_a_manifest_in_memory(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    made = make_manifest([0.5, 1.0, 0.3, 1.2, 0.8])
    bad = Path(made[3].audio or "")
    bad.write_bytes(b"no audio at all")
    rows = [dataclasses.replace(u, audio=Path(u.audio or "").name) for u in made]
    rows[3] = dataclasses.replace(rows[3], sha256=file_sha256(bad))
    rows[2:2] = [Utterance("z", text="words"), Utterance("a", text="words")]
    held = dataclasses.replace(made, utterances=tuple(rows))
    held.write(tmp_path / "data")
    lazy, root = Manifest.read(tmp_path / "data"), tmp_path / "audio"
    tell = extract(held.located(root), TONE, tmp_path / "one", store=tmp_path / "store")
    for part in (1, 0, None):
        options = Options(part=None if part is None else (part, 2))
        found = extract(
            lazy.located(root),
            TONE,
            tmp_path / "two",
            store=tmp_path / "other",
            options=options,
        )
    assert list(found.rejected.items()) == list(tell.rejected.items())
    assert list(found.rejected) == ["z", "a", "u3"]
    assert found.computed == 0
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two


def test_numbers_of_shards_may_outgrow_their_zeros(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_manifest([0.1] * 11, shard_seconds=0.05)
    for module in ("cache.reader", "extraction.extract"):
        monkeypatch.setattr(f"features.{module}.shard_name", lambda number: f"shard-{number}.h5")
    extract(manifest, TONE, tmp_path / "out", store=tmp_path / "store")
    assert list(CacheReader(tmp_path / "out")) == [f"u{n}" for n in range(11)]


def test_reading_and_planning_take_few_bytes_an_utterance(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        rows = (Utterance(f"utterance {n}", f"{n}.wav", f"{n}", seconds=0.1) for n in range(count))
        Manifest("c", tuple(rows), **CUT).write(tmp_path)
        tracemalloc.start()
        plan = ShardPlan.of(Manifest.read(tmp_path).located(tmp_path), "audio", None)
        assert sum(len(shard.utterances) for shard in plan) == count
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(100)
    grown = (peak(3000) - peak(1000)) / 2000
    assert grown < 40  # in memory such an utterance takes 300
