"""What the columns of a model's output mean: classes, then attributes, then genders, by name.

A fusion has one last layer of width O = K + A + G and knows nothing else of its targets. [0, 1] is
the scale of attributes inside training, u = (y - low) / (high - low); files hold the corpus's own.

Shapes: N rows, K classes, A attributes, G genders, O outputs; `...` any leading axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Link = Literal["identity", "sigmoid"]
GENDERS = ("female", "male")


@dataclass(frozen=True)
class Outputs:
    """Columns of a model's output, by name.

    Attributes:
        classes: Names of the classes, K columns of logits; empty without a task about classes.
        attributes: Names of the attributes, A columns.
        genders: Genders of the speaker, G columns of logits.
        scales: Lowest and highest value by attribute, on the corpus's own scale.
        link: From a column of an attribute to [0, 1]: the column itself, or its sigmoid.
        binary: Whether each class has a sigmoid of its own, for several at once, in place of one
            softmax over all.
    """

    classes: tuple[str, ...]
    attributes: tuple[str, ...] = ()
    genders: tuple[str, ...] = ()
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)
    link: Link = "identity"
    binary: bool = False

    @property
    def width(self) -> int:
        """Number of columns O."""
        return len(self.classes) + len(self.attributes) + len(self.genders)

    @property
    def classes_alone(self) -> bool:
        """Whether there is nothing but classes, with one softmax over all."""
        return not (self.attributes or self.genders or self.binary)

    @property
    def low(self) -> NDArray[np.float64]:
        """Lowest values of the attributes, `[A]`."""
        return np.array([self.scales[name][0] for name in self.attributes], np.float64)

    @property
    def high(self) -> NDArray[np.float64]:
        """Highest values of the attributes, `[A]`."""
        return np.array([self.scales[name][1] for name in self.attributes], np.float64)

    def of_classes(self, outputs: Tensor) -> Tensor:
        """Logits of the classes, `[..., K]`."""
        return outputs[..., : len(self.classes)]

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Distribution over the classes, `[..., K]`; of sigmoids, their shares of their sum."""
        if not self.binary:
            return self.of_classes(outputs).softmax(-1)
        each = self.several(outputs)
        return each / each.sum(-1, keepdim=True)

    def several(self, outputs: Tensor) -> Tensor:
        """Probability of each class by itself, `[..., K]`, which need not sum to 1."""
        return self.of_classes(outputs).sigmoid()

    def of_attributes(self, outputs: Tensor) -> Tensor:
        """Predicted attributes, `[..., A]`, where [0, 1] is the scale; they may lie outside."""
        start = len(self.classes)
        columns = outputs[..., start : start + len(self.attributes)]
        return columns.sigmoid() if self.link == "sigmoid" else columns

    def of_genders(self, outputs: Tensor) -> Tensor:
        """Logits of the genders, `[..., G]`."""
        return outputs[..., len(self.classes) + len(self.attributes) :]

    def to_unit(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values `[N, A]` of the corpus's scale where [0, 1] is the scale; NaN stays NaN."""
        return (values - self.low) / (self.high - self.low)

    def to_corpus(
        self, units: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Predictions `[N, A]` on the corpus's scale, clipped to it, and how many were clipped."""
        values = self.low + units * (self.high - self.low)
        clipped = np.clip(values, self.low, self.high)
        return clipped, (clipped != values).sum(0)

    def to_dict(self) -> dict[str, Any]:
        """Field `outputs` of model.json; empty with classes alone, as in older files."""
        if self.classes_alone:
            return {}
        scales = {name: list(self.scales[name]) for name in self.attributes}
        found = {"attributes": scales, "genders": list(self.genders), "link": self.link}
        return found | ({"binary": True} if self.binary else {})

    @classmethod
    def of(cls, classes: Sequence[str], given: Mapping[str, Any] | None = None) -> Self:
        """Outputs by the fields `classes` and `outputs` of model.json."""
        given = given or {}
        scales = {name: (low, high) for name, (low, high) in given.get("attributes", {}).items()}
        return cls(
            tuple(classes),
            tuple(scales),
            tuple(given.get("genders", ())),
            scales,
            given.get("link", "identity"),
            given.get("binary", False),
        )
