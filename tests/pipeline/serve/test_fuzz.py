"""schemathesis asks all that the OpenAPI document allows, and more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.serve.gate import Access
from pipeline.serve.limits import Limits
from tests.pipeline.serve.conftest import Server, served

TOKEN = "a-token-of-a-test"
# `positive_data_acceptance` expects that random bytes are predicted as a clip.
CHECKS = ("--checks", "all", "--exclude-checks", "positive_data_acceptance")


@pytest.fixture(scope="module")
def guarded(server: Server) -> Iterator[Server]:
    with served(server.model, access=Access(TOKEN), limits=Limits(0.5, 10.0, 8)) as found:
        yield found


@pytest.mark.slow
def test_nothing_breaks_it_and_all_answers_are_documented(guarded: Server, tmp_path: Path) -> None:
    """No status 5xx, no undocumented status, no answer of another schema, no way past the token."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{guarded.url}openapi.json"]
    options = ["--header", f"Authorization: Bearer {TOKEN}", "--seed", "1", "--max-examples", "30"]
    done = subprocess.run(
        [*command, *CHECKS, *options, "--no-color"],
        cwd=tmp_path,
        env={**os.environ, "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"Tested: +2\n", done.stdout), done.stdout
