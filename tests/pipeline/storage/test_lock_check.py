"""Inputs of training are compared with dvc.lock where DVC did not verify what it pulled."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml

from features.errors import CacheError
from pipeline.storage.lock_check import check_locked, directory_md5

FOLDER = Path("data/tones/labels")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder as its lock says, and a remote that is not verified."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "global"))
    (FOLDER / "deep").mkdir(parents=True)
    (FOLDER / "deep" / "b").write_text("two")
    (FOLDER / "a").write_text("one")
    outs = [{"path": FOLDER.as_posix(), "md5": directory_md5(FOLDER)}]
    lock = Path("stages/prepare/dvc.lock")
    lock.parent.mkdir(parents=True)
    lock.write_text(yaml.safe_dump({"stages": {"prepare@tones": {"outs": outs}}}))
    remote(verify=False)


def remote(*, verify: bool) -> None:
    Path(".dvc").mkdir(exist_ok=True)
    text = f"['remote \"team\"']\n    url = ../x\n    verify = {verify}\n"
    Path(".dvc/config").write_text(text)


def test_the_hash_of_a_folder_is_dvcs() -> None:
    """MD5 of the sorted list, whose text DVC fixes: names with their own MD5."""
    listed = (
        '[{"md5": "f97c5d29941bfb1b2fdab0874906ab82", "relpath": "a"}, '
        '{"md5": "b8a9f715dbb64fd5c56e7783c6820a61", "relpath": "deep/b"}]'
    )
    assert directory_md5(FOLDER) == hashlib.md5(listed.encode()).hexdigest() + ".dir"


def test_folders_equal_to_the_lock_pass() -> None:
    check_locked([FOLDER, Path("cache/tones/unknown")])


@pytest.mark.parametrize("change", ["edit", "add", "remove", "rename"])
def test_any_change_is_found(change: str) -> None:
    path = FOLDER / "a"
    if change == "edit":
        path.write_text("One")
    elif change == "add":
        (FOLDER / "c").write_text("")
    elif change == "remove":
        path.unlink()
    else:
        path.rename(FOLDER / "A")
    with pytest.raises(CacheError, match=r"data/tones/labels is not what .*\(team\)"):
        check_locked([FOLDER])


def test_a_remote_of_the_users_own_configuration_counts(tmp_path: Path) -> None:
    remote(verify=True)
    (tmp_path / "global").mkdir()
    (tmp_path / "global" / "config").write_text("['remote \"mine\"']\n    url = /somewhere\n")
    (FOLDER / "a").unlink()
    with pytest.raises(CacheError, match=r"\(mine\)"):
        check_locked([FOLDER])


def test_nothing_is_compared_where_dvc_verifies_all_remotes() -> None:
    (FOLDER / "a").write_text("edited here, on purpose")
    remote(verify=True)
    check_locked([FOLDER])
    Path(".dvc/config").unlink()
    check_locked([FOLDER])
