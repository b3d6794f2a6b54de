"""Reads YAML files as DVC does, with the core scalars of version 1.2, on top of PyYAML.

PyYAML is imported when something is read, so that `heronry --version` and readers of caches run
without it. `features.files.yaml_loader` says what is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import ParamsError
from features.files.reading import open_regular

if TYPE_CHECKING:
    import yaml

MOST_BYTES = 1 << 18  # bytes of a file: PyYAML takes some seconds for these
MOST_SHOWN = 300  # characters of PyYAML's message


def read_yaml(text: str) -> Any:
    """Parse one document.

    Raises:
        yaml.YAMLError: If it is no YAML, or holds what no parameter file needs.

    >>> read_yaml("{lr: 5e-05, answer: no, epochs: 20, fusion: null}")
    {'lr': 5e-05, 'answer': 'no', 'epochs': 20, 'fusion': None}
    """
    import yaml

    from features.files.yaml_loader import Loader

    try:
        return yaml.load(text, Loader)  # a SafeLoader
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise yaml.YAMLError(f"line {line}: a character that YAML has not: {error}") from error
    except (ValueError, OverflowError) as error:
        # PyYAML turns escapes such as \U0011FFFF and version directives into numbers unchecked.
        raise yaml.YAMLError(str(error)) from error


def read_yaml_file(path: Path, *, most: int = MOST_BYTES) -> Any:
    """Parse a file of one document and of at most `most` bytes.

    Raises:
        ParamsError: If it is too large, not UTF-8 or not YAML, or holds what no parameter file
            needs; with the line.
        OSError: If it cannot be opened.
    """
    import yaml

    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ParamsError(f"{path} holds more than {most} bytes; expected a smaller YAML file")
    try:
        return read_yaml(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ParamsError(
            f"{path} is no YAML: line {line}: the byte 0x{content[error.start]:02x} is no UTF-8; "
            "save the file as UTF-8"
        ) from error
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is no YAML: {_fault(error)}") from error


def read_params_file(path: Path) -> dict[str, Any]:
    """Read params.yaml as a plain mapping of unchecked values, without importing torch.

    Raises:
        ParamsError: If the file is missing, not YAML, or not a mapping.
    """
    try:
        raw = read_yaml_file(path)
    except OSError as error:
        raise ParamsError(
            f"cannot read {path} ({error.strerror}); expected it in the current folder, "
            f"{Path.cwd()}: run this in the project's folder"
        ) from error
    if not isinstance(raw, dict):
        raise ParamsError(f"{path} holds {type(raw).__name__}; expected a mapping")
    return raw


def _fault(error: yaml.YAMLError) -> str:
    """PyYAML's message on one line of bounded length, with the number of the faulty line."""
    from features.files.yaml_loader import cut

    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    parts = (getattr(error, name, None) for name in ("context", "problem"))
    problem = ", ".join(filter(None, parts)) or str(error)
    where = "" if mark is None else f"line {mark.line + 1}: "
    return where + cut(" ".join(problem.split()), MOST_SHOWN)
