"""A remote in DVC's configuration: what Git shares in .dvc/config, the rest in .dvc/config.local.

DVC reads both, the local one last. The local one holds what no one else may or need see; it must
be ignored by Git, and none but its owner may read it.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.storage.url import OWN, SECRETS, RemoteUrl, ShareError, has_secret

SHARED, LOCAL = Path(".dvc", "config"), Path(".dvc", "config.local")


@dataclass(frozen=True)
class Remote:
    """A remote as it is to be written.

    Attributes:
        name: DVC's name of it.
        url: Where.
        options: DVC's options that are no secrets.
        secrets: DVC's options that are.
    """

    name: str
    url: RemoteUrl
    options: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)

    @property
    def shared(self) -> dict[str, str]:
        """What goes into .dvc/config.

        Whatever comes back from the remote is held against the MD5 in dvc.lock (`verify`), which
        DVC by itself does for no remote of these kinds; a folder is writable by its group, or a
        second member could not push into the subfolders of a first.
        """
        defaults = {"verify": "true"} | ({} if self.url.scheme else {"shared": "group"})
        given = {key: value for key, value in self.options.items() if key not in OWN}
        return {"url": self.url.url, **defaults, **given}

    @property
    def local(self) -> dict[str, str]:
        """What goes into .dvc/config.local."""
        own = {key: value for key, value in self.options.items() if key in OWN}
        return {**own, **self.url.secrets, **self.secrets}

    def without_secrets(self, text: str) -> str:
        """`text` with stars in place of every secret, for messages of other programs."""
        for secret in {*self.url.secrets.values(), *self.secrets.values()}:
            text = text.replace(secret, "***")
        return text


@contextlib.contextmanager
def configured(remote: Remote, *, force: bool) -> Iterator[None]:
    """Write a remote and make it the default; if the body raises, undo it.

    Args:
        remote: What to write.
        force: Whether to replace a remote of that name that leads elsewhere.

    Raises:
        ShareError: If this is no DVC project, the name is taken, the local file is open to Git or
            secrets are in the shared one, or DVC does not know an option.
    """
    _check_project()
    before = {path: path.read_bytes() if path.is_file() else None for path in (SHARED, LOCAL)}
    try:
        _write(remote, force=force)
        yield
    except BaseException:
        for path, content in before.items():
            _restore(path, content)
        raise


def exposed(folder: Path = Path()) -> list[str]:
    """Secrets in .dvc/config, which Git shares, as `name.option`; never their values."""
    found = []
    for name, options in _remotes(folder / SHARED).items():
        keys = sorted(SECRETS & options.keys())
        keys += ["url"] if has_secret(str(options.get("url", ""))) else []
        found += [f"{name}.{key}" for key in keys]
    return found


def unverified(folder: Path = Path()) -> list[str]:
    """Names of remotes whose objects DVC does not hold against their MD5 when they come in."""
    merged: dict[str, dict[str, Any]] = {}
    for path in (SHARED, LOCAL):
        for name, options in _remotes(folder / path).items():
            merged.setdefault(name, {}).update(options)
    return sorted(
        name
        for name, options in merged.items()
        if str(options.get("verify", "false")).lower() != "true"
    )


def _check_project() -> None:
    if not SHARED.is_file():
        raise ShareError(
            f"there is no {SHARED} here; run this in the project's folder (after `dvc init`)"
        )
    found = exposed()
    if found:
        raise ShareError(
            f"{SHARED}, which Git shares, holds secrets: {', '.join(found)}; remove them (`dvc "
            "remote modify --unset`), and change them where they were issued if they were ever "
            "committed"
        )


def _write(remote: Remote, *, force: bool) -> None:
    from dvc.config import Config, ConfigError  # type: ignore[import-untyped]

    _check_free(remote, force=force)
    try:
        config = Config.from_cwd(validate=False)
        if force and LOCAL.is_file():
            # Before the rest: of another kind of remote, DVC would take these for mistakes.
            with config.edit("local", validate=False) as content:
                content["remote"][remote.name] = {}
        with config.edit("repo") as content:
            kept = {} if force else content["remote"].get(remote.name, {})
            content["remote"][remote.name] = {**kept, **remote.shared}
            content["core"]["remote"] = remote.name
        if remote.local:
            _check_ignored()
            LOCAL.touch(mode=0o600)
            LOCAL.chmod(0o600)
            with config.edit("local") as content:
                kept = content["remote"].get(remote.name, {})
                content["remote"][remote.name] = {**kept, **remote.local}
    except ConfigError as error:
        raise ShareError(
            f"DVC does not take these settings: {remote.without_secrets(str(error))}; expected "
            "options of `dvc remote modify` for this kind of remote"
        ) from None


def _check_free(remote: Remote, *, force: bool) -> None:
    known = _remotes(SHARED).get(remote.name)
    if known is None or force:
        return
    url = str(known.get("url", ""))
    if "://" not in url:
        url = str((SHARED.parent / url).resolve())  # DVC keeps relative ones from there
    if url != remote.url.url:
        raise ShareError(
            f"the remote {remote.name!r} leads to {url}; expected another --name, or --force to "
            "replace it"
        )


def _check_ignored() -> None:
    done = subprocess.run(
        ["git", "check-ignore", "-q", str(LOCAL)], capture_output=True, check=False
    )
    if done.returncode == 1:  # 128: no repository
        raise ShareError(
            f"Git does not ignore {LOCAL}, where secrets go; add `/config.local` to "
            ".dvc/.gitignore, and if it is tracked, `git rm --cached` it"
        )


def _remotes(path: Path) -> dict[str, dict[str, Any]]:
    """Sections of remotes by name, as they stand in a file."""
    from dvc.config import Config, ConfigError

    if not path.is_file():
        return {}
    try:
        remotes: dict[str, dict[str, Any]] = Config.load_file(str(path))["remote"]
    except ConfigError as error:
        raise ShareError(f"{path} is no configuration of DVC: {error}; mend it") from error
    return remotes


def _restore(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(content)
