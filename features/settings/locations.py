"""Finds folders and devices of this machine: corpus roots, checkpoints, work store, GPU.

They change no number and so are not in params.yaml: they come from the environment, or from an
untracked `heronry.local.yaml` in the project root, such as

    roots:
      ravdess: /data/ravdess
    checkpoints: /data/checkpoints

The environment takes precedence. Relative paths count from the project root.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from pathlib import Path
from typing import Any

from features.arguments import quoted
from features.errors import ParamsError
from features.files.yaml_text import read_yaml_file

LOCAL_FILE = "heronry.local.yaml"
LOCAL_KEYS = ("checkpoints", "roots")
# Subfolder in which `dvc exp run --temp` and `--queue` copy the project.
_TEMPORARY_RUNS = "/.dvc/tmp/exps/"


def project_root() -> Path:
    """Folder of the project: the current one, or the original if that is DVC's temporary copy."""
    here = Path.cwd()
    before, inside, _ = here.as_posix().partition(_TEMPORARY_RUNS)
    return Path(before) if inside else here


def check_folder() -> None:
    """Refuse a subfolder of the project as the current folder, where no file would be found.

    Raises:
        ParamsError: Naming the project's folder.
    """
    here = Path.cwd()
    if (here / "params.yaml").exists():
        return
    for above in here.parents:
        if all((above / name).is_file() for name in ("params.yaml", "dvc.yaml")):
            raise ParamsError(
                f"the current folder is {here}, within the project {above}; expected the "
                f"project's own: cd {shlex.quote(str(above))}"
            )


def root_variable(corpus: str) -> str:
    """Environment variable that holds the root of a corpus.

    >>> root_variable("my-corpus")
    'HERONRY_MY_CORPUS_ROOT'
    """
    return f"HERONRY_{re.sub(r'[^A-Z0-9]', '_', corpus.upper())}_ROOT"


def corpus_root(corpus: str) -> Path:
    """Absolute folder of a corpus, from `HERONRY_<CORPUS>_ROOT` or `roots` of the local file.

    Raises:
        ParamsError: If neither is set, or the folder is missing, empty or not a folder.
    """
    variable = root_variable(corpus)
    given, source = os.environ.get(variable, "").strip(), variable
    if not given:
        given, source = _local_roots().get(corpus, ""), f"roots.{corpus} in {_local_file()}"
    remedy = (
        f"set {variable}=/path/to/{corpus}, or write `roots: {{{corpus}: /path/to/{corpus}}}` "
        f"into {_local_file()}"
    )
    if not given:
        raise ParamsError(
            f"corpus {corpus!r} has no root: {variable} is not set and {_local_file()} does not "
            f"name it; expected the folder that holds its files: {remedy}"
        )
    root = _absolute(given)
    fault = _folder_fault(root)
    if fault:
        raise ParamsError(
            f"the root of corpus {corpus!r}, {root} (from {source}), {fault}; "
            f"expected the folder that holds its files: {remedy}"
        )
    return root


def checkpoint_folder() -> Path | None:
    """Folder of local checkpoints, from `HERONRY_CHECKPOINTS` or the local file; None if unset.

    Raises:
        ParamsError: If it is set but no folder.
    """
    given = os.environ.get("HERONRY_CHECKPOINTS", "").strip() or _local().get("checkpoints")
    if not given:
        return None
    if not isinstance(given, str):
        raise ParamsError(f"checkpoints in {_local_file()} is {quoted(given)}; expected a path")
    folder = _absolute(given)
    if not folder.is_dir():
        raise ParamsError(
            f"the checkpoint folder {folder} does not exist; expected one folder per checkpoint "
            f"below it: correct HERONRY_CHECKPOINTS or `checkpoints` in {_local_file()}"
        )
    return folder


def cache_root() -> Path:
    """Heronry's folder in the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME", "").strip() or "~/.cache"
    return _absolute(base) / "heronry"


def store_root() -> Path:
    """Work store of finished shards: `HERONRY_STORE`, or `store` in the cache directory."""
    given = os.environ.get("HERONRY_STORE", "").strip()
    return _absolute(given) if given else cache_root() / "store"


def hashes_file(corpus: str, root: Path) -> Path:
    """File in which `prepare` keeps the hashes of a corpus's files, to skip unchanged ones."""
    place = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:16]
    return store_root() / "hashes" / f"{corpus}-{place}.jsonl"


def device() -> str:
    """Device to compute on: `HERONRY_DEVICE`, else cuda where torch finds one, else cpu.

    Raises:
        ParamsError: If `HERONRY_DEVICE` is not a device that torch has here.
    """
    import torch

    given = os.environ.get("HERONRY_DEVICE", "").strip()
    if not given:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return checked_device(given, "HERONRY_DEVICE")


def devices(given: str | None = None) -> tuple[str, ...]:
    """Devices to distribute work to: `0,1` for GPUs by number, or names; None for `device()`.

    Raises:
        ParamsError: If one of them is not a device that torch has here.
    """
    if given is None:
        return (device(),)
    names = [name.strip() for name in given.split(",") if name.strip()]
    if not names:
        raise ParamsError(f"--devices {given!r}; expected such as 0,1 or cuda:0,cuda:1 or cpu")
    return tuple(
        checked_device(f"cuda:{name}" if name.isdigit() else name, "--devices") for name in names
    )


def checked_device(name: str, source: str) -> str:
    """A device by the name that an option or variable, `source`, gives it.

    Raises:
        ParamsError: If torch does not have it here.
    """
    import torch

    try:
        place = torch.device(name)
        if place.type != "cuda":
            torch.empty(0, device=place)
        # Only counted: a tensor would leave a context of half a gigabyte on each GPU, also in a
        # process that has others compute on them.
        elif not torch.cuda.is_available() or (place.index or 0) >= torch.cuda.device_count():
            raise RuntimeError(f"it finds {torch.cuda.device_count()} CUDA devices")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ParamsError(
            f"{source} is {name!r}, which torch cannot use here ({reason}); "
            "expected cpu, cuda or cuda:<n>, or no value for the best there is"
        ) from error
    return name


def expanded(path: str) -> Path:
    """Replace `~` in a path by the user's home folder.

    Raises:
        ParamsError: If it is not known, as for a container's user without a name.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ParamsError(
            f"{path}: this user ({os.getuid()}) has no home folder: set HOME, or HERONRY_STORE and "
            "XDG_CACHE_HOME, to folders that it can write"
        ) from error


def _absolute(path: str) -> Path:
    # Not resolved: messages and DVC show links as the user wrote them.
    return Path(os.path.normpath(project_root() / expanded(path)))


def _folder_fault(folder: Path) -> str | None:
    if not folder.exists():
        return "does not exist"
    if not folder.is_dir():
        return "is not a folder"
    return None if any(folder.iterdir()) else "is empty"


def _local_file() -> Path:
    return project_root() / LOCAL_FILE


def _local() -> dict[str, Any]:
    path = _local_file()
    if not path.exists():
        return {}
    content = read_yaml_file(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ParamsError(f"{path} holds {quoted(content)}; expected the keys {list(LOCAL_KEYS)}")
    unknown = [key for key in content if key not in LOCAL_KEYS]
    if unknown:
        raise ParamsError(f"{path}: unknown key {quoted(unknown[0])}; expected {list(LOCAL_KEYS)}")
    return content


def _local_roots() -> dict[str, str]:
    roots = _local().get("roots") or {}
    if not isinstance(roots, dict) or not all(isinstance(path, str) for path in roots.values()):
        raise ParamsError(
            f"roots in {_local_file()} is {quoted(roots)}; expected a path for each corpus"
        )
    return roots
