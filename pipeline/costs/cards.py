"""Speed of a GPU, by which operations become hours.

No GPU has run this code yet (docs/gpu.md), so that hours are estimated: operations over the dense
peak of a card times the share of it that is taken to be reached. `HERONRY_CARD` names the card,
`HERONRY_UTILISATION` the share.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from features.arguments import one_of, quoted
from features.errors import ParamsError

CARD, UTILISATION = "HERONRY_CARD", "HERONRY_UTILISATION"
DEFAULT_CARD, DEFAULT_UTILISATION = "a100", 0.4
# Dense peaks of the vendor's data sheets in 10^12 operations a second: of float32 without tensor
# cores, since features and training switch TF32 off; and of bfloat16 or float16 with float32 sums.
PEAKS = {
    "v100": (15.7, 125.0),
    "rtx_3090": (35.6, 71.0),
    "rtx_4090": (82.6, 165.2),
    "rtx_a6000": (38.7, 154.8),
    "l40s": (91.6, 362.0),
    "a100": (19.5, 312.0),
    "h100": (66.9, 989.4),
    "h200": (66.9, 989.4),
}


@dataclass(frozen=True)
class Speed:
    """Operations a second that are taken to be reached.

    Attributes:
        card: Key of `PEAKS`.
        utilisation: Share of the card's peak.
    """

    card: str = DEFAULT_CARD
    utilisation: float = DEFAULT_UTILISATION

    def hours(self, operations: float, dtype: str) -> float:
        """Hours that some operations take in a precision.

        >>> Speed("a100", 0.5).hours(312e12 * 1800, "bfloat16")
        1.0
        """
        peak = PEAKS[self.card][dtype != "float32"]
        return operations / (peak * 1e12 * self.utilisation) / 3600

    def line(self) -> str:
        """What the hours rest on."""
        single, half = PEAKS[self.card]
        return (
            f"GPU-hours are estimated, since no GPU has run this code: {self.utilisation:g} of the "
            f"peak of {self.card} ({single:g} TFLOP/s in float32, {half:g} in bfloat16; "
            f"{CARD} and {UTILISATION} change that), without decoding audio and disks"
        )


def speed() -> Speed:
    """The speed that the environment asks for.

    Raises:
        ParamsError: If it names no card of `PEAKS`, or no share.
    """
    card = os.environ.get(CARD, "").strip() or DEFAULT_CARD
    if card not in PEAKS:
        raise ParamsError(f"{CARD} is {quoted(card)}; expected {one_of(card, PEAKS)}")
    given = os.environ.get(UTILISATION, "").strip()
    try:
        share = float(given) if given else DEFAULT_UTILISATION
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ParamsError(
            f"{UTILISATION} is {quoted(given)}; expected a share of the card's peak, above 0 and "
            "up to 1"
        )
    return Speed(card, share)
