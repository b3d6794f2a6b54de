"""A team for tests: a bare Git repository, a remote folder for DVC, and members with clones."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.system.test_dvc import SOURCE, Project, params, write_corpus

EXTRACT = "stages/extract/dvc.yaml:extract@tones-{}"
EXTRACT_LOCK = "stages/extract/dvc.lock"
FORBIDDEN = 'raise SystemExit("this stage must not run here")\n'


class Member(Project):
    """A member's clone with its own work store; without a corpus unless one is given."""

    def __init__(self, origin: Path, root: Path, corpus: Path | None = None) -> None:
        subprocess.run(
            ["git", "clone", "-q", str(origin), str(root)], check=True, capture_output=True
        )
        self.root = root
        self.corpus = corpus or root.parent / "no corpus"
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not (key.startswith("HERONRY_") and key.endswith("_ROOT"))
        }
        self.environment = inherited | {
            "HERONRY_STORE": str(root.parent / f"{root.name} store"),
            "HERONRY_DEVICE": "cpu",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(root.parent / f"{root.name} site"),
            "PYTHONPATH": "",
        }
        if corpus is not None:
            self.environment["HERONRY_TONES_ROOT"] = str(corpus)
        self.git("config", "user.email", f"{root.name}@example.org")
        self.git("config", "user.name", root.name)

    def forbid_extraction(self) -> None:
        """Make `prepare` and `extract` fail; DVC does not notice, as no stage names their files."""
        for stage in ("prepare", "extract"):
            (self.root / "stages" / stage / "__main__.py").write_text(FORBIDDEN)

    def git_output(self, *words: str) -> str:
        """Output of a Git command."""
        done = subprocess.run(
            ["git", *words], cwd=self.root, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def publish(self, message: str) -> None:
        """Commit everything and push it to the bare repository."""
        self.git("add", "-A")
        self.git("commit", "-qm", message)
        self.git("push", "-q", "origin", "HEAD")

    def lock(self, stage: str) -> dict[str, Any]:
        """The entries of a stage's lock file, by name."""
        content = yaml.safe_load((self.root / "stages" / stage / "dvc.lock").read_text())
        found: dict[str, Any] = content["stages"]
        return found

    def objects(self) -> set[str]:
        """Names of the objects in DVC's cache."""
        return names(self.root / ".dvc" / "cache")

    def outputs(self, *stages: str) -> set[str]:
        """Names of the objects of these outputs, folders included, from lock files and cache."""
        found = set()
        for path in stages:
            folder = self.root / path
            found |= {md5(file) for file in folder.rglob("*") if file.is_file()}
            found |= {
                out["md5"]
                for stage in ("prepare", "extract")
                for entry in self.lock(stage).values()
                for out in entry["outs"]
                if out["path"] == path
            }
        return found


@dataclass
class Team:
    """Members share `origin` (Git, bare) and `remote` (a folder, DVC's)."""

    root: Path
    origin: Path = field(init=False)
    remote: Path = field(init=False)
    corpus: Path = field(init=False)

    def __post_init__(self) -> None:
        self.origin, self.remote = self.root / "origin.git", self.root / "remote"
        self.corpus = self.root / "corpus"

    @classmethod
    def found(cls, root: Path, content: dict[str, Any] | None = None) -> Team:
        """Write a corpus, and commit the project with the remote into a new bare repository."""
        team = cls(root)
        start = Project(root / "start", root / "start store")
        write_corpus(team.corpus)
        (start.root / "params.yaml").write_text(yaml.safe_dump(content or small_params()))
        shutil.copytree(
            SOURCE / ".dvc", start.root / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache")
        )
        (start.root / ".dvc" / "config.local").unlink(missing_ok=True)
        team.add_remote(start.root / ".dvc" / "config")
        start.git("add", "-A")
        start.git("commit", "-qm", "Start")
        subprocess.run(
            ["git", "clone", "-q", "--bare", str(start.root), str(team.origin)],
            check=True,
            capture_output=True,
        )
        return team

    def add_remote(self, config: Path) -> None:
        """What `heronry share setup` writes for a folder, without its round trip."""
        text = config.read_text().replace("[core]\n", "[core]\n    remote = team\n")
        config.write_text(
            f"{text}['remote \"team\"']\n    url = {self.remote}\n    verify = true\n"
        )

    def member(self, name: str, *, corpus: bool = False) -> Member:
        """A new clone."""
        return Member(self.origin, self.root / name, self.corpus if corpus else None)

    def objects(self) -> set[str]:
        """Names of the objects in the remote."""
        return names(self.remote)


def small_params() -> dict[str, Any]:
    """Models that train in seconds: `speech` needs tones, `both` also spectra."""
    content = params()
    content["train"] |= {"epochs": 2}
    for model in content["models"].values():
        model.setdefault("asr", "none")
    return content | {"seeds": 1}


def names(store: Path) -> set[str]:
    """MD5 names in a store of DVC, unfinished files among them."""
    files = (path for path in (store / "files" / "md5").rglob("*") if path.is_file())
    return {path.parent.name + path.name for path in files}


def md5(path: Path) -> str:
    """DVC's name of a file."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
