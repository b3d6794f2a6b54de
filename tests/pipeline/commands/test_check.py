"""`heronry check` names every problem before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from features.corpus.manifest import Manifest
from features.errors import ParamsError
from features.transcription.settings import Transcription
from pipeline.commands.check import check, find_problems
from pipeline.params.file import Params, all_problems
from pipeline.params.selection import unwritten
from tests.conftest import ManifestMaker

MANIFEST = """id,audio,text,label,speaker
u0,u0.wav,hello,calm,s0
u1,u1.wav,hello,sad,s1
u2,,hello,calm,s2
u3,,hello,sad,s3
"""


def params(**changes: object) -> Params:
    base: dict[str, object] = {
        "fusion": "m",
        "regime": "cached",
        "corpus": "mine",
        "seeds": None,
        "train": {},
        "corpora": {"mine": {"kind": "manifest", "protocol": "speaker_split"}},
        "backbones": {"tone": {}, "none": {}},
        "models": {"m": {"kind": "concat", "speech": "tone"}},
        "asr_backbones": {},
        "ensembles": {},
        "speech_llms": {},
        "transcribe": vars(Transcription()),
    }
    return Params(**(base | changes))  # type: ignore[arg-type]


@pytest.fixture
def corpus(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Manifest:
    monkeypatch.chdir(tmp_path)
    manifest = make_manifest([0.5, 0.6])
    (tmp_path / "audio" / "manifest.csv").write_text(MANIFEST)
    monkeypatch.setenv("HERONRY_MINE_ROOT", "audio")
    rows = [u.__class__(**{**vars(u), "audio": Path(u.audio or "").name}) for u in manifest]
    Manifest("mine", tuple(rows)).write(tmp_path / "data" / "mine" / "utterances")
    return manifest


@pytest.mark.usefixtures("corpus")
def test_no_problems() -> None:
    assert find_problems(params(), deep=True) == []


def test_sections_that_dvc_would_miss() -> None:
    """Of a params.yaml from before there were transcripts; `vars` of Params has None for them."""
    assert unwritten(vars(params(models={}))) == []
    sections = ("asr_backbones", "ensembles", "speech_llms")
    old = vars(params(models={}, transcribe=None, **dict.fromkeys(sections)))
    *empty, settings = unwritten(old)
    assert [line.partition("write ")[2] for line in empty] == [f"`{s}: {{}}`" for s in sections]
    written = yaml.safe_load(settings.partition("write `")[2].rstrip("`"))
    assert unwritten({**old, **{key: {} for key in sections}, **written}) == []
    (one,) = unwritten(vars(params(models={}, transcribe={"corpora": []})))
    assert "given no checkpoint, revision," in one


@pytest.mark.usefixtures("corpus")
def test_what_is_transcribed_is_checked() -> None:
    asr = {"kind": "asr_text", "checkpoint": "x"}
    changes: dict[str, object] = {
        "transcribe": {"corpora": ["mine", "mne"], "langage": "de"},
        "asr_backbones": {"tone": asr, "sound": {"kind": "logmel"}, "words": asr},
    }
    found = all_problems(params(**changes))
    assert any(line.startswith("transcribe.langage") for line in found)
    assert "asr_backbones.tone: `backbones` has the entry 'tone'; rename one" in found
    changes |= {"transcribe": {"corpora": ["mine", "mne"]}}
    found = all_problems(params(**changes))
    assert any("transcribe.corpora: given 'mne'; expected one of" in line for line in found)
    assert any("asr_backbones.sound.kind: given 'logmel'; expected asr_text" in f for f in found)
    # An entry that reads the reference itself is no test on recognised words.
    model = {"kind": "concat", "text": "said", "asr": "words"}
    said = {"said": {**asr, "kind": "text_encoder"}, "none": {}}
    heard = {"words": {**asr, "where": "missing"}}
    changes = {"models": {"m": model}, "backbones": said, "asr_backbones": heard}
    (line,) = all_problems(params(**changes))
    assert line.startswith("models.m.asr: 'words' has `where: missing`; expected `where: always`")
    assert all_problems(params(**{**changes, "asr_backbones": {"words": asr}})) == []


@pytest.mark.usefixtures("corpus")
def test_the_command_names_slots_that_dvc_would_miss() -> None:
    Path("params.yaml").write_text(yaml.safe_dump(vars(params())))
    with pytest.raises(ParamsError, match=r"models\.m: given no text, nonverbal, .*all six slots"):
        check()


def test_root_that_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HERONRY_MINE_ROOT", raising=False)
    (found,) = find_problems(params())
    assert "HERONRY_MINE_ROOT" in found
    assert "heronry.local.yaml" in found


def test_root_that_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nothing").mkdir()
    monkeypatch.setenv("HERONRY_MINE_ROOT", "nothing")
    (found,) = find_problems(params())
    assert str(tmp_path / "nothing") in found


def test_files_that_changed_since_prepare(corpus: Manifest) -> None:
    first, second = (Path(u.audio or "") for u in corpus)
    first.unlink()
    second.write_bytes(second.read_bytes() + b"xx")
    lacking, found = find_problems(params())
    assert "1 of 4 utterances cannot be used:\n  u0: u0.wav: there is no such file" in lacking
    assert "in 2 places" in found
    assert "is gone" in found
    assert "Run `dvc repro`" in found


def test_the_deep_check_finds_other_content_of_the_same_size(corpus: Manifest) -> None:
    path = Path(corpus.utterances[0].audio or "")
    whole = path.read_bytes()
    path.write_bytes(whole[:-2] + b"xx")
    assert find_problems(params()) == []
    assert "has other content" in find_problems(params(), deep=True)[0]


@pytest.mark.usefixtures("corpus")
def test_slots_and_checkpoints() -> None:
    backbones = {"tone": {}, "none": {}, "far": {"kind": "text_encoder", "checkpoint": "no/where"}}
    models = {"m": {"kind": "heron", "text": "far", "prosody": "tone"}}
    found = find_problems(params(backbones=backbones, models=models))
    assert len(found) == 3
    assert "no place for the prosody slot" in found[0]
    assert "cannot load checkpoint 'no/where'" in found[1]
    assert "backbones.far.revision: given null, which leaves open" in found[2]


@pytest.mark.usefixtures("corpus")
def test_bins_in_a_slot_for_numbers_are_refused_before_anything_runs() -> None:
    backbones = {"tone": {}, "none": {}, "f0": {"bins": 64}}
    models = {"m": {"kind": "heron", "speech": "f0"}}
    (found,) = find_problems(params(backbones=backbones, models=models))
    assert found.startswith("models.m: ")
    assert "bins" in found
    models = {"m": {"kind": "gat", "speech": "tone", "prosody": "f0"}}
    assert find_problems(params(backbones=backbones, models=models)) == []
    in_hz = {"tone": {}, "none": {}, "f0": {"values": "hz"}}
    raw = {"m": {"kind": "gat", "prosody": "f0", "args": {"f0_channels": 8}}}
    assert find_problems(params(backbones=in_hz, models=raw)) == []


@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        ({"kind": "logmel", "f_min": 500, "f_max": 550}, "expected 100 Hz between them"),
        ({"kind": "f0", "f_min": 500, "f_max": 100}, "and 0 < f_min < f_max"),
        ({"kind": "f0", "pooling": "mean"}, "bins cannot be pooled"),
        ({"kind": "f0", "method": "rmvpe"}, "checkpoint"),
    ],
)
def test_settings_that_contradict_each_other(backbone: dict[str, object], said: str) -> None:
    found = find_problems(params(backbones={"tone": backbone, "none": {}}))
    (line,) = (line for line in found if line.startswith("backbones."))
    assert said in line


@pytest.mark.usefixtures("corpus")
def test_heads_that_do_not_divide_the_width() -> None:
    model = {"kind": "transformer", "speech": "tone", "args": {"d_model": 10, "heads": 4}}
    (found,) = find_problems(params(models={"m": model}))
    assert found.startswith("models.m: transformer: heads 4; expected a divisor of 10")
