"""A wheel made of what is committed: its content, and what of it runs with three packages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from features.cache.shard import Row, shard_name
from features.cache.writer import CacheWriter
from features.stream import StreamSpec
from tests.support.paths import ROOT

PACKAGES = ("features", "pipeline", "stages")
FEW = ("h5py", "numpy", "typer")  # with what these declare themselves
READS = """
import sys
from pathlib import Path
from features.cache.reader import CacheReader

reader = CacheReader(Path(sys.argv[1]), verify=True)
print(list(reader), reader.provenance, reader["a"].tolist(), reader.rejected)
"""


def output(words: list[str], folder: Path) -> str:
    """Output of a command that finds no packages but its own."""
    own = {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}
    done = subprocess.run(
        words, cwd=folder, env=os.environ | own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since a build leaves files in its folder."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", *committed()):
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    output([*pip, "--no-index", "--wheel-dir", str(folder), "./source"], folder)
    (built,) = folder.glob("heronry-*.whl")
    return built


def committed() -> list[str]:
    """Files of the packages that Git knows and that are not deleted."""
    words = ["git", "-C", str(ROOT), "ls-files", *PACKAGES]
    listed = subprocess.run(words, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


def link_packages(names: tuple[str, ...], target: Path) -> None:
    """Link installed packages and those that they need into a folder, without a registry."""
    waiting, done = list(names), set[str]()
    while waiting:
        found: Distribution = distribution(waiting.pop())
        if found.name in done:
            continue
        done.add(found.name)
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            (target / top).symlink_to(Path(str(found.locate_file(top))))
        needed = (Requirement(text) for text in found.requires or ())
        waiting += [each.name for each in needed if not each.marker or each.marker.evaluate()]


@pytest.mark.slow
def test_a_wheel_holds_all_sources_templates_and_the_catalogue(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    # Stages of DVC and the prompts that they name are no part of a package but of a project.
    own = re.compile(r"/dvc\.yaml$|^stages/\w+/prompts/")
    assert names == {name for name in committed() if not own.search(name)}


@pytest.mark.slow
def test_a_wheel_and_three_packages_tell_the_version_and_read_a_cache(
    wheel: Path, tmp_path: Path
) -> None:
    output([sys.executable, "-m", "venv", "--without-pip", "env"], tmp_path)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    link_packages(FEW, site)
    python = str(tmp_path / "env" / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    output([*pip, "--no-index", "--no-compile", str(wheel)], tmp_path)
    heronry = str(tmp_path / "env" / "bin" / "heronry")
    version = wheel.name.split("-")[1]
    assert output([heronry, "--version"], tmp_path) == f"heronry {version}\n"

    writer = CacheWriter(spec=StreamSpec(2), provenance={"backbone": "tone"}, dtype="float32")
    frames = np.array([[1, 2], [3, 4]], np.float32)
    writer.write(tmp_path / "cache" / shard_name(0), [Row("a", "0", frames)])
    shown = output([python, "-c", READS, str(tmp_path / "cache")], tmp_path)
    assert shown == "['a'] {'backbone': 'tone'} [[1.0, 2.0], [3.0, 4.0]] {}\n"

    (tmp_path / "params.yaml").write_text("{}\n")
    words = [heronry, "check"]
    asked = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert asked.returncode == 1
    assert asked.stderr.startswith("error: the package torch is not installed; expected ")
