"""Comes together with the other processes that a launcher has started, by Hugging Face Accelerate.

What decides numbers stands in params.yaml alone, so that a launcher's own settings of that kind
are refused rather than passed over.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import torch.distributed as dist

from features.errors import HeronryError, ParamsError
from pipeline.training.ranks import ALONE, Ranks

LAUNCH = "HERONRY_E2E_LAUNCH"
# How many there are, by launcher: torchrun and accelerate, MPICH and Intel MPI, Open MPI.
COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
PATIENCE = timedelta(hours=2)  # for one that is late: the first one hashes, saves and exports
# Settings of `accelerate launch`: what they may be, and what to set instead.
REFUSED = (
    ("ACCELERATE_MIXED_PRECISION", ("", "no"), "add --mixed_precision no, and set `e2e.precision`"),
    *(
        (
            f"ACCELERATE_USE_{name}",
            ("", "false"),
            "data parallel training is what is supported, with the whole model on each GPU: launch "
            "with --multi_gpu (`distributed_type: MULTI_GPU` in accelerate's configuration)",
        )
        for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM")
    ),
)


def relaunch(module: str, arguments: Sequence[str]) -> None:
    """Become the launcher that `HERONRY_E2E_LAUNCH` names, which starts this program again.

    Such as `accelerate launch --multi_gpu --num_processes 4`. So one command, DVC's, runs on one
    GPU or on several. Nothing happens where the variable is not set, or in what was launched.

    Args:
        module: Of this program, as for `python -m`.
        arguments: Of this program.

    Raises:
        ParamsError: If there is no such launcher.
    """
    words = shlex.split(os.environ.pop(LAUNCH, ""))
    if not words or process_count() > 1:
        return
    beside = Path(sys.executable).parent  # a virtual environment need not be activated
    program = shutil.which(words[0]) or shutil.which(words[0], path=str(beside))
    if program is None:
        raise ParamsError(
            f"{LAUNCH} is {shlex.join(words)!r}, and there is no program {words[0]!r}; expected a "
            "launcher with its options, such as `accelerate launch --multi_gpu --num_processes 2`"
        )
    _become(program, [*words, "-m", module, *arguments])


def process_count() -> int:
    """How many processes the launcher has started; 1: there was none."""
    return max(int(os.environ.get(name) or 1) for name in COUNTS)


@contextlib.contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Be one of the launcher's processes while the context lasts.

    Args:
        device: cpu, or cuda: then each process of a host has the GPU of its number there.

    Raises:
        ParamsError: If the launcher was given what params.yaml decides, or what is not supported.
    """
    _check()
    if process_count() == 1:
        yield ALONE
        return
    _end_with_launcher()
    ranks = _join(device)
    try:
        yield ranks
        ranks.wait()
    except HeronryError:
        # Mostly all have the same error, which one of them tells.
        if not ranks.is_first and ranks.first_has_ended():
            sys.exit(1)
        raise
    dist.destroy_process_group()


def _end_with_launcher() -> None:
    """End this process when torch's launcher has ended, which by itself it would outlive.

    Not where others started it: by hand the parent may be a shell that ends on purpose.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _join(device: str) -> Ranks:
    from accelerate import PartialState  # type: ignore[import-untyped]

    on_cpu = not device.startswith("cuda")
    state = PartialState(cpu=on_cpu, timeout=PATIENCE)
    if state.num_processes != process_count():
        raise ParamsError(
            f"the launcher has started {process_count()} processes, and accelerate finds "
            f"{state.num_processes} on the device {device}; expected as many: start them by "
            "`accelerate launch` or torchrun"
        )
    small = None if on_cpu else dist.new_group(backend="gloo", timeout=PATIENCE)
    own = "cpu" if on_cpu else str(state.device)
    return Ranks(state.num_processes, state.process_index, own, small)


def _check() -> None:
    for name, allowed, remedy in REFUSED:
        given = os.environ.get(name, "").lower()
        if given not in allowed:
            raise ParamsError(
                f"the launcher was told {name}={given}; expected {allowed[-1]!r} here: {remedy}"
            )


def _become(program: str, words: Sequence[str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(program, list(words))
