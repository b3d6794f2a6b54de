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

from features.corpus.adapter import CorpusFactory, Item, Published, Source
from features.errors import ManifestError
from features.files.root_paths import held

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
    generated: ClassVar[bool] = False
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
            raise ManifestError(
                f"{self._root} holds no folder Actor_01 to Actor_{ACTORS} but "
                f"{held(self._root, 'Actor_01')}; expected the root of RAVDESS: "
                f"{self.source.obtain}"
            )
        for folder in folders:
            for path in sorted(folder.iterdir()):
                # macOS leaves a `._` file beside each file that it copies.
                if path.suffix.lower() in MEDIA and not path.name.startswith("._"):
                    yield _item(path)


def _item(path: Path) -> Item:
    place = f"{path.parent.name}/{path.name}"
    match = _FIELDS.fullmatch(path.stem)
    if match is None:
        # Its id is its path, since only well-formed names are unique in the corpus.
        return Item(place, None, "", reject="the name is not seven two-digit fields")
    modality, channel, emotion, _, statement, _, actor = map(int, match.groups())
    speaker = f"actor_{actor:02d}"
    if channel == 2:
        return Item(place, None, speaker, reject="vocal channel 02: a song", left_out=True)
    if modality in (1, 2) or path.suffix.lower() == ".mp4":
        reason = f"modality {modality:02d}: a video"
        return Item(place, None, speaker, reject=reason, left_out=True)
    fault = None
    if (modality, channel) != (3, 1):
        fault = f"modality {modality:02d} and vocal channel {channel:02d}; expected 03 and 01"
    elif emotion not in range(1, len(EMOTIONS) + 1) or statement not in STATEMENTS:
        fault = f"emotion {emotion:02d} and statement {statement:02d}; expected 01-08 and 01-02"
    elif actor not in range(1, ACTORS + 1) or speaker != path.parent.name.lower():
        fault = f"actor {actor:02d} in the folder {path.parent.name}"
    if fault is not None:
        return Item(place, None, speaker, reject=fault)
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
