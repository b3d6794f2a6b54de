"""Names of the files and columns of a run folder, `runs/<regime>/<corpus>/<fusion>/`."""

from __future__ import annotations

from pathlib import Path

from features.files.reading import file_sha256

FORMAT, VERSION = "heronry-run", 1  # of run.json
SCORED = ("valid", "test")  # splits that predictions.csv holds

# Columns of the files in seed_<k>/fold_<j>/. Where there are probabilities, `p_<class>` follow.
HISTORY = (
    *("seed", "fold", "epoch", "lr", "train_loss", "valid_loss", "valid_accuracy", "valid_uar"),
    *("valid_macro_f1", "valid_weighted_f1", "best"),
)
PREDICTIONS = ("id", "speaker", "dialogue", "split", "fold", "seed", "label", "prediction")
PROBES = ("id", "slot", "label", "prediction")
CONDITIONS = ("id", "condition", "label", "prediction")

# Files there whose hashes run.json holds.
FILES = ("predictions.csv", "history.csv", "probes.csv", "conditions.csv", "model.json")


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of the files of every (seed, fold) of a run folder, for run.json."""
    found = (path for name in FILES for path in run.glob(f"seed_*/fold_*/{name}"))
    return {path.relative_to(run).as_posix(): file_sha256(path) for path in sorted(found)}
