"""Runs in processes that are forked once everything is imported, to be killed at any instant."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

PROGRAM = """
import json, os, sys
import torch
{imports}
from pipeline.params.file import Params

torch.set_num_threads(1)
torch.optim.AdamW([torch.zeros(1)])  # imports much when it is first made

if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.setsid()
            sys.stderr = open("errors.txt", "a")
            request = json.loads(line)
            params, workers = Params(**request["params"]), request["workers"]
            try:
                {train}
            except HeronryError as error:
                print(error, file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class ForkServer:
    """A process that forks a run for each request; what runs print is appended to errors.txt.

    Args:
        folder: Its current folder.
        imports: Import statements, of `HeronryError` too.
        train: Statement that trains, by `params` and `workers`.
    """

    def __init__(self, folder: Path, imports: str, train: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(imports=imports, train=train)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    def start(self, params: Any, workers: int = 1) -> int:
        """Begin a run in a process group of its own; its process id."""
        assert self.process.stdin is not None
        request = {"params": dataclasses.asdict(params), "workers": workers}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.number()

    def number(self) -> int:
        """The process id, then the exit status of the run."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@contextlib.contextmanager
def serving(folder: Path, imports: str, train: str) -> Iterator[ForkServer]:
    """A server that ends with the context."""
    server = ForkServer(folder, imports, train)
    with server.process:
        yield server
        assert server.process.stdin is not None
        server.process.stdin.close()


def group(leader: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


def without_seconds(files: dict[str, bytes]) -> dict[str, Any]:
    """Files of a run, but for what of run.json differs each time."""
    run = json.loads(files["run.json"])
    for name in ("train_seconds", "environment"):  # the environment has the date
        del run[name]
    return {**files, "run.json": run}
