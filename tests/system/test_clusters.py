"""The recipes of docs/clusters.md run as they are written, without a cluster."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.machines.team import Member, Team, small_params
from tests.system.test_dvc import SOURCE, computed

pytestmark = [pytest.mark.slow, pytest.mark.dvc]


def recipe(mark: str) -> str:
    """The one block of the page in which something stands."""
    blocks = re.findall(r"```bash\n(.*?)```", (SOURCE / "docs/clusters.md").read_text(), re.S)
    (found,) = (block for block in blocks if mark in block)
    assert isinstance(found, str)
    return found


def run(block: str, member: Member, names: dict[str, str], **environment: str) -> str:
    """Run a block in a member's clone, with names of this machine in place of the page's."""
    for theirs, ours in names.items():
        assert theirs in block
        block = block.replace(theirs, ours)
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", "umask 022\n" + block],
        cwd=member.root,
        env=member.environment | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_recipes_run_as_they_are_written(tmp_path: Path) -> None:
    team = Team.found(tmp_path, small_params() | {"fusion": "both"})
    ann = team.member("ann", corpus=True)
    cache, store = tmp_path / "shared dvc-cache", tmp_path / "shared store"
    places = {"/shared/dvc-cache": f"'{cache}'", "/shared/heronry-store": f"'{store}'"}
    places["sudo install -d -m 2775 -g heronry"] = "install -d -m 2775"
    run(recipe("sudo install"), ann, places)
    ann.environment["HERONRY_STORE"] = str(store)

    ann.run("dvc", "repro", "-q", "stages/prepare/dvc.yaml:prepare@tones")
    names = {
        "/shared/heronry-store": f"'{store}'",
        "/corpora/msp": f"'{team.corpus}'",
        "MSP_PODCAST": "TONES",
        "srun ": "",
        "msp_podcast hubert": "tones tone",
    }
    for part in ("1", "2"):
        slurm = {"SLURM_ARRAY_TASK_ID": part, "SLURM_ARRAY_TASK_COUNT": "2"}
        said = run(recipe("--part"), ann, names, **slurm)
        assert f"part {part}/2: " in said
    said = run(recipe("dvc push"), ann, {"msp_podcast-hubert": "tones-tone"})
    assert "tones/tone: 0 utterances computed" in said
    # Under umask 022, and for a group all the same.
    assert all(path.stat().st_mode & 0o020 for path in (cache, store, *store.iterdir()))

    ann.run("pipeline", "build", "speech", "--push")
    ann.publish("Extract")
    bob = team.member("bob")
    bob.forbid_extraction()
    names = {
        "/shared/heronry.git": f"'{team.origin}'",
        "/shared/dvc-cache": f"'{cache}'",
        "(heron gat lpgnet)": "(both speech)",
    }
    (tmp_path / "node").mkdir()
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\nname = bob\nemail = bob@example.org\n")
    said = run(
        recipe("--array=0-2"),
        bob,
        names,
        SLURM_ARRAY_TASK_ID="1",
        SLURM_TMPDIR=str(tmp_path / "node"),
        HOME=str(home),
    )
    assert computed(said) == ["train", "evaluate"]
    assert "speech" in bob.run("dvc", "exp", "list", "origin", "--all-commits")
