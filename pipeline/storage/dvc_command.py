"""Run DVC commands, with this interpreter as the `python` of the stages."""

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
    """A DVC command failed."""


def run_dvc(words: Sequence[str]) -> None:
    """Run `dvc WORDS`; its output goes to this process's output.

    Raises:
        DvcError: If it fails.
    """
    done = _run(words, capture=False)
    if done.returncode:
        raise DvcError(
            f"`{shown(words)}` failed with exit status {done.returncode}; its messages are above. "
            "Finished work is kept: correct the cause and run the same command again"
        )


def dvc_output(words: Sequence[str]) -> str:
    """Standard output of `dvc WORDS`.

    Raises:
        DvcError: If it fails, with the last line of its messages.
    """
    done = _run(words, capture=True)
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or "no message"
        raise DvcError(f"`{shown(words)}` failed: {said.splitlines()[-1]}; run this in the project")
    return done.stdout


def shown(words: Sequence[str]) -> str:
    """The command as it is typed into a shell.

    >>> shown(["repro", "extract@my corpus"])
    "dvc repro 'extract@my corpus'"
    """
    return shlex.join(["dvc", *words])


def obstacles() -> list[str]:
    """Problems with Git that would stop DVC here, one line each; `check` reports them early."""
    if (found := _no_repository()) is not None:
        return [found]
    lines = []
    if git("rev-parse", "HEAD") is None:
        lines.append(
            "the Git repository has no commit yet, from which `dvc exp run` starts: "
            "git add -A && git commit -m Start"
        )
    lacking = [key for key in ("user.name", "user.email") if not git("config", key)]
    if lacking:
        lines.append(
            f"Git knows no {' and no '.join(lacking)}, without which `dvc exp run` fails: "
            + " && ".join(f"git config --global {key} ..." for key in lacking)
        )
    return lines


def _no_repository() -> str | None:
    here = Path.cwd()
    if any((folder / ".git").exists() for folder in (here, *here.parents)):
        return None
    return (
        f"{here} is no Git repository, without which DVC does not run: clone the project rather "
        "than copy it, or git init && git add -A && git commit -m Start"
    )


def _run(words: Sequence[str], *, capture: bool) -> subprocess.CompletedProcess[str]:
    if (found := _no_repository()) is not None:
        raise DvcError(found)
    # Stages run `python`; the folder of a virtual environment that is not activated is not on PATH.
    beside = str(Path(sys.executable).parent)
    path = f"{beside}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        # A USER that the environment has takes precedence.
        env={"USER": _user(), **os.environ, "PATH": path},
        check=False,
        capture_output=capture,
        text=True,
    )


def _user() -> str:
    """A name for DVC, which fails for the user of a container who has a number only."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
