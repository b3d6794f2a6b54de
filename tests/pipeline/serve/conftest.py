"""A model on loopback: a random BERT and tones, two seeds, classes and attributes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile

import pipeline
from features.backbone.entry import backbone_entry
from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance
from features.files.reading import file_sha256
from pipeline.handover.loading import LoadedRun
from pipeline.serve.app import serving
from pipeline.serve.gate import Access, Gate
from pipeline.serve.limits import Limits
from pipeline.serve.server import address, listening, running
from tests.conftest import RATE, tone
from tests.contracts.checkpoints import text_encoder
from tests.support.runs.random_run import RandomRun

HEARD = "it is <b>so</b> sad"
LIMITS = Limits(megabytes=0.5, seconds=10.0, waiting=8)
Builder = Callable[..., LoadedRun]


class FakeRecogniser:
    """Hears the same words in each clip."""

    failed: dict[str, str]

    def __init__(self) -> None:
        self.failed = {}

    def words(self, utterances: Iterable[Utterance]) -> Iterator[tuple[str, str]]:
        for each in utterances:
            yield each.id, HEARD


@dataclass(frozen=True)
class Server:
    """A server on loopback.

    Attributes:
        url: Its address.
        model: The model that it serves.
        client: A client of it.
        scratch: Folder in which its temporary folder is.
        gate: What its requests pass.
    """

    url: str
    model: LoadedRun
    client: httpx.Client
    scratch: Path
    gate: Gate

    def predict(self, path: Path | None = None, **fields: Any) -> dict[str, Any]:
        """The answer to a clip."""
        files = {} if path is None else {"audio": ("x.wav", path.read_bytes())}
        response = self.client.post("api/predict", files=files or None, data=fields)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found


@contextlib.contextmanager
def served(
    model: LoadedRun, *, access: Access | None = None, limits: Limits = LIMITS
) -> Iterator[Server]:
    recogniser: Any = FakeRecogniser()
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(listening("127.0.0.1", 0))
        url = address(taken)
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", scratch)
            app = stack.enter_context(serving(model, recogniser, access or Access(), limits))
        stack.enter_context(running(app, taken, limits))
        client = httpx.Client(base_url=url, trust_env=False, timeout=60)
        yield Server(url, model, stack.enter_context(client), Path(scratch), app)


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Context in which a folder is the current one, and the checkpoints of `build` are found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HERONRY_CHECKPOINTS", str(folder.parent / "checkpoints"))
        patch.setenv("HERONRY_DEVICE", "cpu")
        patch.chdir(folder)
        yield


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """A function that loads a model of a kind with random weights."""
    root = tmp_path_factory.mktemp("served")
    options = text_encoder.VARIANTS["bert"](root / "checkpoints/bert")
    words = {"kind": "text_encoder", "version": 2, **options, "checkpoint": "some/bert"}
    known = {
        "words": words,
        "voice": {"kind": "tone", "version": 3},
        "mean": {"kind": "tone", "version": 3, "pooling": "mean"},
        "pitch": {"kind": "f0", "version": 2, "method": "dio", "bins": 32, "f_min": 60},
    }

    def load(kind: str, slots: Mapping[str, str], **more: Any) -> LoadedRun:
        folder = root / "-".join((kind, *slots))
        folder.mkdir()
        with inside(folder):
            entries = {slot: backbone_entry(name, known[name]) for slot, name in slots.items()}
            run = RandomRun(folder, _manifest(folder / "audio"), entries, kind, **more)
            run.write(root / "store").prepare()
            return pipeline.load_run(run.path)

    return load


@pytest.fixture(scope="session")
def server(build: Builder) -> Iterator[Server]:
    model = build(
        "heron", {"text": "words", "speech": "voice"}, seeds=(0, 1), tasks=("classes", "attributes")
    )
    with served(model) as found:
        yield found


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A tone of 1.5 s."""
    return write_tone(tmp_path / "clip.wav", 1.5)


def write_tone(path: Path, seconds: float, hz: float = 150.0) -> Path:
    soundfile.write(path, tone(hz, seconds), RATE, subtype="PCM_16")
    return path


def _manifest(folder: Path) -> Manifest:
    folder.mkdir()
    rows = []
    for number, seconds in enumerate([0.9, 0.5, 1.3, 0.7]):
        path = write_tone(folder / f"u{number}.wav", seconds, 100.0 + 40 * number)
        row = Utterance(
            f"u{number}", path.name, file_sha256(path), f"word {number}", seconds=seconds
        )
        rows.append(row)
    return Manifest("tones", tuple(rows), shard_seconds=2.0, shard_characters=80).located(folder)
