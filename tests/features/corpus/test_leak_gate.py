"""Training refuses what leaks, whatever `prepare` has said, and keeps what it was allowed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.corpus.entry import corpus_entry
from features.corpus.leak_gate import LEAKS, check_leaks
from features.corpus.leaks import Leak
from features.corpus.manifest import Label, Manifest
from features.corpus.prepare import prepare
from features.errors import ManifestError
from features.extraction.extract import extract
from features.extraction.trained_on import write_trained_on
from features.files.reasons import SEEN, write_reasons
from features.files.records import write_json, write_rows
from pipeline.params.file import read_params
from stages.train.__main__ import main
from tests.contracts.checkpoints.text_encoder import VARIANTS

FIRST = [
    Label("0", "sad", "s0", dialogue="d0", audio="0.wav", sentence="a", splits=("train", "test")),
    Label("1", "sad", "s1", dialogue="d1", audio="1.wav", sentence="b", splits=("valid", "train")),
    Label("2", "sad", "s2", dialogue="d2", audio="2.wav", sentence="c", splits=("test", "valid")),
]


def written(folder: Path, labels: Sequence[Label] = FIRST, **card: Any) -> Path:
    write_rows(folder / "labels.jsonl", labels)
    fields = {"corpus": "mine", "classes": ["happy", "sad"], "folds": 2, "allow_leak": []}
    write_json(folder / "card.json", fields | card)
    return folder


def with_second(**changes: Any) -> list[Label]:
    return [FIRST[0], dataclasses.replace(FIRST[1], **changes), FIRST[2]]


def test_sound_splits_pass(tmp_path: Path) -> None:
    assert check_leaks(written(tmp_path), {}) == {
        "format": "heronry-leaks",
        "version": 1,
        "allowed": [],
        "found": [],
        "lines": [],
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speaker": "s0"}, r"speaker: 1 of 2 .* s0 \(test, train\)"),
        ({"dialogue": "d2"}, r"dialogue: 1 of 2 .* d2 \(train, valid\)"),
        ({"audio": "2.wav"}, r"recording: 1 of 2 .* 2\.wav \(train, valid\)"),
    ],
)
def test_labels_edited_since_are_refused(
    tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    labels = with_second(**changes)
    with pytest.raises(ManifestError, match=message) as caught:
        check_leaks(written(tmp_path, labels), {})
    kind = str(caught.value).partition("allow_leak: [")[2].rstrip("]")
    found = check_leaks(written(tmp_path, labels, allow_leak=[kind]), {})
    assert (found["allowed"], [leak["kind"] for leak in found["found"]]) == ([kind], [kind])


def test_equal_recordings_are_known_from_the_card(tmp_path: Path) -> None:
    leak = Leak("recording", 1, 3, (0,), ("0.wav = 2.wav (train, test)",))
    card: dict[str, Any] = {"leak_verdict": [leak.to_dict()]}
    with pytest.raises(ManifestError, match=r"recording: 1 of 3 .* 0\.wav = 2\.wav"):
        check_leaks(written(tmp_path, **card), {})
    assert check_leaks(written(tmp_path, **card, allow_leak=["recording"]), {})["found"] == [
        leak.to_dict()
    ]


def test_a_sentence_on_both_sides_is_a_warning_with_counts(tmp_path: Path) -> None:
    labels = with_second(sentence="a")
    found = check_leaks(written(tmp_path, labels, scripted=True), {})
    (line,) = found["lines"]
    assert line.startswith("sentence: 1 of 2 occur in more than one split (fold 0, 1)")
    assert "must sit at chance" in line


def test_labels_and_card_of_other_folds(tmp_path: Path) -> None:
    with pytest.raises(
        ManifestError, match=r"3 utterances have another number of splits than .* 5"
    ):
        check_leaks(written(tmp_path, folds=5), {})


def test_each_slot_is_named_with_its_backbone(tmp_path: Path) -> None:
    slots = {"text": tmp_path / "cache" / "plain", "speech": tmp_path / "cache" / "tuned"}
    for folder in slots.values():
        folder.mkdir(parents=True)
    write_reasons(slots["speech"] / SEEN, {"1": "it was trained on", "9": "it was trained on"})
    with pytest.raises(ManifestError) as caught:
        check_leaks(written(tmp_path), slots)
    assert (
        "checkpoint: 1 of 3 validation and test utterances were in the training data of slot "
        "speech, backbone tuned (fold 0), such as 1 (it was trained on)" in str(caught.value)
    )
    (slots["speech"] / SEEN).write_text("")
    with pytest.raises(ManifestError, match="is no table"):
        check_leaks(written(tmp_path), slots)


CLASSES = ("sad", "happy")
WORDS = ("this is", "utterance number")
SPLITS = ("train", "train", "train", "valid", "test")
PARAMS: dict[str, Any] = {
    "fusion": "m",
    "regime": "cached",
    "corpus": "mine",
    "seeds": 1,
    "train": {"epochs": 1},
    "corpora": {"mine": {"kind": "manifest"}},
    "backbones": {"none": {}},
    "models": {"m": {"kind": "concat", "text": "tuned", "args": {"d_model": 4}}},
}


class Project:
    """A corpus of texts, a fine-tuned encoder, and the stages from `prepare` to `train`."""

    def __init__(self, folder: Path) -> None:
        rows = ["id,text,label,speaker,split"]
        rows += [
            f"{split}{s}{k},{WORDS[k % 2]} {s},{CLASSES[k % 2]},s{s},{split}"
            for s, split in enumerate(SPLITS)
            for k in range(4)
        ]
        (folder / "corpus").mkdir()
        (folder / "corpus" / "manifest.csv").write_text("\n".join(rows) + "\n")
        self.checkpoint = folder / "tuned"
        entry = {"kind": "text_encoder", **VARIANTS["bert"](self.checkpoint)}
        self.params = PARAMS | {"backbones": {"none": {}, "tuned": entry}}
        self.features(allow_leak=[])

    def features(self, **settings: Any) -> Manifest:
        """Prepare and extract again, as DVC would after a change."""
        corpora = {"mine": {"kind": "manifest", **settings}}
        Path("params.yaml").write_text(yaml.safe_dump(self.params | {"corpora": corpora}))
        params = read_params(Path("params.yaml"))
        prepare(corpus_entry("mine", params.corpora["mine"]), Path("data/mine"))
        manifest = Manifest.read(Path("data/mine/utterances"))
        out = Path("cache/mine/tuned")
        extract(manifest, params.backbone("tuned"), out, store=Path("store").resolve())
        return manifest

    def tuned_on(self, chosen: Callable[[str], bool]) -> None:
        manifest = Manifest.read(Path("data/mine/utterances"))
        write_trained_on(self.checkpoint, "mine", [u for u in manifest if chosen(u.id)])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERONRY_MINE_ROOT", str(tmp_path / "corpus"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return Project(tmp_path)


@pytest.mark.slow
def test_from_a_checkpoint_to_a_run(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("runs/cached/mine/m")
    project.tuned_on(lambda id: id.startswith("train"))
    project.features()
    main("mine", "m", workers=1)
    assert json.loads((run / LEAKS).read_text())["found"] == []

    project.tuned_on(lambda id: not id.startswith("valid"))
    project.features()
    with pytest.raises(ManifestError, match=r"checkpoint: 4 of 8 .* slot text, backbone tuned"):
        main("mine", "m", workers=1)

    project.features(allow_leak=["checkpoint"])
    capsys.readouterr()
    main("mine", "m", workers=1)
    assert "warning: checkpoint: 4 of 8 validation and test" in capsys.readouterr().err
    kept = json.loads((run / LEAKS).read_text())
    assert kept["allowed"] == ["checkpoint"]
    assert [(leak["kind"], leak["count"]) for leak in kept["found"]] == [("checkpoint", 4)]
    card = json.loads(Path("data/mine/labels/card.json").read_text())
    assert card["allow_leak"] == ["checkpoint"]
