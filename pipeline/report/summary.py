"""What the page says first: how the score compares, what the slots are worth, all warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from features.corpus.label_checks import lacking_classes, lacking_lines
from pipeline.evaluation.calibration import Calibration
from pipeline.evaluation.rows import Clusters
from pipeline.evaluation.run_folder import RunFolder
from pipeline.evaluation.slots import Condition, Difference, Probe
from pipeline.evaluation.statistics import LEAST_CLUSTERS
from pipeline.html.format import few_clusters_note, number, quantity, shared_speakers_note
from pipeline.metrics.classes import unanswered
from pipeline.report.records import Report
from pipeline.report.sources import noticed_by_reason, noticed_in

MAIN = "uar"
"""Metric that the summary compares by: it weighs all classes alike."""
_WITHOUT = "without_"  # how the conditions that drop a slot begin


@dataclass(frozen=True)
class SlotWorth:
    """A slot's features alone and the model without them; None where the run did not test it."""

    slot: str
    probe: Probe | None
    without: Condition | None


def best_probe(report: Report) -> Probe | None:
    """The linear probe with the highest score; the first of equals; None without probes."""
    return max(report.probes, key=lambda probe: probe.whole.scores[MAIN], default=None)


def slot_title(run: RunFolder, slot: str) -> str:
    """A slot with its backbone and layer, such as "nonverbal (whisper_tiny_en_mid, layer 2)"."""
    entry = run.slots.get(slot)
    if entry is None:
        return slot
    layer = (entry.get("provenance") or {}).get("layer")
    of_layer = f", layer {layer}" if isinstance(layer, int) and layer >= 0 else ""
    return f"{slot} ({entry['backbone']}{of_layer})"


def verdict(found: Difference) -> str:
    """What a paired difference shows; empty without an interval."""
    if found.interval is None:
        return ""
    if found.interval.low > 0:
        return "a gain"
    return "a loss" if found.interval.high < 0 else "no gain shown"


def slots_worth(report: Report) -> list[SlotWorth]:
    """What is known of each slot in use, in order of run.json; empty if nothing is."""
    probes = {probe.slot: probe for probe in report.probes}
    without = {condition.name: condition for condition in report.conditions}
    return [
        SlotWorth(slot, probes.get(slot), without.get(_WITHOUT + slot))
        for slot in dict.fromkeys((*report.run.slots, *probes))
        if slot in probes or _WITHOUT + slot in without
    ]


def warnings(report: Report, head: Mapping[str, Any]) -> list[str]:
    """All that a reader should know before trusting the scores, but for leaks.

    Args:
        report: The report.
        head: Content of run.json.
    """
    return list(_warnings(report, head))


def _warnings(report: Report, head: Mapping[str, Any]) -> Iterator[str]:
    run, card = report.run, report.card
    yield from few_clusters(report.clusters)
    absent = [of.name for of in report.classes if not of.support]
    if absent:
        yield f"Absent from the test labels: {', '.join(absent)}. UAR and macro F1 leave them out."
    yield from lacking_lines(lacking_classes(card.get("counts") or []))
    unparsed = float(unanswered(report.confusions).mean())
    if unparsed:
        yield (
            f"{unparsed:.1%} of the answers about the test split name no class, or several: they "
            "count as wrong."
        )
    if run.dropped:
        trained = head.get("answers") is None
        yield (
            f"{len(run.dropped):,} of {quantity(run.utterances + len(run.dropped), 'utterance')}, "
            f"{report.left_out:,} of them in the test split, "
            + ("have no features in some slot" if trained else "could not be asked about")
            + ": they are left out of training and scores."
        )
    if card.get("rejected"):
        count = quantity(card["rejected"], "utterance")
        yield f"Rejected when the corpus was prepared: {count}."
    noticed = {id for id, _, _ in noticed_in(head)}
    if noticed:
        slot, notice, _ = noticed_by_reason(head)[0]
        yield (
            f"Of {quantity(len(noticed), 'utterance')} the features cover a part only. The most "
            f"frequent reason is {slot}: {notice}."
        )
    yield from _calibration(report.calibration)
    yield from head.get("warnings") or ()
    yield from card.get("warnings") or ()
    if card.get("differences"):
        count = quantity(len(card["differences"]), "count")
        yield f"The corpus differs from what is published in {count}."
    if (head.get("environment") or {}).get("dirty"):
        yield "The code had uncommitted changes during training: its commit does not identify it."


def few_clusters(clusters: Clusters) -> Iterator[str]:
    """Warnings on few speakers or dialogues, and on speakers that several dialogues share."""
    few = few_clusters_note(clusters.number, clusters.unit)
    if few:
        yield few
    note = shared_speakers_note(clusters.shared_speakers, clusters.unit)
    if note and clusters.number >= LEAST_CLUSTERS:
        yield note


def _calibration(found: Calibration | None) -> Iterator[str]:
    if found is None or found.after is None:
        return
    worse = [
        f"{title} from {number(before)} to {number(after)}"
        for title, before, after in (
            ("negative log-likelihood", found.before.nll, found.after.nll),
            ("ECE", found.before.ece, found.after.ece),
        )
        if after > before
    ]
    if worse:
        yield f"Temperature scaling makes the test probabilities worse: {', '.join(worse)}."
