"""`python -m stages.members CORPUS ENSEMBLE`: record what the members of an ensemble predict."""

from __future__ import annotations

from pathlib import Path

import typer

from features.files.yaml_text import read_params_file
from pipeline.ensemble.members import record_path, renew_members
from pipeline.params.ensembles import ensemble_entry
from stages._run import run


def main(corpus: str, ensemble: str) -> None:
    """Write sources/ensembles/CORPUS/ENSEMBLE.json; without a member, that of a team mate stays."""
    entry = ensemble_entry(read_params_file(Path("params.yaml")), ensemble)
    kept = renew_members(entry, corpus)
    if kept is not None:
        typer.echo(f"{record_path(corpus, ensemble)} stays as it is: {kept}", err=True)


if __name__ == "__main__":
    run(main)
