"""The report's section on the worst errors: what they say, and how they sound."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath

from features.audio.read import SAMPLE_RATE_HZ, read_audio
from features.corpus.utterance import Utterance
from features.errors import HeronryError, ManifestError, ParamsError
from features.files.records import read_rows
from features.settings.locations import corpus_root
from pipeline.evaluation.errors import WorstError
from pipeline.evaluation.run_folder import RunFolder
from pipeline.html.format import many
from pipeline.html.markup import Markup, element, quiet
from pipeline.report.records import Report

BUDGET_BYTES = 3_000_000
"""Of all addresses of a page together."""
VARIABLE = "HERONRY_REPORT_AUDIO"
"""`no` leaves sound out, for a corpus whose licence does not let it be passed on."""
_PREFIX = "data:audio/mpeg;base64,"


def audio_root(run: RunFolder) -> Path | None:
    """Folder that the paths of a corpus's audio start from; None if it is not at hand."""
    beside = _utterances(run)
    if (beside / "audio").is_dir():
        return beside
    try:
        return corpus_root(run.corpus)
    except ParamsError:
        return None


def audio_hashes(run: RunFolder, ids: Collection[str]) -> dict[str, str]:
    """SHA-256 of the audio of utterances, where their manifest is at hand."""
    manifest = _utterances(run) / "manifest.jsonl"
    if not manifest.is_file():
        return {}
    rows = (row for row in read_rows(manifest, Utterance) if row.id in ids)
    try:
        return {row.id: row.sha256 for row in islice(rows, len(ids)) if row.sha256}
    except ManifestError:
        return {}  # the report is not about the manifest, and prepare tells


def _utterances(run: RunFolder) -> Path:
    parents = run.path.absolute().parents
    return parents[min(3, len(parents) - 1)] / "data" / run.corpus / "utterances"


def wanted() -> bool:
    """Whether sound may go into the page."""
    return os.environ.get(VARIABLE, "").strip().lower() not in ("no", "0", "false")


class Clips:
    """Addresses of clips, until a page's budget is spent.

    Args:
        root: Where the corpus lies; None: nowhere.
        hashes: SHA-256 of the audio, by id: another file would be heard under an old verdict.
        budget_bytes: Of all addresses together.
    """

    def __init__(
        self,
        root: Path | None,
        *,
        hashes: Mapping[str, str] | None = None,
        budget_bytes: int = BUDGET_BYTES,
    ) -> None:
        self._root, self._budget, self._left = root, budget_bytes, budget_bytes
        self._hashes = hashes or {}

    def find(self, error: WorstError) -> tuple[str, str]:
        """The address of an utterance's sound and an empty reason, or no address and why."""
        if error.audio is None:
            return "", "the corpus has no audio of it"
        if self._root is None:
            return "", "the audio is not on the machine that wrote this page"
        path = PurePosixPath(error.audio)
        if path.is_absolute() or ".." in path.parts:
            return "", "its path leaves the corpus's folder"
        try:
            content = _encoded(self._root / path, error, self._hashes.get(error.id))
        except ManifestError:
            return "", "its audio is missing, or is no longer that which the model heard"
        except HeronryError:
            return "", "its audio cannot be read on the machine that wrote this page"
        address = _PREFIX + base64.b64encode(content).decode()
        if len(address) > self._left:
            return "", f"the clips of a page hold {self._budget / 1e6:g} MB at most"
        self._left -= len(address)
        return address, ""


def _encoded(path: Path, error: WorstError, sha256: str | None) -> bytes:
    import soundfile

    samples = read_audio(path, id=error.id, start=error.start, stop=error.stop, sha256=sha256)
    file = io.BytesIO()
    soundfile.write(
        file, samples.clip(-1, 1), SAMPLE_RATE_HZ, format="MP3", subtype="MPEG_LAYER_III"
    )
    return file.getvalue()


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
