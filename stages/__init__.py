"""The commands that DVC runs; no numerics in here."""

from features.process.interrupts import listen

# First of all, since importing the rest takes seconds in which Ctrl-C may come.
listen(
    __name__,
    {
        "selection": "run the same command again",
        "look": "run the same command again",
        "prepare": "run the same command again; what was learned of files that were read is kept",
        "extract": "finished shards are kept in the work store, and the same command goes on",
        "train": "trainings are kept as of their last epoch, and the same command goes on",
        "e2e": "trainings are kept as of their last checkpoint, and the same command goes on",
        "evaluate": "the trained model is kept; run the same command again",
        "": "nothing is lost; run the same command again",
    },
)
