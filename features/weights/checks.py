"""Checks a checkpoint's files before use: no foreign code, no other weights, no web pages.

Anybody may have written a checkpoint's config.json. Where certain libraries are installed,
transformers follows what it names: attention kernels from a hub, quantizers, an adapter's base
model, pretrained parts. All of it is refused unless the entry says `trust_remote_code: true`. (Code
that `auto_map` names does not run without that either; transformers' own classes are used.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from features.errors import CheckpointError
from features.files.json_text import parse_json
from features.files.reading import open_regular, read_regular

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
# Files of a transformers folder that hold JSON objects; all but config.json may be missing.
OBJECTS = (
    *(CONFIG, "tokenizer_config.json", "special_tokens_map.json"),
    *("preprocessor_config.json", "processor_config.json"),
)
TEXTS = (".json", ".txt", ".model")  # suffixes of the files beside the weights
OWN_KERNELS = (None, "eager", "sdpa")  # of torch itself
ATTENTION = ("attn_implementation", "_attn_implementation", "experts_implementation")
# What each key leads to.
LEADS: dict[str, str] = {
    **dict.fromkeys(ATTENTION, "code of a hub or of another package"),
    **dict.fromkeys(
        ("quantization_config", "compression_config", "megatron_config"),
        "code of another package",
    ),
    **dict.fromkeys(("backbone", "use_pretrained_backbone"), "another checkpoint"),
    "transformers_weights": "another file of weights",
}
DOWNLOADED = "download the file itself (of a hub's page the link `resolve`, not `blob`)"
BEGINNINGS = (
    (
        b"version https://git-lfs",
        "is a git-LFS pointer, which names the file and does not hold it: "
        "run `git lfs pull` where it came from, or " + DOWNLOADED,
    ),
    (b"<!doctype html", f"is a web page: {DOWNLOADED}"),
    (b"<html", f"is a web page: {DOWNLOADED}"),
    (b"<?xml", f"is an answer of a server, in XML: {DOWNLOADED}"),
)
MOST_LAYERS = 1000
SHORT = 4096  # bytes; a server's message in place of weights is shorter


def check_folder(folder: Path, *, trusted: bool) -> None:
    """Refuse a transformers folder that leads to other code or weights, or has damaged files.

    Args:
        folder: Folder that holds config.json.
        trusted: Whether the entry says `trust_remote_code: true`.

    Raises:
        CheckpointError: Naming the file, what is in it, and what to do.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix in TEXTS and path.is_file():
            check_beginning(path)
    for name in OBJECTS:
        if (folder / name).is_file():
            found = read_object(folder / name)
            if name == CONFIG:
                check_config(folder / name, found, trusted=trusted)
    if (folder / ADAPTER).is_file() and not trusted:
        raise CheckpointError(
            f"{folder / ADAPTER} names a base model and changes the weights of {folder}; expected "
            "a checkpoint that stands for itself: merge the adapter (`merge_and_unload()` of peft, "
            "`save_pretrained`), or remove the file"
        )


def check_beginning(path: Path) -> None:
    """Refuse an empty file, a git-LFS pointer, or a web page in place of a file."""
    try:
        with open_regular(path) as file:
            # A page may begin with a byte order mark or with blank lines.
            head = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): {DOWNLOADED}") from error
    if not head:
        raise CheckpointError(f"{path} is empty: {DOWNLOADED}")
    for beginning, reason in BEGINNINGS:
        if head.lower().startswith(beginning):
            raise CheckpointError(f"{path} {reason}")


def check_weights(path: Path) -> None:
    """Refuse a git-LFS pointer, a web page or a server's message in place of weights."""
    check_beginning(path)
    if path.stat().st_size < SHORT:
        content = path.read_bytes()
        # Bytes that are not UTF-8 are dropped, so that `text` no longer equals the content.
        text = content.decode(errors="ignore")
        if "".join(text.split()).isprintable() and text.encode() == content:
            raise CheckpointError(f"{path} holds the text {text[:80]!r}, not weights: {DOWNLOADED}")


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object, or raise `CheckpointError` saying what is wrong with the file."""
    try:
        found = parse_json(read_regular(path))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): {DOWNLOADED}") from error
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{path} holds a {type(found).__name__}; expected a JSON object: {DOWNLOADED}"
        )
    return found


def check_config(path: Path, config: Mapping[str, Any], *, trusted: bool = False) -> None:
    """Refuse a config.json that leads to other code or weights, at any depth, or huge networks."""
    for key, value in _keys(config):
        # A network is built with all its layers before any weight is read.
        if key.endswith("layers") and isinstance(value, int) and value > MOST_LAYERS:
            raise CheckpointError(
                f"{path} has {key!r}: {value}; expected at most {MOST_LAYERS}: {DOWNLOADED}"
            )
        if (
            not trusted
            and key in LEADS
            and value
            and (key not in ATTENTION or value not in OWN_KERNELS)
        ):
            raise CheckpointError(
                f"{path} has {key!r}: {value!r:.80}, which leads to {LEADS[key]}; expected a "
                "network of plain weights and transformers' own code: remove the key, or, where "
                "you trust all that it leads to, set `trust_remote_code: true` (kind text_encoder, "
                "and `speech_llms`)"
            )


def _keys(config: Any) -> Iterator[tuple[str, Any]]:
    """Keys and values at any depth."""
    waiting = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            yield from part.items()
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
