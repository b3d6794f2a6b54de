"""Live utterances: in order, in batches of bounded length, without those that cannot be read."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from features.audio import torchaudio_cpu  # noqa: F401  transformers imports torchaudio
from features.backbone.base import Inputs
from features.corpus.manifest import Label
from features.corpus.utterance import Utterance
from features.errors import CacheError, HeronryError, ManifestError
from features.stream import StreamSpec
from pipeline.data.batching import batch_count, ordered_batches, shuffled_batches
from pipeline.data.examples import Examples
from pipeline.e2e.source import LiveExamples
from pipeline.model.batch import Batch
from tests.conftest import ManifestMaker
from tests.support.models.small_live import CLASSES, cached_of, entry_of, labels_of, live_of

SECONDS = [0.3, 1.2, 0.5, 0.31, 0.7, 0.4, 0.9, 0.35]


class Slow:
    """Waits the longer the earlier the utterance comes."""

    reads, trainable, spec = "audio", False, StreamSpec(1)

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        first = int(utterances[0].id[1:])
        time.sleep(0.02 / (first + 1))
        numbers = torch.tensor([float(u.id[1:]) for u in utterances])
        return Inputs(tuple(u.id for u in utterances), {"x": numbers})


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_come_in_order_whatever_the_threads(
    threads: int, make_manifest: ManifestMaker
) -> None:
    live = live_of(make_manifest(SECONDS), {"speech": Slow()}, threads=threads, batch_size=2)
    batches = list(shuffled_batches(live, live.labels, 2, np.random.default_rng(0)))
    alone = live_of(make_manifest(SECONDS), {"speech": Slow()}, batch_size=2)
    again = list(shuffled_batches(alone, alone.labels, 2, np.random.default_rng(0)))
    assert [batch.ids for batch in batches] == [batch.ids for batch in again]
    assert sorted(id for batch in batches for id in batch.ids) == [u.id for u in live.labels]
    for batch in batches:
        assert batch.inputs["speech"].ids == batch.ids
        assert batch.inputs["speech"].tensors["x"].tolist() == [int(id[1:]) for id in batch.ids]


def test_a_batch_closes_at_its_seconds(make_manifest: ManifestMaker) -> None:
    """Padded: as many utterances as times the longest fits; one that is too long comes alone."""
    live = live_of(make_manifest(SECONDS), {"speech": Slow()}, batch_seconds=1.0)
    sizes = []
    for places, batch in ordered_batches(live, live.labels, 64):
        seconds = [SECONDS[int(id[1:])] for id in batch.ids]
        assert len(seconds) == 1 or len(seconds) * max(seconds) <= 1.0
        assert [live.labels[place].id for place in places] == list(batch.ids)
        sizes.append(len(seconds))
    assert sizes == [2, 2, 1, 1, 1, 1]  # 0.3 0.31, 0.35 0.4, 0.5, ...
    assert batch_count(live, live.labels, 64) == len(sizes)
    assert live.typical_rows(64) == round(1.0 / np.mean(SECONDS))


class Silent(Slow):
    """Reads nothing."""

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        return Inputs(tuple(u.id for u in utterances), {"x": torch.zeros(len(utterances))})


@given(
    st.lists(st.floats(0.1, 30.0), min_size=1, max_size=60),
    st.integers(1, 9),
    st.none() | st.floats(1.0, 200.0),
)
def test_no_batch_takes_more_than_random_rows_may(
    seconds: list[float], size: int, limit: float | None
) -> None:
    """Activations grow with padded seconds: those of a batch that holds the longest clip bound all.

    That is what batches of `size` in random order come to, sooner or later. A limit that is less
    bounds them by itself, except that the longest clip comes alone.
    """
    rows = [Utterance(f"u{n}", "x.wav", seconds=each) for n, each in enumerate(seconds)]
    labels = [Label(u.id, CLASSES[0], "s", splits=("train",)) for u in rows]
    cached = Examples({}, labels, CLASSES, {})
    silent: Any = {"speech": Silent()}
    live = LiveExamples(cached, silent, {u.id: u for u in rows}, size, limit)
    bound = size * max(seconds) if limit is None else max(limit, max(seconds))
    generator = np.random.default_rng(0)
    for batch in shuffled_batches(live, labels, size, generator):
        own = [seconds[int(id[1:])] for id in batch.ids]
        assert len(own) * max(own) <= bound * (1 + 1e-12)


def test_seconds_of_dialogues_are_those_of_all_turns(make_manifest: ManifestMaker) -> None:
    live = live_of(make_manifest([0.2] * 8), {"speech": Slow()}, batch_seconds=1.3)
    rows = [live.labels[0:3], live.labels[3:6], live.labels[6:8]]
    assert live.batch_sizes(rows, 99) == [2, 1]


def test_without_seconds_a_batch_has_a_number_of_rows(make_manifest: ManifestMaker) -> None:
    live = live_of(make_manifest(SECONDS), {"speech": Slow()}, batch_size=3)
    assert live.typical_rows(64) == 3
    assert [len(batch.ids) for _, batch in ordered_batches(live, live.labels, 64)] == [3, 3, 2]


def test_what_cannot_be_read_is_left_out_with_its_reasons(
    tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    """Too short for the network, without text: both are said; files that are gone stop all."""
    made = make_manifest(SECONDS)
    blip, mute = dataclasses.replace(make_manifest([0.01], start=90)[0], text=None), made[2]
    rows = (*made.utterances, blip, dataclasses.replace(mute, id="mute", text=None))
    manifest = dataclasses.replace(made, utterances=rows)
    backbones = {
        "text": entry_of("bert", tmp_path).build(),
        "speech": entry_of("hubert_group", tmp_path).build(),
    }
    usable = live_of(manifest, backbones, threads=2).usable()
    assert [label.id for label in usable.labels] == [u.id for u in made]
    assert usable.dropped["mute"] == {"text": "has no text"}
    assert usable.dropped["u90"]["text"] == "has no text"
    assert usable.dropped["u90"]["speech"].startswith("has 160 samples")
    assert len(usable.batch(usable.labels).inputs["speech"].ids) == len(SECONDS)
    assert made[0].audio is not None
    Path(made[0].audio).unlink()
    with pytest.raises(HeronryError, match=r"u0"):
        live_of(made, backbones).usable()


def test_what_a_cache_lacks_stays_left_out(make_manifest: ManifestMaker) -> None:
    manifest = make_manifest(SECONDS)
    cached = Examples({}, labels_of(manifest)[1:], CLASSES, {"u0": {"prosody": "no voice"}})
    usable = live_of(manifest, {"speech": Slow()}, cached).usable()
    assert dict(usable.dropped) == {"u0": {"prosody": "no voice"}}


def test_a_label_needs_its_utterance(make_manifest: ManifestMaker) -> None:
    manifest = make_manifest(SECONDS)
    live = live_of(manifest, {"speech": Slow()})
    fewer = {id: utterance for id, utterance in live.utterances.items() if id != "u3"}
    with pytest.raises(ManifestError, match=r"1 labels .*\['u3'\].*dvc repro"):
        dataclasses.replace(live, utterances=fewer).usable()


def test_other_slots_come_from_caches(
    tmp_path: Path, private_store: Path, make_manifest: ManifestMaker
) -> None:
    manifest = make_manifest(SECONDS[:4])
    entry = entry_of("whisper", tmp_path)
    cached = cached_of(manifest, {"prosody": entry}, tmp_path, private_store, "float32")
    live = live_of(manifest, {"speech": Slow()}, cached)
    assert list(live.specs) == ["speech", "prosody"]
    batch = live.batch(live.labels)
    assert set(batch.streams) == {"prosody"}
    assert set(batch.inputs) == {"speech"}
    moved: Batch = batch.to("cpu")
    assert torch.equal(moved.inputs["speech"].tensors["x"], torch.arange(4.0))
    with pytest.raises(CacheError, match="split 'test'"):
        live.split(0, "test")
