"""Work that does not fit is cut in halves until it does, and comparable work beforehand."""

from __future__ import annotations

import ctypes
import mmap
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from features.backbone.base import Inputs
from features.errors import MachineError
from features.process.machine_errors import machine_error, with_machine_errors
from features.process.memory import DoesNotFitError, Halver, give_back_freed, out_of_memory


def of(count: int) -> Inputs:
    ids = tuple(str(number) for number in range(count))
    return Inputs(ids, {"x": torch.arange(2 * count).reshape(count, 2)})


@pytest.fixture
def halver() -> Halver[Inputs]:
    return Halver(lambda i: len(i.ids), lambda i: tuple(i.tensors["x"].shape), Inputs.between)


def test_parts_are_the_work(halver: Halver[Inputs]) -> None:
    work = of(7)
    for limit, counts in ((8, [7]), (7, [3, 4]), (4, [3, 2, 2]), (1, [1] * 7)):
        halver.too_large = [(limit, 2)]
        parts = list(halver.parts(work))
        assert [len(part.ids) for part in parts] == counts
        assert sum((part.ids for part in parts), ()) == work.ids
        assert torch.equal(torch.cat([part.tensors["x"] for part in parts]), work.tensors["x"])


def test_what_is_larger_in_no_dimension_alone_is_not_cut(halver: Halver[Inputs]) -> None:
    """Many short clips are as many numbers as a few long ones, and need less memory."""
    for known, counts in (([(4, 3)], [7]), ([(8, 1), (9, 2)], [7]), ([(2, 3), (6, 1)], [3, 4])):
        halver.too_large = [*known]
        assert [len(part.ids) for part in halver.parts(of(7))] == counts


# As torch raises them: what an allocator, or a library that asks it, says.
SHORT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of"),
    torch.OutOfMemoryError("XPU has no room"),
    MemoryError("Unable to allocate 12 GiB"),
    RuntimeError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in the manual"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.0 GB, max allowed: 18.13 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate`"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't "
        "allocate memory: you tried to allocate 4 bytes. Error code 12 (Cannot ..."
    ),
    RuntimeError("std::bad_alloc"),
    RuntimeError("unable to mmap 4096 bytes from file <x>: Cannot allocate memory (12)"),
]
PERHAPS = [
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
]


@pytest.mark.parametrize("error", SHORT_OF_MEMORY, ids=str)
def test_every_word_for_too_little_memory_is_understood(error: Exception) -> None:
    assert out_of_memory(error)
    known = machine_error(error)  # where nothing can be halved: in moving a network to a device
    assert known is not None
    assert str(known).startswith(f"out of memory ({error}): there is too little memory: end other")
    with pytest.raises(MachineError, match="there is too little memory"):
        with_machine_errors(raises(error))


@pytest.mark.parametrize("error", [*SHORT_OF_MEMORY, *PERHAPS], ids=str)
def test_what_fails_twice_is_cut_from_then_on(halver: Halver[Inputs], error: Exception) -> None:
    tried: list[int] = []
    said: list[DoesNotFitError] = []

    def compute(inputs: Inputs) -> int:
        tried.append(len(inputs.ids))
        if len(inputs.ids) > 3:
            raise error
        return len(inputs.ids)

    def computed(inputs: Inputs) -> list[int]:
        results: list[int] = []
        for part in halver.parts(inputs):
            failed = len(said)
            try:
                results.append(halver.attempt_twice(part, compute))
            except DoesNotFitError as caught:
                said.append(caught)
            if len(said) > failed:
                results += computed(part)
        return results

    assert computed(of(7)) == [3, 2, 2]
    assert tried == [7, 7, 3, 4, 4, 2, 2]
    assert halver.too_large == [(4, 2)]
    assert {str(each) for each in said} == {str(error).partition(". ")[0]}
    assert {each.__context__ for each in said} == {None}  # it would keep the tensors of `compute`
    tried.clear()
    assert computed(of(7)) == tried == [3, 2, 2]
    halver.forget()
    assert computed(of(3)) == [3]
    assert [part.ids for part in halver.parts(of(7))] == [of(7).ids]


def test_what_fails_once_is_not_cut(
    halver: Halver[Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory may be in pieces by what ran before; it is freed before the second time."""
    freed: list[bool] = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: freed.append(True))
    for _ in range(2):
        with pytest.raises(DoesNotFitError):
            halver.attempt(of(7), raises(torch.OutOfMemoryError("out of memory")))
        assert [len(part.ids) for part in halver.parts(of(7))] == [7]
        assert halver.attempt(of(7), lambda inputs: len(inputs.ids)) == 7
    assert not halver.too_large
    assert len(freed) == 2


def test_a_single_row_is_not_cut_and_other_errors_stay(halver: Halver[Inputs]) -> None:
    with pytest.raises(DoesNotFitError):
        halver.attempt_twice(of(1), raises(MemoryError()))
    assert not halver.too_large
    for error in PERHAPS:  # of a single row it would be a guess
        assert not out_of_memory(error)
        with pytest.raises(RuntimeError, match=re.escape(str(error))):
            halver.attempt(of(1), raises(error))
    with pytest.raises(RuntimeError, match="shapes"):
        halver.attempt(of(2), raises(RuntimeError("shapes do not fit each other")))


def raises(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.gpu
def test_a_gpu_says_so_and_recovers(halver: Halver[Inputs]) -> None:
    """The real allocator, of which all memory but a little is in use."""
    free, _ = torch.cuda.mem_get_info()

    def compute(inputs: Inputs) -> int:
        return torch.empty(len(inputs.ids), free // 5, dtype=torch.uint8, device="cuda").shape[0]

    with pytest.raises(DoesNotFitError, match="CUDA out of memory"):
        halver.attempt_twice(of(7), compute)
    assert halver.too_large == [(7, 2)]
    assert [halver.attempt_twice(part, compute) for part in halver.parts(of(7))] == [3, 4]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_freed_memory_goes_back_although_small_things_lie_between() -> None:
    blocks: list[bytes | None] = [b"." * 2**16 for _ in range(2000)]
    for number in range(len(blocks)):
        if number % 100:
            blocks[number] = None
    before = resident()
    give_back_freed()
    assert before - resident() > 50 * 2**20


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
