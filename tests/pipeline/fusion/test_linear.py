"""The linear baseline: its size, its formula, and that it finds what scikit-learn finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from features.errors import ParamsError
from features.stream import Stream, StreamSpec
from pipeline.fusion.linear import Linear
from pipeline.model.batch import Batch

TWO = {"speech": StreamSpec(dim=3), "text": StreamSpec(dim=2)}


def test_two_embeddings_of_768_and_four_classes_have_6148_parameters() -> None:
    model = Linear({"text": StreamSpec(dim=768), "speech": StreamSpec(dim=768)}, 4)
    assert sum(parameter.numel() for parameter in model.parameters()) == 6_148


@torch.inference_mode()
def test_logits_are_a_linear_map_of_both_time_averages() -> None:
    model = Linear(TWO, 4)
    speech, text = [torch.randn(t, 3) for t in (5, 2)], [torch.randn(t, 2) for t in (1, 4)]
    means = torch.stack(
        [torch.cat([t.mean(0), s.mean(0)]) for t, s in zip(text, speech, strict=True)]
    )
    found = model(Batch({"speech": Stream.pad(speech), "text": Stream.pad(text)})).logits
    expected = means @ model.classifier.weight.T + model.classifier.bias
    assert torch.allclose(found, expected, atol=1e-6)


def test_minimum_of_its_loss_is_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(60, 3)).astype(np.float32), rng.integers(0, 3, 60)
    oracle = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(vectors, labels)
    model = Linear({"text": StreamSpec(dim=3)}, 3)
    stream = Stream(torch.from_numpy(vectors)[:, None], torch.ones(60, 1, dtype=torch.bool))
    batch = Batch({"text": stream}, torch.from_numpy(labels))
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, tolerance_grad=1e-9)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        # scikit-learn's C: half the squared weights beside the sum of the losses
        loss = 60 * model.loss(model(batch), batch) + model.classifier.weight.square().sum() / 2
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    shares = model(batch).logits.softmax(1).detach().numpy()
    np.testing.assert_allclose(shares, oracle.predict_proba(vectors), atol=1e-3)


def test_bins_are_refused() -> None:
    with pytest.raises(ParamsError, match="linear: the text slot holds bins"):
        Linear({"text": StreamSpec(dim=1, bins=256)}, 4)
