"""Asks a speech language model about a corpus, and writes its run folder.

The folder is that of any run, so that evaluation, comparison and the board take it as such: its
predictions have no probabilities, an answer without a class has an empty prediction, and its
history has no epochs. It has one seed, that of the exemplars.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from features.corpus.labels_folder import read_labelled
from features.corpus.manifest import UNLABELLED, Label, Manifest
from features.corpus.places import with_audio
from features.corpus.utterance import Utterance
from features.errors import ManifestError, ParamsError
from features.files.csv_text import write_csv
from features.files.reasons import count_reasons
from features.files.records import write_json
from features.files.writing import remove_folder
from pipeline.params.speech_llm import ENDPOINT, SpeechLlmEntry
from pipeline.runs.answers import STORE, Answer, AnswersHead, counts, write_answers
from pipeline.runs.layout import FORMAT, HISTORY, SCORED, VERSION, Columns, digests
from pipeline.runtime.environment import environment
from pipeline.speech_llm.asking import Answers, ask, reasons
from pipeline.speech_llm.endpoint import Endpoint
from pipeline.speech_llm.models.base import ModelSettings, SpeechModel, load
from pipeline.speech_llm.prompt import Prompt
from pipeline.speech_llm.questions import Plan, fingerprint, plan
from pipeline.speech_llm.reading import Reader

REGIME = "speech_llm"
_ELSEWHERE = ("name", "kind", "prompt", "trained_on")  # in run.json, besides `args`
_SLACK = 0.05  # seconds by which a recording may exceed what is heard, unsaid


def ask_corpus(entry: SpeechLlmEntry, corpus: str, *, store: Path, device: str = "cpu") -> Path:
    """Ask `speech_llms.<name>` about the scored rows of `corpus`; returns the run folder.

    A run that was killed goes on where it was, and ends with the same files.

    Args:
        entry: Entry of `speech_llms`.
        corpus: Entry of `corpora`; its labels lie below the current folder.
        store: Root of the work store, which keeps the answers.
        device: Where a local model computes.

    Raises:
        HeronryError: If labels, prompt, recordings, checkpoint or server are wrong.
    """
    out = Path("runs", REGIME, corpus, entry.name)
    remove_folder(out)
    about = Corpus.read(corpus)
    prompt = Prompt.read(entry.prompt, about.classes)
    planned = plan(
        about.labels, about.utterances, prompt, about.folds, shots=entry.shots, seed=entry.seed
    )
    started = time.monotonic()
    model = loaded(entry, device)
    answers = answered(entry, planned, model, store, title=f"ask {entry.name} about {corpus}")
    run = _Run(entry, about, planned, answers, out)
    run.report()
    record = run.record(model)
    record |= {
        "train_seconds": round(time.monotonic() - started, 1),
        "environment": environment("cpu" if entry.kind == ENDPOINT else device),
        "files": digests(out),
    }
    write_json(out / "run.json", record)
    return out


def loaded(entry: SpeechLlmEntry, device: str) -> SpeechModel:
    """What answers: the checkpoint of an entry on a device, or its server."""
    if entry.kind == ENDPOINT:
        return Endpoint(entry)
    names = {each.name for each in dataclasses.fields(ModelSettings)}
    given = {name: value for name, value in vars(entry).items() if name in names}
    return load(ModelSettings(**given), device)


def answered(
    entry: SpeechLlmEntry, planned: Plan, model: SpeechModel, store: Path, *, title: str
) -> Answers:
    """Answers to a plan's questions: those in the work store, and the others asked now."""
    # A server fills its batches itself.
    seconds = 0.0 if entry.kind == ENDPOINT else entry.batch_seconds
    facts = {**model.provenance, "batch_seconds": seconds}
    return ask(
        model,
        planned.batches(seconds),
        planned.prompt.system,
        store / STORE / fingerprint(facts, planned.asked),
        title=title,
        side_by_side=entry.requests if entry.kind == ENDPOINT else 1,
    )


@dataclass(frozen=True)
class Corpus:
    """What a corpus has for the questions.

    Attributes:
        name: Entry of `corpora`.
        card: Content of card.json.
        labels: Labels with a class.
        given: Number of labels that a run of classes counts: these, and those without any truth,
            which are not asked about.
        utterances: Utterances of the labels by id, with the paths of their recordings.
    """

    name: str
    card: Mapping[str, Any]
    labels: Sequence[Label]
    given: int
    utterances: Mapping[str, Utterance]

    @classmethod
    def read(cls, name: str) -> Self:
        """Read labels and manifest of `data/<name>`.

        Raises:
            ParamsError: If the corpus names no classes, or its root is not known.
            ManifestError: If a file is missing or malformed, or an utterance is in one alone.
        """
        data = Path("data", name)
        card, labels = read_labelled(data / "labels")
        classed = [label for label in labels if label.label is not None]
        if not classed:
            raise ParamsError(
                f"corpus {name!r} names no classes; expected some, since a language model is asked "
                "for one of them"
            )
        folder = data / "utterances"
        wanted = {label.id for label in classed}
        manifest = with_audio(Manifest.read(folder), folder)
        found = {each.id: each for each in manifest if each.id in wanted}
        lacking = sorted(wanted - found.keys())
        if lacking:
            raise ManifestError(
                f"{folder} lacks {len(lacking)} utterances that have labels, such as "
                f"{lacking[:3]}; expected all of them: run `dvc repro` to prepare the corpus again"
            )
        others = sum(set(label.splits) == {UNLABELLED} for label in labels if label.label is None)
        return cls(name, card, classed, len(classed) + others, found)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.card["classes"])

    @property
    def folds(self) -> int:
        """Number of folds of the protocol."""
        return int(self.card["folds"])


@dataclass(frozen=True)
class _Run:
    """Answers about a corpus, and the files that they become in `out`."""

    entry: SpeechLlmEntry
    about: Corpus
    planned: Plan
    answers: Answers
    out: Path

    @cached_property
    def dropped(self) -> dict[str, str]:
        """Reasons by id of utterances without an answer, in order of the corpus."""
        found = {**self.planned.dropped, **reasons(self.answers, self.planned.rows)}
        return {label.id: found[label.id] for label in self.about.labels if label.id in found}

    def report(self) -> None:
        """Print how many questions were asked, and what is left out.

        Raises:
            ManifestError: If nothing is left.
        """
        title, total = f"ask {self.entry.name} about {self.about.name}", len(self.planned.asked)
        sys.stderr.write(f"{title}: {total} questions, {self.answers.computed} of them asked now\n")
        if not self.dropped:
            return
        lines = [
            f"{count} {reason}" for reason, count in count_reasons(self.dropped.values()).items()
        ]
        said = f"{title}: left out: {'; '.join(lines)}"
        if not self.answers.raw:
            raise ManifestError(f"{said}. Expected recordings that can be asked about")
        sys.stderr.write(f"{said}\n")

    def record(self, model: SpeechModel) -> dict[str, Any]:
        """Write the files of all folds; returns run.json as far as it is known."""
        reader = Reader(self.about.classes, self.entry.synonyms)
        found = [each for fold in range(self.about.folds) for each in self._fold(fold, reader)]
        longest = model.longest_seconds
        scored = {id for _, id in self.planned.rows} - self.dropped.keys()
        seconds = (self.about.utterances[id].seconds or 0.0 for id in scored)
        prompt = self.planned.prompt
        head = AnswersHead(
            prompt=prompt.head(),
            shots=self.entry.shots,
            exemplars=self.planned.exemplars,
            model=model.provenance,
            how=counts(found),
            wordless=len(self.planned.wordless - self.dropped.keys()),
            cut=sum(longest is not None and each > longest + _SLACK for each in seconds),
            trained_on=self.entry.trained_on,
        )
        args = {k: v for k, v in vars(self.entry).items() if k not in _ELSEWHERE}
        return {
            "format": FORMAT,
            "version": VERSION,
            "regime": REGIME,
            "fusion": self.entry.name,
            "kind": self.entry.kind,
            "classes": list(self.about.classes),
            "seeds": [self.entry.seed],
            "folds": self.about.folds,
            "args": args,
            "train": {},
            "utterances": self.about.given - len(self.dropped),
            "dropped": self.dropped,
            "corpus": self.about.name,
            "slots": {},
            "answers": dataclasses.asdict(head),
            "parameters": 0,
        }

    def _fold(self, fold: int, reader: Reader) -> list[Answer]:
        """Write the files of a fold; returns its answers."""
        folder = self.out / f"seed_{self.entry.seed}" / f"fold_{fold}"
        folder.mkdir(parents=True)
        classes = self.about.classes
        rows: list[list[object]] = []
        found: list[Answer] = []
        for split in SCORED:
            for label in self.about.labels:
                if label.splits[fold] != split or label.id in self.dropped:
                    continue
                raw = self.answers.raw[self.planned.rows[fold, label.id]]
                read = reader.read(raw)
                found.append(Answer(label.id, split, raw, read.how, read.label))
                facts = [label.id, label.speaker, label.dialogue or "", split, fold]
                guess = [self.entry.seed, label.class_name, read.label or ""]
                rows.append([*facts, *guess, *("" for _ in classes)])
        header = Columns(("classes",), classes).predictions
        write_csv(folder / "predictions.csv", header, rows)
        write_csv(folder / "history.csv", HISTORY, [])
        write_answers(folder, found)
        return found
