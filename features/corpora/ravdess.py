"""RAVDESS: the Ryerson Audio-Visual Database of Emotional Speech and Song, its speech half.

24 actors read two sentences in eight emotions at two intensities (neutral: one), each twice: 1,440
clips, 60 an actor. The words carry no emotion, so a model of the text alone must sit at chance.

Reference: Livingstone and Russo 2018, doi 10.1371/journal.pone.0196391.
Licence: CC BY-NC-SA 4.0: research only.
Layout: `Actor_NN/03-01-EE-II-SS-RR-AA.wav` (FLAC is taken as well): modality, vocal channel,
emotion, intensity, statement, repetition, actor; odd actors are male, even ones female. Songs and
videos are listed as rejected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from features.corpora._tables.layouts import clips_in, wrong_root
from features.corpus.adapter import CorpusFactory, Item, Published, Source

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
STATEMENTS = {1: "Kids are talking by the door", 2: "Dogs are sitting by the door"}
ACTORS = 24
MEDIA = (".flac", ".mp4", ".wav")
_FIELDS = re.compile(r"-".join([r"(\d\d)"] * 7), re.ASCII)


class Ravdess:
    """The speech clips below `root`, in the order of their paths."""

    source: ClassVar[Source] = Source(
        title="RAVDESS (Ryerson Audio-Visual Database of Emotional Speech and Song), speech",
        licence="CC BY-NC-SA 4.0",
        citation="Livingstone and Russo 2018, doi 10.1371/journal.pone.0196391",
        obtain="Download Audio_Speech_Actors_01-24.zip from https://zenodo.org/records/1188976.",
    )
    public_licence: ClassVar[str] = "cc-by-nc-sa-4.0"
    language: ClassVar[str] = "en"
    scripted: ClassVar[bool] = True
    published: ClassVar[Published] = Published(
        utterances=1440,
        by={
            "label": {name: 96 if name == "neutral" else 192 for name in EMOTIONS},
            "speaker": {f"actor_{actor:02d}": 60 for actor in range(1, ACTORS + 1)},
        },
        source="Livingstone and Russo 2018",
    )
    classes = EMOTIONS

    def __init__(self, root: Path) -> None:
        self._root = root

    def items(self) -> Iterator[Item]:
        """All media files of the actors' folders, those that are not speech with a reason.

        Raises:
            ManifestError: If there is no actor's folder.
        """
        folders = sorted(path for path in self._root.glob("Actor_[0-9][0-9]") if path.is_dir())
        if not folders:
            lacks = f"no folder Actor_01 to Actor_{ACTORS}"
            raise wrong_root(self._root, lacks, "Actor_01", corpus="RAVDESS", source=self.source)
        for folder in folders:
            yield from map(_item, clips_in(folder, MEDIA))


def _item(path: Path) -> Item:
    place = f"{path.parent.name}/{path.name}"
    match = _FIELDS.fullmatch(path.stem)
    if match is None:
        # Its id is its path, since only well-formed names are unique in the corpus.
        return Item(place, None, "", fault="the name is not seven two-digit fields")
    modality, channel, emotion, _, statement, _, actor = map(int, match.groups())
    speaker = f"actor_{actor:02d}"
    if channel == 2:
        return Item(place, None, speaker, excluded="vocal channel 02: a song")
    if modality in (1, 2) or path.suffix.lower() == ".mp4":
        return Item(place, None, speaker, excluded=f"modality {modality:02d}: a video")
    fault = None
    if (modality, channel) != (3, 1):
        fault = f"modality {modality:02d} and vocal channel {channel:02d}; expected 03 and 01"
    elif emotion not in range(1, len(EMOTIONS) + 1) or statement not in STATEMENTS:
        fault = f"emotion {emotion:02d} and statement {statement:02d}; expected 01-08 and 01-02"
    elif actor not in range(1, ACTORS + 1) or speaker != path.parent.name.lower():
        fault = f"actor {actor:02d} in the folder {path.parent.name}"
    if fault is not None:
        return Item(place, None, speaker, fault=fault)
    return Item(
        id=path.stem,
        label=EMOTIONS[emotion - 1],
        speaker=speaker,
        audio=place,
        text=STATEMENTS[statement],
        gender="male" if actor % 2 else "female",
        sentence=f"{statement:02d}",
    )


build: CorpusFactory = Ravdess
