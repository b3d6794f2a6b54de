"""Run DVC commands, with this interpreter as the `python` of the stages."""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from features.errors import HeronryError
from features.process import interrupts
from pipeline.params.file import Params
from pipeline.runtime.environment import git

PREPARE = "stages/prepare/dvc.yaml:prepare@{corpus}"
EXTRACT = "stages/extract/dvc.yaml:extract@{corpus}-{backbone}"
EXTRACT_ASR = "stages/extract/dvc.yaml:extract_asr@{corpus}-{backbone}"  # of asr_backbones
EXTRACT_REGISTRY = "stages/extract/dvc.yaml:extract_registry@{corpus}-{backbone}"  # of registry
PATIENCE = 60.0  # seconds after Ctrl-C in which stages save their state


def extract_stage(params: Params, corpus: str, backbone: str) -> str:
    """DVC's name of the stage that extracts an entry of any section of backbones."""
    sections = {EXTRACT_ASR: params.asr_backbones, EXTRACT_REGISTRY: params.registry}
    name = next((stage for stage, has in sections.items() if backbone in (has or {})), EXTRACT)
    return name.format(corpus=corpus, backbone=backbone)


class DvcError(HeronryError):
    """A DVC command failed."""


def run_dvc(words: Sequence[str]) -> None:
    """Run `dvc WORDS`; its output goes to this process's output.

    Raises:
        DvcError: If it fails.
    """
    done = _run(words, capture=False)
    if done.returncode:
        raise DvcError(_failed(words, done.returncode))


def run_experiment(words: Sequence[str]) -> None:
    """Run `dvc exp run WORDS` as `run_stages` does."""
    run_stages(["exp", "run", *words])


def run_stages(command: Sequence[str]) -> None:
    """Run a command of DVC with a line for each stage; see `pipeline.storage.dvc_messages`.

    A signal ends this process only after DVC, which puts its own files in order.

    Raises:
        DvcError: If it fails. A stage or DVC has then written why.
    """
    # Not `-m`, under which this package would handle the signals that DVC handles.
    program = "from pipeline.storage.dvc_messages import main; main()"
    with subprocess.Popen([sys.executable, "-c", program, *command], env=_environment()) as process:
        try:
            process.wait()
        except BaseException:
            _end(process)
            raise
    if process.returncode:
        raise DvcError(
            "the experiment failed; the message above says why. Finished work is kept: correct the "
            "cause and run the same command again"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait until DVC has ended after a signal, which it takes for a failure of the running stage.

    A terminal sends Ctrl-C to DVC and its stages as well, and a second signal would end a stage
    before it has saved its state. Other signals reach this process alone and are passed on.
    """
    if interrupts.asked() == signal.SIGINT:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
            return
    for pid in _children(process.pid) or [process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    process.wait()


def _children(pid: int) -> list[int]:
    """Processes that a process started and that still run, where the system lists them."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def dvc_output(words: Sequence[str]) -> str:
    """Standard output of `dvc WORDS`.

    Raises:
        DvcError: If it fails, with the last line of its messages.
    """
    done = _run(words, capture=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise DvcError(f"`{shown(words)}` failed: {said.removeprefix('ERROR: ')}")
    return done.stdout


def shown(words: Sequence[str]) -> str:
    """The command as it is typed into a shell.

    >>> shown(["repro", "extract@my corpus"])
    "dvc repro 'extract@my corpus'"
    """
    return shlex.join(["dvc", *words])


def obstacles() -> list[str]:
    """Problems with Git and with DVC's files that would stop DVC here, one line each."""
    if (found := _no_repository()) is not None:
        return [found]
    if shutil.which("git") is None:
        return ["there is no program `git` on PATH, without which DVC does not run: install Git"]
    lines = torn_locks()
    if not Path(".dvc").is_dir():
        lines.append(
            "the folder .dvc is not there, without which DVC does not run: git checkout .dvc, or "
            "dvc init where Git does not have it"
        )
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


def torn_locks() -> list[str]:
    """A line if lock files have conflict marks of Git, which DVC only reports as invalid YAML."""
    torn = [
        str(path)
        for path in (Path("dvc.lock"), *sorted(Path("stages").glob("*/dvc.lock")))
        if path.is_file() and "\n<<<<<<< " in "\n" + path.read_text(encoding="utf-8")
    ]
    if not torn:
        return []
    return [
        f"{', '.join(torn)}: Git could not merge; take the other side's version whole (in a merge: "
        f"`git checkout --theirs {' '.join(torn)}`, in a rebase: `--ours`), then run this again: "
        "your own entries come back from DVC's run-cache without being computed"
    ]


def _no_repository() -> str | None:
    here = Path.cwd()
    if any((folder / ".git").exists() for folder in (here, *here.parents)):
        return None
    return (
        f"{here} is no Git repository, without which DVC does not run: clone the project rather "
        "than copy it, or git init && git add -A && git commit -m Start"
    )


def _failed(words: Sequence[str], status: int) -> str:
    return (
        f"`{shown(words)}` failed with exit status {status}; its messages are above. "
        "Finished work is kept: correct the cause and run the same command again"
    )


def _environment() -> dict[str, str]:
    # Stages run `python`; the folder of a virtual environment that is not activated is not on PATH.
    beside = str(Path(sys.executable).parent)
    path = f"{beside}{os.pathsep}{os.environ.get('PATH', '')}"
    # A USER that the environment has takes precedence.
    return {"USER": _user(), **os.environ, "PATH": path}


def _run(words: Sequence[str], *, capture: bool) -> subprocess.CompletedProcess[str]:
    if (found := _no_repository()) is not None:
        raise DvcError(found)
    return subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        env=_environment(),
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
