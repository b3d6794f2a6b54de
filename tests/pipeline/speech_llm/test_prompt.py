"""Prompts as files: the published one byte for byte, classes and words put into it."""

from __future__ import annotations

import hashlib
import textwrap
from pathlib import Path

import pytest

from features.errors import ParamsError
from pipeline.speech_llm.prompt import NO_WORDS, Prompt
from tests.support.paths import ROOT

FOLDER = ROOT / "stages/speech_llm/prompts"
PUBLISHED = ("sad", "neutral", "disgusted", "surprised", "angry", "happy", "other", "fearful")
# Of the text in the README of HERON's repository, without the indent of its code blocks.
SYSTEM = "379d10054f88c2d5c2ac31891b1d42c841ed8963cf7b6752cb947409fdeba501"
USER = "1d7791d419947d878e9a29b1f80e30fcafdaa519ec687ba568e07b72c3dbcb1c"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def prompt(path: Path, text: str, classes: tuple[str, ...] = ("happy", "sad")) -> Prompt:
    path.write_bytes(text.encode())
    return Prompt.read(str(path), classes)


def test_the_published_prompt_is_sent_as_it_was_published() -> None:
    """Whatever order the corpus has its classes in."""
    found = Prompt.read(str(FOLDER / "heron.txt"), sorted(PUBLISHED))
    assert (sha256(found.system), sha256(found.user)) == (SYSTEM, USER)
    assert not found.classes_replaced
    assert found.sha256 == hashlib.sha256((FOLDER / "heron.txt").read_bytes()).hexdigest()


@pytest.mark.real_data
def test_the_hashes_are_those_of_the_source() -> None:
    source = ROOT.parent / "shared/papers/heron-readme.txt"
    if not source.exists():
        pytest.skip("needs ../shared/papers")
    text = source.read_text(encoding="utf-8")
    rest = text.split("The system prompt is as follows:")[1].split("For few shot settings")[0]
    parts = [textwrap.dedent(part) for part in rest.split("The user prompt is as follows:")]
    assert [sha256(part.strip("\n").lstrip(" \n").rstrip("\n ")) for part in parts] == [
        SYSTEM,
        USER,
    ]


def test_other_classes_take_the_place_of_the_published_ones() -> None:
    found = Prompt.read(str(FOLDER / "heron.txt"), ("calm", "it's"))
    assert "following set: \n{'calm', 'it's'}.\n" in found.system
    assert "disgusted" not in found.system
    assert found.classes_replaced


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_each_prompt_of_the_folder_names_classes_and_words(path: Path) -> None:
    found = Prompt.read(str(path), ("calm", "sad"))
    assert "calm" in found.system
    assert found.message("Oh, I see.").count("Oh, I see.") == 1
    assert "<" not in found.system + found.message("words")


def test_words_are_put_in_as_they_are(tmp_path: Path) -> None:
    """They may hold what looks like a place or a set, or be unknown."""
    found = prompt(tmp_path / "p.txt", "[user]\n<classes>? <transcription>\n")
    assert found.system == ""
    assert found.message(r"<classes> \1 {'sad'}") == r"happy, sad? <classes> \1 {'sad'}"
    assert found.message(None) == f"happy, sad? {NO_WORDS}"


def test_parts_keep_their_spaces_and_lines(tmp_path: Path) -> None:
    found = prompt(tmp_path / "p.txt", "\n[system]\n one \n\n[user]\ntwo <classes>  ")
    assert (found.system, found.user) == (" one \n", "two happy, sad  ")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("hello", "begins with 'hello'"),
        ("[system]\n<classes>\n", "has no message"),
        ("[user]\n<classes>\n[user]\n", "[user] occurs twice"),
        ("[user]\nWhat is it?\n", "names no classes"),
        ("[user]\n<classes> <transcript>\n", "did you mean '<transcription>'"),
        ("[system]\n<transcription>\n[user]\n<classes>", "expected it behind [user]"),
    ],
)
def test_what_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ParamsError) as caught:
        prompt(tmp_path / "p.txt", text)
    assert complaint in str(caught.value)


def test_a_missing_prompt_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"gone\.txt cannot be read"):
        Prompt.read(str(tmp_path / "gone.txt"), ("happy", "sad"))
