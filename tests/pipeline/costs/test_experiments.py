"""Costs of experiments: what they need, what is there, what it takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from features.backbone.entry import backbone_entry
from features.backbone.windows import Windowed
from features.errors import ParamsError
from pipeline.costs.cards import PEAKS, Speed, speed
from pipeline.costs.corpora import CorpusSize, corpus_size
from pipeline.costs.experiments import (
    STEP_SECONDS,
    Training,
    cost_lines,
    features_of,
    folds_of,
    training_of,
)
from pipeline.costs.features import Features, stream_of
from pipeline.costs.fusion import TURNS, operations_of_a_pass
from pipeline.costs.networks import NETWORKS, network_of
from pipeline.params.file import Params
from tests.pipeline.commands.test_check import params

HUBERT = {"kind": "speech_encoder", "checkpoint": "facebook/hubert-base-ls960"}
ROBERTA = {"kind": "text_encoder", "checkpoint": "FacebookAI/roberta-base"}
RAVDESS = CorpusSize(1440, 5400.0, 81000.0, prepared=False)


def of(name: str) -> CorpusSize | None:
    return RAVDESS if name == "ravdess" else None


def ravdess(**changes: Any) -> Params:
    base = {
        "corpus": "ravdess",
        "corpora": {"ravdess": {"protocol": "speaker_split"}},
        "backbones": {"hubert": HUBERT, "roberta": ROBERTA, "tone": {}, "none": {}},
        "models": {"m": {"kind": "concat", "speech": "hubert", "text": "roberta", "seeds": 2}},
    }
    return params(**(base | changes))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HERONRY_CARD", "HERONRY_UTILISATION"):
        monkeypatch.delenv(name, raising=False)


def entry(**settings: Any) -> Features:
    return Features("ravdess", backbone_entry("x", settings), RAVDESS)


def test_bytes_follow_rate_width_layers_dtype_and_pooling() -> None:
    frames = 5400 * 50
    assert entry(**HUBERT).bytes == frames * 768 * 2
    assert entry(**HUBERT, layer=[3, -1], store_dtype="float32").bytes == frames * 2 * 768 * 4
    assert entry(**HUBERT, layer="all").bytes == frames * 13 * 768 * 2
    assert entry(**HUBERT, pooling="mean").bytes == 1440 * 768 * 2
    assert entry(**HUBERT, pooling="mean_std").bytes == 1440 * 2 * 768 * 2
    assert entry(kind="ced", checkpoint="mispeech/ced-small").bytes == 5400 / 0.16 * 384 * 2
    assert entry(**ROBERTA).bytes == (81000 / 4.5 + 2 * 1440) * 768 * 2
    bins = {"kind": "f0", "method": "rmvpe", "checkpoint": "lj1995/VoiceConversionWebUI"}
    assert entry(**bins).bytes == frames * 2
    assert entry(**bins, values="log_hz", store_dtype="float32").bytes == frames * 2 * 4


def test_operations_follow_the_layers_that_are_computed() -> None:
    network = NETWORKS[HUBERT["checkpoint"]]
    whole, half = (entry(**HUBERT, layer=layer).operations for layer in (-1, 6))
    assert whole == network.operations(RAVDESS, 12)
    assert half == network.operations(RAVDESS, 6)
    assert entry(kind="tone").operations == 0
    unknown = entry(kind="speech_encoder", checkpoint="somebody/else")
    assert unknown.operations is None
    assert unknown.line(Speed()) == (
        "cache/ravdess/x: missing; bytes not known, GPU-hours not known"
    )


def test_windows_overlap_and_their_means_are_few() -> None:
    """As `Windowed` has it: the stream has no hop where windows are averaged."""
    hour = CorpusSize(1, 3600.0, 0.0)
    windows = {"long": "window", "window_seconds": 10.0, "window_hop_seconds": 5.0}
    long = dataclasses.replace(entry(**HUBERT, **windows), size=hour)
    # Twice as much to compute, and attention over 10 s instead of an hour.
    ten = CorpusSize(720, 7200.0, 0.0)
    assert long.operations == NETWORKS[HUBERT["checkpoint"]].operations(ten, 12)
    means = dataclasses.replace(entry(**HUBERT, **windows, window_pooling="mean"), size=hour)
    assert means.bytes == 720 * 768 * 2
    built = backbone_entry("tone", {"kind": "tone", **windows, "window_pooling": "mean"})
    real = built.build()
    assert isinstance(real, Windowed)
    assert stream_of(built, network_of(built)) == real.spec


def test_features_that_experiments_share_are_counted_once() -> None:
    one = ravdess()
    other = ravdess(models={"m": {"kind": "concat", "speech": "hubert"}})
    lines = cost_lines([one, other])
    assert lines[0].startswith("corpus ravdess: 1,440 utterances")
    assert [line.partition(":")[0] for line in lines[1:3]] == [
        "cache/ravdess/roberta",
        "cache/ravdess/hubert",
    ]
    assert lines[3].startswith("missing features: 2; ")
    assert lines[4].startswith("training, all epochs, seeds and folds of 2 experiments: ")
    assert "estimated" in lines[5]


def test_training_counts_epochs_seeds_folds_and_what_is_tuned() -> None:
    folds = {"ravdess": {"protocol": "speaker_folds", "folds": 6}}
    slots = {"text": {"tune": "frozen"}, "speech": {"tune": "full"}}
    cached = ravdess(corpora=folds, train={"epochs": 10, "batch_size": 8})
    tuned = dataclasses.replace(cached, regime="e2e", e2e={"slots": slots, "precision": "bfloat16"})
    networks = (NETWORKS[HUBERT["checkpoint"]], NETWORKS[ROBERTA["checkpoint"]])
    speech, text = (each.operations(RAVDESS, 12) for each in networks)
    fusion, live = training_of(cached, of), training_of(tuned, of)
    assert fusion.operations is not None
    assert live.operations is not None
    jobs = 10 * 2 * 6
    assert live.operations - fusion.operations == pytest.approx((3 * speech + text) * jobs)
    assert (fusion.dtype, live.dtype) == ("float32", "bfloat16")
    assert fusion.steps == live.steps == 1440 / 8 * jobs
    again = dataclasses.replace(tuned, e2e={**tuned.e2e, "gradient_checkpointing": True})
    more = training_of(again, of).operations
    assert more == pytest.approx(live.operations + speech * jobs)
    assert features_of(tuned, of) == []
    assert training_of(dataclasses.replace(tuned, corpus="demo"), of).operations is None


def test_a_small_fusion_takes_the_least_time_of_its_steps() -> None:
    small = Training(operations=1.0, steps=360_000)
    assert small.hours(Speed()) == pytest.approx(360_000 * STEP_SECONDS / 3600)
    assert Training(operations=None).hours(Speed()) is None


def test_operations_of_a_fusion_are_those_of_its_layers() -> None:
    """`concat` projects the means of two streams, and its classifier is as wide as its input."""
    args = {"d_model": 16, "hidden": 32}
    one = ravdess(
        models={"m": {"kind": "concat", "speech": "hubert", "text": "roberta", "args": args}}
    )
    operations, utterances = operations_of_a_pass(one, one.model("m"), "ravdess", RAVDESS) or (0, 0)
    assert operations == 2 * (2 * 768 * 16 + 32 * 32 + 32 * 8)
    assert utterances == 1
    means = {"h": {**HUBERT, "pooling": "mean"}, "r": {**ROBERTA, "pooling": "first"}}
    talk = ravdess(
        backbones={**means, "none": {}},
        models={"m": {"kind": "lpgnet", "speech": "h", "text": "r", "args": {"d_model": 16}}},
    )
    operations, turns = operations_of_a_pass(talk, talk.model("m"), "ravdess", RAVDESS) or (0, 0)
    assert turns == TURNS
    assert operations > 2 * 2 * 768 * 16 * TURNS


def test_what_is_no_model_is_not_counted() -> None:
    lines = cost_lines([dataclasses.replace(ravdess(), regime="ensemble", fusion="all")])
    assert [line.split()[0] for line in lines] == ["corpus", "GPU-hours"]


@pytest.mark.parametrize(
    ("entry", "folds"),
    [
        ({"protocol": "speaker_split"}, 1),
        ({"protocol": "speaker_folds", "folds": 6}, 6),
        ({"protocol": "leave_one_speaker_out"}, 24),
        ({"protocol": "leave_one_speaker_out", "fold": 3}, 1),
    ],
)
def test_folds(entry: dict[str, Any], folds: int) -> None:
    assert folds_of(ravdess(corpora={"ravdess": entry})) == folds


def test_published_sizes_follow_the_label_map() -> None:
    corpora = {"iemocap": {"labels": "six_class", "protocol": "leave_one_session_out"}}
    six = corpus_size(ravdess(corpora=corpora), "iemocap")
    assert six is not None
    assert six.utterances == 7380
    assert six.seconds / six.utterances == pytest.approx(7.0 * 3600 / 5531)
    assert corpus_size(params(), "mine") is None
    assert corpus_size(params(), "misspelt") is None
    assert "no published counts" in cost_lines([params()])[0]


def test_a_union_is_as_large_as_its_members_together() -> None:
    corpora = {
        "ravdess": {"protocol": "leave_one_speaker_out"},
        "emodb": {"protocol": "speaker_split"},
        "both": {"kind": "union", "of": ["ravdess", "emodb"]},
        "part": {"kind": "union", "of": ["ravdess", "mine"]},
        "mine": {"kind": "manifest", "protocol": "speaker_split"},
    }
    union = ravdess(corpus="both", corpora=corpora)
    size = corpus_size(union, "both")
    assert size is not None
    assert (size.utterances, size.prepared) == (1440 + 535, False)
    assert size.seconds == pytest.approx((1.5 + 0.4) * 3600)
    assert folds_of(union) == 24
    assert corpus_size(union, "part") is None


def test_card_and_utilisation_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert speed() == Speed("a100", 0.4)
    monkeypatch.setenv("HERONRY_CARD", "rtx_a6000")
    monkeypatch.setenv("HERONRY_UTILISATION", "0.25")
    assert speed().hours(PEAKS["rtx_a6000"][0] * 1e12 * 900, "float32") == pytest.approx(1.0)
    monkeypatch.setenv("HERONRY_UTILISATION", "40%")
    with pytest.raises(ParamsError, match="a share of the card's peak"):
        speed()
    monkeypatch.setenv("HERONRY_CARD", "a6000")
    with pytest.raises(ParamsError, match="rtx_a6000"):
        speed()
