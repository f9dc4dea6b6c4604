"""Measures what all rows of one bit-width do to the actions together.

A score is what a channel does alone, and the sum of scores is not the error of many channels. Their
errors partly align: rows that are dropped all take away, never add. Measured on the reference
policy, the sum predicts the error of the 8-bit rows within a fifth and of the 4-bit rows within a
half, but the dropped rows together cost ten times the sum of their scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qvla_offline.blockwise.passes import BlockPass, Blockwise, Execute
from qvla_offline.blockwise.schedule import Arguments
from qvla_offline.blockwise.weights import members_of
from qvla_offline.checkpoints.targets import QuantizableLayer
from qvla_offline.quantization.layer import QuantizedLayer
from qvla_offline.quantization.quantizer import (
    NO_STATISTICS,
    LayerStatistics,
    quantize_layer,
)
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.replacement import LayerState, put_rows


@torch.no_grad()
def joint_errors(
    policy: Blockwise,
    targets: Mapping[str, QuantizableLayer],
    samples: Sequence[Any],
    layers: Mapping[str, np.ndarray],
    scheme: QuantizationScheme,
    statistics: Mapping[str, LayerStatistics] = NO_STATISTICS,
    by_bits: bool = True,
) -> tuple[dict[int, float], float]:
    """Measures the error of the rows of each bit-width together, and of all rows together.

    The error is the mean over samples of ||A' - A||^2. layers: {module: bits [R]}. Returns ({bits
    below 16: error}, whole error). Every sample goes through each block with all of these weights
    in turn, so that a block is loaded and quantized once. Weights and biases are put back in the
    end. statistics: for quantizers that need them. by_bits: False measures the whole error alone.
    """
    widths = sorted({int(b) for name in targets for b in np.unique(layers[name])} - {16})
    alone = [(b,) for b in widths] if by_bits else []
    variants: list[tuple[int, ...]] = [(), *alone, tuple(widths)]
    members = members_of(policy.weights.blocks, targets)
    count = len(samples)

    @contextmanager
    def in_all_variants(index: int, name: str, block: nn.Module) -> Iterator[Execute]:
        kept = {n: LayerState.of(targets[n]) for n in members.get(name, [])}
        rows = {
            n: {b: torch.from_numpy(np.flatnonzero(layers[n] == b)) for b in widths} for n in kept
        }

        def quantized_rows(n: str, b: int) -> QuantizedLayer:
            weight = kept[n].weight[rows[n][b]]
            of_layer = statistics.get(n)
            return quantize_layer(weight, np.full(len(weight), b), scheme, f"{n}.weight", of_layer)

        quantized = {n: {b: quantized_rows(n, b) for b in widths} for n in kept}

        def execute(sample: int, arguments: Arguments) -> Tensor:
            variant, first = divmod(sample, count)
            if first == 0:
                for n, state in kept.items():
                    state.put_back(targets[n])
                    for b in variants[variant]:
                        put_rows(targets[n], rows[n][b], quantized[n][b])
            return arguments.call(block)

        try:
            yield execute
        finally:
            for n, state in kept.items():
                state.put_back(targets[n])

    with BlockPass(policy, list(samples) * len(variants)) as run:
        run.forward("joint", in_all_variants)
        actions = [run.result(index).double() for index in range(len(run.samples))]
    moved = _errors(actions, count)
    return dict(zip(widths if by_bits else (), moved, strict=False)), moved[-1]


def _errors(actions: Sequence[Tensor], count: int) -> list[float]:
    """Returns the error of each variant against the first `count` actions, the float ones."""
    reference = actions[:count]
    return [
        sum(
            float((a - b).square().sum())
            for a, b in zip(actions[start : start + count], reference, strict=True)
        )
        / sum(len(a) for a in reference)
        for start in range(count, len(actions), count)
    ]
