"""The report of a run that learns several targets, or others than classes, as a record.

Each target has its own results and none is summed over targets: a CCC, an F1 and a divergence are
no quantities of one kind. Rows differ too: an utterance counts for every target that it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from features.corpus.manifest import Label
from pipeline.evaluation.attributes.scores import AttributeResults
from pipeline.evaluation.ceilings import Ceilings
from pipeline.evaluation.rows import Clusters
from pipeline.evaluation.run_folder import RunFolder
from pipeline.evaluation.votes.scores import VoteResults
from pipeline.report.records import Report


@dataclass(frozen=True)
class TargetReport:
    """Everything that the report of such a run shows.

    Attributes:
        run: The run folder.
        card: card.json of the corpus.
        labels: All labels of the corpus.
        metrics: Numbers of metrics.json and details.json.
        clusters: Units that the bootstrap draws.
        rows: Test utterances that have any target.
        speakers: Number of their speakers.
        classes: Results on the rows with a class; None if the run tells no classes apart.
        pluralities: Number of labels of which that class is the plurality of their votes.
        attributes: Results on attributes; None if they are no target.
        votes: Results on votes; None if they are no target.
        ceilings: How the raters agree; None without ratings.
    """

    run: RunFolder
    card: Mapping[str, Any]
    labels: tuple[Label, ...]
    metrics: Mapping[str, float]
    clusters: Clusters
    rows: int
    speakers: int
    classes: Report | None
    pluralities: int
    attributes: AttributeResults | None
    votes: VoteResults | None
    ceilings: Ceilings | None

    @property
    def tasks(self) -> tuple[str, ...]:
        """What is scored, in the order of the page: classes, attributes, votes."""
        return tuple(
            task for task in ("classes", "attributes", "votes") if task in self.run.targets.tasks
        )
