"""Windows of long recordings: where they lie, how they are joined, what their settings must be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given

from features.backbone.base import Backbone, Inputs, Pooling, Reads, padded_seconds
from features.backbone.entry import BackboneEntry, backbone_entry, backbone_problems
from features.backbone.windows import Window, Windowed
from features.corpus.utterance import Utterance
from features.errors import ParamsError
from features.files.reading import file_sha256
from features.stream import Stream, StreamSpec
from tests.conftest import ManifestMaker

WINDOWS = {"long": "window", "window_seconds": 2, "window_hop_seconds": 1.1}


def frames_of(backbone: Backbone, utterances: Sequence[Utterance]) -> list[torch.Tensor]:
    with torch.inference_mode():
        return backbone(backbone.prepare(utterances)).unpad()


class Numbered:
    """Gives the number in its recording of each frame, as a network with a reach of 25 ms does."""

    reads: Reads = "audio"
    trainable = False
    spec = StreamSpec(dim=1, hop_seconds=0.02)

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        begins = [u.part[0] if isinstance(u, Window) else 0 for u in utterances]
        lengths = [round((u.seconds or 0) * 16_000) for u in utterances]
        tensors = {"begins": torch.tensor(begins), "lengths": torch.tensor(lengths)}
        return Inputs.of(utterances, **tensors)

    def __call__(self, inputs: Inputs) -> Stream:
        first = (inputs.tensors["begins"] / 320).tolist()
        counts = ((inputs.tensors["lengths"] - 400) // 320 + 1).tolist()
        pairs = zip(first, counts, strict=True)
        return Stream.pad([at + torch.arange(float(count))[:, None] for at, count in pairs])

    def provenance(self) -> dict[str, Any]:
        return {}


@given(
    length=st.integers(16_000, 40 * 16_000),
    window=st.floats(1, 12),
    hop=st.floats(0.1, 1),
)
def test_joined_frames_are_those_of_the_whole_each_from_the_nearest_window(
    length: int, window: float, hop: float
) -> None:
    windowed = Windowed(Numbered(), window, min(window * hop, window - 0.08))
    utterance = Utterance("a", audio="a.wav", seconds=length / 16_000)
    pieces = windowed.pieces(utterance)
    (found,) = frames_of(windowed, [utterance])
    assert found[:, 0].tolist() == list(range((length - 400) // 320 + 1))
    assert (len(pieces) > 1) == (length / 16_000 > window)
    if len(pieces) == 1:
        return
    windows = [piece for piece in pieces if isinstance(piece, Window)]
    assert [w.last for w in windows] == [False] * (len(windows) - 1) + [True]
    lengths = {(length if w.part[1] is None else w.part[1]) - w.part[0] for w in windows}
    assert max(lengths) <= window * 16_000 + 1
    assert max(lengths) - min(lengths) <= 320
    middles = np.array([w.part[0] / 320 + max(lengths) / 640 for w in windows])
    for w, middle in zip(windows, middles, strict=True):
        first, stop = w.kept
        for local in (first, first if stop is None else stop - 1):
            frame = w.part[0] // 320 + local
            assert abs(frame - middle) <= np.abs(frame - middles).min() + 1


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 44_100])
@pytest.mark.parametrize("pooling", ["frames", "mean", "first", "mean_std"])
@pytest.mark.parametrize(
    "options", [{"kind": "tone"}, {"kind": "logmel"}, {"kind": "logmel", "hop": 147}]
)
def test_windowed_is_whole_for_features_that_depend_on_nothing_far_away(
    tmp_path: Any, rate_hz: int, pooling: Pooling, options: dict[str, Any]
) -> None:
    """Resampled recordings and spans of them too."""
    path = tmp_path / "noise.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 6 * rate_hz), rate_hz)
    all_of_it = Utterance("a", audio=str(path), sha256=file_sha256(path), seconds=6.0)
    spans = ((1.3, 4.71), (1.3, 2.7))
    parts = (replace(all_of_it, start=a, stop=b, seconds=b - a) for a, b in spans)
    utterances = [all_of_it, *parts]
    entry = {**options, "pooling": pooling}
    whole, windowed = (backbone_entry("x", entry | more).build() for more in ({}, WINDOWS))
    assert windowed.spec == whole.spec
    for found, expected in zip(
        frames_of(windowed, utterances), frames_of(whole, utterances), strict=True
    ):
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("method", ["harvest", "dio"])
def test_pitch_differs_near_joints_alone(make_manifest: ManifestMaker, method: str) -> None:
    (utterance,) = make_manifest([6.0])
    entry = {"kind": "f0", "method": method}
    whole, windowed = (
        frames_of(backbone_entry("x", entry | more).build(), [utterance])[0].numpy()
        for more in ({}, WINDOWS)
    )
    assert whole.shape == windowed.shape
    assert np.abs(whole - windowed).max() <= 2
    assert (whole != windowed).mean() < 0.05


def test_a_window_may_give_its_mean_alone(make_manifest: ManifestMaker) -> None:
    long, short = make_manifest([5.0, 1.0])
    tone = backbone_entry("x", {"kind": "tone"}).build()
    means = backbone_entry("x", {"kind": "tone", **WINDOWS, "window_pooling": "mean"}).build()
    assert means.spec == StreamSpec(dim=8)
    found, alone = frames_of(means, [long, short])
    (frames, own) = frames_of(tone, [long, short])
    starts = [0, 55, 110, 150]  # the last is moved back, to end with the recording
    expected = torch.stack([frames[start : start + 100].mean(0) for start in starts])
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(alone, own.mean(0, keepdim=True))


def test_short_recordings_are_prepared_as_without_windows(make_manifest: ManifestMaker) -> None:
    """To the bit, whatever the network does with them."""
    utterances = list(make_manifest([2.0, 0.4]))
    plain, windowed = (backbone_entry("x", {"kind": "tone", **m}).build() for m in ({}, WINDOWS))
    ours, theirs = windowed.prepare(utterances), plain.prepare(utterances)
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert all(torch.equal(ours.tensors[name], theirs.tensors[name]) for name in ours.tensors)


def test_a_batch_counts_all_windows(make_manifest: ManifestMaker) -> None:
    (long,) = make_manifest([5.0])
    assert padded_seconds(backbone_entry("x", {"kind": "tone", **WINDOWS}).build(), long) == 8.0


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (
            {"kind": "text_encoder", "checkpoint": "x", **WINDOWS},
            "expected a kind that reads audio",
        ),
        ({"kind": "none", **WINDOWS}, "expected a kind that reads audio"),
        ({"kind": "tone", "long": "chunk"}, "expected one of 'whole', 'window'"),
        ({"kind": "tone", "window_seconds": 9}, "given without `long: window`"),
        ({"kind": "tone", **WINDOWS, "window_seconds": 0.5}, "from 1 to 3600"),
        ({"kind": "tone", **WINDOWS, "window_hop_seconds": 0}, "from 0.1 to 3600"),
        ({"kind": "tone", **WINDOWS, "window_hop_seconds": 3}, "given 3 for windows of 2 s"),
        (
            {"kind": "tone", **WINDOWS, "window_pooling": "first"},
            "one of 'frames', 'mean'",
        ),
        ({"kind": "ced", "checkpoint": "x", "long": "window"}, "given 30 .* at most 10.12"),
        ({"kind": "whisper", "checkpoint": "x", **WINDOWS, "window_seconds": 31}, "at most 30,"),
        (
            {"kind": "whisper", "checkpoint": "x", "long": "cut"},
            "one of 'chunk', 'reject'",
        ),
    ],
)
def test_settings_that_cannot_be_meant(entry: dict[str, Any], reason: str) -> None:
    with pytest.raises(ParamsError, match=reason):
        backbone_entry("x", entry)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (
            {"kind": "tone", "window_hop_seconds": 2},
            "given 2 for windows of 2 s; expected at most 1.96",
        ),
        (
            {"kind": "f0", "window_pooling": "mean"},
            "bins cannot be pooled; set `window_pooling: frames`",
        ),
    ],
)
def test_windows_that_cannot_be_joined(more: dict[str, Any], reason: str) -> None:
    with pytest.raises(ParamsError, match=rf"backbones\.x: .*{reason}"):
        backbone_entry("x", {**WINDOWS, **more}).build()


def test_whisper_keeps_its_own_word_for_long_clips() -> None:
    assert not backbone_problems("x", {"kind": "whisper", "checkpoint": "y", "long": "reject"})
    own = backbone_entry("x", {"kind": "whisper", "checkpoint": "y", "long": "reject"})
    assert (own.long, own.options["long"]) == ("whole", "reject")
    ours = backbone_entry("x", {"kind": "whisper", "checkpoint": "y", "long": "window"})
    assert (ours.long, "long" in ours.options) == ("window", False)


def test_windows_are_part_of_the_key_and_their_absence_is_not() -> None:
    def recorded(**more: Any) -> tuple[BackboneEntry, dict[str, Any]]:
        entry = backbone_entry("x", {"kind": "tone", **more})
        return entry, entry.provenance(entry.build())

    (plain, without), (windowed, within) = recorded(), recorded(**WINDOWS)
    assert not {"long", "window_seconds"} & without.keys()
    assert within == without | WINDOWS | {"window_pooling": "frames"}
    names = {"long", "window_seconds", "window_hop_seconds", "window_pooling"}
    assert windowed.differences(without).keys() == plain.differences(within).keys() == names
    assert not windowed.differences(within)
    assert not plain.differences(without)
    other, _ = recorded(**WINDOWS, window_pooling="mean")
    assert other.differences(within) == {"window_pooling": ("frames", "mean")}
