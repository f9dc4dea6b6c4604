"""Weights to codes and scales, one bit-width per output channel: what fake-quant and export both
read.

Two quantizers live here. `released_rtn` is the rounding of the published QVLA scripts, kept for
comparison. `quantize_rows` and `quantize_layer` are the ones that are exported: what they give back
is computed from the codes and scales as stored, so that the numbers evaluated are the numbers
written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from qvla_offline.finite import require_finite, require_representable
from qvla_ros.errors import QvlaError

BIT_WIDTHS = (0, 2, 4, 8, 16)
CODE_LIMITS = {2: (-3, 3), 4: (-8, 7), 8: (-127, 127)}
SCALE_TYPES = {"float16": torch.float16, "float32": torch.float32}
CLIP_RATIOS = tuple(np.linspace(1.0, 0.2, 25).round(4).tolist())
MOST_GAIN = 1.25
_CHUNK_WEIGHTS = (
    1 << 20
)  # the clip search walks the rows in pieces of about this size, which stay in the cache


@dataclass(frozen=True)
class QuantizationScheme:
    """How a row of a given bit-width is stored.

    group_size: inputs that share a scale at 2 and 4 bits (a power of two, 16 to 256, as the engines
    want it); 8-bit rows have one scale, because TensorRT has no blocked INT8. scale_dtype: stored
    type of the scales. two_bit_storage: 'int4' keeps 2-bit codes in an INT4 container (every engine
    reads it), 'int2' packs them.
    """

    group_size: int = 64
    clip_search: bool = True
    scale_dtype: str = "float16"
    two_bit_storage: str = "int4"

    def __post_init__(self) -> None:
        size = self.group_size
        if not isinstance(size, int) or not 16 <= size <= 256 or size & (size - 1):
            raise QvlaError(
                "scheme.group_size", size, "a power of two from 16 to 256", "set group_size: 64"
            )
        if self.scale_dtype not in SCALE_TYPES:
            raise QvlaError(
                "scheme.scale_dtype", self.scale_dtype, f"one of {list(SCALE_TYPES)}", "use float16"
            )
        if self.two_bit_storage not in ("int4", "int2"):
            raise QvlaError(
                "scheme.two_bit_storage", self.two_bit_storage, "'int4' or 'int2'", "use int4"
            )

    def scales_per_row(self, columns: int, bits: int) -> int:
        """Stored scales of one row: none at 0 and 16 bits, one at 8, one per group of inputs below."""
        if bits in (0, 16):
            return 0
        return 1 if bits == 8 else -(-columns // self.group_size)

    def row_bits(self, columns: int, bits: int) -> int:
        """Bits of one row's codes and scales. What its container takes is for
        qvla_offline.gates.costs to say.
        """
        return columns * bits + torch.finfo(
            SCALE_TYPES[self.scale_dtype]
        ).bits * self.scales_per_row(columns, bits)


def require_exact_scales(scheme: QuantizationScheme, compute_dtype: str) -> None:
    """QvlaError if a graph that computes in `compute_dtype` would round the scales, which it holds
    in that type.

    Then its numbers would no longer be those of the fake-quantized checkpoint.
    """
    if (scheme.scale_dtype, compute_dtype) == ("float32", "float16"):
        found = "float32 with compute_dtype float16"
        expected = "scales that the compute dtype holds exactly"
        raise QvlaError(
            "scheme.scale_dtype",
            found,
            expected,
            "set scale_dtype: float16, or compute_dtype: float32",
        )


@dataclass(frozen=True)
class RowCodes:
    """Quantized rows: weight[r, c] = codes[r, c] * scales[r, c // inputs_per_scale]. The last group
    may be ragged.

    codes: int8 [R, C]; scales: the scheme's scale type [R, G], always positive; bits: 2, 4 or 8.
    """

    codes: Tensor
    scales: Tensor
    bits: int
    inputs_per_scale: int

    def dequantize(self) -> Tensor:
        """float32 [R, C]: products of integers and stored scales, so exact but for float32
        rounding.
        """
        scales = self.scales.float().repeat_interleave(self.inputs_per_scale, dim=1)[
            :, : self.codes.shape[1]
        ]
        return self.codes.float() * scales


@dataclass(frozen=True)
class QuantizedLayer:
    """One layer split by bit-width.

    shape: (R, C). rows: {bits: int64 [n] output channels, ascending} for every bit-width present, 0
    and 16 included. codes: {bits: RowCodes of those rows} for 2, 4 and 8. float16_rows: float16
    [n16, C].
    """

    shape: tuple[int, int]
    scheme: QuantizationScheme
    rows: dict[int, Tensor]
    codes: dict[int, RowCodes]
    float16_rows: Tensor

    def dequantize(self) -> Tensor:
        """float32 [R, C]; rows of 0 bits are zero."""
        weight = torch.zeros(self.shape, dtype=torch.float32)
        for bits, codes in self.codes.items():
            weight[self.rows[bits]] = codes.dequantize()
        if 16 in self.rows:
            weight[self.rows[16]] = self.float16_rows.float()
        return weight

    def with_rows(self, index: Tensor, other: QuantizedLayer) -> QuantizedLayer:
        """This layer with the rows `index` (int64, ascending) replaced by all those of `other`, in
        order.
        """
        stays = torch.ones(self.shape[0], dtype=torch.bool)
        stays[index] = False
        rows = {}
        codes = {}
        kept = self.float16_rows
        for b in sorted(set(self.rows) | set(other.rows)):
            own = self.rows.get(b, index[:0])
            new = other.rows.get(b, index[:0])
            staying = stays[own]
            joined = torch.cat([own[staying], index[new]])
            order = joined.argsort()
            if len(joined):
                rows[b] = joined[order]
            if b == 16:
                kept = torch.cat([self.float16_rows[staying], other.float16_rows])[order]
            elif b and len(joined):
                parts = [(self.codes.get(b), staying), (other.codes.get(b), slice(None))]
                there = [(part, which) for part, which in parts if part is not None]
                joint = [
                    torch.cat([getattr(p, name)[w] for p, w in there])[order]
                    for name in ("codes", "scales")
                ]
                codes[b] = replace(there[0][0], codes=joint[0], scales=joint[1])
        return QuantizedLayer(self.shape, self.scheme, rows, codes, kept)

    def nominal_bits(self) -> int:
        """Bits of codes and scales together, 2-bit codes counted as 2."""
        return sum(
            rows.numel() * self.scheme.row_bits(self.shape[1], bits)
            for bits, rows in self.rows.items()
        )


def quantize_rows(
    weight: Tensor, bits: int, scheme: QuantizationScheme, name: str = "weight"
) -> RowCodes:
    """Codes and scales of every row of `weight` [R, C] at 2, 4 or 8 bits. name: of the tensor, for
    errors.

    With scheme.clip_search, a group w takes the codes q, over a grid of clip ratios, that point
    most nearly its way (largest cosine, which is the least squared error at the best scale), and
    the scale s at which s q overlaps with w as w does with itself: <s q, w> = <w, w>. The
    least-squares scale is smaller by the square of the cosine; it shrinks the output of every
    channel alike, errors that add up through a network instead of averaging out (at 2 bits by an
    eighth; measured, half to two thirds of the action error). At most MOST_GAIN times the
    least-squares scale: a group with one huge outlier at 2 bits is better left small. Without the
    search the largest magnitude is kept and the nearest codes taken. An all-zero group gets the
    smallest positive scale.
    """
    if bits not in CODE_LIMITS:
        raise QvlaError(
            "bits",
            bits,
            f"one of {list(CODE_LIMITS)}",
            "0 and 16 bits have no codes: use quantize_layer",
        )
    rows, columns = weight.shape
    inputs_per_scale = columns if bits == 8 else scheme.group_size
    codes = torch.empty((rows, columns), dtype=torch.int8, device=weight.device)
    groups = 1 if bits == 8 else scheme.scales_per_row(columns, bits)
    scales = torch.empty(
        (rows, groups), dtype=SCALE_TYPES[scheme.scale_dtype], device=weight.device
    )
    ratios = CLIP_RATIOS if scheme.clip_search else (1.0,)
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


def quantize_layer(
    weight: Tensor,
    row_bits: Tensor | np.ndarray | Sequence[int],
    scheme: QuantizationScheme,
    name: str = "weight",
) -> QuantizedLayer:
    """Quantize each output channel of `weight` [R, C] (a convolution flattened from dim 1) at its
    own bit-width.

    name: of the tensor, for errors.
    """
    bits = np.asarray(row_bits, dtype=np.int64)
    unknown = sorted(set(bits.tolist()) - set(BIT_WIDTHS))
    if unknown or bits.shape != (weight.shape[0],):
        raise QvlaError(
            "row_bits",
            f"{bits.shape} with {unknown or 'known'} bit-widths",
            f"{weight.shape[0]} values out of {list(BIT_WIDTHS)}",
            "assign the gates again for this checkpoint",
        )
    rows = {int(b): torch.from_numpy(np.flatnonzero(bits == b)) for b in np.unique(bits)}
    codes = {
        b: quantize_rows(weight[index], b, scheme, name)
        for b, index in rows.items()
        if b in CODE_LIMITS
    }
    kept = weight[rows.get(16, torch.empty(0, dtype=torch.int64))].float()
    require_finite(name, kept)
    require_representable(
        name, kept, torch.float16, "give the layer 8 bits: its 16-bit rows are float16"
    )
    return QuantizedLayer((weight.shape[0], weight.shape[1]), scheme, rows, codes, kept.half())


def reconstruct_rows(
    weight: Tensor, bits: int, scheme: QuantizationScheme, name: str = "weight"
) -> Tensor:
    """float32 [R, C]: every row of `weight` as it comes back from storage at `bits` (0 gives zeros,
    16 float16).

    name: of the tensor, for errors.
    """
    if bits == 0:
        return torch.zeros_like(weight, dtype=torch.float32)
    if bits == 16:
        return weight.half().float()
    return quantize_rows(weight, bits, scheme, name).dequantize()


def released_rtn(weight: Tensor, bits: int, floor: float = 1e-6) -> Tensor:
    """Round-to-nearest of the released QVLA scripts, per row, in the dtype of `weight` [R, C].

    Their sensitivity script calls it on float32 with floor 1e-6; their injection script on the
    checkpoint's own dtype with floor 1e-8 (in bfloat16 about an eighth of the codes differ). The
    scale is max|w| / (2^(bits-1) - 1), so 2 bits give the three values -m, 0 and m. One bit would
    divide by zero there, and is refused here.
    """
    if bits >= 16:
        return weight
    if bits <= 0:
        return torch.zeros_like(weight)
    if bits == 1:
        raise QvlaError(
            "bits", 1, "0 or 2 to 16", "drop 1 from --bits: the released rule divides by zero there"
        )
    highest = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=floor) / highest
    return torch.clamp(torch.round(weight / scale), -highest - 1, highest) * scale


def _row_chunks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _CHUNK_WEIGHTS // max(columns, 1))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _search_scales(
    blocks: Tensor, bits: int, ratios: Sequence[float], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """(codes float [R, G, S], scales [R, G] in `dtype`) of `blocks` [R, G, S] by the rule of
    `quantize_rows`.
    """
    info = torch.finfo(dtype)
    smallest = info.smallest_normal * (
        info.eps if dtype == torch.float16 else 1.0
    )  # float16 scales may be subnormal
    widest = blocks.abs().amax(dim=-1) / CODE_LIMITS[bits][1]
    power = blocks.square().sum(dim=-1)
    best_grid = torch.empty_like(widest)
    best_scale = torch.empty_like(widest)
    best_fit = torch.full_like(widest, -1.0)
    for ratio in ratios:
        grid = (widest * ratio).clamp(min=smallest, max=info.max).to(dtype).float()
        codes = _nearest_codes(blocks, grid.unsqueeze(-1), bits)
        overlap = (codes * blocks).sum(dim=-1)
        length = codes.square_().sum(dim=-1).clamp(min=1.0)
        fit = overlap.square() / length
        scale = grid
        if len(ratios) > 1:
            scale = torch.minimum(power / overlap, MOST_GAIN * overlap / length).clamp(max=info.max)
            scale = torch.where(
                scale >= info.smallest_normal, scale, grid
            )  # also where overlap is 0; too coarse below
        better = fit > best_fit
        best_fit = torch.where(better, fit, best_fit)
        best_grid = torch.where(better, grid, best_grid)
        best_scale = torch.where(better, scale, best_scale)
    return _nearest_codes(blocks, best_grid.unsqueeze(-1), bits), best_scale.to(dtype)


def _nearest_codes(blocks: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Nearest allowed code to blocks / scale, as float. At 2 bits only odd codes exist: the
    half-offset grid.
    """
    low, high = CODE_LIMITS[bits]
    if bits == 2:
        return (blocks / (2 * scale)).floor_().mul_(2).add_(1).clamp_(low, high)
    return (blocks / scale).round_().clamp_(low, high)
