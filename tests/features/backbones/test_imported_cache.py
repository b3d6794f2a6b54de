"""A cache of another project as features of a backbone: rows by content, provenance, messages."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from features.backbone.entry import BackboneEntry, backbone_entry, leaves_weights_open
from features.cache.reader import CacheReader
from features.cache.shard import read_shard, shard_name
from features.cache.writer import write_shard
from features.corpus.manifest import Manifest
from features.errors import CacheError, CheckpointError, HeronryError
from features.extraction.extract import Extraction, extract
from features.extraction.trained_on import TRAINED_BY, seen_by
from features.files.reasons import SEEN, read_reasons, write_reasons
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints.text_encoder import VARIANTS

SECONDS = [0.5, 1.0, 0.6, 1.2, 0.8, 0.4, 0.9]  # three shards: u0-u2, u3-u4, u5-u6
FOLDER = Path("registry/theirs")
HERE = Path("cache/tones/theirs")
ENTRY = {"kind": "imported", "checkpoint": str(FOLDER)}


@pytest.fixture
def manifest(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Manifest:
    """A corpus, and what another project extracted of it, with a work store of its own."""
    monkeypatch.chdir(tmp_path)
    made = make_manifest(SECONDS)
    extract(made, backbone_entry("tone", {}), FOLDER, store=tmp_path / "their store")
    return made


def theirs(**settings: Any) -> BackboneEntry:
    return backbone_entry("theirs", {**ENTRY, **settings}, "registry")


def taken(manifest: Manifest, store: Path, **settings: Any) -> Extraction:
    return extract(manifest, theirs(**settings), HERE, store=store)


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.h5")}


def test_the_same_corpus_gets_the_same_files(manifest: Manifest, private_store: Path) -> None:
    done = taken(manifest, private_store)
    assert (done.computed, done.copied, done.linked) == (0, 0, 3)
    assert shards(HERE) == shards(FOLDER)
    assert all((HERE / name).samefile(FOLDER / name) for name in shards(HERE))
    entry = theirs()
    assert not leaves_weights_open(entry)  # DVC knows what is in the folder
    assert not entry.differences(CacheReader(HERE).provenance)
    other = {**CacheReader(HERE).provenance, "version": 2}
    assert entry.differences(other) == {"version": (2, 1)}
    # A member of the team who pulled what was extracted needs the folder no more.
    shutil.rmtree(FOLDER)
    assert not entry.differences(CacheReader(HERE).provenance)


def test_what_was_damaged_and_is_brought_again_is_the_same_file(
    manifest: Manifest, private_store: Path
) -> None:
    """Though the work store has a link to the damaged one."""
    shutil.copytree(FOLDER, "sound")
    taken(manifest, private_store)
    flipped()
    shutil.rmtree(FOLDER)
    Path("sound").rename(FOLDER)
    done = taken(manifest, private_store)
    assert (done.computed, done.copied, done.linked) == (0, 0, 3)
    assert shards(HERE) == shards(FOLDER)


def test_own_features_of_the_same_backbone_are_computed(
    manifest: Manifest, private_store: Path
) -> None:
    taken(manifest, private_store)
    own = extract(manifest, backbone_entry("tone", {}), Path("own"), store=private_store)
    assert own.computed == len(SECONDS)
    assert not own.copied


def test_utterances_are_found_by_what_they_are_and_not_by_their_ids(
    manifest: Manifest, make_manifest: ManifestMaker, private_store: Path
) -> None:
    (new,) = make_manifest([0.7], folder="more", start=9)
    u6, u1, u0, *_ = (manifest.utterances[i] for i in (6, 1, 0))
    mine = [
        dataclasses.replace(u6, id="x"),
        dataclasses.replace(u0, start=0.1, stop=0.3, id="u0"),
        dataclasses.replace(u1, text="other words"),
        dataclasses.replace(new, id="new"),
    ]
    done = taken(dataclasses.replace(manifest, utterances=tuple(mine)), private_store)
    reason = "no features were imported for its audio"
    assert done.rejected == {"u0": reason, "new": reason}
    there, here = CacheReader(FOLDER), CacheReader(HERE, verify=True)
    assert list(here) == ["x", "u1"]
    assert np.array_equal(here["x"], there["u6"])
    assert np.array_equal(here["u1"], there["u1"])
    assert here.provenance == there.provenance
    rounding = {id: r for s in there.shards for id, r in zip(s.ids, s.rounding, strict=True)}
    assert here.shards[0].rounding.tolist() == [rounding["u6"], rounding["u1"]]


@pytest.mark.usefixtures("manifest")
def test_a_corpus_without_any_of_their_utterances_is_refused(
    make_manifest: ManifestMaker, private_store: Path
) -> None:
    with pytest.raises(CacheError, match=r"no features were imported for its audio \(1\)"):
        taken(make_manifest([0.7], folder="more", start=9), private_store)


def torn() -> None:
    path = FOLDER / shard_name(1)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-40])


def flipped() -> None:
    path = FOLDER / shard_name(1)
    whole = bytearray(path.read_bytes())
    whole[whole.index(read_shard(path).row(0).frames.tobytes())] ^= 1
    path.chmod(0o644)
    path.write_bytes(whole)


def newer() -> None:
    path = FOLDER / shard_name(0)
    path.chmod(0o644)
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 2


def of_words() -> None:
    relabelled({"kind": "asr_text"})


def of_a_kind_that_is_not_here() -> None:
    relabelled({"kind": "theirs_alone"})


def of_another_precision() -> None:
    relabelled({"store_dtype": None})


def relabelled(change: dict[str, Any]) -> None:
    for path in FOLDER.glob("*.h5"):
        shard = read_shard(path)
        rows = [shard.row(number) for number in range(len(shard.ids))]
        rows = [dataclasses.replace(row, frames=row.frames.copy()) for row in rows]
        provenance = {**shard.provenance, **change}
        path.unlink()
        write_shard(path, rows, spec=shard.spec, provenance=provenance, dtype="float16")


def lacking() -> None:
    (FOLDER / shard_name(1)).unlink()


def the_folder_above() -> None:
    FOLDER.rename("tone")
    FOLDER.mkdir()
    Path("tone").rename(FOLDER / "tone")


def gone() -> None:
    shutil.rmtree(FOLDER)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            gone,
            r"'registry/theirs' are not here; .*\n.*dvc pull registry/theirs\.dvc; or, .*import",
        ),
        (the_folder_above, r"is a folder of \['tone'\]; expected a folder of shards"),
        (torn, r"shard-00001.*truncated[^`]*\n.*bring it again, `dvc pull registry/theirs\.dvc`"),
        (flipped, r"shard-00001.* is damaged \(frames of \['u3'\]\)[^`]*\n.*bring it again"),
        (lacking, "holds shard-00002.h5 where shard-00001.h5 was expected"),
        (newer, "has cache version 2; this heronry reads up to 1: upgrade heronry"),
        (of_words, "holds features of recognised words; expected those of audio or text"),
        (of_a_kind_that_is_not_here, "kind 'theirs_alone', which .* does not have; .*reads: audio"),
        (of_another_precision, "holds float16 frames, of which .* says `store_dtype` None; .* as"),
    ],
)
def test_what_cannot_be_used_is_one_message(
    damage: Callable[[], None], message: str, manifest: Manifest, private_store: Path
) -> None:
    damage()
    with pytest.raises(HeronryError, match=message) as told:
        taken(manifest, private_store)
    assert "doctor" not in str(told.value)
    assert not HERE.exists()


def test_a_folder_elsewhere_is_pinned_by_its_content(
    manifest: Manifest, private_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC knows what is in registry/ alone."""
    FOLDER.rename("disk")
    with monkeypatch.context() as under:
        under.setenv("DVC_STAGE", "extract")
        with pytest.raises(CheckpointError, match="write `revision: sha256:") as told:
            taken(manifest, private_store, checkpoint="disk")
        revision = str(told.value).rpartition("revision: ")[2].rstrip("`")
        taken(manifest, private_store, checkpoint="disk", revision=revision)
    assert shards(HERE) == shards(Path("disk"))


def test_a_kind_that_is_not_here_needs_to_be_told_what_was_read(
    manifest: Manifest, private_store: Path
) -> None:
    of_a_kind_that_is_not_here()
    taken(manifest, private_store, reads="audio")
    assert shards(HERE) == shards(FOLDER)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "mean"}, "pooling: given 'mean'; expected 'frames', which the cache of"),
        ({"store_dtype": "float32"}, "store_dtype: given 'float32'; expected 'float16'"),
        ({"reads": "text"}, "given `reads: text`; its features were computed from audio"),
        ({"bins": 8}, "given bins 8; they have None"),
        ({"revision": "sha256:" + "0" * 64}, "have revision sha256:"),
    ],
)
def test_settings_that_would_change_the_features_are_refused(
    settings: dict[str, Any], message: str, manifest: Manifest, private_store: Path
) -> None:
    with pytest.raises(HeronryError, match=message):
        taken(manifest, private_store, **settings)
    assert not HERE.exists()


def test_what_their_checkpoint_has_seen_is_seen_here(
    manifest: Manifest, private_store: Path
) -> None:
    taken(manifest, private_store)
    assert not (HERE / SEEN).exists()  # nothing is known
    write_reasons(FOLDER / SEEN, {"u1": "it was trained on", "gone": "it was trained on"})
    taken(manifest, private_store)
    assert read_reasons(HERE / SEEN) == {"u1": "it was trained on"}
    mine = [dataclasses.replace(u, id=f"x{n}") for n, u in enumerate(manifest)]
    taken(dataclasses.replace(manifest, utterances=tuple(mine)), private_store)
    assert read_reasons(HERE / SEEN) == {"x1": "as u1 of the other project: it was trained on"}
    write_reasons(FOLDER / SEEN, {})
    taken(manifest, private_store)
    assert (HERE / SEEN).read_text() == "id,why\n"


def test_of_equal_texts_the_one_with_the_id_is_seen(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless no id says who it was: then it may have been the one that was trained on."""
    monkeypatch.chdir(tmp_path)
    same = [dataclasses.replace(u, text="yes") for u in make_manifest([0.4, 0.4, 0.4])]
    corpus = Manifest("tones", tuple(same))
    encoder = {"kind": "text_encoder", **VARIANTS["bert"](tmp_path / "bert")}
    extract(corpus, backbone_entry("bert", encoder), FOLDER, store=tmp_path / "their store")
    write_reasons(FOLDER / SEEN, {"u1": "it was trained on"})
    assert list(seen_by(theirs(), corpus) or ()) == ["u1"]
    renamed = Manifest("mine", (dataclasses.replace(same[0], id="other"),))
    assert list(seen_by(theirs(), renamed) or ()) == ["other"]


def test_a_checkpoint_that_is_known_by_name_is_known_in_their_cache(manifest: Manifest) -> None:
    name = TRAINED_BY["msp_podcast"][0].replace("*", "wav2vec2-large")
    relabelled({"kind": "speech_encoder", "checkpoint": name})
    podcast = dataclasses.replace(manifest, kind="msp_podcast")
    assert len(seen_by(theirs(), podcast) or ()) == len(SECONDS)
    assert seen_by(theirs(), manifest) is None
