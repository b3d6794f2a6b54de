"""`heronry schema`: write the schema by which editors complete and check params.yaml."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from features.files.writing import replacing

SCHEMA = Path("params.schema.json")  # named in the first line of params.yaml


def schema() -> None:
    """Write params.schema.json, by which editors complete and check params.yaml."""
    # Imported here, since other commands run where pydantic may be missing.
    from pipeline.params.schema import params_schema

    with replacing(SCHEMA) as temporary:
        temporary.write_text(json.dumps(params_schema()) + "\n", encoding="utf-8")
    typer.echo(f"{SCHEMA}: written; editors with a YAML language server read it")
