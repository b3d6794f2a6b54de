"""A hidden state of a stacked cache is read as a cache of that state alone would be."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features.backbone.entry import backbone_entry
from features.backbone.siblings import sibling_of_layer
from features.cache.reader import Access, CacheReader
from features.cache.shard import shard_name
from features.cache.writer import CacheWriter
from features.errors import ParamsError
from features.files.reasons import REJECTED, write_reasons
from features.files.records import write_json, write_rows
from features.stream import StreamSpec
from pipeline.cached.resident import placed, release
from pipeline.cached.run import train_model
from pipeline.data.examples import join
from pipeline.data.layer_views import open_cache, place_of
from pipeline.model.inputs import InputSettings
from pipeline.params.file import Params, all_problems
from tests.pipeline.training.test_loop import CLASSES, labels_of

WIDTH, DEPTH = 4, 5
HELD = [0, 2, 5]
LABELS = labels_of(folds=1)


def write(folder: Path, numbers: int | Sequence[int], dtype: str = "float16") -> Path:
    """Features of some hidden states, of which number 2 tells the classes apart."""
    several = [numbers] if isinstance(numbers, int) else list(numbers)
    spec = StreamSpec(WIDTH * len(several), hop_seconds=0.02, layers=len(several))
    stored: Any = numbers if isinstance(numbers, int) else several
    writer = CacheWriter(spec=spec, provenance={"layer": stored, "depth": DEPTH}, dtype=dtype)
    rows = []
    for label in LABELS:
        length = 1 + int(label.id[1:]) % 5
        states = []
        for number in several:
            random = np.random.default_rng([int(label.id[1:]), number])
            state = random.normal(size=(length, WIDTH))
            state[:, CLASSES.index(label.class_name)] += 3 * (number == 2)
            states.append(state)
        rows.append(writer.round(label.id, "c", np.concatenate(states, 1).astype(np.float32)))
    folder.mkdir(parents=True)
    for number, part in enumerate((rows[:20], rows[20:])):
        writer.write(folder / shard_name(number), part)
    write_reasons(folder / REJECTED, {})
    return folder


@pytest.mark.parametrize("access", ["map", "read"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_and_batches_are_those_of_the_state_alone(
    access: Access, dtype: str, tmp_path: Path
) -> None:
    stack = CacheReader(write(tmp_path / "stack", HELD, dtype), access=access)
    ids = [label.id for label in LABELS[15:25]]
    for place, number in enumerate(HELD):
        alone = CacheReader(write(tmp_path / f"alone{number}", number, dtype), access=access)
        view = stack.one_layer(place)
        assert view.spec == alone.spec
        assert list(view) == list(alone)
        for id in ids:
            assert np.array_equal(view[id], alone[id])
            assert view[id].dtype == alone[id].dtype
            assert view.length(id) == alone.length(id)
        for kind in (None, torch.float16):
            found, expected = view.batch(ids, dtype=kind), alone.batch(ids, dtype=kind)
            assert torch.equal(found.values, expected.values)
            assert torch.equal(found.mask, expected.mask)
    assert stack.spec.dim == WIDTH * len(HELD)  # as before


def test_two_states_of_one_cache_are_two_copies_on_a_device(tmp_path: Path) -> None:
    folder = write(tmp_path / "stack", HELD)
    layers = {"speech": 0, "nonverbal": 5}
    examples = join({"speech": folder, "nonverbal": folder}, LABELS, CLASSES, layers=layers)
    there = placed(examples, "meta:0", part=0.0)  # without a share it reads the caches
    there = dataclasses.replace(there, ahead=False, pinned=False)
    expected = there.batch(LABELS[:4])
    copied = placed(dataclasses.replace(examples), "cpu", part=0.5).batch(LABELS[:4])
    release()
    for slot in layers:
        assert torch.equal(copied.streams[slot].values, expected.streams[slot].values)
    assert not torch.equal(expected.streams["speech"].values, expected.streams["nonverbal"].values)


def test_numbers_are_those_of_the_network() -> None:
    stack = {"layer": HELD, "depth": DEPTH}
    assert [place_of(n, stack, "speech", "x") for n in (0, 2, 5, -1, -4)] == [0, 1, 2, 2, 1]
    alone = {"layer": 2, "depth": DEPTH}
    assert place_of(2, alone, "speech", "x") is None
    assert place_of(-4, alone, "speech", "x") is None


@pytest.mark.parametrize(
    ("number", "provenance", "words"),
    [
        (3, {"layer": HELD, "depth": DEPTH}, r"given 3, and x holds \[0, 2, 5\] of .* 0 to 5"),
        (-9, {"layer": HELD, "depth": DEPTH}, r"given -9, and x holds"),
        (3, {"layer": 2, "depth": DEPTH}, r"given 3, and x holds \[2\]"),
        (3, {"estimator": "WORLD"}, r"given 3, and x holds no hidden states with numbers"),
    ],
)
def test_a_state_that_is_not_there_is_refused(
    number: int, provenance: dict[str, Any], words: str
) -> None:
    with pytest.raises(ParamsError, match=rf"inputs.layer.speech: {words}"):
        place_of(number, provenance, "speech", "x")


def test_an_entry_of_the_state_alone() -> None:
    stack = backbone_entry("x", {"kind": "whisper", "checkpoint": "c", "layer": "all"})
    assert sibling_of_layer(stack, 3, "here").options["layer"] == 3
    some = backbone_entry("x", {"kind": "whisper", "checkpoint": "c", "layer": [1, 2]})
    assert sibling_of_layer(some, 2, "here").options == {"checkpoint": "c", "layer": 2}
    assert sibling_of_layer(some, -1, "here").options["layer"] == -1  # the weights will say
    with pytest.raises(ParamsError, match=r"here: given 3 for backbone 'x', which has `layer: \["):
        sibling_of_layer(some, 3, "here")
    with pytest.raises(ParamsError, match="here: given 3 for backbone 't', which has no layers"):
        sibling_of_layer(backbone_entry("t", {"kind": "tone"}), 3, "here")


def params_of(inputs: dict[str, Any], **backbones: Any) -> Params:
    model = {"kind": "concat", "speech": "voice", "seeds": 1, "inputs": inputs}
    model |= {"args": {"d_model": 8}, "train": {"epochs": 2}}
    whisper = {"kind": "whisper", "checkpoint": "c/d", "layer": "all"}
    corpora = {"c": {"kind": "demo", "protocol": "official"}}
    entries = {"voice": whisper, "none": {}, **backbones}
    return Params("m", "cached", "c", None, {}, corpora, entries, {"m": model})


def test_params_are_checked_without_weights() -> None:
    given = {"layer": {"speech": 2, "text": 9}}  # an empty slot may be named
    assert all_problems(params_of(given)) == []
    listed = {"kind": "whisper", "checkpoint": "c/d", "layer": [0, 1]}
    (problem,) = all_problems(params_of(given, voice=listed))
    assert problem.startswith("models.m.inputs.layer.speech: given 2 for backbone 'voice'")
    (problem,) = all_problems(params_of({"layer": {"voice": 2}}))
    assert problem.startswith("models.m.inputs.layer: given")
    assert InputSettings.of(given).to_dict()["layer"] == given["layer"]
    assert "layer" not in InputSettings.of({"mix_layers": True}).to_dict()


def trained(folder: Path, numbers: int | list[int], inputs: dict[str, Any]) -> dict[str, bytes]:
    """Files of a training on features of some states."""
    (folder / "data/c/labels").mkdir(parents=True)
    write_rows(folder / "data/c/labels/labels.jsonl", LABELS)
    write_json(folder / "data/c/labels/card.json", {"classes": CLASSES, "folds": 1})
    write(folder / "cache/c/voice", numbers)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        out = folder / train_model(params_of(inputs), "m", "c", device="cpu", workers=1)
    found = {path.name: path.read_bytes() for path in (out / "seed_0/fold_0").iterdir()}
    assert f'"dim": {WIDTH}' in (out / "run.json").read_text()
    return found


def test_training_on_a_view_is_training_on_the_state_alone(tmp_path: Path) -> None:
    for inputs in ({}, {"mix_layers": True, "standardize": ["speech"]}):
        name = "".join(inputs)
        alone = trained(tmp_path / f"alone{name}", 2, inputs)
        view = trained(tmp_path / f"view{name}", HELD, inputs | {"layer": {"speech": 2}})
        del alone["model.json"], view["model.json"]  # which says how its inputs were read
        assert alone == view


def test_a_cache_opened_without_a_choice_is_the_stack(tmp_path: Path) -> None:
    folder = write(tmp_path / "stack", HELD)
    for layers in (None, {}, {"text": 2}):
        assert open_cache(folder, "speech", layers).spec.layers == len(HELD)
