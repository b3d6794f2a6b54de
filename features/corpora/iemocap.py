"""IEMOCAP: five sessions of two actors each, in improvised scenes and in scenes from plays.

About 12 hours, 10,039 rated utterances in 151 dialogues. The label is what most raters chose, or
`xxx` where no emotion has most votes. The set of classes is an option: see `labels`.

Reference: Busso et al. 2008, doi 10.1007/s10579-008-9076-6.
Licence: IEMOCAP release agreement (University of Southern California): research only.
Layout, below the root: `Session1` to `Session5`, each with

    dialog/EmoEvaluation/<dialogue>.txt    [start - end] <utterance> <label> [val, act, dom]
    dialog/transcriptions/<dialogue>.txt   <utterance> [start-end]: text
    sentences/wav/<dialogue>/<utterance>.wav

Only lines of these shapes are read: not the raters' own lines below each utterance, the folders
beside the label files, nor transcribed stretches that nobody rated. Times serve to order the turns.
Transcripts are kept as they are, tags such as [LAUGHTER] included. An utterance is named by
dialogue, speaker and number, as in `Ses01F_impro01_M003`: the letter after the session is who wore
the markers, and who speaks is the letter of the last part, here the man.

Protocols: there is no official split. `leave_one_session_out` keeps speakers and dialogues apart.
With `erc_split: true`, `official` is close to what most work on emotion in conversation does: test
on Session 5. That work validates on a tenth of the other dialogues, with speakers that it also
trains on; here validation is Session 4. Actors of all sessions play the same three plays, so that
lines of text cross any split: `sentence` names them, and the leak check reports how many do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal

from features.corpora._tables.cells import decoded, words
from features.corpora._tables.layouts import wrong_root
from features.corpus.adapter import CorpusFactory, Item, Published, Source
from features.errors import ManifestError
from features.files.reading import read_regular

Labels = Literal["four_class", "four_class_without_excited", "six_class"]
CODES = ("ang", "dis", "exc", "fea", "fru", "hap", "neu", "oth", "sad", "sur", "xxx")
_FOUR = {"hap": "happy", "sad": "sad", "neu": "neutral", "ang": "angry"}
LABEL_MAPS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "four_class": _FOUR | {"exc": "happy"},
        "four_class_without_excited": _FOUR,
        "six_class": _FOUR | {"exc": "excited", "fru": "frustrated"},
    }
)


def _by_session(*counts: int) -> dict[str, int]:
    return {f"Ses{number:02d}": count for number, count in enumerate(counts, 1)}


PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "four_class": Published(
            5531,
            {
                "label": {"happy": 1636, "sad": 1084, "neutral": 1708, "angry": 1103},
                "session": _by_session(1085, 1023, 1151, 1031, 1241),
            },
            source="EmoBox and emotion2vec, which publish lists of these utterances",
            notes=("Table 1 of LPGNet adds up to 5,522; its text says 5,531",),
        ),
        "four_class_without_excited": Published(
            4490,
            {
                "label": {"happy": 595, "sad": 1084, "neutral": 1708, "angry": 1103},
                "session": _by_session(942, 813, 1000, 793, 942),
            },
            source="counts of the label files in several public repositories",
        ),
        "six_class": Published(
            7380,
            {
                "label": {"happy": 595, "sad": 1084, "neutral": 1708, "angry": 1103}
                | {"excited": 1041, "frustrated": 1849},
            },
            source="counts of the label files in several public repositories",
            notes=(
                "Work on emotion in conversation reports 7,433 utterances, 1,623 of them in "
                "Session 5: it shares feature files that hold 648 happy ones, where the label "
                "files have 595. Those give 7,380, and 1,622 in Session 5.",
            ),
        ),
    }
)
# Groups: start, end, utterance, label.
_LABEL_LINE = re.compile(
    r"\[\s*(\d+\.?\d*)\s*-\s*(\d+\.?\d*)\s*\]\s+(\S+)\s+([a-z]{3})\s+\[.*\]", re.ASCII
)
_TRANSCRIPT_LINE = re.compile(r"(\S+)\s+\[[^\]]*\]:(.*)")
# Groups: dialogue, session, scene of a play (None if improvised), letter of the speaker.
_ID = re.compile(r"((Ses0[1-5])[FM]_(?:impro|(script\d+_\d+))\w*)_([FM])\d+", re.ASCII)
_TAG = re.compile(r"\[[^\]]*\]|[^\w\s]")  # such as [LAUGHTER], and punctuation
_GENDERS = {"F": "female", "M": "male"}


class Iemocap:
    """The rated utterances below `root`, by dialogue and time.

    Args:
        root: Folder that holds `Session1` to `Session5` (`IEMOCAP_full_release`).
        labels: `four_class`: happy, sad, neutral and angry, with excited counted as happy (5,531
            utterances). `four_class_without_excited`: the same without those (4,490). `six_class`:
            these four, excited and frustrated (7,380). Other labels are listed as rejected.
        improvised_only: Whether scenes from plays are left out, where actors speak learnt words.
        erc_split: Whether `protocol: official` trains on Sessions 1 to 3, validates on Session 4
            and tests on Session 5; else there is no official split.
        audio: False for a corpus of transcripts, without the recordings.
    """

    source: ClassVar[Source] = Source(
        title="IEMOCAP (Interactive Emotional Dyadic Motion Capture Database)",
        licence="IEMOCAP release agreement, for research",
        citation="Busso et al. 2008, doi 10.1007/s10579-008-9076-6",
        obtain="Request it at https://sail.usc.edu/iemocap/ and unpack IEMOCAP_full_release.",
    )

    def __init__(
        self,
        root: Path,
        *,
        labels: Labels = "four_class",
        improvised_only: bool = False,
        erc_split: bool = False,
        audio: bool = True,
    ) -> None:
        self._root, self._labels, self._audio = root, labels, audio
        self._improvised_only, self._erc_split = improvised_only, erc_split
        self.variant = f"{labels}_improvised" if improvised_only else labels
        self.label_map = {code: LABEL_MAPS[labels].get(code) for code in CODES}
        # Published counts of the improvised scenes alone contradict each other.
        self.published = None if improvised_only else PUBLISHED[labels]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order in which papers on conversations list them."""
        return tuple(dict.fromkeys(LABEL_MAPS[self._labels].values()))

    def tables(self) -> Iterator[Path]:
        """Label files and transcripts."""
        for folder in ("EmoEvaluation", "transcriptions"):
            yield from self._root.glob(f"Session[1-5]/dialog/{folder}/Ses*.txt")

    def items(self) -> Iterator[Item]:
        """All rated utterances, those outside the label map with a reason.

        Raises:
            ManifestError: If there is no session's folder, or one without label files.
        """
        sessions = sorted(path for path in self._root.glob("Session[1-5]") if path.is_dir())
        if not sessions:
            lacks = "no folder Session1 to Session5"
            raise wrong_root(self._root, lacks, "Session1", corpus="IEMOCAP", source=self.source)
        for session in sessions:
            # macOS leaves a `._` file beside each file that it copies.
            found = (session / "dialog" / "EmoEvaluation").glob("Ses*.txt")
            files = sorted(path for path in found if path.is_file())
            if not files:
                raise ManifestError(
                    f"{session} holds no label files dialog/EmoEvaluation/Ses*.txt; expected one "
                    f"for each dialogue: unpack it whole, or remove it. {self.source.obtain}"
                )
            for file in files:
                yield from self._dialogue(file)

    def _dialogue(self, file: Path) -> Iterator[Item]:
        texts = _transcripts(file.parents[1] / "transcriptions" / file.name)
        turns: list[tuple[float, float, str, str]] = []
        unread: list[Item] = []
        for number, line in enumerate(_lines(file), 1):
            if line.startswith("["):
                match = _LABEL_LINE.fullmatch(line)
                name = match and _ID.fullmatch(match[3])
                if match and name and name[1] == file.stem:
                    turns.append((float(match[1]), float(match[2]), match[3], match[4]))
                else:
                    unread.append(_unread(file.relative_to(self._root), number, line))
        # By start, then by end.
        for turn, (_, _, id, code) in enumerate(sorted(turns)):
            try:
                yield self._item(id, code, turn, texts.get(id, ""), folder=file.parents[2].name)
            except ManifestError as error:
                yield Item(id, None, "", fault=str(error))
        yield from unread

    def _item(self, id: str, code: str, turn: int, line: str, *, folder: str) -> Item:
        match = _ID.fullmatch(id)
        assert match is not None, id
        dialogue, session, script, letter = match.groups()
        notes: list[str] = []
        text = words("text", line, notes)
        label, fault, excluded = self.label_map.get(code), None, None
        if code not in CODES:
            fault = f"label {code}; expected one of {', '.join(CODES)}"
        elif label is None:
            excluded = f"label {code} is not among the classes of {self._labels}"
        elif script and self._improvised_only:
            label, excluded = None, f"it is from a play ({script}), and improvised_only is set"
        return Item(
            id=id,
            label=label,
            speaker=f"{session}_{letter}",
            audio=f"{folder}/sentences/wav/{dialogue}/{id}.wav" if self._audio else None,
            text=text,
            dialogue=dialogue,
            turn=turn,
            gender=_GENDERS[letter],
            sentence=_sentence(script, text) if script and text else None,
            split=_erc_split(session) if self._erc_split else None,
            session=session,
            fault=fault,
            excluded=excluded,
            notices=tuple(notes),
        )


def _sentence(script: str, text: str) -> str | None:
    """Identity of a line of a play: its scene and words, without case, punctuation and tags."""
    words = _TAG.sub("", text.lower().replace("-", " ")).split()
    return f"{script}: {' '.join(words)}" if words else None


def _erc_split(session: str) -> str:
    return {"Ses04": "valid", "Ses05": "test"}.get(session, "train")


def _transcripts(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    matches = (_TRANSCRIPT_LINE.fullmatch(line) for line in _lines(file))
    found = [(match[1], match[2]) for match in matches if match]
    # Reversed, so that the first of two lines for one utterance wins.
    return {id: text for id, text in reversed(found) if text.strip(" \t")}


def _lines(file: Path) -> list[str]:
    """Lines without surrounding space; those that are not UTF-8 are Windows-1252."""
    # Not `str.strip` alone: it would remove U+0085, here a misread ellipsis.
    return [line.strip(" \t") for line in re.split(r"\r\n|\r|\n", decoded(read_regular(file)))]


def _unread(file: Path, number: int, line: str) -> Item:
    reason = f"{line!r} is not [start - end], an utterance of this dialogue, label, [val, act, dom]"
    return Item(f"{file.as_posix()}:{number}", None, "", fault=reason)


build: CorpusFactory = Iemocap
