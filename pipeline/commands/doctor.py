"""`heronry doctor`: check that caches are intact and match params.yaml; repair them.

A cache is read completely and compared with its format, with data/<corpus>/utterances, and with its
entry of `backbones`. A checkpoint that changed under its name is only found by --weights, which
loads the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import typer

from features.backbone.entry import BackboneEntry, provenance_differences
from features.corpus.manifest import Manifest
from features.doctor.folder import CacheFacts, check_against, check_cache
from features.doctor.quarantine import MENDED, dvc_objects, quarantine
from features.doctor.shards import Fault
from features.errors import HeronryError, ManifestError, ParamsError
from features.settings.locations import store_root
from features.transcription.transcripts import as_read
from pipeline.params.file import Params, read_params
from pipeline.storage.dvc_command import extract_stage
from pipeline.storage.inventory import cache_folders


def doctor(folders: Sequence[Path] | None, *, repair: bool = False, weights: bool = False) -> None:
    """Read caches completely and report every fault; exit status 1 if there are any."""
    faulty = False
    for folder in caches(folders or ()):
        found = examine(folder, weights=weights)
        for line in found.lines():
            typer.echo(line)
        for line in found.mend() if repair else ():
            typer.echo(f"     {line}")
        faulty |= any(not repair or fault.remedy not in MENDED for fault in found.cache.faults)
    if faulty:
        raise typer.Exit(1)


@dataclass
class Diagnosis:
    """Faults of one cache folder.

    Attributes:
        cache: The folder as it was read.
        manifest: Utterances that it should hold; None where `prepare` has not run here.
        listed: Whether params.yaml has the corpus and the backbone, so that DVC has a stage.
        params: params.yaml, where it is there.
        notes: Remarks that are no faults.
    """

    cache: CacheFacts
    manifest: Manifest | None = None
    listed: bool = False
    params: Params | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def stage(self) -> str:
        """DVC's name of the stage that writes the folder."""
        assert self.params is not None  # it is listed
        return extract_stage(self.params, *_names(self.cache.folder))

    def lines(self) -> Iterator[str]:
        """Each fault with its remedy, or one line that there is none."""
        for fault in self.cache.faults:
            yield f"bad  {fault.path}: {fault.text}{self._advice(fault)}"
        for note in self.notes:
            yield f"note {self.cache.folder}: {note}"
        if not self.cache.faults:
            yield f"ok   {self.cache.folder}: {self._size()}"

    def mend(self) -> Iterator[str]:
        """Move damaged files into quarantine, yielding a line for each step."""
        if any(fault.remedy in MENDED for fault in self.cache.faults):
            objects = dvc_objects(_project(self.cache.folder))
            yield from quarantine(self.cache, self.manifest, store=store_root(), objects=objects)
            if self.listed:
                yield f"now run `dvc repro {self.stage}`"

    def _size(self) -> str:
        shards = self.cache.shards
        counts = {
            "rows": sum(len(shard.ids) for shard in shards),
            "frames": sum(int(shard.lengths.sum()) for shard in shards),
            "bytes": sum(shard.bytes for shard in shards),
            "shards": len(shards),
            "rejected": len(self.cache.rejected or ()),
        }
        return ", ".join(f"{count:,} {what}" for what, count in counts.items())

    def _advice(self, fault: Fault) -> str:
        if fault.remedy == "own":
            return ""
        if not self.listed:
            return ". Delete the folder, or extract it again where params.yaml has its backbone"
        if fault.remedy in MENDED:
            repair = f"heronry doctor --repair {self.cache.folder}"
            return f". Run `{repair}`, then `dvc repro {self.stage}`"
        return f". Run `dvc repro {self.stage}`, with `--force --single-item` if DVC sees no change"


def caches(folders: Sequence[Path]) -> list[Path]:
    """The folders given, or all of cache/<corpus>/<backbone>.

    Raises:
        ParamsError: If one that is given is no folder, or there is none at all.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ParamsError(
                f"{folder} is no folder; expected one such as cache/demo/minilm: run `dvc repro` "
                "or `dvc pull`"
            )
    found = list(folders) or cache_folders()
    if not found:
        raise ParamsError("there are no caches below cache/; run `dvc repro` or `dvc pull`")
    return found


def examine(folder: Path, *, weights: bool = False) -> Diagnosis:
    """Find the faults of one cache folder.

    Args:
        folder: `cache/<corpus>/<backbone>`; data/ and params.yaml are expected beside cache/.
        weights: Also load the backbone and compare the hash of its weights.
    """
    found = Diagnosis(check_cache(folder))
    cache = found.cache
    entry = _entry(found)
    if entry is not None and entry.kind == "none":
        if cache.shards or cache.unusable:
            cache.faults.append(Fault(folder, "holds shards, but its entry is of kind `none`"))
        return found
    _read_manifest(found, entry)
    if found.manifest is not None:
        cache.faults.extend(check_against(cache, found.manifest))
    elif not (cache.shards or cache.unusable or cache.rejected):
        cache.faults.append(Fault(folder, "holds no shards"))
    if entry is not None and cache.shards:
        cache.faults.extend(_stale(cache, entry, weights=weights))
    return found


def _read_manifest(found: Diagnosis, entry: BackboneEntry | None) -> None:
    corpus, _ = _names(found.cache.folder)
    utterances = _project(found.cache.folder) / "data" / corpus / "utterances"
    if not utterances.exists():
        found.notes.append(f"ids are not compared, as there is no data/{corpus}/utterances")
        return
    try:
        found.manifest = Manifest.read(utterances)
        if entry is not None:
            assert found.params is not None
            heard = found.params.transcripts(corpus, entry.name)
            if heard is not None:
                heard = utterances.with_name(heard.name)
            found.manifest = as_read(found.manifest, entry, heard)
    except ManifestError as error:
        found.cache.faults.append(Fault(utterances, str(error), "own"))


def _entry(found: Diagnosis) -> BackboneEntry | None:
    """The folder's entry in params.yaml, if it has one."""
    path = _project(found.cache.folder) / "params.yaml"
    if not path.exists():
        found.notes.append("settings are not compared, as there is no params.yaml")
        return None
    found.params, (corpus, backbone) = read_params(path), _names(found.cache.folder)
    params = found.params
    if corpus not in params.corpora or backbone not in params.all_backbones:
        what = f"backbone {backbone!r}" if corpus in params.corpora else f"corpus {corpus!r}"
        found.notes.append(
            f"params.yaml has no {what} any more, so settings are not compared; delete the "
            "folder if nobody needs it"
        )
        return None
    found.listed = True
    try:
        return params.backbone(backbone)
    except ParamsError as error:
        found.cache.faults.append(Fault(path, str(error), "own"))
        return None


def _stale(cache: CacheFacts, entry: BackboneEntry, *, weights: bool) -> Iterator[Fault]:
    """Settings in which the shards differ from the entry in params.yaml."""
    first = cache.shards[0]
    if any(shard.provenance != first.provenance for shard in cache.shards):
        return  # check_cache has reported that they differ from each other
    differing = entry.differences(first.provenance)
    if weights:
        try:
            backbone = entry.build()
        except HeronryError as error:
            yield Fault(cache.folder, f"its weights cannot be compared: {error}", "own")
        else:
            if backbone.spec != first.spec:
                text = f"is stale: frames were {first.spec}, are {backbone.spec}"
                yield Fault(cache.folder, text)
            differing = provenance_differences(first.provenance, entry.provenance(backbone))
    if differing:
        changes = (
            f"{key} was {was!r}, is {now!r}" for key, (was, now) in sorted(differing.items())
        )
        yield Fault(cache.folder, f"is stale: {'; '.join(changes)}")


def _names(folder: Path) -> tuple[str, str]:
    """Corpus and backbone of a cache folder; a symbolic link is not followed."""
    whole = folder.absolute()
    return whole.parent.name, whole.name


def _project(folder: Path) -> Path:
    """The project of `<project>/cache/<corpus>/<backbone>`."""
    parents = folder.absolute().parents
    return parents[min(2, len(parents) - 1)]
