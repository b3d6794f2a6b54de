"""Small backbones with random weights, live and cached, for tests of end-to-end training."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from features.backbone.entry import BackboneEntry, backbone_entry
from features.corpus.manifest import Label, Manifest
from features.extraction.extract import extract
from pipeline.data.examples import Examples, join
from pipeline.e2e.model import EndToEnd
from pipeline.e2e.source import LiveExamples
from pipeline.model.base import FusionModel
from pipeline.model.batch import Batch
from pipeline.model.checkpoint import make_model
from pipeline.params.tuning import TuneParams
from tests.contracts.checkpoints import ced, speech_encoder, text_encoder, wav2vec2_bert, whisper

CLASSES = ["calm", "angry"]
FAMILIES: dict[str, tuple[str, Any]] = {
    "bert": ("text_encoder", text_encoder.VARIANTS["bert"]),
    "roberta": ("text_encoder", text_encoder.VARIANTS["roberta"]),
    "distilbert": ("text_encoder", text_encoder.VARIANTS["distilbert"]),
    "albert": ("text_encoder", text_encoder.VARIANTS["albert"]),
    "hubert_group": ("speech_encoder", speech_encoder.VARIANTS["hubert_group"]),
    "hubert_layer": ("speech_encoder", speech_encoder.VARIANTS["hubert_layer"]),
    "wavlm_group": ("speech_encoder", speech_encoder.VARIANTS["wavlm_group"]),
    "data2vec": ("speech_encoder", speech_encoder.VARIANTS["data2vec"]),
    "w2v_bert": ("wav2vec2_bert", wav2vec2_bert.VARIANTS["public"]),
    "whisper": ("whisper", whisper.VARIANTS["mel80"]),
    "whisper_trim": ("whisper", whisper.VARIANTS["trim"]),
    "ced": ("ced", partial(ced.tiny, depth=3)),
}
SLOT = {
    "text_encoder": "text",
    "speech_encoder": "speech",
    "wav2vec2_bert": "speech",
    "whisper": "nonverbal",
    "ced": "spectral",
}


def entry_of(family: str, folder: Path, **settings: Any) -> BackboneEntry:
    """An entry whose checkpoint is written into `folder`."""
    kind, write = FAMILIES[family]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = write(folder / family)
    return backbone_entry(family, {"kind": kind, **options, **settings})


def slot_of(entry: BackboneEntry) -> str:
    return SLOT[entry.kind]


def labels_of(manifest: Manifest, splits: Sequence[str] = ("train",)) -> list[Label]:
    return [
        Label(u.id, CLASSES[i % 2], f"s{i}", f"d{i // 3}", i % 3, splits=(splits[i % len(splits)],))
        for i, u in enumerate(manifest)
    ]


def live_of(
    manifest: Manifest, backbones: Mapping[str, Any], cached: Examples | None = None, **more: Any
) -> LiveExamples:
    """All utterances of a manifest, live in all slots."""
    if cached is None:
        cached = Examples({}, labels_of(manifest), CLASSES, {})
    utterances = {utterance.id: utterance for utterance in manifest}
    return LiveExamples(cached, backbones, utterances, **{"batch_size": 4, **more})


def cached_of(
    manifest: Manifest, entries: Mapping[str, BackboneEntry], folder: Path, store: Path, dtype: str
) -> Examples:
    """The same utterances from caches that extraction writes."""
    slots = {}
    for slot, entry in entries.items():
        stored = dataclasses.replace(entry, store_dtype=dtype)  # type: ignore[arg-type]
        slots[slot] = folder / dtype / slot
        extract(manifest, stored, slots[slot], store=store)
    return join(slots, labels_of(manifest), CLASSES)


def tuned_model(
    examples: LiveExamples, kind: str = "concat", seed: int = 0, **settings: Any
) -> EndToEnd:
    """A small fusion above the backbones of the examples; `settings` are those of `e2e`."""
    torch.manual_seed(seed)
    fusion = make_model(kind, {"d_model": 8}, examples.specs, len(CLASSES))
    return EndToEnd(fusion, examples.backbones, TuneParams(**settings))


@torch.inference_mode()
def logits(model: FusionModel, batch: Batch) -> torch.Tensor:
    found: torch.Tensor = model.eval()(batch).logits
    return found


def without_dropout(model: torch.nn.Module) -> None:
    """Dropout everywhere off, also where networks read its rate from an attribute."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
