"""One pass over several entries of a network gives the bytes of extracting each by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from features.backbone.entry import BackboneEntry, backbone_entry
from features.backbone.siblings import settings_apart
from features.extraction.extract import Options, extract
from tests.conftest import ManifestMaker
from tests.contracts.test_backbones import Bench, cases, has_layers
from tests.support.paths import contents_of

SECONDS = [0.5, 1.3, 0.61, 0.9]
POOLED: Any = ({}, {"pooling": "mean", "store_dtype": "float32"}, {"pooling": "mean_std"})
LAYERS: Any = ({"layer": 1}, {"layer": -1, "pooling": "mean"}, {"layer": [2, 1], "pooling": "std"})
WINDOWS = {"long": "window", "window_seconds": 1.0, "window_hop_seconds": 0.5}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("checkpoints"))


def entries_of(bench: Bench, kind: str, variant: str, **more: Any) -> list[BackboneEntry]:
    """Siblings by layer, pooling and stored precision, the first of them not the deepest."""
    options: Any = {"kind": kind, **bench.options_of(kind, variant), **more}
    bins = bench.get(kind, variant).spec.bins is not None
    differing: Any = LAYERS if has_layers(kind) else ({},) * 2 if bins else POOLED
    found = [backbone_entry(f"x{n}", {**options, **each}) for n, each in enumerate(differing)]
    assert not any(settings_apart(found[0], other) for other in found)
    return found


def reason_alone(entry: BackboneEntry, *, bins: bool) -> str | None:
    """Why an entry has no pass in common with its siblings, if that is so."""
    if bins:  # which cannot be pooled, so that siblings are the same features
        return "its features are those of another entry"
    # The published mean of CED is that of each window, which need not begin with a frame.
    published = entry.kind == "ced" and entry.pooling == "mean"
    return "its windows begin elsewhere" if published and entry.windows else None


@pytest.mark.parametrize(
    ("budget", "windows"),
    [pytest.param(None, False, marks=pytest.mark.slow), (4.0, True)],
    ids=["one by one", "batches and windows"],
)
@pytest.mark.parametrize(("kind", "variant"), cases())
def test_bytes_are_those_of_separate_extraction(
    kind: str,
    variant: str,
    budget: float | None,
    windows: bool,
    bench: Bench,
    make_manifest: ManifestMaker,
    tmp_path: Path,
) -> None:
    backbone, manifest = bench.get(kind, variant), make_manifest(SECONDS)
    settings = WINDOWS if windows and backbone.spec.hop_seconds is not None else {}
    first, *siblings = entries_of(bench, kind, variant, **settings)
    options = Options(batch_seconds=budget)
    notes: list[str] = []
    together = Options(batch_seconds=budget, siblings=tuple(siblings), note=notes.append)
    extract(manifest, first, tmp_path / "first", store=tmp_path / "together", options=together)
    lines = {line.split(": ")[1].split(",")[0]: line for line in notes}
    for entry in (first, *siblings):
        alone = reason_alone(entry, bins=backbone.spec.bins is not None)
        if entry is not first:
            assert (alone or f"in the same pass: {entry.name}, about") in lines[entry.name]
        out, apart = tmp_path / "out", tmp_path / "apart"
        done = extract(manifest, entry, out, store=tmp_path / "together", options=options)
        assert bool(done.computed) == (alone is not None and "windows" in alone)
        extract(manifest, entry, apart, store=tmp_path / "apart store", options=options)
        assert contents_of(out) == contents_of(apart)
