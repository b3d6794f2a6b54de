"""`heronry share setup`: the files it writes, the round trip, no secret in Git."""

from __future__ import annotations

import contextlib
import io
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import pipeline.storage.round_trip
from features.errors import HeronryError
from pipeline.commands.share import _ask, app
from pipeline.storage.remote import LOCAL, SHARED, Remote, configured, exposed, unverified
from pipeline.storage.round_trip import round_trip
from pipeline.storage.url import RemoteUrl, ShareError

HUSH = "hunter2-and-more"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty DVC project under Git, with a place for remotes beside it."""
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    (root / SHARED).write_text("[core]\n    analytics = false\n")
    (root / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "global"))
    git("init", "-q")
    return root


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], check=True, capture_output=True, text=True)
    return done.stdout


def setup(*words: str, given: str = "") -> str:
    """Output of the command; its errors are raised."""
    done = CliRunner().invoke(app, ["setup", *words], input=given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def section(path: Path, name: str = "team") -> dict[str, str]:
    """A remote as it stands in a file of DVC's configuration."""
    from dvc.config import Config  # type: ignore[import-untyped]

    found: dict[str, str] = Config.load_file(str(path))["remote"][name]
    return found


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every remote works."""
    monkeypatch.setattr("pipeline.commands.share.round_trip", lambda _: (0.1, None))


def test_a_folder_is_set_up_and_left_empty(tmp_path: Path) -> None:
    store = tmp_path / "store"
    said = setup(str(store))
    assert "pushed and pulled 1024 bytes in" in said
    wanted = {"url": str(store), "verify": "true", "shared": "group"}
    assert section(SHARED) == wanted
    assert "remote = team" in SHARED.read_text()
    assert not LOCAL.exists()
    assert [path for path in store.rglob("*") if path.is_file()] == []
    before = SHARED.read_bytes()
    setup("../store")
    assert SHARED.read_bytes() == before
    with pytest.raises(ShareError, match="--force"):
        setup(str(tmp_path / "other"))
    assert SHARED.read_bytes() == before
    setup(str(tmp_path / "other"), "--force", "--option", "jobs=2")
    assert section(SHARED) == {**wanted, "url": str(tmp_path / "other"), "jobs": "2"}
    assert unverified() == []


@pytest.mark.usefixtures("reached")
def test_secrets_stay_on_this_machine(project: Path) -> None:
    words = ("--endpoint-url", "https://s3.example.org", "--option", "profile=mine")
    keys = ("--secret", "access_key_id", "--secret", "secret_access_key")
    said = setup("s3://bucket/dvc", *words, *keys, given=f"AKIA\n{HUSH}\n")
    endpoint = {"endpointurl": "https://s3.example.org"}
    assert section(SHARED) == {"url": "s3://bucket/dvc", "verify": "true", **endpoint}
    assert section(LOCAL) == {
        "profile": "mine",
        "access_key_id": "AKIA",
        "secret_access_key": HUSH,
    }
    assert stat.S_IMODE(LOCAL.stat().st_mode) == 0o600
    assert "config.local has profile, access_key_id, secret_access_key" in said
    git("add", "-A")
    assert "config.local" not in git("diff", "--cached", "--name-only")
    for seen in (said, git("diff", "--cached"), SHARED.read_text()):
        assert HUSH not in seen
        assert "AKIA" not in seen
    said = setup("ssh://me:" + HUSH + "@host/srv", "--name", "other")
    assert "your shell's history" in said
    assert section(SHARED, "other")["url"] == "ssh://me@host/srv"
    assert section(LOCAL, "other") == {"password": HUSH}
    assert HUSH not in said + (project / SHARED).read_text()
    setup("ssh://host/srv", "--force")
    assert section(LOCAL) == {}, "keys of another kind of remote are of no use"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--option", f"password={HUSH}"), "--secret password"),
        (("--option", "region"), "KEY=VALUE"),
        (("--option", "regoin=eu"), "extra keys not allowed.*regoin"),
        (("--secret", "region"), "expected one of"),
        (("--secret", "password"), "nothing was given"),
        (("--name", "My Team"), "lower-case"),
        (("--endpoint-url", f"https://me:{HUSH}@host"), "no user or password"),
    ],
)
@pytest.mark.usefixtures("reached")
def test_wrong_settings_change_nothing(words: tuple[str, ...], says: str) -> None:
    before = SHARED.read_bytes()
    with pytest.raises(ShareError, match=says) as caught:
        setup("s3://bucket/dvc", *words)
    assert HUSH not in str(caught.value)
    assert SHARED.read_bytes() == before
    assert not LOCAL.exists()


def test_a_remote_that_is_only_read_must_answer(tmp_path: Path) -> None:
    store = tmp_path / "store"
    before = SHARED.read_bytes()
    with pytest.raises(ShareError, match="holds nothing"):
        setup(str(store), "--read-only")
    assert SHARED.read_bytes() == before
    (store / "files" / "md5").mkdir(parents=True)
    assert "nothing was written" in setup(str(store), "--read-only")
    assert [path for path in store.rglob("*") if path.is_file()] == []


def test_folders_that_cannot_be_remotes() -> None:
    with pytest.raises(ShareError, match="inside the project"):
        setup("store")
    with pytest.raises(ShareError, match="is the share mounted"):
        setup("../no/store")


def test_a_local_file_that_git_does_not_ignore_is_refused() -> None:
    (SHARED.parent / ".gitignore").write_text("/cache\n")
    remote = Remote("team", RemoteUrl("ssh://host/x", "ssh"), secrets={"password": HUSH})
    before = SHARED.read_bytes()
    with pytest.raises(ShareError, match="Git does not ignore"), configured(remote, force=False):
        pytest.fail("it was written")
    assert not LOCAL.exists()
    assert SHARED.read_bytes() == before


def test_secrets_in_the_shared_file_are_named(tmp_path: Path) -> None:
    text = f"['remote \"old\"']\n    url = ssh://me:{HUSH}@host/x\n    password = {HUSH}\n"
    SHARED.write_text(text)
    assert exposed() == ["old.password", "old.url"]
    assert unverified() == ["old"]
    with pytest.raises(ShareError, match=r"old\.password, old\.url") as caught:
        setup(str(tmp_path / "store"))
    assert HUSH not in str(caught.value)


@pytest.mark.parametrize("path", [SHARED, LOCAL])
def test_a_malformed_line_of_the_configuration_is_not_repeated(path: Path, tmp_path: Path) -> None:
    path.write_text(f"[core]\n    password {HUSH}\n")
    with pytest.raises(ShareError, match=f"{path} is no configuration of DVC: line 2;") as caught:
        setup(str(tmp_path / "store"))
    assert HUSH not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_failed_round_trip_is_undone_and_keeps_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(remote: Remote) -> None:
        with pipeline.storage.round_trip._step("push to", remote):
            raise PermissionError(f"no entry with {HUSH}")

    monkeypatch.setattr("pipeline.commands.share.round_trip", fail)
    before = SHARED.read_bytes()
    with pytest.raises(ShareError, match=r"cannot push to ssh://me@host/x .*with \*\*\*") as caught:
        setup(f"ssh://me:{HUSH}@host/x")
    assert HUSH not in str(caught.value)
    assert caught.value.__cause__ is None
    assert SHARED.read_bytes() == before
    assert not LOCAL.exists()
    file = tmp_path / "file"
    file.write_text("no folder")
    monkeypatch.setattr("pipeline.commands.share.round_trip", round_trip)
    with pytest.raises(ShareError, match=r"push to .*you may write there"):
        setup(str(file))
    assert SHARED.read_bytes() == before


def test_a_remote_that_changes_bytes_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pipeline.storage.round_trip._store

    @contextlib.contextmanager
    def faulty(remote: Remote) -> Iterator[Any]:
        with real(remote) as store:
            add = store.add

            def add_other_bytes(path: str, fs: Any, name: str) -> None:
                add(path, fs, name)
                there = Path(store.oid_to_path(name))
                there.chmod(0o600)
                there.write_bytes(b"something else")

            store.add = add_other_bytes
            yield store

    monkeypatch.setattr(pipeline.storage.round_trip, "_store", faulty)
    with pytest.raises(ShareError, match="other bytes"):
        setup(str(tmp_path / "store"))
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("s3fs", "dvc_s3"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ShareError, match="pip install dvc-s3"):
        setup("s3://bucket/dvc", "--read-only")


def test_outside_of_a_project_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HeronryError, match="dvc init"):
        setup(str(tmp_path.parent / "store"))


def test_secrets_are_typed_without_an_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    asked = []

    def ask(text: str) -> str:
        asked.append(text)
        return HUSH

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", ask)
    assert _ask(["password"]) == {"password": HUSH}
    assert asked == ["password: "]
