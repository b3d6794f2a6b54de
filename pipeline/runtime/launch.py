"""Joins the processes that `accelerate launch`, torchrun or mpirun has started, by Accelerate.

Everything that decides numbers is in params.yaml, so that a launcher's own settings of that kind
are refused rather than ignored.
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
# Number of processes, by launcher: torchrun and accelerate, MPICH and Intel MPI, Open MPI.
COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
PATIENCE = timedelta(hours=2)  # the others wait while the first one hashes, saves and exports
# Settings of `accelerate launch`: name, allowed values, and what to set instead.
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
    """Replace this process by the launcher that `HERONRY_E2E_LAUNCH` names, which starts it again.

    With `accelerate launch --multi_gpu --num_processes 4`, say, the same command, DVC's, runs on
    four GPUs. Nothing happens without the variable, or in a process that was launched.

    Args:
        module: Module of this program, as for `python -m`.
        arguments: Arguments of this program.

    Raises:
        ParamsError: If there is no such launcher.
    """
    words = shlex.split(os.environ.pop(LAUNCH, ""))
    if not words or process_count() > 1:
        return
    beside = Path(sys.executable).parent  # in a virtual environment that is not activated
    program = shutil.which(words[0]) or shutil.which(words[0], path=str(beside))
    if program is None:
        raise ParamsError(
            f"{LAUNCH} is {shlex.join(words)!r}, and there is no program {words[0]!r}; expected a "
            "launcher with its options, such as `accelerate launch --multi_gpu --num_processes 2`"
        )
    _become(program, [*words, "-m", module, *arguments])


def process_count() -> int:
    """Number of processes that the launcher has started; 1 without a launcher."""
    return max(int(os.environ.get(name) or 1) for name in COUNTS)


@contextlib.contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the launcher's processes within this context.

    Args:
        device: `cpu`, or `cuda`: then the n-th process of a host uses its n-th GPU.

    Raises:
        ParamsError: If the launcher has a setting that params.yaml decides, or an unsupported one.
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
        # Usually all processes have the same error: then the first one prints it for all.
        if not ranks.is_first and ranks.first_has_ended():
            sys.exit(1)
        raise
    dist.destroy_process_group()  # not after an error, when it might wait for the others


def _end_with_launcher() -> None:
    """Start a watchdog that ends this process when torch's launcher has ended.

    Not under other launchers: the parent may be a shell that ends on purpose.
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
    # NCCL sends what is on GPUs only; small values and CPU tensors need a group of their own.
    small = None if on_cpu else dist.new_group(backend="gloo", timeout=PATIENCE)
    own = "cpu" if on_cpu else str(state.device)
    return Ranks(state.num_processes, state.process_index, own, small)


def _check() -> None:
    for name, allowed, remedy in REFUSED:
        given = os.environ.get(name, "").lower()
        if given not in allowed:
            raise ParamsError(
                f"the launcher has set {name}={given}; expected {allowed[-1]!r} here: {remedy}"
            )


def _become(program: str, words: Sequence[str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(program, list(words))
