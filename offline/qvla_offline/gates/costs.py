"""Prices rows by the bits of their codes and scales, or by those that the exported graph holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qvla_offline.quantization.containers import container_of, group_bytes
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.errors import QvlaError

COSTS = ("nominal", "stored")
SCALE_BYTES = {"float16": 2, "float32": 4}


@dataclass(frozen=True)
class Pricing:
    """The rule by which rows are priced.

    cost: 'nominal' counts a 2-bit code as 2 bits and a scale in the scheme's type; 'stored' counts
    what the graph holds: 2-bit codes in their container, blocks made whole, scales in the type that
    the graph computes in.
    """

    scheme: QuantizationScheme
    cost: str = "nominal"
    compute_dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.cost not in COSTS:
            raise QvlaError("cost", self.cost, f"one of {COSTS}", "choose with --cost")
        if self.compute_dtype not in SCALE_BYTES:
            raise QvlaError(
                "compute_dtype", self.compute_dtype, f"one of {list(SCALE_BYTES)}", "use float32"
            )

    def row_bits(self, columns: int, bits: int) -> int:
        """Returns the bits of one row of `columns` weights at `bits`, scales included."""
        if self.cost == "nominal":
            return self.scheme.row_bits(columns, bits)
        container = container_of(bits, self.scheme)
        if container is None:
            return 0
        pair = group_bytes(
            container, 2, columns, self.scheme.group_size, SCALE_BYTES[self.compute_dtype]
        )
        return 4 * pair  # groups hold an even number of rows, so two rows are priced and halved

    def choices(self, columns: Mapping[str, int], bits: Sequence[int]) -> dict[str, np.ndarray]:
        """Returns {layer: int64 [len(bits)]}: the bits that one row takes at each bit-width."""
        return {
            n: np.array([self.row_bits(width, b) for b in bits], dtype=np.int64)
            for n, width in columns.items()
        }

    def bits_per_weight(
        self, layers: Mapping[str, np.ndarray], columns: Mapping[str, int]
    ) -> float:
        """Returns the mean bits per weight of gates {layer: uint8 [R]}, scales included.

        The mean is over the layers named in `columns`.
        """
        spent = weights = 0
        for name, width in columns.items():
            spent += sum(
                int(n) * self.row_bits(width, b)
                for b, n in enumerate(np.bincount(layers[name]))
                if n
            )
            weights += layers[name].size * width
        return spent / weights
