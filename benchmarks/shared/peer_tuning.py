"""The contender of end-to-end training: a plain fine-tuning loop by transformers' `Trainer`.

As its documentation shows for audio: a dataset that reads one file at a time, a collator that pads
to the longest with the feature extractor, `per_device_train_batch_size`, and all else at its
defaults. The network, its weights and the head above it are ours.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any

import soundfile
import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.shared.our_tuning import CLASSES, TuneTask
from features.corpus.manifest import Label
from features.stream import Stream
from pipeline.model.batch import Batch


class Peer(nn.Module):
    """HuBERT and the head as `Trainer` takes a model: keywords in, loss out."""

    def __init__(self, network: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.network, self.head = network, head
        network.feature_extractor._freeze_parameters()  # type: ignore[union-attr,operator]

    def forward(self, input_values: Tensor, attention_mask: Tensor, labels: Tensor) -> Any:
        """Mean cross-entropy and logits."""
        hidden = self.network(input_values, attention_mask=attention_mask).last_hidden_state
        mask = self.network._get_feature_vector_attention_mask(  # type: ignore[operator]
            hidden.shape[1], attention_mask
        )
        ids = ("",) * len(labels)
        batch = Batch(ids=ids, streams={"speech": Stream(hidden, mask.bool())}, labels=labels)
        logits = self.head(batch).logits
        return {"loss": nn.functional.cross_entropy(logits.float(), labels), "logits": logits}


class Clips(Dataset[dict[str, Any]]):
    """One file at a time."""

    def __init__(self, task: TuneTask, labels: Sequence[Label]) -> None:
        paths = {clip.id: str(clip.audio) for clip in task.manifest}
        self.rows = [(paths[label.id], CLASSES.index(label.class_name)) for label in labels]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, label = self.rows[index]
        wave, _ = soundfile.read(path, dtype="float32")
        return {"wave": wave, "label": label}


class Collator:
    """Pads a batch to its longest."""

    def __init__(self, task: TuneTask) -> None:
        checkpoint = str(task.entry.options["checkpoint"])
        self.extractor = transformers.AutoFeatureExtractor.from_pretrained(checkpoint)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """What `Peer.forward` takes."""
        made = self.extractor(
            [row["wave"] for row in rows],
            sampling_rate=16_000,
            padding=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        return {**made, "labels": torch.tensor([row["label"] for row in rows])}


class GivenTrainer(transformers.Trainer):  # type: ignore[misc]
    """On the batches `given`."""

    given: list[list[int]]

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Those batches in that order."""
        return DataLoader(
            self.train_dataset, batch_sampler=self.given, collate_fn=self.data_collator
        )


class Timer(transformers.TrainerCallback):  # type: ignore[misc]
    """From the beginning of training to its last step."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.started = self.ended = 0.0
        self.steps = 0

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        self.started = self._now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note a step."""
        self.steps += 1
        self.ended = self._now()

    def _now(self) -> float:
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()


def make_peer(task: TuneTask) -> Peer:
    """The network of the same checkpoint as transformers makes it, and our head."""
    network = transformers.AutoModel.from_pretrained(str(task.entry.options["checkpoint"]))
    return Peer(network, task.model(task.examples()).fusion)


def train_peer(task: TuneTask, ids: Sequence[Sequence[str]] | None = None) -> Timer:
    """One epoch: on the batches `ids`, or as `Trainer` shuffles the training clips by itself."""
    labels = [label for label in task.labels() if label.splits == ("train",)]
    place = {label.id: number for number, label in enumerate(labels)}
    timer = Timer(task.device)
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=task.batch_size,
            num_train_epochs=1,
            learning_rate=1e-5,
            lr_scheduler_type="constant",
            bf16=task.precision == "bfloat16",
            use_cpu=task.device == "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        arguments._n_gpu = 1  # else it splits batches over all GPUs
        kind = transformers.Trainer if ids is None else GivenTrainer
        trainer = kind(
            model=make_peer(task),
            args=arguments,
            train_dataset=Clips(task, labels),
            data_collator=Collator(task),
            callbacks=[timer],
        )
        if isinstance(trainer, GivenTrainer) and ids is not None:
            trainer.given = [[place[id] for id in step] for step in ids]
        trainer.remove_callback(transformers.PrinterCallback)  # standard output is the result's
        trainer.train()
    return timer


def peer_loss(task: TuneTask, ids: Sequence[str]) -> float:
    """Of a batch, before any step."""
    by_id = {label.id: label for label in task.labels()}
    clips = Clips(task, [by_id[id] for id in ids])
    inputs = Collator(task)([clips[n] for n in range(len(clips))])
    peer = make_peer(task).to(task.device).train()
    with torch.no_grad():
        return float(peer(**{k: v.to(task.device) for k, v in inputs.items()})["loss"])
