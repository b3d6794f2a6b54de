"""EmoDB: the Berlin Database of Emotional Speech.

Ten actors speak ten German sentences in seven emotions; published are the 535 clips that listeners
judged natural and recognised. The words carry no emotion, so a model of the text alone must sit
at chance. Public folds exist that mix all speakers; use `leave_one_speaker_out`, report UAR.

Reference: Burkhardt et al., Interspeech 2005, doi 10.21437/Interspeech.2005-446.
Licence: free to use with citation; the download names no licence.
Layout: `wav/03a01Fa.wav` (FLAC is taken as well): speaker 03, sentence a01, emotion F, take a.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from features.corpora._tables.layouts import clips_in, wrong_root
from features.corpus.adapter import CorpusFactory, Item, Published, Source

EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}
GENDERS = {
    **dict.fromkeys(("03", "10", "11", "12", "15"), "male"),
    **dict.fromkeys(("08", "09", "13", "14", "16"), "female"),
}
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
_NAME = re.compile(r"(\d\d)([a-z]\d\d)([A-Z])[a-z]", re.ASCII)


class EmoDB:
    """The clips of the folder `wav` below `root`, in the order of their names."""

    source: ClassVar[Source] = Source(
        title="EmoDB (Berlin Database of Emotional Speech)",
        licence="free to use with citation; the download names no licence",
        citation="Burkhardt et al., Interspeech 2005, doi 10.21437/Interspeech.2005-446",
        obtain="Download it from http://emodb.bilderbar.info and unpack it: a folder named wav.",
    )
    language: ClassVar[str] = "de"
    scripted: ClassVar[bool] = True
    published: ClassVar[Published] = Published(
        utterances=535,
        by={
            "label": {
                "anger": 127,
                "boredom": 81,
                "disgust": 46,
                "fear": 69,
                "happiness": 71,
                "sadness": 62,
                "neutral": 79,
            }
        },
        source="as commonly reported of the file names, not recounted here",
    )
    label_map: ClassVar[Mapping[str, str | None]] = EMOTIONS
    classes = tuple(EMOTIONS.values())

    def __init__(self, root: Path) -> None:
        self._root = root

    def items(self) -> Iterator[Item]:
        """All clips; those with a name that is not one of the corpus have a fault.

        Raises:
            ManifestError: If there is no folder `wav`.
        """
        folder = self._root / "wav"
        if not folder.is_dir():
            raise wrong_root(self._root, "no folder wav", "wav", corpus="EmoDB", source=self.source)
        yield from map(_item, clips_in(folder))


def _item(path: Path) -> Item:
    place = f"{path.parent.name}/{path.name}"
    match = _NAME.fullmatch(path.stem)
    if match is None:
        reason = "the name is not speaker, sentence, emotion and take, as in 03a01Fa"
        return Item(place, None, "", fault=reason)
    speaker, sentence, letter = match.groups()
    fault = None
    if speaker not in GENDERS:
        fault = f"speaker {speaker}; expected one of {', '.join(sorted(GENDERS))}"
    elif sentence not in SENTENCES:
        fault = f"sentence {sentence}; expected one of {', '.join(SENTENCES)}"
    elif letter not in EMOTIONS:
        fault = f"emotion {letter}; expected one of {', '.join(EMOTIONS)}"
    if fault is not None:
        return Item(place, None, speaker, fault=fault)
    return Item(
        id=path.stem,
        label=EMOTIONS[letter],
        speaker=speaker,
        audio=place,
        text=SENTENCES[sentence],
        gender=GENDERS[speaker],
        sentence=sentence,
    )


build: CorpusFactory = EmoDB
