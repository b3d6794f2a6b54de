"""Uploads an exported folder to a model hub: that of `HF_ENDPOINT`, by default huggingface.co."""

from __future__ import annotations

import re
from pathlib import Path

from features.errors import MachineError, ParamsError

REPOSITORY = re.compile(r"[A-Za-z0-9][\w-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def check_repository(name: str) -> None:
    """Refuse a name that no repository can have.

    Raises:
        ParamsError: Quoting it.
    """
    wrong = not REPOSITORY.fullmatch(name) or "--" in name or ".." in name
    if wrong:
        raise ParamsError(
            f"--push {name!r}: expected ORG/NAME, of letters, digits, '-', '_' and '.', such as "
            "someone/heron-demo"
        )


def push(folder: Path, name: str, message: str) -> str:
    """Make the repository if there is none, and commit the folder's files to it at once.

    Models of an earlier upload that the folder has not are removed: `load_run` would refuse them.

    Returns:
        Its address.

    Raises:
        MachineError: If there is no token, or the hub cannot be reached or refuses.
    """
    from huggingface_hub import (
        CommitOperationAdd,
        CommitOperationDelete,
        HfApi,
        constants,
        get_token,
    )

    remedy = (
        f"expected a hub that can be reached at {constants.ENDPOINT}, and a token that may write "
        f"there (hf auth login, or HF_TOKEN): the folder is complete, so `hf upload {name} "
        f"{folder}` sends it then"
    )
    if get_token() is None:
        raise MachineError(f"--push {name}: there is no token of the model hub; {remedy}")
    api = HfApi()
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    try:
        address = api.create_repo(name, exist_ok=True)
        before = (each for each in api.list_repo_files(name) if each.startswith("seed_"))
        changes: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(each, path) for each, path in files.items()),
            *(CommitOperationDelete(each) for each in before if each not in files),
        ]
        api.create_commit(name, changes, commit_message=message)
    except Exception as error:  # of whichever HTTP library this release of huggingface_hub has
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise MachineError(f"--push {name}: {reason}; {remedy}") from error
    return str(address)
