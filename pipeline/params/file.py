"""Reads params.yaml into records and checks it entry by entry.

Precedence of a training setting: `train` of params.yaml unless null, `train` of the model's entry,
the default of `TrainParams`. Precedence of the number of seeds: `seeds`, `seeds` of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from features.arguments import one_of, problems, quoted, refuse, shown_key
from features.backbone.base import Reads
from features.backbone.entry import (
    CHOOSING,
    PACKAGE,
    REGISTRY,
    BackboneEntry,
    backbone_entry,
    backbone_problems,
)
from features.backbone.siblings import sibling_of_layer
from features.corpus.entry import corpus_problems
from features.errors import ParamsError
from features.files.yaml_text import read_params_file
from features.ranges import Interval
from features.settings.entry_names import MOST_ENTRIES, SECTIONS, all_name_problems, form_problems
from features.settings.plugins import kinds, load
from features.transcription.settings import Transcription
from pipeline.model.checkpoint import FUSIONS
from pipeline.model.inputs import InputSettings
from pipeline.params.catalogue.entries import expected_entry, known_entry
from pipeline.params.ensembles import EnsembleEntry, ensemble_entry, ensemble_problems
from pipeline.params.selection import (
    SLOTS,
    backbone_name_problems,
    choice_problems,
    selected_section,
    transcribe_problems,
)
from pipeline.params.speech_llm import SpeechLlmEntry, speech_llm_problems
from pipeline.params.training import TrainParams
from pipeline.params.tuning import TuneParams, filled_tuning, own_tune_problems, tune_problems
from pipeline.tracking import tracker_problems

Seeds = Annotated[int, Interval(ge=1, le=1000)]
# Settings besides options that the backbones of `asr` and of the text slot must have in common.
_SHARED = ("pooling", "compute_dtype", "store_dtype", "version")


@dataclass(frozen=True)
class ModelEntry:
    """An entry of `models`.

    Attributes:
        name: Key in params.yaml.
        kind: Plug-in of `pipeline/fusion`.
        text: Backbone of the text slot, or `none`, as for the slots below.
        speech: Backbone of the speech slot.
        nonverbal: Backbone of the slot for non-verbal vocalisations.
        prosody: Backbone of the F0 slot.
        spectral: Backbone of the spectral slot.
        asr: Backbone of recognised words, on which the trained model is also tested in place of the
            text slot's; it must have the same settings.
        seeds: Number of random seeds, from 0 to seeds - 1.
        args: Keywords of the plug-in's constructor.
        inputs: Keywords of `pipeline.model.inputs.InputSettings`; None: its defaults.
        train: Settings that differ from the defaults of `TrainParams`.
        e2e: `slots` of end-to-end training, for values that are null in the section `e2e`.
        stand_ins: By slot, the backbones that the one in it stands for; the report says so.
    """

    name: str
    kind: str
    text: str = "none"
    speech: str = "none"
    nonverbal: str = "none"
    prosody: str = "none"
    spectral: str = "none"
    asr: str = "none"
    seeds: Seeds = 3
    args: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] | None = None
    train: Mapping[str, Any] = field(default_factory=dict)
    e2e: Mapping[str, Any] = field(default_factory=dict)
    stand_ins: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def slots(self) -> dict[str, str]:
        """Backbone entry by slot."""
        return {slot: getattr(self, slot) for slot in SLOTS}


@dataclass(frozen=True)
class Params:
    """params.yaml; its sections of entries hold raw ones until asked for one.

    `asr_backbones`, `transcribe`, `ensembles` and `speech_llms` may be left out where DVC does not
    run, `registry` everywhere (but not be null, which DVC refuses).
    """

    fusion: str
    regime: str
    corpus: str
    seeds: Seeds | None
    train: Mapping[str, Any]
    corpora: Mapping[str, Any]
    backbones: Mapping[str, Any]
    models: Mapping[str, Any]
    e2e: Mapping[str, Any] = field(default_factory=dict)
    trackers: list[str] = field(default_factory=list)
    asr_backbones: Mapping[str, Any] | None = None
    transcribe: Mapping[str, Any] | None = None
    ensembles: Mapping[str, Any] | None = None
    speech_llms: Mapping[str, Any] | None = None
    registry: Mapping[str, Any] = field(default_factory=dict)

    @property
    def section(self) -> str:
        """Section that `fusion` is an entry of, by `regime`."""
        return selected_section(vars(self))

    @property
    def all_backbones(self) -> dict[str, Any]:
        """Raw entries of `backbones`, `asr_backbones` and `registry`."""
        theirs = {name: _registered(name, each) for name, each in self.registry.items()}
        return {**self.backbones, **(self.asr_backbones or {}), **theirs}

    def backbone(self, name: str) -> BackboneEntry:
        """The backbone entry of that name in any of these sections, or a `ParamsError`."""
        others = {"asr_backbones": self.asr_backbones, REGISTRY: self.registry}
        section = next((each for each, has in others.items() if name in (has or {})), "backbones")
        return backbone_entry(name, known_entry("backbones", self.all_backbones, name), section)

    def transcription(self) -> Transcription:
        """Settings of speech recognition, or a `ParamsError` listing their problems."""
        refuse(problems(Transcription, self.transcribe or {}, "transcribe"))
        return Transcription(**(self.transcribe or {}))

    def transcripts(self, corpus: str, backbone: str) -> Path | None:
        """Folder of the recognised words that a backbone reads; None if it reads none of them."""
        reads_them = backbone in (self.asr_backbones or {})
        return Path("data", corpus, "transcripts") if reads_them else None

    def model(self, name: str) -> ModelEntry:
        """The model entry of that name, or a `ParamsError` listing its problems."""
        mapping = known_entry("models", self.models, name)
        found = model_problems(self, name, mapping)
        refuse(found)
        return ModelEntry(name=name, **mapping)

    def ensemble(self, name: str) -> EnsembleEntry:
        """The entry of `ensembles` of that name, or a `ParamsError` listing its problems."""
        return ensemble_entry(vars(self), name)

    def speech_llm(self, name: str) -> SpeechLlmEntry:
        """The entry of `speech_llms` of that name, or a `ParamsError` listing its problems."""
        mapping = known_entry("speech_llms", self.speech_llms or {}, name)
        refuse(speech_llm_problems(name, mapping))
        return SpeechLlmEntry(name=name, **mapping)

    def training(self, model: ModelEntry) -> TrainParams:
        """Training settings of a model: its own, overridden by global ones that are not null."""
        globally = {key: value for key, value in self.train.items() if value is not None}
        refuse(problems(TrainParams, globally, "train"))
        return TrainParams(**{**model.train, **globally})

    def tuning(self, model: ModelEntry) -> TuneParams:
        """Settings of end-to-end training: a slot's null is the model's value, else the default.

        Raises:
            ParamsError: Listing the problems of the section `e2e`.
        """
        refuse(tune_problems(self.e2e))
        slots = filled_tuning(self.e2e.get("slots", {}), model.e2e.get("slots", {}))
        return TuneParams(**{**self.e2e, "slots": slots})

    def seeds_of(self, model: ModelEntry) -> list[int]:
        """Seeds to train: 0 to n - 1."""
        return list(range(model.seeds if self.seeds is None else self.seeds))


def read_params(path: Path) -> Params:
    """Read params.yaml and check its top level, and the names of all entries.

    Raises:
        ParamsError: If the file is missing or not YAML, has unknown or missing keys, or entries
            with unusable names.
    """
    params = read_unchecked(path)
    refuse(params_name_problems(params))
    return params


def params_name_problems(params: Params) -> list[str]:
    """Faults of the names of all entries, one line each."""
    return all_name_problems(vars(params))


def read_unchecked(path: Path) -> Params:
    """Read params.yaml and check its top level alone; `all_problems` checks the rest.

    Raises:
        ParamsError: If the file is missing or not YAML, or has unknown or missing keys.
    """
    raw = read_params_file(path)
    found = problems(Params, raw, path.name)
    # Wrong choices alone do not stop commands that select nothing.
    refuse([*found, *choice_problems(raw)] if found else [])
    return Params(**raw)


def all_problems(params: Params) -> list[str]:
    """All problems of params.yaml, one line each."""
    found = problems(Params, vars(params), "params.yaml")
    if found:
        return found  # what follows reads its values
    found = own_problems(params)
    found += params_name_problems(params)
    # `all_name_problems` reports the number; thousands of entries are not checked one by one.
    if max(len(getattr(params, section) or {}) for section in SECTIONS) > MOST_ENTRIES:
        return found
    found += choice_problems(vars(params))
    for name, mapping in params.corpora.items():
        found += corpus_problems(name, mapping, params.corpora)
    for name, mapping in params.backbones.items():
        found += backbone_problems(name, mapping)
    found += transcript_problems(params)
    for name in params.registry:
        found += registry_problems(name, params.all_backbones[name])
    for name, mapping in params.models.items():
        found += model_problems(params, name, mapping)
    for name, mapping in (params.ensembles or {}).items():
        found += ensemble_problems(name, mapping)
    for name, mapping in (params.speech_llms or {}).items():
        found += speech_llm_problems(name, mapping)
    if not found and params.section == "models":
        found += _contradictions(params)
    return list(dict.fromkeys(found))  # names are checked by themselves and with their entries


def _contradictions(params: Params) -> list[str]:
    """Settings of the selected model's training that contradict each other."""
    try:
        params.training(params.model(params.fusion))
    except ParamsError as error:
        return str(error).splitlines()
    return []


def own_problems(params: Params) -> list[str]:
    """Problems with the values outside of entries: types, `seeds`, `train`, `e2e`, `trackers`."""
    found = problems(Params, vars(params), "params.yaml")
    if found:
        return found
    globally = {key: value for key, value in params.train.items() if value is not None}
    found += problems(TrainParams, globally, "train") + tune_problems(params.e2e)
    return found + tracker_problems(params.trackers)


def transcript_problems(params: Params) -> list[str]:
    """Problems with `transcribe` and `asr_backbones`, one line each."""
    found = transcribe_problems(vars(params))
    for name, mapping in (params.asr_backbones or {}).items():
        wrong = backbone_problems(name, mapping, "asr_backbones")
        if not wrong and _kind_reads(params, name) != "asr":
            wrong = [
                f"asr_backbones.{name}.kind: given {quoted(mapping.get('kind', name))}; expected "
                "asr_text, which reads recognised words: move others to `backbones`"
            ]
        found += wrong
    return found


def registry_problems(name: str, mapping: Any) -> list[str]:
    """Problems with an entry of `registry`, with what it does not name filled in, a line each."""
    fixed = _registered(name, {}).items() if isinstance(mapping, Mapping) else ()
    return [
        f"{REGISTRY}.{name}.{key}: given {quoted(mapping[key])}; expected {value!r}, on which "
        "DVC's stage depends: leave it out"
        for key, value in fixed
        if mapping[key] != value
    ] or backbone_problems(name, mapping, REGISTRY)


def _registered(name: str, mapping: Any) -> Any:
    """An entry of `registry`: what is below the folder of its name, where `dvc import` puts it."""
    if not isinstance(mapping, Mapping):
        return mapping
    return {"kind": "imported", "checkpoint": f"{REGISTRY}/{name}", **mapping}


def model_problems(params: Params, name: str, mapping: Any) -> list[str]:
    """Problems with an entry of `models`, one line each."""
    where = f"models.{name}"
    found = form_problems("models", name, mapping, "{kind: concat, ...}")
    found = found or problems(ModelEntry, mapping, where, skip=("name",))
    if found:
        return found
    entry = ModelEntry(name=name, **mapping)
    found += backbone_name_problems(where, entry.slots, params.all_backbones)
    found += asr_problems(params, entry)
    try:
        build = load(FUSIONS, entry.kind)
    except ParamsError as error:
        return [*found, f"{where}.kind: {error}"]
    found += problems(build, entry.args, f"{where}.args", skip=("specs", "classes"))
    wrong = problems(InputSettings, entry.inputs or {}, f"{where}.inputs")
    found += wrong or list(_layer_problems(params, entry))
    filled = [slot for slot, backbone in entry.slots.items() if backbone != "none"]
    found += [
        f"{where}.stand_ins: given {quoted(slot)}; expected a filled slot, {one_of(slot, filled)}"
        for slot in entry.stand_ins
        if slot not in filled
    ]
    found += own_tune_problems(entry.e2e, f"{where}.e2e")
    return found + problems(TrainParams, entry.train, f"{where}.train")


def _layer_problems(params: Params, model: ModelEntry) -> Iterator[str]:
    """Problems with `inputs.layer` of a model: states that a slot's entry does not store."""
    for slot, number in InputSettings.of(model.inputs).layer.items():
        try:
            entry = params.backbone(model.slots[slot])
        except ParamsError:
            continue  # reported with the slot, or with the entry itself
        if entry.kind in ("none", "imported"):  # what was imported is not known here
            continue
        try:
            sibling_of_layer(entry, number, f"models.{model.name}.inputs.layer.{slot}")
        except ParamsError as error:
            yield str(error)


def asr_problems(params: Params, model: ModelEntry) -> list[str]:
    """Problems with `asr` of a model, one line each.

    A model without text is not tested on recognised words, so that any `asr` is allowed.
    """
    where = f"models.{model.name}.asr"
    if _reads(params, model.asr) not in ("asr", "nothing"):
        fitting = [name for name in params.all_backbones if _kind_reads(params, name) == "asr"]
        there = model.asr in params.all_backbones
        here = (
            one_of(model.asr, fitting) if there else expected_entry("backbones", model.asr, fitting)
        )
        return [
            f"{where}: given {quoted(model.asr)}; expected `none` or an entry of `asr_backbones`, "
            f"which read recognised words, here {here}"
        ]
    try:
        heard, text = params.backbone(model.asr), params.backbone(model.text)
    except ParamsError:
        return []  # reported with the entry itself, or with the slot
    if "nothing" in (heard.reads, text.reads):
        return []
    if heard.keywords()["where"] != "always":
        return [
            f"{where}: {model.asr!r} has `where: {heard.keywords()['where']}`; expected "
            "`where: always`, since it would read the reference that recognised words are to "
            "replace"
        ]
    differing = differences(_settings(heard), _settings(text))
    if not differing:
        return []
    return [
        f"{where}: {model.asr!r} differs from {model.text!r} of the text slot in {differing}; "
        "expected the same settings, since the trained model reads recognised words in place of "
        "the text: make them equal, or set `none`"
    ]


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Keys whose values differ, such as `layer (4, not -1)`; empty if there are none."""
    keys = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
    pairs = [(key, shown_key(str(found.get(key))), shown_key(str(wanted.get(key)))) for key in keys]
    return ", ".join(f"{key} ({one}, not {other})" for key, one, other in pairs)


def _kind_reads(params: Params, name: str) -> Reads | None:
    """Modality that the kind of an entry reads; unchecked, as this runs for all entries."""
    entry = params.all_backbones[name]
    kind = entry.get("kind", name) if isinstance(entry, Mapping) else None
    return load(PACKAGE, kind).reads if kind in kinds(PACKAGE) else None


def _reads(params: Params, name: str) -> Reads | None:
    """Modality that an entry reads; None if the entry is missing or wrong."""
    try:
        return params.backbone(name).reads
    except ParamsError:
        return None


def _settings(entry: BackboneEntry) -> dict[str, Any]:
    """Every setting of an entry except its kind, defaults included."""
    options = {name: v for name, v in entry.keywords().items() if name not in CHOOSING}
    return {**options, **{name: getattr(entry, name) for name in _SHARED}}
