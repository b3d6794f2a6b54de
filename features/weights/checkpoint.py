"""Loads a backbone's checkpoint, and makes sure that it is the one that params.yaml names.

Weights are never unpickled: safetensors first, torch files with `weights_only=True`. Files that
lead to other code or other weights are refused (`features.weights.checks`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251  what torch raises; nothing is unpickled here
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from features.audio import torchaudio_cpu  # noqa: F401  transformers imports torchaudio
from features.errors import CheckpointError, HeronryError
from features.process.memory import out_of_memory
from features.weights.checks import check_folder
from features.weights.identity import CONTENT, content_revision, pinned
from features.weights.lookup import CheckpointFiles
from features.weights.tensors import (
    INDEX,
    SUFFIXES,
    WEIGHT_FILES,
    WRAPPERS,
    first_line,
    read_tensors,
)


class Checkpoint(CheckpointFiles):
    """A checkpoint named in params.yaml; its attributes are those of `CheckpointFiles`."""

    def load(self, loader: Any, **options: Any) -> Any:
        """Call `loader.from_pretrained` on the local folder, or else on the hub's repository.

        Raises:
            CheckpointError: If the weights are not found, naming what to download and where to put
                it; or if the files cannot be used.
        """
        folder = self.folder()
        if folder is None:
            self.check_hub()
            options |= {} if self.commit is None else {"revision": self.commit}
        else:
            check_folder(folder, trusted=self.trust_remote_code)
        if self.trust_remote_code:
            options["trust_remote_code"] = True
        try:
            return loader.from_pretrained(self.name if folder is None else str(folder), **options)
        except Exception as error:  # wrong content can make the loader fail in any way
            if out_of_memory(error):
                raise
            if folder is None:
                raise CheckpointError(self.advice(first_line(error))) from error
            # transformers hides which file it could not read: reading them again names it.
            if _caused_by(error, (UnpicklingError, SafetensorError)):
                for part in self.parts():
                    read_tensors(part)
            raise CheckpointError(_unusable(folder, error)) from error

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Turn errors at wrong content, such as a text in place of a number, into messages.

        Raises:
            CheckpointError: In place of any other exception.
        """
        try:
            yield
        except HeronryError:
            raise
        except Exception as error:
            raise CheckpointError(_unusable(self.folder() or self.name, error)) from error

    def network(self, loader: Any, **options: Any) -> nn.Module:
        """Load a network in eval mode, in float32 unless `options` name another `dtype`.

        Raises:
            CheckpointError: As `load`, or if the checkpoint lacks some of the network's weights.
        """
        if self.weights_here() is not None:
            self.parts()  # a pointer or a web page among them is named before transformers reads it
        self._check_content()
        with quiet():
            network, info = self.load(
                loader,
                output_loading_info=True,
                **{"dtype": torch.float32, **options},
            )
        missing = sorted(info["missing_keys"])
        if missing:
            raise CheckpointError(
                f"checkpoint {self.name!r} lacks {len(missing)} weights of {loader.__name__}, "
                f"such as {missing[:3]}; expected a checkpoint of that network"
            )
        return network.eval()  # type: ignore[no-any-return]

    def tensors(
        self, files: Sequence[str], *, wrappers: tuple[str, ...] = WRAPPERS
    ) -> dict[str, Tensor]:
        """Read the named tensors of a native network's weight file (`read_tensors`).

        Raises:
            CheckpointError: If no file is found, or it is unreadable.
        """
        self._check_content(files)
        return read_tensors(self.file(files), wrappers=wrappers)

    def look_for(self, files: Sequence[str] = ()) -> None:
        """Check that the weights are available and are those meant, without loading them.

        Raises:
            CheckpointError: If they are not found, or are not those that the revision names.
        """
        path, folder = self.weights_here(files), None if files else self.folder()
        if folder is not None:
            check_folder(folder, trusted=self.trust_remote_code)
            if path is None:
                raise CheckpointError(
                    f"{folder} holds no weights; expected one of {', '.join(WEIGHT_FILES)} beside "
                    f"its config.json: put the files of {self.name!r} there"
                )
        if path is not None:
            if _of_weights(path):
                self.parts(files)
                self._check_content(files)
        elif files:
            self.file(files, dry_run=True)
        else:
            # The small config.json shows whether the hub, or its cache, has the repository.
            from transformers import AutoConfig

            self.load(AutoConfig, trust_remote_code=self.trust_remote_code)

    def content(self, files: Sequence[str] = ()) -> str:
        """Revision that names the weights by their hash: `sha256:` and 64 hexadecimal digits.

        Raises:
            CheckpointError: If they are not found.
        """
        return content_revision(self.parts(files))

    def content_here(self, files: Sequence[str] = ()) -> str | None:
        """The same for weights on this machine; None if the hub would have to be asked.

        None also for imported features, which `features.backbones.imported` identifies.
        """
        path = self.weights_here(files)
        return self.content(files) if path is not None and _of_weights(path) else None

    def provenance(self, files: Sequence[str] = ()) -> dict[str, Any]:
        """Name and revision, without the folders of this machine, which change no number.

        `content` replaces a revision that leaves the weights open.
        """
        local = self.candidates()[0].exists()
        return {
            "checkpoint": Path(self.name).name if local else self.name,
            "revision": self.revision if pinned(self.revision) else self.content(files),
        }

    def _check_content(self, files: Sequence[str] = ()) -> None:
        """Refuse weights that do not have the hash that the revision names."""
        if self.revision is None or not self.revision.startswith(CONTENT):
            return
        found = self.content(files)
        if found != self.revision:
            raise CheckpointError(
                f"checkpoint {self.name!r} has revision {self.revision}; found {found}: put the "
                f"weights back that have that hash, or write `revision: {found}` into params.yaml "
                "so that its features are extracted again"
            )


def _unusable(where: Path | str, error: BaseException) -> str:
    return (
        f"checkpoint {str(where)!r} cannot be used ({type(error).__name__}: {first_line(error)}); "
        "expected the files of one checkpoint, as `save_pretrained` writes them: correct what "
        "is named, or download it again"
    )


def _caused_by(error: BaseException | None, kinds: tuple[type[BaseException], ...]) -> bool:
    while error is not None:
        if isinstance(error, kinds):
            return True
        error = error.__cause__ or error.__context__
    return False


def _of_weights(path: Path) -> bool:
    """Whether a file holds weights, or lists files that do."""
    return path.suffix in SUFFIXES or path.name.endswith(INDEX)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from printing bars and tables: missing weights are an error here anyway."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
