"""Rows of one layer, sorted into the few matrices that an engine multiplies: float16, INT8, INT4
(and INT2).

A bit-width is what a row asks for; a container is what the file holds. 2-bit rows ride in the INT4
container beside the 4-bit ones (unless two_bit_storage is "int2"): the same format, so they share
one matrix and one kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import torch

from qvla_offline.quantization.quantizers import QuantizationScheme, QuantizedLayer, quantize_layer

CONTAINERS = ("float16", "int8", "int4", "int2")  # widest first; 0-bit rows have none
FULL_BITS = {"float16": 16, "int8": 8, "int4": 4, "int2": 2}
SMALLEST_BLOCK = 16  # of ONNX Runtime's packed kernels


def container_of(bits: int, scheme: QuantizationScheme) -> str | None:
    """Where a row of `bits` is kept; None for 0 bits."""
    two_bit = "int2" if scheme.two_bit_storage == "int2" else "int4"
    return {16: "float16", 8: "int8", 4: "int4", 2: two_bit, 0: None}[bits]


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
    """The non-empty groups of `layer`, widest container first; within one, wide bits first, then by
    channel.
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
                    container, rows, np.ascontiguousarray(layer.float16_rows.numpy().T), None, None
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
    """Codes and scales of an INT4 or INT2 group, shaped as TensorRT reads it right and keeps it
    packed.

    Measured with TensorRT-RTX 1.7: it takes inputs / scales for the block size, so that a ragged
    last block is refused or, worse, misread: zero inputs make it whole. It unpacks a weight with an
    odd number of columns, or with one block for all inputs: a zero column is added, and a lone
    block is told as several with the same scale.
    """
    inputs, columns = codes.shape
    block, blocks = block_layout(inputs, group_size)
    stored = codes if container == "int4" else (codes - 1) // 2
    stored = np.pad(stored, ((0, blocks * block - inputs), (0, columns % 2)))
    scales = np.repeat(scales, group_size // block, axis=0)[:blocks]
    scales = np.pad(scales, ((0, 0), (0, columns % 2)), constant_values=1.0)
    return RowGroup(container, rows, stored.astype(getattr(ml_dtypes, container)), scales, block)


def block_layout(inputs: int, group_size: int) -> tuple[int, int]:
    """(inputs per scale, scales per row) of an INT4 or INT2 matrix: two blocks or more where 16
    inputs allow.
    """
    block = group_size
    while block >= inputs and block > SMALLEST_BLOCK:
        block //= 2
    return block, -(-inputs // block)


def group_bytes(container: str, rows: int, inputs: int, group_size: int, scale_bytes: int) -> int:
    """Bytes of a group of `rows` as the graph stores it, scales and padding included."""
    if container == "float16":
        return 2 * rows * inputs
    if container == "int8":
        return rows * (inputs + scale_bytes)
    block, blocks = block_layout(inputs, group_size)
    columns = rows + rows % 2
    return -(-blocks * block * columns * FULL_BITS[container] // 8) + blocks * columns * scale_bytes


def promote_to_tile(
    row_bits: np.ndarray, row_error: np.ndarray, tile: int, scheme: QuantizationScheme
) -> np.ndarray:
    """Bits per row [R] with every container's row count a multiple of `tile`, as far as narrower
    rows last.

    A group that is short takes the rows with the largest `row_error` [R] (squared weight error at
    the asked bits) from the next narrower group, and so on down to the 0-bit rows. Nothing is
    narrowed; the narrowest group may stay ragged.
    """
    bits = np.array(row_bits, dtype=np.int64)
    wanted = [c for c in CONTAINERS if c != "int2" or scheme.two_bit_storage == "int2"]
    rank = {name: place for place, name in enumerate(wanted)}  # 0 is the widest
    ranks = np.array([rank.get(container_of(int(b), scheme) or "", len(wanted)) for b in bits])
    for name in wanted:
        place = rank[name]
        count = int((ranks == place).sum())
        missing = -count % tile if count else 0
        narrower = np.flatnonzero(ranks > place)
        order = np.lexsort(
            (narrower, -row_error[narrower], ranks[narrower])
        )  # next group first, then largest error
        taken = narrower[order[:missing]]
        bits[taken] = FULL_BITS[name]
        ranks[taken] = place
    return bits


def quantize_to_tile(
    weight: torch.Tensor,
    row_bits: np.ndarray,
    scheme: QuantizationScheme,
    tile: int,
    name: str = "weight",
) -> tuple[QuantizedLayer, np.ndarray]:
    """Quantize `weight` [R, C] with its row groups filled up to `tile`; also the bits that every
    row ended with [R].

    name: of the tensor, for errors.
    """
    layer = quantize_layer(weight, row_bits, scheme, name)
    asked = np.asarray(row_bits, dtype=np.int64)
    error = (weight.float() - layer.dequantize()).square().sum(dim=1).numpy()
    bits = promote_to_tile(asked, error, tile, scheme)
    promoted = np.flatnonzero(bits != asked)
    rows = torch.from_numpy(promoted)
    return layer.with_rows(rows, quantize_layer(weight[rows], bits[promoted], scheme, name)), bits
