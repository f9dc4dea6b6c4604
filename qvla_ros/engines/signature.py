"""Checks an engine's inputs against the names, types and shapes of the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qvla_ros.errors import QvlaError


@dataclass(frozen=True)
class TensorSpec:
    """One input of the graph. shape: an int a dimension, or None where any size from 1 on fits."""

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return (
            f"{self.dtype} [{', '.join('*' if size is None else str(size) for size in self.shape)}]"
        )

    def accepts(self, array: NDArray[np.generic]) -> bool:
        if array.dtype != self.dtype or array.ndim != len(self.shape):
            return False
        return all(
            found == (size or found) and found > 0
            for found, size in zip(array.shape, self.shape, strict=True)
        )


def check_inputs(specs: Sequence[TensorSpec], inputs: Mapping[str, NDArray[np.generic]]) -> None:
    """Raises QvlaError unless `inputs` are exactly those of `specs`.

    Nothing is filled in, cast or dropped.
    """
    names = [spec.name for spec in specs]
    if set(names) != set(inputs):
        fix = "preprocess with the same bundle that the engine was loaded from"
        raise QvlaError("engine inputs", sorted(inputs), f"exactly {sorted(names)}", fix)
    for spec in specs:
        array = inputs[spec.name]
        if not spec.accepts(array):
            found = f"{array.dtype} {list(array.shape)}"
            raise QvlaError(
                f"engine input {spec.name}",
                found,
                str(spec),
                "preprocess with this bundle's cameras and prompt",
            )
