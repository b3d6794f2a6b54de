"""Quantised weights: the settings of bitsandbytes and torchao that transformers loads them with.

Only linear layers of the language model are quantised: audio encoders are small, and lose most.
int8 is LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339), nf4 that of QLoRA (2023, 2305.14314).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch

from features.errors import ParamsError
from pipeline.speech_llm.models.base import ModelSettings, Quantisation

PACKAGES: dict[Quantisation, str] = {
    "int8": "bitsandbytes",
    "nf4": "bitsandbytes",
    "int8wo": "torchao",
    "int4wo": "torchao",
}
NEED_GPU: tuple[Quantisation, ...] = ("int8", "nf4", "int4wo")
GROUP = 128  # weights that share a scale in int4wo


def quantised(
    settings: ModelSettings, device: torch.device, dtype: torch.dtype, kept: Sequence[str]
) -> Any:
    """What `from_pretrained` takes as `quantization_config`; None for `quantise: none`.

    Args:
        settings: The entry.
        device: Device that the network will run on.
        dtype: Precision of activations, and of what is not quantised.
        kept: Names of modules that are not quantised.

    Raises:
        ParamsError: If the package is missing, or a GPU that it needs.
    """
    how, where = settings.quantise, f"speech_llms.{settings.name}.quantise"
    if how == "none":
        return None
    package = PACKAGES[how]
    if importlib.util.find_spec(package) is None:
        raise ParamsError(
            f"{where}: given {how!r}, which needs the package {package}; expected it to be "
            "installed: run `pip install -e '.[quantised]'` in a clone, or set `quantise: none`"
        )
    if how in NEED_GPU and device.type == "cpu":
        raise ParamsError(
            f"{where}: given {how!r} on the CPU; expected a GPU: set `quantise: int8wo` or "
            "`quantise: none`, or run it on a machine with a GPU"
        )
    # Regular expressions of transformers, which match from the beginning of a module's name.
    return _configuration(how, dtype, [rf".*\b{name}" for name in (*kept, "lm_head")])


def _configuration(how: Quantisation, dtype: torch.dtype, kept: list[str]) -> Any:
    if PACKAGES[how] == "bitsandbytes":
        from transformers import BitsAndBytesConfig

        if how == "int8":
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=kept,
        )
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    weights = Int8WeightOnlyConfig() if how == "int8wo" else Int4WeightOnlyConfig(group_size=GROUP)
    return TorchAoConfig(weights, modules_to_not_convert=kept)
