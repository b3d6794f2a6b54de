"""Untrusted arrays: nothing is executed, and no declared size is trusted."""

from __future__ import annotations

import io
import json
import os
import pickle  # noqa: TID251  as processes that prepare inputs get a backbone
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from features.errors import CacheError
from features.exchange.arrays import ArrayReader

HUGE = 1 << 40


class Evil:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch trace",)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").mkdir()
    np.save(tmp_path / "secret.npy", np.ones(3))
    monkeypatch.chdir(tmp_path)


def reason_for(path: Path, *, largest: int = 1 << 30) -> str:
    """Why the array in a file is refused; with little memory, and without a trace."""
    tracemalloc.start()
    with ArrayReader(largest) as reader, pytest.raises(CacheError) as refusal:
        reader.read(path, None)
    assert tracemalloc.get_traced_memory()[1] < 1 << 21
    tracemalloc.stop()
    assert not Path("trace").exists()
    return str(refusal.value)


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    file = io.BytesIO()
    about = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue()


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Evil()))


def object_array(path: Path) -> None:
    np.save(path, np.array([Evil()], dtype=object), allow_pickle=True)


def torch_object(path: Path) -> None:
    torch.save({"u": Evil()}, path)


def torch_of_old(path: Path) -> None:
    torch.save({"u": Evil()}, path, _use_new_zipfile_serialization=False)


PICKLES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "pickle": ("u.pkl", pickled, "is a pickle, which can run code"),
    "joblib": ("u.joblib", pickled, "is a pickle, which can run code"),
    "pickle named npy": ("u.npy", pickled, "cannot be read"),
    "pickle named npz": ("u.npz", pickled, "is of a format that is not read"),
    "pickle named h5": ("u.h5", pickled, "is of a format that is not read"),
    "pickle named pt": ("u.pt", pickled, "since torch 1.6"),
    "pickle named safetensors": ("u.safetensors", pickled, "cannot be read"),
    "array of objects": ("u.npy", object_array, "holds Python objects, which are pickled"),
    "torch object": ("u.pt", torch_object, "holds more than tensors"),
    "torch before 1.6": ("u.pth", torch_of_old, "since torch 1.6"),
}


@pytest.mark.parametrize("name", PICKLES)
def test_nothing_is_unpickled(name: str) -> None:
    file, write, reason = PICKLES[name]
    path = Path("old", file)
    write(path)
    found = reason_for(path)
    assert reason in found
    if "pickle named" not in name or file.endswith(".pt"):
        assert "numpy.save(path, array) or safetensors" in found
    assert "old/" not in found, "reasons go into shards: they name no folder of this machine"


@pytest.mark.parametrize("shape", [(HUGE,), (HUGE, HUGE), (1 << 62, 4), (3,), (-1, 4)])
def test_npy_that_declares_more_than_it_has(shape: tuple[int, ...]) -> None:
    Path("old/u.npy").write_bytes(header(shape) + bytes(16))
    assert "declares" in reason_for(Path("old/u.npy"))


def test_npy_whose_header_is_a_program() -> None:
    text = b"__import__('os').system('touch trace')".ljust(118) + b"\n"
    Path("old/u.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
    assert "cannot be read" in reason_for(Path("old/u.npy"))


def test_torch_file_that_is_compressed() -> None:
    torch.save(torch.zeros(1 << 16), "plain.pt")
    with (
        zipfile.ZipFile("plain.pt") as plain,
        zipfile.ZipFile("old/u.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert "is compressed, which torch.save never does" in reason_for(Path("old/u.pt"))


def test_expanded_torch_tensors_are_refused() -> None:
    torch.save(torch.zeros(1).expand(1 << 20, 200), "old/u.pt")
    assert "and stores fewer" in reason_for(Path("old/u.pt"))
    torch.save(torch.zeros(1).expand(1 << 20, 1 << 20), "old/u.pt")
    assert "declares 4,398,046,511,104 bytes" in reason_for(Path("old/u.pt"))


def test_torch_tensors_that_are_not_plain() -> None:
    torch.save(torch.eye(3).to_sparse(), "old/u.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "sparse" in reason_for(Path("old/u.pt"))


def test_safetensors_that_declares_more_than_it_has() -> None:
    about = {"u": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}
    text = json.dumps(about).encode()
    Path("old/u.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(64))
    assert "cannot be read" in reason_for(Path("old/u.safetensors"))
    Path("old/u.safetensors").write_bytes(struct.pack("<Q", HUGE) + bytes(64))
    assert "cannot be read" in reason_for(Path("old/u.safetensors"))
