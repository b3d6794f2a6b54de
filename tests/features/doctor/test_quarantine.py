"""Repair moves damaged shards away with every copy of the damage, and nothing else."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from features.cache.shard import read_shard
from features.corpus.manifest import Manifest
from features.doctor.quarantine import quarantine
from features.doctor.shards import ShardFacts, check_shard
from pipeline.commands.doctor import examine
from tests.support.models.tone_cache import (
    HERE,
    STAGE,
    doctor,
    flip_frame,
    manifest,
    rewrite,
    said,
)
from tests.support.paths import contents_of
from tests.system.test_dvc import SOURCE, Project, params, write_corpus

__all__ = ["manifest"]  # the fixture that tests ask for


@pytest.fixture
def store(private_store: Path) -> Path:
    return private_store


def stored(store: Path) -> set[str]:
    return {path.name for path in store.rglob("*.h5")}


def inode(path: Path) -> int:
    return path.stat().st_ino


@pytest.mark.usefixtures("manifest")
def test_repair_takes_the_same_damage_from_the_store_and_keeps_its_bytes(store: Path) -> None:
    path = HERE / "shard-00001.h5"
    sound = {p.name for p in store.rglob("*.h5") if inode(p) != inode(path)}
    flip_frame(path)
    bytes_ = path.read_bytes()
    result = doctor("--repair")
    assert result.exit_code == 0, result.output
    assert f"now run `dvc repro {STAGE}`" in result.output
    assert not path.exists()
    assert Path("cache/.quarantine/tones/tone/shard-00001.h5").read_bytes() == bytes_
    assert stored(store) == sound
    output = said()
    assert f"{path}: is missing" in output
    assert ".quarantine" not in output


@pytest.mark.slow
@pytest.mark.usefixtures("manifest")
def test_repair_keeps_a_sound_shard_of_the_store(store: Path) -> None:
    path = HERE / "shard-00001.h5"
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole)  # a copy, where links do not reach
    before = stored(store)
    for _ in range(2):
        flip_frame(path)
        assert doctor("--repair").exit_code == 0
        assert stored(store) == before
        path.write_bytes(whole)
    assert {p.name for p in Path("cache/.quarantine/tones/tone").iterdir()} == {
        "shard-00001.h5",
        "shard-00001-2.h5",
    }


def test_repair_leaves_no_bad_row_in_the_store(manifest: Manifest, store: Path) -> None:
    """A NaN with a valid checksum is also removed in shards of other sizes."""
    rewrite(1, lambda rows: rows[0].frames.__setitem__((0, 0), np.nan), linked=True)
    other = next(iter(store.iterdir())) / "older.h5"
    (HERE / "shard-00001.h5").rename(HERE / "shard-00009.h5")
    rewrite(9, lambda rows: rows.pop(), to=8)
    (HERE / "shard-00008.h5").rename(other)
    (HERE / "shard-00009.h5").rename(HERE / "shard-00001.h5")
    assert isinstance(check_shard(other), list)
    assert doctor("--repair").exit_code == 0
    assert len(stored(store)) == 2
    assert other.name not in stored(store)
    assert all(isinstance(check_shard(path), ShardFacts) for path in store.rglob("*.h5"))
    assert len(manifest) == 8


@pytest.mark.usefixtures("manifest")
def test_repair_removes_dvc_objects_of_the_same_bytes_only(tmp_path: Path, store: Path) -> None:
    objects = tmp_path / "objects"

    def keep(content: bytes, name: str | None = None) -> Path:
        digest = name or hashlib.md5(content).hexdigest()
        path = objects / "files" / "md5" / digest[:2] / digest[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    path, foreign = HERE / "shard-00001.h5", HERE / "notes.txt"
    foreign.write_text("somebody's data")
    sound = [keep(p.read_bytes()) for p in HERE.iterdir()]
    rest = keep(b"")
    name = hashlib.md5(path.read_bytes()).hexdigest()
    flip_frame(path)
    bad = keep(path.read_bytes(), name)  # a copy that took the damage over
    sound.remove(bad)
    found = examine(HERE)
    lines = list(quarantine(found.cache, found.manifest, store=store, objects=objects))
    assert not bad.exists()
    assert all(p.exists() for p in [*sound, rest])
    assert not foreign.exists()
    assert Path("cache/.quarantine/tones/tone/notes.txt").read_text() == "somebody's data"
    assert any(str(bad) in line for line in lines)


@pytest.mark.usefixtures("manifest")
def test_repair_of_a_symbolic_link_keeps_the_bytes(tmp_path: Path, store: Path) -> None:
    """`cache.type: symlink`: the folder holds links into DVC's cache."""
    path = HERE / "shard-00001.h5"
    target = tmp_path / "objects/files/md5/ab/cdef"
    target.parent.mkdir(parents=True)
    path.rename(target)
    path.symlink_to(target)
    flip_frame(path)
    bytes_ = path.read_bytes()
    found = examine(HERE)
    list(quarantine(found.cache, found.manifest, store=store, objects=tmp_path / "objects"))
    assert not path.is_symlink()
    assert not target.exists()
    assert Path("cache/.quarantine/tones/tone/shard-00001.h5").read_bytes() == bytes_


@pytest.mark.slow
@pytest.mark.dvc
@pytest.mark.parametrize("links", ["as shipped", "hardlink,copy"])
def test_the_next_repro_makes_only_the_damaged_shard_again(tmp_path: Path, links: str) -> None:
    """With `as shipped` DVC's cache shares the file with the workspace, else the store does too."""
    project = Project(tmp_path / "project", tmp_path / "store")
    write_corpus(project.corpus)
    (project.root / "params.yaml").write_text(yaml.safe_dump(params()))
    project.run("dvc", "init", "-q", "-f")
    shutil.copy(SOURCE / ".dvc" / "config", project.root / ".dvc" / "config")
    if links != "as shipped":
        project.run("dvc", "config", "cache.type", links)
    project.run("dvc", "repro", STAGE)
    folder = project.root / HERE
    before, shard = contents_of(folder), folder / "shard-00001.h5"
    lock = (project.root / "stages/extract/dvc.lock").read_bytes()
    names = shard.stat().st_nlink
    ids = read_shard(shard).ids
    assert "ok " in project.run("pipeline", "doctor")

    flip_frame(shard, 3)
    assert "didn't change" in project.run("dvc", "repro", STAGE)  # DVC does not see it
    output = project.run("pipeline", "doctor", fails=True)
    assert f"{HERE}/shard-00001.h5: is damaged (frames of ['{ids[3]}'])" in output
    assert project.run("pipeline", "doctor", "--repair").count("removed") == names - 1
    assert "shard-00001.h5: is missing" in project.run("pipeline", "doctor", fails=True)
    output = project.run("dvc", "repro", STAGE)
    computed = len(ids) if names == 3 else 0  # else the store has a sound copy of its own
    assert f"{HERE}: {computed} utterances computed, 0 copied" in output
    shards = sum(name.endswith(".h5") for name in before)
    assert f"{shards - (names == 3)} shards reused" in output
    assert "ok " in project.run("pipeline", "doctor")
    assert contents_of(folder) == before
    assert (project.root / "stages/extract/dvc.lock").read_bytes() == lock
    assert "stages.extract" not in project.run("dvc", "repro", STAGE)
