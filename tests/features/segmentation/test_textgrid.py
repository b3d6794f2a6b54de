"""TextGrids in both formats and all encodings; what is none is named, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ManifestError
from features.segmentation.segments import Fault, Segment, read_files
from features.segmentation.textgrid import SUFFIXES, Choice, read_textgrid

Tiers = list[tuple[str, list[Any]]]  # a tier's name, and its intervals or points
TIERS: Tiers = [
    ("anna", [(0.0, 0.5, ""), (0.5, 1.25, 'She said "no"!'), (1.25, 2.0, " sil ")]),
    ("bells", [(0.7, "ding")]),
    ("bo 2", [(0.0, 1.0, "größer = 3"), (1.0, 2.0, "two\nlines")]),
]


def text(tiers: Tiers, *, short: bool, spaces: str = " ") -> str:
    """A TextGrid as Praat writes it; `short`: without the names of what the values are."""

    def line(name: str, value: object) -> str:
        shown = '"' + value.replace('"', '""') + '"' if isinstance(value, str) else f"{value}"
        return f"{shown}\n" if short else f"        {name}{spaces}={spaces}{shown} \n"

    made = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
    made += line("xmin", 0) + line("xmax", 2.0)
    made += f"<exists>\n{len(tiers)}\n" if short else f"tiers? <exists> \nsize = {len(tiers)} \n"
    made += "" if short else "item []: \n"
    for number, (name, entries) in enumerate(tiers, 1):
        intervals = not entries or len(entries[0]) == 3
        made += "" if short else f"    item [{number}]:\n"
        made += line("class", "IntervalTier" if intervals else "TextTier") + line("name", name)
        made += line("xmin", 0) + line("xmax", 2.0)
        unit = "intervals" if intervals else "points"
        made += f"{len(entries)}\n" if short else f"        {unit}: size = {len(entries)} \n"
        for at, entry in enumerate(entries, 1):
            made += "" if short else f"        {unit} [{at}]:\n"
            names = ("xmin", "xmax", "text") if intervals else ("number", "mark")
            made += "".join(line(*pair) for pair in zip(names, entry, strict=True))
    return made


def read(path: Path, choice: Choice | None = None) -> list[Segment]:
    return list(read_textgrid(path, "talk", choice or Choice()))


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_both_formats_in_every_encoding(tmp_path: Path, short: bool, encoding: str) -> None:
    path = tmp_path / "talk.TextGrid"
    path.write_bytes(text(TIERS, short=short).replace("\n", "\r\n").encode(encoding))
    found = read(path, Choice(ignored=("sil",)))
    assert [(each.speaker, each.start, each.stop, each.text) for each in found] == [
        ("anna", 0.5, 1.25, 'She said "no"!'),
        ("bo 2", 0.0, 1.0, "größer = 3"),
        ("bo 2", 1.0, 2.0, "two lines"),
    ]
    assert found[1].place == f"{path}, tier 'bo 2', interval 1"


times = st.floats(0, 9999).map(lambda number: round(number, 3))
labels = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=9)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=9)
tiers = st.lists(
    st.tuples(names, st.lists(st.tuples(times, times, labels), max_size=4)),
    min_size=1,
    max_size=3,
)


@given(tiers=tiers, spaces=st.sampled_from(["", " ", "  "]))
def test_any_labels_and_times_are_read_as_written(
    tmp_path: Path, tiers: Tiers, spaces: str
) -> None:
    path = tmp_path / "any.TextGrid"
    wanted = [
        (start, stop, " ".join(label.split()))
        for _, entries in tiers
        for start, stop, label in entries
        if label.strip()
    ]
    for short in (False, True):
        path.write_text(text(tiers, short=short, spaces=spaces), encoding="utf-8", newline="")
        assert [(each.start, each.stop, each.text) for each in read(path)] == wanted


def test_tiers_are_chosen_and_labels_may_be_speakers(tmp_path: Path) -> None:
    path = tmp_path / "talk.TextGrid"
    path.write_text(text(TIERS, short=False))
    (only,) = read(path, Choice(tiers=("anna",), speakers=True, ignored=("sil",)))
    assert (only.speaker, only.text) == ('She said "no"!', None)
    with pytest.raises(ManifestError, match=r"tiers of intervals \['anna', 'bo 2'\]; expected"):
        read(path, Choice(tiers=("anna", "bells")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "ends early; expected the file type"),
        (b"ooBinaryFile\x08TextGrid", "a binary file of Praat"),
        (b'File type = "ooTextFile"\nObject class = "Pitch 1"\n', "'Pitch 1'"),
        (b"\xff\xfe\x00", "begins as UTF-16 but is none"),
        (b"a\0b", "holds NUL"),
        (text(TIERS, short=True).encode()[:-20], "ends early; expected"),
        (text(TIERS, short=True).replace("0.5\n1.25", "half\n1.25").encode(), "line 18 has"),
        (text(TIERS, short=True).replace("0.5\n1.25", "1e300\n1.25").encode(), "number of seconds"),
        (text(TIERS, short=False).replace("IntervalTier", "NetTier").encode(), "class 'NetTier'"),
        (text([], short=True).encode(), "expected a tier of intervals"),
        (text(TIERS, short=True).replace("<exists>", "<absent>").encode(), "has no tiers"),
        (text(TIERS, short=True).replace("\n3\n0.0", "\n3.5\n0.0").encode(), "is '3.5'"),
        (text(TIERS, short=True).replace("\n3\n0.0", f"\n{'9' * 5000}\n0.0").encode(), "is '999"),
    ],
)
def test_what_is_no_textgrid_is_left_out_and_the_rest_is_read(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "a.textgrid").write_bytes(content)
    (tmp_path / "b.TextGrid").write_text(text(TIERS[:1], short=True))
    found = read_files(
        tmp_path, SUFFIXES, lambda path: read_textgrid(path, path.stem, Choice(ignored=("sil",)))
    )
    assert [each.recording for each in found.segments] == ["b"]
    (fault,) = found.faults
    assert fault.place == str(tmp_path / "a.textgrid")
    assert message in fault.reason
    assert isinstance(fault, Fault)
