"""Checkpoints load in the hub's layouts, only what was meant, and run code only where trusted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from features.errors import CheckpointError, MachineError, ParamsError
from pipeline.speech_llm.models import _quantised, base
from pipeline.speech_llm.models._local import LocalModel
from pipeline.speech_llm.models.base import KINDS, Kind, ModelSettings, Quantisation, load
from tests.pipeline.speech_llm.models.conftest import read
from tests.support.models.questions import question

Folders = Callable[[Kind], Path]
Models = Callable[[Kind], LocalModel]
ASKED = [question("a", 9_000, 4_000), question("b", 20_000, seed=1)]


@pytest.fixture
def copy(folders: Folders, tmp_path: Path) -> Callable[[Kind], Path]:
    """A copy of a kind's folder, for changes."""

    def copied(kind: Kind) -> Path:
        return Path(shutil.copytree(folders(kind), tmp_path / kind))

    return copied


def test_every_kind_is_a_file_of_the_folder() -> None:
    found = {path.stem for path in Path(base.__file__).parent.glob("[a-z]*.py")}
    assert found - {"base"} == set(KINDS)


def test_small_checkpoints_have_the_published_layout(folders: Folders) -> None:
    """Older than the names of the networks: transformers renames weights as it reads and writes."""
    parts = {"audio_tower", "language_model", "multi_modal_projector"}
    assert {name.split(".")[0] for name in stored(folders("qwen2_audio"))} == parts
    parts = {"audio_tower", "visual", "model", "lm_head"}
    assert {name.split(".")[0] for name in stored(folders("qwen2_5_omni"))} == parts


def stored(folder: Path) -> list[str]:
    """Names of the weights in a folder."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return list(file.keys())


def test_the_thinker_of_a_whole_qwen_omni(models: Models, copy: Callable[[Kind], Path]) -> None:
    """The published folder holds the part that speaks as well, which is left out."""
    folder = copy("qwen2_5_omni")
    path = folder / "model.safetensors"
    tensors = {f"thinker.{name}": value for name, value in load_file(path).items()}
    save_file({**tensors, "talker.model.norm.weight": torch.ones(8)}, path, {"format": "pt"})
    thinker = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    whole = {"model_type": "qwen2_5_omni", "thinker_config": thinker, "enable_audio_output": False}
    (folder / "config.json").write_text(json.dumps(whole), encoding="utf-8")
    assert read("qwen2_5_omni", folder).answers(ASKED) == models("qwen2_5_omni").answers(ASKED)


def test_phi_hears_with_its_adapter_and_the_projections_of_its_file(
    models: Models, folders: Folders
) -> None:
    """Transformers would make those anew, were the adapter called `speech`."""
    model = models("phi4_multimodal")
    read_from = load_file(folders("phi4_multimodal") / "model.safetensors")
    own = model.network.state_dict()
    projections = [name for name in read_from if "_for_speech" in name]
    assert len(projections) == 4
    assert all(torch.equal(own[name], read_from[name]) for name in projections)
    assert model.network.active_adapters() == ["heard"]
    inputs = model.inputs(ASKED)
    with torch.inference_mode():
        adapted = model.network(**inputs).logits
        model.network.disable_adapters()
        plain = model.network(**inputs).logits
        model.network.enable_adapters()
    assert (adapted - plain).abs().max() > 0.01


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_phi_without_its_adapter_is_refused(copy: Callable[[Kind], Path], file: str) -> None:
    folder = copy("phi4_multimodal")
    (folder / "speech-lora" / file).unlink()
    with pytest.raises(CheckpointError, match=rf"lacks speech-lora/{file}\n  download"):
        read("phi4_multimodal", folder)


def test_an_adapter_of_another_network_is_refused(copy: Callable[[Kind], Path]) -> None:
    folder = copy("phi4_multimodal")
    path = folder / "speech-lora" / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"speech-lora of checkpoint .* lacks 1 weights"):
        read("phi4_multimodal", folder)


def test_an_adapter_that_leads_to_other_code_is_refused(copy: Callable[[Kind], Path]) -> None:
    folder = copy("phi4_multimodal")
    path = folder / "speech-lora" / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "megatron_config": {"a": 1}}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"megatron_config.*leads to code of another"):
        read("phi4_multimodal", folder)


@pytest.mark.parametrize("file", ["model.safetensors", "speech-lora/adapter_model.safetensors"])
def test_other_weights_than_the_revision_names_are_refused(
    models: Models, copy: Callable[[Kind], Path], file: str
) -> None:
    """Of the adapter too."""
    revision = str(models("phi4_multimodal").provenance["revision"])
    folder = copy("phi4_multimodal")
    assert read("phi4_multimodal", folder, revision=revision).provenance["weights"] == revision
    tensors = load_file(folder / file)
    save_file({name: value + 1 for name, value in tensors.items()}, folder / file)
    with pytest.raises(CheckpointError, match=f"has revision {revision}; found sha256:"):
        read("phi4_multimodal", folder, revision=revision)


def test_weights_that_are_left_open_are_told(
    folders: Folders, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = read("qwen2_5_omni", folders("qwen2_5_omni"))
    revision = model.provenance["revision"]
    expected = "speech_llms.small.revision: given null, which leaves open which weights are meant"
    assert expected in (told := capsys.readouterr().err)
    assert f"`revision: {revision}`" in told
    read("qwen2_5_omni", folders("qwen2_5_omni"), revision=revision)
    assert "revision" not in capsys.readouterr().err
    monkeypatch.setenv("DVC_STAGE", "speech_llm")
    with pytest.raises(CheckpointError, match=expected):
        read("qwen2_5_omni", folders("qwen2_5_omni"))


def test_weights_that_need_unpickling_are_not_read(copy: Callable[[Kind], Path]) -> None:
    folder = copy("qwen2_5_omni")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"expected safetensors"):
        read("qwen2_5_omni", folder)


def test_weights_that_do_not_fit_are_told_with_what_helps(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    folder = folders("qwen2_5_omni")  # written by the class that fails from here on
    monkeypatch.setattr("transformers.Qwen2_5OmniThinkerForConditionalGeneration.__init__", full)
    with pytest.raises(MachineError, match=r"do not fit the memory of cpu \(CUDA out .*small.quan"):
        read("qwen2_5_omni", folder)


def test_a_checkpoint_of_another_kind_is_refused(folders: Folders) -> None:
    with pytest.raises(CheckpointError, match=r"lacks <\|AUDIO\|>, .* expected one of kind qwen2_"):
        read("qwen2_audio", folders("phi4_multimodal"))


def test_a_checkpoint_that_is_nowhere(kind: Kind) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    settings = ModelSettings(
        "small", kind, "nobody/nothing", commit, trust_remote_code=kind == "meralion"
    )
    with pytest.raises(
        CheckpointError, match=r"cannot load checkpoint 'nobody/nothing' .*\n  down"
    ):
        load(settings)


def test_provenance_is_the_same_wherever_the_folder_lies(
    model: LocalModel, copy: Callable[[Kind], Path]
) -> None:
    kind = model.settings.kind
    again = read(kind, copy(kind)).provenance
    assert {**again, "checkpoint": ""} == {**model.provenance, "checkpoint": ""}
    assert json.loads(json.dumps(again)) == again
    assert again["dtype"] == "float32"
    assert again["decoding"] == "greedy"


def test_code_of_a_checkpoint_runs_only_where_it_is_trusted(folders: Folders) -> None:
    with pytest.raises(ParamsError, match=r"speech_llms.small.trust_remote_code: given false"):
        read("meralion", folders("meralion"), trust_remote_code=False)


@pytest.mark.parametrize("revision", [None, "main", "sha256:" + "0" * 64])
def test_code_of_a_hub_is_named_by_a_commit(revision: str | None) -> None:
    settings = ModelSettings("x", "meralion", "MERaLiON/M-2", revision, trust_remote_code=True)
    with pytest.raises(ParamsError, match=r"speech_llms.x.revision: given .*expected the commit"):
        load(settings)


def test_code_that_was_changed_does_not_run(models: Models, copy: Callable[[Kind], Path]) -> None:
    revision = models("meralion").provenance["revision"]
    folder = copy("meralion")
    read("meralion", folder, revision=revision)
    trace = folder / "trace"
    with (folder / "modeling.py").open("a", encoding="utf-8") as file:
        file.write(f"\nPath({str(trace)!r}).touch()\n")
    with pytest.raises(CheckpointError, match=f"has revision {revision}; found sha256:"):
        read("meralion", folder, revision=revision)
    assert not trace.exists()
    read("meralion", folder)  # whoever trusts any code of the folder runs it
    assert trace.exists()


def test_remote_code_is_imported_under_the_folder_that_was_named(models: Models) -> None:
    assert type(models("meralion").network).__module__.startswith("transformers_modules")


@pytest.mark.parametrize("how", ["int8", "nf4", "int8wo", "int4wo"])
def test_quantised_weights_need_their_package(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, how: Quantisation
) -> None:
    monkeypatch.setitem(_quantised.PACKAGES, how, "absent")
    with pytest.raises(ParamsError, match=rf"small.quantise: given '{how}', which needs the pack"):
        read("qwen2_audio", folders("qwen2_audio"), quantise=how)


@pytest.mark.parametrize("how", ["int8", "nf4", "int4wo"])
def test_quantised_weights_need_a_gpu(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, how: Quantisation
) -> None:
    monkeypatch.setitem(_quantised.PACKAGES, how, "torch")
    with pytest.raises(ParamsError, match=rf"given '{how}' on the CPU; expected a GPU"):
        read("qwen2_audio", folders("qwen2_audio"), quantise=how)


@pytest.mark.filterwarnings("ignore")  # torchao's own, as it is imported
@pytest.mark.parametrize("kind", ["qwen2_audio", "qwen2_5_omni", "phi4_multimodal"])
def test_linear_layers_of_the_language_model_are_quantised(models: Models, kind: Kind) -> None:
    """And neither the audio encoder nor the last layer; answers stay near."""
    pytest.importorskip("torchao", reason="the extra heronry[quantised] is not installed")
    whole = models(kind)
    model = read(kind, Path(whole.settings.checkpoint), quantise="int8wo")
    quantised = {name for name, value in model.network.named_parameters() if is_int8(value)}
    assert {name.split("layers.0.")[0] for name in quantised if "layers.0" in name} == {
        "model." if kind == "phi4_multimodal" else "model.language_model."
    }
    kept = ("audio", "projector", "visual", "embed", "lm_head")
    assert not any(word in name for name in quantised for word in kept)
    inputs = whole.inputs(ASKED)
    with torch.inference_mode():
        exact, near = (one.network(**inputs).logits[:, -1] for one in (whole, model))
    assert "torchao" in model.provenance
    assert 0 < (exact - near).abs().max() < 0.1 * exact.abs().max()


def is_int8(weight: Any) -> bool:
    return type(weight).__name__ == "Int8Tensor"


def test_settings_of_bitsandbytes() -> None:
    """They are not run here: that needs a GPU."""
    pytest.importorskip("bitsandbytes", reason="the extra heronry[quantised] is not installed")
    device, dtype = torch.device("cuda"), torch.bfloat16
    settings = ModelSettings("x", "qwen2_audio", "c", quantise="nf4")
    found = _quantised.quantised(settings, device, dtype, ["audio_tower"]).to_dict()
    assert found["load_in_4bit"]
    assert found["bnb_4bit_quant_type"] == "nf4"
    assert found["bnb_4bit_compute_dtype"] == "bfloat16"
    assert found["llm_int8_skip_modules"] == [r".*\baudio_tower", r".*\blm_head"]
    settings = ModelSettings("x", "qwen2_audio", "c", quantise="int8")
    assert _quantised.quantised(settings, device, dtype, []).to_dict()["load_in_8bit"]
