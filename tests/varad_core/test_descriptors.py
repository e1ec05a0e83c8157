"""The filter bank: what is compiled for CPUs equals its definition in torch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from varad_core import descriptors, descriptors_cpu
from varad_core.descriptors import Descriptors


def kernels() -> list[Tensor]:
    bank = Descriptors()
    return [bank.get_buffer(name) for name in ("odd", "even", "spot")]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 70), st.sampled_from([1, 2, 4, 50, 63, 64, 65, 127, 128, 140]),
    st.sampled_from([1, 2]), st.integers(0, 9),
)  # fmt: skip
def test_energies(batch: int, rows: int, columns: int, block: int, seed: int) -> None:
    plane = noise(batch, 3, rows * block, columns * block, seed=seed)
    expected = descriptors.energies(plane, *kernels(), block)
    found = descriptors_cpu.energies(plane, *kernels(), block)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 2), st.integers(1, 40), st.integers(1, 40), st.sampled_from([2, 4]), st.integers(0, 9))
def test_windows(batch: int, rows: int, columns: int, stride: int, seed: int) -> None:
    cells = noise(batch, 5, rows * stride, columns * stride, seed=seed).square()
    expected = descriptors.windows(cells, stride)
    found = descriptors_cpu.windows(cells, stride)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2), st.integers(1, 40), st.integers(1, 150), st.integers(0, 9))
def test_halves(batch: int, rows: int, columns: int, seed: int) -> None:
    plane = noise(batch, 3, 2 * rows, 2 * columns, seed=seed)
    line = Descriptors().get_buffer("halving")
    expected = descriptors.halve(plane, line)
    found = descriptors_cpu.halve(plane, line)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size_px", [8, 24, 96, 264])
def test_tokens_of_a_batch_are_those_of_its_images(size_px: int) -> None:
    images = torch.rand(3, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))
    together = Descriptors()(images)
    for i in range(3):
        for one, all_of_them in zip(Descriptors()(images[i : i + 1]), together, strict=True):
            assert torch.equal(one[0], all_of_them[i])


def test_the_number_of_threads_changes_nothing() -> None:
    images = torch.rand(1, 3, 264, 264, generator=torch.Generator().manual_seed(2))  # enough for several
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(Descriptors()(images))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for one, again in zip(results[0], other, strict=True):
            assert torch.equal(one, again)


@pytest.mark.parametrize("block", [1, 2])
def test_nan_survives(block: int) -> None:
    plane = noise(1, 3, 40, 140)
    plane[0, 0, 20, 131] = torch.nan

    def lost(signed: Tensor) -> Tensor:
        """Cells that are NaN in either sign of the brightness's responses."""
        return signed[0, :24].isnan().any(0)

    found = lost(descriptors_cpu.energies(plane, *kernels(), block))
    assert torch.equal(found, lost(descriptors.energies(plane, *kernels(), block)))
    assert 0 < int(found.sum()) < found.numel() // 10


def test_what_the_compiled_bank_cannot_do_is_refused_or_done_in_torch() -> None:
    with pytest.raises(ValueError, match="block must be 1 or 2 and divide 6 x 9"):
        descriptors_cpu.energies(noise(1, 3, 6, 9), *kernels(), 2)
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for exact, single in zip(Descriptors().double()(images), Descriptors()(images.float()), strict=True):
        assert exact.dtype == torch.float64
        assert torch.allclose(single, exact.float(), atol=1e-3)
