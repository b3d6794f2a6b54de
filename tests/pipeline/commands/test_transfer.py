"""`heronry transfer`: what it refuses before anything is trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from features.errors import ParamsError
from pipeline.commands.experiments.transfer import transfer
from tests.support.paths import ROOT

BOTH = "+corpora.both={kind: union, of: [demo, mine]}"


@pytest.mark.parametrize(
    ("corpora", "settings", "told"),
    [
        (["dmo"], (), "corpora: no entry 'dmo'; expected one of .*demo"),
        (["demo"], (), "'demo' is no union; expected two or more .*: params.yaml has none"),
        (["demo"], (BOTH,), "'demo' is no union; .*: params.yaml has both"),
        (["demo", "mine"], (), r"is a union of demo, mine.*of: \[demo, mine\]"),
        (["demo", "mine"], ("fusion=heron",), "-S: given fusion=heron; expected other settings"),
        (["both"], (BOTH, "train.epochs=2,3"), "given settings for 2 experiments; expected one"),
    ],
)
def test_what_is_refused_before_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    corpora: list[str],
    settings: tuple[str, ...],
    told: str,
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    before = Path("params.yaml").read_bytes()
    with pytest.raises(ParamsError, match=f"(?s){told}"):
        transfer(corpora, settings=settings)
    assert Path("params.yaml").read_bytes() == before
