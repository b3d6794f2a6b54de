"""`python -m stages.selection`: check the names that params.yaml selects, before other stages."""

from __future__ import annotations

from pathlib import Path

from features.arguments import refuse
from features.files.writing import replacing
from features.files.yaml_text import read_params_file
from pipeline.params.selection import selection_problems
from stages._run import run

OUT = Path("data", "selection.txt")


def main() -> None:
    """Write data/selection.txt, always the same; refuse names without an entry.

    DVC fills the names in before any of our code runs. For a misspelt one it would only report that
    `runs/cached/demo/concta` does not exist, after every stage that does not depend on it has run.
    """
    refuse(selection_problems(read_params_file(Path("params.yaml"))))
    with replacing(OUT) as temporary:
        temporary.write_text("params.yaml selects entries that are there\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
