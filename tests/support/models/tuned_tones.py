"""A corpus of tones and a small model on it, for tests of end-to-end training."""

from __future__ import annotations

import dataclasses
import warnings
import zlib
from pathlib import Path
from typing import Any

import soundfile

from features.extraction.extract import extract
from pipeline.e2e.setup import read_manifest
from pipeline.params.file import Params
from tests.conftest import tone
from tests.contracts.checkpoints import speech_encoder, text_encoder
from tests.support.corpora.small_corpus import HEAD, SmallCorpus

RUN = Path("runs/e2e/mine/m")
LABELS = ("happy", "sad")
HERTZ = {"happy": 700.0, "sad": 140.0}
SPLITS = ("train", "train", "train", "train", "valid", "test")


class Tones(SmallCorpus):
    """Six speakers who say eight things; the voice tells the class, high or low.

    Of most a recogniser heard something else.
    """

    def write(self) -> None:
        rows = []
        for speaker, split in enumerate(SPLITS):
            for number in range(8):
                label, name = LABELS[number % 2], f"{speaker}_{number}"
                self.audio(f"{name}.wav", hertz=HERTZ[label] + 10 * speaker + number)
                words = f"this is utterance number {name}"
                heard = words.replace("utterance", "a trance") if number % 3 else ""
                rows.append(f"{name}.wav,{words},,,{label},s{speaker},,{split},{name},{heard}")
        (self.root / "manifest.csv").write_text("\n".join([f"{HEAD},asr", *rows]) + "\n")

    def audio(self, name: str, seconds: float = 0.25, hertz: float = 200.0) -> None:
        length = seconds + zlib.crc32(name.encode()) % 5 / 50
        soundfile.write(self.root / name, tone(hertz, length), 16_000)


def params_of(folder: Path, *, text: str = "words", **e2e: Any) -> Params:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backbones = {
            "none": {},
            "tone": {"dim": 8, "version": 2},
            "words": {"kind": "text_encoder", **text_encoder.VARIANTS["bert"](folder / "bert")},
            "voice": {
                "kind": "speech_encoder",
                **speech_encoder.VARIANTS["hubert_group"](folder / "hubert"),
            },
        }
    model = {
        "kind": "concat",
        "text": text,
        "speech": "voice",
        "prosody": "tone",
        "seeds": 1,
        "args": {"d_model": 16, "dropout": 0.1},
        "train": {"epochs": 6, "batch_size": 8, "lr": 3e-3, "schedule": "constant"},
    }
    return Params(
        "m", "e2e", "mine", None, {}, {"mine": {"kind": "manifest"}}, backbones, {"m": model}, e2e
    )


def cached(params: Params, store: Path, *names: str) -> None:
    for name in names:
        entry = dataclasses.replace(params.backbone(name), store_dtype="float32")
        extract(read_manifest("mine"), entry, Path("cache/mine", name), store=store)


def results() -> dict[str, bytes]:
    """All but run.json, which holds seconds."""
    files = (path for path in RUN.rglob("*") if path.is_file() and path.name != "run.json")
    return {path.relative_to(RUN).as_posix(): path.read_bytes() for path in files}
