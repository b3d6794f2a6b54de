"""DVC's dependencies on sources cover what the command of a stage imports, and nothing else.

Stages that are not named here depend on no source: `prepare` and `extract` on the `version` of
their entries in params.yaml (hours of extraction must not hang on a docstring); `look`,
`members` and `selection` run each time.
"""

from __future__ import annotations

import re

import pytest
import yaml

from pipeline.runtime.resume import code_of
from tests.support.imports import closure, modules
from tests.support.paths import ROOT

DEFINITIONS = {
    "train": "stages/train/dvc.yaml",
    "e2e": "stages/e2e/dvc.yaml",
    "ensemble": "stages/ensemble/dvc.yaml",
    "speech_llm": "stages/speech_llm/dvc.yaml",
    "evaluate": "dvc.yaml",
}
MOST = 15  # source dependencies of a stage, so that they can be read
CHECKS = {
    "features.errors": "names errors",
    "features.arguments": "accepts settings or refuses them",
    "features.ranges": "accepts settings or refuses them",
    "features.files": "reads and writes bytes; what is read is a dependency itself",
    "features.process": "signals, workers, terminal",
    "features.settings": "finds plug-ins and places of the machine",
    "pipeline.tracking": "shows what was computed elsewhere; nothing is read back",
    "stages": "starts the command",
}
TRAINS = CHECKS | {
    "features.audio": "samples of cached features are the extraction's, which `version` stands for",
    "features.backbone": "checks entries; what they compute is what `version` stands for",
    "features.backbones": "as features.backbone",
    "features.weights": "as features.backbone",
    "features.transcription": "finds words beside a cache, which is a dependency itself",
    "features.corpus": "checks labels, leaks and splits; labels are a dependency themselves",
    "pipeline.params.catalogue": "names entries in messages",
    "pipeline.params.ensembles": "settings of another regime",
    "pipeline.params.file": "its values are parameters that DVC compares",
    "pipeline.params.selection": "checks names",
    "pipeline.params.slot_reads": "warns of odd slots",
    "pipeline.params.speech_llm": "settings of another regime",
    "pipeline.report.model_card": "prose, written when the training has ended",
    "pipeline.runtime": "processes, interruptions and the record of the machine",
    "pipeline.storage": "compares pulled files with dvc.lock",
}
# By stage: what its command imports and its dependencies leave out, with the reason why an edit of
# it cannot change the stage's numbers.
LEFT_OUT = {
    "train": TRAINS | {"pipeline.params.tuning": "settings of the other regime"},
    "e2e": TRAINS | {"features.extraction": "checks which weights are pinned and what they saw"},
    "ensemble": CHECKS
    | {
        "features.audio": "names of audio files, for the records of corpora",
        "features.transcription": "checks settings",
        "features.corpus": "checks labels and leaks; labels are a dependency themselves",
        "pipeline.params": "its values are parameters that DVC compares",
        "pipeline.report.model_card": "prose, written when the run is complete",
        "pipeline.runtime": "the record of the machine",
        "pipeline.storage": "names experiments",
    },
    "evaluate": CHECKS | {"pipeline.params.catalogue": "names entries in messages"},
    "speech_llm": CHECKS
    | {
        "features.backbone": "checks entries of params.yaml that it does not read",
        "features.cache": "as features.backbone",
        "features.corpus": "checks labels, leaks and splits; labels are a dependency themselves",
        "features.stream": "as features.backbone",
        "features.transcription": "as features.backbone",
        "features.weights": "finds and hashes weights, which the record names",
        "pipeline.model": "as features.backbone",
        "pipeline.params": "its values are parameters that DVC compares",
        "pipeline.runtime": "the record of the machine",
        "pipeline.storage": "compares pulled files with dvc.lock",
    },
}


def sources(stage: str) -> list[str]:
    """Dependencies of a stage that are sources, as dvc.yaml has them."""
    content = yaml.safe_load((ROOT / DEFINITIONS[stage]).read_text(encoding="utf-8"))["stages"]
    definition = content[stage]
    deps = definition.get("do", definition)["deps"]
    return [dep for dep in deps if dep.startswith(("features", "pipeline", "stages"))]


def within(module: str, place: str) -> bool:
    """Whether a module is a file, or lies in a folder."""
    path = modules()[module]
    return path == place or path.startswith(f"{place}/")


def under(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(f"{prefix}.")


@pytest.mark.parametrize("stage", DEFINITIONS)
def test_dependencies_cover_what_the_command_imports(stage: str) -> None:
    deps, reasons = sources(stage), LEFT_OUT[stage]
    assert len(deps) <= MOST
    assert deps == sorted(deps)
    for module in sorted(closure(f"stages.{stage}.__main__")):
        covered = any(within(module, dep) for dep in deps)
        left_out = any(under(module, prefix) for prefix in reasons)
        assert covered or left_out, f"{module}: name it in {DEFINITIONS[stage]} or give a reason"


@pytest.mark.parametrize("stage", DEFINITIONS)
def test_no_dependency_and_no_reason_is_stale(stage: str) -> None:
    deps = sources(stage)
    imported = closure(f"stages.{stage}.__main__")
    for dep in deps:
        assert (ROOT / re.sub(r"\$\{item\.kind\}", "concat", dep)).exists(), dep
        # A fusion is a plug-in, and its shared layers are imported by it: both found by name.
        assert dep.startswith("pipeline/fusion/") or any(within(m, dep) for m in imported), dep
    for prefix in LEFT_OUT[stage]:
        assert any(under(module, prefix) for module in imported), prefix


@pytest.mark.parametrize("stage", ["train", "e2e"])
def test_of_the_fusions_a_stage_depends_on_the_one_it_trains(stage: str) -> None:
    deps = {dep for dep in sources(stage) if dep.startswith("pipeline/fusion")}
    folder = ROOT / "pipeline" / "fusion"
    parts = "pipeline/fusion/_parts"
    assert deps == {parts, "pipeline/fusion/${item.kind}.py"}
    shared = {f"{parts}/{path.name}" for path in (folder / "_parts").glob("*.py")}
    for path in folder.glob("[a-z]*.py"):
        others = {m for m in closure(f"pipeline.fusion.{path.stem}") if m.startswith("pipeline.f")}
        assert {modules()[m] for m in others} <= shared | {f"pipeline/fusion/{path.name}"}


@pytest.mark.parametrize(("stage", "regime"), [("train", "cached"), ("e2e", "e2e")])
def test_a_half_done_training_ends_with_an_edit_that_ends_the_stage(
    stage: str, regime: str
) -> None:
    """What is kept of a training is named by at least the sources that its stage depends on."""
    named = code_of("concat", regime)
    for dep in sources(stage):
        assert dep.replace("${item.kind}", "concat") in named
