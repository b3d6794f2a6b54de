"""One last layer of K + A + G columns, sliced by name; classes alone leave models as they were."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from features.stream import StreamSpec
from pipeline.model.checkpoint import make_model
from pipeline.model.outputs import Outputs
from tests.support.models.small_fusions import ALL, SMALL, count, specs_of

SCALES = {"valence": (1.0, 7.0), "arousal": (-1.0, 1.0)}
BOTH = Outputs(("calm", "angry"), ("valence", "arousal"), ("female", "male"), SCALES)


def specs(width: int, *slots: str) -> dict[str, StreamSpec]:
    return {slot: StreamSpec(width) for slot in slots}


def test_columns_are_classes_attributes_genders() -> None:
    columns = torch.arange(6.0).expand(3, 2, 6)
    assert BOTH.of_classes(columns)[0, 0].tolist() == [0, 1]
    assert BOTH.of_attributes(columns)[0, 0].tolist() == [2, 3]
    assert BOTH.of_genders(columns)[0, 0].tolist() == [4, 5]
    linked = Outputs(BOTH.classes, BOTH.attributes, (), SCALES, "sigmoid")
    assert torch.allclose(linked.of_attributes(columns[..., :4]), columns[..., 2:4].sigmoid())


def test_files_say_it_all_and_nothing_of_classes_alone() -> None:
    alone = Outputs(("calm", "angry"))
    assert alone.to_dict() == {}
    assert Outputs.of(["calm", "angry"]) == alone
    several = Outputs(("calm", "angry"), binary=True)
    for outputs in (BOTH, several, Outputs((), ("valence",), (), {"valence": (1.0, 7.0)})):
        written = json.loads(json.dumps(outputs.to_dict()))
        assert Outputs.of(outputs.classes, written) == outputs


def test_values_return_to_the_corpus_scale_clipped_and_counted() -> None:
    values = np.array([[1.0, -1.0], [4.0, 0.5], [np.nan, 1.0]])
    back, clipped = BOTH.to_corpus(BOTH.to_unit(values))
    assert np.allclose(back, values, equal_nan=True)
    assert clipped.tolist()[1] == 0
    found, clipped = BOTH.to_corpus(np.array([[-0.1, 0.5], [1.2, 1.1], [0.0, 1.0]]))
    assert found.tolist() == [[1, 0], [7, 1], [1, 1]]
    assert clipped.tolist() == [2, 1]


def test_sigmoids_are_shared_out_where_a_distribution_is_needed() -> None:
    logits = torch.tensor([[0.0, 2.0, -1.0]])
    several = Outputs(("a", "b", "c"), binary=True)
    assert several.probabilities(logits).sum() == pytest.approx(1)
    assert torch.allclose(several.several(logits), logits.sigmoid())
    assert torch.allclose(Outputs(("a", "b", "c")).probabilities(logits), logits.softmax(1))


@pytest.mark.parametrize("kind", ALL)
def test_an_output_more_is_a_column_of_the_last_layer_more(kind: str) -> None:
    """No module is added, whatever the output is."""
    models = [make_model(kind, SMALL[kind], specs_of(kind), width) for width in (4, 5, 8)]
    names = [list(model.state_dict()) for model in models]
    assert names[0] == names[1] == names[2]
    each = count(models[1]) - count(models[0])
    assert count(models[2]) - count(models[1]) == 3 * each


SWIGLU = {"classifier": "swiglu", "hidden": 768}


@pytest.mark.parametrize(
    ("kind", "args", "slots", "counts"),
    [
        # The formulas of the last layers; totals as for 8 classes in the papers' files.
        (
            "heron",
            {},
            specs(768, "text", "speech", "nonverbal"),
            {8: 7619336, 11: 7620107, 3: 7618051},
        ),
        (
            "concat",
            {},
            {"speech": StreamSpec(1280), "text": StreamSpec(1024)},
            {8: 2238472, 11: 2241547},
        ),
        ("lpgnet", {}, specs(768, "text", "speech"), {4: 18313740, 7: 18320661, 3: 18311433}),
    ],
)
def test_parameters_of_the_papers_models(
    kind: str, args: dict[str, int], slots: dict[str, StreamSpec], counts: dict[int, int]
) -> None:
    for width, expected in counts.items():
        with torch.device("meta"):
            assert count(make_model(kind, args, slots, width)) == expected
