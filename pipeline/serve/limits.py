"""What a client may ask for: bytes, seconds, characters, and how many at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from features.errors import ParamsError

CHARACTERS = 2000  # of the words of a clip
UPLOAD_SECONDS = 60.0  # from the beginning of a request to its last byte
OVERHEAD_BYTES = 16 << 10  # of a request beside its clip: words and headings of its parts
CONNECTIONS = 64  # beside those that wait for an answer
IDLE_SECONDS = 10.0  # after which a connection without a request is closed


@dataclass(frozen=True)
class Limits:
    """Limits that the command sets.

    Attributes:
        megabytes: Size of a clip, in 10^6 bytes.
        seconds: Duration of a clip.
        waiting: Requests that are uploaded, wait or are computed at one time.
    """

    megabytes: float = 32.0
    seconds: float = 300.0
    waiting: int = 16

    def __post_init__(self) -> None:
        """Refuse limits under which nothing can be answered.

        Raises:
            ParamsError: Naming them.
        """
        given = (self.megabytes, self.seconds, self.waiting)
        if not all(0 < each < math.inf for each in given):
            raise ParamsError(
                f"limits of {self.megabytes:g} MB, {self.seconds:g} s and {self.waiting} requests; "
                "expected a finite number above 0 of each"
            )

    @property
    def clip_bytes(self) -> int:
        """Most bytes of a clip."""
        return round(self.megabytes * 1e6)

    @property
    def body_bytes(self) -> int:
        """Most bytes of a request."""
        return self.clip_bytes + OVERHEAD_BYTES
