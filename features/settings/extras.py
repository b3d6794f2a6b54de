"""Optional packages, which come with extras of this project."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from features.errors import ParamsError


def check_installed(what: str, packages: Sequence[str], extra: str, otherwise: str = "") -> None:
    """Refuse what needs packages of an extra where one of them is not installed.

    Args:
        what: What needs them, such as an option.
        packages: Their names, as they are imported.
        extra: The extra that has them.
        otherwise: What can be done in place of installing it; empty: nothing.

    Raises:
        ParamsError: Naming those that are missing.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ParamsError(
            f"{what} needs {' and '.join(missing)}, not installed here; run `python -m pip "
            f"install --editable '.[{extra}]'` in a clone of heronry{otherwise}"
        )
