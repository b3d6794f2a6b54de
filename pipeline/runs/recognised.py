"""Recognised words (ASR) in place of the reference transcripts that a model was trained on.

A corpus may give both. `models.<name>.asr` names the backbone that reads the recognised ones, and
the trained model is then tested on them (`pipeline.runs.conditions`). Test utterances of which none
are given keep their reference, so that the condition is about the same utterances as the model's
own score; run.json counts them under `asr`, beside the word error rate of the others.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.cache.reader import CacheReader
from features.cache.shard import DEVIATION
from features.corpus.manifest import Label
from features.errors import ParamsError
from features.files.reasons import REJECTED, read_reasons
from pipeline.data.examples import Examples, join, notices_of
from pipeline.data.source import ExampleSource
from pipeline.params.file import ModelEntry, Params, differences
from pipeline.runs.word_errors import TEXT, word_errors


@dataclass(frozen=True)
class Recognised:
    """What a model is tested on beside the reference.

    Attributes:
        folder: Cache of the recognised words.
        record: Under `asr` in run.json: `backbone`, `spec`, `provenance`; `tested`, the test
            utterances of all folds, and `recognised`, those of them that have recognised words;
            of these with a reference, `word_errors` among `words`; `noticed`, what is left out of
            recognised words, by id, if anything is.
    """

    folder: Path
    record: dict[str, Any]


def recognised(
    params: Params, model: ModelEntry, corpus: str, examples: Examples
) -> Recognised | None:
    """The recognised words for a model's test utterances; None where it has no such test.

    Raises:
        CacheError: If their cache is missing, damaged, or of another corpus.
        ParamsError: If they were not read by the text slot's own backbone.
    """
    if params.backbone(model.asr).kind == "none" or TEXT not in examples.readers:
        return None
    folder = Path("cache", corpus, model.asr)
    reader, heard = _heard(model, folder, examples)
    if reader is None or not heard:
        sys.stderr.write(
            f"{folder} holds no test utterance: {model.name} is not tested on recognised words\n"
        )
        return None
    noticed = notices_of(heard, reader.noticed)
    facts = {
        "backbone": model.asr,
        "spec": reader.spec.to_dict(),
        "provenance": dict(reader.provenance),
        **({"noticed": noticed} if noticed else {}),
    }
    return Recognised(folder, counted(facts, examples, heard))


def counted(
    facts: Mapping[str, Any], examples: ExampleSource, heard: Sequence[Label]
) -> dict[str, Any]:
    """`Recognised.record` of a model.

    Args:
        facts: `backbone`, `spec`, `provenance`.
        examples: All that can be used.
        heard: Test utterances that have recognised words.
    """
    pairs = [(x.text, x.asr) for x in heard if x.text is not None and x.asr is not None]
    found = word_errors(pairs)
    return {
        **facts,
        "tested": len(tested(examples)),
        "recognised": len(heard),
        "word_errors": found.errors,
        "words": found.words,
    }


def tested(examples: ExampleSource) -> list[Label]:
    """The test utterances of all folds."""
    return [label for label in examples.labels if "test" in label.splits]


def _heard(
    model: ModelEntry, folder: Path, examples: Examples
) -> tuple[CacheReader | None, list[Label]]:
    """The cache, if it holds anything, and the test utterances that it has."""
    if _is_bare(folder, examples.labels):
        return None, []
    found = join({TEXT: folder}, examples.labels, examples.classes, verify=True)
    _check(model, found.readers[TEXT], examples.readers[TEXT])
    heard = [label for label in tested(examples) if label.id not in found.dropped]
    return found.readers[TEXT], heard


def _is_bare(folder: Path, labels: Sequence[Label]) -> bool:
    """Whether extraction found no recognised words in the corpus at all."""
    path = folder / REJECTED
    if any(folder.glob("*.h5")) or not path.exists():
        return False
    return {label.id for label in labels} <= read_reasons(path).keys()


def _check(model: ModelEntry, heard: CacheReader, text: CacheReader) -> None:
    """Both caches must be of one network, seen in the same way."""
    found, wanted = ({**reader.provenance, **reader.spec.to_dict()} for reader in (heard, text))
    # Options as params.yaml spells them: `asr_problems` has compared those, defaults included.
    for key in ("kind", "options", DEVIATION):
        found[key] = wanted[key] = None
    differing = differences(found, wanted)
    if differing:
        raise ParamsError(
            f"models.{model.name}.asr: {heard.folder} differs from {text.folder} of the text slot "
            f"in {differing}; expected features of the same backbone, since the trained model "
            "reads them in place of the text: make the two entries equal, or set `none`"
        )
