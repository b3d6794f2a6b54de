"""The conditions of `pipeline.conditions` for a model that was trained with its backbones.

The tuned backbones read the test utterances again, the text slot with another utterance's words or
with recognised ones. Features are zeroed where the fusion gets them, in both regimes.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from features.backbones._backbone import notices
from features.manifest import Label, Utterance
from pipeline.conditions import TEXT, Change, changes
from pipeline.live import LiveExamples
from pipeline.params import ModelEntry, Params
from pipeline.recognised import counted, tested


@dataclass(frozen=True)
class LiveAltered(LiveExamples):
    """Live examples with other texts, or to be used without a slot's features.

    Attributes:
        without: A slot whose features are to be zeroed; empty: none.
        instead: By id: what the text slot's backbone reads; what is not among them it reads itself.
    """

    without: str = ""
    instead: Mapping[str, Utterance] = field(default_factory=dict)

    def read(self, slot: str, id: str) -> Utterance:
        """The utterance that a slot's backbone reads for an id."""
        own = super().read(slot, id)
        return self.instead.get(id, own) if slot == TEXT else own


def live_conditions(
    examples: LiveExamples, test: Sequence[Label], seed: int, *, recognised: bool
) -> Iterator[tuple[str, LiveAltered]]:
    """The conditions, with the examples of each.

    Args:
        examples: What the tuned backbones read.
        test: Labels of the test split.
        seed: Decides who gets whose text, as on caches.
        recognised: Whether to test on recognised words.
    """
    own = {each.name: getattr(examples, each.name) for each in dataclasses.fields(examples)}
    plain = LiveAltered(**own)
    for change in changes(list(examples.specs), test, seed, recognised=recognised):
        instead = dict(_instead(examples, test, change))
        yield change.name, dataclasses.replace(plain, without=change.without, instead=instead)


def live_recognised(
    params: Params, model: ModelEntry, examples: LiveExamples, text: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """What the test on recognised words rests on, for run.json; None: there is no such test.

    Args:
        params: params.yaml.
        model: Whose `asr` asks for it.
        examples: All that can be used.
        text: `backbone`, `spec` and `provenance` of the text slot; None: it is empty.
    """
    if params.backbone(model.asr).kind == "none" or text is None:
        return None
    heard = [label for label in tested(examples) if _has(examples, label)]
    if not heard:
        if examples.ranks.is_first:
            sys.stderr.write(
                f"the corpus has recognised words of no test utterance: {model.name} is not tested "
                "on them\n"
            )
        return None
    own = (examples.utterances[label.id] for label in heard)
    read = (dataclasses.replace(utterance, text=utterance.asr) for utterance in own)
    noticed = dict(notices(examples.backbones[TEXT], read))
    facts = {**text, "backbone": model.asr, **({"noticed": noticed} if noticed else {})}
    return counted(facts, examples, heard)


def _has(examples: LiveExamples, label: Label) -> bool:
    return examples.utterances[label.id].asr is not None


def _instead(
    examples: LiveExamples, test: Sequence[Label], change: Change
) -> Iterator[tuple[str, Utterance]]:
    swapped = change.swapped.get(TEXT, {})
    for label in test:
        own = examples.utterances[label.id]
        if label.id in swapped:
            yield label.id, dataclasses.replace(examples.utterances[swapped[label.id]], id=label.id)
        elif change.recognised and own.asr is not None:
            yield label.id, dataclasses.replace(own, text=own.asr)
