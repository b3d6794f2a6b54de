"""Pushes and pulls that are tampered with, damaged or interrupted."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from features.errors import CacheError
from pipeline.storage.lock_check import check_locked
from tests.support.machines.team import EXTRACT, Member, Team, md5, names
from tests.system.test_dvc import computed

pytestmark = [pytest.mark.slow, pytest.mark.dvc]
PREPARE = "stages/prepare/dvc.yaml:prepare@tones"
TARGETS = (PREPARE, EXTRACT.format("none"), EXTRACT.format("tone"))
TRAIN = "stages/train/dvc.yaml:train@speech"
DATA = ("data/tones/utterances", "data/tones/labels", "data/tones/ratings")
FOLDERS = (*DATA, "cache/tones/none", "cache/tones/tone")
SHARD, LABELS = "cache/tones/tone/shard-00001.h5", "data/tones/labels/labels.jsonl"
# DVC, killed when it has written half of object number LIMIT (from 0).
KILLED = """
import os, sys
import dvc_objects.fs.local as local
whole, done, limit = local.copyfile, [], int(sys.argv.pop(1))
def copyfile(source, target, **how):
    if len(done) < limit:
        done.append(source)
        return whole(source, target, **how)
    with open(source, "rb") as file, open(target, "wb") as half:
        half.write(file.read()[: os.path.getsize(source) // 2])
    os.kill(os.getpid(), 9)
local.copyfile = copyfile
from dvc.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Team:
    return Team.found(tmp_path_factory.mktemp("team"))


@pytest.fixture(scope="module")
def ann(team: Team) -> Member:
    """Extracted and pushed for `speech`; the push was broken off once, and done again."""
    ann = team.member("ann", corpus=True)
    ann.run("dvc", "repro", *TARGETS)
    broken_off(ann, 4, "push", *TARGETS)
    there = whole(team.remote)
    assert len(there) == 4
    assert len(names(team.remote)) == 5, "and one half"
    before = {name: path.stat().st_mtime_ns for name, path in there.items()}
    ann.run("dvc", "push", *TARGETS)
    after = whole(team.remote)
    assert after.keys() == ann.outputs(*FOLDERS)
    assert {name: after[name].stat().st_mtime_ns for name in before} == before
    ann.publish("Extract")
    return ann


def broken_off(member: Member, limit: int, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(limit), *words],
        cwd=member.root,
        env=member.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr


def whole(store: Path) -> dict[str, Path]:
    """Objects under their final names, each of which must be what its name says."""
    found = {
        name: store / "files" / "md5" / name[:2] / name[2:]
        for name in names(store)
        if not name.endswith(".tmp")
    }
    assert all(name.removesuffix(".dir") == md5(path) for name, path in found.items())
    return found


def test_an_interrupted_push_is_resumed(team: Team, ann: Member) -> None:
    """The fixture did it: what had come through was not sent again, and nothing is missing."""
    assert whole(team.remote).keys() == ann.outputs(*FOLDERS)


def test_an_interrupted_pull_is_resumed(team: Team, ann: Member) -> None:
    bob = team.member("bob")
    broken_off(bob, 5, "pull", *TARGETS)
    cache = bob.root / ".dvc" / "cache"
    before = {name: path.stat().st_mtime_ns for name, path in whole(cache).items()}
    assert len(before) == 5
    bob.run("dvc", "pull", *TARGETS)
    after = whole(cache)
    assert after.keys() == ann.outputs(*FOLDERS)
    assert {name: after[name].stat().st_mtime_ns for name in before} == before
    for folder in FOLDERS:
        for path in (ann.root / folder).iterdir():
            assert md5(bob.root / folder / path.name) == md5(path)


@contextlib.contextmanager
def tampered(team: Team, path: Path) -> Iterator[None]:
    """The object of a file has other bytes in the remote: one bit, or other labels."""
    name = md5(path)
    victim = team.remote / "files" / "md5" / name[:2] / name[2:]
    content = victim.read_bytes()
    if path.suffix == ".h5":
        middle = len(content) // 2
        other = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    else:
        other = content.replace(b'"label": "low"', b'"label": "high"', 3)
    assert other != content
    replace(victim, other)
    try:
        yield
    finally:
        replace(victim, content)


def replace(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


def unverified(member: Member) -> None:
    """As after `dvc remote add` by hand."""
    config = member.root / ".dvc" / "config"
    config.write_text(config.read_text().replace("    verify = true\n", ""))


@pytest.mark.parametrize("victim", [SHARD, LABELS])
def test_dvc_refuses_tampered_objects(team: Team, ann: Member, victim: str) -> None:
    """`verify`: the object is held against its MD5, removed, and training never begins."""
    name = f"careful-{Path(victim).stem}"
    member = team.member(name)
    member.forbid_extraction()
    with tampered(team, ann.root / victim):
        said = member.run("dvc", "repro", "--pull", "--allow-missing", TRAIN, fails=True)
    assert "Checkout failed" in said
    assert str(Path(victim).parent) in said
    assert computed(said) == []
    assert md5(ann.root / victim) not in member.objects()
    if victim == LABELS:  # the remote is mended: the rest of the way is as ever
        member.run("dvc", "pull", *TARGETS)
        assert md5(member.root / victim) == md5(ann.root / victim)


def test_without_verify_the_lock_file_stops_training(team: Team, ann: Member) -> None:
    member = team.member("careless")
    unverified(member)
    with tampered(team, ann.root / SHARD):
        said = member.run("dvc", "repro", "--pull", "--allow-missing", TRAIN, fails=True)
    assert "> python -m stages.train" in said
    assert "error: cache/tones/tone is not what dvc.lock says" in said
    assert "epoch 1" not in said
    assert not (member.root / "runs").exists()


def test_without_verify_labels_are_compared_with_the_lock(
    team: Team, ann: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels have no checksum of their own, and DVC trusts what it has pulled."""
    member = team.member("more careless")
    unverified(member)
    with tampered(team, ann.root / LABELS):
        member.run("dvc", "pull", *TARGETS)
    assert md5(member.root / LABELS) != md5(ann.root / LABELS)
    monkeypatch.chdir(member.root)
    folders = [Path(folder) for folder in FOLDERS]
    with pytest.raises(CacheError, match="data/tones/labels is not what") as caught:
        check_locked(folders)
    name = md5(ann.root / LABELS)
    bad = f".dvc/cache/files/md5/{name[:2]}/{name[2:]}"
    assert f"in labels.jsonl ({bad})" in str(caught.value)
    assert "(team)" in str(caught.value)
    (member.root / bad).unlink()
    (member.root / LABELS).unlink()
    member.run("dvc", "pull", PREPARE)
    check_locked(folders)


def test_a_bad_object_is_replaced_once_its_folders_list_is_gone(team: Team, ann: Member) -> None:
    """docs/remotes.md: DVC asks a remote for the list of a folder only, not for its files."""
    (of_folder,) = (out["md5"] for out in ann.lock("extract")["extract@tones-tone"]["outs"])
    of_shard = md5(ann.root / SHARD)
    before = whole(team.remote).keys()
    for name in (of_shard, of_folder):
        (team.remote / "files" / "md5" / name[:2] / name[2:]).unlink()
    ann.run("dvc", "push", EXTRACT.format("tone"))
    assert whole(team.remote).keys() == before
