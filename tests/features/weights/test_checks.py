"""Unsafe or wrong files of a checkpoint are refused with a message, without a traceback."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from features.backbone.entry import backbone_entry
from features.errors import CheckpointError
from features.weights.checkpoint import Checkpoint
from features.weights.tensors import read_tensors
from tests.contracts.checkpoints import speech_encoder, text_encoder, whisper

WRITE = {
    "text_encoder": text_encoder.VARIANTS["bert"],
    "speech_encoder": speech_encoder.VARIANTS["hubert_group"],
    "whisper": whisper.VARIANTS["mel80"],
}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90868376\n"
PAGE = b"\n<!DOCTYPE html><html><head><title>rate limit</title></head></html>"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

Edit = Callable[[Path], object]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small folder of each kind of transformers."""
    found = {}
    for kind, write in WRITE.items():
        found[kind] = tmp_path_factory.mktemp(kind) / "net"
        write(found[kind])
    return found


@pytest.fixture
def build(
    written: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """A function that edits a copy of a folder and builds its backbone; no hub is ever asked."""

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("a hub was asked")

    def run(kind: str, edit: Edit, **options: Any) -> Path:
        folder = tmp_path / "net"
        shutil.copytree(written[kind], folder)
        edit(folder)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", asked)
        monkeypatch.setattr("socket.getaddrinfo", asked)
        entry = backbone_entry("x", {"kind": kind, "checkpoint": str(folder), **options})
        entry.provenance(entry.build())
        return folder

    return run


def keys(name: str, **values: Any) -> Edit:
    """Set keys of a JSON file."""

    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return edit


def content(name: str, data: bytes) -> Edit:
    """Put something else into the place of a file."""
    return lambda folder: (folder / name).write_bytes(data)


CONFIG = "config.json"
LEADING: list[dict[str, Any]] = [
    {"attn_implementation": "org/kernel"},
    {"_attn_implementation": "org/kernel"},
    {"_attn_implementation": "flash_attention_2"},  # a hub's, where the package lacks
    {"_attn_implementation": {"": "org/kernel"}},
    {"_attn_implementation": 3},
    {"encoder": {"deep": [{"attn_implementation": "org/kernel"}]}},
    {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    {"quantization_config": {"quant_method": "fp8"}},
    {"quantization_config": "x"},
    {"transformers_weights": "../../other.safetensors"},
    {"transformers_weights": "other.safetensors"},  # the hash of a revision would be another's
    {"backbone": "org/vision", "use_pretrained_backbone": True},
]


@pytest.mark.parametrize("kind", WRITE)
@pytest.mark.parametrize("values", LEADING)
def test_configs_that_lead_to_other_code_or_weights_are_refused(
    kind: str, values: dict[str, Any], build: Callable[..., Path]
) -> None:
    with pytest.raises(CheckpointError, match=r"config.json has .*leads to .*remove the key"):
        build(kind, keys(CONFIG, **values))


@pytest.mark.parametrize("kind", WRITE)
def test_harmless_configs_are_accepted(kind: str, build: Callable[..., Path]) -> None:
    own = {"attn_implementation": "eager", "quantization_config": None, "backbone": None}
    build(kind, keys(CONFIG, **own, auto_map={"AutoModel": "org/repo--code.Model"}))


def test_trust_remote_code_skips_the_check_of_the_config(build: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError) as caught:  # transformers lacks the package of kernels
        build("text_encoder", keys(CONFIG, attn_implementation="o/k"), trust_remote_code=True)
    assert "leads to" not in str(caught.value)


@pytest.mark.parametrize("kind", WRITE)
def test_adapters_are_refused(kind: str, build: Callable[..., Path]) -> None:
    text = json.dumps({"base_model_name_or_path": "org/base", "peft_type": "LORA"})
    with pytest.raises(CheckpointError, match=r"adapter_config.json names a base model"):
        build(kind, content("adapter_config.json", text.encode()))


def outside(place: str) -> Edit:
    """Weights beside the folder, which an index names."""

    def edit(folder: Path) -> None:
        names = list(load_file(folder / WEIGHTS))
        (folder / WEIGHTS).rename(folder.parent / "out.safetensors")
        named = place.format(parent=folder.parent)
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, named)}
        (folder / INDEX).write_text(json.dumps(index))

    return edit


@pytest.mark.parametrize("place", ["../out.safetensors", "{parent}/out.safetensors", "a/../b"])
def test_an_index_cannot_name_files_elsewhere(place: str, build: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match=r"index.json says that weights are in \['"):
        build("text_encoder", outside(place))


@pytest.mark.parametrize(
    "index", [b"[]", b"3", b"{}", b'{"weight_map": 3}', b'{"weight_map": {}}', b"{", b"\xff"]
)
def test_an_index_of_another_shape(index: bytes, build: Callable[..., Path]) -> None:
    def edit(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / INDEX).write_bytes(index)

    with pytest.raises(CheckpointError, match=r"index.json (is no index|says that weights are in)"):
        build("text_encoder", edit)


def test_parts_that_are_not_there_are_named(build: Callable[..., Path]) -> None:
    def edit(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))

    with pytest.raises(CheckpointError, match=r"not there: \['one.safetensors'\]"):
        build("text_encoder", edit)


SHAPES: list[tuple[str, Edit, str]] = [
    ("text_encoder", keys(CONFIG, hidden_size="16"), "expected int, got str"),
    ("text_encoder", keys(CONFIG, hidden_size=None), "hidden_size"),
    ("text_encoder", keys(CONFIG, num_hidden_layers=-3), "has -3 layers"),
    ("text_encoder", keys(CONFIG, num_hidden_layers=10**9), "expected at most 1000"),
    ("text_encoder", keys(CONFIG, model_type=["bert"]), "model_type|unhashable|model type"),
    ("text_encoder", keys(CONFIG, dtype="org"), "no attribute 'org'"),
    ("text_encoder", content(CONFIG, b"[]"), "holds a list; expected a JSON object"),
    ("text_encoder", content(CONFIG, b"{"), "is not JSON"),
    ("text_encoder", content(CONFIG, b"[" * 100_000), "is not JSON"),
    ("text_encoder", content(CONFIG, b"\xff\xfe{}"), "is not JSON"),
    ("text_encoder", keys("tokenizer_config.json", auto_map="x"), "no attribute 'get'"),
    ("text_encoder", keys("tokenizer_config.json", tokenizer_class=3), "'int' object"),
    (
        "text_encoder",
        keys("tokenizer_config.json", tokenizer_class="RagTokenizer"),
        "padding token",
    ),
    ("text_encoder", keys("tokenizer_config.json", model_max_length="x"), "TypeError"),
    ("text_encoder", content("tokenizer_config.json", b"3"), "holds a int; expected a JSON"),
    ("text_encoder", content("tokenizer.json", b"[]"), "cannot be used"),
    ("speech_encoder", keys("preprocessor_config.json", feature_extractor_type=3), "TypeError"),
    ("speech_encoder", keys("preprocessor_config.json", sampling_rate="x"), "of 16000 Hz"),
    ("whisper", keys("preprocessor_config.json", sampling_rate="x"), "TypeError"),
    ("whisper", keys("preprocessor_config.json", feature_size=None), "TypeError"),
    ("whisper", keys(CONFIG, encoder_layers="3"), "cannot be used"),
]


@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_wrong_shapes_are_messages(number: int, build: Callable[..., Path]) -> None:
    kind, edit, message = SHAPES[number]
    with pytest.raises(CheckpointError, match=message):
        build(kind, edit)


REPLACED = [
    (POINTER, "is a git-LFS pointer.*git lfs pull"),
    (PAGE, "is a web page: download the file itself"),
    (b"", "is empty"),
]


@pytest.mark.parametrize("name", [WEIGHTS, "pytorch_model.bin", CONFIG, "tokenizer.json"])
@pytest.mark.parametrize(("data", "message"), REPLACED)
def test_pointers_pages_and_empty_files_are_named(
    name: str, data: bytes, message: str, build: Callable[..., Path]
) -> None:
    def edit(folder: Path) -> None:
        if name == "pytorch_model.bin":
            (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(data)

    with pytest.raises(CheckpointError, match=f"{name} {message}") as caught:
        build("text_encoder", edit)
    assert "weights_only" not in str(caught.value)
    with pytest.raises(CheckpointError, match=f"{name} {message}"):  # check's way
        Checkpoint(str(edited(caught))).look_for()


def edited(caught: pytest.ExceptionInfo[CheckpointError]) -> Path:
    """The folder that a message is about."""
    return Path(str(caught.value).split(" is ")[0]).parent


def test_a_servers_message_in_place_of_weights(tmp_path: Path) -> None:
    for name, text in (("a.pt", "Entry not found"), ("b.safetensors", "Zugriff für\nSie gesperrt")):
        (tmp_path / name).write_text(text)
        with pytest.raises(CheckpointError, match=r"holds the text '.*', not weights"):
            read_tensors(tmp_path / name)
    (tmp_path / "c.pt").write_bytes(POINTER)
    with pytest.raises(CheckpointError, match=r"c.pt is a git-LFS pointer"):
        Checkpoint(str(tmp_path / "c.pt")).look_for((WEIGHTS,))


def test_weights_that_are_not_read_may_be_pointers(build: Callable[..., Path]) -> None:
    """As in a clone without git-LFS of whose weights one file was downloaded."""
    build("text_encoder", content("pytorch_model.bin", POINTER))


def namespace(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save({**tensors, "args": argparse.Namespace(a=1)}, folder / "pytorch_model.bin")


@pytest.mark.parametrize("old", [False, True])
def test_pickled_types_are_named_with_two_lines_that_convert_the_file(
    old: bool, tmp_path: Path, build: Callable[..., Path]
) -> None:
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin .*argparse\.Namespace") as caught:
        build("text_encoder", namespace)
    assert "\x1b" not in str(caught.value)
    path = tmp_path / "x.pt"
    state = {"state_dict": {"a": torch.ones(2)}, "args": argparse.Namespace(a=1)}
    torch.save(state, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(CheckpointError, match=r"executing .*\(argparse\.Namespace\)") as caught:
        read_tensors(path)
    first, *lines = str(caught.value).splitlines()
    assert "will likely succeed" not in first
    assert len(lines) == 2
    exec("\n".join(line.strip() for line in lines), {})  # as a user who trusts the file would
    assert torch.equal(read_tensors(tmp_path / WEIGHTS)["a"], torch.ones(2))


@pytest.mark.parametrize("kind", ["speech_encoder", "whisper"])
def test_the_newer_file_of_a_front_end_alone_will_do(kind: str, build: Callable[..., Path]) -> None:
    def edit(folder: Path) -> None:
        old = folder / "preprocessor_config.json"
        found = {"feature_extractor": json.loads(old.read_text()), "processor_class": "Processor"}
        (folder / "processor_config.json").write_text(json.dumps(found))
        old.unlink()

    build(kind, edit)


def test_a_file_or_no_folder_where_a_folder_is_meant(
    written: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(written["text_encoder"], tmp_path / "nets" / "tiny")
    (tmp_path / "bare").mkdir()
    for name, message in (
        ("nets/tiny/model.safetensors", r"is a file; .*set `checkpoint` to 'nets/tiny'"),
        ("bare", "is a folder without config.json"),
        ("./nets/Tiny", "there is no folder .*/nets/Tiny'; there is nets/tiny"),
        ("nets/tiny/x", "there is no folder"),
        (str(tmp_path / "no"), "there is no folder"),
        ("~/no such", "there is no folder"),
    ):
        checkpoint = Checkpoint(name)
        for look in (checkpoint.look_for, lambda at=checkpoint: at.network(object())):
            with pytest.raises(CheckpointError, match=message):
                look()
    for name, message in (
        ("bare", "is a folder without model.safetensors"),
        ("nets/tiny/config.json", "is a file; expected one of model.safetensors in a folder, or"),
        ("a/b/c", "there is no folder"),
    ):
        with pytest.raises(CheckpointError, match=message):
            Checkpoint(name).tensors(("model.safetensors",))


def test_weights_alone_are_no_checkpoint(build: Callable[..., Path], tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"net' is a folder without config.json"):
        build("text_encoder", lambda folder: (folder / CONFIG).unlink())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({CONFIG: {"attn_implementation": "org/kernel"}}, "leads to code of a hub"),
        ({"adapter_config.json": {"base_model_name_or_path": "org/base"}}, "is an adapter"),
        ({CONFIG: {"quantization_config": {"quant_method": "awq"}}}, "code of another package"),
    ],
)
def test_unsafe_repositories_of_a_hub_are_refused(
    files: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import EntryNotFoundError

    asked = []

    def download(name: str, file: str, *, revision: str | None, **_: Any) -> str:
        asked.append((name, revision))
        if file not in files:
            raise EntryNotFoundError(f"no {file}")
        (tmp_path / file).write_text(json.dumps(files[file]))
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    commit = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
    for revision, of_hub in ((commit, commit), (f"sha256:{'0' * 64}", None)):
        with pytest.raises(CheckpointError, match=message):
            Checkpoint("org/net", revision).load(None)
        assert asked.pop() == ("org/net", of_hub)


def test_weights_of_a_hub_are_held_to_their_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda _, file, **__: str(tmp_path / file)
    )
    with pytest.raises(CheckpointError, match="found sha256:") as caught:
        Checkpoint("org/net", f"sha256:{'0' * 64}").tensors((WEIGHTS,))
    revision = str(caught.value).partition("found ")[2].partition(":")[2].partition(":")[0]
    assert len(revision) == 64
    named = Checkpoint("org/net", f"sha256:{revision}")
    assert torch.equal(named.tensors((WEIGHTS,))["a"], torch.ones(1))
    assert named.provenance((WEIGHTS,))["revision"] == f"sha256:{revision}"


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time takes half a minute; what it has fetched before may still be there."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked: list[tuple[str, bool]] = []

    def download(_: str, file: str, *, local_files_only: bool, **__: Any) -> str:
        asked.append((file, local_files_only))
        raise LocalEntryNotFoundError("check your connection")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(CheckpointError, match=r"check your connection\n  download a.pt or b.pt of"):
        Checkpoint("org/net").tensors(("a.pt", "b.pt"))
    assert asked == [("a.pt", False), ("b.pt", True)]
    asked.clear()
    with pytest.raises(CheckpointError, match=r"check your connection\n  download the repository"):
        Checkpoint("org/net").look_for()
    assert asked == [(CONFIG, False)]
