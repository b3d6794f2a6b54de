"""Fixtures: audio of known content, small manifests, a private work store."""

from __future__ import annotations

import gc
import os
import signal
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, settings

from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance
from features.files.reading import file_sha256

# No test asks a model hub: each name that is not there would be asked for some 20 s, with pauses.
os.environ["HF_HUB_OFFLINE"] = "1"

# Only processes with emulated devices can import these, and `--doctest-modules` would in all.
collect_ignore = [] if "EMULATED_CUDA_LIBRARY" in os.environ else ["support/emulated_cuda"]

# A shell that starts a job in the background has it ignore Ctrl-C, which commands under test would
# inherit: they leave it ignored, and a test that sends it would wait in vain.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

RATE = 16_000
settings.register_profile(
    "default",
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("default")
ManifestMaker = Callable[..., Manifest]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the longest tests first, so that no process is left alone with one at the end."""
    long = ("embedded", "dvc"), ("slow",)
    ranks: dict[Path, int] = {}
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        rank = next((n for n, names in enumerate(long) if marks & set(names)), len(long))
        ranks[item.path] = min(rank, ranks.get(item.path, rank))
    items.sort(key=lambda item: ranks[item.path])
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    seed_torch(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    seed_torch(item)


def seed_torch(item: pytest.Item) -> None:
    """What torch draws depends on the test alone; pytest-randomly sees to Python and NumPy."""
    seed = item.config.getoption("randomly_seed", 0)
    torch.manual_seed(zlib.crc32(f"{seed} {item.nodeid}".encode(errors="surrogatepass")))


@pytest.fixture(scope="module", autouse=True)
def small_collections() -> None:
    """Have the collector look at objects of this file alone.

    What does not fit is computed again after a collection, which takes seconds late in a process
    that has run thousands of tests.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A store for fixtures of modules and sessions, which are made before a test has its own."""
    with pytest.MonkeyPatch.context() as patch:
        set_apart(patch, tmp_path_factory)
        yield


@pytest.fixture(autouse=True)
def private_store(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A store that no other test has seen."""
    return set_apart(monkeypatch, tmp_path_factory)


def set_apart(patch: pytest.MonkeyPatch, folders: pytest.TempPathFactory) -> Path:
    """Use a new store, and none of the user's settings; returns the store."""
    store = folders.mktemp("store") / "shards"
    patch.setenv("HERONRY_STORE", str(store))
    patch.setenv("HERONRY_DEVICE", "cpu")
    patch.delenv("HERONRY_CHECKPOINTS", raising=False)
    return store


@pytest.fixture
def make_manifest(tmp_path: Path) -> ManifestMaker:
    """A function that writes tones of the given seconds and returns their located manifest."""

    def make(
        seconds: Sequence[float], *, folder: str = "audio", start: int = 0, **cut: float
    ) -> Manifest:
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        rows = []
        for number, length in enumerate(seconds, start):
            path = root / f"u{number}.wav"
            soundfile.write(path, tone(100.0 + 40 * number, length), RATE, subtype="PCM_16")
            rows.append(
                Utterance(
                    id=f"u{number}",
                    audio=path.name,
                    sha256=file_sha256(path),
                    text=f"this is utterance {'number ' * (number % 5)}{number}",
                    seconds=length,
                    bytes=path.stat().st_size,
                    asr=f"this utterance {'number ' * (number % 4)}is",
                )
            )
        settings = {"shard_seconds": 2.0, "shard_characters": 80} | cut
        return Manifest("tones", tuple(rows), **settings).located(root)  # type: ignore[arg-type]

    return make


def tone(hz: float, seconds: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A tone with three harmonics and a slow tremor, `[L]`."""
    time = np.arange(round(seconds * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * hz * k * time) / k for k in (1, 2, 3))
    return np.asarray(0.2 * wave * (1 + 0.3 * np.sin(2 * np.pi * 3 * time)))
