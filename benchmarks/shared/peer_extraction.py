"""The peer of extraction: file by file, one `.pt` per utterance, as in public scripts.

Written by ourselves after what they have in common: every file is decoded, handed to the feature
extractor of transformers (or the tokenizer) and to the network alone, in float32, with all hidden
states kept until the last one is saved. Networks that transformers does not have are ours, one
clip at a time. The folder is not flushed to the disk, and no file is hashed, as nobody does.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.shared.networks import quiet
from benchmarks.shared.our_extraction import Task
from features.backbone.base import module_of
from features.backbone.entry import BackboneEntry
from features.backbones._audio import HOP
from features.cache.reader import CacheReader
from features.corpus.utterance import Utterance

# Largest difference allowed, over the largest value, beside the rounding of float16. Convolutions
# of float32 run in TF32 on a GPU unless one forbids it, and in another order in a batch.
TOLERANCE = {("cpu", "float32"): 1e-3, ("cuda", "float32"): 1e-2}
REDUCED = 5e-2  # the same, of bfloat16 beside the loop's float32
Extract = Callable[[Utterance], Tensor]  # to `[T, D]` or `[T]` on the CPU


class Peer:
    """The loop over a corpus."""

    def __init__(self, task: Task) -> None:
        self.task, self.out = task, task.folder / "pt"
        make = TRANSFORMERS.get(task.entry.kind)
        with quiet():
            self.extract: Extract = (
                _native(task.entry, task.device)
                if make is None
                else make(task.entry.options["checkpoint"], task.device)
            )

    def run(self) -> float:
        """Seconds that it takes to fill `out`."""
        shutil.rmtree(self.out, ignore_errors=True)
        start = time.perf_counter()
        self.out.mkdir(parents=True)
        with torch.no_grad():
            for utterance in self.task.manifest:
                torch.save(self.extract(utterance), self.out / f"{utterance.id}.pt")
        return time.perf_counter() - start


def _speech(checkpoint: str, device: str) -> Extract:
    import soundfile
    from transformers import AutoFeatureExtractor, AutoModel

    front_end = AutoFeatureExtractor.from_pretrained(checkpoint)
    model = AutoModel.from_pretrained(checkpoint, dtype=torch.float32).to(device).eval()

    def extract(utterance: Utterance) -> Tensor:
        samples, rate = soundfile.read(utterance.audio, dtype="float32")
        inputs = front_end(samples, sampling_rate=rate, return_tensors="pt").to(device)
        return _chosen(model(**inputs, output_hidden_states=True))

    return extract


def _whisper(checkpoint: str, device: str) -> Extract:
    import soundfile
    from transformers import WhisperFeatureExtractor, WhisperModel

    front_end = WhisperFeatureExtractor.from_pretrained(checkpoint)
    model = WhisperModel.from_pretrained(checkpoint, dtype=torch.float32).to(device).eval()

    def extract(utterance: Utterance) -> Tensor:
        samples, rate = soundfile.read(utterance.audio, dtype="float32")
        inputs = front_end(samples, sampling_rate=rate, return_tensors="pt").to(device)
        states = _chosen(model.encoder(inputs.input_features, output_hidden_states=True))
        return states[: len(samples) // HOP].clone()  # else the silence would be saved with it

    return extract


def _text(checkpoint: str, device: str) -> Extract:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModel.from_pretrained(checkpoint, add_pooling_layer=False, dtype=torch.float32)
    model.to(device).eval()

    def extract(utterance: Utterance) -> Tensor:
        inputs = tokenizer(utterance.text, return_tensors="pt", truncation=True).to(device)
        return _chosen(model(**inputs, output_hidden_states=True))

    return extract


def _chosen(output: Any) -> Tensor:
    # Not the last of `hidden_states`: in large models that is ahead of the final norm.
    states: Tensor = output.last_hidden_state[0].cpu()
    return states


def _native(entry: BackboneEntry, device: str) -> Extract:
    backbone = dataclasses.replace(entry, compute_dtype="float32").build()
    network = module_of(backbone)
    if network is not None:
        network.to(device)

    def extract(utterance: Utterance) -> Tensor:
        unhashed = dataclasses.replace(utterance, sha256=None)
        stream = backbone(backbone.prepare([unhashed]).to(device))
        return stream.unpad()[0].cpu()

    return extract


TRANSFORMERS: dict[str, Callable[[str, str], Extract]] = {
    "speech_encoder": _speech,
    "whisper": _whisper,
    "text_encoder": _text,
}


def compare(ours: Path, theirs: Path, task: Task) -> float:
    """Largest difference of two folders of features, over the largest value.

    Raises:
        SystemExit: If it is more than rounding: there is nothing to time.
    """
    reader, difference, largest = CacheReader(ours, verify=True), 0.0, 0.0
    for utterance in task.manifest:
        found = torch.from_numpy(reader[utterance.id].copy()).double()
        wanted = torch.load(theirs / f"{utterance.id}.pt", weights_only=True).double()
        if found.shape != wanted.shape:
            raise SystemExit(
                f"{task.entry.name} {utterance.id}: ours is {tuple(found.shape)}, the loop's "
                f"{tuple(wanted.shape)}: nothing to time"
            )
        difference = max(difference, float((found - wanted).abs().max()))
        largest = max(largest, float(wanted.abs().max()))
    place, dtype = torch.device(task.device).type, task.entry.compute_dtype
    allowed = torch.finfo(torch.float16).eps / 2 + TOLERANCE.get((place, dtype), REDUCED)
    if not difference <= allowed * largest:
        raise SystemExit(
            f"{task.entry.name}: ours differs from the loop's by {difference / largest:.1e} of the "
            f"largest value; expected at most {allowed:.1e}: nothing to time"
        )
    return difference / max(largest, 1e-30)
