"""What an exported folder holds, and the check of it before any of it is used.

    README.md                       model card, with the model hub's header
    config.json                     `Config`: models, temperatures, and every file with its hash
    run.json                        the run's own (`pipeline.runs.head`), without lists of ids
    seed_<k>/fold_<j>/
        model.json                  arguments of the fusion, classes, widths
        model.safetensors           its weights
        fusion.pt2, fusion.onnx     the fusion as a program, for others; not read here
        backbones/<slot>/           tuned backbones of an end-to-end run

Weights of other backbones are not in it: run.json names checkpoint, revision and hash. Hashes show
damage and not who made the folder; nothing in it is unpickled, and no code in it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

from features.arguments import Record
from features.errors import RunError
from features.files.reading import check_regular, file_sha256
from features.files.records import read_record
from features.ranges import Amount, Interval, MinLen
from pipeline.data.targets import Task

FORMAT, VERSION = "heronry-export", 1
CONFIG, RUN, README = "config.json", "run.json", "README.md"
PROGRAM, ONNX = "fusion.pt2", "fusion.onnx"
MODEL = ("model.json", "model.safetensors")
AGAIN = "download or export it again"

Fields = TypeVar("Fields")


@dataclass(frozen=True)
class ModelFields(Record):
    """One trained model in config.json.

    Attributes:
        seed: Random seed.
        fold: Fold, from 0.
        temperature: Divisor of its logits; None: none was fitted.
        lacking: Why a program is not there, by its file's name.
    """

    seed: Amount
    fold: Amount
    temperature: Annotated[float, Interval(gt=0, le=10**6)] | None = None
    lacking: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Its folder."""
        return f"seed_{self.seed}/fold_{self.fold}"


@dataclass(frozen=True)
class FileFields(Record):
    """A file in config.json: its size and its SHA-256."""

    bytes: Annotated[int, Interval(ge=0, le=10**13)]
    sha256: str


@dataclass(frozen=True)
class Config:
    """Fields of config.json.

    Attributes:
        format: Which file this is.
        version: Of the format.
        heronry: Release that wrote it.
        tasks: What the run learns.
        models: Its models.
        files: All files but config.json and README.md, by their path in the folder.
        packages: Releases of the packages that the programs were made with.
        versions: Version of each kind of backbone in the catalogue of that release.
    """

    format: Literal["heronry-export"]
    version: Literal[1]
    heronry: str
    tasks: Annotated[Sequence[Task], MinLen(1)]
    models: Annotated[Sequence[ModelFields], MinLen(1)]
    files: Mapping[str, FileFields]
    packages: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)


def read_config(folder: Path) -> Config:
    """Read config.json of an exported folder, and check the files that it names.

    Raises:
        ManifestError: If there is no config.json, or it is no JSON object.
        RunError: If a field is wrong; a name leads out of the folder; a file is missing, another
            than was written, or below a model's folder without being named.
    """
    content = read_record(folder / CONFIG, Config, AGAIN, RunError)
    models = tuple(_made(ModelFields, each) for each in content["models"])
    files = {name: _made(FileFields, each) for name, each in content["files"].items()}
    config = _made(Config, {**content, "models": models, "files": files})
    for fault in _faults(folder, config):
        raise RunError(f"{folder / CONFIG}: {fault}: {AGAIN}")
    return config


def _made(record: type[Fields], content: Mapping[str, Any]) -> Fields:
    """A record of its fields alone: later releases may write more."""
    names = {each.name for each in fields(record)}  # type: ignore[arg-type]
    return record(**{name: value for name, value in content.items() if name in names})


def files_in(folder: Path) -> dict[str, dict[str, Any]]:
    """Field `files` of config.json, for a folder that is complete but for that."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in paths
    }


def _faults(folder: Path, config: Config) -> Iterator[str]:
    needed = [RUN, *(f"{each.folder}/{name}" for each in config.models for name in MODEL)]
    yield from (f"files: names no {name}" for name in needed if name not in config.files)
    folders = [each.folder for each in config.models]
    if len(set(folders)) < len(folders):
        yield f"models: given {folders}; expected each seed and fold once"
    for name, facts in config.files.items():
        place = PurePosixPath(name)
        if (
            place.is_absolute()
            or {"\\", "\0"} & {*name}
            or ".." in place.parts
            or str(place) != name
        ):
            yield f"files: given {name!r}; expected a path within the folder"
        else:
            yield from _file_faults(folder / name, name, facts)
    for path in sorted(found for each in folder.glob("seed_*") for found in each.rglob("*")):
        # transformers reads what lies in a backbone's folder, named here or not
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in config.files:
            yield f"{name} is there, and not named in `files`"


def _file_faults(path: Path, name: str, facts: FileFields) -> Iterator[str]:
    try:
        check_regular(path)
        found = path.stat().st_size
    except OSError as error:
        yield f"{name} cannot be read ({error.strerror})"
        return
    if found != facts.bytes:
        yield f"{name} has {found} bytes; expected {facts.bytes}"
    elif file_sha256(path) != facts.sha256:
        yield f"{name} is not the file that was exported: its SHA-256 is another one"
