"""The adapter of tables: accepted tables, and messages on wrong ones, line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from features.corpora._tables.rows import COLUMNS
from features.corpora.manifest import ManifestCorpus
from features.corpus.adapter import Item
from features.errors import ManifestError
from tests.support.corpora.hub_tables import save_to_disk


def miniature(root: Path) -> dict[str, Any]:
    """Smallest release whose tables are all read; returns the options of its entry."""
    root.mkdir()
    rows = [{"id": "a", "text": "hm", "label": "sad", "speaker": "s"}]
    save_to_disk(root / "saved" / "train", rows)
    (root / "saved" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    return {"file": "saved"}


def csv_corpus(root: Path, text: str, **keywords: Any) -> ManifestCorpus:
    (root / "manifest.csv").write_text(text, encoding="utf-8")
    return ManifestCorpus(root, **keywords)


def faults(root: Path, text: str, **keywords: Any) -> list[str]:
    """Lines of the error after the first, which names the file."""
    with pytest.raises(ManifestError) as caught:
        list(csv_corpus(root, text, **keywords).items())
    first, *others = str(caught.value).split("\n  ")
    assert first == f"{root / 'manifest.csv'}: problems to mend:"
    return others


ENCODE = {"empty_text": "encode"}
FULL = {
    "id": "u1",
    "audio": "wav/a.wav",
    "text": "Well, no.",
    "start": 0.5,
    "stop": 2,
    "label": "sad",
    "speaker": "s1",
    "dialogue": "d1",
    "turn": 3,
    "gender": "female",
    "sentence": "t1",
    "split": "valid",
    "asr": "Well, now.",
}
ITEM = Item(**{**FULL, "stop": 2.0})  # type: ignore[arg-type]


def test_all_columns(tmp_path: Path) -> None:
    assert tuple(FULL) == COLUMNS
    cells = ",".join(f'"{value}"' for value in FULL.values())
    corpus = csv_corpus(tmp_path, f"{','.join(FULL)}\n{cells}\n")
    assert list(corpus.items()) == [ITEM]
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(FULL)}\n\n")
    assert list(ManifestCorpus(tmp_path, file="rows.jsonl").items()) == [ITEM]


def test_what_may_be_left_out(tmp_path: Path) -> None:
    corpus = csv_corpus(tmp_path, "audio,label,speaker\nx/a.b.wav,sad,1\n./c.wav,happy,2\n")
    assert list(corpus.items()) == [
        Item("x/a.b", "sad", "1", audio="x/a.b.wav"),
        Item("c", "happy", "2", audio="c.wav"),
    ]
    assert corpus.classes == ("happy", "sad")


def test_text_alone(tmp_path: Path) -> None:
    corpus = csv_corpus(tmp_path, 'id,text,label,speaker\n1,"Oh, ""that""\nagain",sad,1\n')
    assert list(corpus.items()) == [Item("1", "sad", "1", text='Oh, "that"\nagain')]


def test_an_empty_text_is_missing_or_nothing_that_was_said(tmp_path: Path) -> None:
    table = "id,audio,text,asr,label,speaker\n1,a.wav,, ,sad,1\n2,b.wav,NaN,x,sad,1\n"
    for how, expected in (("drop", None), ("encode", "")):
        first, second = csv_corpus(tmp_path, table, empty_text=how).items()
        assert (first.text, first.asr) == (expected, expected)
        assert (second.text, second.asr) == (None, "x")
    (item,) = csv_corpus(tmp_path, "id,audio,label,speaker\n1,a.wav,sad,1\n", **ENCODE).items()
    assert (item.text, item.asr) == (None, None)  # without such columns there is nothing to read


def test_a_byte_order_mark_spaces_blank_lines_and_windows_line_ends(tmp_path: Path) -> None:
    corpus = csv_corpus(tmp_path, "\ufeffaudio, label ,speaker\r\n a.wav , sad,1\r\n\r\n")
    assert list(corpus.items()) == [Item("a", "sad", "1", audio="a.wav")]


def test_given_classes_keep_their_order_and_may_be_empty(tmp_path: Path) -> None:
    corpus = csv_corpus(
        tmp_path, "audio,label,speaker\na.wav,sad,1\n", classes=["sad", "happy", "angry"]
    )
    assert [item.label for item in corpus.items()] == ["sad"]
    assert corpus.classes == ("sad", "happy", "angry")


def test_a_row_without_a_label_is_kept_and_says_why(tmp_path: Path) -> None:
    corpus = csv_corpus(tmp_path, "audio,label,speaker\na.wav,,1\nb.wav,sad,1\n")
    assert [(item.label, item.audio, item.excluded) for item in corpus.items()] == [
        (None, "a.wav", "it has no label"),
        ("sad", "b.wav", None),
    ]
    assert corpus.classes == ("sad",)


def test_a_label_outside_the_classes_names_its_lines(tmp_path: Path) -> None:
    rows = "".join(f"{n}.wav,{'joy' if n % 2 else 'sad'},1\n" for n in range(14))
    assert faults(tmp_path, f"audio,label,speaker\n{rows}", classes=["sad", "happy"]) == [
        "label 'joy' in lines [3, 5, 7, 9, 11] (7 in all); expected one of ['sad', 'happy']: "
        "correct it, or add it to `classes`"
    ]


def test_ids_that_repeat(tmp_path: Path) -> None:
    text = "audio,label,speaker,start,stop\na.wav,sad,1,0,1\na.wav,sad,1,1,2\nb.wav,sad,1,0,1\n"
    assert faults(tmp_path, text) == [
        "id 'a' occurs in lines [2, 3]; expected each id once: give the rows `id`s"
    ]


def test_unknown_and_missing_columns(tmp_path: Path) -> None:
    (unknown, missing) = faults(tmp_path, "audio,emotion\na.wav,sad\n")
    assert unknown.startswith("unknown columns ['emotion']; expected some of ['id', 'audio',")
    assert missing == (
        "it has no column label, nor speaker, but ['audio', 'emotion']: "
        "add it, or map it by `columns`"
    )
    assert faults(tmp_path, "id,label,speaker\n1,sad,1\n") == [
        "it has no column audio or text, but ['id', 'label', 'speaker']: "
        "add it, or map it by `columns`"
    ]


def test_columns_that_are_called_something_else(tmp_path: Path) -> None:
    text = "clip,emotion,who,note\na.wav,sad,1,x\n"
    columns = {"audio": "clip", "label": "emotion", "speaker": "who"}
    corpus = csv_corpus(tmp_path, text, columns=columns)
    assert list(corpus.items()) == [Item("a", "sad", "1", audio="a.wav")]
    (fault, *_) = faults(tmp_path, text, columns=columns | {"text": "words"})
    assert fault == (
        "columns.text names 'words', which is none of its columns "
        "['clip', 'emotion', 'who', 'note']"
    )


def test_a_pattern_of_tables_that_are_named_for_their_splits(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    for split in ("dev", "train"):
        (tmp_path / f"lists/{split}.csv").write_text(f"audio,label,speaker\n{split}.wav,sad,1\n")
    assert list(ManifestCorpus(tmp_path, file="lists/*.csv").items()) == [
        Item("dev", "sad", "1", audio="dev.wav", split="valid"),
        Item("train", "sad", "1", audio="train.wav", split="train"),
    ]
    (tmp_path / "lists/dev.csv").write_text("audio,label,speaker\ntrain.wav,sad,\n")
    with pytest.raises(ManifestError, match=r"lists/dev\.csv line 2: speaker is empty"):
        list(ManifestCorpus(tmp_path, file="lists/*.csv").items())


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("start", "soon", "start 'soon'; expected a number from 0"),
        ("stop", "1_0", "stop '1_0'; expected a number from 0"),
        ("start", "-1", "start '-1'; expected a number from 0"),
        ("start", "inf", "start 'inf'; expected a number from 0"),
        ("stop", "0.5", "utterance 'u1': start 0.5 and stop 0.5; expected 0 <= start < stop"),
        ("turn", "1.5", "turn '1.5'; expected an integer from 0"),
        (
            "split",
            "devel",
            "split 'devel'; expected one of ('train', 'valid', 'test', 'unused', 'unlabelled')",
        ),
        ("speaker", "", "speaker is empty; expected who speaks"),
        ("audio", "../a.wav", "path '../a.wav'; expected a relative one"),
        ("audio", "/etc/a.wav", "path '/etc/a.wav'; expected a relative one"),
        ("audio", r"C:\a.wav", r"path 'C:\\a.wav'; expected a relative one"),
        ("audio", r"x\..\..\a.wav", "expected a relative one"),
        ("id", "a\tb", "expected printable text"),
    ],
)
def test_a_wrong_cell_names_its_line(tmp_path: Path, column: str, value: str, message: str) -> None:
    good = ",".join(f'"{cell}"' for cell in (FULL | {"id": "u0"}).values())
    bad = ",".join(f'"{cell}"' for cell in (FULL | {column: value}).values())
    (fault,) = faults(tmp_path, f"{','.join(FULL)}\n{good}\n{bad}\n")
    assert fault.startswith("line 3: ")
    assert message in fault


def test_a_row_with_nothing_to_name_it(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "text,label,speaker\nhm,sad,1\n")
    assert fault == "line 2: id and audio are empty; expected an id where there is no audio"


def test_neither_audio_nor_text(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, "id,audio,label,speaker\n1,,sad,1\n")
    assert "line 2: utterance '1' has neither audio nor text" in fault


def test_the_first_twenty_problems_are_listed_at_once(tmp_path: Path) -> None:
    rows = "".join(f"{n}.wav,sad,1,x\n" for n in range(30))
    listed = faults(tmp_path, f"audio,label,speaker,turn\n{rows}")
    assert [line.partition(":")[0] for line in listed[:-1]] == [f"line {n}" for n in range(2, 22)]
    assert listed[-1] == "and 10 more"


def test_malformed_csv(tmp_path: Path) -> None:
    text = 'audio,label,speaker\na.wav,sad\nb.wav,sad,1,2\nc.wav,"sad"x,1\n'
    short, long, quotes = faults(tmp_path, text)
    assert short == "line 2: 2 cells; expected 3 as in the header"
    assert long == "line 3: 4 cells; expected 3 as in the header"
    assert quotes.startswith("line 4: not CSV")
    (twice,) = faults(tmp_path, "audio,label,label,speaker\na.wav,sad,sad,1\n")
    assert twice == "line 1: columns ['label'] occur twice in the header; expected each once"


def test_malformed_json_lines(tmp_path: Path) -> None:
    good = '{"audio": "a.wav", "label": "sad", "speaker": 1}'
    bad = '{"audio": "b.wav", "label": ["sad"], "speaker": true}'
    (tmp_path / "rows.jsonl").write_text(f"{good}\n{{\n[1]\n{bad}\n")
    with pytest.raises(ManifestError) as caught:
        list(ManifestCorpus(tmp_path, file="rows.jsonl").items())
    message = str(caught.value)
    assert "line 2: not JSON" in message
    assert "line 3: not a JSON object" in message
    assert "line 4: label is ['sad']; expected text or a number" in message
    assert "line 1" not in message


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_bytes("audio,label,speaker\nä.wav,x,1\n".encode("latin-1"))
    with pytest.raises(ManifestError, match=r"\.csv, line 2 is not UTF-8 text.*save it as UTF-8"):
        list(ManifestCorpus(tmp_path).items())


def test_no_table(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").touch()
    with pytest.raises(ManifestError, match=r"no table 'manifest\.csv'.*holds \['labels\.csv'\]"):
        list(ManifestCorpus(tmp_path).items())
    with pytest.raises(ManifestError, match="expected a relative one below the corpus root"):
        list(ManifestCorpus(tmp_path, file="../labels.csv").items())
    # From Python 3.13 on it is a pattern, equal to x*.
    with pytest.raises(ManifestError, match=r"(file: the pattern|there is no table) 'x\*\*'"):
        list(ManifestCorpus(tmp_path, file="x**").items())


def test_an_empty_table_has_no_items(tmp_path: Path) -> None:
    assert list(csv_corpus(tmp_path, "").items()) == []
    assert list(csv_corpus(tmp_path, "audio,label,speaker\n").items()) == []
