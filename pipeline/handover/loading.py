"""Loads a model to predict with: an exported folder, anywhere, or a run folder of a project.

    model = pipeline.load_run("folder")
    rows = model.predict(["a.wav"], texts=["why would you say that"])

Rows are those of `heronry predict --jsonl` (`pipeline.predict.records`).
"""

from __future__ import annotations

import math
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from features.errors import ParamsError, RunError
from features.settings.locations import device as best_device
from pipeline.handover.layout import CONFIG, Config, read_config
from pipeline.predict.features import SlotFeatures
from pipeline.predict.parts import divided
from pipeline.predict.predictor import Predictor
from pipeline.predict.recorded import known_entries
from pipeline.predict.recordings import Given, Recording, check_ids
from pipeline.predict.records import Columns, Record, record_of
from pipeline.predict.rows import SHORTEST_SECONDS, WINDOW_SECONDS, Row, rows_of
from pipeline.predict.trained import Trained, TrainedRun, assembled, open_run
from pipeline.runs.head import read_head

Words = Sequence[str | None] | None


class LoadedRun:
    """A trained run with its backbones in memory; made by `load_run`.

    Several threads may call `predict`: one computes, the others wait.

    Args:
        run: The run.
        device: Where backbones and models compute.

    Attributes:
        run: The run.
        classes: Names of the classes; none of a run that learns none.
        attributes: Lowest and highest value by attribute.
        slots: Filled slots, such as text and speech.
        reads: What each slot's backbone reads: audio, text or asr.
        reads_asr: Whether one reads recognised words beside others that are known.

    Raises:
        HeronryError: If weights of a backbone are missing, or are not those of the run.
    """

    def __init__(self, run: TrainedRun, device: str) -> None:
        self.run = run
        self.classes = list(run.outputs.classes)
        self.attributes = {name: run.outputs.scales[name] for name in run.outputs.attributes}
        self.slots = run.slots
        self._device, self._lock = device, threading.Lock()
        scratch = Path(tempfile.mkdtemp(prefix="heronry-"))
        weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)
        self._predictors = [
            Predictor(run, group, device, scratch / str(group)) for group in range(len(run.groups))
        ]
        first = self._predictors[0]
        self.reads = {slot: first.backbone(slot).reads for slot in self.slots}
        self.reads_asr = first.reads_asr

    def predict(
        self,
        files: Sequence[str | Path | None],
        *,
        texts: Words = None,
        asr: Words = None,
        dialogues: Words = None,
        window: float = WINDOW_SECONDS,
    ) -> list[Record]:
        """Predict recordings, all of them in batches.

        Args:
            files: Audio files of any format that extraction reads, each once; None: words alone.
            texts: Words of each; None, as a list or in it: not known.
            asr: What a recogniser heard of each, for a model that was trained on it.
            dialogues: Conversation of each, for a model over dialogues; turns come in this order.
                None, as a list: all are one conversation.
            window: Seconds of a piece of a recording without words, at most; 0: none is divided.

        Returns:
            A row for each recording, or for each piece of a long one, in order: `prediction`,
            `p_<class>`, `v_<attribute>`, `without_<slot>`, `missing`, `error` and the others of
            docs/predict.md. One that cannot be predicted has its reason in `error`, and None
            elsewhere.

        Raises:
            ParamsError: If the arguments do not fit each other.
        """
        if not (window == 0 or SHORTEST_SECONDS <= window < math.inf):
            raise ParamsError(
                f"window: given {window:g}; expected 0 (nothing is divided), or at least "
                f"{SHORTEST_SECONDS:g} s"
            )
        given = Given(_recordings(files, texts, asr, dialogues), table=dialogues is not None)
        found = rows_of(given, window=window, dialogues=self.run.unit == "dialogue")
        rows = [row for some in found for row in some]
        records: dict[int, Record] = {}
        with self._lock:
            for part in self.in_parts(rows):
                records |= part
        return [records[place] for place in range(len(rows))]

    def in_parts(
        self, rows: Sequence[Row], *, recognised: bool = False
    ) -> Iterator[dict[int, Record]]:
        """Predict rows in parts of bounded size; for a thread that alone has the model.

        Args:
            rows: Rows with ids of their own; those of a dialogue come together.
            recognised: Whether records have a column for recognised words.

        Yields:
            Records of a part by place in `rows`. Until the next part, `features` are its own.
        """
        columns = Columns.of(self.run, recognised=recognised)
        for places in divided(rows, self.run, self._device).places:
            answers = []
            for predictor in self._predictors:
                for _ in predictor.answers([rows[place] for place in places]):
                    pass
                answers.append(predictor.found)
            yield {
                place: record_of(self.run, rows[place], of, columns)
                for place, *of in zip(places, *answers, strict=True)
            }

    @property
    def features(self) -> dict[str, SlotFeatures]:
        """Features by slot of the part that was predicted last, of the first seed and fold."""
        return self._predictors[0].features


def load_run(
    folder: str | Path,
    *,
    device: str | None = None,
    seed: int | None = None,
    fold: int | None = None,
    trust_remote_code: bool = False,
) -> LoadedRun:
    """Load a model: see `pipeline.load_run`."""
    path = Path(folder)
    if (path / CONFIG).is_file():
        run = _exported(path, read_config(path), seed, fold)
    elif path.is_dir():
        run = open_run(path, seed=seed, fold=fold)
    else:
        raise RunError(
            f"there is no folder {path}; expected one that `heronry export` wrote, or a run folder"
        )
    for slot, of in run.groups[0].slots.items():
        if of.used.options.get("trust_remote_code") and not trust_remote_code:
            raise RunError(
                f"{path}: the {slot} slot runs code of the checkpoint "
                f"{of.used.options.get('checkpoint')}; expected `trust_remote_code=True` "
                "(`heronry serve --trust-remote-code`), if you have read that code"
            )
    return LoadedRun(run, device or best_device())


def _exported(folder: Path, config: Config, seed: int | None, fold: int | None) -> TrainedRun:
    chosen = [
        Trained(each.seed, each.fold, folder / each.folder, each.temperature)
        for each in config.models
        if seed in (None, each.seed) and fold in (None, each.fold)
    ]
    if not chosen:
        there = ", ".join(each.folder for each in config.models)
        raise RunError(f"{folder}: given seed {seed}, fold {fold}; expected one of {there}")
    # The settings of a project that happens to be here are not asked.
    known = known_entries(None)
    return assembled(folder, read_head(folder), config.tasks, chosen, known, config.versions)


def _recordings(
    files: Sequence[str | Path | None], texts: Words, asr: Words, dialogues: Words
) -> tuple[Recording, ...]:
    columns = {"files": files, "texts": texts, "asr": asr, "dialogues": dialogues}
    for name, given in columns.items():
        if isinstance(given, str | Path):
            raise ParamsError(f"{name}: given {str(given)!r}; expected a list: [{str(given)!r}]")
        if given is not None and len(given) != len(files):
            raise ParamsError(
                f"{name}: given {len(given)} for {len(files)} files; expected one for each, or "
                "None in its place"
            )
    found = []
    for place, file in enumerate(files):
        audio = None if file is None else Path(file)
        words, heard, dialogue = (
            None if column is None else column[place] for column in (texts, asr, dialogues)
        )
        id = f"text {place}" if file is None else str(file)
        found.append(Recording(id, audio, text=words, asr=heard, dialogue=dialogue))
    check_ids(found)
    return tuple(found)
