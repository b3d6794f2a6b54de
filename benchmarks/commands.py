"""CPU seconds of the commands that a shell or a reader waits for: help, completion, board.

    python -m benchmarks.commands [--json] [--rounds 5]

CPU time of the process and its children, user and system together, which other work on the machine
disturbs less than wall-clock time. `board` starts DVC, which takes most of its time; it needs no
results. All are interleaved; medians are reported with their range.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from typing import Annotated

import typer

COMMANDS = {
    "--version": ["--version"],
    "--help": ["--help"],
    "run --help": ["run", "--help"],
    "recipe --settings": ["recipe", "heron_no_level1", "--settings"],
    "completion of a model": [],
    "board --quick": ["board", "--quick"],
}
_PROGRAM = "import sys; sys.argv[0] = 'heronry'; from pipeline.__main__ import main; main()"
_ASKED = {
    "_HERONRY_COMPLETE": "complete_bash",
    "COMP_WORDS": "heronry build hc",
    "COMP_CWORD": "2",
}


def cpu_seconds(words: list[str]) -> float:
    """CPU seconds of `heronry WORDS`; without words, of the completion of one."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", _PROGRAM, *words],
        env={**os.environ, **({} if words else _ASKED)},
        check=True,
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    rounds: Annotated[int, typer.Option(help="How often each command runs.")] = 5,
) -> None:
    """Measure and print CPU seconds by command."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for words in COMMANDS.values():
        cpu_seconds(words)  # compiles what is not compiled yet
    for _ in range(rounds):
        for name, words in COMMANDS.items():
            times[name].append(cpu_seconds(words))
    result = {
        name: {
            "median_cpu_seconds": round(statistics.median(found), 2),
            "range_cpu_seconds": [round(min(found), 2), round(max(found), 2)],
        }
        for name, found in times.items()
    }
    if as_json:
        print(json.dumps(result))
        return
    for name, row in result.items():
        print(f"{name:22} {row['median_cpu_seconds']:5} s  {row['range_cpu_seconds']}")


if __name__ == "__main__":
    typer.run(main)
