"""Write a remote into DVC's configuration: .dvc/config for all, .dvc/config.local for this machine.

DVC reads both, the local one last. The local one holds secrets and paths of this machine; Git must
ignore it, and only its owner may read it.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.storage.url import OWN, SECRETS, RemoteUrl, ShareError, has_secret

SHARED, LOCAL = Path(".dvc", "config"), Path(".dvc", "config.local")


@dataclass(frozen=True)
class Remote:
    """A remote to be written: `options` and `secrets` are options of `dvc remote modify`."""

    name: str
    url: RemoteUrl
    options: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)

    @property
    def shared(self) -> dict[str, str]:
        """Options for .dvc/config.

        `verify` compares each pulled object with its MD5 in dvc.lock, which DVC does for no remote
        of these kinds by default. `shared` makes a folder writable by its group; without it a
        second member could not push into the subfolders of a first.
        """
        defaults = {"verify": "true"} | ({} if self.url.scheme else {"shared": "group"})
        given = {key: value for key, value in self.options.items() if key not in OWN}
        return {"url": self.url.url, **defaults, **given}

    @property
    def local(self) -> dict[str, str]:
        """Options for .dvc/config.local."""
        own = {key: value for key, value in self.options.items() if key in OWN}
        return {**own, **self.url.secrets, **self.secrets}

    def without_secrets(self, text: str) -> str:
        """`text` with stars in place of every secret, for messages of other programs."""
        for secret in {*self.url.secrets.values(), *self.secrets.values()}:
            text = text.replace(secret, "***")
        return text


@contextlib.contextmanager
def configured(remote: Remote, *, force: bool) -> Iterator[None]:
    """Write a remote and make it the default; undo it if the body raises.

    Args:
        remote: The remote to write.
        force: Whether to replace a remote of that name with another URL.

    Raises:
        ShareError: If this is no DVC project, the name is taken, the local file is not ignored by
            Git, secrets are in the shared one, or DVC does not know an option.
    """
    _check_project()
    before = {path: path.read_bytes() if path.is_file() else None for path in (SHARED, LOCAL)}
    try:
        _check_free(remote, force=force)
        _write(remote, force=force)
        yield
    # An interrupt must not leave half a configuration either.
    except BaseException:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content)
        raise


def exposed() -> list[str]:
    """Secrets in .dvc/config, which Git shares, as `name.option`; never their values."""
    found = []
    for name, options in _config().load_one("repo")["remote"].items():
        keys = sorted(SECRETS & options.keys())
        keys += ["url"] if has_secret(str(options.get("url", ""))) else []
        found += [f"{name}.{key}" for key in keys]
    return found


def unverified() -> list[str]:
    """Names of remotes without `verify`: DVC does not compare what it pulls with its MD5."""
    if not SHARED.parent.is_dir():
        return []
    remotes = _config()["remote"].items()  # of all levels, the user's own configuration among them
    # Not validated, so that the value is still text.
    return sorted(name for name, of in remotes if str(of.get("verify")).lower() != "true")


def _config() -> Any:
    """DVC's configuration of the project in the current folder, not validated.

    Raises:
        ShareError: If one of its files cannot be parsed.
    """
    # DVC takes a second to import, and a host that only trains need not have it.
    from dvc.config import Config, ConfigError  # type: ignore[import-untyped]

    above = (Path(Config.get_dir(level), Config.CONFIG) for level in Config.SYSTEM_LEVELS)
    for path in (SHARED, LOCAL, *above):
        try:
            _ = Config.load_file(str(path)) if path.is_file() else None
        except ConfigError as error:
            # DVC's text repeats the line, which may hold a secret.
            line = re.search(r"at line \"?(\d+)", str(error))
            raise ShareError(
                f"{path} is no configuration of DVC{f': line {line[1]}' if line else ''}; expected "
                "`key = value` lines below `[section]` lines: correct it"
            ) from None
    return Config(str(SHARED.parent.absolute()), validate=False)


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


def _check_free(remote: Remote, *, force: bool) -> None:
    known = _config().load_one("repo")["remote"].get(remote.name)
    if known is None or force:
        return
    url = str(known.get("url", ""))  # a relative path was made absolute by DVC
    url = url if "://" in url else str(Path(url).resolve())
    if url != remote.url.url:
        raise ShareError(
            f"the remote {remote.name!r} leads to {url}; expected another --name, or --force to "
            "replace it"
        )


def _write(remote: Remote, *, force: bool) -> None:
    from dvc.config import ConfigError

    config = _config()
    if remote.local:
        _check_ignored()
        # Before any secret is in it; `chmod` is for a file that exists already.
        LOCAL.touch(mode=0o600)
        LOCAL.chmod(0o600)
    # DVC calls .dvc/config the level `repo`, and .dvc/config.local the level `local`.
    levels = {"repo": remote.shared}
    if remote.local or (force and LOCAL.is_file()):
        # First: with --force, options of another kind of remote would not fit the new URL.
        levels = {"local": remote.local, **levels}
    try:
        for level, options in levels.items():
            # Both files are validated together, when the second one has been written.
            with config.edit(level, validate=level == "repo") as content:
                kept = {} if force else content["remote"].get(remote.name, {})
                content["remote"][remote.name] = {**kept, **options}
                if level == "repo":
                    content["core"]["remote"] = remote.name
    except ConfigError as error:
        raise ShareError(
            f"DVC does not take these settings: {remote.without_secrets(str(error))}; expected "
            "options of `dvc remote modify` for this kind of remote"
        ) from None


def _check_ignored() -> None:
    done = subprocess.run(
        ["git", "check-ignore", "-q", str(LOCAL)], capture_output=True, check=False
    )
    if done.returncode == 1:  # 128: no repository
        raise ShareError(
            f"Git does not ignore {LOCAL}, where secrets go; add `/config.local` to "
            ".dvc/.gitignore, and if it is tracked, `git rm --cached` it"
        )
