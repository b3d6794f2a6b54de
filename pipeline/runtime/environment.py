"""Describes the environment of a computation for run.json: machine, time, commit, packages."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "torchaudio", "numpy", "scikit-learn", "h5py", "pyworld")
_CPUINFO = Path("/proc/cpuinfo")


def environment(device: str = "cpu") -> dict[str, Any]:
    """Facts about the environment, for JSON; None where one is unknown.

    Args:
        device: Device of the computation, as torch names it.

    Returns:
        `date` (UTC, to the second), `command`, `commit` and `dirty` of the current folder's
        repository (whether tracked files differ from the commit), `device`, `cpu`, `cores`,
        `memory_gib`, `platform`, `python` and `packages`. No path of the machine is among them,
        unless it was an argument of the command.
    """
    changes = git("status", "--porcelain", "--untracked-files=no")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(sys.orig_argv),  # sys.argv has a path in place of `-m stages.train`
        "commit": git("rev-parse", "HEAD"),
        "dirty": None if changes is None else bool(changes),
        "device": _device_name(device),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def command(words: list[str]) -> str:
    """A command line as one would type it, without the folder of its interpreter.

    >>> command(["/somewhere/bin/python", "-m", "stages.train", "my corpus", "heron"])
    "python -m stages.train 'my corpus' heron"
    """
    return shlex.join([Path(words[0]).name, *words[1:]]) if words else ""


def git(*arguments: str) -> str | None:
    """Output of `git ARGUMENTS`; None if it fails, or without Git."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _device_name(device: str) -> str:
    if not device.startswith("cuda"):
        return device
    import torch

    return f"{device}: {torch.cuda.get_device_name(device)}"


def _cpu() -> str | None:
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or None


def _memory_gib() -> float | None:
    try:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    return round(size / 2**30, 1)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
