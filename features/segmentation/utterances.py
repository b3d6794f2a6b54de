"""Makes utterances of segments: joined over short pauses, padded, and divided where they are long.

In this order: segments of one speaker with a short pause between them are joined; what is too
short is left out; the rest is padded, at most by half of the gap to the next segment; what is too
long is divided at its quietest pauses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from features.segmentation.hearing import Heard
from features.segmentation.placing import DIGITS, floor
from features.segmentation.segments import Segment

# Share of a long utterance at each end in which it is not divided: no part becomes very short.
ENDS = 0.25


@dataclass(frozen=True)
class Rules:
    """Lengths of utterances and of what is around them, in seconds.

    Attributes:
        shortest: Utterances that are shorter are left out.
        longest: Utterances that are longer are divided; 0: never.
        pause: Pause of a speaker from which on two segments are two utterances; None: segments
            stay as they are.
        pad: Sound that is added before and after an utterance.
    """

    shortest: float
    longest: float
    pause: float | None
    pad: float


@dataclass(frozen=True)
class Made:
    """Utterances of a recording, in order of start, and what happened on the way.

    Attributes:
        utterances: The utterances.
        counts: Number of `short` segments that were left out, of utterances that were `divided`,
            that are `long` but have words, and so stay whole, that `overlap` one of another
            speaker, and that overlap one of their `own` speaker.
    """

    utterances: list[Segment]
    counts: Counter[str]


def make_utterances(
    segments: Sequence[Segment], seconds: float, rules: Rules, hear: Callable[[], Heard]
) -> Made:
    """Make the utterances of a recording.

    Args:
        segments: Its segments, in order of start.
        seconds: Its duration.
        rules: Lengths.
        hear: Function that hears the recording, called if something is to be divided.
    """
    counts: Counter[str] = Counter()
    joined = list(segments) if rules.pause is None else _joined(segments, rules.pause)
    kept = [each for each in joined if each.seconds >= rules.shortest]
    counts["short"] = len(joined) - len(kept)
    made = []
    for each in _padded(kept, seconds, rules.pad):
        if not rules.longest or each.seconds <= rules.longest:
            made.append(each)
        elif each.text is not None:  # nobody knows which words are in which part
            counts["long"] += 1
            made.append(each)
        else:
            counts["divided"] += 1
            made.extend(_divided(each, rules.longest, hear()))
    made.sort(key=lambda each: (each.start, each.stop, each.speaker))
    counts.update(_overlaps(made))
    return Made(made, counts)


def _joined(segments: Sequence[Segment], pause: float) -> list[Segment]:
    """Join neighbours of a speaker and label with less than a pause between them."""
    last: dict[tuple[str, str | None], int] = {}
    found: list[Segment] = []
    for each in segments:
        key = each.speaker, each.label
        at = last.get(key)
        if at is not None and each.start - found[at].stop < pause:
            texts = [text for text in (found[at].text, each.text) if text is not None]
            text = " ".join(texts) if texts else None
            found[at] = replace(found[at], stop=max(found[at].stop, each.stop), text=text)
        else:
            last[key] = len(found)
            found.append(each)
    return found


def _padded(segments: Sequence[Segment], seconds: float, pad: float) -> Iterator[Segment]:
    """Add sound around each segment, at most half of what is free; none within an overlap."""
    ends = 0.0  # of the segments so far
    for number, each in enumerate(segments):
        # At both ends of the recording nobody else needs the other half.
        before = (each.start - ends) / 2 if number else each.start
        last = number + 1 == len(segments)
        after = seconds - each.stop if last else (segments[number + 1].start - each.stop) / 2
        if ends > each.stop:
            after = 0.0
        ends = max(ends, each.stop)
        yield replace(
            each,
            start=round(each.start - max(0.0, min(pad, before)), DIGITS),
            stop=floor(each.stop + max(0.0, min(pad, after))),
        )


def _divided(segment: Segment, longest: float, heard: Heard) -> Iterator[Segment]:
    """Cut a segment at its quietest pause, and its parts, until none is too long."""
    if segment.seconds <= longest:
        yield segment
        return
    end = segment.seconds * ENDS
    at = round(heard.quietest(segment.start + end, segment.stop - end), DIGITS)
    yield from _divided(replace(segment, stop=at), longest, heard)
    yield from _divided(replace(segment, start=at), longest, heard)


def _overlaps(utterances: Sequence[Segment]) -> Counter[str]:
    """Number of utterances during which another one runs, by whether the speaker is another."""
    others: set[int] = set()
    own: set[int] = set()
    running: list[int] = []
    for number, each in enumerate(utterances):
        running = [at for at in running if utterances[at].stop > each.start]
        for at in running:
            same = each.speaker and utterances[at].speaker == each.speaker
            (own if same else others).update((at, number))
        running.append(number)
    return Counter(overlap=len(others), own=len(own))
