"""Names of the files and columns of a run folder, `runs/<regime>/<corpus>/<fusion>/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from features.files.reading import file_sha256
from pipeline.params.training import monitors_of

FORMAT, VERSION = "heronry-run", 1  # of run.json
TARGETS_VERSION = 2  # of run.json where more than classes is learnt
SCORED = ("valid", "test")  # splits that predictions.csv holds

# Columns of the files in seed_<k>/fold_<j>/ with classes alone. Where there are probabilities,
# `p_<class>` follow.
HISTORY = (
    *("seed", "fold", "epoch", "lr", "train_loss", "valid_loss", "valid_accuracy", "valid_uar"),
    *("valid_macro_f1", "valid_weighted_f1", "best"),
)
PREDICTIONS = ("id", "speaker", "dialogue", "split", "fold", "seed", "label", "prediction")
PROBES = ("id", "slot", "label", "prediction")
CONDITIONS = ("id", "condition", "label", "prediction")
LAYERS = ("id", "split", "label")  # of the probes of hidden states; `<slot>_<number>` follow
MEMBERS = ("id", "member", "label", "prediction")  # of an ensemble, its members' test predictions

# Files there whose hashes run.json holds.
FILES = (
    *("predictions.csv", "unlabelled.csv", "history.csv", "probes.csv", "conditions.csv"),
    *("model.json", "answers.jsonl", "members.csv", "layers.csv"),
)


@dataclass(frozen=True)
class Columns:
    """Columns of the files of a run, by what it learns.

    Cells are empty where a truth is unknown: `label`, `t_<class>` (shares of the raters' votes),
    `y_<attribute>` (on the corpus's scale); `prediction` is empty without a task about classes, and
    where a language model named no class. All `p_<class>` are empty if it gives no probabilities.
    `p_<class>` and `g_<gender>` are probabilities, `v_<attribute>` predictions on that scale. A
    model that decides class by class (`vote_loss: multilabel_bce`) has `m_<class>` beside: the
    probability of each by itself, where `p_<class>` are their shares of their sum.

    Attributes:
        tasks: What the model learns.
        classes: Classes, if it learns classes or votes.
        attributes: Attributes.
        genders: Genders.
        binary: Whether the model decides class by class.
    """

    tasks: tuple[str, ...]
    classes: tuple[str, ...]
    attributes: tuple[str, ...] = ()
    genders: tuple[str, ...] = ()
    binary: bool = False

    @classmethod
    def of(cls, head: Mapping[str, Any]) -> Self:
        """Columns by run.json."""
        targets = head.get("targets")
        if targets is None:
            return cls(("classes",), tuple(head["classes"]))
        return cls(
            tuple(targets["tasks"]),
            tuple(head["classes"]),
            tuple(targets["attributes"]),
            tuple(targets["genders"]),
            targets["losses"].get("votes") == "multilabel_bce",
        )

    @property
    def classes_alone(self) -> bool:
        """Whether the files are those of a run that learns one class an utterance."""
        return self.tasks == ("classes",)

    @property
    def history(self) -> tuple[str, ...]:
        """Columns of history.csv."""
        if self.classes_alone:
            return HISTORY
        losses = [f"{split}_{task}_loss" for task in self.tasks for split in ("train", "valid")]
        metrics = [f"valid_{name}" for name in monitors_of(self.tasks, self.attributes)]
        return (*HISTORY[: HISTORY.index("valid_accuracy")], *losses, *metrics, "best")

    @property
    def predictions(self) -> tuple[str, ...]:
        """Columns of predictions.csv and unlabelled.csv."""
        truth = self._named("t", self.classes) if "votes" in self.tasks else ()
        return (
            *PREDICTIONS,
            *self._named("p", self.classes),
            *truth,
            *self._named("y", self.attributes),
            *self._named("v", self.attributes),
            *self._named("g", self.genders),
            *(self._named("m", self.classes) if self.binary else ()),
        )

    @property
    def probes(self) -> tuple[str, ...]:
        """Columns of probes.csv."""
        return (*PROBES, *self._named("p", self.classes), *self._named("v", self.attributes))

    @property
    def conditions(self) -> tuple[str, ...]:
        """Columns of conditions.csv."""
        if self.classes_alone:
            return CONDITIONS
        return (*CONDITIONS, *self._named("p", self.classes), *self._named("v", self.attributes))

    @staticmethod
    def _named(prefix: str, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{prefix}_{name}" for name in names)


def layer_column(slot: str, number: int) -> str:
    """Column of layers.csv of a hidden state."""
    return f"{slot}_{number}"


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of the files of every (seed, fold) of a run folder, for run.json."""
    found = (path for name in FILES for path in run.glob(f"seed_*/fold_*/{name}"))
    return {path.relative_to(run).as_posix(): file_sha256(path) for path in sorted(found)}
