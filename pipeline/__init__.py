"""Arrays to results: parameters, fusion models, training, metrics and reports.

`load_run` is the way in from Python: it loads a trained model, which then predicts recordings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.process.interrupts import listen

# First of all, since importing the rest takes seconds in which Ctrl-C may come.
listen(__name__, {"": "what was finished is kept; run the same command again"}, script="heronry")

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.handover.loading import LoadedRun


def load_run(
    folder: str | Path,
    *,
    device: str | None = None,
    seed: int | None = None,
    fold: int | None = None,
    trust_remote_code: bool = False,
) -> LoadedRun:
    """Load a trained model with its backbones, to predict recordings.

    Nothing in an exported folder is unpickled, and no code in it runs; its files are compared with
    the hashes that its config.json names. Backbones are looked for as those of any entry of
    params.yaml (docs/models.md), and must be those that the run was trained on.

    Args:
        folder: What `heronry export` wrote, wherever it is; or a run folder, in its project.
        device: Such as `cpu` or `cuda:1`; None: HERONRY_DEVICE, or the best there is.
        seed: Seed of the models that predict; None: the mean of all.
        fold: Their fold; None: the mean of all.
        trust_remote_code: Whether a backbone may run code of its checkpoint's repository.

    Returns:
        The model: `predict(files, texts=...)` takes lists and returns a row for each recording;
        `classes`, `attributes` and `slots` say what it predicts, and from what.

    Raises:
        HeronryError: If the folder is damaged or of another release, or a backbone is missing or
            another one.
    """
    from pipeline.handover.loading import load_run as load  # imports torch

    return load(folder, device=device, seed=seed, fold=fold, trust_remote_code=trust_remote_code)
