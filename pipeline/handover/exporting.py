"""Writes a run as a folder that loads without its project (`pipeline.handover.layout`)."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from features.corpus.entry import CorpusEntry
from features.exchange.licences import SEVERAL, languages, public_licence
from features.files.reading import check_regular
from features.files.records import write_json
from features.files.writing import check_new, follow_umask, make_folder, share
from features.process.terminal import progress
from features.stream import StreamSpec
from pipeline.e2e.export import BACKBONES
from pipeline.handover.card import Facts, exported_card
from pipeline.handover.layout import (
    CONFIG,
    FORMAT,
    MODEL,
    README,
    RUN,
    VERSION,
    ModelFields,
    files_in,
)
from pipeline.handover.programs import names, write_programs
from pipeline.model.checkpoint import load_model, read_description
from pipeline.predict.recorded import known_entries, newest_versions
from pipeline.predict.trained import Trained, TrainedRun
from pipeline.report.evaluate import evaluate_any
from pipeline.report.model_card import kept_epochs
from pipeline.runs.head import read_head

# Fields of run.json that list utterances or describe one machine, and what stands in their place.
LEFT_OUT: dict[str, Any] = {"dropped": {}, "noticed": {}, "files": {}, "environment": {}}
PACKAGES = ("heronry", "torch", "transformers", "torchaudio", "safetensors", "numpy")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: Number of files.
        bytes: Their size.
        lacking: Reasons why programs were not written, by path.
    """

    files: int
    bytes: int
    lacking: dict[str, str]


def export_run(
    run: TrainedRun, out: Path, labels: Path, corpus: CorpusEntry, *, onnx: bool = False
) -> Exported:
    """Write a run into a folder, which is there only once it is complete.

    Args:
        run: The run, with the models that are to be handed on.
        out: New or empty folder.
        labels: `data/<corpus>/labels`: the test split is scored for the card.
        corpus: Entry of the corpus.
        onnx: Whether to write ONNX programs as well.

    Raises:
        ParamsError: If `out` is not empty, at the end as well.
        HeronryError: If the run or the labels cannot be read.
    """
    check_new(out)
    report, head = evaluate_any(run.path, labels), read_head(run.path)
    make_folder(out.parent)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        steps = progress(run.models, total=len(run.models), what="export", unit="model")
        models = [_write_model(trained, building, onnx=onnx) for trained in steps]
        packages = {name: found for name in PACKAGES if (found := _version(name))}
        write_json(building / RUN, head | LEFT_OUT)
        config = {
            "format": FORMAT,
            "version": VERSION,
            "heronry": packages.get("heronry", "unknown"),
            "tasks": list(run.reader.tasks),
            "models": [asdict(each) for each in models],
            "files": files_in(building),
            "packages": packages,
            "versions": newest_versions(known_entries(None)),
        }
        write_json(building / CONFIG, config)
        facts = Facts(
            report.card,
            report.metrics,
            [kept_epochs(run.path, seed, head["folds"]) for seed in head["seeds"]],
            public_licence(corpus) or SEVERAL,
            languages(corpus),
            models,
            names(onnx=onnx),
            packages,
        )
        (building / README).write_text(exported_card(head, facts), encoding="utf-8")
        check_new(out)  # again: another export may have written it meanwhile
        out.mkdir(exist_ok=True)  # with the rights of a new folder, which one of tempfile has not
        share(out)
        for path in building.iterdir():
            path.rename(out / path.name)
    finally:
        shutil.rmtree(building)
    written = [path for path in out.rglob("*") if path.is_file()]
    lacking = {f"{m.folder}/{name}": why for m in models for name, why in m.lacking.items()}
    return Exported(len(written), sum(path.stat().st_size for path in written), lacking)


def _write_model(trained: Trained, out: Path, *, onnx: bool) -> ModelFields:
    folder = out / trained.name
    folder.mkdir(parents=True)
    for name in MODEL:
        _copy(trained.folder / name, folder / name)
    for path in sorted((trained.folder / BACKBONES).rglob("*")):
        if not path.is_dir():
            place = folder / path.relative_to(trained.folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            _copy(path, place)
    # The streams of the file: a slot may hold one state of a stack, which is what the fusion takes.
    specs = {slot: StreamSpec(**of) for slot, of in read_description(folder)["specs"].items()}
    lacking = write_programs(folder, load_model(folder)[0], specs, onnx=onnx)
    return ModelFields(trained.seed, trained.fold, trained.temperature, lacking)


def _copy(source: Path, target: Path) -> None:
    check_regular(source)
    shutil.copyfile(source, target)
    follow_umask(target)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
