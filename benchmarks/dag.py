"""Time that DVC itself takes: `dvc repro` with nothing to do, and switching the fusion.

    python -m benchmarks.dag [--json] [--rounds 5]

Run it after `make run`. The switch is `dvc exp run -S fusion=concat` and back to heron, with both
trained already, so that nothing runs but DVC: training aside, that is what switching costs. The two
are interleaved, since machines are noisy; medians are reported with their range.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import Annotated

import typer

COMMANDS = {
    "noop_repro": ["repro"],
    "switch_to_concat": ["exp", "run", "-S", "fusion=concat"],
    "switch_to_heron": ["exp", "run", "-S", "fusion=heron"],
}


def seconds(words: list[str]) -> tuple[float, str]:
    """Wall-clock seconds of a DVC command, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words], check=True, capture_output=True, text=True
    )
    return time.perf_counter() - start, done.stdout


def main(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    rounds: Annotated[int, typer.Option(help="How often each command runs.")] = 5,
) -> None:
    """Measure and print seconds by command."""
    for words in COMMANDS.values():
        seconds(words)  # trains what is not trained yet
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, words in COMMANDS.items():
            took, said = seconds(words)
            if "> python" in said:
                sys.exit(f"{name} ran a stage; expected nothing to run:\n{said}")
            times[name].append(took)
    noop = statistics.median(times["noop_repro"])
    result = {
        name: {
            "median_seconds": round(statistics.median(found), 2),
            "range_seconds": [round(min(found), 2), round(max(found), 2)],
            "ratio_to_noop": round(statistics.median(found) / noop, 2),
        }
        for name, found in times.items()
    }
    if as_json:
        print(json.dumps(result))
        return
    for name, row in result.items():
        print(f"{name:18} {row['median_seconds']:6} s  {row['range_seconds']}")


if __name__ == "__main__":
    typer.run(main)
