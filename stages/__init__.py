"""The stages of the DVC pipeline: command lines around `pipeline` and `features`."""

from features.process.interrupts import listen

# Before other imports, which take seconds in which the user may press Ctrl-C.
listen(
    __name__,
    {
        "selection": "run the same command again",
        "look": "run the same command again",
        "prepare": "run the same command again; records of files that were read are kept",
        "extract": "finished shards are kept in the work store, and the same command resumes",
        "train": "trainings are kept as of their last epoch, and the same command resumes",
        "e2e": "trainings are kept as of their last checkpoint, and the same command resumes",
        "evaluate": "the trained model is kept; run the same command again",
        "": "nothing is lost; run the same command again",
    },
)
