"""One reading of cells: alike in all kinds of table, nothing lost in silence, no halves."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.corpora._tables.cells import decoded, identity, number, path, words
from features.corpora.manifest import ManifestCorpus
from features.corpora.meld import Meld
from features.corpus.adapter import Item
from features.corpus.manifest import read_labels
from features.corpus.survey import take_survey
from features.corpus.utterance import Utterance
from features.errors import ManifestError

Rows = list[dict[str, Any]]


def write_csv(root: Path, rows: Rows) -> str:
    with (root / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return "rows.csv"


def write_jsonl(root: Path, rows: Rows) -> str:
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "rows.jsonl"


def write_parquet(root: Path, rows: Rows) -> str:
    columns = {}
    for name in rows[0]:
        cells = [row[name] for row in rows]
        alike = len({type(cell) for cell in cells}) == 1
        columns[name] = pa.array(cells if alike else [str(cell) for cell in cells])
    pq.write_table(pa.table(columns), root / "rows.parquet")
    return "rows.parquet"


KINDS: list[Callable[[Path, Rows], str]] = [write_csv, write_jsonl, write_parquet]


def items(root: Path, write: Callable[[Path, Rows], str], rows: Rows) -> list[Item]:
    return list(ManifestCorpus(root, file=write(root, rows)).items())


def row(**cells: Any) -> dict[str, Any]:
    return {"id": "u1", "audio": "a.wav", "text": "Well", "label": "sad", "speaker": "s1"} | cells


@pytest.mark.parametrize("write", KINDS)
def test_whole_floats_are_integers(tmp_path: Path, write: Callable[[Path, Rows], str]) -> None:
    cells = {"speaker": 0.0, "dialogue": 12.0, "turn": 3.0, "label": 2.0, "sentence": 1.0}
    floats = row(id=7.0, **cells)
    whole = {
        name: str(int(cell)) if isinstance(cell, float) else cell for name, cell in floats.items()
    }
    (item,) = items(tmp_path, write, [floats])
    assert item == items(tmp_path, write, [whole])[0]
    assert (item.id, item.label, item.speaker) == ("7", "2", "0")
    assert (item.dialogue, item.turn, item.sentence, item.notices) == ("12", 3, "1", ())


@pytest.mark.parametrize("write", KINDS)
@pytest.mark.parametrize(
    "gap", ["", "NaN", "nan", "None", "NULL", "N/A", "#N/A", "<NA>", math.nan], ids=repr
)
def test_what_is_missing_is_so_in_every_kind_of_table(
    tmp_path: Path, write: Callable[[Path, Rows], str], gap: Any
) -> None:
    optional = dict.fromkeys(("dialogue", "turn", "gender", "sentence", "split", "start"), gap)
    gaps = row(id="u2", label=gap, **optional)
    other = row(**optional | {"gender": "f", "split": "Dev"})
    first, second = items(tmp_path, write, [other, gaps])
    assert (first.label, first.gender, first.split) == ("sad", "f", "valid")
    assert second.label is None
    assert second.fault is None
    assert second.excluded is not None
    assert {getattr(second, name) for name in optional} == {None}
    with pytest.raises(ManifestError, match=r"speaker is .*expected who speaks"):
        items(tmp_path, write, [row(speaker=gap), row(id="u2", speaker="x")])


def test_a_class_may_be_called_none_if_the_entry_says_so(tmp_path: Path) -> None:
    file = write_csv(tmp_path, [row(label="none"), row(id="u2", label="joy")])
    first, second = ManifestCorpus(tmp_path, file=file).items()
    assert first.excluded == (
        "its label 'none' is read as missing; if it is a class, name it in `classes`"
    )
    kept = ManifestCorpus(tmp_path, file=file, classes=["none", "joy"]).items()
    assert [(item.label, item.excluded) for item in kept] == [("none", None), ("joy", None)]
    assert second.label == "joy"


@pytest.mark.parametrize("write", KINDS)
def test_a_transcript_is_not_lost(tmp_path: Path, write: Callable[[Path, Rows], str]) -> None:
    said = ["None", "null", "NA", "5.0"]
    rows = [row(id=f"u{n}", text=text, asr="NaN") for n, text in enumerate([*said, "NaN"])]
    found = items(tmp_path, write, rows)
    assert [item.text for item in found] == [*said, None]
    assert found[0].notices == (
        "text 'None' is taken for words that were said",
        "asr 'NaN' is read as missing",
    )
    assert found[4].notices[0] == "text 'NaN' is read as missing"


@pytest.mark.parametrize("write", KINDS)
def test_equal_names_are_equal_texts(tmp_path: Path, write: Callable[[Path, Rows], str]) -> None:
    composed, apart = "Zo\u00eb", "Zoe\u0308"
    rows = [
        row(id=name[:2] + name[-1], speaker=name, label=name, dialogue=name, text=name)
        for name in (composed, f"{apart} B\xa0C")
    ]
    first, second = items(tmp_path, write, rows)
    assert (first.label, first.speaker, first.dialogue) == (composed,) * 3
    assert second.speaker == f"{composed} B C"
    assert second.text == f"{apart} B\xa0C"  # its features are those of the text as given


@pytest.mark.parametrize("cell", [2.0**53, "9007199254740993.0", "1.2e+19", math.inf])
def test_floats_that_have_lost_digits_are_refused(cell: Any) -> None:
    with pytest.raises(ManifestError, match=r"speaker is .*expected"):
        identity("speaker", cell)
    assert identity("speaker", 2**64) == "18446744073709551616"
    assert identity("sentence", "1e3") == "1e3"


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("Well\x85", "Well\u2026"),
        ("fine\x97really", "fine\u2014really"),
        ("it\x92s \x93so\x94", "it\u2019s \u201cso\u201d"),
        ("\x80\x99\x9f", "\u20ac\u2122\u0178"),
        ("a\x81b", "a\ufffdb"),
    ],
)  # fmt: skip
def test_controls_are_windows_1252_and_noted(given: str, read: str) -> None:
    notes: list[str] = []
    assert words("text", given, notes) == read
    assert notes
    if "\x81" in given:
        with pytest.raises(ManifestError, match="expected no control characters"):
            identity("label", given)
    else:
        assert identity("speaker", given) == read


def twice(text: str, *, latin: bool = False) -> str:
    """UTF-8 that was read as Windows-1252, or as Latin-1."""
    if latin:
        return text.encode().decode("latin-1")
    chars = (bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in text.encode())
    return "".join(chars)


@pytest.mark.parametrize("encoded", [twice, lambda text: twice(text, latin=True)])
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "don\u2019t",
        "Well\u2026 \u201cno\u201d \u2014 5 \u20ac",
        "caf\u00e9 na\u00efve d\u00e9j\u00e0",
        "\u00d6l, \u00c9lise! \u00bfQu\u00e9?",
        "ha \U0001f600",
        "привет",
        "你好嗎",
        "dziękuję",
    ],
)
def test_text_encoded_twice_is_corrected_and_noted(
    text: str, encoded: Callable[[str], str], again: bool
) -> None:
    notes: list[str] = []
    given = encoded(encoded(text)) if again else encoded(text)
    assert words("text", given, notes) == text
    assert identity("speaker", given) == text
    assert "text was encoded as UTF-8 twice: mended" in notes


@pytest.mark.parametrize(
    "text",
    [
        "Dit-il : \u00ab n\u00e9\xa0\u00bb\u2026",
        "l\u00e0\xa0\u00bb",
        "n\u00e9\u2026\u00bb",
        "sagte \u201eSpa\u00df\u201c",
        "Gro\u00df\u2026 Spa\u00df\u2026 Stra\u00df\u2026",
        "\u00bfQu\u00e9? \u00a1Ma\u00f1ana\u2026!",
        "5 \u00b0C \u2013 \u00a7 3, na\u00efve caf\u00e9\u2122",
        "\u00c0 bient\u00f4t, \u00c9lise\u2019s \u00d6l",
        "привет, 你好, Zoe\u0308 \U0001f600",
    ],
)
def test_right_text_is_left_alone(text: str) -> None:
    notes: list[str] = []
    assert words("text", text, notes) == text
    assert notes == []


@pytest.mark.parametrize("text", ["AMANH\u00c3\u2026", "lost \ufffd", "cut \u00e2\u20ac"])
def test_what_may_be_encoded_twice_is_kept_and_noted(text: str) -> None:
    notes: list[str] = []
    assert words("text", text, notes) == text
    assert notes == ["text has lost characters or may be encoded twice: used as it is"]


@given(st.text() | st.text(st.characters(max_codepoint=0x2122)))
def test_each_change_of_a_text_is_noted(text: str) -> None:
    notes: list[str] = []
    if re.search("[\0\ud800-\udfff]", text):
        with pytest.raises(ManifestError, match="expected whole characters"):
            words("text", text)
        return
    read = words("text", text, notes)
    assert notes or (read or "") == text.strip()
    if read:
        Utterance("u1", text=read)


@pytest.mark.parametrize("cell", ["so \ud83d", "\ude00", "a\0b"])
@pytest.mark.parametrize("column", ["text", "asr", "label", "speaker", "id", "dialogue", "audio"])
def test_half_characters_and_nul_are_refused_with_line_and_id(
    tmp_path: Path, column: str, cell: str
) -> None:
    file = write_jsonl(tmp_path, [row(), row(**{"id": "u2", column: cell})])
    with pytest.raises(ManifestError, match=rf"line 2: {column} holds (half a char|NUL)") as caught:
        list(ManifestCorpus(tmp_path, file=file).items())
    assert repr(cell if column == "id" else "u2") in str(caught.value)
    str(caught.value).encode()


def test_an_utterance_of_the_manifest_holds_whole_characters() -> None:
    whole = Utterance("u1", text="so")
    for cells in ({"text": "so \ud83d"}, {"audio": "a\0b"}, {"text": "x", "asr": "\udc80"}):
        with pytest.raises(ManifestError, match=r"utterance 'u1': .* expected whole characters"):
            dataclasses.replace(whole, **cells)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["so \ud83d", "a\0b"])
def test_a_label_of_an_earlier_stage_holds_whole_characters(tmp_path: Path, text: str) -> None:
    good = {"id": "u1", "label": "sad", "speaker": "s1", "text": "so \x01"}
    lines = [json.dumps(row) for row in (good, good | {"id": "u2", "text": text})]
    (tmp_path / "labels.jsonl").write_text("\n".join(lines))
    with pytest.raises(ManifestError, match=r"labels\.jsonl, line 2: text holds (half|NUL)"):
        read_labels(tmp_path)


def test_names_of_files_stay_as_they_are() -> None:
    assert path("audio", " Zoe\u0308\x85.wav ") == "Zoe\u0308\x85.wav"
    assert path("audio", math.nan) is None


def test_numbers() -> None:
    assert [number("start", cell) for cell in (1, "1.5", " 2e1 ", "NaN", None)] == [
        1,
        1.5,
        20,
        None,
        None,
    ]
    wrong: list[Any] = ["9" * 5000 + ":01", "soon", "-1", "1e999", "\u0661", True, []]
    for cell in wrong:
        with pytest.raises(ManifestError, match=r"start .*expected"):
            number("start", cell)


def test_lines_of_two_encodings() -> None:
    content = b"\xef\xbb\xbfit\x92s\r\ncaf\xc3\xa9\n\xc2\x85\x81"
    assert decoded(content) == "it\u2019s\r\ncaf\u00e9\n\u00c2\u2026\x81"


def test_a_name_twice_in_an_object_is_reported(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": "u1", "label": "a", "label": "b"}\n' + "[" * 10**5)
    with pytest.raises(ManifestError) as caught:
        list(ManifestCorpus(tmp_path, file="rows.jsonl").items())
    assert "line 1: ['label'] occur twice in it" in str(caught.value)
    assert "line 2: not JSON (" in str(caught.value)


@pytest.mark.parametrize("cell", ["x" * 131_073])
def test_a_cell_of_a_csv_without_end(tmp_path: Path, cell: str) -> None:
    for text in (f"id,{cell}\n1,2\n", f'id,text,label,speaker\nu1,"{cell}",a,b\n'):
        (tmp_path / "rows.csv").write_text(text)
        with pytest.raises(ManifestError, match=r"line [12]: not CSV \(field larger .*left open\?"):
            list(ManifestCorpus(tmp_path, file="rows.csv").items())


def test_ids_that_are_equal_when_composed_repeat(tmp_path: Path) -> None:
    rows = [row(id=name) for name in ("Zo\u00eb", "Zoe\u0308", "7", 7.0)]
    with pytest.raises(ManifestError, match=r"'Zoë' occurs in lines \[1, 2\](.|\n)*'7' occurs"):
        items(tmp_path, write_jsonl, rows)


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("00:01:02.5", "in seconds: 62.5"),
        ("0:01:02,5", "in seconds: 62.5"),
        ("1:02", "in seconds: 62, if it is minutes and seconds"),
        ("3:25:45.678", "in seconds: 12345.678"),
        ("1,5", "in seconds: 1.5"),
        ("1500 ms", "in seconds: 1.5"),
        ("2s", "in seconds: 2"),
    ],
)
def test_messages_on_times_in_other_forms_suggest_seconds(cell: str, seconds: str) -> None:
    with pytest.raises(ManifestError) as caught:
        number("start", cell)
    assert str(caught.value) == f"start {cell!r}; expected a number from 0, {seconds}"


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_other_separators_are_named(tmp_path: Path, sign: str, name: str) -> None:
    header, cells = sign.join(row()), sign.join(row().values())
    (tmp_path / "manifest.csv").write_text(f"{header}\n{cells}\n{cells}, no\n")
    with pytest.raises(ManifestError, match=f"separated by {name}.*expected commas") as caught:
        list(ManifestCorpus(tmp_path).items())
    assert str(caught.value).count("\n") == 1
    (tmp_path / "train_sent_emo.csv").write_text(f"{header}\n{cells}\n")
    with pytest.raises(ManifestError, match=f"separated by {name}"):
        list(Meld(tmp_path).items())


@pytest.mark.parametrize(
    "cell", [[0.1, 0.2], {"array": [0.1], "path": "a.wav", "sampling_rate": 8}]
)
def test_decoded_audio_says_what_to_do(tmp_path: Path, cell: Any) -> None:
    for write in (write_jsonl, write_parquet):
        file = write(tmp_path, [row(audio=cell), row(id="u2", audio=cell)])
        with pytest.raises(ManifestError, match=r"samples of decoded audio.*Audio\(decode=False"):
            list(ManifestCorpus(tmp_path, file=file).items())


def test_ids_that_begin_anew_in_each_split(tmp_path: Path) -> None:
    rows = [row(id=f"{n % 2}", split=("train", "test")[n // 2], audio=f"{n}.wav") for n in range(4)]
    with pytest.raises(
        ManifestError, match="2 ids start again in each split, such as '0' in"
    ) as caught:
        items(tmp_path, write_csv, rows)
    assert str(caught.value).endswith("put the split into them, such as train-0")


def test_files_that_macos_leaves_beside_others_match_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    for name in ("train.csv", "._train.csv"):
        (tmp_path / "lists" / name).write_bytes(b"\0\5\x16\7" if name[0] == "." else b"")
        if name[0] != ".":
            write_csv(tmp_path / "lists", [row()])
            (tmp_path / "lists/rows.csv").rename(tmp_path / "lists" / name)
    for pattern in ("lists/*.csv", "*/*train*"):
        assert len(list(ManifestCorpus(tmp_path, file=pattern).items())) == 1


def test_a_folder_written_by_datasets_with_odd_files_beside(tmp_path: Path) -> None:
    deep = "[" * 100_000
    for name, content in (
        ("dataset_dict.json", '{"splits": 5}'),
        ("dataset_dict.json", deep),
        ("state.json", '{"_data_files": 5}'),
        ("state.json", deep),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(ManifestError, match=name):
            list(ManifestCorpus(tmp_path, file=".").items())
        (tmp_path / name).unlink()
    table = pa.table({"label": [0], "speaker": ["s"], "text": ["hm"], "id": ["u1"]})
    path = tmp_path / "rows.parquet"
    pq.write_table(table.replace_schema_metadata({"huggingface": deep}), path)
    with pytest.raises(ManifestError, match=r"the JSON that describes .*rows\.parquet"):
        list(ManifestCorpus(tmp_path, file="rows.parquet").items())


def test_nul_in_the_path_of_a_cell_is_rejected(tmp_path: Path) -> None:
    audio = {"bytes": None, "path": "a\0.wav"}
    pq.write_table(pa.Table.from_pylist([row(audio=audio)]), tmp_path / "rows.parquet")
    found = list(ManifestCorpus(tmp_path, file="rows.parquet").items())
    survey = take_survey(found, tmp_path)
    assert "holds NUL (U+0000)" in survey.rejected["u1"]
    assert survey.faulty == ["u1"]
