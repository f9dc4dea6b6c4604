"""Sorts the rows of one layer into the few matrices that an engine multiplies.

Their types are float16, INT8, INT4 (and INT2).
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import torch

from qvla_offline.quantization.containers import (
    CONTAINERS,
    block_layout,
    container_of,
    promote_to_tile,
)
from qvla_offline.quantization.layer import QuantizedLayer
from qvla_offline.quantization.quantizer import LayerStatistics, quantize_layer
from qvla_offline.quantization.scheme import QuantizationScheme


@dataclass(frozen=True)
class RowGroup:
    """One matrix of the graph: rows of a layer that share a container, transposed for `x @ weight`.

    container: one of CONTAINERS. rows: int64 [n] output channels, in the order of the matrix's
    columns. weight: [C', n'] float16, int8, or ml_dtypes int4 / int2; surplus inputs (C' >= C) are
    to be fed zeros, surplus columns (n' >= n) are never read. scales: None for float16; [n'] for
    int8; [C' / block, n'] below, float32. block: inputs per scale along axis 0.
    """

    container: str
    rows: np.ndarray
    weight: np.ndarray
    scales: np.ndarray | None
    block: int | None


def row_groups(layer: QuantizedLayer) -> list[RowGroup]:
    """Returns the non-empty groups of `layer`, widest container first.

    Within a group wide bits come first, then the rows are in order of channel.
    """
    groups = []
    for container in CONTAINERS:
        members = [
            b
            for b in sorted(layer.rows, reverse=True)
            if container_of(b, layer.scheme) == container
        ]
        if not members or not sum(len(layer.rows[b]) for b in members):
            continue
        rows = np.concatenate([layer.rows[b].numpy() for b in members])
        if container == "float16":
            groups.append(
                RowGroup(
                    container,
                    rows,
                    np.ascontiguousarray(layer.float_rows.half().numpy().T),
                    None,
                    None,
                )
            )
            continue
        codes = torch.cat([layer.codes[b].codes for b in members]).numpy().T
        scales = torch.cat([layer.codes[b].scales for b in members]).float().numpy().T
        if container == "int8":
            groups.append(RowGroup(container, rows, np.ascontiguousarray(codes), scales[0], None))
        else:
            groups.append(_blocked(container, rows, codes, scales, layer.scheme.group_size))
    return groups


def _blocked(
    container: str, rows: np.ndarray, codes: np.ndarray, scales: np.ndarray, group_size: int
) -> RowGroup:
    """Shapes codes and scales of an INT4 or INT2 group so that TensorRT reads and packs them right.

    Measured with TensorRT-RTX 1.7: it takes inputs / scales for the block size, so it refuses or,
    worse, misreads a ragged last block; zero inputs make it whole. It unpacks a weight with an odd
    number of columns, or with one block for all inputs; a zero column is added, and a lone block is
    written as several with the same scale.
    """
    inputs, columns = codes.shape
    block, blocks = block_layout(inputs, group_size)
    stored = codes if container == "int4" else (codes - 1) // 2
    stored = np.pad(stored, ((0, blocks * block - inputs), (0, columns % 2)))
    scales = np.repeat(scales, group_size // block, axis=0)[:blocks]
    scales = np.pad(scales, ((0, 0), (0, columns % 2)), constant_values=1.0)
    return RowGroup(container, rows, stored.astype(getattr(ml_dtypes, container)), scales, block)


def quantize_to_tile(
    weight: torch.Tensor,
    row_bits: np.ndarray,
    scheme: QuantizationScheme,
    tile: int,
    name: str = "weight",
    statistics: LayerStatistics | None = None,
) -> QuantizedLayer:
    """Quantizes `weight` [R, C] with its row groups filled up to `tile` by promoting rows.

    A tile of 1 promotes none. name: of the tensor, for errors.
    """
    layer = quantize_layer(weight, row_bits, scheme, name, statistics)
    if tile == 1:
        return layer
    asked = np.asarray(row_bits, dtype=np.int64)
    error = (weight.float() - layer.dequantize()).square().sum(dim=1).numpy()
    bits = promote_to_tile(asked, error, tile, scheme)
    promoted = np.flatnonzero(bits != asked)
    rows = torch.from_numpy(promoted)
    other = quantize_layer(weight[rows], bits[promoted], scheme, name, statistics)
    return layer.with_rows(rows, other)
