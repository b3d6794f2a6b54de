"""IEMOCAP: five sessions of two actors each, in improvised scenes and in scenes from plays.

About 12 hours, 10,039 rated utterances in 151 dialogues. The label is what most raters chose, or
`xxx` where no emotion has most votes. The set of classes is an option: see `labels`.

Reference: Busso et al. 2008, doi 10.1007/s10579-008-9076-6.
Licence: IEMOCAP release agreement (University of Southern California): research only.
Layout, below the root: `Session1` to `Session5`, each with

    dialog/EmoEvaluation/<dialogue>.txt    [start - end] <utterance> <label> [val, act, dom]
    dialog/transcriptions/<dialogue>.txt   <utterance> [start-end]: text
    sentences/wav/<dialogue>/<utterance>.wav

Only lines of these shapes are read, and where votes or attributes are asked for the raters' own
lines below each utterance (`_votes/iemocap.py`): not the folders beside the label files, nor
transcribed stretches that nobody rated. The label is the corpus's own and never counted from votes.
Times serve to order the turns. Transcripts are kept as they are, tags such as [LAUGHTER] included.
An utterance is named by dialogue, speaker and number, as in `Ses01F_impro01_M003`: the letter after
the session is who wore the markers, and who speaks is the letter of the last part, here the man.

Protocols: there is no official split. `leave_one_session_out` keeps speakers and dialogues apart.
With `erc_split: true`, `official` is close to what most work on emotion in conversation does: test
on Session 5. That work validates on a tenth of the other dialogues, with speakers that it also
trains on; here validation is Session 4, or with `erc_split: dialogues` that tenth, for which
`allow_leak` must name the speaker. Which dialogues they took is not published. Actors of all
sessions play the same three plays, so that lines of text cross any split: `sentence` names them,
and the leak check reports how many do.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal

from features.corpora._tables.cells import decoded, words
from features.corpora._tables.layouts import wrong_root
from features.corpora._votes.iemocap import (
    ATTRIBUTES,
    CATEGORIES,
    SCALE,
    header_values,
    read_block,
)
from features.corpora._votes.policies import (
    Fate,
    NoAgreement,
    SelfEvaluation,
    check_policies,
    outside_classes,
    without_agreement,
)
from features.corpora._votes.tally import Tally, averaged, tally
from features.corpus.adapter import CorpusFactory, Item, Published, Source, Target
from features.corpus.ratings import Rating
from features.errors import ManifestError
from features.files.reading import read_regular

Labels = Literal["four_class", "four_class_without_excited", "six_class"]
CODES = ("ang", "dis", "exc", "fea", "fru", "hap", "neu", "oth", "sad", "sur", "xxx")
NO_AGREEMENT = "xxx"
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
# Groups: start, end, utterance, label, attributes.
_LABEL_LINE = re.compile(
    r"\[\s*(\d+\.?\d*)\s*-\s*(\d+\.?\d*)\s*\]\s+(\S+)\s+([a-z]{3})\s+\[(.*)\]", re.ASCII
)
_TRANSCRIPT_LINE = re.compile(r"(\S+)\s+\[[^\]]*\]:(.*)")
# Groups: dialogue, session, scene of a play (None if improvised), letter of the speaker.
_ID = re.compile(r"((Ses0[1-5])[FM]_(?:impro|(script\d+_\d+))\w*)_([FM])\d+", re.ASCII)
_TAG = re.compile(r"\[[^\]]*\]|[^\w\s]")  # such as [LAUGHTER], and punctuation
_GENDERS = {"F": "female", "M": "male"}


@dataclass(frozen=True, order=True, slots=True)
class _Turn:
    """A rated utterance; in order of start and end."""

    start: float
    end: float
    id: str
    code: str
    header: str
    said: tuple[Rating, ...] = field(compare=False)


class Iemocap:
    """The rated utterances below `root`, by dialogue and time.

    Args:
        root: Folder that holds `Session1` to `Session5` (`IEMOCAP_full_release`).
        labels: `four_class`: happy, sad, neutral and angry, with excited counted as happy (5,531
            utterances). `four_class_without_excited`: the same without those (4,490). `six_class`:
            these four, excited and frustrated (7,380). Other labels are listed as rejected.
        improvised_only: Whether scenes from plays are left out, where actors speak learnt words.
        erc_split: Whether `protocol: official` trains on Sessions 1 to 3, validates on Session 4
            and tests on Session 5; `dialogues`: it validates on a tenth of the dialogues of
            Sessions 1 to 4 and trains on the others. False: there is no official split.
        audio: False for a corpus of transcripts, without the recordings.
        targets: What is asked for of classes, votes and attributes.
        no_agreement: What is done with `xxx`: `drop`: left out. `train`: trained on for votes and
            attributes, and not tested on. `keep`: tested on as well.
        other: What is done with labels outside the label map: `drop`: left out. `outside`: kept
            for votes and attributes.
        self_evaluation: Whether the speakers' own views count as votes, and in the values, which
            are else the means that the label files state, of external raters alone.
    """

    source: ClassVar[Source] = Source(
        title="IEMOCAP (Interactive Emotional Dyadic Motion Capture Database)",
        licence="IEMOCAP release agreement, for research",
        citation="Busso et al. 2008, doi 10.1007/s10579-008-9076-6",
        obtain="Request it at https://sail.usc.edu/iemocap/ and unpack IEMOCAP_full_release.",
    )
    language: ClassVar[str] = "en"
    offers: ClassVar[tuple[Target, ...]] = ("classes", "votes", "attributes")
    scales: ClassVar[Mapping[str, tuple[float, float]]] = dict.fromkeys(ATTRIBUTES, SCALE)

    def __init__(
        self,
        root: Path,
        *,
        labels: Labels = "four_class",
        improvised_only: bool = False,
        erc_split: bool | Literal["dialogues"] = False,
        audio: bool = True,
        targets: tuple[Target, ...] = ("classes",),
        no_agreement: NoAgreement = "drop",
        other: Literal["drop", "outside"] = "drop",
        self_evaluation: SelfEvaluation = "exclude",
    ) -> None:
        self._targets, self._no_agreement, self._other = targets, no_agreement, other
        self._own = self_evaluation == "include"
        self.policies = check_policies(
            targets, no_agreement=no_agreement, other=other, self_evaluation=self_evaluation
        )
        self._said: list[Rating] = []
        self._root, self._labels, self._audio = root, labels, audio
        self._improvised_only, self._erc_split = improvised_only, erc_split
        self._validating: set[str] = set()
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
        self._said.clear()
        self._validating = self._tenth() if self._erc_split == "dialogues" else set()
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

    def _tenth(self) -> set[str]:
        """A tenth of the dialogues of Sessions 1 to 4, always the same: by hashes of names."""
        files = self._root.glob("Session[1-4]/dialog/EmoEvaluation/Ses*.txt")
        names = {file.stem for file in files if file.is_file()}
        if self._improvised_only:
            names = {name for name in names if "_impro" in name}
        ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
        return set(ordered[: max(1, round(len(ordered) / 10))])

    def _split(self, session: str, dialogue: str) -> str:
        if session == "Ses05":
            return "test"
        dialogues = self._erc_split == "dialogues"
        validates = dialogue in self._validating if dialogues else session == "Ses04"
        return "valid" if validates else "train"

    def ratings(self) -> Iterator[Rating]:
        """What each rater said, if votes or attributes are asked for; after `items`."""
        yield from self._said

    def _dialogue(self, file: Path) -> Iterator[Item]:
        texts = _transcripts(file.parents[1] / "transcriptions" / file.name)
        place = file.relative_to(self._root).as_posix()
        turns: list[_Turn] = []
        unread: list[Item] = []
        lines = list(enumerate(_lines(file), 1))
        for number, line in lines:
            if line.startswith("["):
                match = _LABEL_LINE.fullmatch(line)
                name = match and _ID.fullmatch(match[3])
                if match and name and name[1] == file.stem:
                    said, faults = self._raters(match[3], name[2], lines[number:])
                    unread += [Item(f"{place}:{n}", None, "", fault=fault) for n, fault in faults]
                    start, end, id, code, header = match.groups()
                    turns.append(_Turn(float(start), float(end), id, code, header, said))
                else:
                    unread.append(_unread(place, number, line))
        for number, turn in enumerate(sorted(turns)):
            self._said += turn.said
            try:
                yield self._item(turn, number, texts.get(turn.id, ""), file.parents[2].name)
            except ManifestError as error:
                yield Item(turn.id, None, "", fault=str(error))
        yield from unread

    def _raters(
        self, id: str, session: str, lines: Sequence[tuple[int, str]]
    ) -> tuple[tuple[Rating, ...], Sequence[tuple[int, str]]]:
        """What raters said of an utterance below its header, and the faults of their lines."""
        if not {"votes", "attributes"} & set(self._targets):
            return (), ()
        below = itertools.takewhile(lambda numbered: numbered[1], lines)
        block = read_block(id, session, below, self._names)
        return tuple(block.ratings.values()), block.faults

    @functools.cached_property
    def _names(self) -> dict[str, str]:
        """Names of ratings by code: classes, and the raters' own word for what is none."""
        words = {code: word for word, code in reversed(CATEGORIES.items())}
        return {code: self.label_map[code] or word for code, word in words.items()}

    def _item(self, turn: _Turn, number: int, line: str, folder: str) -> Item:
        id, code = turn.id, turn.code
        match = _ID.fullmatch(id)
        assert match is not None, id
        dialogue, session, script, letter = match.groups()
        notes: list[str] = []
        text = words("text", line, notes)
        label, fault, fate = self.label_map.get(code), None, Fate()
        if code not in CODES:
            fault = f"label {code}; expected one of {', '.join(CODES)}"
        elif label is None:
            reason = f"label {code} is not among the classes of {self._labels}"
            if code == NO_AGREEMENT:
                fate = without_agreement(self._no_agreement, reason)
            else:
                fate = outside_classes(self._other, reason)
        if fault is None and fate.excluded is None and script and self._improvised_only:
            label, fate = None, Fate(f"it is from a play ({script}), and improvised_only is set")
        heard = [rating for rating in turn.said if self._own or not rating.self]
        votes = tally(heard, self.classes, mentions=True).get(id, Tally())
        values = None
        if "attributes" in self._targets:
            values = averaged(heard).get(id) if self._own else header_values(turn.header)
        return Item(
            id=id,
            label=label,
            speaker=f"{session}_{letter}",
            audio=f"{folder}/sentences/wav/{dialogue}/{id}.wav" if self._audio else None,
            text=text,
            dialogue=dialogue,
            turn=number,
            gender=_GENDERS[letter],
            sentence=_sentence(script, text) if script and text else None,
            split=self._split(session, dialogue) if self._erc_split else None,
            session=session,
            fault=fault,
            excluded=fate.excluded,
            notices=tuple(notes),
            votes=votes.votes,
            votes_outside=votes.votes_outside,
            values=values,
            train_only=fate.train_only,
        )


def _sentence(script: str, text: str) -> str | None:
    """Identity of a line of a play: its scene and words, without case, punctuation and tags."""
    words = _TAG.sub("", text.lower().replace("-", " ")).split()
    return f"{script}: {' '.join(words)}" if words else None


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


def _unread(place: str, number: int, line: str) -> Item:
    reason = f"{line!r} is not [start - end], an utterance of this dialogue, label, [val, act, dom]"
    return Item(f"{place}:{number}", None, "", fault=reason)


build: CorpusFactory = Iemocap
