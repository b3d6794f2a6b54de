"""A backbone's checkpoint: loaded from where it is, and the one that params.yaml means.

Weights are never unpickled: safetensors first, torch files with `weights_only=True`. What of the
files leads elsewhere is refused (`features.weights.checks`).
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
from features.weights.checks import check_folder
from features.weights.identity import CONTENT, content_of, pinned
from features.weights.places import Places
from features.weights.tensors import (
    INDEX,
    SUFFIXES,
    WEIGHT_FILES,
    WRAPPERS,
    first_line,
    read_tensors,
)


class Checkpoint(Places):
    """Weights as params.yaml names them: `Places` says with which attributes."""

    def load(self, loader: Any, **options: Any) -> Any:
        """`loader.from_pretrained` on wherever the weights are.

        Raises:
            CheckpointError: If they are nowhere, naming what to download and where to put it; or
                what is there cannot be used.
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
        except Exception as error:  # what is in the files can make the loader fail in any way
            if folder is None:
                raise CheckpointError(self.advice(first_line(error))) from error
            if _caused_by(error, (UnpicklingError, SafetensorError)):
                for part in self.parts():
                    read_tensors(part)  # says which file it is, and what is in it
            raise CheckpointError(_unusable(folder, error)) from error

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Turn failures at what a checkpoint's files say, such as a text for a number, to messages.

        Raises:
            CheckpointError: Whatever was raised.
        """
        try:
            yield
        except HeronryError:
            raise
        except Exception as error:
            raise CheckpointError(_unusable(self.folder() or self.name, error)) from error

    def network(self, loader: Any, **options: Any) -> nn.Module:
        """A network in eval mode, float32, all of whose weights came from the checkpoint."""
        if self.weights_here() is not None:
            self.parts()
        self._check_content()
        with _quiet():
            network, info = self.load(
                loader,
                output_loading_info=True,
                dtype=torch.float32,
                **options,
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
        """Named tensors of the weight file, for networks that transformers does not have.

        Args:
            files: Names that the file may have in the repository, the preferred one first.
            wrappers: Keys under which the state dict may lie.

        Raises:
            CheckpointError: If it is nowhere or unreadable.
        """
        self._check_content(files)
        return read_tensors(self.file(files), wrappers=wrappers)  # type: ignore[no-any-return]

    def look_for(self, files: Sequence[str] = ()) -> None:
        """Make sure that the weights can be had and are those meant, without loading them.

        Args:
            files: Names that a native network's weight file may have; none: a network of
                transformers, whose config is read.

        Raises:
            CheckpointError: If they are nowhere, or others.
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
            self.look_on_hub(files)
        else:
            from transformers import AutoConfig

            self.load(AutoConfig, trust_remote_code=self.trust_remote_code)

    def content(self, files: Sequence[str] = ()) -> str:
        """`sha256:` and the hash of the weights, as `revision` may name them.

        Args:
            files: Names that a native network's weight file may have; none: of transformers.

        Raises:
            CheckpointError: If they are nowhere.
        """
        return content_of(self.parts(files))

    def content_here(self, files: Sequence[str] = ()) -> str | None:
        """The same of weights on this machine; None if the hub would have to be asked.

        None also of imported features, whose identity is another: `features.backbones.imported`.
        """
        path = self.weights_here(files)
        return self.content(files) if path is not None and _of_weights(path) else None

    def provenance(self, files: Sequence[str] = ()) -> dict[str, Any]:
        """Name and revision. The folders of one machine are left out: they change no number.

        Args:
            files: As for `content`, which stands for a revision that leaves the weights open.
        """
        local = any(candidate.exists() for candidate in self._candidates()[:1])
        return {
            "checkpoint": Path(self.name).name if local else self.name,
            "revision": self.revision if pinned(self.revision) else self.content(files),
        }

    def _check_content(self, files: Sequence[str] = ()) -> None:
        """Refuse weights that are not those that the revision names by their hash."""
        if self.revision is None or not self.revision.startswith(CONTENT):
            return
        found = self.content(files)
        if found != self.revision:
            raise CheckpointError(
                f"checkpoint {self.name!r} has revision {self.revision}; found {found}: put the "
                f"weights back that have that hash, or write `revision: {found}` into params.yaml "
                "so that its features are extracted anew"
            )


def _unusable(where: Path | str, error: BaseException) -> str:
    return (
        f"checkpoint {str(where)!r} cannot be used ({type(error).__name__}: {first_line(error)}); "
        "expected the files of one checkpoint, as `save_pretrained` writes them: mend what is "
        "named, or download it again"
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
def _quiet() -> Iterator[None]:
    """Keep transformers from printing bars and tables: what is missing is an error here anyway."""
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
