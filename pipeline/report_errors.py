"""The report's section on the worst errors: what they say, and how they sound."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.report import Report, WorstError
from pipeline.report_audio import Clips, audio_hashes, audio_root, wanted
from pipeline.report_format import many
from pipeline.report_html import Markup, element, quiet


def errors_of(report: Report) -> Iterator[Markup]:
    """The errors that most models make with confidence, with text and sound."""
    errors = report.errors
    if not errors.total:
        yield quiet("No test utterance was got wrong by most seeds.")
        return
    shown = f"; the {len(errors.shown)} surest" if len(errors.shown) < errors.total else ""
    yield quiet(
        f"{many(errors.total, 'test utterance')} {'was' if errors.total == 1 else 'were'} got "
        f"wrong by most seeds{shown}. It is often the label that is doubtful there, or the "
        "recording."
    )
    hashes = audio_hashes(report.run, {error.id for error in errors.shown})
    clips = Clips(audio_root(report.run), hashes=hashes)
    sounds = [clips.find(error) if wanted() else ("", "left out") for error in errors.shown]
    yield from _about_sound(report, [reason for _, reason in sounds])
    whole_reason = len({reason for _, reason in sounds}) == 1
    items = [
        _item(error, address, "" if whole_reason else reason)
        for error, (address, reason) in zip(errors.shown, sounds, strict=True)
    ]
    yield element("ol", *items, style="errors")


def _about_sound(report: Report, reasons: list[str]) -> Iterator[Markup]:
    if "" in reasons:
        licence = report.card.get("licence")
        yield quiet(
            "The clips are part of the corpus and under its licence"
            f"{f' ({licence})' if licence else ''}; pass this page on only where it allows that."
        )
    elif len(set(reasons)) == 1:
        yield quiet(f"No sound: {reasons[0]}.")


def _item(error: WorstError, address: str, silent: str) -> Markup:
    times = f"{error.seeds_wrong} of {many(error.seeds, 'seed')}"
    parts = [
        element("p", f"“{error.text}”") if error.text else quiet("no transcript"),
        element(
            "p",
            *("labelled ", element("b", error.label), ", predicted "),
            *(element("b", error.predicted), f" with {error.probability:.2f}, wrong in {times}"),
        ),
    ]
    if address:
        told = f"Utterance {error.id}"
        player = {"controls": "", "preload": "none", "src": address, "aria_label": told}
        parts.append(element("audio", **player))
    about = f"{error.id} · speaker {error.speaker}" + (f" · no sound: {silent}" if silent else "")
    return element("li", *parts, quiet(about))
