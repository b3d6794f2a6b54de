"""Recipes on the demo corpus: every machine can run them, and what stands in is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from features.backbone.entry import backbone_problems
from features.corpus.entry import corpus_problems
from features.errors import ParamsError
from pipeline.params.file import Params, model_problems, own_problems
from pipeline.params.recipes import (
    Recipe,
    Row,
    lacking_entries,
    merged,
    read_recipe,
    recipe_names,
)
from pipeline.params.stand_ins import UTTERANCES, on_demo
from tests.support.known_params import known_raw, shipped_raw
from tests.support.paths import ROOT

RAW = known_raw()


def recipe(*rows: Row) -> Recipe:
    return Recipe("r", {}, rows, several=True)


def model_of(row: Row) -> dict[str, Any]:
    """The entry of `models` that a row selects, with its settings."""
    fusion = row.settings["fusion"]
    return dict(merged(RAW["models"][fusion], row.settings.get("models", {}).get(fusion, {})))


@pytest.mark.parametrize("name", recipe_names(ROOT / "recipes"))
def test_every_recipe_needs_no_weights_from_elsewhere(name: str) -> None:
    given = read_recipe(name, ROOT / "recipes")
    made = on_demo(given, shipped_raw())
    assert made.name == f"{name}-demo"
    for before, row in zip(given.rows, made.rows, strict=True):
        raw = merged(RAW, row.settings)
        params, model, fusion = Params(**raw), model_of(row), row.settings["fusion"]
        wrong = own_problems(params) + model_problems(params, fusion, model)
        slots = params.model(fusion).slots
        for backbone in {*slots.values()} - {"none"}:
            entry = raw["backbones"][backbone]
            assert "package" in entry or "checkpoint" not in entry
            wrong += backbone_problems(backbone, entry)
        assert wrong + corpus_problems("demo", raw["corpora"]["demo"]) == []
        assert (raw["corpus"], raw["seeds"]) == ("demo", 1)
        assert raw["corpora"]["demo"]["utterances"] == UTTERANCES
        # What does not run where it was has gone, and is named; nothing else is.
        asked = merged(RAW["models"][fusion], before.settings.get("models", {}).get(fusion, {}))
        gone = {slot: asked[slot] for slot in slots if asked[slot] != slots[slot]}
        named = model.get("stand_ins", {})
        assert set(named) == set(gone)
        assert all(gone[slot] in named[slot] for slot in gone)
        assert (before.published, before.label) == (row.published, row.label)


def test_rows_that_differ_in_gone_backbones_alone_are_one() -> None:
    given = read_recipe("mdat_encoders", ROOT / "recipes")
    first, *others = on_demo(given, RAW).experiments
    assert all(each == first for each in others)
    encoders = [f"{name}_large" for name in ("wav2vec2", "hubert", "wavlm")]
    stand_ins = first["models"]["mdat_paper"]["stand_ins"]
    assert stand_ins == {"speech": [*encoders, "xeus", "whisper_large_v3"]}
    for name in ("mdat_bins", "lpgnet_classes", "mdat_ced", "mdat_fusions", "lpgnet_main"):
        rows = on_demo(read_recipe(name, ROOT / "recipes"), RAW).experiments
        assert all(a != b for n, a in enumerate(rows) for b in rows[:n])


def test_settings_follow_the_slot_and_trainings_are_short() -> None:
    model = {"text": "bert", "prosody": "rmvpe_mdat", "args": {"heads": 2}}
    settings = {
        "fusion": "gat",
        "models": {"gat": model, "heron": {"text": "bert"}},
        "backbones": {"rmvpe_mdat": {"bins": 64}, "bert": {"pooling": "mean"}, "f0": {"bins": 32}},
        "corpora": {"iemocap": {"labels": "six_class"}},
        "train": {"epochs": 1, "lr": 0.1},
        "seeds": 5,
    }
    (row,) = on_demo(recipe(Row(settings, demo={"train": {"lr": 0.2}})), RAW).rows
    assert row.settings == {
        "fusion": "gat",
        "corpus": "demo",
        "seeds": 1,
        "models": {
            "gat": {
                "text": "minilm_mean",
                "prosody": "f0",
                "args": {"heads": 2},
                "stand_ins": {"text": ["bert"], "prosody": ["rmvpe_mdat"]},
            }
        },
        "backbones": {
            "whisper_tiny_en": {"pad": "trim"},
            "f0": {"bins": 64},
            "minilm_mean": {"pooling": "mean"},
        },
        "corpora": {"demo": {"utterances": UTTERANCES}},
        "train": {"epochs": 1, "lr": 0.2, "warmup_steps": 4},
    }


def test_what_cannot_be_put_on_the_demo_is_refused() -> None:
    other = {**RAW, "corpora": {"demo": {"kind": "manifest"}}}
    with pytest.raises(ParamsError, match=r"corpora.demo.kind: given 'manifest'; expected 'demo'"):
        on_demo(recipe(Row({})), other)
    with pytest.raises(ParamsError, match="recipes of entries of `models` alone"):
        on_demo(recipe(Row({"regime": "ensemble", "fusion": "votes"})), RAW)


def test_what_is_no_number_is_left_to_the_check_of_all_settings() -> None:
    """So is what params.yaml lacks."""
    odd = {"fusion": "heron", "train": {"epochs": "x", "warmup_steps": [1]}}
    (found,) = on_demo(recipe(Row(odd)), RAW).experiments
    assert found["train"] == odd["train"]
    lacking = {key: value for key, value in RAW.items() if key != "fusion"}
    made = on_demo(recipe(Row({})), lacking).experiments
    with pytest.raises(ParamsError, match="models: no entry 'None'"):
        lacking_entries(made, lacking)


def test_stand_ins_are_of_filled_slots() -> None:
    wrong = merged(RAW["models"]["gat"], {"stand_ins": {"nonverbal": ["voc2vec"]}})
    (found,) = model_problems(Params(**RAW), "gat", wrong)
    assert found.startswith("models.gat.stand_ins: given 'nonverbal'; expected a filled slot")
    assert replace(Row({}), demo={}) == Row({})
