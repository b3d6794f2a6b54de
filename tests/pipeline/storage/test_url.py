"""Remote URLs: passwords are taken out, and refusals do not repeat them."""

from __future__ import annotations

import re

import pytest

from pipeline.storage.url import OWN, SECRETS, ShareError, has_secret, parse_url

HUSH = "hunter2-and-more"


@pytest.mark.parametrize(
    ("given", "url", "secrets"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b", {}),
        ("ssh://host/srv/dvc", "ssh://host/srv/dvc", {}),
        ("ssh://me@host:2222/srv/dvc", "ssh://me@host:2222/srv/dvc", {}),
        ("ssh://me:p%40ss@host:2222/srv", "ssh://me@host:2222/srv", {"password": "p@ss"}),
        ("ssh://me:p@ss@[::1]:22/srv", "ssh://me@[::1]:22/srv", {"password": "p@ss"}),
        ("https://host/dvc", "https://host/dvc", {}),
        ("azure://container/dvc", "azure://container/dvc", {}),
        ("../store", "../store", {}),
    ],
)
def test_a_password_is_taken_out_of_the_url(given: str, url: str, secrets: dict[str, str]) -> None:
    found = parse_url(given)
    assert (found.url, found.secrets) == (url, secrets)
    assert has_secret(given) is bool(secrets)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (f"s3://AKIA:{HUSH}@bucket/x", "--secret access_key_id"),
        (f"https://me:{HUSH}@host/x", "--option user=NAME --secret password"),
        (f"https://host/x?sig={HUSH}", "a \\? or #"),
        (f"https://host/x#{HUSH}", "a \\? or #"),
        (f"ssh://me:{HUSH}/1@host/x", "--secret password"),
        (f"ssh://me:12/{HUSH}@host/x", "@ in its path"),
        (f"gdrive://me:{HUSH}@host/x", "scheme 'gdrive'"),
        ("s3:///x", "no host or bucket"),
        ("me@host:/srv/dvc", "ssh://host/path"),
        ("", "no URL"),
    ],
)
def test_refusals_do_not_repeat_secrets(given: str, says: str) -> None:
    with pytest.raises(ShareError, match=says) as caught:
        parse_url(given)
    assert HUSH not in str(caught.value)


def test_every_secret_option_of_dvc_is_listed() -> None:
    """Every option of these remotes that sounds like a secret is one, or stays on the machine."""
    from dvc.config_schema import REMOTE_SCHEMAS  # type: ignore[import-untyped]

    kinds = ("s3", "gs", "azure", "ssh", "http", "https", "webdav", "webdavs")
    known = {str(key) for kind in kinds for key in REMOTE_SCHEMAS[kind]}
    sounds = re.compile("pass|secret|token|key|credential|connection_string|profile|command")
    plain = {"sse_kms_key_id"} | {key for key in known if key.startswith("exclude_")}
    assert {key for key in known if sounds.search(key)} - plain <= SECRETS | OWN
    assert known >= SECRETS
    assert not SECRETS & OWN
