"""Fixtures of the tests of `features`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.corpora.small_corpus import SmallCorpus


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallCorpus:
    """An empty corpus `mine`, below the current folder."""
    return SmallCorpus(tmp_path, monkeypatch)
