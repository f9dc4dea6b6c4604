"""The interface of every quantizer, and the functions by which the other code asks one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from qvla_offline.quantization.layer import CODE_LIMITS, QuantizedLayer
from qvla_offline.quantization.registry import QUANTIZERS
from qvla_offline.quantization.scheme import BIT_WIDTHS, QuantizationScheme
from qvla_ros.errors import QvlaError


@dataclass(frozen=True)
class LayerStatistics:
    """Statistics of a layer's inputs x [C] and gradients, which a quantizer may ask for.

    samples: number of inputs x that were summed. input_hessian: float [C, C], sum of x x^T.
    input_mean: float [C]. gradient_weighted_hessian: float [C, C], sum of g^2 x x^T with g the
    gradient of the actions at the layer's output. input_magnitude, input_maximum: float [C], mean
    and maximum of |x|. None where it was not gathered.
    """

    samples: int
    input_hessian: Tensor | None = None
    input_mean: Tensor | None = None
    gradient_weighted_hessian: Tensor | None = None
    input_magnitude: Tensor | None = None
    input_maximum: Tensor | None = None


GATHER = (
    "gather them with `qvla statistics --out_dir DIR` and name them with --statistics DIR, or "
    "choose a quantizer that needs none, e.g. --quantizer clip_search"
)
# {module: its statistics}, for the quantizers that need none
NO_STATISTICS: Mapping[str, LayerStatistics] = MappingProxyType({})


@runtime_checkable
class Quantizer(Protocol):
    """The base class of a way to choose codes and scales; it is made with a scheme.

    needs: names of the LayerStatistics that `quantize` reads. corrects_bias: whether a layer that
    it makes may have a bias_correction. scales_inputs: whether it may have input_scales, which are
    chosen for all rows of a layer together: such a quantizer cannot score rows alone, and no bundle
    holds its layers.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    corrects_bias: ClassVar[bool] = False
    scales_inputs: ClassVar[bool] = False

    def quantize(
        self, name: str, weight: Tensor, bits: np.ndarray, statistics: LayerStatistics | None
    ) -> QuantizedLayer:
        """Quantizes each output channel of `weight` [R, C] at its own bit-width, on its device.

        name: of the tensor, for errors. weight: in the dtype of the checkpoint. bits: int64 [R],
        out of BIT_WIDTHS. statistics: holds what `needs` names; None if that is empty, or no row
        has codes (2 to 8 bits). Unless it `scales_inputs`, rows depend on no other row: a part of
        the rows gives a part of the result. Raises QvlaError where a weight is not finite or not
        representable.
        """
        ...


def quantizer_of(scheme: QuantizationScheme) -> Quantizer:
    """Returns the quantizer that `scheme` names."""
    module, _, kind = QUANTIZERS[scheme.quantizer].partition(":")
    quantizer: Quantizer = getattr(import_module(module), kind)(scheme)
    return quantizer


def require_rows_alone(scheme: QuantizationScheme) -> None:
    """Raises QvlaError for a quantizer that scales inputs: it has no error of a row alone."""
    if quantizer_of(scheme).scales_inputs:
        raise QvlaError(
            "scheme.quantizer",
            f"{scheme.quantizer}, which scales the inputs of all rows of a layer together",
            "one that treats each row alone, to score rows and to choose bits",
            "choose the bits with another --quantizer, and give this one to `qvla error` or "
            "`qvla fakequant`",
        )


def require_plain_inputs(scheme: QuantizationScheme) -> None:
    """Raises QvlaError for a quantizer whose layers need their inputs scaled in the graph."""
    if quantizer_of(scheme).scales_inputs:
        raise QvlaError(
            "scheme.quantizer",
            f"{scheme.quantizer}, whose codes are for inputs that are divided by its scales",
            "one whose layers take their inputs as they are: the graph holds no such division",
            "export with another --quantizer; `qvla error` and `qvla fakequant` take this one",
        )


def quantize_layer(
    weight: Tensor,
    row_bits: Tensor | np.ndarray | Sequence[int],
    scheme: QuantizationScheme,
    name: str = "weight",
    statistics: LayerStatistics | None = None,
) -> QuantizedLayer:
    """Quantizes each output channel of `weight` [R, C] at its own bit-width.

    The scheme names the quantizer. weight: a convolution is flattened from dim 1. name: of the
    tensor, for errors. statistics: for the quantizers that need them; rows of 0 and 16 bits need
    none.
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
    quantizer = quantizer_of(scheme)
    missing = [need for need in sorted(quantizer.needs) if getattr(statistics, need, None) is None]
    if missing and np.isin(bits, list(CODE_LIMITS)).any():
        raise QvlaError(
            f"statistics of {name}",
            f"no {', '.join(missing)}",
            f"what quantizer {scheme.quantizer} reads of the calibration samples",
            GATHER,
        )
    return quantizer.quantize(name, weight, bits, statistics)


def reconstruct_rows(
    weight: Tensor,
    bits: int,
    scheme: QuantizationScheme,
    name: str = "weight",
    statistics: LayerStatistics | None = None,
) -> Tensor:
    """Returns every row of `weight` as it comes back from storage at `bits`, float32 [R, C].

    0 bits give zeros, 16 bits float16. name: of the tensor, for errors. A correction of the bias is
    left out: first-order scores are those of the weights.
    """
    if bits == 0:
        return torch.zeros_like(weight, dtype=torch.float32)
    row_bits = np.full(weight.shape[0], bits)
    return quantize_layer(weight, row_bits, scheme, name, statistics).dequantize()
