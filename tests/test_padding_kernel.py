"""The compiled loops write what torch's and numpy's write, nowhere else, and may be missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from numpy.typing import NDArray
from torch import Tensor

import features.gather
from features import padding_kernel
from features.cache import Access, CacheReader, CacheWriter, shard_name
from features.gather import clear_padding, copy_rows, fill
from features.padding_kernel import SWITCH, PaddingKernel, find
from features.shard import Row
from features.stream import StreamSpec

PROJECT = Path(__file__).parents[1]
NUMPY: dict[torch.dtype, np.dtype[Any]] = {
    torch.float16: np.dtype("f2"),
    torch.float32: np.dtype("f4"),
}
PAIRS = [
    (torch.float16, torch.float32),
    (torch.float16, torch.float16),
    (torch.float32, torch.float32),
]
GUARD = 0xA5
PADDED = 256  # guard bytes on either side


@pytest.fixture(scope="module")
def kernel() -> PaddingKernel:
    if padding_kernel.kernel is None:
        pytest.skip("the padding kernel was not built, is switched off, or cannot run here")
    return padding_kernel.kernel


def at(memory: NDArray[np.uint8], first: int, shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
    """A tensor over the bytes of `memory` from `first` on, wherever in memory that is."""
    count = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    return torch.from_numpy(memory[first : first + count].view(NUMPY[kind]).reshape(shape))


def bits(values: Tensor) -> Tensor:
    """As integers, all NaN as one: their payload may differ."""
    same = values.where(~values.isnan(), torch.nan)
    return same.contiguous().view({2: torch.int16, 4: torch.int32}[values.itemsize])


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    width=st.one_of(st.just(()), st.tuples(st.sampled_from([1, 3, 16, 77, 192]))),
    pair=st.sampled_from(PAIRS),
    source=st.integers(0, 7),
    target=st.integers(0, 31),
    beyond=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_writes_what_the_loops_write_and_nothing_else(
    lengths: list[int],
    width: tuple[int, ...],
    pair: tuple[torch.dtype, torch.dtype],
    source: int,
    target: int,
    beyond: int,
    seed: int,
    kernel: PaddingKernel,
) -> None:
    """For rows at any byte, and targets at any value, of a buffer whose other bytes are guards."""
    stored, kind = pair
    random = np.random.default_rng(seed)
    rows = []
    for length in lengths:
        size = length * int(np.prod(width, dtype=np.int64)) * stored.itemsize
        noise = random.integers(0, 256, source + size, np.uint8)  # any bits: NaN, subnormals, ...
        rows.append(at(noise, source, (length, *width), stored))
    shape = (len(lengths), max(lengths) + beyond, *width)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    memory = np.full(size + 2 * PADDED, GUARD, np.uint8)
    first = PADDED // 2 + target * kind.itemsize
    values, wanted = at(memory, first, shape, kind), torch.empty(shape, dtype=kind)
    assert kernel.fits(rows, values)
    kernel.fill(rows, values)
    copy_rows(rows, wanted)
    clear_padding(lengths, wanted)
    assert torch.equal(bits(values), bits(wanted))
    assert (memory[:first] == GUARD).all()
    assert (memory[first + size :] == GUARD).all()


def test_all_halves_become_the_floats_that_torch_makes_of_them(kernel: PaddingKernel) -> None:
    """Both by vectors and one by one: a row of 3 is shorter than any vector."""
    every = torch.arange(2**16).to(torch.uint16).view(torch.float16)
    long, short = torch.empty(1, 2**16), torch.empty(2**16, 1)
    kernel.fill([every], long)
    kernel.fill(list(every[:, None]), short)
    assert torch.equal(bits(long[0]), bits(every.float()))
    assert torch.equal(bits(short[:, 0]), bits(every.float()))
    assert every.isnan().sum() == 2 * (2**10 - 1)


def test_what_it_must_not_be_given_does_not_fit(kernel: PaddingKernel) -> None:
    rows, values = [torch.ones(2, 3), torch.ones(1, 3)], torch.empty(2, 2, 3)
    raw = np.empty(values.nbytes + 1, np.uint8)
    assert kernel.fits(rows, values)
    for given_rows, given_values in (
        ([], torch.empty(0, 0, 3)),
        (rows[:1], values),  # fewer
        ([torch.ones(3, 3), rows[1]], values),  # longer
        ([torch.ones(2, 4), rows[1]], values),  # wider
        ([rows[0], rows[1].half()], values),
        ([torch.ones(3, 2).T, rows[1]], values),
        (rows, torch.empty(2, 3, 2).mT),
        (rows, at(raw, 1 - raw.ctypes.data % 2, (2, 2, 3), torch.float32)),
        (rows, values.half()),
        ([row.short() for row in rows], values.long()),
    ):
        assert not kernel.fits(given_rows, given_values)


@pytest.mark.parametrize("access", ["map", "read"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_batches_are_the_same_with_and_without_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kernel: PaddingKernel,
    access: Access,
    dtype: torch.dtype,
) -> None:
    random = np.random.default_rng(0)
    writer = CacheWriter(spec=StreamSpec(33), provenance={}, dtype="float16")
    rows = [Row(f"{n}", f"of {n}", random.normal(size=(n, 33)).astype("f2")) for n in (5, 0, 70, 1)]
    writer.write(tmp_path / shard_name(0), rows)
    reader = CacheReader(tmp_path, access=access)
    monkeypatch.setattr(padding_kernel, "kernel", None)
    monkeypatch.setattr(features.gather, "WORTH_STREAMING_BYTES", 1)
    monkeypatch.setattr(features.gather, "CACHED_BYTES", 1)  # so that reads come in groups
    without = reader.batch(list(reader), dtype=dtype)
    used = Used(kernel)
    monkeypatch.setattr(padding_kernel, "kernel", used)
    stream = reader.batch(list(reader), dtype=dtype)
    assert torch.equal(stream.values, without.values)
    assert torch.equal(stream.mask, without.mask)
    # Positioned reads of what needs no conversion go to their place without a copy.
    groups = {torch.float32: 3 if access == "read" else 1, torch.float16: int(access == "map")}
    assert used.times == groups.get(dtype, 0)


class Used:
    """The kernel, counted."""

    def __init__(self, kernel: PaddingKernel) -> None:
        self.kernel, self.times = kernel, 0

    def fits(self, rows: list[Tensor], values: Tensor) -> bool:
        return self.kernel.fits(rows, values)

    def fill(self, rows: list[Tensor], values: Tensor) -> None:
        self.times += 1
        self.kernel.fill(rows, values)


def test_small_batches_stay_in_the_caches(
    monkeypatch: pytest.MonkeyPatch, kernel: PaddingKernel
) -> None:
    used = Used(kernel)
    monkeypatch.setattr(padding_kernel, "kernel", used)
    dim = features.gather.WORTH_STREAMING_BYTES // 8
    for width, times in ((dim - 1, 0), (dim, 1)):
        values = torch.full((2, 1, width), torch.nan)
        fill([torch.ones(1, width), torch.empty(0, width)], values)
        assert used.times == times
        assert values.sum((1, 2)).tolist() == [width, 0]


@pytest.mark.usefixtures("kernel")
def test_where_there_is_no_library_there_is_no_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    built = next(Path(padding_kernel.__file__).parent.glob("_padding*.so"))
    assert find() is not None
    assert find(tmp_path) is None
    (tmp_path / built.name).write_bytes(b"\x7fELF of another machine")
    assert find(tmp_path) is None
    monkeypatch.setattr(padding_kernel, "VERSION", padding_kernel.VERSION + 1)
    assert find() is None
    monkeypatch.undo()
    monkeypatch.setenv(SWITCH, "1")
    assert find() is None


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["cc", "no-such-compiler"])
def test_without_a_compiler_everything_else_is_installed(tmp_path: Path, compiler: str) -> None:
    if compiler == "cc" and shutil.which("cc") is None:
        pytest.skip("no C compiler here")
    project = tmp_path / "project"
    (project / "features").mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "features/_padding.c"):
        shutil.copy(PROJECT / name, project / name)
    (project / "features" / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build", "--build-base", str(tmp_path / "built")],
        cwd=project,
        env={**os.environ, "CC": compiler},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (module,) = (tmp_path / "built").rglob("features/__init__.py")
    assert len(list(module.parent.glob("_padding*.so"))) == (compiler == "cc")
