"""Exports encoders that were trained end to end, as checkpoints that entries of `backbones` read.

A folder holds what the kind of the backbone reads: config.json, model.safetensors, the files of the
tokenizer or feature extractor, and `trained_on.jsonl` (`features.extraction.trained_on`), from
which the leak gate knows which utterances the encoder was fitted to. Networks that are not in
transformers are exported as their weights alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from features.backbone.base import Backbone, innermost, module_of
from features.backbone.entry import BackboneEntry
from features.corpus.utterance import Member, Utterance
from features.extraction.trained_on import TRAINED_ON, TrainedOn, read_trained_on, write_trained_on
from features.files.records import read_rows, write_rows
from features.files.writing import follow_umask
from features.weights.tensors import WEIGHTS

BACKBONES = "backbones"  # folder below that of a seed and fold


def exportable(backbone: Backbone) -> bool:
    """Whether this backbone can be exported as a folder that its kind reads."""
    network = module_of(backbone)
    return network is not None and (
        hasattr(network, "config") or WEIGHTS in getattr(innermost(backbone), "files", ())
    )


def export(
    folder: Path,
    entry: BackboneEntry,
    backbone: Backbone,
    corpus: str,
    trained: Sequence[Utterance],
    members: Sequence[Member] = (),
) -> None:
    """Write the network of a backbone as a checkpoint.

    Args:
        folder: Folder to write: `backbones/<slot>` of a seed and fold.
        entry: Entry of params.yaml.
        backbone: The backbone built from it, tuned, its adapters merged.
        corpus: Name of the corpus.
        trained: Utterances of the training split.
        members: Members of the corpus, if it is a union.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network: Any = _whole(entry, backbone)
    state = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    follow_umask(folder / WEIGHTS)
    if hasattr(network, "config"):
        network.config.architectures = [type(network).__name__]
        network.config.save_pretrained(folder)
    _save_front_end(folder, innermost(backbone))
    write_trained_on(folder, corpus, trained, members)
    before = read_trained_on(entry)
    if before:
        now = read_rows(folder / TRAINED_ON, TrainedOn)
        write_rows(folder / TRAINED_ON, list(dict.fromkeys([*before, *now])))


def _whole(entry: BackboneEntry, backbone: Backbone) -> nn.Module:
    """The network with all its layers: those above the deepest one that is used are pretrained.

    So the folder can be read with the same settings, `layer` among them.
    """
    network = module_of(backbone)
    assert network is not None
    layers = getattr(innermost(backbone), "layers", None)
    if layers is None or layers.whole:
        return network
    last = dataclasses.replace(entry, pooling="frames", options={**entry.options, "layer": -1})
    whole = module_of(last.build())
    assert whole is not None
    # Missing keys are those of the layers above; an unexpected one would be a bug.
    unexpected = whole.load_state_dict(network.state_dict(), strict=False).unexpected_keys
    assert not unexpected, unexpected
    return whole


def _save_front_end(folder: Path, backbone: Any) -> None:
    tokenizer = getattr(backbone, "tokenizer", None)
    if tokenizer is not None:
        tokenizer("")  # resets padding and truncation of the last batch, which are saved as well
        tokenizer.save_pretrained(folder)
    front_end: Any = getattr(backbone, "front_end", None)
    if hasattr(front_end, "save_pretrained"):
        front_end.save_pretrained(folder)
