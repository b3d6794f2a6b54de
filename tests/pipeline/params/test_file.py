"""params.yaml: precedence, YAML 1.2 scalars, and every mistake named at once."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from features.errors import ParamsError
from features.files.yaml_text import read_yaml
from features.settings.plugins import load
from pipeline.e2e.setup import live_entries
from pipeline.params.file import Params, all_problems, read_params
from pipeline.params.selection import selection_problems
from pipeline.params.siblings import siblings_of
from pipeline.params.training import TrainParams
from pipeline.storage.dvc_command import extract_stage
from tests.support.known_params import SHIPPED, known_params, known_raw
from tests.support.paths import ROOT


@pytest.fixture
def raw() -> dict[str, Any]:
    return known_raw()


def change(raw: dict[str, Any], path: str, value: Any) -> Params:
    raw = copy.deepcopy(raw)
    *folders, last = path.split(".")
    place = raw
    for folder in folders:
        place = place[folder]
    place[last] = value
    return Params(**raw)


def test_shipped_params_are_in_order() -> None:
    assert all_problems(read_params(SHIPPED)) == []
    assert all_problems(known_params()) == []


def test_shipped_protocol_of_heron_is_the_papers() -> None:
    params = read_params(SHIPPED)
    assert params.training(params.model("heron")) == TrainParams(
        epochs=20, batch_size=8, accumulate=2, lr=5e-5, monitor="weighted_f1", patience=5
    )


@pytest.mark.parametrize("name", known_params().models)
def test_known_args_are_all_of_the_constructors_keywords(name: str) -> None:
    """So that DVC, and the reader of the file, sees every hyper-parameter."""
    entry = known_params().model(name)
    parameters = inspect.signature(load("pipeline.fusion", entry.kind)).parameters.values()
    keywords = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    assert sorted(entry.args) == sorted(keywords)


def test_shipped_train_section_decides_nothing_and_the_keys_that_it_lacks_are_documented() -> None:
    train = read_params(SHIPPED).train
    assert list(train.values()) == [None] * len(train)
    keys = {field.name for field in dataclasses.fields(TrainParams)}
    assert train.keys() <= keys
    pages = ("targets", "training")
    text = "".join((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in pages)
    documented = (f"| `{key}` |" in text or f"`train.{key}`" in text for key in keys - train.keys())
    assert all(documented)


def test_concat_and_heron_share_their_slots() -> None:
    """So that `-S fusion=concat` extracts nothing."""
    params = read_params(SHIPPED)
    assert params.model("concat").slots == params.model("heron").slots


def test_global_train_wins_over_the_models(raw: dict[str, Any]) -> None:
    params = change(raw, "train.lr", 0.5)
    training = params.training(params.model("heron"))
    assert (training.lr, training.batch_size) == (0.5, 8)


def test_tuning_of_a_slot_is_the_sections_then_the_models_then_the_default(
    raw: dict[str, Any],
) -> None:
    params = change(raw, "models.heron.e2e", {"slots": {"speech": {"freeze_front_end": False}}})
    assert all_problems(params) == []
    tuning = params.tuning(params.model("heron"))
    assert not tuning.of("speech").freeze_front_end
    assert tuning.of("text").freeze_front_end
    assert params.tuning(params.model("concat")).of("speech").freeze_front_end
    # As a record of a run says it: no null where there is a default.
    usual = {"tune": "full", "freeze_front_end": True, "freeze_layers": 0, "lr": None}
    assert tuning.slots["text"] == usual
    wins = change(vars(params), "e2e.slots.speech.freeze_front_end", value=True)
    assert wins.tuning(wins.model("heron")).of("speech").freeze_front_end


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"precision": "bfloat16"}, "e2e.precision: given a setting of the section `e2e`; "),
        ({"slots": {"prosody": {}}}, "e2e.slots.prosody: given a slot that is read from its cache"),
        ({"slots": {"text": {"lr": -1}}}, "e2e.slots.text.lr: given -1"),
    ],
)
def test_a_models_tuning_is_checked(raw: dict[str, Any], value: Any, message: str) -> None:
    found = all_problems(change(raw, "models.heron.e2e", value))
    assert [line for line in found if line.startswith(f"models.heron.{message}")] == found
    assert found


def test_betas_of_yaml_are_those_of_the_default(raw: dict[str, Any]) -> None:
    params = change(raw, "train.betas", [0.9, 0.999])
    assert params.training(params.model("heron")).betas == TrainParams().betas


@pytest.mark.parametrize("inputs", [None, {}, {"mix_layers": True, "layer_norm": ["speech"]}])
def test_inputs_may_be_null_or_switched_on(raw: dict[str, Any], inputs: Any) -> None:
    params = change(raw, "models.heron.inputs", inputs)
    assert all_problems(params) == []
    assert params.model("heron").inputs == inputs


def test_global_seeds_win_over_the_models(raw: dict[str, Any]) -> None:
    params = change(raw, "models.heron.seeds", 5)
    assert params.seeds_of(params.model("heron")) == [0, 1, 2, 3, 4]
    params = change(raw, "seeds", 2)
    assert params.seeds_of(params.model("heron")) == [0, 1]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("fusion", "heroin", r"fusion: given 'heroin'; expected one of \[.*'concat', .*'heron'"),
        ("corpus", "nowhere", r"corpus: given 'nowhere'; expected one of \[.*'demo'"),
        ("regime", "online", r"regime: given 'online'; expected one of \['cached'"),
        ("seeds", 0, "seeds: given 0; expected an integer from 1 to 1000 or null"),
        ("seeds", "three", r"seeds: given 'three'"),
        ("train.lr", "fast", "train.lr: given 'fast'"),
        ("train.lr", -1.0, "train.lr: given -1.0; expected a number above 0, at most"),
        ("train.weight_decay", -1.0, "train.weight_decay: given -1.0"),
        (
            "train.betas",
            [0.9, 1.0],
            r"train.betas: given \[0.9, 1.0\]; expected a list of 2: a number from 0 to below 1",
        ),
        ("train.betas", [0.9], r"train.betas: given \[0.9\]; expected"),
        ("train.eps", 0.0, "train.eps: given 0.0; expected a number from 1e-30"),
        ("train.seqaug", 1.5, "train.seqaug: given 1.5; expected a number from 0 to 1"),
        ("train.mixup", float("inf"), "train.mixup: given inf; expected a number from 0 to"),
        (
            "train.label_smoothing",
            1.0,
            "train.label_smoothing: given 1.0; expected a number from 0",
        ),
        ("train.warmup_steps", -1, "train.warmup_steps: given -1; expected an integer from 0"),
        ("train.loss", "hinge", "train.loss: given 'hinge'; expected one of 'ce', 'weighted_ce'"),
        ("train.sampler", "uniform", "train.sampler: given 'uniform'; expected one of 'none'"),
        ("models.heron.train.lr_end", -1, "models.heron.train.lr_end: given -1; expected a"),
        ("train.momentum", 0.9, r"train.momentum: .*expected one of"),
        ("train.monitor", "test_f1", "train.monitor: given 'test_f1'"),
        ("models.heron.text", "brt", r"models.heron.text: given 'brt'; expected one of"),
        ("models.heron.kind", "heroin", r"models.heron.kind: unknown kind 'heroin'"),
        ("models.heron.args.width", 3, r"models.heron.args.width: .*expected one of"),
        ("models.heron.args.heads", True, "models.heron.args.heads: given True"),
        ("models.heron.inputs", [], r"models.heron.inputs: given \[\]; expected a mapping"),
        (
            "models.heron.inputs",
            {"mix": True},
            "models.heron.inputs.mix: .*one of .*layer_norm, mix",
        ),
        ("models.heron.inputs", {"mix_layers": 1}, "models.heron.inputs.mix_layers: given 1"),
        ("models.heron.inputs", {"layer_norm": "text"}, "models.heron.inputs.layer_norm: given"),
        ("models.heron.inputs", {"layer_norm": ["txt"]}, r"inputs.layer_norm: given \['txt'\]"),
        ("models.heron.video", "none", r"models.heron.video"),
        ("backbones.tone.kind", "ton", r"backbones.tone.kind: unknown kind 'ton'"),
        ("backbones.tone.pooling", "max", r"backbones.tone.pooling: given 'max'"),
        ("backbones.minilm.layers", [1, 2], r"backbones.minilm.layers: .*expected one of"),
        ("corpora.demo.protocol", "random", r"corpora.demo.protocol: given 'random'"),
        ("corpora.demo.kind", "demos", r"corpora.demo.kind: unknown kind 'demos'"),
        ("corpora.mine", None, "corpora.mine: given None"),
        ("corpora.demo.shard_seconds", float("inf"), "corpora.demo.shard_seconds: given inf"),
        ("corpora.demo.utterances", 8, "corpora.demo.utterances: given 8; expected an integer fr"),
        ("backbones.logmel.hop", 0, "backbones.logmel.hop: given 0; expected an integer from 1"),
        ("backbones.logmel.n_fft", 200, "backbones.logmel.n_fft: given 200; expected an integer"),
        ("backbones.minilm.layer", [10**9], "backbones.minilm.layer: given"),
        ("models.heron.args.d_model", 0, "models.heron.args.d_model: given 0; expected an integer"),
        ("models.heron.args.dropout", 2.0, "models.heron.args.dropout: given 2.0; expected a num"),
        ("models.heron.train.batch_size", 10**20, "models.heron.train.batch_size: given 1000000"),
        ("models.heron.seeds", 10**9, "models.heron.seeds: given 1000000000; expected an integer"),
        ("e2e.slots.text.lr", float("nan"), "e2e.slots.text.lr: given nan; expected a number"),
        ("e2e.lora.rank", 0, "e2e.lora.rank: given 0; expected an integer from 1"),
        ("models.hér", {}, "models.hér: given the name 'hér'; expected letters"),
        ("models.Heron", {"kind": "heron"}, "models.Heron: 'heron' and 'Heron' differ in case"),
        (
            "corpora.Demo",
            {"kind": "demo"},
            "corpora.Demo: 'demo' and 'Demo' share the variable HERONRY_DEMO_ROOT; rename one",
        ),
    ],
)
def test_each_mistake_is_named(raw: dict[str, Any], path: str, value: Any, message: str) -> None:
    found = all_problems(change(raw, path, value))
    assert len(found) == 1, found
    assert re.search(message, found[0]), found[0]


def test_all_mistakes_at_once(raw: dict[str, Any]) -> None:
    for path, value in (("fusion", "x"), ("train.epochs", 0), ("models.heron.text", "y")):
        raw = vars(change(raw, path, value))
    assert len(all_problems(Params(**raw))) == 3


def nested_aliases(per_line: int, lines: int) -> str:
    each = [f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * per_line) or 1}]" for n in range(1, lines)]
    return "\n".join(["b0: &b0 [1]", *each])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fusion: [", "is no YAML: line 1: "),
        ("- heron", "holds list"),
        ("fusion: heron\nfusion: concat", "line 2: key 'fusion' occurs twice"),
        ("fusion: heron", "params.yaml"),
        ("colour: red", "colour"),
        (b"fusion: heron\n# caf\xe9\n", "is no YAML: line 2: the byte 0xe9 is no UTF-8"),
        ("fusion: heron".encode("utf-16"), "line 1: the byte 0xff is no UTF-8"),
        (b"a: 1\nb: \x00", "line 2: a character that YAML has not"),
        ("a: " + "[" * 500, "line 1: more than 40 levels of nesting"),
        ("- " * 5000, "line 1: more than 40 levels of nesting"),
        (nested_aliases(1, 50), "line 39: more than 40 levels of nesting"),
        (nested_aliases(10, 12), "line 6: aliases that stand for more than 100000 values"),
        ("a: &a\n- *a", r"line 2: the alias \*a inside of what it stands for"),
        ("a: *b", "line 1: found undefined alias 'b'"),
        ("a: 1\nb: !!python/object:os.system x", "line 2: the tag !!python/object:os.system"),
        ("a: !!binary aGVs", "line 1: the tag !!binary"),
        ("a: !!int x", "line 1: the tag !!int"),
        ("a: ! x", "line 1: the tag !; "),
        ("a:\n  1: x", "line 2: the key 1; expected text"),
        ("true: x", "line 1: the key true; expected text"),
        ("null: x", "line 1: the key null; expected text"),
        ("[a, b]: x", r"line 1: the key \(sequence\); expected text"),
        ("a: &a {b: 1}\nc:\n  <<: *a", "line 3: the merge key <<"),
        ("a: " + "9" * 5000, "line 1: an integer of 5000 digits"),
        ("a: -" + "9" * 20, "line 1: an integer of 21 digits"),
        (r'a: "\ud800"', "line 1: NUL, or half of a surrogate pair"),
        (r'a: "b\0"', "line 1: NUL, or half of a surrogate pair"),
        (r'a: "\UFFFFFFFF"', "is no YAML: "),
        ("%YAML 1" + "9" * 5000 + ".1\n---\na: 1", "is no YAML: "),
        ("a: 1\n---\nb: 2", "line 2: expected a single document"),
        ("a: 1\n" * 200_000, "holds more than 262144 bytes"),
        ("a: *" + "x" * 10_000, "undefined alias"),
        ("x" * 500 + ": 1\n" + "x" * 500 + ": 2", "occurs twice"),
    ],
)
def test_broken_files(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ParamsError, match=message) as caught:
        read_params(path)
    assert len(str(caught.value)) < len(str(tmp_path)) + 1000


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.yaml", tmp_path):
        with pytest.raises(ParamsError, match="cannot read"):
            read_params(path)


def test_aliases_of_bounded_size_are_read() -> None:
    assert read_yaml("a: &a {b: [1, 2]}\nc: [*a, *a]")["c"] == [{"b": [1, 2]}] * 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-05", 5e-5),
        ("1e-4", 1e-4),
        ("5.0e-5", 5e-5),
        (".5", 0.5),
        ("-3", -3),
        ("010", 10),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("true", True),
        ("~", None),
        ("null", None),
        ("1e", "1e"),
        (".inf", float("inf")),
        ("2026-01-01", "2026-01-01"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = read_yaml(f"key: {text}")["key"]
    assert (found, type(found)) == (value, type(value))


def test_an_entry_of_the_registry_is_the_folder_of_its_name(raw: dict[str, Any]) -> None:
    model = {**raw["models"]["speech"], "speech": "theirs"}
    mine = {**raw, "registry": {"theirs": {}}, "models": {**raw["models"], "speech": model}}
    params = Params(**mine)
    assert all_problems(params) == selection_problems(mine) == []
    entry = params.backbone("theirs")
    assert (entry.kind, entry.options) == ("imported", {"checkpoint": "registry/theirs"})
    assert extract_stage(params, "demo", "theirs").endswith(":extract_registry@demo-theirs")
    assert siblings_of(params, "theirs") == []
    with pytest.raises(
        ParamsError, match=r"speech: given 'theirs' of `registry` in the regime e2e"
    ):
        live_entries(params, params.model("speech"))


def test_an_empty_registry_is_refused_as_dvc_does(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(SHIPPED.read_text(encoding="utf-8") + "registry:\n", encoding="utf-8")
    with pytest.raises(ParamsError, match="registry: given None; expected a mapping"):
        read_params(path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"theirs": {"kind": "tone"}}, "registry.theirs.kind: given 'tone'; expected 'imported'"),
        ({"theirs": {"checkpoint": "x"}}, "registry.theirs.checkpoint: given 'x'; expected 'regis"),
        ({"theirs": {"folder": "x"}}, "registry.theirs.folder: given an unknown key"),
        ({"theirs": None}, "registry.theirs: given None; expected a mapping"),
        ({"tone": {}}, "registry.tone: `backbones` has the entry 'tone'; rename one"),
    ],
)
def test_a_mistake_in_the_registry_is_named(
    entries: dict[str, Any], message: str, raw: dict[str, Any]
) -> None:
    found = all_problems(change(raw, "registry", entries))
    assert any(line.startswith(message) for line in found), found
