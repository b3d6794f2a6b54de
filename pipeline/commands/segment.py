"""`heronry segment`: a table of the utterances in recordings, by voice activity or annotations.

The table is a manifest: a corpus for `kind: manifest` once it has labels, and what `heronry
predict` takes. What is left out is listed with its reason, the rest is written, and the exit status
is 1.
"""

from __future__ import annotations

import functools
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import typer

from features.arguments import in_lines, refuse
from features.audio.read import audio_seconds
from features.audio.recordings import find_recordings
from features.errors import ManifestError, UtteranceError
from features.files.records import check_text
from features.networks.silero import SileroVAD
from features.process.terminal import LiveLines
from features.segmentation import voice_activity
from features.segmentation.hearing import hear
from features.segmentation.manifest import Speakers, relative_paths, write_faults, write_manifest
from features.segmentation.placing import place
from features.segmentation.rttm import SUFFIXES as RTTM
from features.segmentation.rttm import read_rttm
from features.segmentation.segments import Annotation, Fault, Segment, read_files
from features.segmentation.table import SUFFIXES as TABLE
from features.segmentation.table import read_table
from features.segmentation.textgrid import SUFFIXES as TEXTGRID
from features.segmentation.textgrid import Choice, read_textgrid
from features.segmentation.utterances import Made, Rules, make_utterances
from features.segmentation.voice_activity import SpeechDetector, speech_spans

VOICE = Rules(shortest=0.25, longest=30.0, pause=0.5, pad=0.1)  # seconds; of voice activity
GIVEN = Rules(shortest=0.0, longest=30.0, pause=None, pad=0.0)  # of annotations, as they are
THRESHOLD = 0.5
LEAST_LONGEST = 1.0  # seconds of the longest utterance, at least
# Speakers as programs number them, in each recording anew.
_NUMBERED = re.compile(r"(speaker|spk|spkr|s)?[ _-]?[0-9]+", re.IGNORECASE)


@dataclass(frozen=True)
class Asked:
    """What the command is asked for; None: a default, which depends on the source.

    Attributes:
        rttm: File or folder of RTTM.
        textgrid: File or folder of TextGrids.
        segments: File or folder of tables.
        choice: Intervals of TextGrids.
        shortest: As in `Rules`, and so are the next three.
        longest: See there.
        pause: See there.
        pad: See there.
        threshold: Probability from which on a window is speech.
        speakers: Who a speaker is.
    """

    rttm: Path | None = None
    textgrid: Path | None = None
    segments: Path | None = None
    choice: Choice = field(default_factory=Choice)
    shortest: float | None = None
    longest: float | None = None
    pause: float | None = None
    pad: float | None = None
    threshold: float | None = None
    speakers: Speakers = "given"

    @property
    def annotations(self) -> list[Path]:
        """The files or folders that are named."""
        return [path for path in (self.rttm, self.textgrid, self.segments) if path is not None]

    @property
    def rules(self) -> Rules:
        """Lengths, with the defaults of the source."""
        default = GIVEN if self.annotations else VOICE
        return Rules(
            shortest=default.shortest if self.shortest is None else self.shortest,
            longest=default.longest if self.longest is None else self.longest,
            pause=default.pause if self.pause is None else self.pause,
            pad=default.pad if self.pad is None else self.pad,
        )


def segment(given: Sequence[str], asked: Asked, *, out: Path) -> None:
    """Write a table of the utterances in recordings.

    Args:
        given: Recordings, folders of them, or patterns.
        asked: Where utterances begin and end.
        out: Table to write.

    Raises:
        ParamsError: If options contradict each other.
        ManifestError: If recordings or annotations are not there, or nothing is left. Also if
            something was left out: then the table has been written.
        MachineError: If voice activity is asked for and its package is not installed.
    """
    _check(asked, out)
    network = None if asked.annotations else voice_activity.load()
    paths, faults = relative_paths(find_recordings(given), out)
    seconds = dict(_durations(paths, faults))
    annotation = _read(asked)
    placed = place(annotation.segments, seconds)
    faults += [*annotation.faults, *placed.faults]
    lasting = {path: lasts for path, lasts in seconds.items() if lasts is not None}
    progress = _Progress(sum(lasting.values()))
    work = _Work(asked, network, progress)
    made: dict[str, Made] = {}
    for name, lasts in lasting.items():
        try:
            made[name] = work.utterances(name, paths[name], lasts, placed.segments[name])
        except UtteranceError as error:
            faults.append(Fault(str(paths[name]), error.reason))
    progress.end()
    if not any(found.utterances for found in made.values()):
        raise ManifestError(in_lines([f"no utterances: {out} is not written", *_lines(faults)]))
    rows = {path: found.utterances for path, found in made.items()}
    write_manifest(out, rows, asked.speakers)
    listed = write_faults(out, faults)
    for line in _summary(out, made, asked):
        typer.echo(line)
    if listed is not None:
        head = f"{len(faults)} left out, as {listed} lists too; the others are in {out}:"
        raise ManifestError(in_lines([head, *_lines(faults)]))


def _check(asked: Asked, out: Path) -> None:
    """Refuse options that contradict each other."""
    named = asked.annotations
    problems = []
    if len(named) > 1:
        problems.append("--rttm, --textgrid and --segments: given several; expected one of them")
    if named and asked.threshold is not None:
        problems.append("--threshold is of voice activity; expected none with annotations")
    if asked.textgrid is None and asked.choice != Choice():
        problems.append("--tier, --labels and --ignore are of TextGrids; expected --textgrid")
    check_text("--out", str(out))
    if out.suffix.lower() != ".csv":
        problems.append(f"--out {out}; expected a name that ends in .csv")
    if any(path.exists() and out.exists() and path.samefile(out) for path in named):
        problems.append(f"--out {out} is what is read; expected another file")
    rules = asked.rules
    if rules.longest and rules.longest < max(LEAST_LONGEST, 4 * rules.shortest):
        problems.append(
            f"--longest {rules.longest:g} with --shortest {rules.shortest:g}; expected 0, or at "
            f"least {LEAST_LONGEST:g} and four times the shortest, as parts may be a quarter of it"
        )
    refuse(problems)


def _read(asked: Asked) -> Annotation:
    """The segments of the annotations that are named; none for voice activity."""
    if asked.rttm is not None:
        return read_files(asked.rttm, RTTM, read_rttm)
    if asked.segments is not None:
        return read_files(asked.segments, TABLE, read_table)
    if asked.textgrid is None:
        return Annotation()
    top = asked.textgrid

    def read(path: Path) -> Iterator[Segment]:
        name = path.relative_to(top) if path != top else Path(path.name)
        return read_textgrid(path, name.with_suffix("").as_posix(), asked.choice)

    return read_files(top, TEXTGRID, read)


def _durations(
    paths: Mapping[str, Path], faults: list[Fault]
) -> Iterator[tuple[str, float | None]]:
    """Duration of each recording; None of one that cannot be read, with a fault."""
    for name, path in paths.items():
        try:
            yield name, audio_seconds(path)
        except UtteranceError as error:
            faults.append(Fault(str(path), error.reason))
            yield name, None


@dataclass(frozen=True)
class _Work:
    """What is common to all recordings; without a network segments are given."""

    asked: Asked
    network: SileroVAD | None
    progress: _Progress

    def utterances(
        self, name: str, path: Path, seconds: float, segments: Sequence[Segment]
    ) -> Made:
        """The utterances of a recording, which is heard once at most."""
        detector = None if self.network is None else SpeechDetector(self.network)
        # Given segments are seldom heard: each recording is one step.
        tick = _no_tick if detector is None else self.progress.add
        heard = functools.cache(functools.partial(hear, path, detector, tick))
        if detector is not None:
            threshold = THRESHOLD if self.asked.threshold is None else self.asked.threshold
            spans = speech_spans(heard().speech, threshold)
            segments = [
                Segment(name, start, min(stop, seconds)) for start, stop in spans if start < seconds
            ]
        made = make_utterances(segments, seconds, self.asked.rules, heard)
        if detector is None:
            self.progress.add(seconds)
        return made


def _no_tick(_: float) -> None:
    """Show nothing."""


class _Progress:
    """A line with the audio that is done, and the time left."""

    def __init__(self, total: float) -> None:
        self._lines = LiveLines()
        self._total, self._done = total, 0.0
        self._start = self._shown = time.monotonic()

    def add(self, seconds: float) -> None:
        """Note that so many seconds of audio are done."""
        self._done = min(self._total, self._done + seconds)
        now = time.monotonic()
        if now - self._shown < self._lines.every:
            return
        self._shown = now
        left = (self._total - self._done) * (now - self._start) / self._done
        self._lines.show(0, f"segmenting: {self} done, {left:.0f} s left")

    def end(self) -> None:
        """Show that all is done, where a line was shown before."""
        if self._shown != self._start:
            self._lines.show(0, f"segmenting: {self} done", done=True)

    def __str__(self) -> str:
        return f"{_clock(self._done)} of {_clock(self._total)}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _lines(faults: Sequence[Fault]) -> list[str]:
    return [f"{place}: {reason}" for place, reason in faults]


def _summary(out: Path, made: Mapping[str, Made], asked: Asked) -> Iterator[str]:
    """What was written, and what of it a user may want to know or change."""
    every = [each for found in made.values() for each in found.utterances]
    counts = sum((found.counts for found in made.values()), Counter[str]())
    heard = sum(bool(found.utterances) for found in made.values())
    total = _clock(sum(each.seconds for each in every))
    yield f"{out}: utterances: {len(every)}, recordings: {heard}, {total} in all"
    shortest, longest = asked.rules.shortest, asked.rules.longest
    counts["none"] = len(made) - heard
    for key, note in (
        ("none", "recordings without utterances"),
        ("short", f"segments shorter than {shortest:g} s, left out"),
        ("divided", f"utterances longer than {longest:g} s, divided at their quietest pauses"),
        ("long", f"utterances longer than {longest:g} s that have words, and stay whole"),
        ("overlap", "utterances that overlap one of another speaker, all kept"),
        (
            "own",
            "utterances that overlap one of the same speaker, all kept (`--pause 0` joins them)",
        ),
    ):
        if counts[key]:
            yield f"note: {note}: {counts[key]}"
    yield from _about_speakers(made, asked.speakers)
    if not any(each.label for each in every):
        yield "note: there are no labels: `heronry predict` needs none, a corpus a column `label`"


def _about_speakers(made: Mapping[str, Made], who: Speakers) -> Iterator[str]:
    if who in ("recording", "folder"):
        return
    places: dict[str, set[str]] = defaultdict(set)
    unknown = 0
    for name, found in made.items():
        for each in found.utterances:
            unknown += not each.speaker
            places[each.speaker].add(name)
    numbered = [name for name in places if _NUMBERED.fullmatch(name) and len(places[name]) > 1]
    if numbered and who == "given":
        yield (
            f"note: {numbered[0]} is one speaker in {len(places[numbered[0]])} recordings; where "
            "each recording has its own, `--speakers local` tells them apart"
        )
    if unknown:
        yield (
            f"note: utterances without a speaker, whom a corpus needs: {unknown} (if a recording "
            "or a folder is one person, `--speakers recording` or `--speakers folder` says so)"
        )
