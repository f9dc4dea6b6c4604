"""The contents of a written graph: its row groups, its layers, and where they are used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx


@dataclass(frozen=True)
class StoredGroup:
    """One row group in the graph.

    weight: its value in the compute dtype, `shape` [C', n']; scale: of an int2 group.
    """

    container: str
    weight: str
    shape: tuple[int, int]
    scale: str
    scales_per_column: int
    block: int | None


@dataclass(frozen=True)
class StoredLinear:
    """A layer whose weights lie in the graph, to be multiplied with as often as needed.

    inputs: C. bits: int64 [R], the bit-width of each output channel. nominal_bits: of codes and
    scales together, 2-bit codes counted as 2. source: int64 [R], the column of each output channel
    in the groups side by side, one past the last if it has none. order: the constant that holds
    it, None where nothing is to be reordered. bias: its value, if any.
    """

    name: str
    groups: tuple[StoredGroup, ...]
    inputs: int
    bits: np.ndarray
    nominal_bits: int
    source: np.ndarray
    order: str | None
    bias: str | None

    @property
    def width(self) -> int:
        """Columns of the groups side by side."""
        return sum(group.shape[1] for group in self.groups)


@dataclass(frozen=True)
class HalfOffset:
    """What is missing in a group of 2-bit weights w, whose values are 2 w + scale.

    scale: [blocks, n'], one for all inputs of a block.
    """

    scale: str
    blocks: int


@dataclass(frozen=True)
class RowProduct:
    """The place of a linear layer in the graph: y [B, T, R] from x [B, T, C].

    There is one matrix product per group of rows.

    weights: the float matrices, after DequantizeLinear or Cast, side by side, and their shapes;
    each has `inputs` rows and maybe padding below. offsets: of the groups of 2 bits, else None.
    source: int64 [R], the column of each output channel; one past the last column means 0.
    """

    x: str
    y: str
    weights: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]
    offsets: tuple[HalfOffset | None, ...]
    inputs: int
    source: np.ndarray


@dataclass(frozen=True)
class StoredGraph:
    """The graph that a GraphBuilder has written.

    model: the graph, whose large tensors are in the data file. layers: {module: its weights in the
    graph}. products: where they are multiplied with. stored_bytes: of every tensor and constant, by
    name.
    """

    model: onnx.ModelProto
    layers: Mapping[str, StoredLinear]
    products: tuple[RowProduct, ...]
    stored_bytes: Mapping[str, int]
