"""A process that runs parts one after the other, so that its supervisor outlives what they do.

A part may hang, be killed for memory, or leave the GPU unusable ("illegal memory access"): after
any error the process is replaced. What parts print goes to a file.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import Part

Outcome = dict[str, Any]
LOG_LINES = 12  # of a part that failed, in the file of results
PACKAGES = ("torch", "transformers", "numpy", "h5py", "accelerate")


class Child:
    """The process, started when it is needed.

    Args:
        device: `cuda`, `cpu`, or empty: cuda if there is one.
        quick: Whether networks and corpora are tiny.
        scratch: Folder for everything that parts write.
    """

    def __init__(self, device: str, *, quick: bool, scratch: Path) -> None:
        self.device, self.quick, self.scratch = device, quick, scratch
        self.facts: Outcome = {}
        self._pipe: Connection | None = None
        self._process: Any = None
        self._log = scratch / "log.txt"

    def start(self) -> Outcome:
        """Start the process, and return what it finds of the machine."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.device, self._log))
        self._process.start()
        theirs.close()
        found = self._receive(time.monotonic() + 120)
        if found is None or "error" in found:
            self.stop()
            raise SystemExit((found or {}).get("error", f"no process started: see {self._log}"))
        self.device, self.facts = found["device"], found
        return found

    def run(self, part: Part, limit: float) -> Outcome:
        """Run a part for at most `limit` seconds.

        Returns:
            `state` (passed, failed or skipped), and if there is one a `message`; the content of
            its report, which is incomplete if it failed.
        """
        if self._process is None:
            self.start()
        assert self._pipe is not None
        with tempfile.TemporaryDirectory(dir=self.scratch, prefix=f"{part.name}-") as folder:
            shared = self.scratch / "shared"
            settings = (self.quick, Path(folder), shared, min(part.seconds, limit))
            self._pipe.send((part, *settings))
            outcome = self._outcome(time.monotonic() + limit, limit)
        if outcome["state"] == "failed" and "message" in outcome:
            outcome["log"] = self._tail()
            self.stop()
        return outcome

    def stop(self) -> None:
        """End the process and those that it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.join()
            assert self._pipe is not None
            self._pipe.close()
        self._process = self._pipe = None

    def _outcome(self, deadline: float, limit: float) -> Outcome:
        found: Outcome = {}
        while True:
            message = self._receive(deadline)
            if message is None:
                how = f"it took longer than {limit:.0f} s and was ended"
                if not self._process.is_alive():
                    how = f"its process ended by itself, with {self._process.exitcode}"
                return {**found, "state": "failed", "message": how}
            found |= message
            if "state" in found:
                return found

    def _receive(self, deadline: float) -> Outcome | None:
        """The next message; None: it is too late, or the process has ended."""
        assert self._pipe is not None
        if not wait([self._pipe], max(0.0, deadline - time.monotonic())):
            return None
        try:
            message: Outcome = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            return None
        return message

    def _tail(self) -> list[str]:
        text = self._log.read_text(encoding="utf-8", errors="replace")
        return [line[:300] for line in text.splitlines() if line.strip()][-LOG_LINES:]


def _serve(pipe: Connection, device: str, log: Path) -> None:
    """Run parts as they are asked for."""
    os.setsid()  # a group of its own, which ends as a whole
    with log.open("a", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    _obey_quota()
    # As in a training job, and before cuBLAS begins: else its results vary.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    from features.process.workers import end_with_parent

    end_with_parent()
    facts = _facts(device)
    pipe.send(facts)
    while True:
        part, quick, folder, shared, seconds = pipe.recv()
        shared.mkdir(parents=True, exist_ok=True)
        pipe.send(_run(part, pipe, (facts["device"], quick, folder, shared, seconds)))
        _tidy()


def _obey_quota() -> None:
    """Have torch start as many threads as a container may use at once; before it is imported."""
    quota = Path("/sys/fs/cgroup/cpu.max")
    words = quota.read_text(encoding="utf-8").split() if quota.is_file() else ["max"]
    if words[0] != "max":
        threads = max(1, int(words[0]) // int(words[1]))
        os.environ.setdefault("OMP_NUM_THREADS", str(min(threads, len(os.sched_getaffinity(0)))))


def _run(part: Part, pipe: Connection, settings: tuple[Any, ...]) -> Outcome:
    from benchmarks.gpu.part import Bench, Report, SkippedError

    report = Report(pipe.send)
    module, _, function = part.work.partition(":")
    try:
        work = getattr(importlib.import_module(module), function)
        work(Bench(*settings), report, *part.arguments)
    except SkippedError as error:
        return {"state": "skipped", "message": str(error)}
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        kind = "" if isinstance(error, SystemExit) else f"{type(error).__name__}: "
        return {**report.content(), "state": "failed", "message": f"{kind}{error}"}
    holds = all(each.holds for each in report.checks)
    return {**report.content(), "state": "passed" if holds else "failed"}


def _tidy() -> None:
    """Give back what a part leaves behind, ahead of the next one."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    sys.stderr.flush()


def _facts(device: str) -> Outcome:
    """What matters of the machine; or what it lacks, as `error`."""
    import importlib.metadata
    import importlib.util

    import torch

    lacking = [name for name in ("soundfile", "accelerate") if not importlib.util.find_spec(name)]
    if lacking:
        return {"error": f"{' and '.join(lacking)} cannot be imported; install it (docs/gpu.md)"}
    from features.extraction.batches import SHARED_MEMORY  # which needs these

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        return {"error": "--device cuda: torch finds no CUDA device; leave it out to use the CPU"}
    gpus = []
    if device == "cuda":
        for number in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(number)
            gpus.append(f"{found.name}, {found.total_memory / 2**30:.0f} GiB")
    shared = shutil.disk_usage(SHARED_MEMORY).free / 2**30 if SHARED_MEMORY.is_dir() else 0.0
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "device": device,
        "gpus": gpus,
        "processor": f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB",
        "shared_memory": f"{shared:.1f} GiB free",  # decoders need half a one
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
    }
