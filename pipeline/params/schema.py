"""JSON schema of params.yaml, by which editors complete and check it.

Made from the signatures that `features.arguments` checks params.yaml against, by pydantic; hosts
that only extract and train may lack that package, so that no other module imports this one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from inspect import Parameter, signature
from typing import Any

from pydantic import TypeAdapter

from features.arguments import parameter_types
from features.backbone.entry import PACKAGE as BACKBONES
from features.backbone.entry import WINDOW_SETTINGS, BackboneEntry
from features.corpus.entry import PACKAGE as CORPORA
from features.corpus.entry import SUPPLIED, CorpusEntry
from features.settings.plugins import OWN, kinds, load
from features.transcription.settings import Transcription
from pipeline.model.checkpoint import FUSIONS
from pipeline.model.inputs import InputSettings
from pipeline.params.ensembles import EnsembleEntry
from pipeline.params.file import ModelEntry, Params
from pipeline.params.selection import MAY_LACK, REGIMES, SLOTS
from pipeline.params.speech_llm import SpeechLlmEntry
from pipeline.params.training import TrainParams
from pipeline.params.tuning import LIVE, InitRun, LoraParams, SlotTuning, TuneParams
from pipeline.tracking import PACKAGE as TRACKERS

Schema = dict[str, Any]
_NULL: Schema = {"type": "null"}


def params_schema() -> Schema:
    """The schema; it allows entries of any name, and does not know which are selected."""
    params = _keywords(Params)
    params["properties"] |= {
        "regime": {"enum": list(REGIMES)},
        "trackers": {"type": "array", "items": {"enum": list(kinds(TRACKERS))}},
        "train": _nullable(_keywords(TrainParams)),
        "e2e": _tuning(),
        "transcribe": _keywords(Transcription) | {"required": list(vars(Transcription()))},
        "models": {"additionalProperties": _model()},
        "ensembles": _entries(_keywords(EnsembleEntry, ("name",))),
        "speech_llms": _entries(_keywords(SpeechLlmEntry, ("name",))),
    }
    definitions: Schema = {}
    for section, record, package, skip in (
        ("corpora", CorpusEntry, CORPORA, SUPPLIED),
        ("backbones", BackboneEntry, BACKBONES, ()),
    ):
        params["properties"][section], entries = _section(section, record, package, skip)
        definitions |= entries
    heard = {"$ref": "#/definitions/backbones.asr_text"}
    params["properties"]["asr_backbones"] = _entries(heard)
    theirs = definitions["backbones.imported"]["properties"]
    options = {name: each for name, each in theirs.items() if name in ("revision", "reads")}
    named = _entries({"type": "object", "properties": options, "additionalProperties": False})
    params["properties"]["registry"] = named
    params["required"] += [*MAY_LACK, "transcribe"]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "definitions": definitions,
        **params,
    }


def _keywords(target: Any, skip: Collection[str] = ()) -> Schema:
    """A mapping of the parameters of a function or class, and of no other keys."""
    hints = parameter_types(target)
    parameters = [p for p in signature(target).parameters.values() if p.name not in skip]
    return {
        "type": "object",
        "properties": {p.name: TypeAdapter(hints[p.name]).json_schema() for p in parameters},
        "required": [p.name for p in parameters if p.default is Parameter.empty],
        "additionalProperties": False,
    }


def _entries(entry: Schema) -> Schema:
    return {"type": "object", "additionalProperties": entry}


def _nullable(keywords: Schema) -> Schema:
    properties = {name: {"anyOf": [s, _NULL]} for name, s in keywords["properties"].items()}
    return keywords | {"properties": properties}


def _tuning() -> Schema:
    e2e = _keywords(TuneParams)
    slots = {"type": "object", "properties": dict.fromkeys(LIVE, _nullable(_keywords(SlotTuning)))}
    e2e["properties"] |= {
        "init": {"anyOf": [_keywords(InitRun), _NULL]},
        "lora": _keywords(LoraParams),
        "slots": slots | {"additionalProperties": False},
    }
    return e2e


def _section(
    section: str, record: type, package: str, skip: Collection[str]
) -> tuple[Schema, Schema]:
    """Entries of `corpora` or `backbones`, and the definitions that they refer to, by kind."""
    common = _keywords(record, OWN)["properties"] | {"kind": {"enum": list(kinds(package))}}
    definitions, references = {}, {}
    for kind in kinds(package):
        entry = _keywords(load(package, kind), skip)
        own, shared = entry["properties"], dict(common)
        # A value that the kind does not know is every kind's, such as Whisper's `long: window`.
        shared |= {
            name: {"anyOf": [own[name], common[name]]} for name in own.keys() & common.keys()
        }
        if getattr(load(package, kind), "reads", "audio") != "audio":
            shared = {name: value for name, value in shared.items() if name not in WINDOW_SETTINGS}
        definitions[f"{section}.{kind}"] = entry | {"properties": own | shared}
        references[kind] = {"$ref": f"#/definitions/{section}.{kind}"}
    definitions[section] = {"type": "object", "required": ["kind"], **_by_kind(references)}
    chosen = {"$ref": f"#/definitions/{section}"}
    # An entry without `kind` is of the kind that it is named after.
    named = {
        kind: {"if": {"required": ["kind"]}, "then": chosen, "else": reference}
        for kind, reference in references.items()
    }
    return {"type": "object", "properties": named, "additionalProperties": chosen}, definitions


def _model() -> Schema:
    """An entry of `models`; DVC's stages name `kind` and all six slots."""
    model = _keywords(ModelEntry, ("name",))
    slots = _tuning()["properties"]["slots"]
    model["properties"] |= {
        "e2e": {"type": "object", "properties": {"slots": slots}, "additionalProperties": False},
        "inputs": {"anyOf": [_keywords(InputSettings), _NULL]},
        "train": _keywords(TrainParams),
    }
    model["required"] = ["kind", *SLOTS, "asr"]
    args = {kind: _keywords(load(FUSIONS, kind), ("specs", "classes")) for kind in kinds(FUSIONS)}
    by_kind = _by_kind({kind: {"properties": {"args": each}} for kind, each in args.items()})
    # Merged by hand: the union below would replace one set of properties by the other.
    model["properties"] |= by_kind.pop("properties")
    return model | by_kind


def _by_kind(schemas: Mapping[str, Schema]) -> Schema:
    chosen = [
        {"if": {"properties": {"kind": {"const": kind}}}, "then": schema}
        for kind, schema in schemas.items()
    ]
    return {"properties": {"kind": {"enum": list(schemas)}}, "allOf": chosen}
