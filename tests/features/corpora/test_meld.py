"""The MELD adapter on a miniature release with each trap, and on the real tables if present."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import soundfile

from features.audio.read import read_audio
from features.corpora.meld import BAD_CLIPS, SPLITS, Labels, Meld
from features.corpus.adapter import Item
from features.corpus.entry import corpus_entry
from features.corpus.manifest import Manifest, read_labels
from features.corpus.prepare import Prepared, prepare
from features.errors import ManifestError, ParamsError
from tests.support.corpora.small_corpus import set_root, write_level
from tests.support.paths import SHARED

REAL = SHARED / "data" / "meld"
HEADER = (
    "Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID",
    "Season", "Episode", "StartTime", "EndTime",
)  # fmt: skip
Row = tuple[str, str, str, str, int | str, int | str]  # text to utterance number
ROWS: dict[str, tuple[Row, ...]] = {
    "train": (
        ("What?", "Ross", "surprise", "negative", 0, 0),
        ("Oh, my", "Rachel", "joy", "positive", 0, 1),
        ("No.", "The Waiter", "neutral", "neutral", 125, 3),
    ),
    "dev": (
        ("Fine", "Monica", "neutral", "neutral", 0, 0),
        ("Did they?", "Phoebe", "fear", "negative", 110, 7),
    ),
    "test": (
        ("Hey", "Ross", "neutral", "neutral", 0, 0),
        ("Ew", "Joey", "disgust", "negative", 0, 2),
    ),
}


def write_table(root: Path, split: str, rows: tuple[Row, ...], *, encoding: str = "utf-8") -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(HEADER)
    # Times hold a comma, and the numbering has gaps.
    times = ("00:16:16,059", "0:16:21,731")
    writer.writerows((7 * n, *row, 8, 21, *times) for n, row in enumerate(rows))
    (root / f"{split}_sent_emo.csv").write_bytes(file.getvalue().encode(encoding))


def release(root: Path) -> Path:
    root.mkdir(exist_ok=True)
    for split, rows in ROWS.items():
        write_table(root, split, rows)
    return root


def write_clip(root: Path, split: str, name: str, *, channels: int = 1) -> None:
    write_level(root / SPLITS[split][1] / name, 12_000, 48_000, channels)


def with_clips(root: Path) -> Path:
    release(root)
    for split, rows in ROWS.items():
        for *_, dialogue, utterance in rows:
            if f"{split}_dia{dialogue}_utt{utterance}" not in BAD_CLIPS:
                write_clip(root, split, f"dia{dialogue}_utt{utterance}.wav")
    return root


def miniature(root: Path) -> dict[str, Any]:
    """Smallest release whose tables are all read; returns the options of its entry."""
    release(root)
    (root / "dev").mkdir()
    (root / "dev_sent_emo.csv").rename(root / "dev" / "dev_sent_emo.csv")
    return {"audio": False}


def items(root: Path, **options: Any) -> dict[str, Item]:
    return {item.id: item for item in Meld(root, **options).items()}


def test_all_that_is_known_of_an_utterance(tmp_path: Path) -> None:
    found = items(with_clips(tmp_path))
    assert found["dev_dia0_utt0"] == Item(
        id="dev_dia0_utt0",
        label="neutral",
        speaker="Monica",
        audio="dev_splits_complete/dia0_utt0.wav",
        text="Fine",
        dialogue="dev_dia0",
        turn=0,
        split="valid",
    )


def test_dialogues_are_numbered_anew_in_each_split(tmp_path: Path) -> None:
    found = list(Meld(release(tmp_path)).items())
    assert [(item.id, item.dialogue, item.turn, item.split) for item in found] == [
        ("train_dia0_utt0", "train_dia0", 0, "train"),
        ("train_dia0_utt1", "train_dia0", 1, "train"),
        ("train_dia125_utt3", "train_dia125", 3, "train"),
        ("dev_dia0_utt0", "dev_dia0", 0, "valid"),
        ("dev_dia110_utt7", "dev_dia110", 7, "valid"),
        ("test_dia0_utt0", "test_dia0", 0, "test"),
        ("test_dia0_utt2", "test_dia0", 2, "test"),
    ]


def test_sentiment(tmp_path: Path) -> None:
    corpus = Meld(release(tmp_path), labels="sentiment")
    assert corpus.classes == ("neutral", "positive", "negative")
    assert (corpus.variant, corpus.published.by["label"]["negative"]) == ("sentiment", 4184)
    assert corpus.label_map == {name: name for name in corpus.classes}
    assert [item.label for item in corpus.items()][:2] == ["negative", "positive"]


@pytest.mark.parametrize("labels", ["emotion", "sentiment"])
def test_published_counts_add_up(tmp_path: Path, labels: Labels) -> None:
    corpus = Meld(tmp_path, labels=labels)
    assert set(corpus.published.by["label"]) == set(corpus.classes)
    for counts in corpus.published.by.values():
        assert sum(counts.values()) == corpus.published.utterances == 13_708


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_curly_quotes_and_nothing_else(tmp_path: Path, encoding: str) -> None:
    text = "‘It’s “beef sautéed”…’ — No–no  don't"
    write_table(tmp_path, "train", ((text, "Ross", "joy", "positive", 0, 0),), encoding=encoding)
    (item,) = Meld(tmp_path).items()
    assert item.text == "'It's \"beef sautéed\"…' — No–no  don't"


def test_control_characters_in_place_of_quotes(tmp_path: Path) -> None:
    texts = (
        "I\u0092m \u0093fine\u0094, \u0091k?",
        "Well\x85",
        "caf\u00c3\u00a9 don\u00e2\u20ac\u2122t",
    )
    rows = tuple((text, "Ross", "joy", "positive", 0, n) for n, text in enumerate(texts))
    write_table(tmp_path, "train", rows)
    found = list(items(tmp_path).values())
    assert [item.text for item in found] == ["I'm \"fine\", 'k?", "Well…", "café don't"]
    controls = "Utterance has characters U+0080 to U+009F: read as Windows-1252"
    mended = "Utterance was encoded as UTF-8 twice: mended"
    assert [item.notices for item in found] == [(controls,), (controls,), (mended,)]


def test_one_stray_byte_does_not_spoil_the_other_lines(tmp_path: Path) -> None:
    rows = (("café", "Ross", "joy", "positive", 0, 0), ("it#s", "Ross", "joy", "positive", 0, 1.0))
    write_table(tmp_path, "train", rows)  # type: ignore[arg-type]
    table = tmp_path / "train_sent_emo.csv"
    table.write_bytes(table.read_bytes().replace(b"#", b"\x92"))
    assert [item.text for item in Meld(tmp_path).items()] == ["café", "it's"]


def test_the_bad_clips_count_where_text_alone_is_used(tmp_path: Path) -> None:
    for found in (items(release(tmp_path)), items(with_clips(tmp_path), audio=False)):
        assert {item.audio for item in found.values()} == {None}
        assert [id for id, item in found.items() if item.fault or item.excluded] == []
        assert [found[id].label for id in BAD_CLIPS] == ["neutral", "fear"]


def test_the_bad_clips_are_rejected_where_audio_is_used(tmp_path: Path) -> None:
    with_clips(tmp_path)
    write_clip(tmp_path, "train", "dia125_utt3.wav")  # ffmpeg makes something of it
    for options in ({}, {"audio": True}):
        found = items(tmp_path, **options)
        assert [id for id, item in found.items() if item.fault or item.excluded] == list(BAD_CLIPS)
        for id, reason in BAD_CLIPS.items():
            item = found[id]
            assert (item.label, item.audio, item.text) == (None, None, None)
            assert (item.fault, item.excluded) == (None, reason)


def test_one_folder_of_clips_is_enough_to_ask_for_all(tmp_path: Path) -> None:
    write_clip(release(tmp_path), "dev", "dia0_utt0.wav")
    found = items(tmp_path)
    assert found["test_dia0_utt2"].audio == "output_repeated_splits_test/dia0_utt2.wav"


def test_a_video_without_its_sound_says_what_to_run(tmp_path: Path) -> None:
    with_clips(tmp_path)
    clip = tmp_path / "train_splits" / "dia0_utt1"
    clip.with_suffix(".wav").unlink()
    clip.with_suffix(".mp4").touch()
    item = items(tmp_path)["train_dia0_utt1"]
    assert (item.label, item.audio, item.excluded) == (None, None, None)
    assert item.fault == (
        "train_splits/dia0_utt1.mp4 has no sound file beside it: "
        "run ffmpeg -i train_splits/dia0_utt1.mp4 -vn train_splits/dia0_utt1.wav"
    )


def test_flac_other_cases_and_folders_one_down(tmp_path: Path) -> None:
    with_clips(tmp_path)
    folder = tmp_path / "train_splits"
    (folder / "dia0_utt0.wav").rename(folder / "dia0_utt0.WAV")
    (folder / "dia0_utt1.wav").unlink()
    write_clip(tmp_path, "train", "dia0_utt1.flac")
    (tmp_path / "train").mkdir()
    folder.rename(tmp_path / "train" / "train_splits")
    table = tmp_path / "train_sent_emo.csv"
    table.rename(tmp_path / "train" / table.name)
    found = items(tmp_path)
    assert found["train_dia0_utt0"].audio == "train/train_splits/dia0_utt0.WAV"
    assert found["train_dia0_utt1"].audio == "train/train_splits/dia0_utt1.flac"


def test_clips_without_a_row_are_none_of_the_corpus(tmp_path: Path) -> None:
    before = items(with_clips(tmp_path))
    write_clip(tmp_path, "test", "final_videos_testdia0_utt0.wav")
    write_clip(tmp_path, "test", "dia108_utt2.wav")
    (tmp_path / "output_repeated_splits_test" / "._dia0_utt0.mp4").touch()
    (tmp_path / "output_repeated_splits_test" / "final_videos_testdia0_utt2.mp4").touch()
    assert items(tmp_path) == before


def test_rows_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    rows: tuple[Row, ...] = (
        ("Hi", "Ross", "bliss", "positive", 0, 0),
        ("Hi", "Ross", "joy", "positive", "x", 1),
        ("Hi", "", "joy", "positive", 0, 2),
        ("Hi", "Ross", "", "", 0, 3),
        ("Hi\0", "Ross", "joy", "positive", 0, 4),
    )
    write_table(tmp_path, "dev", rows)
    assert {id: item.fault or item.excluded for id, item in items(tmp_path).items()} == {
        "dev_dia0_utt0": "label bliss is not among the classes of emotion",
        "dev_sent_emo.csv row 3": "dialogue 'x', utterance '1', speaker 'Ross'; "
        "expected two numbers and a name",
        "dev_sent_emo.csv row 4": "dialogue '0', utterance '2', speaker ''; "
        "expected two numbers and a name",
        "dev_dia0_utt3": "label none is not among the classes of emotion",
        "dev_sent_emo.csv row 6": "Utterance holds NUL (U+0000); expected whole characters: "
        "'Hi\\x00'",
    }
    excluded = [id for id, item in items(tmp_path).items() if item.fault is None]
    assert excluded == ["dev_dia0_utt3"]
    assert items(tmp_path, labels="sentiment")["dev_dia0_utt0"].label == "positive"


def test_a_row_that_breaks_off(tmp_path: Path) -> None:
    table = release(tmp_path) / "test_sent_emo.csv"
    table.write_bytes(table.read_bytes() + b"99,Hello,Ross\r\n")
    assert len(items(tmp_path)) == 8
    assert items(tmp_path)["test_sent_emo.csv row 4"].label is None


def test_a_root_without_tables(tmp_path: Path) -> None:
    (tmp_path / "MELD.Raw").mkdir()
    with pytest.raises(ManifestError, match=r"'train_sent_emo.csv'.* but \['MELD.Raw'\].*MELD"):
        items(tmp_path)


def test_a_header_without_end(tmp_path: Path) -> None:
    (tmp_path / "train_sent_emo.csv").write_text("x" * 140_000)
    with pytest.raises(ManifestError, match=r"train_sent_emo\.csv, line 1: not CSV .field larger"):
        items(tmp_path)


def test_a_table_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "train_sent_emo.csv").write_text("a,Speaker\n1,2\n")
    with pytest.raises(ManifestError, match=r"columns \['a', 'Speaker'\], not \['Utterance', "):
        items(tmp_path)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    set_root(monkeypatch, "meld", tmp_path / "meld")
    return tmp_path / "meld"


def prepared(root: Path, **settings: Any) -> Prepared:
    return prepare(corpus_entry("meld", settings), root.parent / "data")


def test_prepare_text(root: Path) -> None:
    release(root)
    with pytest.raises(ManifestError, match=r"speaker: 1 of 6 [^$]*Ross \(train, test\)"):
        prepared(root)
    done = prepared(root, protocol="official", allow_leak=["speaker"])
    assert (done.utterances, done.rejected) == (7, {})
    assert [leak.partition(":")[0] for leak in done.card["leaks"]] == ["speaker"]
    labels = read_labels(root.parent / "data" / "labels")
    assert Counter(row.splits for row in labels) == {("train",): 3, ("valid",): 2, ("test",): 2}


def test_prepare_audio(root: Path) -> None:
    with_clips(root)
    (root / "output_repeated_splits_test" / "dia0_utt2.wav").unlink()
    write_clip(root, "test", "dia0_utt2.wav", channels=6)
    done = prepared(root, allow_leak=["speaker"])
    assert done.rejected == BAD_CLIPS
    manifest = Manifest.read(root.parent / "data" / "utterances")
    assert [(row.id, row.seconds) for row in manifest] == [
        (f"{split}_dia0_utt{n}", 0.25)
        for split, n in (("train", 0), ("train", 1), ("dev", 0), ("test", 0), ("test", 2))
    ]
    # Six channels at 48 kHz become their mean at 16 kHz.
    path = root / str(manifest[4].audio)
    mean = soundfile.read(path)[0].mean()
    samples = read_audio(path)
    assert samples.shape == (4000,)
    assert samples[1000:3000] == pytest.approx(mean, abs=1e-3)


def test_a_clip_that_is_gone_is_listed(root: Path) -> None:
    (with_clips(root) / "train_splits" / "dia0_utt0.wav").unlink()
    with pytest.raises(ManifestError, match=r"1 of 7 utterances cannot be used[^$]*dia0_utt0"):
        prepared(root, allow_leak=["speaker"])
    assert len(prepared(root, allow_leak=["speaker"], allow_rejected=1).rejected) == 3


def test_prepare_videos_without_any_sound(root: Path) -> None:
    release(root)
    for split in SPLITS:
        for number in range(3):
            clip = root / SPLITS[split][1] / f"dia0_utt{number}.mp4"
            clip.parent.mkdir(exist_ok=True)
            clip.touch()
    with pytest.raises(ManifestError, match=r"7 of 7 utterances cannot be used[^$]*run ffmpeg -i"):
        prepared(root, allow_leak=["speaker"])
    assert prepared(root, allow_leak=["speaker"], audio=False).utterances == 7


def test_settings_are_checked() -> None:
    with pytest.raises(ParamsError, match=r"meld\.labels: given 'both'.*'emotion', 'sentiment'"):
        corpus_entry("meld", {"labels": "both"})
    assert corpus_entry("meld", {"audio": None}).options == {"audio": None}


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the tables of MELD in {REAL}")
def test_real_tables() -> None:
    corpus = Meld(REAL)
    found = list(corpus.items())
    assert [item.id for item in found if item.fault or item.excluded or not item.text] == []
    for field, counts in corpus.published.by.items():
        assert Counter(getattr(item, field) for item in found) == counts
    by_class = {
        "neutral": (4710, 470, 1256),
        "joy": (1743, 163, 402),
        "surprise": (1205, 150, 281),
        "anger": (1109, 153, 345),
        "sadness": (683, 111, 208),
        "disgust": (271, 22, 68),
        "fear": (268, 40, 50),
    }
    cells = Counter((item.label, item.split) for item in found)
    for label, expected in by_class.items():
        assert tuple(cells[label, split] for split in ("train", "valid", "test")) == expected
    assert len({item.id for item in found}) == 13_708
    assert len({item.dialogue for item in found}) == 1038 + 114 + 280
    assert not set("‘’“”") & set("".join(str(item.text) for item in found))
    assert set(BAD_CLIPS) < {item.id for item in found}
    sentiment = Meld(REAL, labels="sentiment")
    assert Counter(item.label for item in sentiment.items()) == sentiment.published.by["label"]


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the tables of MELD in {REAL}")
def test_prepare_real_tables(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERONRY_MELD_ROOT", str(REAL))
    done = prepared(root, protocol="official", allow_leak=["speaker"])
    assert (done.utterances, done.rejected, done.hours) == (13_708, {}, 0)
    assert [leak.partition(",")[0] for leak in done.card["leaks"]] == [
        "speaker: 82 of 304 occur in more than one split (fold 0)"
    ]
    assert done.card["counts"][0]["test"]["neutral"] / 2610 == pytest.approx(0.481, abs=5e-4)
