"""Siblings: entries of one network that are finished in one pass, and when they are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from features.backbone.base import Inputs
from features.backbone.entry import BackboneEntry
from features.backbone.layers import LayerChoice, choose_layers
from features.backbone.siblings import settings_apart, share_weights
from features.backbones.tone import Tone
from features.cache.reader import CacheReader
from features.cache.writer import write_shard
from features.corpus.manifest import Manifest
from features.errors import CacheError, CheckpointError, MachineError
from features.extraction.extract import Extraction, Options, extract
from features.extraction.extractor import Extractor, Recipe
from features.extraction.output import Tally
from features.extraction.plan import ShardPlan, seconds_of
from features.stream import Stream
from tests.conftest import ManifestMaker
from tests.support.paths import contents_of

SECONDS = [0.5, 1.0, 0.3, 1.2, 0.8, 0.4, 0.9, 1.1]
DEPTH = 4


class Deep(Tone):
    """A network of layers, each twice the one before, in which a batch leaves its last bits."""

    calls: ClassVar[list[tuple[int, ...]]] = []  # states of each pass
    room = 1e9  # numbers of all states together that fit
    missing = -9  # layer without a checkpoint

    def __init__(self, *, dim: int = 4, layer: LayerChoice = -1) -> None:
        super().__init__(dim=dim)
        if layer == self.missing:
            raise CheckpointError("no such weights\nget them")
        self.layers = choose_layers(layer, DEPTH, "deep")
        self.network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(self.network.weight)
        self.spec = self.layers.spec(dim, hop_seconds=0.02)
        self.cpu_batch_seconds = 2.0

    def __call__(self, inputs: Inputs) -> Stream:
        wanted = self.layers if inputs.record is None else inputs.record.layers
        assert wanted is not None
        tones = super().__call__(inputs)

        def compute() -> dict[int, torch.Tensor]:
            Deep.calls.append(wanted.numbers)
            if len(wanted.numbers) * tones.values.numel() > self.room:
                raise torch.OutOfMemoryError("out of memory. Tried to allocate a lot")
            bits = 1 + len(inputs.ids) / 64
            return {n: tones.values * self.network.weight * bits * 2**n for n in wanted.numbers}

        return Stream(self.layers.pick(inputs.once(compute)), tones.mask)


def deep(name: str, **settings: Any) -> BackboneEntry:
    options = {"layer": settings.pop("layer")} if "layer" in settings else {}
    return BackboneEntry(name, "tone", options=options, **settings)


FIRST = deep("first", layer=1)
SIBLINGS = (deep("mean", layer=3, pooling="mean"), deep("two", layer=[2, 1], store_dtype="float32"))
ALL = (FIRST, *SIBLINGS)


@pytest.fixture(autouse=True)
def _deep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.backbones.tone.build", Deep)
    monkeypatch.setattr(Deep, "calls", [])


def separate(manifest: Manifest, folder: Path, **options: Any) -> dict[str, dict[str, bytes]]:
    """Bytes of each entry, extracted by itself into a store of its own."""
    found = {}
    for entry in ALL:
        out = folder / "separate" / entry.name
        extract(manifest, entry, out, store=folder / "alone", options=Options(**options))
        found[entry.name] = contents_of(out)
    Deep.calls.clear()
    return found


def linked(manifest: Manifest, folder: Path, **options: Any) -> dict[str, dict[str, bytes]]:
    """Bytes of each entry from a store that has all of them: nothing is computed."""
    found = {}
    for entry in ALL:
        out = folder / "linked" / entry.name
        done = extract(manifest, entry, out, store=folder / "store", options=Options(**options))
        assert (done.computed, done.copied, done.failed) == (0, 0, 0)
        found[entry.name] = contents_of(out)
    return found


def together(manifest: Manifest, folder: Path, **options: Any) -> tuple[Extraction, list[str]]:
    notes: list[str] = []
    given = Options(**{"siblings": SIBLINGS, "note": notes.append, **options})
    done = extract(manifest, FIRST, folder / "out", store=folder / "store", options=given)
    return done, notes


@pytest.mark.parametrize("options", [{}, {"batch_seconds": 3.0}, {"workers": 1}])
def test_one_pass_a_batch_seals_all(
    options: dict[str, Any], make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    manifest = make_manifest(SECONDS)
    expected = separate(manifest, tmp_path, **options)
    done, notes = together(manifest, tmp_path, **options)
    assert done.computed == len(SECONDS)  # of the entry itself
    assert set(Deep.calls) == {(1, 2, 3)}
    assert [note.split(", ")[0] for note in notes] == [
        "in the same pass: mean",
        "in the same pass: two",
    ]
    passes = len(Deep.calls)
    assert linked(manifest, tmp_path, **options) == expected
    assert len(Deep.calls) == passes


@pytest.mark.parametrize("room", [1000, 400])
def test_what_does_not_fit_with_all_states_is_cut_as_alone(
    room: int, make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second has 200 numbers a state; 400 takes one clip of it with two states, not three."""
    manifest = make_manifest([1.0] * 4 + [0.5] * 4 + [0.25] * 8, shard_seconds=4.0)
    monkeypatch.setattr(Deep, "room", room)
    options: dict[str, Any] = {"batch_seconds": 6.0}
    expected = separate(manifest, tmp_path, **options)
    together(manifest, tmp_path, **options)
    assert {len(call) for call in Deep.calls} == {1, 2, 3}
    assert linked(manifest, tmp_path, **options) == expected


@pytest.mark.slow
def test_devices_and_parts_seal_all(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    manifest = make_manifest(SECONDS)
    expected = separate(manifest, tmp_path)
    for number in range(2):
        together(manifest, tmp_path, part=(number, 2))
    assert linked(manifest, tmp_path) == expected


def test_processes_know_the_siblings(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real tone, since a process would not have the one of this test."""
    monkeypatch.setattr("features.backbones.tone.build", Tone)
    manifest, entry = make_manifest(SECONDS), deep("first")
    sibling = deep("mean", pooling="mean")
    options = Options(devices=("cpu", "cpu"), siblings=(sibling,))
    extract(manifest, entry, tmp_path / "out", store=tmp_path / "store", options=options)
    assert extract(manifest, sibling, tmp_path / "mean", store=tmp_path / "store").computed == 0
    extract(manifest, sibling, tmp_path / "alone", store=tmp_path / "other")
    assert contents_of(tmp_path / "mean") == contents_of(tmp_path / "alone")


@pytest.mark.parametrize("written", [1, 2, 4, 6])
def test_what_was_interrupted_is_taken_up(
    written: int, make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever shards of whichever entries were finished; what is left computes itself."""
    manifest, calls = make_manifest(SECONDS), 0
    expected = separate(manifest, tmp_path)

    def stop(*args: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > written:
            raise OSError(28, "No space left on device")
        write_shard(*args, **options)

    with monkeypatch.context() as full:
        full.setattr("features.cache.writer.write_shard", stop)
        with pytest.raises(MachineError):
            together(manifest, tmp_path)
    together(manifest, tmp_path)
    for entry in ALL:
        out = tmp_path / entry.name
        extract(manifest, entry, out, store=tmp_path / "store")
        assert contents_of(out) == expected[entry.name]


def test_a_sibling_with_other_rows_is_left_to_itself(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    """It has some of them from another plan, and so would form other batches."""
    manifest = make_manifest(SECONDS)
    part = dataclasses.replace(manifest, utterances=manifest.utterances[:1])
    mean = SIBLINGS[0]
    for store in ("store", "alone"):
        extract(part, mean, tmp_path / "part", store=tmp_path / store)
    extract(manifest, mean, tmp_path / "expected", store=tmp_path / "alone")
    together(manifest, tmp_path)
    done = extract(manifest, mean, tmp_path / "mean", store=tmp_path / "store")
    shards = CacheReader(tmp_path / "mean").shards
    assert 0 < done.computed < len(shards[0].ids)  # of the first shard alone
    assert contents_of(tmp_path / "mean") == contents_of(tmp_path / "expected")


def test_a_sibling_whose_shards_close_elsewhere_is_computed_by_itself(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    """`two` has four times the bytes of `first`, whose shards close by seconds as `mean`'s do."""
    manifest = dataclasses.replace(make_manifest(SECONDS), shard_bytes=1500)
    expected = separate(manifest, tmp_path)
    _, notes = together(manifest, tmp_path)
    apart = "its shards close elsewhere, by their bytes (`shard_bytes` of the corpus)"
    assert notes == ["in the same pass: mean, about 64 B", f"not in the same pass: two: {apart}"]
    Deep.calls.clear()
    for entry in ALL:
        out = tmp_path / "again" / entry.name
        extract(manifest, entry, out, store=tmp_path / "store")
        assert contents_of(out) == expected[entry.name]


def test_values_that_a_sibling_cannot_store_are_rejected_there_alone(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, big = make_manifest(SECONDS), deep("big", layer=4)
    monkeypatch.setattr(torch.nn.init, "ones_", lambda weight: weight.data.fill_(500.0))
    done, _ = together(manifest, tmp_path, siblings=(big,))
    assert not done.rejected
    shards = []
    for store in ("store", "alone"):
        with pytest.raises(CacheError, match=r"all 8 utterances .* set `store_dtype: float…`"):
            extract(manifest, big, tmp_path / "big", store=tmp_path / store)
        folder = Extractor(Recipe(big, tmp_path / store)).store.folder
        shards.append({path.name: path.read_bytes() for path in folder.glob("*.h5")})
    assert len(shards[0]) == len(ShardPlan.of(manifest, "audio", None))
    assert shards[0] == shards[1]


def test_who_is_left_out_is_said_and_stops_nothing(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_manifest(SECONDS[:3])
    monkeypatch.setattr(Deep, "missing", 2)
    mean, two = SIBLINGS
    others = (deep("gone", layer=2), deep("same", layer=1), mean, two)
    store = Extractor(Recipe(mean, tmp_path / "store")).store
    with store.locked() as held:
        assert held
        done, notes = together(manifest, tmp_path, siblings=others)
    assert done.computed == 3
    assert notes[0].startswith("in the same pass: two, about ")
    assert set(notes[1:]) == {
        "not in the same pass: gone: no such weights",
        "not in the same pass: same: its features are those of another entry of this pass",
        "not in the same pass: mean: another process extracts it",
    }
    _, notes = together(manifest, tmp_path)  # nothing is left to do for the entry
    assert notes == []


def test_settings_in_which_siblings_may_differ() -> None:
    assert settings_apart(FIRST, SIBLINGS[0]) == {}
    assert settings_apart(FIRST, SIBLINGS[1]) == {}
    window = deep("w", long="window", layer=1)
    assert set(settings_apart(FIRST, window)) == {"long: window"}
    assert settings_apart(window, dataclasses.replace(window, pooling="mean")) == {}
    other = dataclasses.replace(FIRST, version=2, compute_dtype="bfloat16")
    assert settings_apart(FIRST, other) == {
        "version": (1, 2),
        "compute_dtype": ("float32", "bfloat16"),
    }
    assert set(settings_apart(FIRST, BackboneEntry("w", "logmel"))) == {"kind"}


def test_weights_are_held_once_and_others_refused() -> None:
    one, two = Deep(layer=1), Deep(layer=2)
    known: dict[str, torch.nn.Parameter] = {}
    assert share_weights(one, known)
    assert share_weights(two, known)
    assert two.network.weight is one.network.weight
    three = Deep(layer=3)
    three.network.weight.data.fill_(2.0)
    kept: Sequence[Any] = [three.network.weight]
    assert not share_weights(three, known)
    assert three.network.weight is kept[0]


def test_counts_are_those_of_the_entry(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    plan = ShardPlan.of(make_manifest(SECONDS), "audio", None)
    extractor, tally = Extractor(Recipe(FIRST, tmp_path)), Tally()
    assert extractor.take_along(SIBLINGS) == {}
    assert sum(extractor.run(plan, tally, seconds=seconds_of(plan))) == len(SECONDS)
    assert tally.computed == len(SECONDS)
    assert tally.seconds == pytest.approx(sum(SECONDS))
