"""`heronry export --push`: against a hub on loopback, and where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from features.corpus.entry import CorpusEntry
from features.errors import ParamsError
from features.exchange.licences import check_public, languages, public_licence
from features.settings.plugins import kinds
from pipeline.handover.hub import check_repository
from pipeline.handover.layout import CONFIG, README
from tests.support.machines.model_hub import TOKEN, model_hub
from tests.support.paths import ROOT

# In a process of its own: huggingface_hub reads its variables when it is imported.
PUSH = (
    "from pathlib import Path\n"
    "from pipeline.handover.hub import push\n"
    "print(push(Path('out'), 'someone/heron-demo', 'Export a run'))"
)


def pushed(folder: Path, url: str, **more: str) -> subprocess.CompletedProcess[str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    own = {
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": url,
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", PUSH],
        env={**plain, **own, **more},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out/seed_0/fold_0").mkdir(parents=True)
    for name in (README, CONFIG, "seed_0/fold_0/model.safetensors"):
        (tmp_path / "out" / name).write_text(f"content of {name}")
    return tmp_path


def test_all_files_are_committed_at_once_and_again(folder: Path) -> None:
    with model_hub() as hub:
        for _ in range(2):
            done = pushed(folder, hub.url, HF_TOKEN=TOKEN)
            assert done.stdout == f"{hub.url}/someone/heron-demo\n", done.stderr
        assert hub.messages == ["Export a run"] * 2
    (files,) = hub.files.values()
    assert files == {
        path.relative_to(folder / "out").as_posix(): path.read_bytes()
        for path in (folder / "out").rglob("*")
        if path.is_file()
    }


def test_models_of_an_earlier_upload_are_removed(folder: Path) -> None:
    """Files that somebody else put beside them stay."""
    with model_hub() as hub:
        old = {"seed_0/fold_0/fusion.onnx": b"", "seed_1/fold_0/model.json": b"", "notes.md": b"x"}
        hub.files["someone/heron-demo"] = dict(old)
        done = pushed(folder, hub.url, HF_TOKEN=TOKEN)
        assert done.returncode == 0, done.stderr
    assert {*hub.files["someone/heron-demo"]} == {
        *("notes.md", README, CONFIG, "seed_0/fold_0/model.safetensors")
    }


def test_what_a_hub_says_is_one_message(folder: Path) -> None:
    with model_hub() as hub:
        refused = pushed(folder, hub.url, HF_TOKEN="hf_of_somebody")
        without = pushed(folder, hub.url)
        offline = pushed(folder, hub.url, HF_TOKEN=TOKEN, HF_HUB_OFFLINE="1")
        assert hub.files == {}
    nobody = pushed(folder, hub.url, HF_TOKEN=TOKEN)
    for done, message in (
        (refused, "401"),
        (without, "there is no token of the model hub"),
        (offline, "offline"),
        (nobody, "Connection refused"),
    ):
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("features.errors.MachineError: --push someone/heron-demo: "), last
        assert message in last
        assert f"expected a hub that can be reached at {hub.url}" in last


@pytest.mark.parametrize("name", ["heron", "a/b/c", "../x", "a/..", "a b/c", "", "a/b--c", "-a/b"])
def test_no_repository_has_that_name(name: str) -> None:
    with pytest.raises(ParamsError, match="expected ORG/NAME"):
        check_repository(name)


def test_names_of_repositories() -> None:
    for name in ("someone/heron-demo", "Org/heron_1.0"):
        check_repository(name)


def entry(kind: str, *members: str) -> CorpusEntry:
    of = tuple(CorpusEntry(each, each) for each in members)
    return CorpusEntry("x", kind, options={"members": of} if members else {})


def test_a_corpus_is_public_by_its_licence_alone() -> None:
    """One that is given to those who sign for it is not, nor a union with such a one in it."""
    public = {kind for kind in kinds("features.corpora") if public_licence(entry(kind))}
    assert public == {"crema_d", "demo", "manifest", "ravdess"}
    assert public_licence(entry("union", "demo", "demo")) == "mit"
    assert public_licence(entry("union", "demo", "ravdess")) == "other"
    assert public_licence(entry("union", "demo", "iemocap")) is None
    assert languages(entry("union", "demo", "emodb")) == ["de", "en"]
    with pytest.raises(ParamsError, match=r"iemocap \(IEMOCAP release agreement.*say --i-may"):
        check_public(entry("union", "demo", "iemocap"), "--push a/b", may=False)
    check_public(entry("iemocap"), "--push a/b", may=True)
    check_public(entry("ravdess"), "--push a/b", may=False)
