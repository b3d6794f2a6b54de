"""What params.yaml selects, checked before DVC fills the names into paths."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.errors import ParamsError
from pipeline.params.file import all_problems, read_unchecked
from pipeline.params.selection import regime_of, selection_problems, unwritten
from stages.selection.__main__ import OUT, main
from tests.support.known_params import shipped_raw
from tests.support.paths import ROOT

SOURCE = ROOT


VOTES = {"votes": {"members": ["cached/heron", "cached/concat"]}}


def shipped(**changes: Any) -> dict[str, Any]:
    return shipped_raw() | {"ensembles": VOTES} | changes


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fusion": "concta"}, "fusion: given 'concta'; expected one of ['bigru_cross', "),
        ({"fusion": "concta"}, "(did you mean 'concat'?)"),
        ({"fusion": None}, "fusion: given None; expected one of"),
        ({"fusion": ["heron"]}, "fusion: given ['heron']; expected one of"),
        ({"corpus": "Demo"}, "(did you mean 'demo'?)"),
        ({"regime": "chached"}, "regime: given 'chached'; expected one of ['cached', 'e2e', '"),
        ({"fusion": "votes"}, "; `ensembles` has it: set `regime: ensemble`"),
        ({"regime": "ensemble"}, "; `models` has it: set `regime: cached`"),
        ({"regime": "speech_llm", "fusion": "x"}, "fusion: given 'x'; expected"),
        ({"ensembles": []}, "[]; expected entries by name, or {}"),
        ({"registry": None}, "registry: given None; expected entries by name, or {}"),
        ({"ensembles": {"heron": {}}}, "`models` has the entry 'heron'; rename one"),
        ({"models": None}, "models: given None; expected entries by name"),
        ({"corpora": {"a.b": {}, "demo": {}}}, "corpora.a.b: given the name 'a.b'; expected"),
    ],
)
def test_names_that_are_no_entry(changes: dict[str, Any], told: str) -> None:
    (found,) = selection_problems(shipped(**changes))
    assert told in found


@pytest.mark.parametrize("slot", ["text", "speech", "asr"])
def test_backbones_of_the_selected_model_alone(slot: str) -> None:
    content = shipped(fusion="heron")
    content["models"]["concat"][slot] = "nothing at all"
    assert selection_problems(content) == []
    content["models"]["heron"][slot] = "minilmm"
    (found,) = selection_problems(content)
    assert found.startswith(f"models.heron.{slot}: given 'minilmm'; expected one of [")
    assert found.endswith("(did you mean 'minilm'?)")


def test_regimes_of_other_sections() -> None:
    """Where `ensembles` and `speech_llms` are left out, the regimes of models work as before."""
    assert selection_problems(shipped(regime="ensemble", fusion="votes")) == []
    content = shipped()
    del content["ensembles"], content["speech_llms"]
    assert selection_problems(content) == []
    assert [line.partition(":")[0] for line in unwritten(content)] == ["ensembles", "speech_llms"]
    assert regime_of(content, "heron") == "cached"
    assert regime_of(content | {"regime": "e2e"}, "heron") == "e2e"
    assert regime_of(content | {"regime": "ensemble"}, "heron") == "cached"
    assert regime_of(content, "votes") is None


def test_check_says_the_same(tmp_path: Path) -> None:
    content = shipped(fusion="concta", corpus="dem")
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    assert set(selection_problems(content)) <= set(all_problems(read_unchecked(path)))


def test_a_number_out_of_range_does_not_hide_a_misspelt_name(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(shipped(fusion="concta", seeds=0) | {"corpora": None}))
    with pytest.raises(ParamsError, match=r"(?s)seeds: given 0.*fusion: given 'concta'") as told:
        read_unchecked(path)
    assert len(str(told.value).splitlines()) == 3


def test_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes the same whatever is selected, so that the report does not depend on it."""
    monkeypatch.chdir(tmp_path)
    written = set()
    for fusion in ("heron", "concat"):
        Path("params.yaml").write_text(yaml.safe_dump(shipped(fusion=fusion)))
        main()
        written.add(OUT.read_bytes())
    assert len(written) == 1
    Path("params.yaml").write_text(yaml.safe_dump(shipped(fusion="concta", regime="x")))
    with pytest.raises(ParamsError, match=r"(?s)fusion: given.*\nregime: given"):
        main()


@pytest.mark.parametrize("stage", ["look", "selection"])
def test_what_runs_at_each_repro_does_not_wait_for_torch(stage: str) -> None:
    code = f"import sys, stages.{stage}.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=SOURCE, check=False).returncode == 0
