"""Cost of hours of speech under each backbone: bytes, shards, operations, machine hours.

    python -m benchmarks.scaling.costs [--json] [--hours 100]

An hour is taken as 720 utterances of 5 s with 75 characters each. Bytes come from the arithmetic of
features/extraction/forecast.py. Operations are those that benchmarks/shared/flops.py counted for a
clip of 5 s (in benchmarks/results/*-extraction-cpu.json); of networks that are not there they are
counted here, without computing anything. Hours of two cores come from the rates in that file; of
networks that are not there, by operations from the rate of their like. Hours of a GPU are an
estimate and no
measurement: 0.4 of the peak of an A100 in bfloat16.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.shared.networks import whisper_config
from features.audio import torchaudio_cpu  # noqa: F401  transformers imports torchaudio
from features.backbone.base import Reads
from features.corpus.manifest import Manifest
from features.extraction.forecast import cache_bytes
from features.extraction.plan import Cut
from features.extraction.sizes import Sizes
from features.stream import StreamSpec

PEAK, FRACTION = 312e12, 0.4  # FLOP/s of an A100 in bfloat16, dense; the part that is reached
CLIP_SECONDS, CHARACTERS, CLIPS = 5.0, 75, 720  # of a clip; clips an hour
RATE = 16_000
WINDOW = 3000  # frames of Whisper's 30 s
HARVEST = 8.0 * 2  # seconds of audio a second on two cores: features/backbones/f0.py
SPECS = {
    "roberta-base": StreamSpec(768),
    "hubert-base": StreamSpec(768, hop_seconds=0.02),
    "hubert-large": StreamSpec(1024, hop_seconds=0.02),
    "wavlm-base": StreamSpec(768, hop_seconds=0.02),
    "emotion2vec": StreamSpec(768, hop_seconds=0.02),
    "whisper-tiny": StreamSpec(384, hop_seconds=0.02),
    "whisper-large-v3": StreamSpec(1280, hop_seconds=0.02),
    "ced-small": StreamSpec(384, hop_seconds=0.16),
    "rmvpe": StreamSpec(1, bins=256, hop_seconds=0.02),
    "f0-harvest": StreamSpec(1, bins=256, hop_seconds=0.02),
}
LIKE = {"hubert-large": "hubert-base", "whisper-large-v3": "whisper-tiny"}
RESULTS = sorted(Path(__file__).parents[1].joinpath("results").glob("*-extraction-cpu.json"))
Row = dict[str, Any]


def main(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    hours: Annotated[float, typer.Option(help="Of speech.")] = 100.0,
) -> None:
    """Count, and print a row for each backbone."""
    measured = json.loads(RESULTS[-1].read_text(encoding="utf-8"))["backbones"]
    rows = {name: _row(name, measured, hours) for name in SPECS}
    if as_json:
        print(json.dumps(rows))
        return
    for name, row in rows.items():
        print(f"{name:18}" + "  ".join(f"{key} {value}" for key, value in row.items()))


def _row(name: str, measured: dict[str, Row], hours: float) -> Row:
    clips = round(CLIPS * hours)
    seconds = clips * CLIP_SECONDS
    cut = Cut(0, (0, clips), "", clips, seconds, seconds, clips * CHARACTERS)
    spec, limits = SPECS[name], Manifest("c", ())
    audio = spec.hop_seconds is not None
    reads: Reads = "audio" if audio else "text"
    frames, pooled = (
        cache_bytes([cut], Sizes.of(spec, reads, {"pooling": each, "store_dtype": "float16"})) / 1e9
        for each in ("frames", "mean")
    )
    full = seconds / limits.shard_seconds if audio else cut.characters / limits.shard_characters
    flops = 1e9 * float(measured.get(name, {}).get("gflop_per_clip", 0)) or _counted(name)
    known = measured.get(LIKE.get(name, name))
    rate = CLIP_SECONDS * known["clips_per_second"] if known else HARVEST
    if name in LIKE and known:
        rate *= 1e9 * known["gflop_per_clip"] / flops
    return {
        "frames_gb": round(frames, 2),
        "pooled_gb": None if spec.bins else round(pooled, 3),
        "shards": -(-full // 1),
        "gflop_a_second": round(flops / CLIP_SECONDS / 1e9, 2),
        "two_core_hours": round(hours / rate, 1),
        "rate_of": LIKE.get(name, name),
        "gpu_hours_estimated": round(clips * flops / (PEAK * FRACTION) / 3600, 3),
    }


def _counted(name: str) -> float:
    """Operations of a network for a clip, on shapes alone; 0 for what has no network."""
    import transformers

    network: nn.Module
    with torch.device("meta"):
        if name == "hubert-large":
            config = transformers.HubertConfig(
                hidden_size=1024,
                num_hidden_layers=24,
                num_attention_heads=16,
                intermediate_size=4096,
                do_stable_layer_norm=True,
                feat_extract_norm="layer",
                conv_bias=True,
                attn_implementation="sdpa",
            )
            network = transformers.HubertModel(config)
            inputs = torch.zeros(1, round(CLIP_SECONDS * RATE))
        elif name == "whisper-large-v3":
            config = whisper_config("large-v3")
            network = transformers.WhisperModel(config).encoder
            inputs = torch.zeros(1, config.num_mel_bins, WINDOW)
        else:
            return 0.0
    network.eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(inputs)
    return float(counter.get_total_flops())


if __name__ == "__main__":
    typer.run(main)
