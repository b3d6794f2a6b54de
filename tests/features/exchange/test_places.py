"""Places of untrusted arrays: no path and no link leads out of the folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from features.errors import ParamsError
from features.exchange.arrays import ArrayReader
from features.exchange.places import Places, find_places

KNOWN = {"u": None, "v": None}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").mkdir()
    np.save(tmp_path / "secret.npy", np.ones(3))
    monkeypatch.chdir(tmp_path)


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


def test_malformed_indices_are_refused() -> None:
    for text in ("name,path\nu,u.npy\n", "", "id,file\n\xff\n"):
        Path("old/index.csv").write_bytes(text.encode("latin-1"))
        with ArrayReader() as reader, pytest.raises(ParamsError, match=r"index\.csv"):
            find_places(Path("old"), KNOWN, reader)
