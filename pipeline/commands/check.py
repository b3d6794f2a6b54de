"""`heronry check`: report all problems of an experiment at once, before it runs.

Checked are params.yaml, the folders and locks of this machine, and, for the selected experiment,
the corpus, the model with its slots, the checkpoints, and the run that training starts from.
"""

from __future__ import annotations

import fcntl
import inspect
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import typer

from features.arguments import in_lines
from features.backbone.entry import PACKAGE as BACKBONES
from features.backbone.entry import (
    BackboneEntry,
    in_registry,
    leaves_weights_open,
    open_weights,
)
from features.cache.reader import CacheReader
from features.corpus.entry import CorpusEntry, corpus_entry
from features.corpus.label_checks import named
from features.corpus.manifest import Manifest
from features.corpus.places import root_of, with_audio
from features.corpus.prepare import Rehearsal, rehearse
from features.corpus.sources import changes_since
from features.corpus.targets import CLASSES_ALONE
from features.errors import HeronryError, ParamsError
from features.files.reading import file_sha256
from features.files.records import read_json
from features.files.writing import lock
from features.process.machine_errors import machine_error
from features.settings.entry_names import BACKBONES as SECTIONS
from features.settings.locations import store_root
from features.settings.plugins import load
from features.stream import StreamSpec
from features.weights.checkpoint import Checkpoint
from features.weights.identity import left_open, pinned
from pipeline.e2e.setup import init_folder
from pipeline.ensemble.members import member_problems
from pipeline.model.checkpoint import make_model
from pipeline.params.file import (
    ModelEntry,
    Params,
    all_problems,
    params_name_problems,
    read_unchecked,
)
from pipeline.params.selection import unwritten
from pipeline.params.slot_reads import odd_slots
from pipeline.params.speech_llm import ENDPOINT
from pipeline.params.tuning import TuneParams
from pipeline.runtime.environment import git
from pipeline.speech_llm.endpoint import address
from pipeline.speech_llm.leaks import check_asked_leaks
from pipeline.speech_llm.prompt import Prompt
from pipeline.storage.dvc_command import PREPARE, obstacles

TABLES = (".csv", ".json", ".jsonl", ".txt")  # files that may hold what raters said
OUTPUTS = ("cache", "data", "reports", "runs")  # of the stages; each may be a link to another disk
SOME_BYTES = 4096  # a full disk may still take fewer, which it stores beside the file's metadata


def check(*, deep: bool = False) -> None:
    """Validate params, slots, the corpus (without its audio) and checkpoints; list all problems."""
    for line in obstacles():
        typer.echo(f"note: {line}")
    params = read_unchecked(Path("params.yaml"))
    found = unwritten(vars(params))
    found += find_problems(params, deep=deep, note=typer.echo)
    if found:
        raise ParamsError(listed(found))
    typer.echo("check: params, slots, corpus and checkpoints are in order")


def listed(found: Sequence[str], outcome: str = "") -> str:
    """Problems as one message, each once.

    Args:
        found: Problems.
        outcome: What follows from them.
    """
    lines = list(dict.fromkeys(found))
    number = f"{len(lines)} problem{'' if len(lines) == 1 else 's'}"
    head = ", ".join(filter(None, (number, outcome)))
    return f"{head}:\n{in_lines([f'- {line}' for line in lines])}"


def find_problems(
    params: Params,
    *,
    deep: bool = False,
    note: Callable[[str], object] = len,
    changed: Callable[[str], object] | None = None,
    pull: bool = False,
) -> list[str]:
    """Problems with params.yaml and with what the selected experiment needs, one line each.

    Args:
        params: params.yaml.
        deep: Also compare the content of every audio file with the manifest, not its size alone.
        note: Called with each line that is no problem: the classes, and warnings.
        changed: Called with each change of the corpus since `prepare` ran, which a run of DVC
            follows; None: these are problems.
        pull: Whether features may come from a remote, so that missing weights are only noted.
    """
    found = [*all_problems(params), *place_problems()]
    if params_name_problems(params):
        return found  # the checks below use names as folders and environment variables
    wrong = "\n".join(found)
    if params.corpus in params.corpora and f"corpora.{params.corpus}" not in wrong:
        found += corpus_problems(params, deep=deep, note=note, changed=changed)
    selects_ensemble = params.section == "ensembles" and params.fusion in (params.ensembles or {})
    if selects_ensemble and f"ensembles.{params.fusion}" not in wrong:
        found += member_problems(params.ensemble(params.fusion), params.corpus)
    selects_model = params.section == "models" and params.fusion in params.models
    if selects_model and f"models.{params.fusion}" not in wrong:
        model = params.model(params.fusion)
        names = {*model.slots.values(), model.asr}
        right = {n for n in names if not any(f"{each}.{n}" in wrong for each in SECTIONS)}
        if right >= {*model.slots.values()}:
            found += slot_problems(params, model)
            for line in odd_slots(params, model, params.corpus):
                note(f"warning: {line}")
        entries = map(params.backbone, sorted(right))
        lacking = [line for entry in entries for line in checkpoint_problems(params, entry)]
        for line in lacking if pull else ():
            note(f"if its features are not on the remote: {line}")
        found += [] if pull else lacking
    if params.section == "speech_llms" and not wrong:
        found += asked_problems(params)
    if params.regime == "e2e" and "e2e." not in wrong:
        found += beginning_problems(params)
    return found


def corpus_problems(
    params: Params,
    *,
    deep: bool,
    note: Callable[[str], object],
    changed: Callable[[str], object] | None = None,
) -> list[str]:
    """Problems for which `prepare` would refuse the selected corpus, and changes since it ran."""
    entry = corpus_entry(params.corpus, params.corpora[params.corpus], params.corpora)
    folder = Path("data", entry.name)
    card_path = folder / "labels" / "card.json"
    card: Mapping[str, Any] = {}
    found, changes, root = Rehearsal(), [], None
    followed = True
    try:
        card = read_json(card_path) if card_path.exists() else {}
        for each in entry.members:
            root_of(each, folder)  # an error, where this machine has not all roots
        root = root_of(entry, folder / "utterances")
        found = rehearse(entry, root)
        changes = [] if entry.generated and not entry.members else _changes(entry, deep=deep)
    except HeronryError as error:
        unseen = "" if folder.exists() else "; not prepared yet: its tables were not looked at"
        changes = [f"{error}{unseen}"]
        # A member without the root works with the record of it that came by Git.
        followed = root is None and Path("sources", f"{entry.name}.json").exists()
    classes = found.classes or card.get("classes") or ()
    if classes:
        note(f"corpus {entry.name}: {len(classes)} classes, {named(classes)}")
    if found.targets is not None:
        note(f"corpus {entry.name}: {found.targets}")
    for line in dict.fromkeys([*found.warnings, *(card.get("warnings") or ())]):
        note(f"warning: corpus {entry.name}: {line}")
    problems = [*found.problems, *_tracked_ratings(entry, root)]
    if changed is None or not followed:
        return [*problems, *changes]
    for line in changes:
        changed(line)
    return problems


def _tracked_ratings(entry: CorpusEntry, root: Path | None) -> list[str]:
    """Ratings of a published corpus that the project's Git would hand on, in at most one line.

    A user's own table is the user's to share.
    """
    if entry.generated or entry.kind == "manifest" or entry.targets == CLASSES_ALONE:
        return []
    places = [f"data/{entry.name}/ratings"]
    if root is not None and root.resolve().is_relative_to(Path.cwd().resolve()):
        places.append(str(root.resolve()))
    tracked = (git("ls-files", "--", *places) or "").splitlines()
    tables = [name for name in tracked if name.endswith(TABLES)]
    if not tables:
        return []
    return [
        f"corpus {entry.name!r}: Git tracks {len(tables)} tables of it, such as {tables[0]}; "
        "expected none, since its licence does not let them be passed on: git rm --cached them, "
        "and keep the corpus out of the project"
    ]


def _changes(entry: CorpusEntry, *, deep: bool) -> list[str]:
    """Tables and audio files that differ from those that `prepare` read, in one line."""
    folder = Path("data", entry.name, "utterances")
    manifest = with_audio(Manifest.read(folder), folder) if folder.exists() else ()
    changed = changes_since(entry, folder.with_name("labels"))
    remedy = "`dvc repro`"
    for utterance in manifest:
        if utterance.audio is None:
            continue
        path = Path(utterance.audio)
        if not path.is_file():
            changed.append(f"{path} is gone")
        elif path.stat().st_size != utterance.bytes:
            changed.append(f"{path} has {path.stat().st_size} bytes, not {utterance.bytes}")
        elif deep and file_sha256(path) != utterance.sha256:
            changed.append(f"{path} has other content")
            # sources/*.json holds names and sizes alone, so that DVC sees no change.
            remedy = f"`dvc repro --force --single-item {PREPARE.format(corpus=entry.name)}`"
    if not changed:
        return []
    places = "1 place" if len(changed) == 1 else f"{len(changed)} places"
    return [
        f"corpus {entry.name!r}: its root differs in {places} from what data/{entry.name} was "
        f"prepared from, such as: {'; '.join(changed[:3])}. Run {remedy}"
    ]


def slot_problems(params: Params, model: ModelEntry) -> list[str]:
    """Whether the model can be built for its slots."""
    entries = {slot: params.backbone(name) for slot, name in model.slots.items()}
    specs = {slot: _likely_spec(entry) for slot, entry in entries.items() if entry.kind != "none"}

    def build() -> None:
        with torch.device("meta"):
            make_model(model.kind, model.args, specs, classes=2, inputs=model.inputs)

    return _problem(build, f"models.{model.name}: ")


def _likely_spec(entry: BackboneEntry) -> StreamSpec:
    """The backbone's stream, as far as it is known without its weights: bins, or numbers."""
    kind = load(BACKBONES, entry.kind)
    if hasattr(kind, "bins_of"):  # where the option `bins` alone does not tell
        bins = kind.bins_of(**entry.options)
    else:
        option = inspect.signature(kind).parameters.get("bins")
        bins = None if option is None else entry.options.get("bins", option.default)
    return StreamSpec(dim=8) if bins is None else StreamSpec(dim=1, bins=bins)


def checkpoint_problems(params: Params, entry: BackboneEntry) -> list[str]:
    """Whether the weights of a backbone can be loaded, unless its features are extracted."""
    name, revision, package = (entry.options.get(k) for k in ("checkpoint", "revision", "package"))
    folder, left_open = Path("cache", params.corpus, entry.name), leaves_weights_open(entry)
    made, found, here = _extracted(folder, entry), [], None
    # Settings that contradict, a package that is missing, or what another project has not sealed.
    if name is None or in_registry(name):
        return [] if made else _problem(entry.build, f"backbones.{entry.name}: ")
    trusted = bool(entry.options.get("trust_remote_code"))
    checkpoint = Checkpoint(str(name), revision, package, trusted)
    files = getattr(load(BACKBONES, entry.kind), "files", ())
    try:
        if not made:
            checkpoint.look_for(files)
        here = checkpoint.content_here(files) if left_open else None
    except HeronryError as error:
        found += [] if made else [f"backbones.{entry.name}: {error}"]
    # What a cache of another project records is that of its own checkpoint.
    was = made.get("revision") if made.get("kind") == entry.kind else None
    if None not in (was, here) and was != here:
        found.append(f"{folder} was made with other weights than {name!r} has now: {was}")
    return [*found, open_weights(entry, here or was)] if left_open else found


def asked_problems(params: Params) -> list[str]:
    """Whether the selected language model can be asked: its prompt, its weights or its server."""
    entry = params.speech_llm(params.fusion)
    where, labels = f"speech_llms.{entry.name}", Path("data", params.corpus, "labels")
    found = _problem(lambda: Prompt.read(entry.prompt, ("one", "another")), f"{where}: ")
    if (labels / "card.json").exists():
        found += _problem(lambda: check_asked_leaks(entry, params.corpus))
    if entry.kind == ENDPOINT:
        return found + _problem(address, f"{where}: ")
    checkpoint = Checkpoint(
        entry.checkpoint, entry.revision, trust_remote_code=entry.trust_remote_code
    )
    found += _problem(checkpoint.look_for, f"{where}: ")
    if not pinned(entry.revision):
        # Of some kinds more than the weights decides, as code or an adapter, which the run hashes.
        known = "the commit of the hub, or the hash that the run prints"
        found.append(left_open(f"{where}.revision", entry.revision, known))
    return found


def beginning_problems(params: Params) -> list[str]:
    """Whether the run that end-to-end training starts from exists, and is the one intended."""
    init = TuneParams(**params.e2e).beginning  # of the section alone, whatever the model
    return [] if init is None else _problem(lambda: init_folder(init))


def _problem(check: Callable[[], object], prefix: str = "") -> list[str]:
    """The message of the error that `check` raises, if it does."""
    try:
        check()
    except HeronryError as error:
        return [f"{prefix}{error}"]
    return []


def _extracted(folder: Path, entry: BackboneEntry) -> Mapping[str, Any]:
    """The provenance of extracted features that match the entry; else nothing."""
    try:
        found = CacheReader(folder).provenance
    except HeronryError:
        return {}  # missing or damaged, so that extraction will need the weights
    return {} if entry.differences(found) else found


def place_problems() -> Iterator[str]:
    """A line for each output folder that cannot be written, and for a store without locks."""
    try:
        store = store_root()
    except HeronryError as error:
        yield str(error)
    else:
        fault = _fault(store, locked=True)
        if fault is not None:
            yield f"the work store (HERONRY_STORE) {store}: {fault}"
    project = _fault(Path.cwd())
    if project is not None:
        yield f"the project: {project}"
        return
    for name in OUTPUTS:
        fault = _fault(Path.cwd() / name)
        if fault is not None:
            yield f"{name}/: {fault}"


def _fault(folder: Path, *, locked: bool = False) -> HeronryError | None:
    """Why a folder cannot be written; of a missing one, the parent in which it would be made."""
    while not folder.exists() and not folder.is_symlink() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile("w+", dir=folder, prefix=".heronry-") as file:
            file.write(" " * SOME_BYTES)
            file.flush()
            if locked:
                lock(file.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        error.filename = str(folder)
        return machine_error(error)
    return None
