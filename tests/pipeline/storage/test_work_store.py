"""Pruning removes old or unused entries of the work store, and nothing else, after a --yes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from features.backbone.entry import backbone_entry
from features.corpus.manifest import Manifest
from features.errors import ParamsError
from features.extraction.extract import extract
from features.extraction.store import WorkStore
from pipeline.command_line.app import app
from pipeline.params.file import read_params
from pipeline.storage.work_store import DAY, removable, remove
from tests.conftest import ManifestMaker
from tests.support.models.tone_cache import HERE, PARAMS, make_project

NOW = time.time()


@pytest.fixture
def manifest(
    make_manifest: ManifestMaker,
    tmp_path: Path,
    private_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Manifest:
    """A cache under `tone`, and in the store also shards of settings that no entry has."""
    monkeypatch.chdir(tmp_path)
    made = make_project(make_manifest, private_store)
    entry = backbone_entry("tone", {"dim": 5})
    extract(made, entry, Path("elsewhere"), store=private_store)
    return made


def folders(store: Path) -> tuple[Path, Path]:
    """Store folders of the backbone that params.yaml would use, and of the other."""
    used = {path.stat().st_ino for path in HERE.glob("*.h5")}
    found = {path.parent: path.stat().st_ino in used for path in store.glob("*/*.h5")}
    (first,) = [folder for folder, inside in found.items() if inside]
    (second,) = [folder for folder, inside in found.items() if not inside]
    return first, second


def age(paths: list[Path], days: float) -> None:
    for path in paths:
        os.utime(path, (NOW - days * DAY, NOW - days * DAY))


def prune(*words: str) -> str:
    result = CliRunner().invoke(app, ["cache", "prune", *words])
    assert result.exit_code == 0, result.output
    return result.output


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.h5"))


@pytest.mark.usefixtures("manifest")
def test_nothing_is_removed_without_yes(private_store: Path) -> None:
    before = sorted(private_store.rglob("*.h5"))
    output = prune("--not-in-params")
    assert "say --yes" in output
    assert sorted(private_store.rglob("*.h5")) == before


@pytest.mark.usefixtures("manifest")
def test_unused_shards_are_removed(private_store: Path) -> None:
    used, other = folders(private_store)
    kept = shards(used)
    assert "removed 3 shards" in prune("--not-in-params", "--yes")
    assert shards(used) == kept
    assert not shards(other)
    assert not list(other.glob("*.json"))
    assert len(shards(HERE)) == len(shards(Path("elsewhere"))) == 3, "caches stay"


@pytest.mark.usefixtures("manifest")
def test_old_shards_are_removed(private_store: Path) -> None:
    used, other = folders(private_store)
    age(shards(used)[:1], 40)
    age(shards(other), 20)
    gone = shards(used)[0]
    prune("--keep-days", "30", "--yes")
    assert not gone.exists()
    assert (len(shards(used)), len(shards(other))) == (2, 3)


@pytest.mark.usefixtures("manifest")
def test_both_conditions_must_hold(private_store: Path) -> None:
    used, other = folders(private_store)
    age([*shards(used), *shards(other)[:2]], 40)
    prune("--keep-days", "30", "--not-in-params", "--yes")
    assert (len(shards(used)), len(shards(other))) == (3, 1)


@pytest.mark.usefixtures("manifest")
def test_reading_counts_as_use(private_store: Path) -> None:
    used, _ = folders(private_store)
    for path in shards(used):
        os.utime(path, (NOW, NOW - 90 * DAY))
    prune("--keep-days", "30", "--yes")
    assert len(shards(used)) == 3


def test_removed_shards_are_computed_again(manifest: Manifest, private_store: Path) -> None:
    used, _ = folders(private_store)
    before = [path.read_bytes() for path in shards(HERE)]
    age(shards(used), 2)
    prune("--keep-days", "1", "--yes")
    assert not shards(used)
    done = extract(manifest, backbone_entry("tone", {}), HERE, store=private_store)
    assert done.computed == 7
    assert [path.read_bytes() for path in shards(HERE)] == before


@pytest.mark.usefixtures("manifest")
def test_a_backbone_that_is_being_extracted_is_left_alone(private_store: Path) -> None:
    _, other = folders(private_store)
    with WorkStore(private_store, other.name).locked():
        output = prune("--not-in-params", "--yes")
    assert "in use, stays" in output
    assert "0 B to remove" in output
    assert len(shards(other)) == 3


@pytest.mark.usefixtures("manifest")
def test_shards_used_or_locked_after_the_listing_stay(private_store: Path) -> None:
    _, other = folders(private_store)
    age(shards(other), 40)
    params = read_params(Path("params.yaml"))
    found = removable(private_store, params, keep_days=30, not_in_params=False)
    with WorkStore(private_store, other.name).locked():
        assert list(remove(found)) == [f"left {other}: it is being extracted"]
    os.utime(shards(other)[1])
    list(remove(found))
    assert len(shards(other)) == 1


@pytest.mark.usefixtures("manifest")
def test_only_files_without_another_link_free_disk_space(private_store: Path) -> None:
    _, other = folders(private_store)
    params = read_params(Path("params.yaml"))
    (found,) = removable(private_store, params, keep_days=None, not_in_params=True)
    assert found.bytes == sum(path.stat().st_size for path in shards(other))
    assert found.freed == 0
    first = shards(Path("elsewhere"))[0]
    gain = first.stat().st_size
    first.unlink()
    (found,) = removable(private_store, params, keep_days=None, not_in_params=True)
    assert found.freed == gain


@pytest.mark.usefixtures("manifest")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("training", "seed_0_fold_0/step_1.safetensors"),
        ("predictions", "done.jsonl"),
        ("transcripts", "part.jsonl"),
        ("known", "known.json"),
    ],
)
def test_what_is_neither_shard_nor_foreign_goes_by_age(
    private_store: Path, kind: str, name: str
) -> None:
    old, new = (private_store / kind / (digit * 64) for digit in "ab")
    for folder, days in ((old, 40.0), (new, 0.5)):
        file = folder / name
        file.parent.mkdir(parents=True)
        file.touch()
        age([file, folder], days)
    prune("--not-in-params", "--yes")
    assert old.exists()
    prune("--keep-days", "0", "--yes")
    assert not old.exists()
    assert new.exists(), "within a day a process may be at work on it"


@pytest.mark.usefixtures("manifest")
def test_foreign_files_stay(private_store: Path) -> None:
    theirs = private_store / "notes" / "shard.h5"
    theirs.parent.mkdir()
    theirs.touch()
    link = private_store / ("c" * 64)
    link.symlink_to(HERE.absolute())
    age([theirs], 90)
    prune("--keep-days", "0", "--yes")
    assert theirs.exists()
    assert len(shards(HERE)) == 3


@pytest.mark.usefixtures("manifest")
def test_a_malformed_entry_does_not_hide_the_others(private_store: Path) -> None:
    backbones = {"tone": {}, "none": {}, "typo": {"kind": "tune"}}
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS | {"backbones": backbones}))
    used, _ = folders(private_store)
    prune("--not-in-params", "--yes")
    assert len(shards(used)) == 3


@pytest.mark.parametrize(
    ("words", "reason"), [([], "neither --keep-days nor"), (["--keep-days", "-1"], "0 or more")]
)
@pytest.mark.usefixtures("manifest")
def test_missing_or_negative_conditions_are_refused(words: list[str], reason: str) -> None:
    result = CliRunner().invoke(app, ["cache", "prune", *words])
    assert isinstance(result.exception, ParamsError)
    assert reason in str(result.exception)
