"""Tables of Hugging Face `datasets` as a corpus: layouts, classes, embedded audio, damage."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from features.corpora._tables.embedded_audio import safe_name, suffix_of
from features.corpora._tables.parquet import Shard
from features.corpora.manifest import ManifestCorpus
from features.corpus.adapter import UNPACKED, Item
from features.corpus.entry import corpus_entry
from features.corpus.manifest import Manifest, read_labels
from features.corpus.prepare import prepare
from features.errors import ManifestError, ParamsError
from tests.support.corpora.hub_tables import audio, clip, save_to_disk, write_parquet

COLUMNS = {"label": "emotion", "text": "transcription", "speaker": "speaker_id"}
NAMES = {"emotion": ["angry", "happy"]}


def row(number: int, **cells: Any) -> dict[str, Any]:
    """A row of somebody else's table, with its own column names and one that is none of ours."""
    return {
        "audio": audio(clip(200 + number), "clip.wav"),
        "emotion": number % 2,
        "transcription": f"words {number}",
        "speaker_id": number,
        "dnsmos": 3.5,
    } | cells


def corpus(root: Path, file: str = "data", **keywords: Any) -> ManifestCorpus:
    return ManifestCorpus(root, **{"file": file, "columns": COLUMNS} | keywords)


def items(root: Path, file: str = "data", **keywords: Any) -> list[Item]:
    return list(corpus(root, file, **keywords).items())


def faults(root: Path, file: str = "data", **keywords: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        items(root, file, **keywords)
    first, *others = str(caught.value).split("\n  ")
    assert first == f"{root / file}: problems to mend:"
    return others


def shards(root: Path) -> None:
    """Three splits as the hub names them, train in two files."""
    for number, name in enumerate(["test-0", "train-0-of-2", "train-1-of-2", "validation-0"]):
        rows = [row(2 * number), row(2 * number + 1)]
        write_parquet(root / f"data/{name}.parquet", rows, names=NAMES)


def test_splits_classes_and_numbers(tmp_path: Path) -> None:
    shards(tmp_path)
    found = items(tmp_path)
    assert [item.id for item in found] == [
        "test-000000", "test-000001", "train-000000", "train-000001", "train-000002",
        "train-000003", "valid-000000", "valid-000001",
    ]  # fmt: skip
    assert found[3] == Item(
        id="train-000001",
        label="happy",
        speaker="3",
        audio=f"{UNPACKED}/train/train-000001.wav",
        text="words 3",
        split="train",
    )
    assert corpus(tmp_path).classes == ("angry", "happy")
    assert items(tmp_path, "data/*.parquet") == found
    assert items(tmp_path, ".") == found
    assert items(tmp_path, "data/train-*.parquet") == found[2:6]
    assert items(tmp_path, "data/test-0.parquet") == found[:2]


def test_prepare_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    kinds = [("WAV", 16_000), ("FLAC", 48_000), ("OGG", 48_000)]
    contents = [clip(300, rate_hz=rate, kind=kind) for kind, rate in kinds]
    for number, name in enumerate(["train", "dev", "test"]):
        cells = row(number, audio=audio(contents[number]), emotion=number % 2)
        write_parquet(root / f"data/{name}.parquet", [cells], names=NAMES)
    monkeypatch.setenv("HERONRY_HUB_ROOT", str(root))
    entry = corpus_entry("hub", {"kind": "manifest", "file": "data", "columns": COLUMNS})
    prepared = prepare(entry, tmp_path / "out")
    assert prepared.rejected == {}
    utterances = Manifest.read(tmp_path / "out/utterances").utterances
    by_split = dict(zip(("train", "valid", "test"), contents, strict=True))
    for utterance in utterances:
        content = by_split[utterance.id.partition("-")[0]]
        assert utterance.sha256 == hashlib.sha256(content).hexdigest()
        assert utterance.seconds == pytest.approx(0.1, abs=1e-3)
    assert {Path(str(u.audio)).suffix for u in utterances} == {".wav", ".flac", ".ogg"}
    labels = read_labels(tmp_path / "out/labels")
    assert {label.id: (label.label, label.splits) for label in labels} == {
        "train-000000": ("angry", ("train",)),
        "valid-000000": ("happy", ("valid",)),
        "test-000000": ("angry", ("test",)),
    }


def test_without_columns_ours_are_taken_and_the_rest_left(tmp_path: Path) -> None:
    cells: dict[str, Any] = {"id": "u", "text": "hm", "label": "sad", "speaker": "s", "index": 3}
    cells |= {"split": "development", "start": 0.25, "stop": float("nan")}
    write_parquet(tmp_path / "rows.parquet", [cells])
    assert items(tmp_path, "rows.parquet", columns=None) == [
        Item("u", "sad", "s", text="hm", split="valid", start=0.25)
    ]


def test_a_column_that_is_mapped_is_not_taken_by_its_own_name(tmp_path: Path) -> None:
    cells: dict[str, Any] = {"id": "who", "text": "a prompt", "label": "sad", "words": "hm"}
    write_parquet(tmp_path / "rows.parquet", [cells])
    columns = {"speaker": "id", "text": "words"}
    (item,) = items(tmp_path, "rows.parquet", columns=columns)
    assert (item.id, item.speaker, item.text) == ("row-000000", "who", "hm")
    columns = {"speaker": "id", "text": "", "audio": "words"}
    (item,) = items(tmp_path, "rows.parquet", columns=columns)
    assert (item.text, item.audio) == (None, "hm")


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"emotion": "sad", "text": "x"}])
    held = "['emotion', 'text']"
    assert faults(tmp_path, "a.parquet", columns={"label": "emotoin"}) == [
        f"a.parquet: columns.label names 'emotoin', which is none of its columns {held}",
        f"a.parquet: it has no column label, nor speaker, but {held}: "
        "add it, or map it by `columns`",
    ]
    with pytest.raises(ParamsError, match=r"columns: given \['lable'\]; expected some of \['id'"):
        ManifestCorpus(tmp_path, columns={"lable": "emotion"})


@pytest.mark.parametrize("folders", [[""], ["train", "dev", "test"]])
def test_saved_to_disk(tmp_path: Path, folders: list[str]) -> None:
    root = tmp_path / "train"  # a single dataset has its split from its folder
    for number, folder in enumerate(folders):
        rows = [[row(5 * number + n) for n in range(3)], [row(5 * number + 3, emotion=-1)]]
        save_to_disk(root / "saved" / folder, *rows, names=NAMES)
    if folders != [""]:
        (root / "saved/dataset_dict.json").write_text(json.dumps({"splits": folders}))
    found = items(tmp_path, "train/saved")
    ours = [{"": "train", "dev": "valid"}.get(folder, folder) for folder in folders]
    assert [item.split for item in found] == [split for split in ours for _ in range(4)]
    assert [item.speaker for item in found[:4]] == ["0", "1", "2", "3"]
    assert [item.label for item in found[:4]] == ["angry", "happy", "angry", None]
    assert found[3].excluded == "it has no label"
    assert found[3].audio is not None
    assert all((tmp_path / str(item.audio)).is_file() for item in found)


def test_a_saved_selection_of_rows_is_refused(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "saved", [row(0)])
    state = {"_data_files": [], "_indices_data_files": [{"filename": "indices.arrow"}]}
    (tmp_path / "saved/state.json").write_text(json.dumps(state))
    with pytest.raises(ManifestError, match="selects rows of its table"):
        items(tmp_path, "saved")


def test_a_saved_dataset_names_no_file_outside(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "saved", [row(0)])
    state = {"_data_files": [{"filename": "../../other.arrow"}]}
    (tmp_path / "saved/state.json").write_text(json.dumps(state))
    with pytest.raises(ManifestError, match="expected a relative one below the corpus root"):
        items(tmp_path, "saved")


def test_audiofolder(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text(
        "file_name,label,speaker,extra\ndata/train/a.wav,sad,1,x\ndata/b.wav,happy,2,y\n"
    )
    expected = [
        Item("data/train/a", "sad", "1", audio="data/train/a.wav", split="train"),
        Item("data/b", "happy", "2", audio="data/b.wav"),
    ]
    assert items(tmp_path, "metadata.csv", columns=None) == expected
    assert items(tmp_path, ".", columns=None) == expected


def test_audiofolder_with_a_table_for_each_split(tmp_path: Path) -> None:
    for split in ("test", "train"):
        (tmp_path / "set" / split).mkdir(parents=True)
        line = {"file_name": "x/a.wav", "emotion": "sad", "speaker_id": split}
        (tmp_path / "set" / split / "metadata.jsonl").write_text(json.dumps(line) + "\n")
    columns = {"label": "emotion", "speaker": "speaker_id"}
    assert items(tmp_path, "set", columns=columns) == [
        Item(f"set/{s}/x/a", "sad", s, audio=f"set/{s}/x/a.wav", split=s) for s in ("test", "train")
    ]
    (tmp_path / "set/test/metadata.jsonl").write_text('{"file_name": "../a.wav"}\n{')
    assert faults(tmp_path, "set", columns=columns)[-1].startswith("set/test/metadata.jsonl ")
    line = {"file_name": "../../../a.wav", "emotion": "sad", "speaker_id": "1"}
    (tmp_path / "set/test/metadata.jsonl").write_text(json.dumps(line))
    (fault,) = faults(tmp_path, "set", columns=columns)
    assert fault.startswith("set/test/metadata.jsonl line 1: path ")


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data/train.parquet", [row(0), row(1)])
    before = {path: path.stat() for path in (tmp_path / str(i.audio) for i in items(tmp_path))}
    items(tmp_path)
    for path, status in before.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)
    # Another clip of the same size under the first id; the second is cut short on disk.
    changed = clip(999)
    assert len(changed) == next(iter(before.values())).st_size
    write_parquet(tmp_path / "data/train.parquet", [row(0, audio=audio(changed)), row(1)])
    first, second = before
    second.write_bytes(b"RIFF")
    items(tmp_path)
    assert first.read_bytes() == changed
    assert second.read_bytes() == clip(201)
    assert sorted(path.name for path in first.parent.iterdir()) == [first.name, second.name]


def test_ids_stay_below_the_root(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "root"
    ids = ["../../evil", "/etc/evil", "a/b", "a%2Fb", "..", ".hidden", "ü\\x", "x" * 400]
    rows = [row(n, id=id) for n, id in enumerate(ids)]
    write_parquet(root / "data/train.parquet", rows)
    found = items(root)
    assert [item.id for item in found] == ids
    places = {str(item.audio) for item in found}
    assert len(places) == len(ids)
    for place in places:
        assert (root / place).parent == root / UNPACKED / "train"
        assert (root / place).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in (root / UNPACKED).iterdir()] == ["train"]


def test_safe_names_are_short_and_distinct() -> None:
    long = ["é" * 300, "é" * 300 + "a", "é" * 299]
    assert len({safe_name(id) for id in long}) == 3
    assert max(len(safe_name(id)) for id in long) <= 150


def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data/train.parquet", [row(0)])
    (tmp_path / UNPACKED).write_text("in the way")
    with pytest.raises(
        ManifestError, match=r"audio of 'train-000000' is inside its table and cannot be written"
    ):
        items(tmp_path)


def test_wrong_tables_are_reported_before_any_audio_is_written(tmp_path: Path) -> None:
    rows = [row(0), row(1, emotion=2), row(2, speaker_id=None), row(3, emotion=-1)]
    write_parquet(tmp_path / "data/train.parquet", rows, names=NAMES)
    write_parquet(tmp_path / "data/wild.parquet", [row(0, id="u"), row(0, id="u")], names=NAMES)
    assert faults(tmp_path, classes=["angry"]) == [
        "data/train.parquet row 1: emotion is 2; expected 0 to 1 for ['angry', 'happy']",
        "data/train.parquet row 2: speaker is empty; expected who speaks, since splits rest on it",
        "id 'u' occurs in data/wild.parquet row 0, data/wild.parquet row 1; expected each id once: "
        "give the rows `id`s",
    ]
    assert not (tmp_path / UNPACKED).exists()


def test_a_row_without_audio_is_rejected_alone(tmp_path: Path) -> None:
    (tmp_path / "there.wav").write_bytes(clip())
    cells = [
        None,
        audio(None),
        audio(b""),
        audio(None, "/nowhere/a.wav"),
        audio(None, "../a.wav"),
        audio(None, "there.wav"),
        audio(clip()),
    ]
    write_parquet(
        tmp_path / "data/train.parquet", [row(n, audio=cell) for n, cell in enumerate(cells)]
    )
    found = items(tmp_path, columns=COLUMNS)
    reasons = [item.fault for item in found]
    assert reasons[:3] == ["its cell holds no audio"] * 3
    assert reasons[3:] == [
        "its cell holds no audio but the path '/nowhere/a.wav', which is not below the root",
        "its cell holds no audio but the path '../a.wav', which is not below the root",
        None,
        None,
    ]
    assert [(item.label, item.audio, item.text) for item in found[:5]] == [(None, None, None)] * 5
    assert found[5].audio == "there.wav"


def test_what_the_reader_rejects_counts_against_allow_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    rows = [row(n, audio=audio(None, "/nowhere/a.wav")) if n % 3 == 2 else row(n) for n in range(9)]
    rows.append(row(9, emotion=-1))  # without a label: left out, and no fault
    write_parquet(root / "data/all.parquet", rows, names=NAMES)
    monkeypatch.setenv("HERONRY_HUB_ROOT", str(root))
    options = {"kind": "manifest", "file": "data", "columns": COLUMNS, "protocol": "speaker_split"}
    for allowed in (0, 2):
        entry = corpus_entry("hub", options | {"allow_rejected": allowed})
        with pytest.raises(ManifestError, match=r"3 of 10 utterances cannot be used[^$]*/nowhere"):
            prepare(entry, out)
    prepared = prepare(corpus_entry("hub", options | {"allow_rejected": 3}), out)
    assert len(prepared.rejected) == 4
    assert prepared.utterances == 7


def test_undecodable_audio_is_listed_by_prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    rows = [row(n) for n in range(6)]
    rows[2]["audio"], rows[4]["audio"] = audio(b"not audio"), audio(clip()[:500])
    write_parquet(root / "data/all.parquet", rows, names=NAMES)
    monkeypatch.setenv("HERONRY_HUB_ROOT", str(root))
    options = {"kind": "manifest", "file": "data", "columns": COLUMNS, "protocol": "speaker_split"}
    with pytest.raises(ManifestError, match="2 of 6 utterances cannot be used"):
        prepare(corpus_entry("hub", options), out)
    prepared = prepare(corpus_entry("hub", options | {"allow_rejected": 2}), out)
    assert set(prepared.rejected) == {"row-000002", "row-000004"}
    assert "cannot be decoded" in prepared.rejected["row-000002"]
    assert len(read_labels(out / "labels")) == 4


def test_files_that_are_broken_are_named_together(tmp_path: Path) -> None:
    good = write_parquet(tmp_path / "data/good.parquet", [row(n) for n in range(8)])
    content = good.read_bytes()
    (tmp_path / "data/a.parquet").write_bytes(content[: len(content) // 2])
    (tmp_path / "data/b.parquet").write_bytes(b"")
    (tmp_path / "data/c.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    first, second, third = faults(tmp_path)
    assert first.startswith("data/a.parquet cannot be read as Parquet (")
    assert second.startswith("data/b.parquet cannot be read as Parquet (")
    assert third.startswith("data/c.parquet cannot be read as Parquet (it is a git-LFS pointer)")


def test_damage_amid_the_audio_names_the_file(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "data/a.parquet", [row(n) for n in range(8)])
    content = bytearray(path.read_bytes())
    content[4:40] = b"\xff" * 36  # the first page's header; the footer is whole
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"data/a\.parquet cannot be read as Parquet"):
        items(tmp_path)


def test_a_broken_arrow_stream(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "saved", [row(n) for n in range(6)])
    (path,) = (tmp_path / "saved").glob("*.arrow")
    path.write_bytes(path.read_bytes()[:-4000])
    (fault,) = faults(tmp_path, "saved")
    assert fault.startswith(f"saved/{path.name} cannot be read as an Arrow stream (")
    path.unlink()
    (fault,) = faults(tmp_path, "saved")
    assert fault.startswith(f"saved/{path.name} cannot be read as an Arrow stream (")


def test_no_tables(tmp_path: Path) -> None:
    (tmp_path / "data/.cache").mkdir(parents=True)
    write_parquet(tmp_path / "data/.cache/train.parquet", [row(0)])
    with pytest.raises(ManifestError, match=r"no table in the folder .*data, which holds \[\]"):
        items(tmp_path)
    with pytest.raises(ManifestError, match=r"no table 'x/\*\.parquet' in .* holds \['data'\]"):
        items(tmp_path, "x/*.parquet")


def test_memory_holds_a_row_group_and_not_a_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-(2**15), 2**15, size=(240, 2**15), dtype=np.int16)
    rows = []
    for number, samples in enumerate(noise):
        soundfile.write(tmp_path / "x.wav", samples, 16_000)
        rows.append(row(number, audio=audio((tmp_path / "x.wav").read_bytes())))
    path = write_parquet(tmp_path / "data/a.parquet", rows, group_rows=24)
    before = pa.total_allocated_bytes()
    shard = Shard(path, name="a.parquet")
    held = [pa.total_allocated_bytes() - before for _ in shard.rows(["audio"])]
    assert len(held) == 240
    assert 0 < max(held) < path.stat().st_size / 2


@pytest.mark.parametrize(
    ("begin", "suffix"),
    [
        (clip(), ".wav"),
        (clip(kind="FLAC"), ".flac"),
        (clip(kind="OGG"), ".ogg"),
        (clip(kind="MP3"), ".mp3"),
        (clip(kind="AIFF"), ".aiff"),
        (b"ID3\x04", ".mp3"),
        (b"\xff\xf1\x50", ".aac"),
        (b"\x00\x00\x00\x20ftypM4A ", ".m4a"),
        (b"?", ".bin"),
    ],
)
def test_suffixes(begin: bytes, suffix: str) -> None:
    assert suffix_of(begin) == suffix


def test_pyarrow_is_imported_only_where_it_is_used() -> None:
    code = "import features.corpora.manifest, sys; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
