"""Shards divided by `--part`, as over the tasks of a cluster's array job."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import pytest

from features.backbone.entry import BackboneEntry
from features.corpus.manifest import Manifest
from features.errors import ParamsError
from features.extraction.extract import Options, extract
from stages.extract.__main__ import _part as part_of
from tests.conftest import ManifestMaker
from tests.support.paths import contents_of

TONE = BackboneEntry("tone", "tone")
PARTS = 3


@pytest.fixture
def manifest(make_manifest: ManifestMaker) -> Manifest:
    return make_manifest([0.2 + 0.01 * n for n in range(8)], shard_seconds=0.3)


@pytest.fixture
def expected(manifest: Manifest, tmp_path: Path) -> dict[str, bytes]:
    extract(manifest, TONE, tmp_path / "whole", store=tmp_path / "store of the whole")
    return contents_of(tmp_path / "whole")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_parts_are_the_whole(
    manifest: Manifest, expected: dict[str, bytes], tmp_path: Path, order: Sequence[int]
) -> None:
    out, store, computed = tmp_path / "out", tmp_path / "store", 0
    for number in order:
        options = Options(part=(number, PARTS))
        computed += extract(manifest, TONE, out, store=store, options=options).computed
        assert not out.exists()
    assert computed == len(manifest)
    whole = extract(manifest, TONE, out, store=store)
    assert (whole.computed, whole.copied) == (0, 0)
    assert contents_of(out) == expected


def test_a_part_leaves_what_is_there(manifest: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "out"
    extract(manifest, TONE, out, store=tmp_path / "store")
    before = contents_of(out)
    options = Options(part=(1, PARTS))
    assert extract(manifest, TONE, out, store=tmp_path / "other", options=options).computed > 0
    assert contents_of(out) == before


@pytest.mark.slow
def test_parts_at_the_same_time(
    manifest: Manifest, expected: dict[str, bytes], tmp_path: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = [(manifest, tmp_path, number) for number in range(PARTS)]
    children = [context.Process(target=extract_part, args=each) for each in arguments]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0] * PARTS
    whole = extract(manifest, TONE, tmp_path / "out", store=tmp_path / "store")
    assert whole.computed == 0
    assert contents_of(tmp_path / "out") == expected


def extract_part(manifest: Manifest, folder: Path, number: int) -> None:
    options = Options(part=(number, PARTS))
    extract(manifest, TONE, folder / "out", store=folder / "store", options=options)


def test_how_a_part_is_named() -> None:
    assert part_of("1/8") == (0, 8)
    assert part_of("8/8") == (7, 8)
    for wrong in ("0/8", "9/8", "1", "a/b", "1/8/2", "-1/8"):
        with pytest.raises(ParamsError, match="expected K/N with K from 1 to N"):
            part_of(wrong)
