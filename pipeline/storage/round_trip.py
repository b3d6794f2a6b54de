"""A small file to a remote and back, by the ways that features take."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Probe:
    """What came of it.

    Attributes:
        seconds: Of push and pull together.
        left: Where the file still lies, if it could not be removed.
    """

    seconds: float
    left: str | None


def round_trip(remote: Remote) -> Probe:
    """Push random bytes under their MD5, pull them back with a check, and remove them.

    Raises:
        ShareError: If any of it fails, saying what.
    """
    from dvc_data.hashfile import db
    from dvc_objects.fs.local import localfs

    make: Any = db.get_odb  # which has no types
    content = os.urandom(PROBE_BYTES)
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
    return Probe(seconds, left)


def reach(remote: Remote) -> None:
    """See that a remote which is only read answers.

    Raises:
        ShareError: If it cannot be reached, or holds nothing.
    """
    there = True
    with _store(remote) as store, _step("read from", remote), TemporaryDirectory() as folder:
        if remote.url.scheme in ("http", "https"):
            # `exists` takes a server that is not there for a file that is not; reading does not.
            with contextlib.suppress(FileNotFoundError):
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
    """DVC's view of the remote, from the configuration as it is now."""
    from dvc.repo import Repo  # type: ignore[import-untyped]

    with _step("open", remote):
        repo = Repo()
    try:
        with _step("open", remote):
            store = repo.cloud.get_remote_odb(remote.name)
            _ = store.fs.fs  # the connection, where there is one
        yield store
    finally:
        repo.close()


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
    except Exception as error:  # every kind of remote has errors of its own
        told = remote.without_secrets(f"{type(error).__name__}: {error}")
        hint = _HINTS.get(scheme.rstrip("s") if scheme == "https" else scheme, "check credentials")
        # Without the cause: its text may hold what was just taken out.
        raise ShareError(f"cannot {what} {remote.url.url} ({told}); {hint}") from None


def _remove(store: Any, name: str) -> str | None:
    """None, or where the probe still lies: some remotes let nobody remove anything."""
    try:
        store.delete(name)
    except Exception:  # as above; nothing is lost
        return str(store.fs.unstrip_protocol(store.oid_to_path(name)))
    return None
