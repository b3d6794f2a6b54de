"""A project with a small cache of tones, and ways to damage it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import pytest
import yaml
from typer.testing import CliRunner, Result

from features.backbone.entry import backbone_entry, fingerprint
from features.cache.shard import Row, read_shard, shard_name
from features.cache.writer import CacheWriter, write_shard
from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance
from features.extraction.plan import plan_shards
from features.extraction.store import WorkStore
from features.files.reasons import REJECTED, write_reasons
from features.files.writing import link_or_copy
from pipeline.command_line.app import app
from tests.conftest import ManifestMaker

SECONDS = [0.5, 1.0, 0.6, 1.2, 0.8, 0.4, 0.9]  # three shards: u0-u2, u3-u4, u5-u6
HERE = Path("cache/tones/tone")
STAGE = "stages/extract/dvc.yaml:extract@tones-tone"
PARAMS: dict[str, object] = {
    "fusion": "m",
    "regime": "cached",
    "corpus": "tones",
    "seeds": None,
    "train": {},
    "corpora": {"tones": {}},
    "backbones": {"tone": {}, "none": {}},
    "models": {},
}


@pytest.fixture
def manifest(
    make_manifest: ManifestMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    private_store: Path,
    request: pytest.FixtureRequest,
) -> Manifest:
    """A project with a sound cache; only slow tests open shards in another process first."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr("features.doctor.folder.unopenable", lambda _: set())
    monkeypatch.chdir(tmp_path)
    return make_project(make_manifest, private_store)


def make_project(make_manifest: ManifestMaker, store: Path) -> Manifest:
    """In the current folder, a sound cache of seven utterances, and one without audio."""
    made = make_manifest(SECONDS)
    words = Utterance(id="words", text="nothing to hear")
    made = dataclasses.replace(made, utterances=(*made.utterances, words))
    made.write(Path("data/tones/utterances"))
    set_params()
    extract(made, store)
    return made


def extract(manifest: Manifest, store: Path, **options: object) -> None:
    """What the stage does, for `tone`: shards in the store, hard links in the cache folder."""
    entry = backbone_entry("tone", options)
    backbone = entry.build()
    provenance = entry.provenance(backbone)
    work = WorkStore(store, fingerprint(provenance))
    writer = CacheWriter(spec=backbone.spec, provenance=provenance, dtype="float16")
    HERE.mkdir(parents=True)
    for planned in plan_shards(manifest, "audio", None):
        rows = []
        for utterance, content in zip(planned.utterances, planned.contents, strict=True):
            frames = backbone(backbone.prepare([utterance])).values[0].numpy()
            rows.append(writer.round(utterance.id, content, frames))
        writer.write(work.path(planned.fingerprint), rows)
        link_or_copy(work.path(planned.fingerprint), HERE / shard_name(planned.number))
    rejected = {u.id: "has no audio" for u in manifest if u.audio is None}
    write_reasons(HERE / REJECTED, rejected)


def set_params(**tone: object) -> None:
    backbones = {"backbones": {"tone": tone, "none": {}}}
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS | backbones))


def prepared(manifest: Manifest, utterances: Sequence[Utterance], **changes: float) -> None:
    """Write the manifest as a later run of `prepare` would."""
    changed = dataclasses.replace(manifest, utterances=utterances, **changes)  # type: ignore[arg-type]
    changed.write(Path("data/tones/utterances"))


def doctor(*words: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *words])


def said(*words: str) -> str:
    """What a doctor who finds something wrong says."""
    result = doctor(*words)
    assert result.exit_code == 1, result.output
    return result.output


def change(path: Path, edit: Callable[[bytearray], object]) -> None:
    """Alter a file in place, so that all hard links see it, as a failing disk does."""
    whole = bytearray(path.read_bytes())
    edit(whole)
    path.chmod(0o644)
    path.write_bytes(whole)
    path.chmod(0o444)


def flip_frame(path: Path, index: int = 1) -> None:
    place = path.read_bytes().index(read_shard(path).row(index).frames.tobytes())

    def edit(whole: bytearray) -> None:
        whole[place + 1] ^= 1

    change(path, edit)


def rewrite(
    number: int,
    edit: Callable[[list[Row]], object] = list,
    *,
    to: int | None = None,
    provenance: dict[str, object] | None = None,
    linked: bool = False,
) -> None:
    """Write a shard again, with a checksum that fits its altered content."""
    path = HERE / shard_name(number)
    shard = read_shard(path)
    rows = [shard.row(i) for i in range(len(shard.ids))]
    rows = [dataclasses.replace(row, frames=row.frames.copy()) for row in rows]
    edit(rows)
    new, target = path.with_name("new"), HERE / shard_name(number if to is None else to)
    write_shard(
        new,
        rows,
        spec=shard.spec,
        provenance=provenance or shard.provenance,
        dtype="float16",
    )
    if linked:
        change(target, lambda whole: whole.__setitem__(slice(None), new.read_bytes()))
        new.unlink()
    else:
        new.replace(target)


def alter(name: str, edit: Callable[[h5py.File], object]) -> None:
    path = HERE / name
    path.chmod(0o644)
    with h5py.File(path, "r+") as file:
        edit(file)
