"""Exceptions for errors of users, whose messages say what was given, expected, and what to do."""

from __future__ import annotations


class HeronryError(Exception):
    """Base of all errors that a command reports without a traceback.

    Attributes:
        status: Exit status of the command.
    """

    status = 1


class ParamsError(HeronryError):
    """params.yaml, an environment variable or a command-line argument is wrong."""


class ManifestError(HeronryError):
    """A corpus, manifest or label file is wrong."""


class CacheError(HeronryError):
    """A shard or cache folder cannot be trusted."""


class DamagedShardError(CacheError):
    """A shard's bytes have changed since it was written: it may be removed and computed again."""


class CheckpointError(HeronryError):
    """The weights of a backbone are missing, unreachable, damaged, or others than expected."""


class MachineError(HeronryError):
    """The machine refuses an operation: full disk, missing rights, no file locks, no memory."""


class UtteranceError(HeronryError):
    """One utterance cannot be used, which does not stop the work on the others.

    Attributes:
        id: Id of the utterance.
        reason: Reason, on one line for `rejected.csv`.
    """

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(f"utterance {id!r}: {reason}")
        self.id = id
        self.reason = reason

    def __reduce__(self) -> tuple[type[UtteranceError], tuple[str, str]]:
        """Pickle by both arguments, so that the error can be sent between processes."""
        return type(self), (self.id, self.reason)


class RunError(HeronryError):
    """A run folder is incomplete, malformed, or belongs to other labels."""
