"""One of the processes of a launcher that train together, for `benchmarks.gpu.training`.

    python -m torch.distributed.run --standalone --nproc_per_node 2 -m benchmarks.gpu.launched \
        CHECKPOINT FOLDER DEVICE

The first process writes the losses of all steps to FOLDER/losses.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.gpu.training import LOSSES, shared_losses
from pipeline.runtime.launch import joined


def main(checkpoint: str, folder: Path, device: str) -> None:
    """Train as one of several processes."""
    with joined(device) as ranks:
        clips = folder / f"clips-{ranks.number}"
        found = shared_losses(checkpoint, clips, ranks.device or device, ranks)
        if ranks.is_first:
            (folder / LOSSES).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
