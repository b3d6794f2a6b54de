"""Running DVC as people do, with this interpreter's `python` in the stages' commands."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from features.errors import HeronryError

PREPARE = "stages/prepare/dvc.yaml:prepare@{corpus}"
EXTRACT = "stages/extract/dvc.yaml:extract@{corpus}-{backbone}"


class DvcError(HeronryError):
    """A DVC command did not succeed."""


def run_dvc(words: Sequence[str]) -> None:
    """Run `dvc WORDS`; what it says goes where ours goes.

    Raises:
        DvcError: If it fails.
    """
    done = subprocess.run(_command(words), env=_environment(), check=False)
    if done.returncode:
        raise DvcError(
            f"`{shown(words)}` failed with exit status {done.returncode}; what it says is above. "
            "Finished work is kept: mend the cause and run the same command again"
        )


def dvc_output(words: Sequence[str]) -> str:
    """Standard output of `dvc WORDS`.

    Raises:
        DvcError: If it fails, with what it said last.
    """
    done = subprocess.run(
        _command(words), env=_environment(), check=False, capture_output=True, text=True
    )
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or "nothing said"
        raise DvcError(f"`{shown(words)}` failed: {said.splitlines()[-1]}; run this in the project")
    return done.stdout


def shown(words: Sequence[str]) -> str:
    """The command as one would type it.

    >>> shown(["repro", "extract@my corpus"])
    "dvc repro 'extract@my corpus'"
    """
    return shlex.join(["dvc", *words])


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "dvc", *words]


def _environment() -> dict[str, str]:
    # Stages say `python`; a virtual environment that is not activated is not on the path.
    beside = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{beside}{os.pathsep}{os.environ.get('PATH', '')}"}
