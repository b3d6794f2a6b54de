"""CREMA-D: the Crowd-sourced Emotional Multimodal Actors Dataset, its voices.

91 actors read twelve sentences in six emotions, one sentence at three levels: 7,442 clips. The
words carry no emotion, so a model of the text alone must sit at chance. There are two sets of
labels: the emotion that the actor was asked for (`intended`), and the one that most listeners heard
(`voice_vote`).
The usual split of published tables shares all actors; use `speaker_folds` with 5 folds.

Reference: Cao et al. 2014, doi 10.1109/TAFFC.2014.2336244.
Licence: Open Database License 1.0.
Layout: `AudioWAV/1001_DFA_ANG_XX.wav` (FLAC is taken as well): actor, sentence, emotion, level;
`VideoDemographics.csv`, without which genders are unknown; `processedResults/summaryTable.csv`,
which `voice_vote` needs, and `processedResults/tabulatedVotes.csv`, which votes need. The tables
call the clip 1040_ITH_SAD_X by the name 1040_ITH_SAD_XX.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from features.corpora._tables.cells import identity
from features.corpora._tables.layouts import clips_in, wrong_root
from features.corpora._tables.text import published_rows
from features.corpora._votes.crema_d import TABLE, Modality, read_crema_d_votes
from features.corpora._votes.policies import Fate, NoAgreement, check_policies, without_agreement
from features.corpus.adapter import CorpusFactory, Item, Published, Source, Target
from features.errors import ManifestError, ParamsError
from features.files.records import check_unique

INTENDED = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
# Votes name an emotion by the first letter of its code.
VOTED = {code[0]: name for code, name in INTENDED.items()}
SENTENCES = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}
LEVELS = ("LO", "MD", "HI", "XX", "X")  # X: 1040_ITH_SAD_X alone, a misspelt XX
ACTORS = range(1001, 1092)
SILENT = "1076_MTI_SAD_XX"
TIE = "the voice vote is a tie"
_NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})", re.ASCII)
_INTENDED_COUNTS = Published(
    utterances=7441,
    by={
        "label": {
            "anger": 1271,
            "disgust": 1271,
            "fear": 1271,
            "happy": 1271,
            "neutral": 1087,
            "sad": 1270,
        }
    },
    source="7,442 clips: Cao et al. 2014; by label: as commonly reported, not recounted here",
    notes=(
        f"{SILENT} is silent and not counted.",
        "Three actors are said to have one recording under two emotions: 1006_TIE (HAP, NEU), "
        "1013_WSI (DIS, SAD), 1017_IWW (ANG, FEA). All six clips are kept.",
    ),
)


class CremaD:
    """The clips of the folder `AudioWAV` below `root`, in the order of their names.

    Args:
        root: Folder of the corpus.
        labels: `intended`: the emotion in the file's name. `voice_vote`: the one that most
            listeners to the voice alone chose.
        targets: What is asked for of classes and votes. The published levels are how strong the
            chosen emotion was heard, and no arousal: they are not offered.
        votes_on: What the listeners were given whose votes are counted.
        no_agreement: What is done with clips on which the `voice_vote` ties: `drop`: left out.
            `train`: trained on for their votes, and not tested on. `keep`: tested on as well.
    """

    source: ClassVar[Source] = Source(
        title="CREMA-D (Crowd-sourced Emotional Multimodal Actors Dataset), audio",
        licence="Open Database License 1.0",
        citation="Cao et al. 2014, doi 10.1109/TAFFC.2014.2336244",
        obtain="Clone https://github.com/CheyneyComputerScience/CREMA-D and run `git lfs pull`.",
    )
    public_licence: ClassVar[str] = "odbl"
    language: ClassVar[str] = "en"
    scripted: ClassVar[bool] = True
    offers: ClassVar[tuple[Target, ...]] = ("classes", "votes")
    classes = tuple(INTENDED.values())

    def __init__(
        self,
        root: Path,
        *,
        labels: Literal["intended", "voice_vote"] = "intended",
        targets: tuple[Target, ...] = ("classes",),
        votes_on: Modality = "voice",
        no_agreement: NoAgreement = "drop",
    ) -> None:
        if labels == "intended" and no_agreement != "drop":
            raise ParamsError(
                f"no_agreement: {no_agreement} with labels: intended; expected labels: voice_vote, "
                "as what the actor was asked for is never a tie"
            )
        self._root, self._targets = root, targets
        self._votes_on, self._no_agreement = votes_on, no_agreement
        self.policies = check_policies(targets, no_agreement=no_agreement) | {"votes_on": votes_on}
        self.variant = labels
        self.label_map: Mapping[str, str | None] = INTENDED if labels == "intended" else VOTED
        # No counts by vote were published.
        self.published = _INTENDED_COUNTS if labels == "intended" else None

    def tables(self) -> Iterator[Path]:
        """Demographics, and the tables of the votes."""
        yield from self._root.glob("VideoDemographics.csv")
        yield from self._root.glob("processedResults/summaryTable.csv")
        if "votes" in self._targets:
            yield from self._root.glob(f"processedResults/{TABLE}")

    def items(self) -> Iterator[Item]:
        """All clips, those that cannot be used with a reason.

        Raises:
            ManifestError: If there is no folder `AudioWAV`, or a table cannot be read.
        """
        folder = self._root / "AudioWAV"
        if not folder.is_dir():
            raise wrong_root(
                self._root, "no folder AudioWAV", "AudioWAV", corpus="CREMA-D", source=self.source
            )
        genders = self._genders()
        winners = None if self.variant == "intended" else self._winners()
        votes = None
        if "votes" in self._targets:
            table = self._root / "processedResults" / TABLE
            votes = read_crema_d_votes(table, self._votes_on, VOTED, self.source)
        for path in clips_in(folder):
            yield self._item(path, genders, winners, votes)

    def _genders(self) -> dict[str, str]:
        path = self._root / "VideoDemographics.csv"
        if not path.exists():
            return {}
        rows = {actor: sex.lower() for actor, sex in _columns(path, "ActorID", "Sex")}
        return {actor: sex for actor, sex in rows.items() if sex in ("male", "female")}

    def _winners(self) -> dict[str, str]:
        path = self._root / "processedResults" / "summaryTable.csv"
        rows = _columns(path, "FileName", "VoiceVote")
        check_unique((name for name, _ in rows), str(path))
        return dict(rows)

    def _item(
        self,
        path: Path,
        genders: Mapping[str, str],
        winners: Mapping[str, str] | None,
        votes: Mapping[str, Mapping[str, float]] | None,
    ) -> Item:
        place = f"{path.parent.name}/{path.name}"
        match = _NAME.fullmatch(path.stem)
        if match is None:
            wrong = "the name is not actor_sentence_emotion_level, as in 1001_DFA_ANG_XX"
            return Item(place, None, "", fault=wrong)
        actor, sentence, emotion, level = match.groups()
        fault = _fault(int(actor), sentence, emotion, level)
        if fault is not None:
            return Item(place, None, actor, fault=fault)
        if path.stem == SILENT:
            return Item(path.stem, None, actor, excluded="the published recording is silent")
        # The tables write XX where the one misspelt file has X.
        name = path.stem + "X" if level == "X" else path.stem
        label, tie = INTENDED.get(emotion), False
        if winners is not None:
            vote = winners.get(name, winners.get(path.stem))
            label, tie = VOTED.get(vote or ""), ":" in (vote or "")
            if vote is None:
                fault = "summaryTable.csv has no row for it"
            elif label is None and not tie:
                fault = f"voice vote {vote!r}; expected one of {', '.join(VOTED)}"
        given = None if votes is None else votes.get(name, votes.get(path.stem))
        if votes is not None and given is None:
            fault = fault or f"{TABLE} has no row of votes on {self._votes_on} for it"
        fate = without_agreement(self._no_agreement, TIE) if tie else Fate()
        return Item(
            id=path.stem,
            label=label,
            speaker=actor,
            audio=place,
            text=SENTENCES[sentence],
            gender=genders.get(actor),
            sentence=sentence,
            fault=fault,
            excluded=fate.excluded,
            votes=given,
            train_only=fate.train_only,
        )


def _fault(actor: int, sentence: str, emotion: str, level: str) -> str | None:
    if actor not in ACTORS:
        return f"actor {actor}; expected {ACTORS[0]} to {ACTORS[-1]}"
    if sentence not in SENTENCES:
        return f"sentence {sentence}; expected one of {', '.join(SENTENCES)}"
    if emotion not in INTENDED:
        return f"emotion {emotion}; expected one of {', '.join(INTENDED)}"
    if level not in LEVELS:
        return f"level {level}; expected one of {', '.join(LEVELS[:4])}"
    return None


def _columns(path: Path, first: str, second: str) -> list[tuple[str, str]]:
    """Two columns of a CSV table, without rows that lack the first."""
    cells = []
    for place, row in published_rows(path, (first, second), CremaD.source):
        try:
            key, value = (identity(name, row[name]) for name in (first, second))
        except ManifestError as error:
            raise ManifestError(f"{place}: {error}") from error
        if key is not None:
            cells.append((key, value or ""))
    return cells


build: CorpusFactory = CremaD
