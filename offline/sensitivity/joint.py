"""What all rows of one bit-width do to the actions together, which the sum of their own scores does not tell.

A score is what a channel does alone. Errors of many channels partly align: rows that are dropped all take away, never
add. Measured on the reference policy, the sum tells the error of the 8- and 4-bit rows within a fifth and a half, but
the dropped rows together cost ten times the sum of their scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from qvla_offline.quantizers import QuantizationScheme, reconstruct_rows
from qvla_offline.sensitivity.hessian import flat_weight
from torch import Tensor, nn


@torch.no_grad()
def joint_errors(
    actions: Callable[[Any], Tensor],
    targets: Mapping[str, nn.Module],
    samples: Sequence[Any],
    layers: Mapping[str, np.ndarray],
    scheme: QuantizationScheme,
) -> tuple[dict[int, float], float]:
    """Mean over samples of ||A' - A||^2, with all rows of one bit-width quantized, and with all rows quantized.

    layers: {module: bits [R]}. Returns ({bits below 16: error}, whole error). Weights are put back in the end.
    """
    reference = [actions(sample).double() for sample in samples]
    kept = {name: module.weight.clone() for name, module in targets.items()}
    widths = sorted({int(b) for name in targets for b in np.unique(layers[name])} - {16})
    rows = {name: {b: torch.from_numpy(np.flatnonzero(layers[name] == b)) for b in widths} for name in targets}
    restored = {
        name: {b: _restored(module, rows[name][b], b, scheme) for b in widths} for name, module in targets.items()
    }

    def error(chosen: Sequence[int]) -> float:
        for name, module in targets.items():
            for b in chosen:
                flat_weight(module)[rows[name][b]] = restored[name][b]
        moved = [float((actions(s).double() - a).square().sum()) for s, a in zip(samples, reference, strict=True)]
        for name, module in targets.items():
            module.weight.copy_(kept[name])
        return sum(moved) / sum(len(a) for a in reference)

    try:
        return {b: error([b]) for b in widths}, error(widths)
    finally:
        for name, module in targets.items():
            module.weight.copy_(kept[name])


def _restored(module: nn.Module, rows: Tensor, bits: int, scheme: QuantizationScheme) -> Tensor:
    return reconstruct_rows(flat_weight(module)[rows].float(), bits, scheme).to(module.weight.dtype)
