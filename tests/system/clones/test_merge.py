"""Two members extract different backbones at once, and merge the dvc.lock that Git cannot merge."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from features.errors import HeronryError
from pipeline.commands.experiments.build import build
from tests.support.machines.team import EXTRACT, EXTRACT_LOCK, Member, Team
from tests.system.test_dvc import computed

pytestmark = [pytest.mark.slow, pytest.mark.dvc]
TRAIN = "stages/train/dvc.yaml:train@both"


def extract(member: Member, *backbones: str) -> None:
    targets = [EXTRACT.format(name) for name in backbones]
    member.run("dvc", "repro", *targets)
    member.run("dvc", "push", "--run-cache", "stages/prepare/dvc.yaml:prepare@tones", *targets)
    member.git("add", "-A")
    member.git("commit", "-qm", f"Extract {' '.join(backbones)}")


def test_backbones_added_at_once_are_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/remotes.md: take the other side's lock whole, then `build` one's own models again."""
    team = Team.found(tmp_path)
    ann, ben = (team.member(name, corpus=True) for name in ("ann", "ben"))
    extract(ann, "tone", "none")
    extract(ben, "mel")
    own = ben.lock("extract")["extract@tones-mel"]
    ann.git("push", "-q", "origin", "HEAD")
    ben.forbid_extraction()  # nothing is computed twice from here on

    done = subprocess.run(
        ["git", "pull", "-q", "--no-rebase"], cwd=ben.root, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert ben.git_output("diff", "--name-only", "--diff-filter=U") == EXTRACT_LOCK
    monkeypatch.chdir(ben.root)
    with pytest.raises(HeronryError, match=f"git checkout --theirs {EXTRACT_LOCK}"):
        build(["both"], pull=True)

    ben.git("checkout", "--theirs", EXTRACT_LOCK)
    said = ben.run("pipeline", "build", "both", "--pull")
    assert "Stage 'stages/extract/dvc.yaml:extract@tones-mel' is cached" in said
    assert computed(said) == []
    assert ben.lock("extract") == {**ann.lock("extract"), "extract@tones-mel": own}
    ben.git("add", EXTRACT_LOCK)
    ben.git("checkout", "HEAD", "--", "stages/prepare/__main__.py", "stages/extract/__main__.py")
    ben.git("commit", "-qm", "Merge")
    ben.git("push", "-q", "origin", "HEAD")

    cleo = team.member("cleo")
    cleo.forbid_extraction()
    said = cleo.run("dvc", "repro", "--pull", "--allow-missing", TRAIN)
    assert "> python -m stages.train tones both" in said
    caches = [f"cache/tones/{name}" for name in ("mel", "none", "tone")]
    assert cleo.outputs("data/tones/labels", *caches) <= cleo.objects() & team.objects()
