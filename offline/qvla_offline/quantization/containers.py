"""Maps rows to the containers of the file, and fills containers up. Needs numpy alone.

A bit-width is what a row asks for; a container is what the file holds. 2-bit rows lie in the INT4
container with the 4-bit ones, unless two_bit_storage is "int2": they have the same format, so they
share one matrix and one kernel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np

from qvla_offline.quantization.scheme import STORED_BIT_WIDTHS, WHOLE_ROW, QuantizationScheme
from qvla_ros.errors import QvlaError

CONTAINERS = ("float16", "int8", "int4", "int2")  # widest first; 0-bit rows have none
FULL_BITS = {"float16": 16, "int8": 8, "int4": 4, "int2": 2}
SMALLEST_BLOCK = 16  # of ONNX Runtime's packed kernels


def can_be_stored(widths: Collection[int], scheme: QuantizationScheme) -> bool:
    """Whether the containers hold rows of all `widths` by this scheme."""
    return scheme.group_size != WHOLE_ROW and set(widths) <= set(STORED_BIT_WIDTHS)


def require_storable(widths: Collection[int], scheme: QuantizationScheme) -> None:
    """Raises QvlaError unless the containers hold rows of all `widths` by this scheme."""
    if scheme.group_size == WHOLE_ROW:
        raise QvlaError(
            "scheme.group_size",
            f"{WHOLE_ROW}, one scale for the whole row",
            "groups of 16 to 256 inputs: the engines hold no other rows of 2 and 4 bits",
            "set group_size: 64, or measure the weights with `qvla error`",
        )
    others = sorted(set(widths) - set(STORED_BIT_WIDTHS))
    if others:
        raise QvlaError(
            "bits",
            others,
            f"widths that the engines hold: {', '.join(map(str, STORED_BIT_WIDTHS))}",
            "choose the bits among these with --bits, or measure the gates with `qvla error`",
        )


def container_of(bits: int, scheme: QuantizationScheme) -> str | None:
    """Returns the container of a row of `bits`, of STORED_BIT_WIDTHS; None for 0 bits."""
    require_storable((bits,), scheme)
    two_bit = "int2" if scheme.two_bit_storage == "int2" else "int4"
    return {16: "float16", 8: "int8", 4: "int4", 2: two_bit, 0: None}[bits]


def block_layout(inputs: int, group_size: int) -> tuple[int, int]:
    """Returns (inputs per scale, scales per row) of an INT4 or INT2 matrix.

    There are two blocks or more where 16 inputs allow.
    """
    block = group_size
    while block >= inputs and block > SMALLEST_BLOCK:
        block //= 2
    return block, -(-inputs // block)


def group_bytes(container: str, rows: int, inputs: int, group_size: int, scale_bytes: int) -> int:
    """Returns the bytes of a group of `rows` as the graph stores it, with scales and padding."""
    if container == "float16":
        return 2 * rows * inputs
    if container == "int8":
        return rows * (inputs + scale_bytes)
    block, blocks = block_layout(inputs, group_size)
    columns = rows + rows % 2
    return -(-blocks * block * columns * FULL_BITS[container] // 8) + blocks * columns * scale_bytes


def layer_bytes(
    row_bits: np.ndarray, inputs: int, scheme: QuantizationScheme, scale_bytes: int
) -> int:
    """Returns the bytes of a layer's weights, scales and padding included. row_bits: [R]."""
    rows = Counter(container_of(int(b), scheme) for b in row_bits)
    return sum(
        group_bytes(container, count, inputs, scheme.group_size, scale_bytes)
        for container, count in rows.items()
        if container is not None
    )


def promote_to_tile(
    row_bits: np.ndarray, row_error: np.ndarray, tile: int, scheme: QuantizationScheme
) -> np.ndarray:
    """Promotes rows until the row count of every container is a multiple of `tile`.

    Returns bits per row [R]. A group that is short takes the rows with the largest `row_error` [R]
    (squared weight error at the asked bits) from the next narrower group, and so on down to the
    0-bit rows. No row is narrowed. The narrowest group may stay ragged.
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
        # next group first, then largest error
        order = np.lexsort((narrower, -row_error[narrower], ranks[narrower]))
        taken = narrower[order[:missing]]
        bits[taken] = FULL_BITS[name]
        ranks[taken] = place
    return bits
