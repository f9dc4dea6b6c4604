"""Quantizer `gptq`: rounding that compensates.

What one weight of a row loses in rounding, the weights after it take up as far as they can.

GPTQ (Frantar et al., arXiv 2210.17323). For a row w and a Hessian H of its inputs, the loss is
(w - q)^T H (w - q). With U the upper Cholesky factor of H^-1: q_i = round(w_i), e = (w_i - q_i) /
U_ii, and w_j -= e U_ij for all j after i. H belongs to the layer, codes and scales to the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from qvla_offline.finite import require_finite
from qvla_offline.quantization.clip_search import nearest_codes, quantize_rows
from qvla_offline.quantization.layer import QuantizedLayer, RowCodes, split_rows
from qvla_offline.quantization.quantizer import LayerStatistics, Quantizer
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.errors import QvlaError

DAMPING = 0.01  # added to the diagonal, as a share of its mean
_ATTEMPTS = 6
# rows are worked on in pieces of about this many weights, which stay in the cache
_CHUNK_WEIGHTS = 1 << 18


@dataclass(frozen=True)
class Gptq(Quantizer):
    """Compensates by the sum of x x^T over the calibration samples.

    The inputs are taken group by group, so that a group's scales (by the rule of `clip_search`) see
    what earlier groups have handed on: groups with large inputs first, and within a group the
    inputs with the largest first. That order is the layer's, so every row is treated alone.
    """

    scheme: QuantizationScheme
    needs: ClassVar[frozenset[str]] = frozenset({"input_hessian"})

    def quantize(
        self, name: str, weight: Tensor, bits: np.ndarray, statistics: LayerStatistics | None
    ) -> QuantizedLayer:
        """See Quantizer."""
        require_finite(name, weight.float())
        orders: dict[int, _Order] = {}

        def compensated(rows: Tensor, width: int) -> RowCodes:
            inputs_per_scale = self.scheme.inputs_per_scale(rows.shape[1], width)
            if inputs_per_scale not in orders:
                hessian = self._hessian_of(name, rows.shape[1], statistics)
                orders[inputs_per_scale] = _order(hessian, inputs_per_scale, name)
            return _compensate(rows, width, self.scheme, orders[inputs_per_scale], name)

        return split_rows(name, weight, bits, self.scheme, compensated)

    def _hessian_of(self, name: str, inputs: int, statistics: LayerStatistics | None) -> Tensor:
        """The Hessian of the tensor `name`; QvlaError unless it has a row for each input."""
        assert statistics is not None  # quantize_layer has seen to it
        hessian = self.hessian(statistics)
        if hessian.shape != (inputs, inputs):
            raise QvlaError(
                f"statistics of {name}",
                f"a Hessian of shape {list(hessian.shape)}",
                f"{[inputs] * 2}, one row an input",
                "gather the statistics of this checkpoint with `qvla statistics`",
            )
        return hessian

    def hessian(self, statistics: LayerStatistics) -> Tensor:
        """The matrix [C, C] that weighs the errors of a row, up to a factor."""
        assert statistics.input_hessian is not None
        return statistics.input_hessian


@dataclass(frozen=True)
class _Order:
    """The order in which a row's inputs are rounded.

    inputs: int64 [C] in the order in which they are rounded. groups: [(group, start, stop)] of
    them. upper: float32 [C, C], the Cholesky factor of the inverse Hessian in that order.
    """

    inputs: Tensor
    groups: list[tuple[int, int, int]]
    upper: Tensor


def _order(hessian: Tensor, inputs_per_scale: int, name: str) -> _Order:
    diagonal = hessian.diagonal()
    parts = diagonal.split(inputs_per_scale)
    by_size = sorted(range(len(parts)), key=lambda group: -float(parts[group].mean()))
    inputs = []
    groups = []
    start = 0
    for group in by_size:
        within = parts[group].argsort(descending=True, stable=True)
        inputs.append(group * inputs_per_scale + within)
        groups.append((group, start, start + len(within)))
        start += len(within)
    order = torch.cat(inputs)
    return _Order(order, groups, inverse_factor(hessian[order][:, order], name))


def inverse_factor(hessian: Tensor, name: str = "layer") -> Tensor:
    """Upper Cholesky factor [C, C] of the inverse of the damped `hessian`, float32.

    An input that is always zero gets the damping alone. The damping grows tenfold while the matrix
    is not positive definite; QvlaError if that does not help.
    """
    require_finite(f"hessian of {name}", hessian)
    mean = float(hessian.diagonal().mean())
    damping = DAMPING * (mean if mean > 0 else 1.0)
    for _ in range(_ATTEMPTS):
        damped = hessian.float() + damping * torch.eye(len(hessian), device=hessian.device)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed:
                return upper
        damping *= 10
    raise QvlaError(
        f"hessian of {name}",
        "not positive definite, however much is added to its diagonal",
        "a sum of x x^T",
        "gather the statistics again with `qvla statistics`",
    )


def _compensate(
    weight: Tensor, bits: int, scheme: QuantizationScheme, order: _Order, name: str
) -> RowCodes:
    """Codes and scales of every row of `weight` [R, C] at `bits`."""
    inputs = weight.shape[1]
    pieces = weight.split(max(1, _CHUNK_WEIGHTS // inputs))
    done = [_compensate_piece(piece.float(), bits, scheme, order, name) for piece in pieces]
    return RowCodes(
        torch.cat([codes for codes, _ in done]),
        torch.cat([scales for _, scales in done]),
        bits,
        scheme.inputs_per_scale(inputs, bits),
    )


def _compensate_piece(
    weight: Tensor, bits: int, scheme: QuantizationScheme, order: _Order, name: str
) -> tuple[Tensor, Tensor]:
    """Codes int8 [R, C] and scales [R, groups].

    Errors are handed on element by element, not by a product of matrices, whose rounding depends on
    how many rows there are.
    """
    left = weight[:, order.inputs]
    codes = torch.empty_like(left)
    scales = {}
    for group, start, stop in order.groups:
        scales[group] = quantize_rows(left[:, start:stop], bits, scheme, name).scales
        scale = scales[group][:, 0].float()
        for place in range(start, stop):
            codes[:, place] = nearest_codes(left[:, place], scale, bits)
            lost = (left[:, place] - codes[:, place] * scale) / order.upper[place, place]
            left[:, place + 1 :].addcmul_(lost[:, None], order.upper[place, place + 1 :], value=-1)
    back = order.inputs.argsort()
    ordered = torch.cat([scales[group] for group in range(len(scales))], dim=1)
    return codes[:, back].to(torch.int8), ordered
