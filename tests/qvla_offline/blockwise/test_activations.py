"""Tensors that wait come back as they were, wherever they waited."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qvla_offline.blockwise.activations import Activations


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    memory_bytes=st.integers(0, 400),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int64]),
)
def test_tensors_come_back_in_bits_shape_and_type(
    sizes: list[int], memory_bytes: int, dtype: torch.dtype
) -> None:
    tensors = [torch.randn(1, size, 2).mul(100).to(dtype) for size in sizes]
    with Activations(memory_bytes) as held:
        for key, tensor in enumerate(tensors):
            held.put(key, tensor)
        for key, tensor in enumerate(tensors):
            found = held.get(key)
            assert (found.shape, found.dtype) == (tensor.shape, dtype)
            assert torch.equal(found, tensor)


def test_what_exceeds_the_memory_lies_in_files_which_go_with_it(tmp_path: Path) -> None:
    with Activations(100, tmp_path) as held:
        held.put("small", torch.ones(25))
        assert not list(tmp_path.iterdir())
        held.put("large", torch.ones(2, 13))
        [folder] = tmp_path.iterdir()
        assert [file.stat().st_size for file in folder.iterdir()] == [104]
        held.drop("large")
        assert not list(folder.iterdir())
        held.drop("small")
        held.put("again", torch.zeros(25))  # the memory is free again
        assert not list(folder.iterdir())
        with pytest.raises(KeyError):
            held.get("large")
    assert not list(tmp_path.iterdir())
