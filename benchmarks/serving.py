"""Latency and throughput of `heronry serve` on loopback, by the number of clients.

    python -m benchmarks.serving RUN CLIP... [--clients 1,4,16] [--requests 32] [--json]

The server runs in this process, as the command runs it; clients are threads that each send the next
clip once the last is answered, in turn, without words. A client that is told to wait (503) is an
error here: `--max-waiting` is the largest number of clients. Throughput also in seconds of audio.
"""

from __future__ import annotations

import itertools
import json
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer

import pipeline
from features.audio.read import audio_seconds
from pipeline.serve.app import serving
from pipeline.serve.gate import Access
from pipeline.serve.limits import Limits
from pipeline.serve.server import address, listening, running

WARM = 4  # requests before the first round


def main(
    run: Path,
    clips: list[Path],
    *,
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "1,4,16",
    requests: Annotated[int, typer.Option(min=1, help="Requests of each round.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure and print a row for each number of clients."""
    counts = [int(each) for each in clients.split(",")]
    taken = listening("127.0.0.1", 0)
    model = pipeline.load_run(run)
    limits = Limits(waiting=max(counts))
    with (
        serving(model, None, Access(), limits) as app,
        running(app, taken, limits),
        httpx.Client(base_url=address(taken), trust_env=False, timeout=600) as client,
    ):
        rounds(client, clips, 1, WARM)  # weights and buffers are in place afterwards
        rows = [rounds(client, clips, count, requests) for count in counts]
    seconds = [audio_seconds(clip) for clip in clips]
    result = {"clips": len(clips), "mean_seconds": float(np.mean(seconds)), "rows": rows}
    print(json.dumps(result, indent=1) if as_json else "\n".join(table(rows)))


def rounds(client: httpx.Client, clips: list[Path], count: int, requests: int) -> dict[str, Any]:
    """Requests of some clients: latency in seconds, and what is done in a second."""
    chosen = list(itertools.islice(itertools.cycle(clips), requests))

    def ask(path: Path) -> float:
        began = time.perf_counter()
        response = client.post("api/predict", files={"audio": path.read_bytes()})
        assert response.status_code == 200, response.text
        return time.perf_counter() - began

    before, began = cpu_seconds(), time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        latencies = list(pool.map(ask, chosen))
    wall = time.perf_counter() - began
    return {
        "clients": count,
        "requests": requests,
        "median": float(np.median(latencies)),
        "p95": float(np.quantile(latencies, 0.95)),
        "requests_per_second": requests / wall,
        "audio_seconds_per_second": sum(map(audio_seconds, chosen)) / wall,
        "cpu_seconds_per_request": (cpu_seconds() - before) / requests,
    }


def cpu_seconds() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lines of a table."""
    yield "  ".join(rows[0])
    for row in rows:
        yield "  ".join(f"{value:.4g}".rjust(len(name)) for name, value in row.items())


if __name__ == "__main__":
    typer.run(main)
