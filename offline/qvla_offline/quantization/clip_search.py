"""Quantizer `clip_search`, the default: searches the clip that keeps a group's direction best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qvla_offline.finite import require_finite
from qvla_offline.quantization.layer import CODE_LIMITS, QuantizedLayer, RowCodes, split_rows
from qvla_offline.quantization.quantizer import LayerStatistics, Quantizer
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.errors import QvlaError

SCALE_TYPES = {"float16": torch.float16, "float32": torch.float32}
CLIP_RATIOS: tuple[float, ...] = tuple(np.linspace(1.0, 0.2, 25).round(4).tolist())
MOST_GAIN = 1.25
# the clip search walks the rows in pieces of about this size, which stay in the cache
_CHUNK_WEIGHTS = 1 << 20


@dataclass(frozen=True)
class ClipSearch(Quantizer):
    """See quantize_rows, with CLIP_RATIOS."""

    scheme: QuantizationScheme

    def quantize(
        self, name: str, weight: Tensor, bits: np.ndarray, statistics: LayerStatistics | None
    ) -> QuantizedLayer:
        """See Quantizer."""

        def searched(rows: Tensor, width: int) -> RowCodes:
            return quantize_rows(rows, width, self.scheme, name)

        return split_rows(name, weight, bits, self.scheme, searched)


def quantize_rows(
    weight: Tensor,
    bits: int,
    scheme: QuantizationScheme,
    name: str = "weight",
    ratios: Sequence[float] = CLIP_RATIOS,
) -> RowCodes:
    """Computes codes and scales of every row of `weight` [R, C] at 2, 3, 4 or 8 bits.

    Of the codes q that the clip ratios give, a group w takes those with the largest cosine to w,
    which have the least squared error at the best scale. The scale s is that at which s q overlaps
    with w as w does with itself: <s q, w> = <w, w>. The least-squares scale is smaller by the
    square of the cosine (at 2 bits by an eighth). It would shrink the output of every channel
    alike; such errors add up through a network instead of averaging out (measured: half to two
    thirds of the action error). s is at most MOST_GAIN times the least-squares scale: a group with
    one huge outlier at 2 bits is better left small.

    With one ratio alone its scale is kept and the nearest codes are taken. An all-zero group gets
    the smallest positive scale. name: of the tensor, for errors.
    """
    if bits not in CODE_LIMITS:
        raise QvlaError(
            "bits",
            bits,
            f"one of {list(CODE_LIMITS)}",
            "0 and 16 bits have no codes: use quantize_layer",
        )
    rows, columns = weight.shape
    inputs_per_scale = scheme.inputs_per_scale(columns, bits)
    codes = torch.empty((rows, columns), dtype=torch.int8, device=weight.device)
    groups = scheme.scales_per_row(columns, bits)
    scales = torch.empty(
        (rows, groups), dtype=SCALE_TYPES[scheme.scale_dtype], device=weight.device
    )
    whole = columns // inputs_per_scale * inputs_per_scale
    for part in _row_chunks(rows, columns):
        piece = weight[part].float()
        require_finite(name, piece)
        for start, stop, width in ((0, whole, inputs_per_scale), (whole, columns, columns - whole)):
            if start == stop:
                continue
            blocks = piece[:, start:stop].reshape(piece.shape[0], -1, width)
            found, best = _search_scales(blocks, bits, ratios, scales.dtype)
            first = start // inputs_per_scale
            scales[part, first : first + best.shape[1]] = best
            codes[part, start:stop] = found.reshape(piece.shape[0], -1).to(torch.int8)
    return RowCodes(codes, scales, bits, inputs_per_scale)


def nearest_codes(blocks: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Returns the nearest allowed code to blocks / scale, as float.

    At 2 bits only odd codes exist: the half-offset grid.
    """
    low, high = CODE_LIMITS[bits]
    if bits == 2:
        return (blocks / (2 * scale)).floor_().mul_(2).add_(1).clamp_(low, high)
    return (blocks / scale).round_().clamp_(low, high)


def _row_chunks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _CHUNK_WEIGHTS // max(columns, 1))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _search_scales(
    blocks: Tensor, bits: int, ratios: Sequence[float], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Finds codes and scales of `blocks` [R, G, S] by the rule of `quantize_rows`.

    Returns (codes float [R, G, S], scales [R, G] in `dtype`).
    """
    info = torch.finfo(dtype)
    # float16 scales may be subnormal
    smallest = info.smallest_normal * (info.eps if dtype == torch.float16 else 1.0)
    widest = blocks.abs().amax(dim=-1) / CODE_LIMITS[bits][1]
    power = blocks.square().sum(dim=-1)
    best_grid = torch.empty_like(widest)
    best_scale = torch.empty_like(widest)
    best_fit = torch.full_like(widest, -1.0)
    for ratio in ratios:
        grid = (widest * ratio).clamp(min=smallest, max=info.max).to(dtype).float()
        codes = nearest_codes(blocks, grid.unsqueeze(-1), bits)
        overlap = (codes * blocks).sum(dim=-1)
        length = codes.square_().sum(dim=-1).clamp(min=1.0)
        fit = overlap.square() / length
        scale = grid
        if len(ratios) > 1:
            scale = torch.minimum(power / overlap, MOST_GAIN * overlap / length).clamp(max=info.max)
            # also where overlap is 0; too coarse below
            scale = torch.where(scale >= info.smallest_normal, scale, grid)
        better = fit > best_fit
        best_fit = torch.where(better, fit, best_fit)
        best_grid = torch.where(better, grid, best_grid)
        best_scale = torch.where(better, scale, best_scale)
    return nearest_codes(blocks, best_grid.unsqueeze(-1), bits), best_scale.to(dtype)
