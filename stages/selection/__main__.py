"""`python -m stages.selection`: check the names that params.yaml selects, before other stages."""

from __future__ import annotations

from pathlib import Path

from features.arguments import refuse
from features.files.writing import empty_folder, replacing
from features.files.yaml_text import read_params_file
from pipeline.params.selection import selection_problems
from stages._run import run

OUT = Path("data", "selection.txt")
TRANSCRIBED = Path("data", "transcribed.corpora")  # no name of a corpus has a dot


def main() -> None:
    """Write data/selection.txt, always the same; refuse names without an entry.

    DVC fills the names in before any of our code runs. For a misspelt one it would only report that
    `runs/cached/demo/concta` does not exist, after every stage that does not depend on it has run.

    Beside it, data/transcribed.corpora/<corpus>.txt says whether the stage `transcribe` has work to
    do, so that a corpus more in `transcribe.corpora` changes nothing for the others.
    """
    raw = read_params_file(Path("params.yaml"))
    refuse(selection_problems(raw))
    with replacing(OUT) as temporary:
        temporary.write_text("params.yaml selects entries that are there\n", encoding="utf-8")
    wanted = (raw.get("transcribe") or {}).get("corpora") or ()
    empty_folder(TRANSCRIBED)
    for corpus in raw["corpora"]:
        line = "yes\n" if corpus in wanted else "no\n"
        (TRANSCRIBED / f"{corpus}.txt").write_text(line, encoding="utf-8")


if __name__ == "__main__":
    run(main)
