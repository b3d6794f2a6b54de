"""params.yaml as shipped, and with all that the catalogue has beside it."""

from __future__ import annotations

from typing import Any

from features.files.yaml_text import read_yaml
from pipeline.params.catalogue.entries import with_catalogue
from pipeline.params.file import Params
from tests.support.paths import ROOT

SHIPPED = ROOT / "params.yaml"


def shipped_raw() -> dict[str, Any]:
    """What params.yaml holds, new at each call."""
    content: dict[str, Any] = read_yaml(SHIPPED.read_text(encoding="utf-8"))
    return content


def known_raw() -> dict[str, Any]:
    """The same with every entry of the catalogue."""
    return with_catalogue(shipped_raw())


def known_params() -> Params:
    """The same as records."""
    return Params(**known_raw())
