"""Ctrl-C and SIGTERM at any moment: one line and a status. Workers end with their parent."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import features
from features.errors import MachineError
from features.process.workers import WorkerPool

ROOT = Path(features.__file__).parents[1]
LINE = "the work is kept"
INIT = f"from features.process.interrupts import listen\nlisten(__name__, {{'': {LINE!r}}})\n"
# Where the signal comes: in each, whatever is left of the command must not be heard of.
MOMENTS = {
    "importing": "os.kill(os.getpid(), number)",
    "running": "run_command(lambda: [os.kill(os.getpid(), number), time.sleep(50)])",
    "twice": """
def stubborn():
    try:
        os.kill(os.getpid(), number)
        time.sleep(50)
    finally:
        os.kill(os.getpid(), number)
        time.sleep(50)
run_command(stubborn)
""",
    "in a finalizer": """
class Last:
    def __del__(self):
        os.kill(os.getpid(), number)
        time.sleep(50)
run_command(Last)
""",
    "passed on as another error": """
def importing():
    try:
        os.kill(os.getpid(), number)
        time.sleep(50)
    except BaseException as error:
        raise ImportError("numpy is broken") from error
run_command(importing)
""",
    "passed over": """
def deaf():
    with contextlib.suppress(BaseException):
        os.kill(os.getpid(), number)
        time.sleep(50)
run_command(deaf)
""",
    "after the end": """
import atexit
atexit.register(time.sleep, 50)
atexit.register(os.kill, os.getpid(), number)
run_command(int)
""",
    "beside workers": """
def pooled():
    with WorkerPool(1) as pool:
        futures = [pool.submit(time.sleep, 60) for _ in range(4)]
        pool.submit(time.monotonic)
        os.kill(os.getpid(), number)
        time.sleep(50)
if __name__ == "__main__":
    run_command(pooled)
""",
}
HEAD = """
import contextlib, os, sys, time
from features.process.command import run_command
from features.process.workers import WorkerPool
number = int(sys.argv[1])
"""


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that send themselves a signal."""
    folder = tmp_path_factory.mktemp("commands")
    for number, text in enumerate(MOMENTS.values()):
        package = folder / f"command{number}"
        package.mkdir()
        (package / "__init__.py").write_text(INIT)
        (package / "__main__.py").write_text(HEAD + text)
    return folder


def environment(*more: Path) -> Mapping[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, *more)))}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_line_and_the_status(commands: Path, moment: str, number: signal.Signals) -> None:
    words = [sys.executable, "-m", f"command{list(MOMENTS).index(moment)}", str(int(number))]
    # Less than a command sleeps that goes on.
    done = subprocess.run(
        words, env=environment(commands), capture_output=True, text=True, timeout=45, check=False
    )
    what = {signal.SIGINT: "interrupted", signal.SIGTERM: "stopped by SIGTERM"}[number]
    assert (done.stdout, done.stderr) == ("", f"{what}: {LINE}\n")
    assert done.returncode == 128 + number


@pytest.mark.parametrize("command", ["stages.extract", "stages.selection", "pipeline"])
def test_real_commands_listen_before_they_import_anything_slow(command: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", command, "--help"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not caught(process.pid) & 1 << signal.SIGTERM - 1:  # Python itself catches SIGINT only
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert re.fullmatch(
        "interrupted: .*run the same command again\n|interrupted: .* resumes\n", told
    )
    assert told.count("\n") == 1


def caught(process: int) -> int:
    """The signals that a process has handlers for, as bits."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("SigCgt:")).split()[1], 16)


def test_only_the_command_that_python_runs_listens() -> None:
    """The tests import all packages, and are none of their commands."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


PARENT = """
import os, time
from features.process.workers import WorkerPool
if __name__ == "__main__":
    pool = WorkerPool(2)
    print(*{pool.submit(os.getpid).result() for _ in range(20)}, flush=True)
    for _ in range(4):
        pool.submit(time.sleep, 60)
    time.sleep(60)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    with started(tmp_path / "parent.py") as process:
        assert process.stdout is not None
        workers = [int(number) for number in process.stdout.readline().split()]
        process.kill()
        process.wait()
        deadline = time.monotonic() + 45  # less than they sleep
        while any(alive(worker) for worker in workers):
            assert time.monotonic() < deadline, "workers outlive their parent"
            time.sleep(0.02)
    assert workers


LOADING = """
import os, time, torch
from features.backbones.tone import Tone
from features.extraction.batches import prepare_ahead
class Slow(Tone):
    def prepare(self, utterances):
        print(os.getpid(), flush=True)
        time.sleep(60)
if __name__ == "__main__":
    next(prepare_ahead(Slow(), [[1], [2]], workers=1, device=torch.device("cpu")))
"""


LAUNCHER = """
import os, subprocess, sys, time
if sys.argv[1:]:
    from pipeline.runtime.launch import _end_with_launcher
    _end_with_launcher()
    print(os.getpid(), flush=True)
    time.sleep(60)
subprocess.run([sys.executable, __file__, "rank"], env=os.environ | {"TORCHELASTIC_RUN_ID": "x"})
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [LOADING, LAUNCHER])
def test_others_end_with_a_parent_that_is_killed(tmp_path: Path, script: str) -> None:
    """A loader's workers while they prepare, when torch's own watch does not look; and ranks."""
    (tmp_path / "script.py").write_text(script)
    with started(tmp_path / "script.py") as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.kill()
        process.wait()
        deadline = time.monotonic() + 45
        while alive(worker):
            assert time.monotonic() < deadline, "a worker outlives its parent"
            time.sleep(0.02)


@contextlib.contextmanager
def started(script: Path) -> Iterator[subprocess.Popen[str]]:
    """A script in a session of its own, all of which is ended at last."""
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_pool_waits_for_its_work_and_passes_errors_on() -> None:
    with WorkerPool(1) as pool:
        assert [pool.submit(abs, -3).result(), *pool.map(abs, [-1, -2])] == [3, 1, 2]
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()
        # On the way back an error would lose where it arose, so that it is made a message there.
        full = pool.submit(Path("/dev/full").write_text, "x")
        with pytest.raises(MachineError, match=r"cannot read or write /dev/full \(No space"):
            full.result()
