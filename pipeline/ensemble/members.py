"""Finds and reads the members of an ensemble: run folders of this project, or DVC's experiments.

DVC's templates know no lists, so that a stage cannot depend on the folders of the members. A small
stage that always runs records what they hold in `sources/ensembles/<corpus>/<name>.json`, and the
ensemble depends on that file (docs/ensembles.md).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from features.arguments import Record, one_of
from features.corpus.leak_gate import read_leaks
from features.corpus.sources import write_record
from features.errors import HeronryError, ParamsError, RunError
from features.files.reading import file_sha256
from features.files.records import read_record
from pipeline.evaluation.identity import RunIdentity
from pipeline.evaluation.run_folder import RunFolder
from pipeline.params.ensembles import EnsembleEntry
from pipeline.params.selection import REGIMES
from pipeline.runs.head import read_head
from pipeline.storage.experiments import finished

FORMAT = {"format": "heronry-members", "version": 1}
_RUN, _PREDICTIONS = "run.json", "predictions.csv"
_STAGES = {"cached": "train", "e2e": "e2e", "ensemble": "ensemble", "speech_llm": "speech_llm"}


@dataclass(frozen=True)
class MemberFiles(Record):
    """SHA-256 of what an ensemble reads of a member: run.json, and predictions.csv by path."""

    run: str
    predictions: Mapping[str, str]


@dataclass(frozen=True)
class MembersFile:
    """The fields of `sources/ensembles/<corpus>/<name>.json`."""

    format: Literal["heronry-members"]
    version: Literal[1]
    members: Mapping[str, MemberFiles]


@dataclass(frozen=True)
class Member:
    """A member.

    Attributes:
        name: Its name in `members`.
        run: Its run folder; the files of an experiment are gone when it has been read.
        head: Content of its run.json.
        leaks: Content of its leaks.json; None where it has none.
    """

    name: str
    run: RunFolder
    head: Mapping[str, Any]
    leaks: Mapping[str, Any] | None


def record_path(corpus: str, name: str) -> Path:
    """Path of the record of an ensemble's members."""
    return Path("sources", "ensembles", corpus, f"{name}.json")


def renew_members(entry: EnsembleEntry, corpus: str) -> str | None:
    """Update the record of an ensemble's members.

    Returns:
        None, or why the record stays as it is: a member is not on this machine.

    Raises:
        ParamsError: If a member is missing and there is no record of the same members.
        RunError: If a member cannot be read.
    """
    path = record_path(corpus, entry.name)
    try:
        found = {name: _files(name, corpus) for name in entry.members}
    except ParamsError as error:
        if not path.is_file():
            raise
        kept = read_record(path, MembersFile, "restore it from Git", RunError)["members"]
        if list(kept) != list(entry.members):
            raise
        return str(error)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, {**FORMAT, "members": found})
    return None


def member_problems(entry: EnsembleEntry, corpus: str) -> list[str]:
    """Members that are not on this machine, one line each; none where a record of them is kept."""
    if record_path(corpus, entry.name).is_file():
        return []  # a clone takes the ensemble itself from the remote
    names = {each.name for each in finished()}
    return [
        str(_missing(name, corpus))
        for name in entry.members
        if not ((_folder(name, corpus) / _RUN).is_file() if "/" in name else name in names)
    ]


def read_member(name: str, corpus: str) -> Member:
    """Read a member.

    Raises:
        ParamsError: If there is no such run or experiment.
        HeronryError: If its files are damaged, or of another corpus.
    """
    with _opened(name, corpus) as folder:
        run = RunFolder.read(folder)
        if run.corpus != corpus:
            raise RunError(f"{name} is a run on {run.corpus!r}; expected one on {corpus!r}")
        return Member(name, run, read_head(folder), read_leaks(folder))


def _files(name: str, corpus: str) -> dict[str, Any]:
    with _opened(name, corpus) as folder:
        tables = sorted(folder.glob(f"seed_*/fold_*/{_PREDICTIONS}"))
        return {
            "run": file_sha256(folder / _RUN),
            "predictions": {
                path.relative_to(folder).as_posix(): file_sha256(path) for path in tables
            },
        }


@contextmanager
def _opened(name: str, corpus: str) -> Iterator[Path]:
    """A member's run folder; of an experiment a copy without weights, in a temporary folder."""
    if "/" in name:
        folder = _folder(name, corpus)
        if not (folder / _RUN).is_file():
            raise _missing(name, corpus)
        yield folder
        return
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _fetch(name, corpus, folder)
        try:
            yield folder
        except HeronryError as error:
            # The message would name temporary files, which the user has never seen.
            raise type(error)(str(error).replace(temporary, name)) from error


def _folder(name: str, corpus: str) -> Path:
    regime, _, run = name.partition("/")
    if regime not in REGIMES or not run or "/" in run or run.startswith("."):
        raise ParamsError(
            f"member {name!r}; expected <regime>/<name> such as cached/heron, with one of the "
            f"regimes {list(REGIMES)}, or the name of an experiment"
        )
    return Path("runs", regime, corpus, run)


def _missing(name: str, corpus: str) -> ParamsError:
    if "/" not in name:
        known = [each.name for each in finished()]
        return ParamsError(
            f"member {name!r}: no experiment of that name; expected {one_of(name, known)}, or "
            "<regime>/<name> such as cached/heron; `dvc exp pull <git remote> NAME` fetches a team "
            "mate's"
        )
    folder = _folder(name, corpus)
    stage = _STAGES[folder.parts[1]]
    target = f"stages/{stage}/dvc.yaml:{stage}@{folder.name}"
    return ParamsError(
        f"member {name!r}: {folder} is not there; expected a finished run of {corpus!r}: "
        f"`dvc repro {target}` makes it, `dvc pull {target}` downloads a team mate's"
    )


def _fetch(name: str, corpus: str, folder: Path) -> None:
    """Copy the files of an experiment's run that evaluation reads, by DVC.

    Raises:
        ParamsError: If there is no such experiment.
        RunError: If DVC has no such files, or the run is on another corpus.
    """
    if name not in {each.name for each in finished()}:
        raise _missing(name, corpus)
    # DVC takes a second to import, and most members are folders.
    from dvc.api import DVCFileSystem  # type: ignore[import-untyped]
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]

    try:
        files = DVCFileSystem(rev=name)
        whose = RunIdentity.read(json.loads(files.read_bytes("reports/metrics.json")))
        if whose is None or whose.run_corpus != corpus:
            found = "an older release's" if whose is None else f"{whose.line()}"
            raise RunError(f"member {name!r} is {found}; expected a run on {corpus!r}")
        run = f"runs/{whose.run_regime}/{corpus}/{whose.run_fusion}"
        _copy(files, f"{run}/{_RUN}", folder / _RUN)
        head = read_head(folder)
        jobs = [f"seed_{k}/fold_{j}" for k in head["seeds"] for j in range(head["folds"])]
        older = [f"{job}/{each}" for job in jobs for each in (_PREDICTIONS, "history.csv")]
        for each in head.get("files") or older:
            _copy(files, f"{run}/{each}", folder / each)
        with contextlib.suppress(FileNotFoundError):  # an older release wrote none
            _copy(files, f"{run}/leaks.json", folder / "leaks.json")
    except (DvcException, OSError, ValueError) as error:
        raise RunError(
            f"member {name!r}: cannot read its run ({error}); if it is not in DVC's cache, run "
            f"`dvc exp pull <git remote> {name}`"
        ) from error


def _copy(files: Any, source: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(files.read_bytes(source))
