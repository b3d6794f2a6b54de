"""What `-S` of `dvc exp run` would make of params.yaml, without writing it.

DVC's own reader applies the settings to a copy, so that quotes, lists, `+` and `~` mean here what
they mean there. It imports Hydra and takes half a second.
"""

from __future__ import annotations

import difflib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from features.errors import ParamsError
from pipeline.params.file import Params, read_unchecked
from pipeline.params.recipes import settings as all_settings

MOST_MEANT = 3  # settings that are proposed for a misspelt one


def params_with(settings: Sequence[str], path: Path = Path("params.yaml")) -> list[Params]:
    """params.yaml under some settings; several where a setting lists values for the queue.

    Args:
        settings: `key=value`, as `-S` takes them.
        path: params.yaml.

    Raises:
        ParamsError: If DVC would refuse a setting.
    """
    params = read_unchecked(path)  # a faulty file is told of here, and no setting is blamed for it
    if not settings:
        return [params]
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]
    from dvc.utils.cli_parse import to_path_overrides  # type: ignore[import-untyped]
    from dvc.utils.hydra import apply_overrides, get_hydra_sweeps  # type: ignore[import-untyped]
    from hydra.errors import HydraException

    found = []
    try:
        for combination in get_hydra_sweeps(to_path_overrides(settings)):
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder, path.name)
                shutil.copyfile(path, copy)
                apply_overrides(copy, combination.get(path.name, []))
                found.append(read_unchecked(copy))
    except (DvcException, HydraException) as error:
        why = str(error.__cause__ or error).strip().splitlines()[0]
        raise ParamsError(
            f"-S: given {', '.join(settings)}; expected settings of params.yaml as key=value, or "
            f"+key=value for a key that is not written there ({why}){_meant(settings, params)}"
        ) from error
    return found


def write_settings(settings: Sequence[str], path: Path = Path("params.yaml")) -> None:
    """Write settings into params.yaml, as `dvc exp run -S` does; `params_with` has checked them.

    Args:
        settings: `key=value`, one experiment.
        path: params.yaml.
    """
    from dvc.utils.cli_parse import to_path_overrides
    from dvc.utils.hydra import apply_overrides

    apply_overrides(path, to_path_overrides(settings).get(path.name, []))


def _meant(given: Sequence[str], params: Params) -> str:
    """Settings that look like those given that params.yaml does not have."""
    known = [name for name, _ in all_settings(vars(params))]
    found = []
    for key in (each.partition("=")[0] for each in given):
        if key not in known and key[:1] not in ("+", "~"):
            ends = [name for name in known if name.endswith(f".{key}")]
            found += (ends or difflib.get_close_matches(key, known, n=1))[:MOST_MEANT]
    return f"; did you mean {' or '.join(found)}?" if found else ""
