"""XEUS calls ESPnet as documented: a stand-in, and ESPnet itself where it is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from features.backbones.xeus import Xeus, _check_parts
from features.errors import CheckpointError, ParamsError, UtteranceError
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints.xeus import repository
from tests.support.models import espnet_stand_in

BLOCKS, WIDTH = 3, 16
SECONDS = [0.5, 1.3, 0.11]


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Options of a small XEUS of the stand-in's, even where ESPnet is installed."""
    for name, module in espnet_stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return repository(tmp_path / "xeus")


def weights_file(entry: dict[str, Any]) -> Path:
    return Path(entry["checkpoint"]) / "model" / "xeus_checkpoint_new.pth"


def rewrite(entry: dict[str, Any], change: Any) -> None:
    content = torch.load(weights_file(entry), weights_only=True)
    change(content["module"])
    torch.save(content, weights_file(entry))


def frames_of(backbone: Xeus, utterances: Any) -> list[Tensor]:
    with torch.inference_mode():
        return backbone(backbone.prepare(list(utterances))).unpad()


def test_utterances_run_one_by_one_without_mask(
    entry: dict[str, Any], make_manifest: ManifestMaker
) -> None:
    backbone = Xeus(**entry)
    frames = frames_of(backbone, make_manifest(SECONDS))
    samples = [round(16_000 * seconds) for seconds in SECONDS]
    network: Any = backbone.network
    assert [call["shape"] for call in network.calls] == [(1, length) for length in samples]
    assert [call["lengths"].tolist() for call in network.calls] == [[n] for n in samples]
    assert [call["use_mask"] for call in network.calls] == [False] * len(samples)
    assert [len(states) for states in frames] == [(n - 400) // 320 + 1 for n in samples]


def test_espnet_gets_tensors_and_no_weight_file(entry: dict[str, Any]) -> None:
    """It would unpickle a file."""
    backbone = Xeus(**entry)
    config = str(Path(entry["checkpoint"]) / "model" / "config.yaml")
    assert espnet_stand_in.SSLTask.built == (config, None, "cpu")
    state = backbone.network.state_dict()
    stored = torch.load(weights_file(entry), weights_only=True)["module"]
    assert all(torch.equal(state[name], stored[name]) for name in state)
    assert not any(name.startswith(("losses", "util_modules")) for name in state)
    assert not backbone.network.training


def test_layers_are_the_outputs_of_the_blocks(
    entry: dict[str, Any], make_manifest: ManifestMaker
) -> None:
    (utterance,) = make_manifest([0.6])
    whole = Xeus(**entry)
    network: Any = whole.network
    inputs = whole.prepare([utterance]).tensors
    with torch.inference_mode():
        final, states, _ = network.inference_encode(inputs["samples"], inputs["lengths"])
    for number, state in enumerate(states, 1):
        one = Xeus(**entry, layer=number)
        cut: Any = one.network
        assert len(cut.encoder.encoders) == number
        assert torch.equal(frames_of(one, [utterance])[0], state[0])
        (same,) = frames_of(Xeus(**entry, layer=number - BLOCKS - 1), [utterance])
        assert torch.equal(same, state[0])
    (normed,) = frames_of(Xeus(**entry, final_norm=True), [utterance])
    assert torch.equal(normed, final[0])
    assert not torch.equal(normed, states[-1][0])
    (below,) = frames_of(Xeus(**entry, layer=2, final_norm=True), [utterance])
    assert torch.equal(below, states[1][0])
    stack = Xeus(**entry, layer="all")
    assert (stack.spec.layers, stack.spec.dim) == (BLOCKS, BLOCKS * WIDTH)
    assert torch.equal(frames_of(stack, [utterance])[0], torch.cat(states, dim=-1)[0])


@pytest.mark.parametrize("layer", [0, -4, [1, 0]])
def test_input_of_the_first_block_is_refused(entry: dict[str, Any], layer: Any) -> None:
    with pytest.raises(ParamsError, match=r"layer (0|-4) .*expected 1 to 3 or -3 to -1"):
        Xeus(**entry, layer=layer)


def test_no_block_is_dropped_in_training(
    entry: dict[str, Any], make_manifest: ManifestMaker
) -> None:
    backbone = Xeus(**entry, layer="all")
    (utterance,) = make_manifest([0.3])
    (expected,) = frames_of(backbone, [utterance])
    backbone.network.train()
    for _ in range(5):
        assert torch.equal(frames_of(backbone, [utterance])[0], expected)


def test_provenance_has_all_that_decides_the_numbers(entry: dict[str, Any]) -> None:
    entry |= {"revision": "0123abc"}
    first = Xeus(**entry).provenance()
    assert first == Xeus(**entry).provenance()
    assert first["checkpoint"] == "xeus"
    assert first["layer"] == BLOCKS
    rewrite(entry, lambda tensors: tensors["losses.0.bias"].add_(1))
    assert Xeus(**entry).provenance() == first
    rewrite(entry, lambda tensors: tensors["encoder.encoders.0.conv.bias"].add_(1))
    assert Xeus(**entry).provenance()["weights_sha256"] != first["weights_sha256"]
    config = Path(entry["checkpoint"]) / "model" / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8") + "seed: 1\n", encoding="utf-8")
    assert Xeus(**entry).provenance()["config_sha256"] != first["config_sha256"]


def test_a_weight_file_beside_its_configuration_suffices(entry: dict[str, Any]) -> None:
    named = Xeus(checkpoint=str(weights_file(entry)))
    assert named.provenance()["weights_sha256"] == Xeus(**entry).provenance()["weights_sha256"]
    weights_file(entry).with_name("config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"has no config.yaml beside it"):
        Xeus(checkpoint=str(weights_file(entry)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("encoder.after_norm.bias"), r"1 missing \['encoder.after_norm.bias'\]"),
        (lambda t: t.update({"encoder.x": torch.ones(1)}), r"1 unexpected \['encoder.x'\]"),
        (lambda t: t.update({"preencoder.bias": torch.ones(3)}), r"do not fit.*size mismatch"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    entry: dict[str, Any], change: Any, message: str
) -> None:
    rewrite(entry, change)
    with pytest.raises(CheckpointError, match=f"(?s){message}"):
        Xeus(**entry)


def test_a_configuration_that_espnet_cannot_use_is_an_error(entry: dict[str, Any]) -> None:
    (Path(entry["checkpoint"]) / "model" / "config.yaml").write_text("encoder: x\n")
    with pytest.raises(CheckpointError, match=r"cannot build a network.*KeyError"):
        Xeus(**entry)


def test_a_configuration_that_fetches_parts_is_refused(entry: dict[str, Any]) -> None:
    path = Path(entry["checkpoint"]) / "model" / "config.yaml"
    path.write_text(path.read_text().replace("frontend: wav2vec_cnn", "frontend: s3prl"))
    with pytest.raises(CheckpointError, match=r"'frontend': 's3prl', which ESPnet fetches"):
        Xeus(**entry)


def test_without_espnet_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in espnet_stand_in.modules():
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CheckpointError, match=r"(?s)pip install -e '\.\[xeus\]'.*\.pth"):
        Xeus(checkpoint=str(tmp_path))


def test_too_short_audio_is_refused(entry: dict[str, Any], make_manifest: ManifestMaker) -> None:
    with pytest.raises(UtteranceError, match=r"399 samples.*at least 400"):
        Xeus(**entry).prepare(list(make_manifest([399 / 16_000])))


def test_with_espnet_itself_batched_equals_single(
    tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    pytest.importorskip("espnet2.tasks.ssl", reason="the extra heronry[xeus] is not installed")
    if sys.modules["espnet2.tasks.ssl"].SSLTask is espnet_stand_in.SSLTask:
        pytest.skip("the extra heronry[xeus] is not installed")
    backbone = Xeus(**repository(tmp_path / "xeus"), layer="all")
    utterances = list(make_manifest(SECONDS))
    for frames, utterance in zip(frames_of(backbone, utterances), utterances, strict=True):
        assert frames.shape[1] == BLOCKS * WIDTH
        assert torch.equal(frames, frames_of(backbone, [utterance])[0])


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9) if n else 1}]" for n in range(12)),
        "frontend: !!python/object:os.system x",
        "frontend: " + "[" * 5000,
    ],
)
def test_malformed_configurations_do_not_reach_espnet(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ParamsError, match=r"config\.yaml is no YAML: line \d+"):
        _check_parts(tmp_path / "config.yaml")
