"""What is known of a network is remembered while nothing can have changed it, and no longer."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from features.backbone import memory
from features.backbone.entry import BackboneEntry
from features.backbone.memory import Memory
from features.corpus.manifest import Manifest
from features.errors import ParamsError
from features.extraction.extract import Extraction, Options, extract
from features.extraction.forecast import Forecast
from features.files import reading
from features.weights.checkpoint import Checkpoint
from features.weights.stamps import stamps
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints.text_encoder import SIZES
from tests.contracts.checkpoints.text_encoder import write as write_text
from tests.contracts.checkpoints.whisper import write as write_whisper
from tests.support.paths import contents_of


class LoadedError(Exception):
    """A network was loaded, or weights were read."""


def refused(*_given: object, **_options: object) -> NoReturn:
    raise LoadedError


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    write_text(folder / "text", **SIZES)
    write_whisper(folder / "whisper")
    return {name: folder / name for name in ("text", "whisper")}


@pytest.fixture
def checkpoints(
    written: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Path]:
    """Copies that a test may change."""
    monkeypatch.setattr(reading, "SETTLED_NS", -(10**12))  # as if they were old
    return {
        name: Path(shutil.copytree(folder, tmp_path / f"{name}-checkpoint"))
        for name, folder in written.items()
    }


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function after whose call no network can be loaded, and no weights hashed."""

    def forbid() -> None:
        monkeypatch.setattr(Checkpoint, "load", refused)
        monkeypatch.setattr("features.weights.identity.file_sha256", refused)
        monkeypatch.setattr("features.weights.packages.file_sha256", refused)

    return forbid


def text(folder: Path, **settings: Any) -> BackboneEntry:
    options = {"checkpoint": str(folder), **settings.pop("options", {})}
    return BackboneEntry("text", "text_encoder", options=options, **settings)


def whisper(name: str, folder: Path, **options: Any) -> BackboneEntry:
    given = {"checkpoint": str(folder), "pad": "trim", **options}
    return BackboneEntry(name, "whisper", options=given)


def run(manifest: Manifest, entry: BackboneEntry, folder: Path, **options: Any) -> Extraction:
    given = Options(**{"workers": 0, **options})
    return extract(manifest, entry, folder / entry.name, store=folder / "store", options=given)


def test_nothing_to_do_loads_no_network(
    make_manifest: ManifestMaker,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    no_network: Callable[[], None],
) -> None:
    manifest = make_manifest([0.5, 0.6, 0.4], shard_characters=40)  # two shards
    entry = text(checkpoints["text"])
    before = run(manifest, entry, tmp_path)
    assert before.noticed  # of words that the small tokenizer lacks
    written = contents_of(tmp_path / "text")
    told: list[Forecast] = []
    no_network()
    after = run(manifest, entry, tmp_path, announce=told.append)
    assert contents_of(tmp_path / "text") == written
    assert after == dataclasses.replace(before, computed=0, linked=2, seconds=0.0)
    assert [(each.compute, each.finished, each.bytes > 0) for each in told] == [(0, 2, True)]
    part = run(manifest, entry, tmp_path, part=(1, 2))
    assert (part.linked, part.computed) == (1, 0)
    with pytest.raises(LoadedError):  # other utterances have other notices
        run(make_manifest([0.5, 0.6], shard_characters=40), entry, tmp_path)


def test_siblings_of_a_pass_are_linked_without_a_network(
    make_manifest: ManifestMaker,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    no_network: Callable[[], None],
) -> None:
    manifest, folder = make_manifest([0.5, 0.6, 0.4]), checkpoints["whisper"]
    last, middle = whisper("last", folder), whisper("middle", folder, layer=1)
    alone = tmp_path / "alone"
    run(manifest, middle, alone)
    run(manifest, last, tmp_path, siblings=(middle,))
    no_network()
    assert run(manifest, middle, tmp_path).linked == 1
    assert contents_of(tmp_path / "middle") == contents_of(alone / "middle")
    (shard,) = _shards_of(middle, tmp_path)
    shard.unlink()
    with pytest.raises(LoadedError):
        run(manifest, middle, tmp_path)
    assert not (tmp_path / "middle").exists()


def _shards_of(entry: BackboneEntry, folder: Path) -> list[Path]:
    """Shards of the store that hold what the folder of an entry does."""
    inodes = {path.stat().st_ino for path in (folder / entry.name).glob("*.h5")}
    return [p for p in (folder / "store").glob("*/*.h5") if p.stat().st_ino in inodes]


def rewritten(folder: Path) -> None:
    """Other weights of the same size, in place and with the time of the old ones."""
    path = folder / "model.safetensors"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-5:] = bytes(5)
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(folder: Path) -> None:
    """The same content in another file, with the time of the old one."""
    path = folder / "config.json"
    copy = Path(shutil.copy2(path, folder / "copy"))
    copy.replace(path)


def added(folder: Path) -> None:
    (folder / "added_tokens.json").write_text("{}\n")


def in_front(folder: Path) -> None:
    """A folder of that name in the project, which is looked at first."""
    shutil.copytree(folder, Path.cwd() / folder.name)


@pytest.mark.parametrize("change", [rewritten, replaced, added, in_front])
def test_a_touched_file_is_noticed(
    change: Callable[[Path], None],
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("HERONRY_CHECKPOINTS", str(tmp_path))
    folder = checkpoints["text"]
    entry = text(Path(folder.name))
    loaded(entry, tmp_path)
    assert Memory(entry, tmp_path).recall() is not None
    change(folder)
    assert Memory(entry, tmp_path).recall() is None


def loaded(entry: BackboneEntry, root: Path) -> None:
    own = Memory(entry, root)
    backbone = entry.build()
    own.keep(backbone, entry.provenance(backbone))


def test_what_is_recalled_is_what_a_load_tells(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    entry = text(checkpoints["text"], pooling="mean")
    own, backbone = Memory(entry, tmp_path), entry.build()
    known = own.keep(backbone, entry.provenance(backbone))
    assert Memory(entry, tmp_path).recall() == known
    assert known.spec == backbone.spec
    assert known.provenance == entry.provenance(backbone)


@pytest.mark.parametrize(
    "other",
    [{"version": 2}, {"pooling": "mean"}, {"store_dtype": "float32"}, {"options": {"layer": 1}}],
)
def test_another_setting_is_another_memory(
    other: dict[str, Any], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    loaded(text(checkpoints["text"]), tmp_path)
    assert Memory(text(checkpoints["text"], **other), tmp_path).recall() is None


@pytest.mark.parametrize("what", ["_code", "_installed"])
def test_other_code_is_noticed(
    what: str, checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = text(checkpoints["text"])
    loaded(entry, tmp_path)
    Memory(entry, tmp_path).keep_notices(["plan"], {"u0": "odd"})
    assert Memory(entry, tmp_path).notices(["plan"]) == {"u0": "odd"}
    monkeypatch.setattr(memory, what, lambda: "other")
    later = Memory(entry, tmp_path)
    assert later.recall() is None
    assert later.notices(["plan"]) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"facts": null}', b"\xff\xfe"])
def test_torn_and_foreign_files_are_ignored(
    content: bytes, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    entry = text(checkpoints["text"])
    loaded(entry, tmp_path)
    (path,) = tmp_path.glob("known/*/known.json")
    path.write_bytes(content)
    assert Memory(entry, tmp_path).recall() is None
    loaded(entry, tmp_path)
    assert Memory(entry, tmp_path).recall() is not None


def test_files_that_have_just_changed_are_not_trusted(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor copies that keep the times of their originals, as `cp -p` and archives write them."""
    monkeypatch.setattr(reading, "SETTLED_NS", 600 * 10**9)
    entry, long_ago = text(checkpoints["text"]), time.time() - 3600
    for path in checkpoints["text"].iterdir():
        os.utime(path, (long_ago, long_ago))
    loaded(entry, tmp_path)
    assert Memory(entry, tmp_path).recall() is None


def test_packages_of_the_system_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that it installs in the older form."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = memory._installed.__wrapped__()
    (tmp_path / "tokenizers-0.22.egg-info").touch()
    assert set(memory._installed.__wrapped__()) == {*before, "tokenizers-0.22.egg-info"}


def test_folders_that_libraries_add_to_the_path_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Setuptools adds one with packages of its own as it is imported."""
    before = memory._installed.__wrapped__()
    (tmp_path / "wheel-0.46.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert memory._installed.__wrapped__() == before


def test_a_folder_of_checkpoints_that_is_not_there_leaves_no_empty_cache(
    make_manifest: ManifestMaker,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HERONRY_CHECKPOINTS", str(tmp_path / "elsewhere"))
    with pytest.raises(ParamsError, match="HERONRY_CHECKPOINTS"):
        run(make_manifest([0.5]), text(checkpoints["text"]), tmp_path)
    assert not (tmp_path / "text").exists()


def test_code_of_others_is_never_trusted(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    assert Memory(text(checkpoints["text"]), tmp_path)._weights
    trusting = text(checkpoints["text"], options={"trust_remote_code": True})
    assert Memory(trusting, tmp_path)._weights is None


def test_a_branch_on_the_hub_may_mean_others_tomorrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789" * 4
    folder = tmp_path / "models--some--network" / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert stamps(Checkpoint("some/network", "main")) is None
    assert stamps(Checkpoint("some/network")) is None
    found = stamps(Checkpoint("some/network", commit))
    assert found is not None
    (stamp,) = found
    assert stamp[:2] == (str(folder / "config.json"), 2)


def test_folders_behind_links_are_not_told_apart(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    assert len(stamps(Checkpoint(str(tmp_path / "checkpoint"))) or ()) == 1
    (tmp_path / "checkpoint" / "parts").symlink_to(tmp_path)
    assert stamps(Checkpoint(str(tmp_path / "checkpoint"))) is None


def test_a_store_that_cannot_be_written_is_no_error(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "known").write_text("a file")
    loaded(text(checkpoints["text"]), tmp_path)
