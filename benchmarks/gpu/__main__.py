"""Proves every GPU claim on one machine, without a network: first that it is right, then how fast.

    python -m benchmarks.gpu [--quick] [--device cuda|cpu] [--only NAME ...] [--out FOLDER]
        [--minutes 9]

Correct is what agrees with the CPU to a stated tolerance: features of seven networks in float32 and
bfloat16, work that is halved where memory runs out for real, work that was stopped and run again
(the same bytes), training on caches and end to end in three precisions, several GPUs. Speed is a
fraction of the measured peak of bfloat16 matrix products, a factor over plain programs (a loop over
files; transformers' Trainer) that take turns with ours, and seconds of a training. Goals stand
beside what was found. Weights are random, of real architecture and size; audio is made up.

Each part has a time budget. When it ends, its result is written to DATE-gpu-NAME.json in FOLDER
(benchmarks/results), with a page beside it; the same command resumes with the parts that are
missing, or failed. Parts run in a process that may fail, hang or die without ending the rest.
`--quick` tries all of it on tiny networks, on a CPU in less than a minute: it shows that the
program works, and nothing of a GPU.

Exit status: 0, all parts passed, or do not apply to this machine; 1, one failed; 3, none failed and
some are missing. Goals do not count. What was proven on which card: docs/gpu.md.
"""

from __future__ import annotations

import argparse
import fnmatch
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.child import Child, Outcome
from benchmarks.gpu.page import page
from benchmarks.gpu.parts import PARTS, Part
from benchmarks.gpu.record import ROOT, Record

RESULTS = ROOT / "benchmarks" / "results"
OVERRUN, LEAST = 2.0, 60.0  # times its budget, and seconds, after which a part is ended


def main(words: Sequence[str] | None = None, parts: Sequence[Part] = PARTS) -> int:
    """Run what is missing, and return the exit status.

    Args:
        words: Arguments of the command; None: those of this process.
        parts: Parts to run.
    """
    asked = arguments().parse_args(words)
    ends = time.monotonic() + 60 * asked.minutes
    with tempfile.TemporaryDirectory(prefix="heronry-gpu-") as scratch:
        device = asked.device or ("cpu" if asked.quick else "")
        child = Child(device, quick=asked.quick, scratch=Path(scratch))
        try:
            record = Record(asked.out, child.start(), quick=asked.quick, parts=parts)
            run(child, record, chosen(record, asked.only), ends)
        finally:
            child.stop()
    failed = [name for name, each in record.content["parts"].items() if each["state"] == "failed"]
    missing = [part.name for part in record.missing() if part.name not in failed]
    say(f"wrote {record.path} and {record.path.with_suffix('.html').name}")
    if failed:
        say(f"failed: {', '.join(failed)}")
    if missing:
        say(f"missing: {', '.join(missing)}; the same command goes on with them")
    return record.status()


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=(__doc__ or "")[:75])
    parser.add_argument("--quick", action="store_true", help="tiny networks, on a CPU by default")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda if there is one")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="parts; * stands for anything")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the file of results")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which no part begins")
    return parser


def chosen(record: Record, only: Sequence[str] | None) -> list[Part]:
    """Parts to run: those that are missing, or those that are named.

    Raises:
        SystemExit: If a name is no part's.
    """
    if only is None:
        return record.missing()
    names = [part.name for part in record.parts]
    unknown = [name for name in only if not fnmatch.filter(names, name)]
    if unknown:
        raise SystemExit(f"--only {' '.join(unknown)}: expected some of {', '.join(names)}")
    return [p for p in record.parts if any(fnmatch.fnmatch(p.name, name) for name in only)]


def run(child: Child, record: Record, parts: Sequence[Part], ends: float) -> None:
    """Run parts until the time is up, and write the results after each.

    Args:
        child: Runs them.
        record: Takes their outcomes.
        parts: In order.
        ends: When the time is up, by `time.monotonic`.
    """
    machine = ", ".join(record.content["machine"]["gpus"]) or "no GPU"
    begins = f"goes on with {record.path}" if record.resumes else f"begins {record.path}"
    say(f"{machine}: {begins}, {len(parts)} parts to run, {ends - time.monotonic():.0f} s")
    for number, part in enumerate(parts, 1):
        left = ends - time.monotonic()
        budget = 0.0 if child.quick else part.seconds
        if left < max(budget, 1.0):
            say(f"[{number}/{len(parts)}] {part.name}: not begun, {max(left, 0):.0f} s are left")
            continue
        say(f"[{number}/{len(parts)}] {part.name}: up to {part.seconds:.0f} s; {left:.0f} s left")
        begun = time.monotonic()
        limit = left if child.quick else min(left, max(LEAST, OVERRUN * part.seconds))
        outcome = child.run(part, limit)
        outcome["seconds"] = round(time.monotonic() - begun, 1)
        record.add(part, outcome)
        html = page(record.content, record.parts)
        record.path.with_suffix(".html").write_text(html, encoding="utf-8")
        say(f"    {outcome['state']} in {outcome['seconds']:.0f} s{_details(outcome)}")


def _details(outcome: Outcome) -> str:
    """What a line says of an outcome: its message, and bounds that are not kept."""
    bounds = (*outcome.get("checks", []), *outcome.get("goals", []))
    missed = [
        f"{each['what']}: {each['found']:g}, expected {each['sense']} {each['limit']:g}"
        for each in bounds
        if not each["holds"]
    ]
    message = [outcome["message"]] if outcome.get("message") else []
    return "".join(f"; {text}" for text in (*message, *missed))


def say(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the parts end as well
    sys.exit(main())
