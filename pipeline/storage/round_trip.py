"""Push a small file to a remote and pull it back, by the same code of DVC as features."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.storage.remote import Remote
from pipeline.storage.url import PACKAGES, ShareError

PROBE_BYTES = 1024
_HINTS = {
    "": "check that the folder exists on this machine and that you may write there",
    "s3": "check the bucket, --endpoint-url and the credentials (AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, a profile, or --secret)",
    "ssh": "check that `ssh` and `sftp` get there without a question, and that you may write there",
    "http": "an HTTP server must take PUT or POST; for one that is only read give --read-only",
}


def round_trip(remote: Remote) -> tuple[float, str | None]:
    """Push random bytes under their MD5, pull and verify them, and remove them.

    Returns:
        Seconds of push and pull, and the path of the probe if it could not be removed.

    Raises:
        ShareError: If a step fails, naming it.
    """
    from dvc_data.hashfile import db
    from dvc_objects.fs.local import localfs

    make: Any = db.get_odb  # without type hints
    content = os.urandom(PROBE_BYTES)
    # DVC stores an object under its MD5, which `verify` compares.
    name = hashlib.md5(content, usedforsecurity=False).hexdigest()
    started = time.monotonic()
    with TemporaryDirectory() as folder, _store(remote) as store:
        path = Path(folder, "probe")
        path.write_bytes(content)
        with _step("push to", remote):
            store.add(str(path), localfs, name)
        try:
            with _step("pull from", remote):
                back = make(localfs, str(Path(folder, "back")))
                back.add(store.oid_to_path(name), store.fs, name, verify=True)
                returned = Path(back.oid_to_path(name))
                came = returned.read_bytes() if returned.is_file() else b""
            seconds = time.monotonic() - started
        finally:
            left = _remove(store, name)
    if came != content:
        raise ShareError(
            f"{remote.url.url} gave back other bytes than it was given; expected the same: do not "
            "trust this remote"
        )
    return seconds, left


def reach(remote: Remote) -> None:
    """Check that a remote answers without writing to it.

    Raises:
        ShareError: If it cannot be reached, or holds nothing.
    """
    there = True
    with _store(remote) as store, _step("read from", remote), TemporaryDirectory() as folder:
        if remote.url.scheme in ("http", "https"):
            # `exists` cannot tell a missing server from a missing file; reading can.
            with contextlib.suppress(FileNotFoundError):
                # An MD5 that no object has.
                store.fs.get_file(store.oid_to_path("0" * 32), str(Path(folder, "probe")))
        else:
            there = store.fs.exists(store.path)
    if not there:
        raise ShareError(
            f"{remote.url.url} answers and holds nothing; expected what somebody has pushed: check "
            "the path"
        )


@contextlib.contextmanager
def _store(remote: Remote) -> Iterator[Any]:
    """DVC's object store of the remote, opened from the current configuration."""
    from dvc.repo import Repo  # type: ignore[import-untyped]

    with _step("open", remote):
        repo = Repo()
    try:
        with _step("open", remote):
            store = repo.cloud.get_remote_odb(remote.name)
            _ = store.fs.fs  # connects, where there is a connection
        try:
            yield store
        finally:
            _disconnect(store.fs.fs)
    finally:
        repo.close()


def _disconnect(files: Any) -> None:
    """Close an HTTP session, for which fsspec itself waits a tenth of a second at most."""
    session = getattr(files, "_session", None)
    if session is not None:
        from fsspec.asyn import sync

        sync(files.loop, session.close)
        files._session = None  # fsspec may hand out this object again


@contextlib.contextmanager
def _step(what: str, remote: Remote) -> Iterator[None]:
    from dvc_objects.fs.errors import RemoteMissingDepsError

    scheme = remote.url.scheme
    try:
        yield
    except (ImportError, RemoteMissingDepsError):
        package = PACKAGES.get(scheme, "dvc")
        raise ShareError(
            f"{remote.url.url}: DVC needs the package {package} for {scheme}://; install it: "
            f"pip install {package}"
        ) from None
    except Exception as error:  # each kind of remote raises its own types
        text = remote.without_secrets(f"{type(error).__name__}: {error}")
        hint = _HINTS.get("http" if scheme == "https" else scheme, "check credentials")
        # Not chained: the text of the cause may hold a secret.
        raise ShareError(f"cannot {what} {remote.url.url} ({text}); {hint}") from None


def _remove(store: Any, name: str) -> str | None:
    """Remove the probe; its path if that fails, as some remotes allow no removal."""
    try:
        store.delete(name)
    except Exception:  # as in _step; a probe that stays does no harm
        return str(store.fs.unstrip_protocol(store.oid_to_path(name)))
    return None
