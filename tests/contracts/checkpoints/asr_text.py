"""Small random text encoders: those of `text_encoder`, of which one will do."""

from __future__ import annotations

from tests.contracts.checkpoints import text_encoder

VARIANTS = {"bert": text_encoder.VARIANTS["bert"]}
