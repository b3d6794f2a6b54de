"""Operations of training a fusion on caches: counted for one utterance of the mean length."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from features.extraction.sizes import BYTES
from features.stream import Stream, StreamSpec
from pipeline.costs.corpora import CorpusSize
from pipeline.costs.features import Features, stream_of
from pipeline.costs.networks import network_of
from pipeline.model.batch import Batch
from pipeline.model.checkpoint import make_model
from pipeline.params.file import ModelEntry, Params

CLASSES = 8  # the width of a last layer hardly matters
TURNS = 37  # of a dialogue: 5,531 utterances of IEMOCAP in its 151 dialogues


def operations_of_a_pass(
    params: Params, model: ModelEntry, corpus: str, size: CorpusSize
) -> tuple[float, int] | None:
    """Operations of a pass over one row without gradients, and the utterances in it.

    A row is an utterance, or a dialogue for models over dialogues. Weights are fresh and nothing is
    trained.

    Returns:
        None if the stream of a slot is not known without the weights.
    """
    specs: dict[str, StreamSpec] = {}
    frames: dict[str, int] = {}
    for slot, name in model.slots.items():
        entry = params.backbone(name)
        if entry.kind == "none":
            continue
        spec, stored = stream_of(entry, network_of(entry)), Features(corpus, entry, size).bytes
        if spec is None or stored is None:
            return None
        dtype = entry.store_dtype if spec.bins is None else "int16"
        specs[slot] = spec
        frames[slot] = max(1, round(stored / (spec.dim * BYTES[dtype]) / size.utterances))
    with torch.random.fork_rng(devices=[]):
        fusion = make_model(model.kind, model.args, specs, CLASSES, inputs=model.inputs)
    turns = TURNS if fusion.unit == "dialogue" else 1
    # In eval mode torch has fused layers, whose operations the counter does not know.
    fusion.train()
    with (
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        fusion(_batch(specs, frames, turns if fusion.unit == "dialogue" else None))
    return float(counter.get_total_flops()), turns


def _batch(specs: Mapping[str, StreamSpec], frames: Mapping[str, int], turns: int | None) -> Batch:
    """One row of zeros: an utterance, or a dialogue of some turns."""
    streams = {}
    for slot, spec in specs.items():
        length = frames[slot] if turns is None else turns
        values = torch.zeros(1, length, spec.dim)
        if spec.bins is not None:
            values = torch.zeros(1, length, dtype=torch.long)
        streams[slot] = Stream(values, torch.ones(1, length, dtype=torch.bool))
    labels = torch.zeros((1,) if turns is None else (1, turns), dtype=torch.long)
    return Batch(streams, labels, tuple(map(str, range(turns or 1))))
