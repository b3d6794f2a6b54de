"""Places of strangers' arrays: no path, link or HDF5 dataset leads out of the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from features.errors import CacheError, ParamsError
from pipeline.foreign_arrays import ArrayReader
from pipeline.foreign_places import Places, find_places

KNOWN = {"u": None, "v": None}
HUGE = 1 << 40


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").mkdir()
    np.save(tmp_path / "secret.npy", np.ones(3))
    monkeypatch.chdir(tmp_path)


def external_link(file: h5py.File) -> None:
    file["u"] = h5py.ExternalLink("../secret.h5", "u")


def soft_link_through_an_external_one(file: h5py.File) -> None:
    file["away"] = h5py.ExternalLink("../secret.h5", "/")
    file["u"] = h5py.SoftLink("/away/u")


def external_values(file: h5py.File) -> None:
    file.create_dataset("u", (4, 2), "f4", external=[("../secret.bin", 0, 32)])


def virtual_values(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 2), "f4")
    layout[:] = h5py.VirtualSource("../secret.h5", "u", (4, 2))
    file.create_virtual_dataset("u", layout)


HDF5: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "external link": (external_link, "is a link"),
    "soft link": (soft_link_through_an_external_one, "is a link"),
    "external values": (external_values, "in another file"),
    "virtual values": (virtual_values, "in another file"),
    "never written": (lambda f: f.create_dataset("u", (1 << 20, 8), "f4"), "of which 0 exist"),
    "never written, in chunks": (
        lambda f: f.create_dataset("u", (1 << 20, 8), "f4", compression="gzip"),
        "of which 0 exist",
    ),
    "huge": (lambda f: f.create_dataset("u", (HUGE, HUGE), "f4", chunks=(9, 9)), "at most"),
    "wraps around": (lambda f: f.create_dataset("u", (1 << 62, 4), "f4", chunks=(9, 4)), "at most"),
    "texts": (
        lambda f: f.create_dataset("u", data=["x"], dtype=h5py.string_dtype()),
        "expected numbers",
    ),
    "records": (lambda f: f.create_dataset("u", data=np.zeros(2, "i4,f4")), "expected numbers"),
}


@pytest.mark.parametrize("name", HDF5)
def test_hdf5_values_that_are_elsewhere_or_nowhere(name: str) -> None:
    with h5py.File("secret.h5", "w") as file:
        file["u"] = np.full((4, 2), 7, np.float32)
    Path("secret.bin").write_bytes(b"\x07" * 32)
    write, reason = HDF5[name]
    with h5py.File("old/all.h5", "w") as file:
        write(file)
    with ArrayReader() as reader:
        place = find_places(Path("old/all.h5"), KNOWN, reader).by_id["u"]
        with pytest.raises(CacheError, match=reason):
            reader.read(place.path, place.name)


def test_hdf5_groups_that_hold_themselves() -> None:
    with h5py.File("old/all.h5", "w") as file:
        file["dialogue/u"] = np.ones((2, 3))
        file["dialogue/again"] = file["/"]
    with ArrayReader() as reader:
        assert reader.names(Path("old/all.h5")) == ["dialogue/u"]


def places(*rows: str) -> Places:
    Path("old/index.csv").write_text("\n".join(["id,file,key", *rows]) + "\n")
    with ArrayReader() as reader:
        return find_places(Path("old"), KNOWN, reader)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("../secret.npy", "leaves the folder"),
        ("a/../../secret.npy", "leaves the folder"),
        (str(Path("/etc/passwd")), "leaves the folder"),
        ("link.npy", "is a link out of the folder"),
        ("inside/secret.npy", "is a link out of the folder"),
        ("none.npy", "does not exist"),
        ("", "is no path"),
        ("index.csv", "is of no known format"),
    ],
)
def test_an_index_cannot_lead_out_of_its_folder(file: str, reason: str) -> None:
    Path("old/link.npy").symlink_to(Path("secret.npy").absolute())
    Path("old/inside").symlink_to(Path().absolute())
    found = places(f"u,{file},")
    assert not found.by_id
    assert reason in found.refused["u"]


def test_links_in_a_folder_without_an_index() -> None:
    Path("old/u.npy").symlink_to(Path("secret.npy").absolute())
    save_file({"v": np.ones((1, 3))}, "old/v.safetensors")
    Path("old/whole.pkl").write_bytes(b"\x80\x04cos\nsystem\n(S'touch trace'\ntR.")
    with ArrayReader() as reader:
        found = find_places(Path("old"), KNOWN, reader)
    assert list(found.by_id) == ["v"]
    assert "is a link out of the folder" in found.refused["u.npy"]
    assert "is a pickle" in found.refused["whole.pkl"]
    assert not Path("trace").exists()


def test_what_is_no_index() -> None:
    for text in ("name,path\nu,u.npy\n", "", "id,file\n\xff\n"):
        Path("old/index.csv").write_bytes(text.encode("latin-1"))
        with ArrayReader() as reader, pytest.raises(ParamsError, match=r"index\.csv"):
            find_places(Path("old"), KNOWN, reader)
