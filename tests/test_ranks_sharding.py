"""Which networks are cut block by block where each process holds a part; that changes nothing."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
import warnings
from pathlib import Path

import pytest

from features.backbone_entry import backbone_entry
from pipeline.finetune import finetune_model
from pipeline.ranks_launch import LAUNCH
from pipeline.ranks_sharding import hold_to_one_pass
from tests.checkpoints import emotion2vec, speech_encoder, whisper
from tests.launched import (
    ACCELERATE,
    CLOSE,
    STAGE,
    begin,
    difference,
    ended,
    small_params,
    table,
    without_dropout,
)
from tests.tuned_tones import RUN

FSDP = shlex.join([*ACCELERATE, "--use_fsdp", "--fsdp_version=2"])
KINDS = {
    "emotion": ("emotion2vec", emotion2vec.VARIANTS["wrapped"]),
    "window": ("whisper", whisper.VARIANTS["mel80"]),
    "trim": ("whisper", whisper.VARIANTS["trim"]),
}


@pytest.mark.parametrize("name", KINDS)
def test_blocks_of_masked_networks_are_cut(name: str, tmp_path: Path) -> None:
    kind, write = KINDS[name]
    assert hold_to_one_pass(backbone_entry(name, {"kind": kind, **write(tmp_path)}).build())


def test_a_network_that_is_called_once_a_length_keeps_its_blocks(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = speech_encoder.VARIANTS["data2vec"](tmp_path)
    entry = backbone_entry("sound", {"kind": "speech_encoder", **options, "pooling": "mean"})
    assert not hold_to_one_pass(entry.build())


@pytest.mark.slow
def test_emotion2vec_and_whisper_in_parts_show_the_loss_curve_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, private_store: Path
) -> None:
    """Both are cut at their blocks, where two processes of uneven shares meet."""
    params = small_params(tmp_path, monkeypatch, private_store)
    made = {name: {"kind": kind, **write(tmp_path / name)} for name, (kind, write) in KINDS.items()}
    params = without_dropout(params, tmp_path)
    slots = {"text": "none", "speech": "emotion", "nonverbal": "trim"}
    model = {**params.models["m"], **slots}
    model["train"] = {**model["train"], "epochs": 2}
    backbones = {**params.backbones, **made}
    params = dataclasses.replace(params, backbones=backbones, models={"m": model})
    finetune_model(params, "m", "mine", device="cpu")
    tables = {name: table(name) for name in ("history.csv", "predictions.csv", "conditions.csv")}
    status, said = ended(begin([sys.executable, *STAGE], params, **{LAUNCH: FSDP}))
    assert status == 0, said
    run = json.loads((RUN / "run.json").read_text())
    assert (run["processes"], run["sharded"]) == (2, True)
    for name, expected in tables.items():
        assert difference(table(name), expected) < CLOSE, name
