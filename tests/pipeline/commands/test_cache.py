"""`heronry cache import` prints what fits, and an entry that works."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from features.backbone.entry import backbone_entry
from features.corpus.manifest import Manifest
from features.errors import ManifestError, ParamsError
from features.extraction.extract import extract
from pipeline.command_line.app import app
from tests.conftest import ManifestMaker
from tests.support.models.foreign_features import SECONDS, arrays, as_npy, prepare


@pytest.fixture
def manifest(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Manifest:
    monkeypatch.chdir(tmp_path)
    return prepare(make_manifest(SECONDS))


def test_the_command_prints_an_entry_that_works(manifest: Manifest, private_store: Path) -> None:
    source = as_npy({**arrays(), "nobody": np.ones((2, 4))})
    (source / "u4.npy").unlink()
    result = CliRunner().invoke(app, ["cache", "import", "tones", "old", str(source)])
    assert result.exit_code == 0, result.output
    assert "4 utterances have features, in float32" in result.output
    assert "1 have none: 1 ('u4')" in result.output
    assert "left out: 1 ('nobody.npy')" in result.output
    assert "give --hop-seconds" in result.output
    _, _, rest = result.output.partition("params.yaml:\n")
    text, _, then = rest.partition("then:")
    assert "extract@tones-old" in then
    (entry,) = yaml.safe_load(text).values()
    made = extract(
        manifest, backbone_entry("old", entry), Path("cache/tones/old"), store=private_store
    )
    assert (made.computed, list(made.rejected)) == (4, ["u4"])


def test_the_command_refuses_a_name_that_is_a_path(manifest: Manifest) -> None:
    source = as_npy(arrays())
    result = CliRunner().invoke(app, ["cache", "import", "tones", "../../x", str(source)])
    assert isinstance(result.exception, ParamsError)
    assert manifest


@pytest.mark.usefixtures("manifest")
@pytest.mark.parametrize(
    "words",
    [
        *(("--hop-seconds", "nan"), ("--hop-seconds", "-1"), ("--hop-seconds", "inf")),
        *(("--bins", "0"), ("--bins", "40000"), ("--layers", "0")),
    ],
)
def test_numbers_out_of_range_name_their_option(words: tuple[str, str]) -> None:
    source = as_npy(arrays())
    result = CliRunner().invoke(app, ["cache", "import", "tones", "old", str(source), *words])
    assert result.exit_code != 0
    assert words[0] in f"{result.exception} {result.output}"
    assert isinstance(result.exception, ParamsError | SystemExit)


@pytest.mark.usefixtures("manifest")
def test_a_corpus_that_is_not_prepared() -> None:
    source = as_npy(arrays())
    result = CliRunner().invoke(app, ["cache", "import", "other", "old", str(source)])
    assert isinstance(result.exception, ManifestError)
    assert "prepare@other" in str(result.exception)


def test_a_misspelt_cache_is_answered_with_those_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache/demo/minilm").mkdir(parents=True)
    words = ["cache", "export", "demo", "minlm", "out"]
    with pytest.raises(ParamsError, match=r"given 'demo minlm'; .*did you mean 'demo minilm'"):
        CliRunner().invoke(app, words, catch_exceptions=False)
