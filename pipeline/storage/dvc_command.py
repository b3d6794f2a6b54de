"""Running DVC as people do, with this interpreter's `python` in the stages' commands."""

from __future__ import annotations

import getpass
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from features.errors import HeronryError
from pipeline.runtime.environment import git

PREPARE = "stages/prepare/dvc.yaml:prepare@{corpus}"
EXTRACT = "stages/extract/dvc.yaml:extract@{corpus}-{backbone}"


class DvcError(HeronryError):
    """A DVC command did not succeed."""


def run_dvc(words: Sequence[str]) -> None:
    """Run `dvc WORDS`; what it says goes where ours goes.

    Raises:
        DvcError: If it fails.
    """
    _require_repository()
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
    _require_repository()
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


def obstacles() -> list[str]:
    """What of Git would stop DVC here, a line each: for `check`, before hours are spent."""
    if (found := _no_repository()) is not None:
        return [found]
    told = []
    if git("rev-parse", "HEAD") is None:
        told.append(
            "the Git repository has no commit yet, from which `dvc exp run` starts: "
            "git add -A && git commit -m Start"
        )
    lacking = [key for key in ("user.name", "user.email") if not git("config", key)]
    if lacking:
        told.append(
            f"Git knows no {' and no '.join(lacking)}, without which `dvc exp run` fails: "
            + " && ".join(f"git config --global {key} ..." for key in lacking)
        )
    return told


def _no_repository() -> str | None:
    here = Path.cwd()
    if any((folder / ".git").exists() for folder in (here, *here.parents)):
        return None
    return (
        f"{here} is no Git repository, without which DVC does not run: clone the project rather "
        "than copy it, or git init && git add -A && git commit -m Start"
    )


def _require_repository() -> None:
    if (found := _no_repository()) is not None:
        raise DvcError(found)


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "dvc", *words]


def _environment() -> dict[str, str]:
    # Stages say `python`; a virtual environment that is not activated is not on the path.
    beside = str(Path(sys.executable).parent)
    return {**_user(), **os.environ, "PATH": f"{beside}{os.pathsep}{os.environ.get('PATH', '')}"}


def _user() -> dict[str, str]:
    """A name for a container's user without one, which DVC asks for and would not go on without."""
    try:
        return {"USER": getpass.getuser()}
    except (KeyError, OSError):
        return {"USER": str(os.getuid())}
