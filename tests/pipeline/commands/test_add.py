"""`heronry add` copies entries of the catalogue and leaves all else as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from features.errors import ParamsError
from features.files.yaml_text import read_yaml
from pipeline.command_line.app import app
from pipeline.commands.add import add, with_entries
from pipeline.params.catalogue.entries import catalogue_entry, entry_text
from pipeline.params.file import all_problems, read_params
from tests.support.known_params import SHIPPED


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "params.yaml"
    shutil.copy(SHIPPED, path)
    return path


def said(*words: str) -> str:
    done = CliRunner().invoke(app, ["add", *words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def indented(section: str, name: str) -> str:
    return "".join(f"  {line}\n" for line in entry_text(section, name).splitlines())


def test_a_papers_system_brings_all_its_networks(here: Path) -> None:
    told = said("model", "heron_paper")
    for name in ("models.heron_paper", "backbones.roberta", "backbones.hubert"):
        assert f"params.yaml: added {name}\n" in told
    assert "params.yaml: added backbones.voc2vec\n" in told
    assert all_problems(read_params(here)) == []


@pytest.mark.parametrize(
    ("what", "section", "name"),
    [
        ("corpus", "corpora", "ravdess"),
        ("backbone", "backbones", "hubert"),
        ("model", "models", "text"),
    ],
)
def test_an_entry_comes_with_its_comments_and_the_rest_stays(
    here: Path, what: str, section: str, name: str
) -> None:
    before = here.read_text(encoding="utf-8")
    told = said(what, name)
    after = here.read_text(encoding="utf-8")
    assert f"params.yaml: added {section}.{name}" in told
    assert after.replace(indented(section, name), "", 1) == before
    assert all_problems(read_params(here)) == []


def test_a_model_brings_the_backbones_that_are_missing(here: Path) -> None:
    before = here.read_text(encoding="utf-8")
    for block in (indented("models", "spectral"), indented("backbones", "logmel")):
        before = before.replace(block, "", 1)
    here.write_text(before, encoding="utf-8")
    told = said("model", "spectral")
    assert "added models.spectral\n" in told
    assert "added backbones.logmel\n" in told
    after = here.read_text(encoding="utf-8")
    for block in (indented("models", "spectral"), indented("backbones", "logmel")):
        after = after.replace(block, "", 1)
    assert after == before


def test_what_to_do_next() -> None:
    assert "export HERONRY_RAVDESS_ROOT=/path/to/ravdess; dvc exp run -S corpus=ravdess" in said(
        "corpus", "ravdess"
    )
    assert "dvc exp run -S models.heron.text=bert" in said("backbone", "bert")
    assert "dvc exp run -S models.heron.asr=minilm_asr" in said("asr_backbone", "minilm_asr")
    assert "dvc exp run -S models.heron.speech=hubert" in said("backbone", "hubert")


def test_the_list_marks_what_is_there() -> None:
    lines = said("--list").splitlines()
    assert "* demo                  demo" in lines
    assert "  ravdess               ravdess" in lines
    assert "  hubert                speech_encoder facebook/hubert-base-ls960" in lines
    assert "* lpgnet                lpgnet minilm_mean whisper_tiny_en_mean" in lines


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model", "heron"), r"models\.heron: params\.yaml has this entry; edit it"),
        (("model", "txt"), r"add model: given 'txt'; expected one of .*did you mean 'text'"),
        (("model", None), "add model: given nothing; expected one of"),
        (
            ("backbone", "minilm_asr"),
            "given 'minilm_asr'; expected `heronry add asr_backbone minilm_asr`",
        ),
        (("fusion", "text"), r"add: given 'fusion'; expected one of \['asr_backbone', 'backb"),
        ((None, None), "add: given nothing; expected one of"),
    ],
)
def test_refusals_leave_the_file(
    here: Path, words: tuple[str | None, str | None], message: str
) -> None:
    before = here.read_bytes()
    with pytest.raises(ParamsError, match=message):
        add(*words)
    assert here.read_bytes() == before


def test_names_that_cannot_stand_side_by_side_are_refused(here: Path) -> None:
    here.write_text(here.read_text(encoding="utf-8") + "  TEXT: {kind: concat}\n")
    with pytest.raises(ParamsError, match=r"'TEXT' and 'text' differ in case alone"):
        add("model", "text")


SMALL = "corpora: {}\nbackbones:\n{backbones}models:\n{models}"
TEXTS = [
    "models:\n  m: {}\ncorpora:\n  c: {}\nbackbones:\n  b: {}\n",  # another order
    "corpora:\n    c: {}\nbackbones:\n    b: {}\nmodels:\n    m: {}",  # indent; no last line end
    "corpora:\n  c:\nbackbones: # all\n\n  # one\n  b: {}\n\n# two\n\nmodels:\n  m: {}\n\n# end\n",
    "corpora:\r\n  c: {}\r\nbackbones:\r\n  b: {}\r\nmodels:\r\n  m: {}\r\n",
    'corpora:\n  c: {}\nbackbones:\n  b: "a\n\n    b"\nmodels:\n  m: |\n    a\n\n    b\n',
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("section", ["corpora", "backbones", "models"])
def test_files_of_other_hands(section: str, text: str) -> None:
    name = {"corpora": "meld", "backbones": "bert", "models": "text"}[section]
    raw = read_yaml(text)
    added = with_entries(text, raw, [(section, name)])
    assert read_yaml(added) == {
        **raw,
        section: {**raw[section], name: catalogue_entry(section, name)},
    }
    block = [line.strip() for line in entry_text(section, name).splitlines()]
    ours, theirs = added.splitlines(), text.splitlines()
    at = next(n for n, line in enumerate(ours) if line.strip() == block[0])
    assert [line.strip() for line in ours[at : at + len(block)]] == block
    assert ours[:at] + ours[at + len(block) :] == theirs


def test_a_section_without_entries_loses_its_braces(here: Path) -> None:
    before = here.read_text(encoding="utf-8")
    assert "\nasr_backbones: {}   # " in before
    assert "params.yaml: added asr_backbones.minilm_asr" in said("asr_backbone", "minilm_asr")
    after = here.read_text(encoding="utf-8")
    block = indented("asr_backbones", "minilm_asr")
    assert after.replace(block, "", 1) == before.replace("bones: {}   #", "bones:    #", 1)
    assert all_problems(read_params(here)) == []


@pytest.mark.parametrize("models", ["models: {m: {}}\n", '"models":\n  m: {}\n'])
def test_a_section_that_cannot_be_extended_is_shown_by_hand(models: str) -> None:
    text = f"corpora:\n  c: {{}}\nbackbones:\n  none: {{}}\n{models}"
    with pytest.raises(ParamsError, match=r"(?s)add this by hand:.*# below models:\ntext:.*kind"):
        with_entries(text, read_yaml(text), [("models", "text")])
