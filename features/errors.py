"""Errors that a user can cause, each saying what was given, what was expected and what to do."""

from __future__ import annotations


class HeronryError(Exception):
    """Base of all errors that a stage reports without a traceback.

    Attributes:
        status: The exit status of a command that ends with it.
    """

    status = 1


class ParamsError(HeronryError):
    """params.yaml, an environment variable or a command-line argument is wrong."""


class ManifestError(HeronryError):
    """A corpus, manifest or label file is wrong."""


class CacheError(HeronryError):
    """A shard or cache folder cannot be trusted."""


class DamagedShardError(CacheError):
    """A shard's bytes are not those that were written: it may be removed and made again."""


class CheckpointError(HeronryError):
    """The weights of a backbone are missing, unreachable or not what they should be."""


class MachineError(HeronryError):
    """The machine refuses something: no room, no permission, no locks, no memory."""


class UtteranceError(HeronryError):
    """One utterance cannot be used; the rest of the work goes on.

    Attributes:
        id: The utterance.
        reason: One line for `rejected.csv`.
    """

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(f"utterance {id!r}: {reason}")
        self.id = id
        self.reason = reason

    def __reduce__(self) -> tuple[type[UtteranceError], tuple[str, str]]:
        """So that it survives the way between processes."""
        return type(self), (self.id, self.reason)


class RunError(HeronryError):
    """A run folder is incomplete, malformed, or belongs to other labels."""
