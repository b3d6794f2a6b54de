"""RTTM files and tables: each line is a segment, or has its fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ManifestError
from features.segmentation.rttm import SUFFIXES, read_rttm
from features.segmentation.segments import Fault, Segment, read_files
from features.segmentation.table import read_table
from features.segmentation.textgrid import Choice, read_textgrid


def shown(found: list[Segment | Fault]) -> list[tuple[object, ...]]:
    return [
        (each.recording, each.start, each.stop, each.speaker)
        if isinstance(each, Segment)
        else (each.place.rpartition(", ")[2], each.reason)
        for each in found
    ]


def test_turns_of_rttm(tmp_path: Path) -> None:
    lines = [
        b"\xef\xbb\xbf;; a comment",
        b"SPKR-INFO talk 1 <NA> <NA> <NA> unknown anna <NA> <NA>",
        b"SPEAKER talk 1 0.50 1.25 <NA> <NA> anna <NA> <NA>\r",
        b"SPEAKER talk 1 1.5e1 2 <NA> <NA> <NA> 0.9",
        b"",
        b"SPEAKER talk 1 3 -1 <NA> <NA> bo",
        b"SPEAKER talk 1 3 1 <NA>",
        b"SPEAKER talk 1 three 1 <NA> <NA> bo",
        b"SPEAKER talk 1 inf 1 <NA> <NA> bo",
        b"talk 3 1 bo",
        b"SPEAKER t\xe4lk 1 3 1 <NA> <NA> bo",
    ]
    (tmp_path / "a.rttm").write_bytes(b"\n".join(lines))
    assert shown(list(read_rttm(tmp_path / "a.rttm"))) == [
        ("talk", 0.5, 1.75, "anna"),
        ("talk", 15.0, 17.0, ""),
        ("talk", 3.0, 2.0, "bo"),
        (
            "line 7",
            "6 fields; expected at least 8: SPEAKER recording channel start duration <NA> <NA> "
            "speaker",
        ),
        ("line 8", "start is 'three'; expected a number of seconds"),
        ("line 9", "start is 'inf'; expected a number of seconds"),
        ("line 10", "begins with 'talk'; expected SPEAKER"),
        ("line 11", "is not UTF-8 text (invalid continuation byte): save the file as UTF-8"),
    ]


def test_rows_of_tables_under_several_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "\ufeffFile, Begin,end,duration,speaker,text,other\n"
        "wav/a.wav,1,2.5,,anna,well  then,x\n"
        "wav/a.wav,3,,0.5,NA,,x\n"
        "wav/a.wav,4,,,bo,,x\n"
        ",4,5,,bo,,x\n"
        "wav/a.wav,4\n",
        encoding="utf-8",
    )
    found = list(read_table(tmp_path / "a.csv"))
    assert shown(found) == [
        ("wav/a.wav", 1.0, 2.5, "anna"),
        ("wav/a.wav", 3.0, 3.5, ""),
        ("line 4", "duration is ''; expected a number of seconds"),
        ("line 5", "names no recording; expected one"),
        ("line 6", "2 cells; expected 7 as in the header"),
    ]
    assert [each.text for each in found[:2] if isinstance(each, Segment)] == ["well then", None]
    (tmp_path / "a.tsv").write_text("recording\tstart\tstop\tlabel\na\t0\t1\tsad\n")
    assert [each.label for each in read_table(tmp_path / "a.tsv") if isinstance(each, Segment)] == [
        "sad"
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"audio;start;stop\na;0;1\n", "separated by commas"),
        (b"audio,start,speaker\na,0,x\n", "none of stop, end or duration"),
        (b"audio,start,stop,end\na,0,1,1\n", r"columns \['stop', 'end'\]; expected one of them"),
        (b"audio,start,stop\n\xe4,0,1\n", "not UTF-8"),
        (b"", "has the columns"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ManifestError, match=message):
        list(read_table(tmp_path / "a.csv"))


def test_an_open_quotation_mark_ends_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('audio,start,stop\na,0,1\n"b,0,1\n')
    segment, fault = read_table(tmp_path / "a.csv")
    assert isinstance(segment, Segment)
    assert "the rest was not read" in fault.reason if isinstance(fault, Fault) else False


GRID = b'"ooTextFile" "TextGrid" 0 4 <exists> 1 "IntervalTier" "a" 0 4 1 0 1 "so"'
VALID = (GRID, b"SPEAKER a 1 0.5 1.0 <NA> <NA> S1", b"audio,start,stop\na,0,1\n")


@given(
    valid=st.sampled_from(VALID),
    at=st.integers(0, 99),
    removed=st.integers(0, 99),
    put=st.binary(max_size=9) | st.text('",\n\t 0e-1<>!\0\x07é').map(str.encode),
)
def test_any_bytes_are_segments_or_faults(
    tmp_path: Path, valid: bytes, at: int, removed: int, put: bytes
) -> None:
    path = tmp_path / "any"
    path.write_bytes(valid[:at] + put + valid[at + removed :])
    for read in (read_rttm, read_table, lambda path: read_textgrid(path, "a", Choice())):
        found = read_files(path, (), read)
        for segment in found.segments:
            assert np.isfinite([segment.start, segment.stop]).all()
            assert "\x07" not in segment.speaker
            assert "\0" not in (segment.text or "")
        for fault in found.faults:
            assert fault.place.startswith(str(path))
            assert fault.reason


def test_files_of_a_folder_are_read_in_order(tmp_path: Path) -> None:
    for name in ("b/1.rttm", "a.RTTM", ".c.rttm", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"SPEAKER {name} 1 0 1 <NA> <NA> x\n")
    found = read_files(tmp_path, SUFFIXES, read_rttm)
    assert [each.recording for each in found.segments] == ["a.RTTM", "b/1.rttm"]
    with pytest.raises(ManifestError, match=r"there is no .*nothing"):
        read_files(tmp_path / "nothing", SUFFIXES, read_rttm)
    with pytest.raises(ManifestError, match=r"no files of the suffixes \.csv are below"):
        read_files(tmp_path / "b", (".csv",), read_table)
