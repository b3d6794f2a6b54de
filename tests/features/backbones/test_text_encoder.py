"""Text encoders equal transformers'; limits of length; refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from features.backbones.text_encoder import MASKED, TextEncoder
from features.corpus.utterance import Utterance
from features.errors import CheckpointError, ParamsError
from features.weights.tensors import read_tensors
from tests.contracts.checkpoints import text_encoder

TEXT = Utterance("a", text="this is utterance number this")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("text")
    for name, write in text_encoder.VARIANTS.items():
        write(root / name)
    return {name: root / name for name in text_encoder.VARIANTS}


def frames_of(backbone: TextEncoder, *utterances: Utterance) -> list[torch.Tensor]:
    with torch.inference_mode():
        return backbone(backbone.prepare(utterances)).unpad()


@pytest.mark.parametrize("variant", text_encoder.VARIANTS)
def test_states_are_those_of_transformers(variant: str, folders: dict[str, Path]) -> None:
    from transformers import AutoModel, AutoTokenizer

    checkpoint = str(folders[variant])
    tokens = AutoTokenizer.from_pretrained(checkpoint)(TEXT.text, return_tensors="pt")
    tokens.pop("token_type_ids", None)
    keywords = {"add_pooling_layer": False} if variant in {"bert", "roberta", "albert"} else {}
    network = AutoModel.from_pretrained(checkpoint, **keywords).eval()
    with torch.inference_mode():
        expected = network(**tokens, output_hidden_states=True).hidden_states
    assert len(expected) == 4
    for layer in range(4):
        (frames,) = frames_of(TextEncoder(checkpoint=checkpoint, layer=layer), TEXT)
        assert torch.allclose(frames, expected[layer][0], atol=1e-6)
    (stack,) = frames_of(TextEncoder(checkpoint=checkpoint, layer=[2, 0]), TEXT)
    assert torch.allclose(stack, torch.cat([expected[2], expected[0]], dim=-1)[0], atol=1e-6)


@pytest.mark.parametrize("variant", text_encoder.VARIANTS)
def test_later_layers_are_not_computed_if_they_can_be_removed(
    variant: str, folders: dict[str, Path]
) -> None:
    whole, cut = (
        sum(
            p.numel()
            for p in TextEncoder(checkpoint=str(folders[variant]), layer=n).network.parameters()
        )
        for n in (-1, 1)
    )
    assert (cut < whole) == (variant != "albert")  # its layers are one and the same


def test_checkpoints_are_found_below_the_named_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text_encoder.write(tmp_path / "tiny_bert", **text_encoder.SIZES)
    monkeypatch.setenv("HERONRY_CHECKPOINTS", str(tmp_path))
    provenance = TextEncoder(checkpoint="somebody/tiny_bert").provenance()
    assert provenance["checkpoint"] == "somebody/tiny_bert"


def leak(family: str) -> float:
    """Relative change by padding of a random network's states, with an attention mask."""
    from transformers import AutoConfig, AutoModel

    sizes = text_encoder.SIZES
    if family == "distilbert":
        sizes = {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32}
    config = AutoConfig.for_model(family, vocab_size=50, **sizes)
    network = AutoModel.from_config(config).eval()
    torch.manual_seed(0)
    with torch.inference_mode():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.5)
        ids, lengths = torch.randint(5, 50, (3, 20)), [20, 7, 2]
        mask = (torch.arange(20) < torch.tensor(lengths)[:, None]).long()
        ids[mask == 0] = config.pad_token_id or 0
        together = network(ids, attention_mask=mask).last_hidden_state
        worst = 0.0
        for row, n in enumerate(lengths):
            alone = network(ids[row, None, :n], attention_mask=mask[row, None, :n])
            difference = (together[row, :n] - alone.last_hidden_state[0]).abs().max()
            worst = max(worst, float(difference / alone.last_hidden_state.abs().max()))
    return worst


@pytest.mark.parametrize("family", sorted(MASKED))
def test_a_mask_is_enough_for_these_families(family: str) -> None:
    assert leak(family) <= 1e-5


def test_a_mask_is_not_enough_for_others() -> None:
    assert leak("convbert") > 0.1


def test_special_tokens_are_kept(folders: dict[str, Path]) -> None:
    for variant in ("bert", "roberta"):
        backbone = TextEncoder(checkpoint=str(folders[variant]))
        ids = backbone.prepare([TEXT]).tensors["input_ids"][0].tolist()
        tokenizer: Any = backbone.tokenizer
        assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        (empty,) = frames_of(backbone, Utterance("b", text=""))
        assert len(empty) == 2


def test_texts_end_at_the_position_table(folders: dict[str, Path]) -> None:
    """RoBERTa's first position is padding index + 1: 66 positions hold 64 tokens."""
    long = Utterance("b", text="this is " * 400)
    roberta = TextEncoder(checkpoint=str(folders["roberta"]))
    assert roberta.max_tokens == 64
    assert [len(f) for f in frames_of(roberta, TEXT, long)][1] == 64
    bert = TextEncoder(checkpoint=str(folders["bert"]), max_tokens=20)
    assert [len(f) for f in frames_of(bert, TEXT, long)] == [7, 20]
    with pytest.raises(ParamsError, match=r"max_tokens 65 of .*expected 3 .* to 64"):
        TextEncoder(checkpoint=str(folders["roberta"]), max_tokens=65)


def test_more_than_512_tokens_only_on_demand(tmp_path: Path) -> None:
    sizes = {**text_encoder.SIZES, "max_position_embeddings": 700}
    checkpoint = str(text_encoder.write(tmp_path, **sizes)["checkpoint"])
    assert TextEncoder(checkpoint=checkpoint).max_tokens == 512
    assert TextEncoder(checkpoint=checkpoint, max_tokens=700).max_tokens == 700


def test_a_final_norm_is_not_applied_to_layers_below_it(tmp_path: Path) -> None:
    from transformers import AutoModel

    sizes = {**text_encoder.SIZES, "pad_token_id": 0}
    checkpoint = str(text_encoder.write(tmp_path, "RobertaPreLayerNorm", **sizes)["checkpoint"])
    backbone = TextEncoder(checkpoint=checkpoint, layer=1)
    tokens = backbone.prepare([TEXT]).tensors
    network = AutoModel.from_pretrained(checkpoint).eval()
    with torch.inference_mode():
        states = network(**tokens, output_hidden_states=True).hidden_states
    (frames,) = frames_of(backbone, TEXT)
    assert torch.allclose(frames, states[1][0], atol=1e-6)


def test_older_names_of_weights_are_loaded(tmp_path: Path) -> None:
    """As in google-bert/bert-base-uncased: a prefix, and norms with gamma and beta."""
    checkpoint = str(text_encoder.write(tmp_path, **text_encoder.SIZES)["checkpoint"])
    expected = TextEncoder(checkpoint=checkpoint).provenance()["weights_sha256"]
    path = tmp_path / "model.safetensors"
    renamed = {}
    for name, tensor in read_tensors(path).items():
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        renamed["bert." + old.replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
    save_file(renamed, path, metadata={"format": "pt"})
    assert TextEncoder(checkpoint=checkpoint).provenance()["weights_sha256"] == expected


def test_identity_of_the_tokenizer_is_that_before_its_use(folders: dict[str, Path]) -> None:
    backbone = TextEncoder(checkpoint=str(folders["bert"]))
    before = backbone.provenance()
    frames_of(backbone, TEXT, Utterance("b", text="is"))
    assert backbone.provenance() == before
    other = TextEncoder(checkpoint=str(folders["roberta"])).provenance()
    assert other["tokenizer_sha256"] != before["tokenizer_sha256"]


def test_encoder_decoders_are_refused(tmp_path: Path) -> None:
    from transformers import T5Config

    text_encoder.write(tmp_path, **text_encoder.SIZES)
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"is a t5; expected a text encoder alone"):
        TextEncoder(checkpoint=str(tmp_path))


def test_code_of_a_checkpoint_runs_only_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the user at the terminal answers yes to transformers' question."""
    folder, proof = tmp_path / "code", tmp_path / "ran"
    text_encoder.write(folder, **text_encoder.SIZES)
    path = folder / "config.json"
    marks = {"auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    settings = json.loads(path.read_text()) | {"model_type": "unheard-of", **marks}
    path.write_text(json.dumps(settings))
    (folder / "code.py").write_text(
        f"open({str(proof)!r}, 'w').close()\nraise ValueError('it did run')\n"
    )
    monkeypatch.setattr("builtins.input", lambda _: "y")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    with pytest.raises(CheckpointError, match="contains custom code"):
        TextEncoder(checkpoint=str(folder))
    assert not proof.exists()
    with pytest.raises(CheckpointError, match="it did run"):
        TextEncoder(checkpoint=str(folder), trust_remote_code=True)
    assert proof.exists()


def test_parameter_counts_of_the_public_networks() -> None:
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    roberta = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    with torch.device("meta"):
        networks = {
            124_055_040: RobertaModel(RobertaConfig(**roberta), add_pooling_layer=False),
            354_310_144: RobertaModel(
                RobertaConfig(**roberta, **large, intermediate_size=4096), add_pooling_layer=False
            ),
            109_482_240: BertModel(BertConfig()),
        }
    for count, network in networks.items():
        assert sum(p.numel() for p in network.parameters()) == count
