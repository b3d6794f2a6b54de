"""Hints for missing paths below a corpus root, and links that lead out of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from features.corpora.manifest import ManifestCorpus
from features.corpora.meld import Meld
from features.corpora.ravdess import Ravdess
from features.corpus.adapter import UNPACKED
from features.errors import ManifestError
from features.files.root_paths import RootPaths, held
from tests.support.corpora.hub_tables import audio, clip, write_parquet
from tests.support.corpora.small_corpus import SmallCorpus

COMPOSED, APART = "Zo\u00eb.wav", "Zoe\u0308.wav"


@pytest.mark.parametrize(
    ("given", "there", "how"),
    [
        ("wav\\a.wav", "wav/a.wav", "with / in place of \\"),
        ("wav/a.wav", "Wav/A.WAV", "in another case of letters"),
        (f"wav/{COMPOSED}", f"wav/{APART}", "in another form of Unicode"),
        (f"wav/{APART}", f"wav/{COMPOSED}", "in another form of Unicode"),
        ("mine/wav/a.wav", "wav/a.wav", "without the folder mine"),
        ("C:\\data\\wav\\a.wav", "wav/a.wav", "without the folder C:/data"),
        ("wav/a.wav", "mine/wav/a.wav", "one folder down"),
        ("wav/a.wav", "wav/a.flac", "with another suffix"),
        ("wav/a", "wav/a.wav", "with another suffix"),
    ],
)
def test_a_similar_existing_path_is_suggested(
    tmp_path: Path, given: str, there: str, how: str
) -> None:
    (tmp_path / there).parent.mkdir(parents=True)
    (tmp_path / there).touch()
    (tmp_path / there).with_name("._a.wav").touch()
    assert RootPaths(tmp_path).nearest(given) == (there, how)
    for other in ("wav/b.wav", "a\0b", "", "x" * 300):
        assert RootPaths(tmp_path).nearest(other) is None


def test_a_folder_is_listed_with_a_suggestion(tmp_path: Path) -> None:
    for name in "abcdefg":
        (tmp_path / name).touch()
    assert held(tmp_path, "x") == "['a', 'b', 'c', 'd', 'e'] and 2 more"
    assert "(is 'a' meant: in another case of letters?)" in held(tmp_path, "A")
    assert f"(it is {tmp_path.name} itself: name the" in held(tmp_path, tmp_path.name)
    assert held(tmp_path / "none", "x") == "[]"


def test_prepare_suggests_a_similar_path(mine: SmallCorpus) -> None:
    mine.four()
    (mine.root / "0.wav").rename(mine.root / "0.WAV")
    missing = "0.wav: there is no such file below the corpus root"
    with pytest.raises(ManifestError, match=f"{missing}; there is 0.WAV .in another case"):
        mine.prepare()
    mine.prepare(allow_rejected=1)
    card = json.loads((mine.out / "labels/card.json").read_text())
    assert card["rejected_reasons"] == {missing.removeprefix("0.wav: "): 1}  # alike for all items
    rows = [row.replace("0.wav", "/home/me/corpus/0.wav") for row in mine.rows()]
    mine.table(*rows)
    with pytest.raises(ManifestError, match=r"line 2: path .*; there is 0.WAV .without the folder"):
        mine.prepare()


def test_a_root_one_folder_too_high_or_too_deep_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "ravdess/Actor_01").mkdir(parents=True)
    with pytest.raises(ManifestError, match="is 'ravdess/Actor_01' meant: one folder down"):
        list(Ravdess(tmp_path).items())
    with pytest.raises(ManifestError, match="it is Actor_01 itself: name the folder that holds it"):
        list(Ravdess(tmp_path / "ravdess/Actor_01").items())
    (tmp_path / "Train_sent_emo.CSV").touch()
    with pytest.raises(ManifestError, match=r"is 'Train_sent_emo\.CSV' meant: in another case"):
        list(Meld(tmp_path).items())
    (tmp_path / "Manifest.CSV").touch()
    with pytest.raises(ManifestError, match=r"is 'Manifest\.CSV' meant: in another case"):
        list(ManifestCorpus(tmp_path).items())


def test_links_out_of_the_root_are_followed_only_if_the_entry_says_so(mine: SmallCorpus) -> None:
    mine.four()
    elsewhere = mine.root.with_name("elsewhere")
    elsewhere.mkdir()
    (mine.root / "0.wav").rename(elsewhere / "0.wav")
    (mine.root / "0.wav").symlink_to(elsewhere / "0.wav")
    (mine.root / "down").symlink_to("..", target_is_directory=True)
    (mine.root / "2.wav").rename(mine.root / "two.wav")
    (mine.root / "2.wav").symlink_to("two.wav")  # a link that stays below the root
    (mine.root / "1.wav").rename(elsewhere / "1.wav")
    mine.audio("4.wav")
    rows = [row.replace("1.wav", "down/elsewhere/1.wav") for row in mine.rows()]
    mine.table(*rows, "4.wav,so,,,sad,s4,d4,train,", "gone.wav,so,,,sad,s4,d4,train,")
    with pytest.raises(ManifestError, match="3 of 6 utterances cannot be used"):
        mine.prepare()
    reason = "a link leads out of the corpus root; expected audio below it: copy it there, or set "
    assert [cause.count(reason) for cause in mine.rejected().values()] == [1, 1, 0]
    assert mine.prepare(follow_links=True, allow_rejected=1).utterances == 5


def test_a_root_may_be_a_link(mine: SmallCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    mine.four()
    link = mine.root.with_name("link")
    link.symlink_to(mine.root, target_is_directory=True)
    monkeypatch.setenv("HERONRY_MINE_ROOT", str(link))
    assert mine.prepare().utterances == 4


@pytest.mark.parametrize("link", [UNPACKED, f"{UNPACKED}/all"])
@pytest.mark.parametrize("there", [True, False])
def test_audio_is_not_unpacked_through_a_link(tmp_path: Path, link: str, there: bool) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    row = {"audio": audio(clip()), "text": "hm", "label": "sad", "speaker": "s1"}
    write_parquet(root / "data/all.parquet", [row])
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(elsewhere, target_is_directory=True)
    if there:
        elsewhere.mkdir()
    with pytest.raises(ManifestError, match=f"{UNPACKED} below the corpus root .* is a link to"):
        list(ManifestCorpus(root, file="data").items())
    assert not elsewhere.exists() or not list(elsewhere.iterdir())


def test_a_file_that_is_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    row = {"audio": audio(clip()), "text": "hm", "label": "sad", "speaker": "s1"}
    write_parquet(tmp_path / "data/all.parquet", [row])
    (item,) = ManifestCorpus(tmp_path, file="data").items()
    place = tmp_path / str(item.audio)
    other = tmp_path / "other.wav"
    place.rename(other)
    place.symlink_to(other)
    list(ManifestCorpus(tmp_path, file="data").items())
    assert not place.is_symlink()
    assert place.read_bytes() == other.read_bytes()
