"""Imports torchaudio's Python layer beside a CPU-only torch.

The Linux wheels of torchaudio 2.11 are linked against CUDA, so that `import torchaudio` fails where
torch has no CUDA libraries. Only its Python functions are used here (mel filter banks), which need
no compiled code: a stand-in for the module that loads the shared library is enough. transformers'
speech feature extractors import torchaudio as well; import this module before them.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import types
from typing import Any

import torch


def _stand_in() -> types.ModuleType:
    module = types.ModuleType("torchaudio._extension")
    module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, loader=None)
    attributes = {
        "_IS_TORCHAUDIO_EXT_AVAILABLE": False,
        "_IS_RIR_AVAILABLE": False,
        "_IS_ALIGN_AVAILABLE": False,
        "fail_if_no_align": lambda function: function,
    }
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


if torch.version.cuda is None:
    sys.modules.setdefault("torchaudio._extension", _stand_in())

torchaudio: Any = importlib.import_module("torchaudio")
functional: Any = importlib.import_module("torchaudio.functional")
