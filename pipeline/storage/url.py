"""Remote URLs: parse, validate, and keep passwords, tokens and keys out of Git.

Options bound to one machine (paths of key files, profile names) are no secrets, but are useless to
others; and a command that DVC runs to get a token must never arrive by `git pull`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from features.errors import HeronryError

PACKAGES = {
    "s3": "dvc-s3",
    "ssh": "dvc-ssh",
    "gs": "dvc-gs",
    "azure": "dvc-azure",
    "http": "dvc-http",
    "https": "dvc-http",
    "webdav": "dvc-webdav",
    "webdavs": "dvc-webdav",
}
"""The package that adds a URL scheme to DVC."""
_KEYS = "`--secret access_key_id --secret secret_access_key`"
_LOGIN = dict.fromkeys(
    ("http", "https", "webdav", "webdavs"), "`--option user=NAME --secret password`"
)
SECRETS = frozenset(
    {
        *("password", "passphrase", "token", "session_token", "sas_token"),
        *("access_key_id", "secret_access_key", "sse_customer_key"),
        *("connection_string", "account_key", "client_secret"),
    }
)
"""DVC's options whose values are secret."""
OWN = frozenset(
    {
        *("user", "profile", "keyfile", "key_path", "cert_path", "credentialpath", "configpath"),
        *("bearer_token_command", "ask_password", "ask_passphrase"),
    }
)
"""DVC's options for one machine or member: kept out of Git, though no secrets."""


class ShareError(HeronryError):
    """A remote that cannot be set up or reached."""


@dataclass(frozen=True)
class RemoteUrl:
    """The address of a remote.

    Attributes:
        url: The URL without any secret.
        scheme: URL scheme such as s3; empty for a folder.
        secrets: Secrets taken out of the URL, by DVC's option.
    """

    url: str
    scheme: str
    secrets: Mapping[str, str] = field(default_factory=dict)


def parse_url(given: str) -> RemoteUrl:
    """Take the password out of a URL; refuse URLs that DVC cannot use or Git must not see.

    Raises:
        ShareError: If it is no URL of a remote, or carries secrets that have no option of their
            own. The message does not repeat them.
    """
    if "://" not in given:
        return RemoteUrl(_folder(given), "")
    parts = _split(given)
    scheme, host = parts.scheme.lower(), parts.netloc.rpartition("@")[2]
    plain = f"{scheme}://{host}{parts.path}"
    if scheme not in PACKAGES:
        raise ShareError(
            f"{plain}: scheme {scheme!r}; expected a folder or one of {list(PACKAGES)}"
        )
    if not host:
        raise ShareError(f"{plain} names no host or bucket; expected such as {scheme}://NAME/path")
    if parts.query or parts.fragment:
        raise ShareError(
            f"{plain}: something follows a ? or #, where signatures and tokens stand; expected the "
            "URL alone: give secrets by `--secret sas_token` or the like, which asks for them"
        )
    if "@" not in parts.netloc:
        return RemoteUrl(plain, scheme)
    if scheme != "ssh":  # the only scheme in whose URL DVC reads a user
        raise ShareError(
            f"{plain}: something stands before an @; {scheme} takes no user or password in its "
            f"URL: give them by {_LOGIN.get(scheme, _KEYS)} or the like"
        )
    user = f"{parts.username}@" if parts.username else ""
    secrets = {} if parts.password is None else {"password": unquote(parts.password)}
    return RemoteUrl(f"{scheme}://{user}{host}{parts.path}", scheme, secrets)


def has_secret(url: str) -> bool:
    """Whether a URL carries a password, or something that may be one."""
    try:
        found = parse_url(url)
    except ShareError:
        return "@" in url or "?" in url
    return bool(found.secrets)


def _split(given: str) -> SplitResult:
    try:
        parts = urlsplit(given)
        _ = parts.port  # raises if it is not a number
    except ValueError:
        # Not chained: urlsplit's message repeats the URL.
        raise ShareError(
            "the URL has a malformed host or port; expected such as ssh://host:22/path (signs such "
            "as / or # in a password must be given by `--secret password`)"
        ) from None
    if "@" in parts.path:
        # A / in a password ends the host, so that the rest of the password is parsed as the path.
        raise ShareError(
            "the URL has an @ in its path; expected none: a password with a / in it must be given "
            "by `--secret password`"
        )
    return parts


def _folder(given: str) -> str:
    """The local path as given, unless it is empty or an scp address."""
    # [user@]host:path, unless a folder has such a name.
    if re.match(r"^[\w.-]+(@[\w.-]+)?:", given) and not Path(given).exists():
        raise ShareError(
            f"{given.rpartition('@')[2]} looks like a path of scp; expected a folder, or "
            "ssh://host/path"
        )
    if not given.strip():
        raise ShareError("no URL was given; expected a folder or such as s3://bucket/path")
    return given
