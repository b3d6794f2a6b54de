"""One member extracts and pushes; the others clone, and train without corpus or extraction."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.machines.team import EXTRACT, Member, Team, md5, small_params
from tests.system.test_dvc import computed

pytestmark = [pytest.mark.slow, pytest.mark.dvc]
UTTERANCES = "data/tones/utterances"
READ = ("data/tones/labels", "data/tones/ratings")
SPEECH = (*READ, "cache/tones/none", "cache/tones/tone")  # what training reads
BOTH = (*SPEECH, "cache/tones/mel", UTTERANCES)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Team:
    return Team.found(tmp_path_factory.mktemp("team"), small_params() | {"fusion": "both"})


@pytest.fixture(scope="module")
def ann(team: Team) -> Member:
    """Has the corpus; extracted for two models, pushed, and committed the lock files."""
    ann = team.member("ann", corpus=True)
    said = ann.run("pipeline", "build", "speech", "both", "--push")
    assert "> python -m stages.extract tones mel" in said
    assert "stages.train" not in said
    ann.publish("Extract")
    return ann


@pytest.fixture(scope="module", autouse=True)
def pushed(team: Team, ann: Member) -> set[str]:
    """What the remote holds before anybody else pushes."""
    assert ann.root.is_dir()
    return team.objects()


@pytest.fixture(scope="module")
def bob(team: Team, ann: Member) -> Member:
    """Has neither corpus nor extractors that work; trained `speech` on what Ann pushed."""
    assert ann.root.is_dir()
    bob = team.member("bob")
    bob.forbid_extraction()
    words = ("exp", "run", "-n", "first", "-S", "fusion=speech", "--pull", "--allow-missing")
    said = bob.run("dvc", *words)
    assert "> python -m stages.train tones speech" in said
    assert "> python -m stages.extract" not in said
    assert "> python -m stages.prepare" not in said
    return bob


def test_build_pushes_exactly_what_the_models_need(pushed: set[str], ann: Member) -> None:
    assert pushed == ann.outputs(*BOTH)
    extracted = [EXTRACT.format(name) for name in ("none", "tone", "mel")]
    said = ann.run("dvc", "repro", *extracted)
    assert computed(said) == []


def test_training_downloads_exactly_the_features_it_needs(ann: Member, bob: Member) -> None:
    assert bob.metrics()["accuracy"] > 0
    assert bob.objects() & ann.objects() == ann.outputs(*SPEECH)
    assert not (bob.root / "cache/tones/mel").exists()


def test_a_forbidden_stage_would_have_failed(bob: Member) -> None:
    """The proof rests on this: what Bob has in place of the extractor raises."""
    said = bob.run("stages.extract", "tones", "tone", fails=True)
    assert "must not run here" in said


def test_experiments_travel_with_their_metrics(team: Team, bob: Member) -> None:
    assert "Pushed experiment first" in bob.run("dvc", "exp", "push", "origin", "first")
    carol = team.member("carol")
    carol.run("dvc", "exp", "pull", "origin", "first")
    assert not (carol.root / "reports").exists()
    board = json.loads(carol.run("pipeline", "board", "--metric", "uar", "--json"))
    (row,) = board["groups"][0]["rows"]
    assert (row["name"], row["fusion"], row["corpus"]) == ("first", "speech", "tones")
    metrics = bob.metrics()
    assert row["uar"] == metrics["uar"]
    assert row["interval"] is None  # two speakers of the test split are too few
    assert row["seconds"] == metrics["train_seconds"]
    assert row["differing"] == {}


def test_without_the_lock_the_run_cache_leads_to_the_same(team: Team, ann: Member) -> None:
    """The lock files are not committed yet: what they would say is in the remote's run-cache.

    What the corpus was must be in Git all the same, or there is nothing to look up.
    """
    dora = team.member("dora")
    dora.forbid_extraction()
    dora.git("checkout", "-q", "HEAD~1")
    dora.git("checkout", "-q", "origin/HEAD", "--", "sources")
    assert not (dora.root / "stages/extract/dvc.lock").exists()
    # What `build speech --pull` runs.
    extracted = [EXTRACT.format(name) for name in ("none", "tone")]
    said = dora.run("dvc", "repro", "--keep-going", "--pull", "--allow-missing", *extracted)
    cached = re.findall(r"Stage '\S+:(\S+)' is cached - skipping run", said)
    assert sorted(cached) == ["extract@tones-none", "extract@tones-tone", "prepare@tones"]
    assert contents(dora, (*SPEECH, UTTERANCES)) == contents(ann, (*SPEECH, UTTERANCES))
    for stage in ("prepare", "extract"):
        for name, entry in dora.lock(stage).items():
            assert entry == ann.lock(stage)[name]
    assert "didn't change" in dora.run("dvc", "repro", EXTRACT.format("tone"))


def test_a_clone_of_what_was_committed_ends_with_the_report(team: Team, ann: Member) -> None:
    """Nothing is left to compute: plain `dvc repro` would end with "didn't change" and no report.

    On a branch of its own, since the other tests begin with the commit without results.
    """
    assert ann.root.is_dir()
    fay = team.member("fay", corpus=True)
    fay.git("checkout", "-qb", "results")
    fay.run("dvc", "repro", "--pull")
    fay.run("dvc", "push")
    fay.publish("Train")
    gus = team.member("gus")
    gus.git("checkout", "-q", "results")
    gus.forbid_extraction()
    said = gus.run("pipeline", "run", "--pull")
    assert computed(said) == []
    assert "> dvc exp run --pull --name both-tones evaluate" in said
    assert "== evaluate: download of what was pushed" in said
    assert "experiment both-tones" in said
    assert gus.metrics() == fay.metrics()
    assert (gus.root / "reports/index.html").read_bytes() == (
        fay.root / "reports/index.html"
    ).read_bytes()


def contents(member: Member, folders: tuple[str, ...]) -> dict[Path, str]:
    paths = (path for folder in folders for path in (member.root / folder).rglob("*"))
    return {path.relative_to(member.root): md5(path) for path in paths if path.is_file()}
