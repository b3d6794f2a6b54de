"""Read the numbers of an experiment that metrics.json, and so `dvc exp show`, does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from features.errors import ManifestError
from features.files.json_text import parse_json
from features.files.records import read_json
from pipeline.report.metrics_json import DETAILS


def read_details(rev: str, name: str = DETAILS) -> dict[str, Any]:
    """Content of the details.json of a Git revision, or of "workspace".

    It is empty where the file is missing or damaged: the board then shows a dash, as for every
    number that it does not know.

    Args:
        rev: Revision, or "workspace".
        name: File of the report, details.json or metrics.json.
    """
    path = f"reports/{name}"
    # DVC takes half a second to import, and the default table reads no details.
    import dvc.api  # type: ignore[import-untyped]
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]

    try:
        if rev == "workspace":
            return read_json(Path(path))
        with dvc.api.open(path, rev=rev, mode="rb") as file:
            content = parse_json(file.read())
    except (DvcException, OSError, ValueError, ManifestError):
        return {}
    return content if isinstance(content, dict) else {}
