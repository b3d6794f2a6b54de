"""Finds recognised words (ASR) to test a model on, in place of the reference transcripts.

A corpus may have both. `models.<name>.asr` names the backbone that reads the recognised words, and
the trained model is then tested on them too (`pipeline.runs.conditions`). Test utterances without
recognised words keep their reference, so that the condition has the same utterances as the model's
own score; run.json counts them under `asr`, beside the word error rate of the others.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from features.cache.reader import CacheReader
from features.cache.shard import DEVIATION
from features.corpus.manifest import Label
from features.errors import ParamsError
from features.files.reasons import REJECTED, read_reasons
from features.transcription.transcripts import WORDS, read_words
from pipeline.data.examples import Examples, join, notices_of
from pipeline.data.source import ExampleSource
from pipeline.model.inputs import InputSettings
from pipeline.params.file import ModelEntry, Params, differences
from pipeline.runs.word_errors import TEXT, word_errors


@dataclass(frozen=True)
class Recognised:
    """The recognised words that a model is tested on.

    Attributes:
        folder: Cache of the recognised words.
        record: Content of `asr` in run.json: `backbone`, `spec`, `provenance`; `tested`, the
            number of test utterances of all folds, and `recognised`, the number of those with
            recognised words; `word_errors` and `words` of those that also have a reference; and
            `noticed`, what is left out of recognised words, by id, if anything is.
    """

    folder: Path
    record: dict[str, Any]


def recognised(
    params: Params, model: ModelEntry, corpus: str, examples: Examples
) -> Recognised | None:
    """The recognised words of a model's test utterances; None if it is not tested on them.

    Raises:
        CacheError: If their cache is missing, damaged, or of another corpus.
        ParamsError: If another backbone than the text slot's has read them.
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
    return Recognised(folder, count_words(facts, examples, heard))


def count_words(
    facts: Mapping[str, Any], examples: ExampleSource, heard: Sequence[Label]
) -> dict[str, Any]:
    """Count recognised words and their errors; returns `Recognised.record`.

    Args:
        facts: `backbone`, `spec`, `provenance` and `noticed` of the record.
        examples: All usable utterances.
        heard: Test utterances with recognised words.
    """
    pairs = [(x.text, x.asr) for x in heard if x.text is not None and x.asr is not None]
    found = word_errors(pairs)
    return {
        **facts,
        "tested": len(test_labels(examples)),
        "recognised": len(heard),
        "word_errors": found.errors,
        "words": found.words,
    }


def test_labels(examples: ExampleSource) -> list[Label]:
    """The test utterances of all folds."""
    return [label for label in examples.labels if "test" in label.splits]


def _heard(
    model: ModelEntry, folder: Path, examples: Examples
) -> tuple[CacheReader | None, list[Label]]:
    """The cache, if it holds anything, and the test utterances in it."""
    if _is_empty(folder, examples.labels):
        return None, []
    layers = InputSettings.of(model.inputs).layer
    found = join({TEXT: folder}, examples.labels, examples.classes, layers=layers)
    _check(model, found.readers[TEXT], examples.readers[TEXT])
    heard = [label for label in test_labels(examples) if label.id not in found.dropped]
    # Beside the cache of an entry that reads transcripts; else they are the corpus's own.
    words = read_words(folder / WORDS)
    heard = [replace(label, asr=words.get(label.id, label.asr)) for label in heard]
    return found.readers[TEXT], heard


def _is_empty(folder: Path, labels: Sequence[Label]) -> bool:
    """Whether extraction found no recognised words in the corpus at all."""
    path = folder / REJECTED
    # Without rejected.csv nothing was extracted, which `join` reports.
    if any(folder.glob("*.h5")) or not path.exists():
        return False
    return {label.id for label in labels} <= read_reasons(path).keys()


def _check(model: ModelEntry, heard: CacheReader, text: CacheReader) -> None:
    """Refuse a cache that was not computed as the text slot's is: by the same network and layer."""
    found, wanted = ({**reader.provenance, **reader.spec.to_dict()} for reader in (heard, text))
    # Left out: options, of which `asr_problems` has compared the entries, defaults included; and
    # what differs by nature.
    for key in ("kind", "options", DEVIATION):
        found[key] = wanted[key] = None  # `kind` differs: the one reads `text`, the other `asr`
    differing = differences(found, wanted)
    if differing:
        raise ParamsError(
            f"models.{model.name}.asr: {heard.folder} differs from {text.folder} of the text slot "
            f"in {differing}; expected features of the same backbone, since the trained model "
            "reads them in place of the text: make the two entries equal, or set `none`"
        )
