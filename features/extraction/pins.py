"""Whether params.yaml says which weights are meant, so that DVC sees when they are exchanged.

DVC runs a stage again when params.yaml or a dependency changes; of weights in a folder or on a hub
it knows what params.yaml says of them. A `revision` that is a commit or a hash says which they are;
null or a branch says only where to look.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from features.backbone.entry import BackboneEntry
from features.errors import CheckpointError
from features.weights.identity import pinned


def leaves_weights_open(entry: BackboneEntry) -> bool:
    """Whether an entry names a checkpoint, but not which state of it."""
    named = entry.options.get("checkpoint") is not None
    return named and not pinned(entry.options.get("revision"))


def open_weights(entry: BackboneEntry, found: str | None) -> str:
    """What to say of such an entry.

    Args:
        entry: The entry.
        found: What its weights are now, as `revision` would name them; None: not known.
    """
    write = "the commit, or sha256: and the hash of the file" if found is None else found
    given = entry.options.get("revision")
    return (
        f"backbones.{entry.name}.revision: given {given or 'null'}, which leaves "
        "open which weights are meant, so that DVC does not see when they are exchanged; expected "
        f"what they are: write `revision: {write}`"
    )


def check_pinned(entry: BackboneEntry, provenance: Mapping[str, Any]) -> None:
    """Say what to write where an entry leaves its weights open; under DVC refuse it.

    Args:
        entry: The entry.
        provenance: Of its backbone; `revision` says what the weights are.

    Raises:
        CheckpointError: If DVC runs this, and would restore features of other weights later.
    """
    if not leaves_weights_open(entry) or "revision" not in provenance:
        return
    told = open_weights(entry, str(provenance["revision"]))
    if os.environ.get("DVC_STAGE"):
        raise CheckpointError(told)
    sys.stderr.write(f"warning: {told}\n")
