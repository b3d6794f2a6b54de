"""What of a checkpoint's files leads elsewhere, or is not what its name says: refused.

config.json of a checkpoint is anybody's. With libraries at hand that some people have, transformers
follows what it names: attention kernels from a hub, quantizers, an adapter's base model, pretrained
parts. None of it is followed unless the entry says `trust_remote_code: true`. (Code that `auto_map`
names is not run without that either; transformers' own classes are used.)
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
# Files of a transformers folder that hold JSON objects, where they are there.
OBJECTS = (
    *(CONFIG, "tokenizer_config.json", "special_tokens_map.json"),
    *("preprocessor_config.json", "processor_config.json"),
)
TEXTS = (".json", ".txt", ".model")  # ends of the names of files beside the weights
OWN_KERNELS = (None, "eager", "sdpa")  # of torch itself
ATTENTION = ("attn_implementation", "_attn_implementation", "experts_implementation")
# Keys by what they lead to.
LEADS: dict[str, str] = {
    **dict.fromkeys(ATTENTION, "code of a hub or of another package"),
    **dict.fromkeys(("quantization_config", "compression_config"), "code of another package"),
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
SHORT = 4096  # bytes; what answers in the place of weights is shorter


def check_folder(folder: Path, *, trusted: bool) -> None:
    """Refuse a transformers folder that leads elsewhere, or holds something else under its names.

    Args:
        folder: Holds config.json.
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
    """Refuse a pointer, a web page or nothing in the place of a file."""
    try:
        with open_regular(path) as file:
            head = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): {DOWNLOADED}") from error
    if not head:
        raise CheckpointError(f"{path} is empty: {DOWNLOADED}")
    for beginning, reason in BEGINNINGS:
        if head.lower().startswith(beginning):
            raise CheckpointError(f"{path} {reason}")


def check_weights(path: Path) -> None:
    """Refuse what stands in the place of weights: a pointer, a web page, a server's message."""
    check_beginning(path)
    if path.stat().st_size < SHORT:
        text = path.read_bytes().decode(errors="ignore")
        if "".join(text.split()).isprintable() and text.encode() == path.read_bytes():
            raise CheckpointError(f"{path} holds the text {text[:80]!r}, not weights: {DOWNLOADED}")


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object, or a message that says what is wrong with the file."""
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
    """Refuse what config.json leads to elsewhere, in parts of it too, and endless networks."""
    for key, value in _keys(config):
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
                "you trust all that it leads to, set `trust_remote_code: true` (kind text_encoder)"
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
