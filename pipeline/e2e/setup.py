"""Sets up end-to-end training: live slots, their backbones, leak gate, and warm start.

A slot is live if its backbone is part of the model (text, speech, nonverbal, spectral); prosody is
read from its cache. A warm start (`e2e.init`) takes the fusion of an earlier run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from features.backbone.entry import BackboneEntry, check_pinned, leaves_weights_open
from features.backbone.siblings import sibling_of_layer
from features.corpus.labels_folder import read_labelled
from features.corpus.leak_gate import check_leaks
from features.corpus.leaks import find_seen_leak, gate, leak_lines
from features.corpus.manifest import Label, Manifest
from features.corpus.places import with_audio
from features.errors import ManifestError, ParamsError
from features.extraction.trained_on import seen_by
from features.files.reading import file_sha256
from features.settings.locations import expanded, project_root
from features.transcription.transcripts import WORDS, read_words, with_words
from pipeline.data.examples import Examples
from pipeline.e2e.source import LiveExamples
from pipeline.model.base import FusionModel
from pipeline.model.checkpoint import load_model, read_description
from pipeline.model.inputs import InputSettings
from pipeline.params.file import ModelEntry, Params
from pipeline.params.tuning import LIVE, InitRun
from pipeline.runs.head import read_head
from pipeline.runs.job import Job
from pipeline.runs.layout import PREDICTIONS, SCORED
from pipeline.runs.record import filled_slots
from pipeline.runs.tables import read_csv


def live_entries(params: Params, model: ModelEntry) -> dict[str, BackboneEntry]:
    """Entries of the backbones of the filled live slots, by slot.

    Raises:
        ParamsError: If there are none.
    """
    entries = {slot: params.backbone(model.slots[slot]) for slot in LIVE}
    filled = {slot: entry for slot, entry in entries.items() if entry.kind != "none"}
    for slot, number in InputSettings.of(model.inputs).layer.items():
        if slot in filled:
            filled[slot] = sibling_of_layer(filled[slot], number, f"inputs.layer.{slot}")
    if not filled:
        raise ParamsError(
            f"models.{model.name}: given none of {', '.join(LIVE)}, whose backbones end-to-end "
            "training is about; fill one of them, or set `regime: cached`"
        )
    theirs = [slot for slot in filled if model.slots[slot] in params.registry]
    if theirs:
        raise ParamsError(
            f"models.{model.name}.{theirs[0]}: given {model.slots[theirs[0]]!r} of `registry` in "
            "the regime e2e; expected an entry of `backbones`, which computes features in each "
            "step: those of another project are there already, for the regime cached"
        )
    return filled


def cached_slots(params: Params, model: ModelEntry, corpus: str) -> dict[str, Path]:
    """Cache folders of the other filled slots, by slot."""
    slots = filled_slots(params, model, corpus)
    return {slot: folder for slot, folder in slots.items() if slot not in LIVE}


def protocol_problems(params: Params, model: ModelEntry) -> list[str]:
    """Problems of the protocol: what is not defined where features are computed in each step."""
    protocol = params.training(model)
    text, asr = params.backbone(model.text), params.backbone(model.asr)
    twice = text.reads == asr.reads == "asr" and model.text != model.asr
    found = [
        f"models.{model.name}.asr: given {model.asr!r}, and {model.text!r} of the text slot reads "
        "recognised words too; expected `none` or the same entry in the regime e2e"
    ]
    return (found if twice else []) + [
        f"train.{name}: given {given} in the regime e2e; expected 0, since it is an augmentation "
        "of cached features (`e2e.specaugment` masks inside the networks)"
        for name, given in (("seqaug", protocol.seqaug), ("mixup", protocol.mixup))
        if given
    ]


def read_manifest(corpus: str) -> Manifest:
    """The manifest of a corpus, with the paths of its audio files."""
    folder = Path("data", corpus, "utterances")
    manifest = Manifest.read(folder)
    if all(utterance.audio is None for utterance in manifest):
        return manifest
    return with_audio(manifest, folder)


def as_recognised(params: Params, model: ModelEntry, manifest: Manifest) -> Manifest:
    """The utterances with the words of the model's entry of `asr_backbones`, if it has one.

    They are those beside its cache, which this regime depends on for them alone.
    """
    for name in {model.text, model.asr} & set(params.asr_backbones or {}):
        words = read_words(Path("cache", manifest.corpus, name, WORDS))
        manifest = with_words(manifest, words)
    return manifest


def live_examples(
    params: Params,
    model: ModelEntry,
    cached: Examples,
    manifest: Manifest,
    entries: Mapping[str, BackboneEntry],
) -> LiveExamples:
    """All labelled utterances, as the backbones read them; which they can read is not known yet."""
    backbones = {slot: entry.build() for slot, entry in entries.items()}
    for slot, entry in entries.items():
        if leaves_weights_open(entry):  # then DVC would not see that they have changed
            check_pinned(entry, backbones[slot].provenance())
    return LiveExamples(
        cached=cached,
        backbones=backbones,
        utterances={utterance.id: utterance for utterance in manifest},
        batch_size=params.training(model).batch_size,
        batch_seconds=params.tuning(model).batch_seconds,
    )


def check_live_leaks(params: Params, model: ModelEntry, corpus: str) -> dict[str, Any]:
    """Check leaks: as for training on caches, and of the checkpoints that training starts from.

    Returns:
        Content of `leaks.json`: `features.corpus.leak_gate`.

    Raises:
        ManifestError: If there is a leak that is not allowed.
    """
    folder = Path("data", corpus, "labels")
    found = check_leaks(folder, cached_slots(params, model, corpus))
    manifest = Manifest.read(Path("data", corpus, "utterances"))
    card, labels = read_labelled(folder)
    leaks = []
    for slot, entry in live_entries(params, model).items():
        seen = seen_by(entry, manifest)
        if seen is not None:
            source = f"slot {slot}, backbone {entry.name}"
            leak = find_seen_leak(labels, seen, source)
            leaks += [] if leak is None else [leak]
    gate(leaks, found["allowed"], corpus=str(card.get("corpus", corpus)))
    return {
        **found,
        "found": found["found"] + [leak.to_dict() for leak in leaks],
        "lines": found["lines"] + leak_lines(leaks),
    }


KEYS = ("kind", "args", "specs", "classes", "inputs", "outputs")  # of model.json


def warm_start(fusion: FusionModel, init: Path, job: Job, description: Mapping[str, Any]) -> None:
    """Load the weights of the same seed and fold of an earlier run.

    Args:
        fusion: A new fusion.
        init: Folder of the earlier run.
        job: The training, for its seed and fold.
        description: Content that model.json would have for the fusion.

    Raises:
        ParamsError: If the earlier run has no such seed and fold, or another fusion.
    """
    folder = init / f"seed_{job.seed}" / f"fold_{job.fold}"
    if not (folder / "model.json").is_file():
        raise ParamsError(
            f"e2e.init: given {str(init)!r}, which has no seed {job.seed}, fold {job.fold}; "
            "expected a run with all seeds and folds of this one: train it, or set `e2e.init: null`"
        )
    found = read_description(folder)
    for (
        key
    ) in KEYS:  # `inputs` and `outputs` are left out of model.json where there is nothing to say
        before, now = found.get(key) or {}, description.get(key) or {}
        if before != now:
            raise ParamsError(
                f"e2e.init: {folder / 'model.json'} has {key} {before}; expected {now}: "
                "take a run of the same model on the same backbones"
            )
    fusion.load_state_dict(load_model(folder)[0].state_dict())


def init_folder(init: InitRun) -> Path:
    """Folder of the run that training starts from, its content checked against `sha256`.

    Raises:
        ParamsError: If it is missing, or its fusions are not those that `e2e.init.sha256` names.
    """
    folder = project_root() / expanded(init.run)
    found = fusions_sha256(folder)
    if found is None:
        raise ParamsError(
            f"e2e.init.run: given {init.run!r}, and {folder} holds no trained fusion "
            "(seed_*/fold_*/model.safetensors); expected a run folder such as "
            "runs/cached/demo/heron: train it, `dvc pull` it, or set `e2e.init: null`"
        )
    if init.sha256 != found:
        raise ParamsError(
            f"e2e.init.sha256: given {init.sha256}; the fusions in {folder} have {found}: write "
            f"`init: {{run: {init.run}, sha256: {found}}}` to begin with these, so that DVC sees "
            "when they change"
        )
    return folder


def fusions_sha256(folder: Path) -> str | None:
    """Hash of the fusions of all seeds and folds of a run; None if there are none.

    It is the SHA-256 of one line `hash  seed_0/fold_0/model.safetensors` per file, sorted by name.
    """
    paths = sorted(folder.glob("seed_*/fold_*/model.*"))
    if not any(path.suffix == ".safetensors" for path in paths):
        return None
    lines = [f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_same_splits(init: Path, corpus: str, labels: Sequence[Label], folds: int) -> None:
    """Refuse to start from a run that was trained on utterances which are now scored.

    Args:
        init: Folder of that run; one on another corpus is not checked.
        corpus: Name of the corpus.
        labels: Labels of all utterances.
        folds: Number of folds.

    Raises:
        ManifestError: If it was.
    """
    run = read_head(init)
    if run.get("corpus") != corpus:
        return
    for fold in range(folds):
        then = _scored(init / f"seed_{run['seeds'][0]}" / f"fold_{fold}", run["classes"])
        now = {label.id for label in labels if label.splits[fold] in SCORED}
        # Scored now, but neither scored nor left out then: it was in the training split.
        seen = sorted(now - then - set(run["dropped"]))
        if seen:
            raise ManifestError(
                f"e2e.init: {init} was trained on {len(seen)} utterances that are scored in fold "
                f"{fold}, such as {seen[:3]}; expected a run with the same splits: train it again"
            )


def _scored(folder: Path, classes: Sequence[str]) -> set[str]:
    path = folder / "predictions.csv"
    if not path.is_file():
        return set()
    columns = (*PREDICTIONS, *(f"p_{name}" for name in classes))
    return set(read_csv(path, columns).column("id"))
